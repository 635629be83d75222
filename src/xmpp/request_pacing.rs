//! How often the service asks others on its own account.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The time between two questions: 500 a second.
const INTERVAL: Duration = Duration::from_millis(2);
/// So much of it may be made up for, if no question was asked for a while.
const BURST: Duration = Duration::from_millis(100);

/// The pace of questions that come in great numbers after a reconnection: for presence, and for capabilities.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// Waits until the next question may be asked.
    pub(super) async fn wait_slot(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let at = next.map_or(earliest, |next| next.max(earliest));
            *next = Some(at + INTERVAL);
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn queries_are_paced_after_a_burst() {
        let pace = Pace::default();
        let began = Instant::now();
        for _ in 0..1050 {
            pace.wait_slot().await;
        }
        let took = began.elapsed();
        assert!((1990..2010).contains(&took.as_millis()), "{took:?}");
    }
}
