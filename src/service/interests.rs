//! Which resources are interested in which nodes (§9.2), as long as they are there.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::Jid;
use tokio::sync::Notify;

use crate::pubsub::{NodeId, op::auto_subscribe};

use super::{Error, Service, domains::Domains, retries::PresenceTask};

/// Resources whose interests are known, and those of one entity. Those of more are not looked at.
const MAX_RESOURCES: usize = 100_000;
const MAX_OF_ONE: usize = 8;
/// Nodes in which one resource can be interested, and the bytes of their names.
pub const MAX_INTERESTS: usize = 32;
const MAX_NAMES_BYTES: usize = 2048;

/// The interests of resources.
#[derive(Debug, Default)]
pub struct Interests {
    known: Mutex<Known>,
    again: Notify,
}

#[derive(Debug)]
struct Known {
    resources: BTreeMap<String, Resource>,
    nodes: HashMap<NodeId, HashSet<Jid>>,
    /// Who is asked again after a connection broke.
    unasked: VecDeque<Jid>,
    /// The places of resources.
    domains: Domains,
}

#[derive(Debug)]
struct Resource {
    jid: Jid,
    /// What tells its capabilities.
    capabilities: String,
    /// The question that is not answered yet.
    asked: Option<String>,
    nodes: Vec<NodeId>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            resources: BTreeMap::new(),
            nodes: HashMap::new(),
            unasked: VecDeque::new(),
            domains: Domains::new(MAX_RESOURCES),
        }
    }
}

impl Interests {
    /// How many resources are known.
    pub(super) fn len(&self) -> usize {
        self.known().resources.len()
    }

    /// A resource is there that says what it can; whether it has to be asked what that is, with this question.
    #[must_use]
    pub fn note(&self, jid: &Jid, capabilities: &str, question: &str) -> bool {
        let mut known = self.known();
        if let Some(resource) = known.resources.get_mut(jid.as_str()) {
            let is_news = resource.capabilities != capabilities;
            if is_news {
                capabilities.clone_into(&mut resource.capabilities);
                resource.asked = Some(question.to_owned());
            }
            return is_news;
        }
        if known.resources.range(of_entity(jid)).count() >= MAX_OF_ONE
            || !known.domains.take(jid.domain().as_str())
        {
            return false;
        }
        let resource = Resource {
            jid: jid.clone(),
            capabilities: capabilities.to_owned(),
            asked: Some(question.to_owned()),
            nodes: Vec::new(),
        };
        known.resources.insert(jid.to_string(), resource);
        true
    }

    /// Whether a resource was asked this, and has not answered.
    #[must_use]
    pub fn awaits(&self, jid: &Jid, question: &str) -> bool {
        let known = self.known();
        known.resources.get(jid.as_str()).is_some_and(|of| of.asked.as_deref() == Some(question))
    }

    /// A question was not answered, for now: it is asked again when the resource sends presence again.
    pub fn failed(&self, jid: &Jid) {
        if let Some(resource) = self.known().resources.get_mut(jid.as_str()) {
            resource.asked = None;
            resource.capabilities.clear();
        }
    }

    /// A resource has gone; with a bare JID all of that entity have.
    pub fn remove(&self, jid: &Jid) {
        let mut known = self.known();
        if jid.is_bare() {
            let own = known.resources.range(of_entity(jid)).map(|(name, _)| name.clone());
            own.collect::<Vec<_>>().iter().for_each(|name| known.remove(name));
        } else {
            known.remove(jid.as_str());
        }
    }

    /// Marks all resources for a new capability query on a new connection, and returns them.
    #[must_use]
    pub fn doubt(&self) -> Vec<Jid> {
        let mut known = self.known();
        let Known { resources, unasked, .. } = &mut *known;
        *unasked = resources.values().map(|resource| resource.jid.clone()).collect();
        let asked = unasked.iter().cloned().collect();
        drop(known);
        self.again.notify_one();
        asked
    }

    /// Waits for a resource that has to be asked again, and says what tells its capabilities.
    pub async fn doubted(&self) -> (Jid, String) {
        loop {
            {
                let mut known = self.known();
                while let Some(jid) = known.unasked.pop_front() {
                    if let Some(resource) = known.resources.get(jid.as_str()) {
                        return (jid, resource.capabilities.clone());
                    }
                }
            }
            self.again.notified().await;
        }
    }

    /// A resource is asked this.
    pub fn ask(&self, jid: &Jid, question: &str) {
        if let Some(resource) = self.known().resources.get_mut(jid.as_str()) {
            resource.asked = Some(question.to_owned());
        }
    }

