//! Worker that ends subscriptions whose notifications bounce repeatedly (§12.4).

use std::collections::BTreeSet;

use jid::Jid;
use tracing::{info, warn};

use crate::service::{Bounce, Error, Service};
use gjallar_pubsub::{Actor, Epoch, op::unsubscribe_undeliverable::UnsubscribeBounced};

use super::failure_streak::FailureStreak;

impl Service {
    /// Records that a notification to a JID bounced. `node` is the epoch of the notification's node, which identifies
    /// one incarnation of a node name. After repeated bounces the subscription ends (§12.4).
    pub fn on_bounce(&self, jid: &Jid, node: Epoch, how: Bounce) {
        self.state.bounces.record(jid, node, how, (self.clock)(), self.policies().limits());
    }

    /// Ends the subscriptions whose notifications bounce repeatedly, until the future is dropped.
    pub async fn drop_bounced(&self) {
        let mut streak = FailureStreak::default();
        loop {
            let (jid, epoch) = self.state.bounces.ending().await;
            match self.end_bounced_of(&jid, epoch).await {
                Ok(()) => drop(streak.end()),
                Err(error) => {
                    if streak.count() {
                        warn!(
                            event = "subscription_not_removed",
                            %error,
                            "failed to remove a subscription after delivery failures; will retry"
                        );
                    }
                    self.state.bounces.end_later(jid, epoch);
                    streak.pause().await;
                }
            }
        }
    }

    /// Ends the subscription of a JID at the node with this epoch, which identifies one incarnation of a node name.
    async fn end_bounced_of(&self, jid: &Jid, epoch: Epoch) -> Result<(), Error> {
        let own = self.store.subscriptions_of(&jid.to_bare()).await.map_err(Error::Unknown)?;
        let own = self.state.quarantine_damaged(own).into_iter();
        let nodes: BTreeSet<_> =
            own.filter(|(_, own)| own.jid == *jid).map(|(node, _)| node).collect();
        // The JID is not notified of that: the notification would bounce too.
        let actor = Actor { jid: jid.clone(), ..self.timer_actor.clone() };
        for node in &nodes {
            let operation = UnsubscribeBounced { node, epoch, jid };
            match self.execute(&actor, &operation).await {
                Ok(_) => {
                    info!(
                        event = "subscription_removed",
                        node = node.as_str(),
                        "removed a subscription after repeated delivery failures"
                    );
                    break;
                }
                // The epoch is of another node.
                Err(Error::Refused(_) | Error::Quarantined) => {}
                Err(error @ (Error::Busy { .. } | Error::Unknown(_))) => return Err(error),
            }
        }
        Ok(())
    }
}
