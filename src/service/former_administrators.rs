//! Access of former administrators: their subscriptions end where only the rights of an administrator admitted them.

use std::collections::BTreeSet;

use jid::{BareJid, Jid};
use tracing::{info, warn};

use gjallar_pubsub::{
    NodeId, PageBound, PageRequest, administers, op::reevaluate::ReevaluateAccess,
};

use super::{Error, Service, workers::failure_streak::FailureStreak};

/// Maximum number of nodes in a page of the list of nodes.
const PAGE: usize = 1000;

impl Service {
    /// Reevaluates all subscriptions of entities that are no administrators any more. `former` are the entities and
    /// domains that were removed from the list of administrators. Retries until it succeeds.
    pub async fn end_access_of_former_administrators(&self, former: &[BareJid]) {
        let mut streak = FailureStreak::default();
        let mut changed = 0;
        while let Err(error) = self.reevaluate_all_of(former, &mut changed).await {
            if streak.count() {
                warn!(
                    event = "former_administrators_kept",
                    %error,
                    "failed to end the subscriptions of former administrators; will retry"
                );
            }
            streak.pause().await;
        }
        info!(
            event = "former_administrators_reevaluated",
            subscriptions = changed,
            "reevaluated the subscriptions of former administrators"
        );
    }

    async fn reevaluate_all_of(
        &self,
        former: &[BareJid],
        changed: &mut usize,
    ) -> Result<(), Error> {
        let mut page = PageRequest::first(PAGE);
        loop {
            let nodes = self.store.nodes(&page).await.map_err(Error::Unknown)?;
            let nodes = self.state.quarantine_damaged(nodes);
            let Some((last, _)) = nodes.last() else { return Ok(()) };
            page.edge = PageBound::After(*last);
            for (_, summary) in &nodes {
                for entity in self.subscribed_among(&summary.node, former).await? {
                    let operation = ReevaluateAccess { node: &summary.node, entity: &entity };
                    match self.execute(&self.timer_actor, &operation).await {
                        Ok(has_changed) => *changed += usize::from(has_changed),
                        Err(Error::Refused(gjallar_pubsub::Error::TooManyNotifications)) => {}
                        Err(error) => pass_over_missing(error)?,
                    }
                }
            }
        }
    }

    /// Returns the subscribers and the pending subscribers of a node that are among some entities and domains.
    async fn subscribed_among(
        &self,
        id: &NodeId,
        entities: &[BareJid],
    ) -> Result<BTreeSet<BareJid>, Error> {
        let guard = match self.lock_node(id).await {
            Ok(guard) => guard,
            Err(error) => return pass_over_missing(error).map(|()| BTreeSet::new()),
        };
        let all =
            guard.node().into_iter().flat_map(|node| node.subscribers().chain(node.pending()));
        Ok(all.map(Jid::to_bare).filter(|entity| administers(entities, entity)).collect())
    }
}

/// Returns the error unless it says that the node is missing or quarantined.
fn pass_over_missing(error: Error) -> Result<(), Error> {
    match error {
        Error::Refused(_) | Error::Quarantined => Ok(()),
        error => Err(error),
    }
}
