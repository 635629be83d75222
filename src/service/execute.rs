//! The only path by which nodes change: decide under the node guard (the lock of one node), commit, reply, notify.
//! Replies and notifications follow the sync to disk.
//!
//! Usually the node guard is released as soon as the commit is submitted to the store, which fixes its place in the
//! commit order. The next decision at the node is based on that commit, although the commit may not be on disk yet.
//! Thus several commits of one node can share a sync. If a commit fails, all later commits of the node fail too, until
//! the node is read again (commit chain).

use std::{
    collections::{BTreeSet, HashMap},
    iter, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use jid::{AccountKey, Jid};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::{Span, error};

use crate::store::{Commit, CommitReceipt, StoreError};
use gjallar_pubsub::{
    Actor, Audience, Change, Changes, Context, Decision, LogEntry, Node, NodeId, Operation,
    Prefetched, Recipients, Timestamp,
    op::{
        auto_subscribe::{self, Effects, InterestedResource},
        presence_change, public_subscriptions, timers,
    },
};

use super::{
    AuditRecord, Error, LogWindow, Outcome, PolicyTable, Service, SubmitHandle, audit,
    event_log::window::Reservation,
    node_cache::{NodeGuard, PreviousCreator},
    service_state::ServiceState,
};

/// Decision that changes something, with the node guard under which it was made.
struct PreparedCommit<R> {
    guard: NodeGuard,
    reply: R,
    changes: Arc<Changes>,
    entries: Vec<ReservedEntry>,
    /// Resources that gain or lose access by a roster.
    readmitted: Vec<InterestedResource>,
    /// Resources that lose pending notifications of implicit subscriptions.
    revoked: BTreeSet<Jid>,
    audited: Option<AuditRecord>,
    permit: OwnedSemaphorePermit,
}

/// Outcome of a request that changes nothing, with the node guard under which it was decided.
struct ImmediateReply<R> {
    outcome: Outcome<R>,
    guard: Option<NodeGuard>,
}

impl<R> From<Error> for ImmediateReply<R> {
    fn from(error: Error) -> Self {
        Self { outcome: Err(error), guard: None }
    }
}

/// Log entry of a decision, with its recipients and the room reserved for it in the log window (the log entries in
/// memory).
struct ReservedEntry {
    notification: Arc<LogEntry>,
    recipients: Recipients,
    reservation: Reservation,
}

/// Log entry of a decision before room is reserved for it; `creator` is the account that created the node.
struct ResolvedEntry {
    notification: Arc<LogEntry>,
    recipients: Recipients,
    creator: AccountKey,
}

impl ResolvedEntry {
    /// Reserves room in the log window (the log entries in memory). `Err` holds the configuration key of the limit that
    /// would be exceeded.
    fn reserve(&self, log_window: &Arc<LogWindow>) -> Result<ReservedEntry, &'static str> {
        let (notification, recipients) = (Arc::clone(&self.notification), self.recipients.clone());
        let reservation = log_window.reserve(&self.creator, &notification, &recipients)?;
        Ok(ReservedEntry { notification, recipients, reservation })
    }
}

