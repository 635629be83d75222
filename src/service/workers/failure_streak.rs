//! Failures in a row of a worker: one warning for all of them, and growing pauses between the attempts.

use std::{mem, time::Duration};

use tokio::time::sleep;

use super::RETRY_INTERVAL;

/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Failures of a worker since its last success.
#[derive(Debug, Default)]
pub(in crate::service) struct FailureStreak {
    failures: u32,
}

impl FailureStreak {
    /// Counts a failure. Returns `true` for the first failure of the streak; only this one is logged.
    pub(in crate::service) fn count(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures == 1
    }

    /// Ends the streak, and returns the number of its failures.
    pub(in crate::service) fn end(&mut self) -> u32 {
        mem::take(&mut self.failures)
    }

    /// Waits until the next attempt. The pause doubles with each failure, up to a minute.
    pub(in crate::service) async fn pause(&self) {
        sleep(self.pause_length()).await;
    }

    fn pause_length(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        RETRY_INTERVAL.saturating_mul(1 << doublings).min(MAX_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_one_failure_of_a_streak_is_logged() {
        let mut streak = FailureStreak::default();
        let seconds: Vec<_> = (0..9)
            .map(|number| {
                assert_eq!(streak.count(), number == 0);
                streak.pause_length().as_secs_f32()
            })
            .collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        streak.failures = u32::MAX;
        assert!(!streak.count());
        assert_eq!(streak.pause_length(), MAX_PAUSE);
        assert_eq!(streak.end(), u32::MAX);
        assert!(streak.count());
    }
}
