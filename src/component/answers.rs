//! The answers that wait to be sent, and which barriers came back.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::service::Outbox;

use super::writer::WRITE_BYTES;

/// Bytes of answers that may wait; while there are more, nothing is read and no answer is made.
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// What a barrier's id begins with.
pub(super) const BARRIER: &str = "barrier-";

/// The answers that wait to be sent, and the barriers that came back.
#[derive(Debug)]
pub struct Answers {
    queue: Mutex<Queue>,
    pub(super) outbox: Arc<Outbox>,
    /// What the barriers of this connection are told by from those of others, and the newest that returned.
    barriers: Mutex<(String, u64)>,
    pub(super) came: Notify,
    went: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<String>,
    bytes: usize,
}

impl Answers {
    /// No answers, beside an outbox.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            queue: Mutex::default(),
            outbox,
            barriers: Mutex::default(),
            came: Notify::new(),
            went: Notify::new(),
        }
    }

    /// Sends a stanza.
    pub fn send(&self, stanza: String) {
        let mut queue = self.queue();
        queue.bytes += stanza.len();
        queue.ready.push_back(stanza);
        drop(queue);
        self.came.notify_one();
    }

    /// Takes notice of a stanza of the component to itself; whether it is a barrier.
    pub fn is_barrier(&self, id: &str) -> bool {
        let Some((connection, number)) = id.strip_prefix(BARRIER).and_then(|id| id.split_once('-'))
        else {
            return false;
        };
        let mut barriers = self.barriers();
        if let (true, Ok(number)) = (connection == barriers.0, number.parse()) {
            barriers.1 = barriers.1.max(number);
            self.came.notify_one();
        }
        true
    }

    /// From now on only barriers of this name count.
    pub(super) fn begin_barriers(&self, connection: String) {
        *self.barriers() = (connection, 0);
    }

    pub(super) fn barriers(&self) -> MutexGuard<'_, (String, u64)> {
        self.barriers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until more answers may come.
    pub async fn room(&self) {
        loop {
            let went = self.went.notified();
            if self.queue().bytes <= MAX_WAITING_BYTES {
                return;
            }
            went.await;
        }
    }

    /// Moves answers to the end of a buffer.
    pub(super) fn take_ready(&self, buffer: &mut String) {
        let mut queue = self.queue();
        while buffer.len() < WRITE_BYTES
            && let Some(stanza) = queue.ready.pop_front()
        {
            queue.bytes -= stanza.len();
            buffer.push_str(&stanza);
        }
        drop(queue);
        self.went.notify_waiters();
    }

    /// Puts answers back to the front, for the connection broke.
    pub(super) fn send_again(&self, answers: String) {
        let mut queue = self.queue();
        queue.bytes += answers.len();
        queue.ready.push_front(answers);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