impl Service {
    pub(super) fn context<'a>(
        &'a self,
        policies: &'a PolicyTable,
        id: &NodeId,
        actor: &'a Actor,
    ) -> Context<'a> {
        let context = self.context_without_counts(policies, id, actor);
        let counts = &self.state.node_counts;
        let of_policy = context.policy.max_nodes.map_or(0, |_| counts.count_for_policy(id));
        Context { node_count: counts.total(), policy_node_count: of_policy, ..context }
    }

    /// Returns the context of a request that creates no node. The numbers of nodes are 0, so no lock is necessary.
    fn context_without_counts<'a>(
        &'a self,
        policies: &'a PolicyTable,
        id: &NodeId,
        actor: &'a Actor,
    ) -> Context<'a> {
        Context {
            actor,
            administrators: policies.administrators(),
            policy: policies.for_node(id),
            now: (self.clock)(),
            service: policies.service(),
            ids: &*self.ids,
            node_count: 0,
            actor_node_count: 0,
            policy_node_count: 0,
            actor_subscription_count: 0,
            reads_rosters: self.reads_rosters(),
            owner_roster: None,
        }
    }

    /// Locks a node. If a commit of the node has failed, also reads the node again and restores its pending log entries
    /// from the store.
    pub(super) async fn lock_node(&self, id: &NodeId) -> Result<NodeGuard, Error> {
        let ServiceState { nodes, log_window, .. } = &*self.state;
        if nodes.is_quarantined(id) {
            return Err(Error::Quarantined);
        }
        let failed = |error| self.state.on_store_error(id, error);
        let (mut guard, before) = nodes.lock(id, &*self.store).await.map_err(failed)?;
        if let Some(before) = before {
            let known = log_window.known();
            let ids = std::slice::from_ref(id);
            log_window.restore(self.store.poll(Some(ids)).await.map_err(failed)?, &known);
            self.accept_reread(id, &mut guard, &before);
        }
        Ok(guard)
    }

    /// Adapts the state of the service to a node that was read again after a failed commit. Revokes notifications of
    /// recipients that are not subscribed, corrects the number of nodes, and starts a new commit chain. The caller
    /// first has to restore the pending log entries of the node from the store. The parameter `before` is the creator
    /// of the node before the failed commit.
    pub(super) fn accept_reread(
        &self,
        id: &NodeId,
        guard: &mut NodeGuard,
        before: &PreviousCreator,
    ) {
        if let Some(node) = guard.node() {
            self.state.log_window.retain_subscribed(node);
        }
        let creator = guard.node().map(|node| &node.creator);
        self.state.node_counts.adjust(id, before.0.as_ref(), creator);
        guard.reset_chain();
    }

    /// Replaces the error for a missing node by `Gone` with the redirect URI, if an owner deleted the node with a
    /// redirect.
    pub(super) async fn resolve_redirect<T>(
        &self,
        id: &NodeId,
        found: Result<T, impl Into<Error>>,
    ) -> Outcome<T> {
        let found = found.map_err(Into::into);
        let Err(Error::Refused(gjallar_pubsub::Error::NodeNotFound)) = found else { return found };
        let former = self.store.former(id).await;
        let former = former.map_err(|error| self.state.on_store_error(id, error))?;
        match former.and_then(|former| former.redirect) {
            Some(uri) => Err(gjallar_pubsub::Error::Gone { uri }.into()),
            None => found,
        }
    }

    /// Locks a node and waits until all its pending commits are durable.
    pub(super) async fn lock_committed(&self, id: &NodeId) -> Result<NodeGuard, Error> {
        loop {
            let guard = self.lock_node(id).await?;
            if guard.wait_committed().await {
                return Ok(guard);
            }
        }
    }

    /// Runs an operation, and returns its reply once the changes are durable.
    ///
    /// # Errors
    /// Those of the [rule](Operation::decide); [`Error::Busy`] at a limit, and errors of the store.
    pub async fn execute<O: Operation>(&self, actor: &Actor, operation: &O) -> Outcome<O::Output> {
        self.submit(actor, operation, |outcome| outcome).await.await
    }

    /// Runs an operation as [`execute`](Self::execute) does, but returns as soon as the operation has its position in
    /// the commit order. Once the changes are durable, the reply is passed to `respond`, in commit order and before
    /// the notifications of the operation are sent.
    pub async fn submit<O: Operation, A: Send + 'static>(
        &self,
        actor: &Actor,
        operation: &O,
        respond: impl FnOnce(Outcome<O::Output>) -> A + Send + 'static,
    ) -> SubmitHandle<A> {
        let state = Arc::clone(&self.state);
        let (complete, handle) = SubmitHandle::begin(move |outcome: Outcome<O::Output>| {
            if let Some(limit) = outcome.as_ref().ok().and_then(O::limit_reached) {
                state.metrics.count_rejection(limit);
            }
            respond(outcome)
        });
        let id = match operation.node(&*self.ids) {
            Ok(id) => id,
            Err(refusal) => {
                complete(Err(refusal.into()));
                return handle;
            }
        };
        let id = &*id;
        match self.prepare(actor, id, operation).await {
            Ok(decided) => {
                // A large commit may take several group commits, and none that follows may complete before it. The
                // number of nodes of a creator is updated when the commit is durable.
                let is_large = decided.changes.unsubscribed().nth(1).is_some();
                let is_counted = decided
                    .changes
                    .iter()
                    .any(|change| matches!(change, Change::Created(_) | Change::Deleted { .. }));
                let guard = self.commit(id, actor, decided, complete);
                if is_large || is_counted {
                    guard.wait_committed().await;
                }
            }
            // The guard is held so that later decisions at the node are answered later.
            Err(ImmediateReply { outcome, guard }) => {
                complete(self.resolve_redirect(id, outcome).await);
                drop(guard);
            }
        }
        handle
    }

    /// Makes the decision of an operation, and reserves room for its log entries. If the operation is refused or
    /// changes nothing, `Err` holds its immediate reply.
    async fn prepare<O: Operation>(
        &self,
        actor: &Actor,
        id: &NodeId,
        operation: &O,
    ) -> Result<PreparedCommit<O::Output>, ImmediateReply<O::Output>> {
        if public_subscriptions::is_managed(id) {
            return Err(Error::from(gjallar_pubsub::Error::Forbidden).into());
        }
        loop {
            let need = operation.prefetch(actor);
            let (mut guard, contacts) = self.lock_with_roster(id, need).await?;
            let policies = self.policies();
            let is_refused = guard.node().is_some_and(|node| {
                let context = self.context_without_counts(&policies, id, actor);
                let context = Context { owner_roster: contacts.as_deref(), ..context };
                operation.check_access(node, &context).is_err()
            });
            let prefetched = match is_refused {
                true => Prefetched::default(),
                false => self.prefetch(actor, id, &mut guard, need).await?,
            };
            // After the prefetch, because the numbers of nodes may change meanwhile.
            let context = Context {
                reads_rosters: self.reads_rosters_of(guard.node(), actor),
                actor_node_count: prefetched.actor_node_count,
                actor_subscription_count: prefetched.subscriptions,
                ..self.context_with(&policies, id, actor, contacts.as_deref())
            };
            if self.state.nodes.is_quarantined(id) {
                return Err(Error::Quarantined.into());
            }
            let decision = match operation.decide(id, guard.node(), &prefetched, &context) {
                Ok(decision) if !decision.changes.is_empty(guard.node()) => decision,
                // The reply must not show changes that are not durable yet.
                unchanged if guard.wait_committed().await => {
                    let outcome = unchanged.map(|decision| decision.reply).map_err(Error::from);
                    return Err(ImmediateReply { outcome, guard: Some(guard) });
                }
                _ => continue,
            };
            let Decision { reply, changes, mut notifications } = decision;
            let events = (&*notifications, prefetched.items.last());
            let effects = self.effects((id, &guard), &changes, events, (&policies, &context)).await;
            let Effects { notifications: implicit, readmitted, revoked } = effects;
            notifications.extend(implicit);
            guard.share_lists(&mut notifications);
            let audited = match actor.jid == self.timer_actor.jid {
                true => None,
                false => audit::audit_record(actor, guard.node(), &changes, &notifications, id),
            };
            let entries = match self.reserve_all(&mut guard, notifications, &changes) {
                Ok(entries) => entries,
                Err(error) if guard.wait_committed().await => return Err(error.into()),
                Err(_) => continue,
            };
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.commit_permits).acquire_owned().await else {
                return Err(
                    Error::Unknown(StoreError::Failed("the service has stopped".into())).into()
                );
            };
            let changes = Arc::new(changes);
            return Ok(PreparedCommit {
                guard,
                reply,
                changes,
                entries,
                readmitted,
                revoked,
                audited,
                permit,
            });
        }
    }

    /// Appends log entries that belong to no commit and are lost at a restart. Entries without room are dropped.
    pub(super) fn enqueue_ephemeral(&self, guard: &mut NodeGuard, notifications: Vec<LogEntry>) {
        for notification in notifications {
            let Some(resolved) = self.resolve(guard, None, notification) else { continue };
            if let Ok(entry) = resolved.reserve(&self.state.log_window) {
                let ReservedEntry { notification, recipients, reservation } = entry;
                self.state.log_window.append(reservation, notification, recipients, None);
            }
        }
    }

    /// Reserves room for the log entries of a decision. If the decision revokes access, entries for single entities are
    /// dropped when there is no room, so that they do not make the decision fail. Entries about the expiry of a
    /// subscription are not dropped.
    fn reserve_all(
        &self,
        guard: &mut NodeGuard,
        notifications: Vec<LogEntry>,
        changes: &Changes,
    ) -> Result<Vec<ReservedEntry>, Error> {
        let revoke = changes.revokes_access(guard.node());
        let all = notifications.into_iter();
        let all = all.filter_map(|entry| self.resolve(guard, changes.created(), entry));
        let all: Vec<_> = all.collect();
        let may_be_dropped = |LogEntry { audience, event, .. }: &LogEntry| {
            let is_event = matches!(audience, Audience::Subscribers | Audience::Listed(_));
            revoke && !is_event && !event.is_lease_notice()
        };
        let reserve_in = |log_window: &Arc<LogWindow>| {
            let mut reserved = Vec::with_capacity(all.len());
            for resolved in &all {
                match resolved.reserve(log_window) {
                    Ok(entry) => reserved.push(entry),
                    Err(_) if may_be_dropped(&resolved.notification) => {}
                    Err(limit) => return Err(limit),
                }
            }
            Ok(reserved)
        };
        let log_window = &self.state.log_window;
        reserve_in(log_window).map_err(|limit| match reserve_in(&log_window.empty_copy()) {
            Ok(_) => Error::Busy { limit },
            Err(_) => gjallar_pubsub::Error::TooManyNotifications.into(),
        })
    }

    /// Resolves the recipients of a log entry. Returns `None` if there are none.
    fn resolve(
        &self,
        guard: &mut NodeGuard,
        created: Option<&Node>,
        notification: LogEntry,
    ) -> Option<ResolvedEntry> {
        let recipients = match &notification.audience {
            Audience::Explicit(some) | Audience::Interested(some) | Audience::Listed(some) => {
                some.clone()
            }
            // A deletion is sent to the subscribers before it.
            Audience::Subscribers => guard.recipients(),
        };
        let node = guard.node().or(created).filter(|_| !recipients.is_empty())?;
        let creator = AccountKey::of(&node.creator);
        Some(ResolvedEntry { notification: Arc::new(notification), recipients, creator })
    }

    /// Starts to watch the presence of the entities whose presence a node needs because of these changes.
    fn watch_presence(&self, id: &NodeId, actor: &Actor, node: &Node, changes: &Changes) {
        let presences = &self.state.presences;
        let mut watched = presence_change::watched_entities(node, changes).peekable();
        if watched.peek().is_some() {
            if presence_change::asks(node, changes, &actor.bare()) {
                presences.forgive(&actor.bare());
            }
            presences.watch(id, Some(&AccountKey::of(&node.creator)), watched);
            for publisher in presence_change::publishers(node, changes) {
                presences.publishes(id, publisher);
            }
        }
        if presence_change::needs_newest_publisher(node, changes) {
            presences.expect_publishers(id);
            self.state.deadlines.add(id, (self.clock)());
        }
    }

    /// Applies a decision in memory and submits its commit to the store.
    fn commit<R: Send + 'static>(
        &self,
        id: &NodeId,
        actor: &Actor,
        decided: PreparedCommit<R>,
        complete: impl FnOnce(Outcome<R>) + Send + 'static,
    ) -> NodeGuard {
        let PreparedCommit {
            mut guard,
            reply,
            changes,
            mut entries,
            readmitted,
            revoked,
            audited,
            permit,
        } = decided;
        let epoch = guard.node().map(|node| node.epoch);
        let roster_owner =
            |guard: &NodeGuard| guard.node().and_then(|node| node.roster_owner().cloned());
        let roster_owner_before = roster_owner(&guard);
        let chain = guard.apply(&changes);
        let has_other_roster = match changes.created() {
            // Resources may have declared interest in the name before the node existed.
            Some(_) => self.state.interests.is_any_at(id),
            None => roster_owner(&guard) != roster_owner_before,
        };
        let exists = guard.node().is_some();
        let due = guard.node().and_then(|node| timers::next_deadline(node, &changes));
        if let Some(node) = guard.node() {
            self.watch_presence(id, actor, node, &changes);
        }
        let changes_audiences = changes.iter().any(|change| {
            matches!(
                change,
                Change::Subscribed(_) | Change::SubscribedByOwner(_) | Change::Unsubscribed(_)
            )
        });
        // Log entries with a shared recipient list share the new list too.
        let mut lists = HashMap::new();
        for ReservedEntry { notification, recipients, .. } in &mut entries {
            if let Some(node) = guard.node().filter(|_| changes_audiences) {
                let (audience, as_of) = (&notification.audience, notification.as_of);
                let key = (mem::discriminant(audience), recipients.id(), as_of);
                let (_, list) = lists
                    .entry(key)
                    .or_insert_with(|| (recipients.clone(), node.recipients_of(audience, as_of)));
                *recipients = list.clone();
            } else if notification.audience == Audience::Subscribers && exists {
                *recipients = guard.recipients();
            }
        }
        let revoked = Arc::new(revoked);
        let commit = Commit {
            node: id.clone(),
            changes: Arc::clone(&changes),
            notifications: entries.iter().map(|entry| Arc::clone(&entry.notification)).collect(),
            revoked: Arc::clone(&revoked),
            chain,
        };
        if !auto_subscribe::change_access(&changes) {
            self.state
                .interests
                .mark_subscriptions_stale(id, auto_subscribe::resubscribed(&changes));
        }
        self.state.interests.set_admitted(id, &readmitted);
        let is_up_to_rosters = |node: &Node| node.config.access_model.reads_rosters();
        if has_other_roster && guard.node().is_some_and(is_up_to_rosters) {
            self.state.deadlines.add(id, (self.clock)());
        }
        let (state, pending_commits, id) =
            (Arc::clone(&self.state), guard.pending_commits(), id.clone());
        let (began, auditor) = (Instant::now(), Arc::clone(&self.auditor));
        let request = Span::current();
        let on_commit = move |result: Result<CommitReceipt, StoreError>| {
            let _permit = permit;
            let _request = request.enter();
            if let (Err(StoreError::Corrupt(_)), Some(epoch)) = (&result, epoch) {
                // The subscriptions cannot be read any more, so nobody is notified for them.
                state.log_window.revoke(epoch, changes.unsubscribed());
            }
            let complete = |outcome| {
                if catch_unwind(AssertUnwindSafe(|| complete(outcome))).is_err() {
                    error!(
                        event = "reply_callback_panicked",
                        node = id.as_str(),
                        "reply callback panicked"
                    );
                }
            };
            match result {
                Ok(committed) => {
                    state.metrics.committed(began.elapsed(), committed.sync);
                    state.on_committed(&id, &pending_commits, &changes, epoch, &committed);
                    if let Some(epoch) = epoch {
                        state.log_window.revoke(epoch, revoked.iter());
                    }
                    if let Some(due) = due {
                        state.deadlines.add(&id, due);
                    }
                    audited.iter().for_each(|audited| auditor(audited));
                    complete(Ok(reply));
                    let positions = committed.debts.into_iter().map(Some).chain(iter::repeat(None));
                    for (ReservedEntry { notification, recipients, reservation }, position) in
                        entries.into_iter().zip(positions)
                    {
                        state.log_window.append(reservation, notification, recipients, position);
                    }
                }
                Err(error) => {
                    state.nodes.mark_uncertain(&id);
                    if !readmitted.is_empty() {
                        state.deadlines.add(&id, Timestamp(0));
                    }
                    complete(Err(state.on_store_error(&id, error)));
                }
            }
            pending_commits.end(&changes);
        };
        self.store.commit(commit, Box::new(on_commit));
        guard
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

    use gjallar_pubsub::{
        AccessModel, Affiliation, ConfigField, ItemId, Limits, MaxItems, PageRequest, Payload,
        op::{
            affiliations::SetAffiliations,
            configure::Configure,
            create::Create,
            delete::Delete,
            publish::{NewItem, Publish},
            purge::Purge,
            retract::Retract,
            subscribe::Subscribe,
        },
    };

    use tokio::time::timeout;

    use super::*;
    use crate::{
        runtime::{RandomIds, now},
        store::{MAX_PENDING_COMMITS, SledStore},
    };

    /// Service with the node `n`, which keeps one item and has two subscribers.
    async fn service(folder: &std::path::Path) -> Service {
        let store = Arc::new(SledStore::open(folder).unwrap());
        Service::open(store, Limits::default(), Arc::new(RandomIds::default()), Arc::new(now))
            .await
            .unwrap()
    }

    fn actor(jid: &str) -> Actor {
        Actor { jid: Jid::new(jid).unwrap(), is_administrator: false }
    }

    fn publish(item: &str) -> Publish {
        let payload = Some(Payload::new("<x xmlns='urn:x'/>", "urn:x"));
        let items = vec![NewItem { id: Some(ItemId::parse(item).unwrap()), payload }];
        Publish { node: node(), items, options: Vec::new(), expected_newest: None }
    }

    fn subscribe(jid: &str) -> Subscribe {
        let jid = Jid::new(jid).unwrap();
        Subscribe { node: node(), jid, settings: None, is_public: false }
    }

    fn node() -> NodeId {
        NodeId::parse("n").unwrap()
    }

    /// Polls an operation at most `polls` times, and then drops it. Returns `true` if it completed before.
    async fn poll_then_drop<O: Operation>(
        service: &Service,
        by: &str,
        operation: O,
        polls: usize,
    ) -> bool {
        let (actor, mut left) = (actor(by), polls);
        let mut running = pin!(service.execute(&actor, &operation));
        poll_fn(|cx| match running.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.is_ok()),
            Poll::Pending => {
                left -= 1;
                if left == 0 { Poll::Ready(false) } else { Poll::Pending }
            }
        })
        .await
    }

    /// Text of all that the service knows of the node and of its log.
    async fn shown(service: &Service) -> String {
        let guard = service.lock_committed(&node()).await.unwrap();
        let node = guard.node().map(|node| {
            let affiliations: Vec<_> = node.affiliations().collect();
            let subscribers: Vec<_> = node.subscribers().collect();
            format!("{:?} {:?} {affiliations:?} {subscribers:?}", node.config, node.sequence)
        });
        let ids = PageRequest::first(10);
        let items = service.store.page_of_ids(&self::node(), &ids, 0, usize::MAX).await.unwrap();
        drop(guard);
        format!("{node:?} {items:?} {:?} {}", service.log_window().size().0, service.node_count())
    }

    /// Operations are dropped at each of their await points.
    #[tokio::test]
    async fn a_dropped_operation_is_executed_as_a_whole_or_not_at_all() {
        const OWNER: &str = "owner@localhost/x";
        for number in 0..7 {
            let mut is_completed = false;
            for polls in 1..50 {
                let folder = tempfile::tempdir().unwrap();
                let one = service(folder.path()).await;
                let settings = vec![ConfigField::MaxItems(MaxItems::Number(1))];
                let create = Create { node: Some(node()), settings };
                one.execute(&actor(OWNER), &create).await.unwrap();
                for jid in ["a@localhost", "b@localhost"] {
                    one.execute(&actor(jid), &subscribe(jid)).await.unwrap();
                }
                one.execute(&actor(OWNER), &publish("1")).await.unwrap();
                let (item, entity) =
                    (ItemId::parse("1").unwrap(), Jid::new("a@localhost").unwrap());
                is_completed = match number {
                    0 => poll_then_drop(&one, OWNER, publish("2"), polls).await,
                    1 => poll_then_drop(&one, "c@localhost", subscribe("c@localhost"), polls).await,
                    2 => {
                        let settings = vec![ConfigField::AccessModel(AccessModel::Whitelist)];
                        let configure = Configure { node: node(), settings, seen: None };
                        poll_then_drop(&one, OWNER, configure, polls).await
                    }
                    3 => {
                        let retract = Retract { node: node(), items: vec![item], notify: true };
                        poll_then_drop(&one, OWNER, retract, polls).await
                    }
                    4 => poll_then_drop(&one, OWNER, Purge { node: node() }, polls).await,
                    5 => {
                        let entries = vec![(entity.to_bare(), Affiliation::Outcast)];
                        let ban = SetAffiliations { node: node(), entries, invalid: Vec::new() };
                        poll_then_drop(&one, OWNER, ban, polls).await
                    }
                    _ => {
                        let delete = Delete { node: node(), redirect: None };
                        poll_then_drop(&one, OWNER, delete, polls).await
                    }
                };
                let before = shown(&one).await;
                // All permits are given back, the last of them soon after its commit.
                let all = one.commit_permits.acquire_many(MAX_PENDING_COMMITS as u32);
                drop(timeout(Duration::from_secs(30), all).await.expect("a permit was lost"));
                one.close().await;
                drop(one);
                let other = service(folder.path()).await;
                assert_eq!(shown(&other).await, before, "operation {number}, {polls} polls");
                other.close().await;
                if is_completed {
                    break;
                }
            }
            assert!(is_completed, "operation {number}");
        }
    }
}
