//! Nodes in which available resources are interested, as the capabilities of the resources declare (§9.2).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::{Bound, Range},
    sync::{Mutex, MutexGuard, PoisonError, Weak},
};

use jid::{BareJid, Jid};
use tokio::sync::Notify;

use gjallar_pubsub::{
    NodeId, Recipients,
    op::auto_subscribe::{ImplicitSubscribers, InterestedResource},
};

use super::{
    PolicyTable, Service, domain_quota::DomainQuota, workers::presence_retries::PresenceTask,
};

/// Maximum number of resources with known interests. The capabilities of further resources are ignored.
const MAX_RESOURCES: usize = 100_000;
/// Maximum number of resources of one entity with known interests.
const MAX_OF_ONE: usize = 8;
/// Maximum number of nodes in which a resource can be interested.
pub const MAX_INTERESTS: usize = 32;
/// Maximum total bytes of the names of the nodes in which a resource can be interested.
const MAX_NAMES_BYTES: usize = 2048;
/// Maximum number of resources that are evaluated before other requests run.
pub(super) const PAGE: usize = 500;

/// Interests of resources in nodes.
#[derive(Debug, Default)]
pub struct CapsInterests {
    table: Mutex<InterestTable>,
    again: Notify,
}

#[derive(Debug)]
struct InterestTable {
    resources: BTreeMap<String, CapsResource>,
    nodes: HashMap<NodeId, NodeInterests>,
    /// Resources whose capabilities have to be queried again.
    unsent: VecDeque<Jid>,
    /// Quota of resources per domain.
    domains: DomainQuota,
}

#[derive(Debug)]
struct CapsResource {
    jid: Jid,
    /// Capabilities as announced in the presence of the resource.
    capabilities: String,
    /// Id of the capability query that is not answered yet.
    asked: Option<String>,
    /// `true` if the last capability query failed. It is repeated at the next presence of the resource.
    has_failed: bool,
    nodes: Vec<NodeId>,
}

impl CapsResource {
    fn ask(&mut self, question: &str) {
        (self.asked, self.has_failed) = (Some(question.to_owned()), false);
    }
}

/// Interests in a node.
#[derive(Debug, Default)]
struct NodeInterests {
    /// Interested resources. The value is `Some(true)` if a roster gave the resource access at the last check, and
    /// `None` before the first check.
    resources: BTreeMap<Jid, Option<bool>>,
    /// Resources with an implicit subscription; computed when first needed.
    implicit: Option<Implicit>,
}

/// Resources with an implicit subscription to a node. After a change of an interest or a subscription, only the
/// resources of that interest or subscription are evaluated again.
#[derive(Debug)]
struct Implicit {
    basis: Basis,
    subscribers: ImplicitSubscribers,
    /// Recipient lists of the resources with an implicit subscription; `None` if the lists have to be computed again.
    lists: Option<Vec<Recipients>>,
    /// Resources that have to be evaluated again.
    stale: BTreeSet<Jid>,
    /// Start of the interested resources, in the order of their JIDs, that were not yet added to `stale` for a first
    /// evaluation; `None` if all were added.
    rest: Option<Bound<Jid>>,
}

/// Weak pointers that identify the access rules of a node, and the table of policies and administrators, at the time of
/// an evaluation. If one of the two pointers has changed, all implicit subscriptions to the node are evaluated again.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    pub(super) access: Weak<()>,
    pub(super) policies: Weak<PolicyTable>,
}

impl Basis {
    fn is(&self, other: &Self) -> bool {
        self.access.ptr_eq(&other.access) && self.policies.ptr_eq(&other.policies)
    }
}

impl Implicit {
    fn new(basis: Basis) -> Self {
        Self {
            basis,
            subscribers: ImplicitSubscribers::default(),
            lists: None,
            stale: BTreeSet::new(),
            rest: Some(Bound::Unbounded),
        }
    }

    /// Records that a resource was evaluated; `is_implicit` is `true` if the resource has an implicit subscription.
    fn set(&mut self, jid: &Jid, is_implicit: bool) {
        self.stale.remove(jid);
        if self.subscribers.set(jid, is_implicit) {
            self.lists = None;
        }
    }
}

impl Default for InterestTable {
    fn default() -> Self {
        Self {
            resources: BTreeMap::new(),
            nodes: HashMap::new(),
            unsent: VecDeque::new(),
            domains: DomainQuota::new(MAX_RESOURCES),
        }
    }
}

