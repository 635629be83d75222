//! What has to be told, in commit order, until it was handed over.
//!
//! A large audience is one entry. The transport takes entries from the front and says when one was
//! handed over; an answer that must not overtake what was told before it waits for a [`Ticket`].

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jid::Jid;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::pubsub::Notification;

/// Bytes of payload after which there is no more room.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// A notification and everyone it goes to.
#[derive(Debug)]
pub struct Telling {
    /// What is told.
    pub notification: Notification,
    /// To whom, at the time of the commit.
    pub recipients: Arc<[Jid]>,
    ticket: Ticket,
    _room: OwnedSemaphorePermit,
}

/// A position in the outbox: everything up to it was told, or not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Room for one entry, reserved before anything changes.
#[derive(Debug)]
pub(super) struct Room(OwnedSemaphorePermit);

/// The queue of what has to be told.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<Telling>>,
    bytes: usize,
    last: Ticket,
    told: Ticket,
}

impl Outbox {
    /// An outbox that holds at most `max` entries.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(max)),
            changed: Notify::new(),
        }
    }

    /// Reserves room for one entry; nothing if there is none.
    pub(super) fn reserve(&self) -> Option<Room> {
        if self.queue().bytes > MAX_BYTES {
            return None;
        }
        Arc::clone(&self.room).try_acquire_owned().ok().map(Room)
    }

    pub(super) fn tell(&self, room: Room, notification: Notification, recipients: Arc<[Jid]>) {
        let mut queue = self.queue();
        queue.bytes += notification.size();
        queue.last.0 += 1;
        let ticket = queue.last;
        queue.waiting.push_back(Arc::new(Telling {
            notification,
            recipients,
            ticket,
            _room: room.0,
        }));
        drop(queue);
        self.changed.notify_one();
    }

    /// The position of the newest entry.
    pub(super) fn last(&self) -> Ticket {
        self.queue().last
    }

    /// The entry that has to be told after this many others.
    #[must_use]
    pub fn peek(&self, skip: usize) -> Option<Arc<Telling>> {
        self.queue().waiting.get(skip).cloned()
    }

    /// Forgets this many entries from the front: they were handed over.
    pub fn told(&self, number: usize) {
        let mut queue = self.queue();
        for _ in 0..number {
            if let Some(telling) = queue.waiting.pop_front() {
                queue.bytes -= telling.notification.size();
                queue.told = telling.ticket;
            }
        }
    }

    /// Whether everything up to a position was handed over.
    #[must_use]
    pub fn is_told(&self, ticket: Ticket) -> bool {
        self.queue().told >= ticket
    }

    /// Waits until something came in.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
