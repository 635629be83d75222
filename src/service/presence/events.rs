//! Effects of the presence of entities (§12.3, §12.5).

use std::{collections::BTreeSet, time::Duration};

use jid::{AccountKey, BareJid, Jid};
use tracing::warn;

use crate::store::StoreError;
use gjallar_pubsub::{
    Actor, ItemBudget, ItemFilter, ItemOrder, ItemPage, ItemQuery, ItemRef, NodeId, OwnItems,
    PageBound, PageRequest, SubscriptionState, Timestamp,
    op::presence_change::{self, Depart, RetractOwn, UnavailablePresence},
};

use crate::service::{
    Error, PresenceRequest, PresenceUpdate, Service,
    admission::request_permit::without_permit,
    workers::{failure_streak::FailureStreak, presence_retries::PresenceTask},
};

/// Maximum number of nodes that are read when a resource comes online.
const MAX_NODES: usize = 1000;
/// Maximum number of items that are read at once to learn who published them.
const MAX_READ_ITEMS: usize = 100;
/// Approximate maximum number of events that are sent to a resource that comes online.
const MAX_SENT: usize = 1000;

impl Service {
    /// Handles available presence. A resource that comes online receives the last items of the nodes that are
    /// configured to send them. If its presence says how long it was absent (XEP-0312), it receives the events that it
    /// missed instead.
    pub async fn available(&self, jid: &Jid, shown: &PresenceUpdate) {
        self.resources().is_there(jid);
        let now = (self.clock)();
        let age = shown.stamp.map(|at| Duration::from_millis(now.0.saturating_sub(at.0)));
        if !self.state.presences.note(jid, shown, age) {
            return;
        }
        let sent = shown.stamp.map_or(now, |at| at.min(now));
        let gone_since = shown
            .away_seconds
            .map(|away| Timestamp(sent.0.saturating_sub(away.saturating_mul(1000))));
        self.do_or_retry(PresenceTask::Arrive { jid: jid.clone(), gone_since }).await;
    }

    pub(in crate::service) async fn arrived(
        &self,
        jid: &Jid,
        gone_since: Option<Timestamp>,
    ) -> Result<(), Error> {
        let own = self.store.subscriptions_of(&jid.to_bare()).await.map_err(Error::Unknown)?;
        let mut nodes = BTreeSet::new();
        for (node, own) in self.state.quarantine_damaged(own) {
            let is_recipient = own.jid.is_bare() || own.jid == *jid;
            if is_recipient && own.state == SubscriptionState::Subscribed {
                nodes.insert(node);
            }
        }
        let mut sent = 0;
        for node in nodes.into_iter().take(MAX_NODES) {
            match self.catch_up(&node, jid, gone_since).await {
                Ok(events) => sent += events,
                Err(error) => {
                    self.retry(
                        PresenceTask::CatchUp { node, jid: jid.clone(), gone_since },
                        &error,
                    );
                }
            }
            if sent >= MAX_SENT {
                break;
            }
        }
        // The capabilities of a resource that was available on an earlier connection are known already.
        for node in self.state.interests.of(jid) {
            if let Err(error) = self.send_last_item(&node, jid).await {
                self.retry(PresenceTask::SendLastItem { node, jid: jid.clone() }, &error);
            }
        }
        Ok(())
    }

    /// Sends a resource the last item of a node. If `gone_since` is given, sends the events of the node since this time
    /// instead. Returns the number of events sent.
    pub(in crate::service) async fn catch_up(
        &self,
        id: &NodeId,
        jid: &Jid,
        gone_since: Option<Timestamp>,
    ) -> Result<usize, Error> {
        if !self.state.presences.is_available(jid) {
            return Ok(0);
        }
        let mut guard = self.lock_committed(id).await?;
        let newest = match gone_since {
            None => {
                self.last_item(&mut guard).await?.map(|item| (*item).clone()).into_iter().collect()
            }
            Some(_) => {
                let listing = ItemQuery::of(
                    PageRequest::last(presence_change::MAX_MISSED),
                    ItemOrder::default(),
                );
                let budget = ItemBudget::stored(self.policies().limits().max_reply_bytes);
                self.listed(id, &listing, &budget).await?.part.entries
            }
        };
        let sent = guard
            .node()
            .map(|node| presence_change::on_available(node, jid, gone_since, &newest, &*self.ids));
        let sent = sent.unwrap_or_default();
        let number = sent.len();
        self.enqueue_ephemeral(&mut guard, sent);
        Ok(number)
    }

