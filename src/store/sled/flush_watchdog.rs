//! Wakes waiters after a failed write of sled.
//!
//! When sled 0.34 fails to write a full buffer (`exit_reservation` in its logger), it records the failure without
//! waking waiters, so a pending `flush` waits for ever. A later call of `flush` gets the error and wakes all waiters.
//! So the watchdog calls `flush` from another thread while a flush takes too long.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;

/// Duration of a pending flush after which the watchdog calls the first additional flush. The duration doubles after
/// each additional flush.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// Thread that watches for flushes that take too long.
pub(super) struct FlushWatchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Time at which the pending flush began; `None` if no flush is pending.
    since: Mutex<Option<Instant>>,
    is_over: AtomicBool,
}

/// Guard that marks a flush as pending until it is dropped.
pub(super) struct FlushGuard(Arc<Shared>);

impl FlushWatchdog {
    pub(super) fn new(tree: &sled::Tree) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (watching, tree) = (Arc::clone(&shared), tree.clone());
        let thread =
            thread::Builder::new().name("waker".into()).spawn(move || watching.watch(&tree))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Marks a flush as pending.
    pub(super) fn waiting(&self) -> FlushGuard {
        self.shared.set(Some(Instant::now()));
        FlushGuard(Arc::clone(&self.shared))
    }
}

impl Drop for FlushWatchdog {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread does not panic.
            let _ = thread.join();
        }
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Shared {
    fn set(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn watch(&self, tree: &sled::Tree) {
        let (mut seen, mut patience) = (None, FLUSH_TIMEOUT);
        while !self.is_over.load(Ordering::Acquire) {
            thread::park_timeout(FLUSH_TIMEOUT);
            let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
            if since != seen {
                (seen, patience) = (since, FLUSH_TIMEOUT);
            }
            if since.is_some_and(|since| since.elapsed() >= patience) {
                patience *= 2;
                let tree = tree.clone();
                // The additional flush may block too, so the call gets a thread of its own.
                let asking = thread::Builder::new().name("asking".into());
                let _ = asking.spawn(move || drop(tree.flush()));
            }
        }
    }
}
