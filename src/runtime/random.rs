//! Random numbers and identifiers.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use gjallar_pubsub::IdGenerator;

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