impl CapsInterests {
    /// Returns the number of resources with known capabilities.
    pub(super) fn len(&self) -> usize {
        self.table().resources.len()
    }

    /// Records the announced capabilities of a resource. Returns `true` if a capability query with the id `question`
    /// has to be sent.
    #[must_use]
    pub fn on_caps(&self, jid: &Jid, capabilities: &str, question: &str) -> bool {
        let mut table = self.table();
        if let Some(resource) = table.resources.get_mut(jid.as_str()) {
            let has_to_be_asked = resource.has_failed || resource.capabilities != capabilities;
            if has_to_be_asked {
                capabilities.clone_into(&mut resource.capabilities);
                resource.ask(question);
            }
            return has_to_be_asked;
        }
        if table.resources.range(of_entity(jid)).count() >= MAX_OF_ONE
            || !table.domains.try_acquire(jid.domain().as_str())
        {
            return false;
        }
        let resource = CapsResource {
            jid: jid.clone(),
            capabilities: capabilities.to_owned(),
            asked: Some(question.to_owned()),
            has_failed: false,
            nodes: Vec::new(),
        };
        table.resources.insert(jid.to_string(), resource);
        true
    }

    /// Returns `true` if a resource has not answered the capability query `question`.
    #[must_use]
    pub fn is_pending(&self, jid: &Jid, question: &str) -> bool {
        let table = self.table();
        table.resources.get(jid.as_str()).is_some_and(|of| of.asked.as_deref() == Some(question))
    }

    /// Records that the capability query to a resource failed. It is repeated at the next presence of the resource.
    pub fn failed(&self, jid: &Jid) {
        if let Some(resource) = self.table().resources.get_mut(jid.as_str()) {
            (resource.asked, resource.has_failed) = (None, true);
        }
    }

    /// Removes an unavailable resource; with a bare JID, all resources of the entity.
    pub fn remove(&self, jid: &Jid) {
        let mut table = self.table();
        if jid.is_bare() {
            let own = table.resources.range(of_entity(jid)).map(|(name, _)| name.clone());
            own.collect::<Vec<_>>().iter().for_each(|name| table.remove(name));
        } else {
            table.remove(jid.as_str());
        }
    }

    /// Queues a new capability query to each known resource, and returns the resources. Called at the start of a
    /// connection.
    #[must_use]
    pub fn mark_stale(&self) -> Vec<Jid> {
        let mut table = self.table();
        let InterestTable { resources, unsent, .. } = &mut *table;
        *unsent = resources.values().map(|resource| resource.jid.clone()).collect();
        let asked = unsent.iter().cloned().collect();
        drop(table);
        self.again.notify_one();
        asked
    }

    /// Queues a capability query to a resource. Returns `false` if its presence named no capabilities.
    #[must_use]
    pub fn query_again(&self, jid: &Jid) -> bool {
        let mut table = self.table();
        if !table.resources.contains_key(jid.as_str()) {
            return false;
        }
        table.unsent.push_back(jid.clone());
        drop(table);
        self.again.notify_one();
        true
    }

    /// Waits until the capabilities of a resource have to be queried again. Returns the resource and its announced
    /// capabilities.
    pub async fn next_stale(&self) -> (Jid, String) {
        loop {
            {
                let mut table = self.table();
                while let Some(jid) = table.unsent.pop_front() {
                    if let Some(resource) = table.resources.get(jid.as_str()) {
                        return (jid, resource.capabilities.clone());
                    }
                }
            }
            self.again.notified().await;
        }
    }

    /// Records that a query was sent to a resource.
    pub fn ask(&self, jid: &Jid, question: &str) {
        if let Some(resource) = self.table().resources.get_mut(jid.as_str()) {
            resource.ask(question);
        }
    }

    /// Replaces the nodes in which a resource is interested. Returns the nodes in which it was not interested before.
    fn set(&self, jid: &Jid, nodes: Vec<NodeId>) -> Vec<NodeId> {
        let mut table = self.table();
        let Some(resource) = table.resources.get_mut(jid.as_str()) else { return Vec::new() };
        let before = std::mem::replace(&mut resource.nodes, nodes.clone());
        resource.asked = None;
        let gone: Vec<_> = before.iter().filter(|node| !nodes.contains(node)).cloned().collect();
        table.withdraw(jid, &gone);
        let new: Vec<_> = nodes.into_iter().filter(|node| !before.contains(node)).collect();
        table.declare(jid, &new);
        new
    }

