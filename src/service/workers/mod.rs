//! Workers: background loops that run concurrently with the processing of requests, until their future is dropped. Each
//! worker has its own file.

pub(super) mod failure_streak;
mod log_trimming;
mod node_reload;
pub(super) mod presence_retries;
pub(super) mod task_set;
mod timers;
mod undeliverable;

use std::{sync::Arc, time::Duration};

use self::task_set::TaskSet;

use super::Service;

/// Pause between two attempts of a failed operation, and the first pause of a [`FailureStreak`](failure_streak::FailureStreak).
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl Service {
    /// Starts the workers of the service.
    pub fn spawn_workers(self: &Arc<Self>, tasks: &mut TaskSet) {
        let service = || Arc::clone(self);
        let (trimming, reload, timers) = (service(), service(), service());
        tasks.spawn("log_trimming", async move { trimming.trim_log().await });
        tasks.spawn("node_reload", async move { reload.reload_uncertain_nodes().await });
        tasks.spawn("timers", async move { timers.run_timers().await });
        let (undeliverable, presence, refusals) = (service(), service(), service());
        tasks.spawn("undeliverable", async move { undeliverable.drop_bounced().await });
        tasks.spawn("presence_retries", async move { presence.retry_presence().await });
        tasks.spawn("presence_refusals", async move { refusals.remember_refusals().await });
    }
}