    /// Waits for the next presence request that is still needed.
    pub async fn next_presence_request(&self) -> PresenceRequest {
        loop {
            let request = self.state.presences.next_request().await;
            if !request.is_doubtful
                || self.needs_presence(&request.entity).await
                || self.state.presences.release(&request.entity)
            {
                return request;
            }
        }
    }

    /// Returns `true` if a node needs the presence of an entity, or if the store fails.
    async fn needs_presence(&self, entity: &BareJid) -> bool {
        if self.state.presences.is_publisher(entity) {
            return true;
        }
        let Ok(own) = self.store.subscriptions_of(entity).await else { return true };
        let own = self.state.quarantine_damaged(own).into_iter().map(|(node, _)| node);
        let nodes: BTreeSet<_> = own.filter(|node| self.state.presences.matters(node)).collect();
        for (number, id) in nodes.iter().enumerate() {
            let Ok(guard) = self.lock_node(id).await else { return true };
            if number >= MAX_NODES
                || guard.node().is_some_and(|n| presence_change::is_needed(n, entity))
            {
                return true;
            }
        }
        false
    }

    /// Handles the refusal of an entity to share its presence. The refusal is stored only if a node needs the presence.
    pub async fn on_presence_refused(&self, jid: &Jid) {
        let (presences, entity) = (&self.state.presences, jid.to_bare());
        if presences.is_given(jid) {
            // The service will not learn when the entity goes offline.
            self.unavailable(&entity.clone().into()).await;
        }
        if presences.is_watched(&entity) {
            presences.refuse(&entity, self.needs_presence(&entity).await);
        }
    }

    /// Stores each change of the recorded refusals to share presence. Runs until dropped.
    pub async fn remember_refusals(&self) {
        let mut streak = FailureStreak::default();
        loop {
            self.state.presences.changed_refusals().await;
            match self.write_refusals().await {
                Ok(()) => drop(streak.end()),
                Err(error) => {
                    if streak.count() {
                        warn!(
                            event = "presence_refusals_not_saved",
                            %error,
                            "failed to save which entities refused their presence; will retry"
                        );
                    }
                    streak.pause().await;
                }
            }
        }
    }

    pub(in crate::service) async fn write_refusals(&self) -> Result<(), StoreError> {
        let changed = self.state.presences.unwritten_refusals();
        self.store.set_presence_refusals(&changed).await?;
        self.state.presences.wrote_refusals(&changed);
        Ok(())
    }

    /// Handles unavailable presence of a resource; with a bare JID, of all resources of the entity. Ends the temporary
    /// subscriptions and removes the items that depend on this presence.
    pub async fn unavailable(&self, jid: &Jid) {
        let departure = self.state.presences.remove(jid);
        self.do_or_retry(PresenceTask::Depart(departure)).await;
    }

    /// Handles the answer to a ping that was sent to an entity because it did not answer a probe. If the entity has
    /// sent nothing else since the probe, it counts as offline.
    pub async fn found_silent(&self, entity: &BareJid, ping: u64) {
        if let Some(departure) = self.state.presences.give_up(entity, ping) {
            self.do_or_retry(PresenceTask::Depart(departure)).await;
        }
    }

