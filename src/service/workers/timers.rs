//! Worker of timer-driven operations: leases, digests, expiry of items, and revocations because of roster changes.

use std::time::Duration;

use jid::AccountKey;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    service::{Error, Outcome, Service, service_state::ServiceState},
    store::StoreError,
};
use gjallar_pubsub::{
    NodeId,
    op::timers::{Extent, RunTimers, TimerOutcome},
};

use super::failure_streak::FailureStreak;

/// Maximum time for which the worker sleeps before it reads the clock again.
const MAX_SLEEP: Duration = Duration::from_secs(60);

impl Service {
    /// Runs timer-driven operations until the future is dropped: leases, digests, item expiry, and revocations because
    /// of roster changes. Never waits for rosters. A node is processed again when its owner's roster arrives.
    pub async fn run_timers(&self) {
        let ServiceState { deadlines, rosters, .. } = &*self.state;
        let mut streak = FailureStreak::default();
        loop {
            let now = (self.clock)();
            rosters.take_due().iter().for_each(|node| deadlines.add(node, now));
            if let Some(node) = deadlines.pop_due(now) {
                match self.expire(&node).await {
                    Ok(()) => drop(streak.end()),
                    Err(error) => {
                        if streak.count() {
                            warn!(
                                event = "timer_run_failed",
                                node = node.as_str(),
                                %error,
                                "failed to process leases, digests and item expiry; will retry"
                            );
                        }
                        streak.pause().await;
                        // Nodes that became due meanwhile are processed first.
                        deadlines.add(&node, (self.clock)());
                    }
                }
                continue;
            }
            let left =
                deadlines.first().map(|at| Duration::from_millis(at.0.saturating_sub(now.0)));
            tokio::select! {
                () = sleep(left.unwrap_or(MAX_SLEEP).min(MAX_SLEEP)) => {}
                () = deadlines.changed() => {}
                () = rosters.became_due() => {}
            }
        }
    }

    /// Runs the timer-driven operations of a node that are due.
    ///
    /// # Errors
    /// If the store fails; the node has to be processed again.
    async fn expire(&self, id: &NodeId) -> Result<(), StoreError> {
        let ServiceState { deadlines, delays, .. } = &*self.state;
        let now = (self.clock)();
        if let Err(Error::Unknown(error)) = self.apply_rosters(id).await {
            return Err(error);
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
                    warn!(
                        event = "expiry_delayed",
                        node, "backlog is full; item expiry, lease notices and digests are delayed"
                    );
                }
                outcome = self.expire_to(Extent::Ends, id).await;
            }
            Ok(TimerOutcome { next, .. }) => {
                if delays.end(id, next.is_none_or(|next| next > now)) {
                    info!(
                        event = "expiry_resumed",
                        node,
                        "expired items, lease notices and digests are processed on time again"
                    );
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
                self.state.presences.watch(id, creator.as_ref(), watched.into_iter());
                self.state.presences.note_read(id);
                publishers.into_iter().for_each(|who| self.state.presences.publishes(id, who));
                if self.state.presences.take_unread_publishers(id)
                    && let Err(error) = self.watch_publishers(id, creator.as_ref()).await
                {
                    self.state.presences.expect_publishers(id);
                    return Err(error);
                }
            }
            Err(
                Error::Busy { .. } | Error::Refused(gjallar_pubsub::Error::TooManyNotifications),
            ) => until(),
            Err(Error::Refused(_) | Error::Quarantined) => {
                delays.end(id, true);
                self.state.presences.note_read(id);
            }
            Err(Error::Unknown(error)) => return Err(error),
        }
        Ok(())
    }

    async fn expire_to(&self, extent: Extent, id: &NodeId) -> Outcome<TimerOutcome> {
        self.execute(&self.timer_actor, &RunTimers { node: id, extent }).await
    }
}
