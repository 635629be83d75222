//! Waking who waits for a write that failed.
//!
//! When sled 0.34 writes a buffer that is full (`exit_reservation` in its logger) and that fails, it notes the failure
//! and wakes nobody: who waits already waits for ever. Who asks later is told, and that wakes all. So while somebody
//! waits for long, somebody else asks.

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

/// How long it takes until somebody else asks; each time after that twice as long.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// A thread that looks whether somebody waits.
pub(super) struct FlushWatchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Since when somebody waits.
    since: Mutex<Option<Instant>>,
    is_over: AtomicBool,
}

/// Somebody waits as long as this is there.
pub(super) struct FlushGuard(Arc<Shared>);

impl FlushWatchdog {
    pub(super) fn new(tree: &sled::Tree) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (watching, tree) = (Arc::clone(&shared), tree.clone());
        let thread =
            thread::Builder::new().name("waker".into()).spawn(move || watching.watch(&tree))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on somebody waits.
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
            // It does not panic.
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
                // It may have to wait too, so it is no thread of ours that asks.
                let asking = thread::Builder::new().name("asking".into());
                let _ = asking.spawn(move || drop(tree.flush()));
            }
        }
    }
}