    pub(in crate::service) async fn departed(
        &self,
        departure: &UnavailablePresence,
    ) -> Result<(), Error> {
        let bare = departure.jid.to_bare();
        let subscriptions = self.store.subscriptions_of(&bare).await.map_err(Error::Unknown)?;
        let affiliations = self.store.affiliations_of(&bare).await.map_err(Error::Unknown)?;
        let subscribed =
            self.state.quarantine_damaged(subscriptions).into_iter().map(|(node, _)| node);
        let affiliated =
            self.state.quarantine_damaged(affiliations).into_iter().map(|(node, _)| node);
        let published = match departure.is_last {
            true => self.state.presences.published_at(&bare),
            false => BTreeSet::new(),
        };
        let mut nodes: BTreeSet<_> = subscribed.chain(affiliated).collect();
        nodes.extend(published.iter().cloned());
        for node in nodes {
            if !self.state.presences.matters(&node) {
                continue;
            }
            if let Err(error) = self.end_subscriptions_at(&node, departure).await {
                self.retry(
                    PresenceTask::End { node: node.clone(), departure: departure.clone() },
                    &error,
                );
            }
            if published.contains(&node)
                // Other requests are processed while a node with many items is searched.
                && let Err(error) = without_permit(Box::pin(self.retract_own(&node, &bare))).await
            {
                self.retry(PresenceTask::RetractOwn { node, publisher: bare.clone() }, &error);
            }
        }
        Ok(())
    }

    /// Retracts, in batches, a publisher's own items at a node that [removes them](presence_change::loses_own_items)
    /// when the publisher goes offline. Stops if the publisher comes online again.
    pub(in crate::service) async fn retract_own(
        &self,
        id: &NodeId,
        publisher: &BareJid,
    ) -> Result<(), Error> {
        let (mut after, mut max) = (None, presence_change::MAX_RETRACTED);
        loop {
            if self.state.presences.is_available(&publisher.clone().into()) {
                // The rest is retracted when the publisher becomes unavailable again.
                self.state.presences.publishes(id, publisher.clone());
                return Ok(());
            }
            let own = OwnItems { publisher, after, max };
            match self.execute(&self.timer_actor, &RetractOwn { node: id, own }).await {
                Ok(Some(more)) => after = Some(more),
                Ok(None) => return Ok(()),
                // A smaller batch may fit into the backlog.
                Err(
                    Error::Busy { .. }
                    | Error::Refused(gjallar_pubsub::Error::TooManyNotifications),
                ) if max > 1 => max /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Watches all publishers whose items a node removes when they become unavailable.
    pub(in crate::service) async fn watch_publishers(
        &self,
        id: &NodeId,
        creator: Option<&AccountKey>,
    ) -> Result<(), StoreError> {
        let mut edge = PageBound::At(0);
        loop {
            let guard = match self.lock_node(id).await {
                Ok(guard) => guard,
                Err(Error::Unknown(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            guard.wait_committed().await;
            let Some(node) = guard.node().filter(|node| node.config.purge_offline) else {
                return Ok(());
            };
            let page = PageRequest { max: MAX_READ_ITEMS, edge };
            let query =
                ItemQuery { page, order: ItemOrder::default(), filter: ItemFilter::default() };
            let budget = ItemBudget::stored(self.policies().limits().max_reply_bytes);
            let listed = match self.store.list(id, &query, &budget).await {
                Ok(listed) => listed.unwrap_or_else(ItemPage::empty),
                Err(error) => match self.state.on_store_error(id, error) {
                    Error::Unknown(error) => return Err(error),
                    _ => return Ok(()),
                },
            };
            let publishers = listed.part.entries.iter().map(|item| &item.publisher);
            let publishers: BTreeSet<_> = publishers
                .filter(|publisher| presence_change::loses_own_items(node, publisher))
                .cloned()
                .collect();
            self.state.presences.watch(id, creator, publishers.iter().cloned());
            publishers.into_iter().for_each(|who| self.state.presences.publishes(id, who));
            match listed.more_after() {
                Some(position) => edge = PageBound::After(ItemRef::Position(position)),
                None => return Ok(()),
            }
        }
    }

    pub(in crate::service) async fn end_subscriptions_at(
        &self,
        id: &NodeId,
        departure: &UnavailablePresence,
    ) -> Result<(), Error> {
        // The resource may have become available again meanwhile.
        if self.state.presences.is_available(&departure.jid) {
            return Ok(());
        }
        // The departing entity is the actor, so it is not notified.
        let actor = Actor { jid: departure.jid.clone(), ..self.timer_actor.clone() };
        let entity = departure.jid.to_bare();
        self.execute(&actor, &Depart { node: id, entity: &entity, presence: departure }).await
    }
}
