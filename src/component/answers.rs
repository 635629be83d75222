//! The answers that wait to be sent, and what came back of what was sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minidom::Element;
use tokio::sync::Notify;

use crate::service::Outbox;

use super::{
    multicast::{Multicast, QUESTION},
    writer::WRITE_BYTES,
};

/// Bytes of answers that may wait; while there are more, nothing is read and no answer is made.
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// What a barrier's id begins with.
pub(super) const BARRIER: &str = "barrier-";

/// The answers that wait to be sent, and what the reading half tells the writing half.
#[derive(Debug)]
pub struct Answers {
    queue: Mutex<Queue>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) multicast: Multicast,
    /// What the barriers of this connection are told by from those of others, and the newest that returned.
    barriers: Mutex<(String, u64)>,
    pub(super) came: Notify,
    went: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// What is asked, and waits for nothing.
    questions: String,
    ready: VecDeque<String>,
    /// How many answers there ever were before the first that is ready.
    taken: u64,
    bytes: usize,
}

impl Answers {
    /// No answers, beside an outbox and a way to many.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, multicast: Multicast) -> Self {
        Self {
            queue: Mutex::default(),
            outbox,
            multicast,
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

    /// Sends a question of the component's own before everything that waits.
    pub(super) fn ask(&self, question: &str) {
        self.queue().questions.push_str(question);
        self.came.notify_one();
    }

    /// Takes notice of what comes back of what the component of this JID sent; whether a stanza is that.
    pub(super) fn take_notice(&self, service: &str, stanza: &Element) -> bool {
        let (Some(from), Some(id)) = (stanza.attr("from"), stanza.attr("id")) else { return false };
        match (stanza.name(), stanza.attr("type")) {
            ("iq", _) if id.starts_with(BARRIER) => {
                (from == service || self.multicast.goes_through(from)) && self.is_barrier(id)
            }
            ("iq", Some("result" | "error")) if id.starts_with(QUESTION) => {
                let questions = self.multicast.answered(from, stanza);
                questions.iter().flatten().for_each(|question| self.ask(question));
                self.came.notify_one();
                questions.is_some()
            }
            ("message", Some("error")) if self.multicast.goes_through(from) => {
                self.multicast_failed();
                true
            }
            _ => false,
        }
    }

    /// What was sent by multicast may not have come through. Its barriers do not count from now on.
    pub(super) fn multicast_failed(&self) {
        if let Some(question) = self.multicast.fail() {
            self.ask(&question);
        }
    }

    /// Takes notice of a stanza of the component to itself; whether it is a barrier.
    fn is_barrier(&self, id: &str) -> bool {
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

    /// How many answers there ever were.
    pub(super) fn count(&self) -> u64 {
        let queue = self.queue();
        queue.taken + queue.ready.len() as u64
    }

    /// Moves questions to the end of a buffer, and answers, of all that there ever were the first so many.
    pub(super) fn take_ready(&self, up_to: u64, buffer: &mut String) {
        let mut queue = self.queue();
        buffer.push_str(&std::mem::take(&mut queue.questions));
        while buffer.len() < WRITE_BYTES
            && queue.taken < up_to
            && let Some(stanza) = queue.ready.pop_front()
        {
            queue.taken += 1;
            queue.bytes -= stanza.len();
            buffer.push_str(&stanza);
        }
        drop(queue);
        self.went.notify_waiters();
    }

    /// Puts answers back to the front, for the connection broke.
    pub(super) fn send_again(&self, answers: String) {
        let mut queue = self.queue();
        if !answers.is_empty() {
            queue.bytes += answers.len();
            queue.taken = queue.taken.saturating_sub(1);
            queue.ready.push_front(answers);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
