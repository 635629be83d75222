//! Rosters of node owners, for nodes with an access model that depends on a roster (§4.5).

use std::sync::Arc;

use jid::BareJid;

use gjallar_pubsub::{
    Actor, Context, Node, NodeId, Prefetch, Roster, Timestamp, byte_budget, may_configure,
    op::configure, written_len,
};

use crate::service::{
    Error, PolicyTable, RosterCache, Service, admission::request_permit::without_permit,
    node_cache::NodeGuard,
};

/// Maximum number of rosters that one operation reads. If the node changes during a read, so that the roster of another
/// owner gives access, the operation reads that roster too.
const MAX_READS: usize = 3;

/// Maximum number of groups of a roster that a form offers.
const MAX_OFFERED_GROUPS: usize = 100;

/// The roster that an operation needs.
enum NeededRoster {
    /// No roster: the operation does not depend on one.
    None,
    /// A roster that counts as unreadable: the node is from store layout 9 (an older format), has several owners, and
    /// none of them has chosen to give access by its roster.
    Unreadable,
    /// An empty roster: the access model depends on a roster, but the entity whose roster gave access is no longer an
    /// owner of the node.
    Empty,
    /// The roster of this owner.
    Of(BareJid),
}

impl Service {
    /// Returns the cache of rosters.
    #[must_use]
    pub fn rosters(&self) -> &RosterCache {
        &self.state.rosters
    }

    /// Returns `true` if the service may read rosters.
    #[must_use]
    pub fn reads_rosters(&self) -> bool {
        self.rosters().has_privilege()
    }

    /// Returns `true` if the service may read the roster that gives access to a node which the actor creates or
    /// configures.
    pub(in crate::service) fn reads_rosters_of(&self, node: Option<&Node>, actor: &Actor) -> bool {
        let (rosters, actor) = (self.rosters(), actor.bare());
        match node.filter(|node| !node.is_owner(&actor)) {
            Some(node) => node.roster_owner().is_some_and(|owner| rosters.may_read_roster(owner)),
            None => rosters.may_read_roster(&actor),
        }
    }

    /// Returns the groups that a configuration form offers to an entity: those of its own roster, if it is cached.
    /// `None` if no roster can be read.
    #[must_use]
    pub fn offered_groups(&self, actor: &Actor) -> Option<Vec<String>> {
        if !self.reads_rosters() {
            return None;
        }
        let roster = self.rosters().cached(&actor.bare(), Timestamp(0)).flatten();
        let groups = roster.iter().flat_map(|roster| roster.groups());
        let max_bytes = self.policies().max_reply_bytes(&actor.jid);
        let option_len = |group: &&str| 100 + 2 * written_len(group);
        let groups = groups.take(MAX_OFFERED_GROUPS);
        let fitting = groups.take_while(byte_budget(max_bytes, 0, option_len));
        Some(fitting.map(str::to_owned).collect())
    }

    /// Handles the reply to a roster request. `contacts` is `None` if the roster cannot be read.
    pub fn on_roster_result(&self, owner: &BareJid, contacts: Option<Roster>) {
        self.rosters().on_result(owner, contacts, (self.clock)());
    }

    /// Locks a node, and reads the roster of its owner if the operation depends on it. While the operation waits for
    /// the roster, the lock of the node and the permit of the request (for concurrent processing) are released. So a
    /// missing roster delays only this operation.
    pub(in crate::service) async fn lock_with_roster(
        &self,
        id: &NodeId,
        need: Prefetch<'_>,
    ) -> Result<(NodeGuard, Option<Arc<Roster>>), Error> {
        if matches!(need, Prefetch::Timers) {
            let guard = self.lock_node(id).await?;
            let contacts = self.cached_roster(id, guard.node());
            return Ok((guard, contacts));
        }
        let (mut read_of, mut read) = (None, None);
        for _ in 0..MAX_READS {
            let guard = self.lock_node(id).await?;
            let owner = match self.needed_roster(guard.node(), need) {
                NeededRoster::None | NeededRoster::Unreadable => return Ok((guard, None)),
                NeededRoster::Empty => return Ok((guard, Some(Arc::default()))),
                NeededRoster::Of(owner) => owner,
            };
            if read_of.as_ref() == Some(&owner) {
                return Ok((guard, read));
            }
            let now = (self.clock)();
            let max_age = self.policies().limits().roster_seconds.saturating_mul(1000);
            let oldest = Timestamp(now.0.saturating_sub(max_age));
            if let Some(contacts) = self.rosters().cached(&owner, oldest) {
                return Ok((guard, contacts));
            }
            drop(guard);
            read = without_permit(self.rosters().read(&owner, oldest, now)).await;
            read_of = Some(owner);
        }
        // The owner whose roster gives access keeps changing. The operation proceeds as if the roster could not be
        // read.
        Ok((self.lock_node(id).await?, None))
    }

