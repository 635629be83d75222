//! Implicit subscriptions (`+notify`, §12.2): updates after changes of nodes, interests and rosters. An operation
//! evaluates only the resources that it concerns. If it may concern all resources interested in a node, they are
//! evaluated in pages, and other requests run between the pages.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use jid::Jid;
use tokio::task::yield_now;

use gjallar_pubsub::{
    Changes, Context, Epoch, Item, LogEntry, NodeId, Prefetch, Recipients,
    op::auto_subscribe::{self, Effects, InterestedResource, Reevaluation},
};

use super::{
    Error, PolicyTable, Service,
    caps::{Basis, PAGE},
    node_cache::NodeGuard,
    service_state::ServiceState,
};

impl Service {
    /// Returns the effects of a decision on the resources interested in its node, given its changes, its log entries
    /// and the last item.
    pub(super) async fn effects(
        &self,
        (id, guard): (&NodeId, &NodeGuard),
        changes: &Changes,
        (notifications, last): (&[LogEntry], Option<&Item>),
        (policies, cx): (&Arc<PolicyTable>, &Context<'_>),
    ) -> Effects {
        let is_for_subscribers = auto_subscribe::concern_subscribers(notifications);
        let reads_roster = cx.owner_roster.is_some()
            && guard.node().is_some_and(|node| node.config.access_model.reads_rosters());
        let resubscribes = auto_subscribe::resubscribed(changes).next().is_some();
        let mut effects = if auto_subscribe::change_access(changes)
            || is_for_subscribers && (reads_roster || resubscribes)
        {
            self.reevaluate((id, guard), changes, (notifications, last), cx).await
        } else if is_for_subscribers {
            let lists = self.implicit(guard, policies, cx).await;
            let notifications = auto_subscribe::copies(notifications, &lists);
            Effects { notifications, ..Effects::default() }
        } else {
            Effects::default()
        };
        if !self.state.interests.is_any_at(id) {
            return effects;
        }
        let unsubscribed: Vec<_> = changes.unsubscribed().collect();
        for page in unsubscribed.chunks(PAGE) {
            let known = self.state.interests.known_among(id, page);
            effects.revoked.extend(known.into_iter().cloned());
            pause(page.len()).await;
        }
        effects
    }

    /// Returns the effects of changes that may concern all interested resources.
    async fn reevaluate(
        &self,
        (id, guard): (&NodeId, &NodeGuard),
        changes: &Changes,
        (notifications, last): (&[LogEntry], Option<&Item>),
        cx: &Context<'_>,
    ) -> Effects {
        let ServiceState { interests, log_window, .. } = &*self.state;
        let node = guard.node().filter(|_| auto_subscribe::may_revoke(changes));
        let epoch = node.map(|node| node.epoch).filter(|epoch| log_window.has_interested(*epoch));
        if !interests.is_any_at(id) && epoch.is_none() {
            return Effects::default();
        }
        let Some(mut reevaluation) = Reevaluation::of(guard.node(), changes) else {
            return Effects::default();
        };
        let mut page = interests.page_at(id, None);
        while !page.is_empty() {
            reevaluation.evaluate(&page, cx);
            page = self.page_after(id, page).await;
        }
        if let Some(epoch) = epoch {
            for page in self.pending_interested(epoch).await.chunks(PAGE) {
                reevaluation.evaluate_pending(page, cx);
                pause(page.len()).await;
            }
        }
        reevaluation.effects(notifications, last, cx)
    }

    /// Returns recipient lists of the resources with an implicit subscription to a node. Access by a roster is taken
    /// from the last time that a roster was applied to the node, not from the current roster.
    async fn implicit(
        &self,
        guard: &NodeGuard,
        policies: &Arc<PolicyTable>,
        cx: &Context<'_>,
    ) -> Vec<Recipients> {
        let Some(node) = guard.node() else { return Vec::new() };
        let interests = &self.state.interests;
        let basis = Basis { access: guard.access(), policies: Arc::downgrade(policies) };
        loop {
            let stale = interests.stale_at(&node.id, &basis);
            if stale.is_empty() {
                return interests.implicit_at(&node.id);
            }
            let evaluated = |resource: InterestedResource| {
                let is_implicit = auto_subscribe::is_implicit(node, &resource, cx);
                (resource, is_implicit)
            };
            let evaluated: Vec<_> = stale.into_iter().map(evaluated).collect();
            interests.set_implicit(&node.id, &evaluated);
            pause(evaluated.len()).await;
        }
    }

    /// Returns the resources interested in a node after those of a page.
    async fn page_after(
        &self,
        id: &NodeId,
        page: Vec<InterestedResource>,
    ) -> Vec<InterestedResource> {
        pause(page.len()).await;
        let last = page.last().map(|resource| &resource.jid);
        self.state.interests.page_at(id, last)
    }

    /// Returns the resources that have pending notifications of an implicit subscription to a node, each resource once.
    async fn pending_interested(&self, node: Epoch) -> Vec<Jid> {
        let mut pending = HashSet::new();
        for list in self.state.log_window.caps_recipients(node) {
            for first in (0..list.len()).step_by(PAGE) {
                pending.extend(list.iter_from(first).take(PAGE).cloned());
                yield_now().await;
            }
        }
        pending.into_iter().collect()
    }

    pub(super) async fn send_last_item(&self, id: &NodeId, jid: &Jid) -> Result<(), Error> {
        let interests = &self.state.interests;
        if interests.one_at(id, jid).is_none() {
            return Ok(());
        }
        let (mut guard, contacts) = self.lock_committed_with_roster(id).await?;
        let Some(mut resource) = interests.one_at(id, jid) else { return Ok(()) };
        let config = guard.node().map(|node| &node.config);
        if config.is_some_and(|config| config.access_model.reads_rosters()) {
            // The deadline starts the periodic reading of the node's rosters.
            self.state.deadlines.add(id, (self.clock)());
        }
        let last = match config.is_some_and(|config| config.send_last_published_item.is_on_sub()) {
            true => self.last_item(&mut guard).await?,
            false => None,
        };
        let policies = self.policies();
        let cx = self.context_with(&policies, id, &self.timer_actor, contacts.as_deref());
        let is_admitted = |node| auto_subscribe::is_admitted(node, &resource, &cx);
        resource.is_admitted = Some(guard.node().is_some_and(is_admitted));
        let of_one = std::slice::from_ref(&resource);
        interests.set_admitted(id, of_one);
        let sent = guard
            .node()
            .map(|node| auto_subscribe::last_item_for(node, of_one, last.as_deref(), &cx));
        self.enqueue_ephemeral(&mut guard, sent.unwrap_or_default());
        Ok(())
    }

    /// Applies the roster of a node's owner to implicit subscriptions (§12.2), if the roster is cached. Resources that
    /// gain access receive the last item. Resources that lose access receive no pending notification.
    pub(super) async fn apply_rosters(&self, id: &NodeId) -> Result<(), Error> {
        let ServiceState { interests, log_window, .. } = &*self.state;
        let (mut guard, contacts) = self.lock_committed_for(id, Prefetch::Timers).await?;
        let policies = self.policies();
        let cx = self.context_with(&policies, id, &self.timer_actor, contacts.as_deref());
        let Some(node) = guard.node().filter(|node| node.config.access_model.reads_rosters())
        else {
            log_window.note_rosters(id);
            return Ok(());
        };
        if contacts.is_none() {
            return Ok(());
        }
        let mut revoked = BTreeSet::new();
        for page in self.pending_interested(node.epoch).await.chunks(PAGE) {
            let is_revoked = |jid: &&Jid| auto_subscribe::is_revoked(node, jid, &cx);
            revoked.extend(page.iter().filter(is_revoked).cloned());
            pause(page.len()).await;
        }
        if !revoked.is_empty() {
            let recorded = self.store.revoke_implicit(id, revoked.clone()).await;
            log_window.revoke(node.epoch, revoked.iter());
            recorded.map_err(|error| self.state.on_store_error(id, error))?;
        }
        log_window.note_rosters(id);
        let mut checked = Vec::new();
        let mut page = interests.page_at(id, None);
        while !page.is_empty() {
            checked.extend(auto_subscribe::checked(node, &page, &cx));
            page = self.page_after(id, page).await;
        }
        let sends = node.config.send_last_published_item.is_on_sub();
        let gained = |resource: &&InterestedResource| resource.is_admitted == Some(true);
        let gained: Vec<_> = checked.iter().filter(gained).cloned().collect();
        let last = match sends && !gained.is_empty() {
            true => self.last_item(&mut guard).await?,
            false => None,
        };
        interests.set_admitted(id, &checked);
        let sent = guard
            .node()
            .map(|node| auto_subscribe::last_item_for(node, &gained, last.as_deref(), &cx));
        self.enqueue_ephemeral(&mut guard, sent.unwrap_or_default());
        Ok(())
    }
}

/// Lets other requests run after a full page.
async fn pause(evaluated: usize) {
    if evaluated >= PAGE {
        yield_now().await;
    }
}