    /// Returns the nodes in which a resource is interested.
    pub(super) fn of(&self, jid: &Jid) -> Vec<NodeId> {
        let table = self.table();
        table.resources.get(jid.as_str()).map(|of| of.nodes.clone()).unwrap_or_default()
    }

    /// Returns `true` if any resource is interested in a node.
    pub(super) fn is_any_at(&self, node: &NodeId) -> bool {
        self.table().nodes.contains_key(node)
    }

    /// Returns recipient lists of the evaluated resources that have an implicit subscription to a node.
    pub(super) fn implicit_at(&self, node: &NodeId) -> Vec<Recipients> {
        let mut table = self.table();
        let interests = table.nodes.get_mut(node);
        let Some(Implicit { subscribers, lists, .. }) =
            interests.and_then(|interests| interests.implicit.as_mut())
        else {
            return Vec::new();
        };
        lists.get_or_insert_with(|| subscribers.lists()).clone()
    }

    /// Returns the next resources, at most [`PAGE`], that have to be evaluated for an implicit subscription to a node.
    /// Returns none if all interested resources were evaluated with the access rules and policies of `basis`.
    pub(super) fn stale_at(&self, node: &NodeId, basis: &Basis) -> Vec<InterestedResource> {
        let mut table = self.table();
        let Some(NodeInterests { resources, implicit }) = table.nodes.get_mut(node) else {
            return Vec::new();
        };
        let implicit = match implicit {
            Some(implicit) if implicit.basis.is(basis) => implicit,
            other => other.insert(Implicit::new(basis.clone())),
        };
        if let Some(rest) = implicit.rest.take() {
            let page = resources.range((rest, Bound::Unbounded)).take(PAGE);
            let page: Vec<_> = page.map(|(jid, _)| jid.clone()).collect();
            implicit.rest = page.last().cloned().map(Bound::Excluded);
            implicit.stale.extend(page);
        }
        let stale = implicit.stale.iter().take(PAGE);
        stale.filter_map(|jid| Some(resource(resources.get_key_value(jid)?))).collect()
    }

    /// Records evaluated resources, each with `true` if it has an implicit subscription to a node. Ignores a resource
    /// whose interest, or access by a roster, has changed since the evaluation.
    pub(super) fn set_implicit(&self, node: &NodeId, evaluated: &[(InterestedResource, bool)]) {
        let mut table = self.table();
        let Some(NodeInterests { resources, implicit: Some(implicit) }) = table.nodes.get_mut(node)
        else {
            return;
        };
        for (InterestedResource { jid, is_admitted }, is_implicit) in evaluated {
            if resources.get(jid) == Some(is_admitted) {
                implicit.set(jid, *is_implicit);
            }
        }
    }