    /// A resource is interested in these nodes, and no others. Says which of them are new.
    fn set(&self, jid: &Jid, nodes: Vec<NodeId>) -> Vec<NodeId> {
        let mut known = self.known();
        let Known { resources, nodes: all, .. } = &mut *known;
        let Some(resource) = resources.get_mut(jid.as_str()) else { return Vec::new() };
        let before = std::mem::replace(&mut resource.nodes, nodes);
        resource.asked = None;
        withdraw(all, jid, &before);
        for node in &resource.nodes {
            all.entry(node.clone()).or_default().insert(jid.clone());
        }
        resource.nodes.iter().filter(|node| !before.contains(node)).cloned().collect()
    }

    /// The nodes of a resource's implicit subscriptions.
    pub(super) fn of(&self, jid: &Jid) -> Vec<NodeId> {
        let known = self.known();
        known.resources.get(jid.as_str()).map(|of| of.nodes.clone()).unwrap_or_default()
    }

    /// Whether a resource is interested in a node.
    pub(super) fn has(&self, jid: &Jid, node: &NodeId) -> bool {
        self.known().nodes.get(node).is_some_and(|jids| jids.contains(jid))
    }

    /// Whether anybody is.
    pub(super) fn is_any_at(&self, node: &NodeId) -> bool {
        self.known().nodes.contains_key(node)
    }

    /// Who is interested in a node.
    pub(super) fn at(&self, node: &NodeId) -> Vec<Jid> {
        let known = self.known();
        known.nodes.get(node).map(|jids| jids.iter().cloned().collect()).unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remove(&mut self, name: &str) {
        if let Some(Resource { jid, nodes, .. }) = self.resources.remove(name) {
            self.domains.give_back(jid.domain().as_str());
            withdraw(&mut self.nodes, &jid, &nodes);
        }
    }
}

fn withdraw(all: &mut HashMap<NodeId, HashSet<Jid>>, jid: &Jid, nodes: &[NodeId]) {
    for node in nodes {
        if let Some(jids) = all.get_mut(node) {
            jids.remove(jid);
            if jids.is_empty() {
                all.remove(node);
            }
        }
    }
}

/// The names of all resources of an entity; `0` follows `/`.
fn of_entity(jid: &Jid) -> Range<String> {
    let bare = jid.to_bare();
    format!("{bare}/")..format!("{bare}0")
}

impl Service {
    /// Who is interested in what.
    #[must_use]
    pub fn interests(&self) -> &Interests {
        &self.memory.interests
    }

    /// A resource that answered is interested in these nodes, of which at most [`MAX_INTERESTS`] count, and 2 KiB of names.
    /// It is sent the last items of new ones; of all, if it may have missed something since it was there before.
    pub async fn interested(&self, jid: &Jid, mut nodes: Vec<NodeId>) {
        nodes.truncate(MAX_INTERESTS);
        let mut bytes = 0;
        nodes.retain(|node| {
            bytes += node.as_str().len();
            bytes <= MAX_NAMES_BYTES
        });
        let has_missed = self.memory.presences.confirm(jid);
        let new = self.memory.interests.set(jid, nodes);
        if has_missed {
            self.do_or_retry(PresenceTask::Arrive { jid: jid.clone(), gone_since: None }).await;
            return;
        }
        for node in new {
            self.do_or_retry(PresenceTask::SendLastItem { node, jid: jid.clone() }).await;
        }
    }

    pub(super) async fn send_last_item(&self, id: &NodeId, jid: &Jid) -> Result<(), Error> {
        if !self.memory.interests.has(jid, id) {
            return Ok(());
        }
        let (mut turn, contacts) = self.settled_turn_with_contacts(id).await?;
        let Some(config) = turn.node().map(|node| &node.config) else { return Ok(()) };
        if config.access_model.reads_rosters() {
            // From now on its rosters are read again and again.
            self.memory.deadlines.add(id, (self.clock)());
        }
        if config.send_last_published_item.is_on_sub() {
            let last = self.last_item(&mut turn).await?;
            let policies = self.policies();
            let cx = self.context_with(&policies, id, &self.nobody, contacts.as_deref());
            let sent =
                turn.node().and_then(|node| auto_subscribe::last(node, jid, last.as_deref(), &cx));
            self.tell_at_once(&mut turn, sent.into_iter().collect());
        }
        Ok(())
    }
}
