//! What systemd is told, if it started the process (sd_notify(3)): that it serves, that it lives, and that it stops.

use sd_notify::NotifyState;
use tokio::{sync::watch, time::interval};
use tracing::debug;

/// Says that the process serves; then, as often as systemd wants to hear it, that it lives; and that it was told to
/// stop.
pub(super) async fn report(mut stop: watch::Receiver<bool>) {
    tell(NotifyState::Ready);
    let alive = async {
        let Some(longest) = sd_notify::watchdog_enabled() else {
            return std::future::pending::<()>().await;
        };
        let mut ticks = interval(longest / 3);
        loop {
            ticks.tick().await;
            tell(NotifyState::Watchdog);
        }
    };
    let stopping = async {
        let _ = stop.wait_for(|stop| *stop).await;
        tell(NotifyState::Stopping);
    };
    tokio::join!(alive, stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!(%error, "systemd cannot be told");
    }
}
