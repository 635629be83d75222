//! What systemd is told, if it started the process (sd_notify(3)): that it serves, that it lives, and that it ends.

use sd_notify::NotifyState;
use tokio::time::interval;
use tracing::debug;

/// Says that the process serves; then, as often as systemd wants to hear it, that it lives.
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

/// Says that it serves no more.
pub(super) fn ends() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!(%error, "failed to notify systemd");
    }
}
