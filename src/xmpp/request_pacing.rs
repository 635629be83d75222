//! Rate limit of the service's own queries.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Interval between two queries: 500 queries a second.
const INTERVAL: Duration = Duration::from_millis(2);
/// Maximum idle time whose unused queries may be sent later in a burst. After a pause of at least this length, about 50
/// queries are sent without delay.
const BURST: Duration = Duration::from_millis(100);

/// Pace of the queries for presence and capabilities, which are many after a reconnection.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// Waits until the next query may be sent.
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
