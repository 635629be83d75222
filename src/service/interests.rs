//! Which resources are interested in which nodes (§9.2), as long as they are there.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use jid::Jid;
use tokio::sync::Notify;

use crate::pubsub::{
    Context, NodeId, Recipients,
    op::auto_subscribe::{self, InterestedResource},
};

use super::{
    Error, Policies, Service, domains::Domains, facts::Need, memory::Memory, nodes::Turn,
    retries::PresenceTask,
};

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
    nodes: HashMap<NodeId, NodeInterests>,
    /// Number of changes to these.
    version: u64,
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

/// The interests in a node.
#[derive(Debug, Default)]
struct NodeInterests {
    /// The interested resources, and whether a roster gives them access.
    resources: HashMap<Jid, Option<bool>>,
    /// Number of the last change.
    version: u64,
    /// The resources with an implicit subscription; computed when first needed after a change.
    implicit: Option<Implicit>,
}

/// The resources with an implicit subscription to a node, and what they depend on besides interests.
#[derive(Debug)]
struct Implicit {
    lists: Vec<Recipients>,
    basis: Basis,
}

/// What implicit subscriptions to a node depend on besides interests: its access rules and subscriptions, and the
/// administrators.
#[derive(Clone, Debug)]
struct Basis {
    access: Weak<()>,
    policies: Weak<Policies>,
}

impl Basis {
    fn is(&self, other: &Self) -> bool {
        self.access.ptr_eq(&other.access) && self.policies.ptr_eq(&other.policies)
    }
}

