//! Worker that reloads uncertain nodes: those whose last commit has an unknown outcome.

use tokio::time::sleep;

use crate::{
    service::{Error, Service, service_state::ServiceState},
    store::StoreError,
};
use gjallar_pubsub::NodeId;

use super::{RETRY_INTERVAL, failure_streak::FailureStreak};

impl Service {
    /// Reloads uncertain nodes until the future is dropped. If a commit was reported as failed, but the reload finds it
    /// in the store, its log entries are delivered.
    pub async fn reload_uncertain_nodes(&self) {
        let mut streak = FailureStreak::default();
        loop {
            let ids = self.state.nodes.next_uncertain().await;
            let mut all_failed = false;
            if self.reload_together(&ids).await.is_err() {
                all_failed = true;
                // A single node may be the cause of the failure, so each is reloaded alone.
                for id in &ids {
                    match self.lock_node(id).await {
                        Err(Error::Unknown(_)) => self.state.nodes.mark_uncertain(id),
                        _ => all_failed = false,
                    }
                }
            }
            if all_failed {
                streak.count();
                streak.pause().await;
            } else {
                streak.end();
                sleep(RETRY_INTERVAL).await;
            }
        }
    }

    /// Reloads several nodes and their pending log entries in one pass, because each read of pending entries scans the
    /// log of all nodes.
    async fn reload_together(&self, ids: &[NodeId]) -> Result<(), StoreError> {
        let ServiceState { nodes, log_window, .. } = &*self.state;
        let mut guards = Vec::with_capacity(ids.len());
        for id in ids {
            // Nodes that were reloaded meanwhile are skipped.
            if let (guard, Some(before)) = nodes.lock(id, &*self.store).await? {
                guards.push((id.clone(), guard, before));
            }
        }
        let ids: Vec<_> = guards.iter().map(|(id, ..)| id.clone()).collect();
        let known = log_window.known();
        log_window.restore(self.store.poll(Some(&ids)).await?, &known);
        for (id, guard, before) in &mut guards {
            self.accept_reread(id, guard, before);
        }
        Ok(())
    }
}