    /// Marks the interested resources of entities to be evaluated again for an implicit subscription to a node. The
    /// entities are the bare JIDs of `jids`, whose subscriptions to the node have changed.
    pub(super) fn mark_subscriptions_stale<'a>(
        &self,
        node: &NodeId,
        jids: impl Iterator<Item = &'a Jid>,
    ) {
        if !self.is_any_at(node) {
            return;
        }
        let entities: BTreeSet<BareJid> = jids.flat_map(|jid| jid.to_bare().spellings()).collect();
        let mut table = self.table();
        let InterestTable { resources, nodes, .. } = &mut *table;
        let interests = nodes.get_mut(node);
        let Some(implicit) = interests.and_then(|interests| interests.implicit.as_mut()) else {
            return;
        };
        for entity in entities {
            let own = interested_of(resources, &entity, node);
            implicit.stale.extend(own.map(|resource| resource.jid.clone()));
        }
    }

    /// Returns those of `jids` that have an interest in a node: full JIDs of interested resources, and bare JIDs of
    /// entities with an interested resource.
    pub(super) fn known_among<'a>(&self, node: &NodeId, jids: &[&'a Jid]) -> Vec<&'a Jid> {
        let table = self.table();
        let Some(interests) = table.nodes.get(node) else { return Vec::new() };
        let is_known = |jid: &&&Jid| match jid.is_bare() {
            true => interested_of(&table.resources, jid, node).next().is_some(),
            false => interests.resources.contains_key(**jid),
        };
        jids.iter().filter(is_known).copied().collect()
    }

    /// Returns the next resources interested in a node, at most [`PAGE`]: those after the resource `after`, or the
    /// first resources of the node.
    pub(super) fn page_at(&self, node: &NodeId, after: Option<&Jid>) -> Vec<InterestedResource> {
        let table = self.table();
        let Some(interests) = table.nodes.get(node) else { return Vec::new() };
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = interests.resources.range((first, Bound::Unbounded)).take(PAGE);
        page.map(resource).collect()
    }

    /// Returns a resource if it is interested in a node.
    pub(super) fn one_at(&self, node: &NodeId, jid: &Jid) -> Option<InterestedResource> {
        let table = self.table();
        let is_admitted = *table.nodes.get(node)?.resources.get(jid)?;
        Some(InterestedResource { jid: jid.clone(), is_admitted })
    }

    /// Records for each of the resources if a roster gives it access to a node (`is_admitted`). The caller has to hold
    /// the guard of the node.
    pub(super) fn set_admitted(&self, node: &NodeId, resources: &[InterestedResource]) {
        let mut table = self.table();
        let Some(interests) = table.nodes.get_mut(node) else { return };
        for InterestedResource { jid, is_admitted } in resources {
            if let Some(admitted) = interests.resources.get_mut(jid) {
                *admitted = *is_admitted;
                if let Some(implicit) = &mut interests.implicit {
                    implicit.stale.insert(jid.clone());
                }
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, InterestTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InterestTable {
    fn remove(&mut self, name: &str) {
        if let Some(CapsResource { jid, nodes, .. }) = self.resources.remove(name) {
            self.domains.release(jid.domain().as_str());
            self.withdraw(&jid, &nodes);
        }
    }

    /// Adds a resource to the interested resources of each of these nodes.
    fn declare(&mut self, jid: &Jid, nodes: &[NodeId]) {
        for node in nodes {
            let interests = self.nodes.entry(node.clone()).or_default();
            interests.resources.entry(jid.clone()).or_default();
            if let Some(implicit) = &mut interests.implicit {
                implicit.stale.insert(jid.clone());
            }
        }
    }

    /// Removes a resource from the interested resources of each of these nodes.
    fn withdraw(&mut self, jid: &Jid, nodes: &[NodeId]) {
        for node in nodes {
            if let Some(interests) = self.nodes.get_mut(node) {
                interests.resources.remove(jid);
                if let Some(implicit) = &mut interests.implicit {
                    implicit.set(jid, false);
                }
                if interests.resources.is_empty() {
                    self.nodes.remove(node);
                }
            }
        }
    }
}

fn resource((jid, is_admitted): (&Jid, &Option<bool>)) -> InterestedResource {
    InterestedResource { jid: jid.clone(), is_admitted: *is_admitted }
}

/// Returns the range of the full JIDs of an entity as strings, from `BARE/` to `BARE0`: the character after `/` is `0`.
fn of_entity(jid: &Jid) -> Range<String> {
    let bare = jid.to_bare();
    format!("{bare}/")..format!("{bare}0")
}

/// Returns the resources of an entity that are interested in a node.
fn interested_of<'a>(
    resources: &'a BTreeMap<String, CapsResource>,
    entity: &Jid,
    node: &'a NodeId,
) -> impl Iterator<Item = &'a CapsResource> {
    let own = resources.range(of_entity(entity)).map(|(_, resource)| resource);
    own.filter(|resource| resource.nodes.contains(node))
}

impl Service {
    /// Returns the interests of resources.
    #[must_use]
    pub fn interests(&self) -> &CapsInterests {
        &self.state.interests
    }

    /// Handles the answer of a resource to a capability query: the resource is interested in these nodes. Nodes after
    /// the first [`MAX_INTERESTS`], or after 2 KiB of names, are ignored. The resource receives the last items of the
    /// nodes in which it was not interested before. If the resource may have missed events while the service was not
    /// connected to the server, it receives the last items of all these nodes.
    pub async fn set_interests(&self, jid: &Jid, mut nodes: Vec<NodeId>) {
        nodes.truncate(MAX_INTERESTS);
        let mut bytes = 0;
        nodes.retain(|node| {
            bytes += node.as_str().len();
            bytes <= MAX_NAMES_BYTES
        });
        let has_missed = self.state.presences.confirm(jid);
        let new = self.state.interests.set(jid, nodes);
        if has_missed {
            self.do_or_retry(PresenceTask::Arrive { jid: jid.clone(), gone_since: None }).await;
            return;
        }
        for node in new {
            self.do_or_retry(PresenceTask::SendLastItem { node, jid: jid.clone() }).await;
        }
    }
}