    /// Returns the roster of a node's owner for timer-driven operations, which do not wait for rosters.
    fn cached_roster(&self, id: &NodeId, node: Option<&Node>) -> Option<Arc<Roster>> {
        let owner = match self.needed_roster(node, Prefetch::Timers) {
            NeededRoster::None | NeededRoster::Unreadable => return None,
            NeededRoster::Empty => return Some(Arc::default()),
            NeededRoster::Of(owner) => owner,
        };
        // With an age of at least 1 s, a roster that just arrived is not requested again, whatever is configured.
        let max_age = self.policies().limits().roster_seconds.max(1).saturating_mul(1000);
        let oldest = Timestamp((self.clock)().0.saturating_sub(max_age - 1));
        self.rosters().watch(id, &owner, oldest)
    }

    /// Locks a node for a query, and reads the roster of its owner if access depends on it. Waits until all pending
    /// commits of the node are durable.
    pub(in crate::service) async fn lock_committed_with_roster(
        &self,
        id: &NodeId,
    ) -> Result<(NodeGuard, Option<Arc<Roster>>), Error> {
        self.lock_committed_for(id, Prefetch::Access).await
    }

    /// Locks a node, and reads the roster of its owner if the operation depends on it. Waits until all pending commits
    /// of the node are durable.
    pub(in crate::service) async fn lock_committed_for(
        &self,
        id: &NodeId,
        need: Prefetch<'_>,
    ) -> Result<(NodeGuard, Option<Arc<Roster>>), Error> {
        loop {
            let (guard, contacts) = self.lock_with_roster(id, need).await?;
            if guard.wait_committed().await {
                return Ok((guard, contacts));
            }
        }
    }

    /// Returns the roster that gives access to the node, if its access model depends on one or may do so after the
    /// operation.
    fn needed_roster(&self, node: Option<&Node>, need: Prefetch<'_>) -> NeededRoster {
        let Some(node) = node else { return NeededRoster::None };
        let (is_needed, owner) = match need {
            Prefetch::Nothing
            | Prefetch::Creation
            | Prefetch::Deletion
            | Prefetch::Departure(_)
            | Prefetch::OwnItems(_)
            | Prefetch::EnrolledOf(_)
            | Prefetch::Enrolled
            | Prefetch::ExistingItems(_) => return NeededRoster::None,
            Prefetch::Configuration(actor, _) if may_configure(node, actor).is_err() => {
                return NeededRoster::None;
            }
            Prefetch::Configuration(actor, request) if self.reads_rosters() => {
                let policies = self.policies();
                let by = actor.bare();
                let (is_needed, owner) =
                    configure::roster_after(node, request, policies.for_node(&node.id), &by);
                (is_needed, owner.cloned())
            }
            _ => (node.config.access_model.reads_rosters(), node.roster_owner().cloned()),
        };
        if !is_needed {
            return NeededRoster::None;
        }
        match owner {
            Some(owner) => NeededRoster::Of(owner),
            None if node.revision.roster_owner.is_none() => NeededRoster::Unreadable,
            None => NeededRoster::Empty,
        }
    }

    /// Returns the context in which a rule decides an operation, with the roster of the node's owner.
    pub(in crate::service) fn context_with<'a>(
        &'a self,
        policies: &'a PolicyTable,
        id: &NodeId,
        actor: &'a Actor,
        contacts: Option<&'a Roster>,
    ) -> Context<'a> {
        Context { owner_roster: contacts, ..self.context(policies, id, actor) }
    }
}
