//! Random numbers and identifiers.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use gjallar_pubsub::IdGenerator;

/// Source of numbers from a keyed hash of a counter. The key is random, so numbers differ between processes and cannot
/// be predicted.
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
