//! System clock.

use std::time::{SystemTime, UNIX_EPOCH};

use gjallar_pubsub::Timestamp;

/// Returns the current time of the system.
#[must_use]
#[allow(clippy::disallowed_methods)] // the one place where the clock is read
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
