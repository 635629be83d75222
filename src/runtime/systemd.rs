//! Notifications to systemd (sd_notify(3)), if it started the process: ready, watchdog, and stopping.

use sd_notify::NotifyState;
use tokio::time::interval;
use tracing::debug;

/// Notifies systemd that the service is ready. If systemd has a watchdog for the service, then notifies systemd three
/// times in each watchdog interval that the service is alive.
pub(super) async fn run_notifier() {
    notify(NotifyState::Ready);
    let Some(longest) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = interval(longest / 3);
    loop {
        ticks.tick().await;
        notify(NotifyState::Watchdog);
    }
}

/// Notifies systemd that the service is stopping.
pub(super) fn ends() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!(%error, "failed to notify systemd");
    }
}
