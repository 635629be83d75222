//! Time and numbers that nobody had before: the two things that the rules are given.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use gjallar_pubsub::{IdGenerator, Timestamp};

/// Numbers from a keyed hash of a counter. The key comes from the system's randomness, so processes
/// do not agree on numbers, and nobody can guess them.
#[derive(Debug, Default)]
pub struct RandomIds {
    key: RandomState,
    counter: AtomicU64,
}

impl IdGenerator for RandomIds {
    fn next_u64(&self) -> u64 {
        self.key.hash_one(self.counter.fetch_add(1, Ordering::Relaxed))
    }
}

/// The system's time.
#[must_use]
#[allow(clippy::disallowed_methods)] // the one place where the clock is read
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
