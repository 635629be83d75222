//! Worker that removes acknowledged entries from the event log.

use tracing::warn;

use crate::{service::Service, store::StoreError};

use super::failure_streak::FailureStreak;

impl Service {
    /// Removes acknowledged entries from the event log until the future is dropped.
    pub async fn trim_log(&self) {
        let mut streak = FailureStreak::default();
        loop {
            self.state.log_window.confirmed().await;
            match self.trim_once().await {
                Ok(()) => drop(streak.end()),
                Err(error) => {
                    if streak.count() {
                        warn!(
                            event = "log_trim_failed",
                            %error,
                            "failed to trim the event log; will retry"
                        );
                    }
                    streak.pause().await;
                }
            }
        }
    }

    /// Removes up to 500 acknowledged entries from the event log.
    pub(in crate::service) async fn trim_once(&self) -> Result<(), StoreError> {
        if let Some((acknowledged, stanzas)) = self.state.log_window.acknowledged() {
            let debts = acknowledged.debts.len();
            self.store.acknowledge(acknowledged).await?;
            let newly_trimmed = self.state.log_window.forgotten(debts, stanzas);
            self.state.metrics.notifications.inc_by(newly_trimmed);
        }
        Ok(())
    }
}