impl Default for Known {
    fn default() -> Self {
        Self {
            resources: BTreeMap::new(),
            nodes: HashMap::new(),
            version: 0,
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
        let Some(resource) = known.resources.get_mut(jid.as_str()) else { return Vec::new() };
        let before = std::mem::replace(&mut resource.nodes, nodes.clone());
        resource.asked = None;
        let gone: Vec<_> = before.iter().filter(|node| !nodes.contains(node)).cloned().collect();
        known.withdraw(jid, &gone);
        let new: Vec<_> = nodes.into_iter().filter(|node| !before.contains(node)).collect();
        known.declare(jid, &new);
        new
    }

    /// The nodes of a resource's implicit subscriptions.
    pub(super) fn of(&self, jid: &Jid) -> Vec<NodeId> {
        let known = self.known();
        known.resources.get(jid.as_str()).map(|of| of.nodes.clone()).unwrap_or_default()
    }

    /// Returns `true` if a resource is interested in a node.
    pub(super) fn is_any_at(&self, node: &NodeId) -> bool {
        self.known().nodes.contains_key(node)
    }

    /// The number of the last change of the interests in a node, and the resources with an implicit subscription if
    /// they are known. `None` if no resource is interested.
    fn implicit_at(&self, node: &NodeId, basis: &Basis) -> Option<(u64, Option<Vec<Recipients>>)> {
        let known = self.known();
        let NodeInterests { version, implicit, .. } = known.nodes.get(node)?;
        let implicit = implicit.as_ref().filter(|implicit| implicit.basis.is(basis));
        Some((*version, implicit.map(|implicit| implicit.lists.clone())))
    }

    /// Keeps the resources with an implicit subscription to a node, unless its interests have changed since this change.
    fn set_implicit(&self, node: &NodeId, version: u64, implicit: Implicit) {
        let mut known = self.known();
        let interests = known.nodes.get_mut(node).filter(|interests| interests.version == version);
        if let Some(interests) = interests {
            interests.implicit = Some(implicit);
        }
    }

    /// The resources that are interested in a node.
    pub(super) fn at(&self, node: &NodeId) -> Vec<InterestedResource> {
        let known = self.known();
        let all = known.nodes.get(node).into_iter().flat_map(|interests| &interests.resources);
        let resource = |(jid, is_admitted): (&Jid, &Option<bool>)| InterestedResource {
            jid: jid.clone(),
            is_admitted: *is_admitted,
        };
        all.map(resource).collect()
    }

    /// A resource, if it is interested in a node.
    fn one_at(&self, node: &NodeId, jid: &Jid) -> Option<InterestedResource> {
        let known = self.known();
        let is_admitted = *known.nodes.get(node)?.resources.get(jid)?;
        Some(InterestedResource { jid: jid.clone(), is_admitted })
    }

    /// Records whether rosters give resources access to a node. The caller holds the turn of the node.
    pub(super) fn set_admitted(&self, node: &NodeId, resources: &[InterestedResource]) {
        let mut known = self.known();
        let Known { nodes, version, .. } = &mut *known;
        let Some(interests) = nodes.get_mut(node) else { return };
        for InterestedResource { jid, is_admitted } in resources {
            if let Some(known) = interests.resources.get_mut(jid) {
                *known = *is_admitted;
                interests.change(version);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remove(&mut self, name: &str) {
        if let Some(Resource { jid, nodes, .. }) = self.resources.remove(name) {
            self.domains.give_back(jid.domain().as_str());
            self.withdraw(&jid, &nodes);
        }
    }

    /// Adds a resource to the interests in these nodes.
    fn declare(&mut self, jid: &Jid, nodes: &[NodeId]) {
        for node in nodes {
            let interests = self.nodes.entry(node.clone()).or_default();
            interests.resources.entry(jid.clone()).or_default();
            interests.change(&mut self.version);
        }
    }

    /// Removes a resource from the interests in these nodes.
    fn withdraw(&mut self, jid: &Jid, nodes: &[NodeId]) {
        for node in nodes {
            if let Some(interests) = self.nodes.get_mut(node) {
                interests.resources.remove(jid);
                interests.change(&mut self.version);
                if interests.resources.is_empty() {
                    self.nodes.remove(node);
                }
            }
        }
    }
}

impl NodeInterests {
    fn change(&mut self, version: &mut u64) {
        *version += 1;
        self.version = *version;
        self.implicit = None;
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

    /// The resources with an implicit subscription to a node, judged without rosters that were not applied.
    pub(super) fn implicit(
        &self,
        turn: &Turn,
        policies: &Arc<Policies>,
        cx: &Context<'_>,
    ) -> Vec<Recipients> {
        let Some(node) = turn.node() else { return Vec::new() };
        let interests = &self.memory.interests;
        let basis = Basis { access: turn.access(), policies: Arc::downgrade(policies) };
        match interests.implicit_at(&node.id, &basis) {
            None => Vec::new(),
            Some((_, Some(lists))) => lists,
            Some((version, None)) => {
                let lists = auto_subscribe::recipients(node, &interests.at(&node.id), cx);
                let implicit = Implicit { lists: lists.clone(), basis };
                interests.set_implicit(&node.id, version, implicit);
                lists
            }
        }
    }

    pub(super) async fn send_last_item(&self, id: &NodeId, jid: &Jid) -> Result<(), Error> {
        let interests = &self.memory.interests;
        if interests.one_at(id, jid).is_none() {
            return Ok(());
        }
        let (mut turn, contacts) = self.settled_turn_with_contacts(id).await?;
        let Some(mut resource) = interests.one_at(id, jid) else { return Ok(()) };
        let config = turn.node().map(|node| &node.config);
        if config.is_some_and(|config| config.access_model.reads_rosters()) {
            // From now on its rosters are read again and again.
            self.memory.deadlines.add(id, (self.clock)());
        }
        let last = match config.is_some_and(|config| config.send_last_published_item.is_on_sub()) {
            true => self.last_item(&mut turn).await?,
            false => None,
        };
        let policies = self.policies();
        let cx = self.context_with(&policies, id, &self.nobody, contacts.as_deref());
        let is_admitted = |node| auto_subscribe::is_admitted(node, &resource, &cx);
        resource.is_admitted = Some(turn.node().is_some_and(is_admitted));
        let of_one = std::slice::from_ref(&resource);
        interests.set_admitted(id, of_one);
        let sent = turn.node().map(|node| auto_subscribe::last(node, of_one, last.as_deref(), &cx));
        self.tell_at_once(&mut turn, sent.unwrap_or_default());
        Ok(())
    }

    /// Applies the roster of a node's owner to implicit subscriptions, if it is known (§12.2): resources that gain
    /// access receive the last item, and those that lose it receive no pending notification.
    pub(super) async fn apply_rosters(&self, id: &NodeId) -> Result<(), Error> {
        let Memory { interests, outbox, .. } = &*self.memory;
        let (mut turn, contacts) = self.settled_turn_for(id, &Need::Time).await?;
        let policies = self.policies();
        let cx = self.context_with(&policies, id, &self.nobody, contacts.as_deref());
        let Some(node) = turn.node().filter(|node| node.config.access_model.reads_rosters()) else {
            outbox.note_rosters(id);
            return Ok(());
        };
        if contacts.is_none() {
            return Ok(());
        }
        let mut revoked = outbox.interested(node.epoch);
        revoked.retain(|jid| auto_subscribe::is_revoked(node, jid, &cx));
        if !revoked.is_empty() {
            let recorded = self.store.revoke_implicit(id, revoked.clone()).await;
            outbox.leave_out(node.epoch, revoked.iter());
            recorded.map_err(|error| self.memory.failed_at(id, error))?;
        }
        outbox.note_rosters(id);
        let checked = auto_subscribe::checked(node, &interests.at(id), &cx);
        let sends = node.config.send_last_published_item.is_on_sub();
        let gained = |resource: &&InterestedResource| resource.is_admitted == Some(true);
        let gained: Vec<_> = checked.iter().filter(gained).cloned().collect();
        let last = match sends && !gained.is_empty() {
            true => self.last_item(&mut turn).await?,
            false => None,
        };
        interests.set_admitted(id, &checked);
        let sent =
            turn.node().map(|node| auto_subscribe::last(node, &gained, last.as_deref(), &cx));
        self.tell_at_once(&mut turn, sent.unwrap_or_default());
        Ok(())
    }
}
