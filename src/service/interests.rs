//! Which resources are interested in which nodes (§9.2), as long as they are there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::Jid;

use crate::pubsub::{NodeId, op::auto_subscribe};

use super::{Error, Service, domains::Domains};

/// Resources whose interests are known. Those of more are not looked at.
const MAX_RESOURCES: usize = 200_000;
/// Nodes in which one resource can be interested.
pub const MAX_INTERESTS: usize = 32;

/// The interests of resources.
#[derive(Debug, Default)]
pub struct Interests(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// Each with what tells its capabilities, the question that is not answered yet, and its nodes.
    resources: BTreeMap<String, Resource>,
    nodes: HashMap<NodeId, HashSet<Jid>>,
    /// The places of resources.
    domains: Domains,
}

impl Default for Known {
    fn default() -> Self {
        let (resources, nodes) = (BTreeMap::new(), HashMap::new());
        Self { resources, nodes, domains: Domains::new(MAX_RESOURCES) }
    }
}

#[derive(Debug, Default)]
struct Resource {
    capabilities: String,
    asked: Option<String>,
    nodes: Vec<NodeId>,
}

impl Interests {
    /// A resource is there that says what it can; whether it has to be asked what that is, with this question.
    #[must_use]
    pub fn note(&self, jid: &Jid, capabilities: &str, question: &str) -> bool {
        let mut known = self.known();
        let is_one_more = !known.resources.contains_key(jid.as_str());
        if is_one_more && !known.domains.take(jid.domain().as_str()) {
            return false;
        }
        let resource = known.resources.entry(jid.to_string()).or_default();
        if !is_one_more && resource.capabilities == capabilities {
            return false;
        }
        capabilities.clone_into(&mut resource.capabilities);
        resource.asked = Some(question.to_owned());
        true
    }

    /// Whether a resource was asked this, and has not answered.
    #[must_use]
    pub fn awaits(&self, jid: &Jid, question: &str) -> bool {
        let known = self.known();
        known.resources.get(jid.as_str()).is_some_and(|of| of.asked.as_deref() == Some(question))
    }

    /// A resource has gone; with a bare JID all of that entity have.
    pub fn remove(&self, jid: &Jid) {
        let mut known = self.known();
        if jid.is_bare() {
            // Those of all its resources; `0` follows `/`.
            let all = format!("{jid}/")..format!("{jid}0");
            let resources: Vec<_> = known.resources.range(all).map(|(of, _)| of.clone()).collect();
            resources.iter().for_each(|resource| known.forget(resource, jid));
        } else {
            known.forget(jid.as_str(), jid);
        }
    }

    /// On a new connection nothing is known.
    pub fn forget(&self) {
        *self.known() = Known::default();
    }

    /// A resource is interested in these nodes, and no others. Says which of them are new.
    fn set(&self, jid: &Jid, nodes: Vec<NodeId>) -> Vec<NodeId> {
        let mut known = self.known();
        let Some(mut resource) = known.remove(jid.as_str()) else { return Vec::new() };
        let before = std::mem::replace(&mut resource.nodes, nodes);
        resource.asked = None;
        for node in &resource.nodes {
            known.nodes.entry(node.clone()).or_default().insert(jid.clone());
        }
        let new = resource.nodes.iter().filter(|node| !before.contains(node)).cloned().collect();
        known.resources.insert(jid.to_string(), resource);
        new
    }

    /// Who is interested in a node.
    pub(super) fn at(&self, node: &NodeId) -> Vec<Jid> {
        let known = self.known();
        known.nodes.get(node).map(|jids| jids.iter().cloned().collect()).unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, resource: &str, jid: &Jid) {
        if self.remove(resource).is_some() {
            self.domains.give_back(jid.domain().as_str());
        }
    }

    fn remove(&mut self, jid: &str) -> Option<Resource> {
        let resource = self.resources.remove(jid)?;
        for node in &resource.nodes {
            if let Some(jids) = self.nodes.get_mut(node) {
                jids.retain(|other| other.as_str() != jid);
                if jids.is_empty() {
                    self.nodes.remove(node);
                }
            }
        }
        Some(resource)
    }
}

impl Service {
    /// Who is interested in what.
    #[must_use]
    pub fn interests(&self) -> &Interests {
        &self.memory.interests
    }

    /// A resource is interested in these nodes, of which at most [`MAX_INTERESTS`] count. It is sent the last items
    /// of new ones.
    pub async fn interested(&self, jid: &Jid, mut nodes: Vec<NodeId>) {
        nodes.truncate(MAX_INTERESTS);
        for node in self.memory.interests.set(jid, nodes) {
            // What cannot be read now is not sent.
            let _ = self.send_last_to(&node, jid).await;
        }
    }

    async fn send_last_to(&self, id: &NodeId, jid: &Jid) -> Result<(), Error> {
        let mut turn = self.settled_turn(id).await?;
        if turn.node().is_some_and(|node| node.config.send_last_published_item.is_on_sub()) {
            let last = self.last_item(&mut turn).await?;
            let sent =
                turn.node().and_then(|node| auto_subscribe::last(node, jid, last.as_deref()));
            self.tell_at_once(&mut turn, sent.into_iter().collect());
        }
        Ok(())
    }
}
