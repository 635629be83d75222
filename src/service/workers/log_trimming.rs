//! Worker that removes acknowledged entries from the event log.

use tokio::time::sleep;
use tracing::warn;

use crate::{service::Service, store::StoreError};

use super::RETRY_INTERVAL;

impl Service {
    /// Removes acknowledged entries from the event log until dropped.
    pub async fn trim_log(&self) {
        let mut failures = 0;
        loop {
            self.memory.outbox.confirmed().await;
            match self.forget().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    if failures == 0 {
                        warn!(
                            event = "log_trim_failed",
                            %error,
                            "failed to trim the event log; will retry"
                        );
                    }
                    failures += 1;
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Removes the acknowledged entries from the event log once.
    pub(in crate::service) async fn forget(&self) -> Result<(), StoreError> {
        if let Some((told, stanzas)) = self.memory.outbox.told() {
            let debts = told.debts.len();
            self.store.acknowledge(told).await?;
            let news = self.memory.outbox.forgotten(debts, stanzas);
            self.memory.metrics.notifications.inc_by(news);
        }
        Ok(())
    }
}
