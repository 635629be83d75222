//! What goes on as long as it is awaited, whether somebody asks for something or not.

pub(super) mod presence_retries;
use std::{collections::BTreeSet, time::Duration};

use jid::{AccountKey, Jid};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::store::StoreError;
use gjallar_pubsub::{
    Actor, Context, Epoch, Node, NodeId,
    op::{
        timers::{self, Extent, TimerOutcome},
        unsubscribe_undeliverable,
    },
};

use super::{
    Bounce, Error, Outcome, Service,
    prefetch::{PrefetchRequest, Prefetched},
    service_state::ServiceState,
};

/// The longest time for which nobody looks at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The pause between attempts to do what failed.
const PAUSE: Duration = Duration::from_millis(500);

impl Service {
    /// Forgets what was told, as long as it is awaited.
    pub async fn trim_log(&self) {
        let mut failures = 0;
        loop {
            self.memory.outbox.confirmed().await;
            match self.forget().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        warn!(%error, "what was told cannot be forgotten; trying again");
                    }
                    failures += 1;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Looks at nodes whose last commit failed, as long as it is awaited: what happened there all the same is
    /// told.
    pub async fn reload_uncertain_nodes(&self) {
        loop {
            let ids = self.memory.nodes.next_uncertain().await;
            if self.settle_together(&ids).await.is_err() {
                // One of them may be the reason.
                for id in &ids {
                    if let Err(Error::Unknown(_)) = self.lock_node(id).await {
                        self.memory.nodes.mark_uncertain(id);
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Reads nodes whose last commit failed, and what the store owes there: once for all, because all that it owes
    /// anywhere is read for that.
    async fn settle_together(&self, ids: &[NodeId]) -> Result<(), StoreError> {
        let ServiceState { nodes, outbox, .. } = &*self.memory;
        let mut turns = Vec::with_capacity(ids.len());
        for id in ids {
            // Others have been read since.
            if let (turn, Some(before)) = nodes.lock(id, &*self.store).await? {
                turns.push((id.clone(), turn, before));
            }
        }
        let ids: Vec<_> = turns.iter().map(|(id, ..)| id.clone()).collect();
        let known = outbox.known();
        outbox.restore(self.store.poll(Some(&ids)).await?, &known);
        for (id, turn, before) in &mut turns {
            self.accept_reread(id, turn, before);
        }
        Ok(())
    }

    /// Runs timer-driven operations until dropped: leases, digests, item expiry and roster revocations. Never waits
    /// for rosters; a node is processed again when a roster arrives.
    pub async fn run_timers(&self) {
        let ServiceState { deadlines, rosters, .. } = &*self.memory;
        loop {
            let now = (self.clock)();
            rosters.take_due().iter().for_each(|node| deadlines.add(node, now));
            if let Some(node) = deadlines.pop_due(now) {
                self.expire(&node).await;
                continue;
            }
            let left =
                deadlines.first().map(|at| Duration::from_millis(at.0.saturating_sub(now.0)));
            tokio::select! {
                () = sleep(left.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)) => {}
                () = deadlines.changed() => {}
                () = rosters.became_due() => {}
            }
        }
    }

    /// A notification of this life of a node came back from a JID. If that happened too often its subscription there
    /// ends (§12.4).
    pub fn on_bounce(&self, jid: &Jid, node: Epoch, how: Bounce) {
        self.memory.bounces.record(jid, node, how, (self.clock)(), self.policies().limits());
    }

    /// Ends the subscriptions of those who cannot be reached, as long as it is awaited.
    pub async fn drop_bounced(&self) {
        let mut failures = 0;
        loop {
            let (jid, epoch) = self.memory.bounces.ending().await;
            match self.end_bounced_of(&jid, epoch).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        warn!(
                            %error,
                            "failed to end a subscription whose notifications bounced; will retry"
                        );
                    }
                    failures += 1;
                    self.memory.bounces.end_later(jid, epoch);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Ends the subscription of a JID at the node of which this is a life.
    async fn end_bounced_of(&self, jid: &Jid, epoch: Epoch) -> Result<(), Error> {
        let own = self.store.subscriptions_of(&jid.to_bare()).await.map_err(Error::Unknown)?;
        let own = self.memory.quarantine_damaged(own).into_iter();
        let nodes: BTreeSet<_> =
            own.filter(|(_, own)| own.jid == *jid).map(|(node, _)| node).collect();
        // It is not told: it would come back too.
        let actor = Actor { jid: jid.clone(), ..self.timer_actor.clone() };
        for node in &nodes {
            let rule = |node: Option<&Node>, _: &Prefetched, cx: &Context<'_>| {
                unsubscribe_undeliverable::bounce(node, epoch, jid, cx)
            };
            let outcome =
                self.execute(&actor, node, PrefetchRequest::Nothing, rule, |outcome| outcome);
            match outcome.await.await {
                Ok(_) => {
                    info!(
                        node = node.as_str(),
                        "notifications came back too often: somebody is not subscribed any more"
                    );
                    break;
                }
                // It is of another node.
                Err(Error::Refused(_) | Error::Quarantined) => {}
                Err(error @ (Error::Busy { .. } | Error::Unknown(_))) => return Err(error),
            }
        }
        Ok(())
    }

    async fn expire(&self, id: &NodeId) {
        let ServiceState { deadlines, delays, .. } = &*self.memory;
        let now = (self.clock)();
        if let Err(Error::Unknown(_)) = self.apply_rosters(id).await {
            deadlines.add(id, now.later_by(PAUSE.as_millis() as u64));
        }
        let extent = delays.extent(id, now);
        let mut outcome = self.expire_to(extent, id).await;
        let node = id.as_str();
        match &outcome {
            _ if extent == Extent::Ends => {}
            Err(
                Error::Busy { .. } | Error::Refused(gjallar_pubsub::Error::TooManyNotifications),
            ) => {
                if delays.delay(id, extent, now) {
                    let event = "expiry_delayed";
                    warn!(event, node, "no room to notify of expired items and leases; will retry");
                }
                outcome = self.expire_to(Extent::Ends, id).await;
            }
            Ok(TimerOutcome { next, .. }) => {
                if delays.end(id, next.is_none_or(|next| next > now)) {
                    let event = "expiry_resumed";
                    info!(event, node, "expired items and leases are processed again");
                }
            }
            Err(_) => {}
        }
        let until = || delays.until(id).iter().for_each(|until| deadlines.add(id, *until));
        match outcome {
            Ok(TimerOutcome { next, creator, watched, publishers }) => {
                until();
                next.iter().for_each(|next| deadlines.add(id, *next));
                let creator = creator.as_ref().map(AccountKey::of);
                self.memory.presences.watch(id, creator.as_ref(), watched.into_iter());
                self.memory.presences.note_read(id);
                publishers.into_iter().for_each(|who| self.memory.presences.publishes(id, who));
            }
            Err(
                Error::Busy { .. } | Error::Refused(gjallar_pubsub::Error::TooManyNotifications),
            ) => until(),
            Err(Error::Refused(_) | Error::Quarantined) => {
                delays.end(id, true);
                self.memory.presences.note_read(id);
            }
            Err(Error::Unknown(_)) => {
                deadlines.add(id, (self.clock)().later_by(PAUSE.as_millis() as u64));
            }
        }
    }

    async fn expire_to(&self, extent: Extent, id: &NodeId) -> Outcome<TimerOutcome> {
        let rule = |node: Option<&Node>, facts: &Prefetched, cx: &Context<'_>| {
            let ServiceState { interests, outbox, .. } = &*self.memory;
            let has_interested = interests.is_any_at(id)
                || node.is_some_and(|node| outbox.has_interested(node.epoch));
            timers::run_timers(node, &facts.items, &facts.newest, has_interested, extent, cx)
        };
        self.execute(&self.timer_actor, id, PrefetchRequest::Time, rule, |outcome| outcome)
            .await
            .await
    }

    pub(super) async fn forget(&self) -> Result<(), StoreError> {
        if let Some((told, stanzas)) = self.memory.outbox.told() {
            let debts = told.debts.len();
            self.store.acknowledge(told).await?;
            let news = self.memory.outbox.forgotten(debts, stanzas);
            self.memory.metrics.notifications.inc_by(news);
        }
        Ok(())
    }
}
