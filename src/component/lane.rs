//! Worker lanes: the stanzas of one sender in order (RFC 6120 §10.1), those of different senders side
//! by side, one of each at a time. Lanes are bounded, and end when they are empty.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use minidom::Element;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::error;

use crate::wire::stanza::{Header, StanzaError};

use super::dispatch::Dispatch;

/// How many senders are served at the same time; further ones wait for their turn.
const MAX_SERVED: usize = 64;
/// Stanzas of one sender that may wait.
const MAX_WAITING: usize = 256;
/// Bytes of stanzas that may wait: of one sender, of all of one domain, and of all. As trees they take
/// several times as much. One stanza may wait, whatever its size.
const MAX_SENDER_BYTES: u32 = 1024 * 1024;
const MAX_DOMAIN_BYTES: u32 = 8 * 1024 * 1024;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What a stanza takes besides its bytes.
const STANZA_BYTES: u32 = 1024;

/// The lanes of a connection's senders.
#[derive(Clone)]
pub(super) struct Lanes {
    dispatch: Arc<Dispatch>,
    waiting: Arc<Mutex<Senders>>,
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    ended: Arc<Notify>,
}

#[derive(Default)]
struct Senders {
    lanes: HashMap<String, Lane>,
    /// The bytes that wait, of each domain that has a lane.
    domains: HashMap<String, u32>,
}

/// What waits behind the stanza that is dealt with.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    bytes: u32,
}

struct Waiting {
    stanza: Element,
    bytes: u32,
    _room: OwnedSemaphorePermit,
}

impl Lanes {
    pub(super) fn new(dispatch: &Arc<Dispatch>) -> Self {
        Self {
            dispatch: Arc::clone(dispatch),
            waiting: Arc::default(),
            room: Arc::new(Semaphore::new(MAX_BYTES)),
            turns: Arc::new(Semaphore::new(MAX_SERVED)),
            ended: Arc::default(),
        }
    }

    /// Puts a stanza, which had so many bytes, into its sender's lane.
    ///
    /// # Errors
    /// The stanza, if the lane or all room is full.
    pub(super) fn submit(&self, stanza: Element, bytes: usize) -> Result<(), Element> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(STANZA_BYTES);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else {
            return Err(stanza);
        };
        let from = stanza.attr("from").unwrap_or_default();
        let sender = from.split_once('/').map_or(from, |(bare, _)| bare).to_owned();
        let waiting = Waiting { stanza, bytes, _room: room };
        let mut senders = self.senders();
        let domain = senders.domains.entry(domain_of(&sender).to_owned()).or_default();
        if *domain > 0 && *domain + bytes > MAX_DOMAIN_BYTES {
            return Err(waiting.stanza);
        }
        *domain += bytes;
        match senders.lanes.get_mut(&sender) {
            Some(lane) if lane.has_room(bytes) => {
                lane.bytes += bytes;
                lane.waiting.push_back(waiting);
            }
            Some(_) => {
                senders.release(&sender, bytes);
                return Err(waiting.stanza);
            }
            None => {
                senders.lanes.insert(sender.clone(), Lane::default());
                let lanes = self.clone();
                tokio::spawn(async move { lanes.serve(sender, waiting).await });
            }
        }
        Ok(())
    }

    /// Waits until everything that waits is dealt with.
    pub(super) async fn finish(&self) {
        loop {
            let ended = self.ended.notified();
            if self.senders().lanes.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Deals with a sender's stanzas until none waits.
    async fn serve(self, sender: String, first: Waiting) {
        let mut next = Some(first);
        while let Some(Waiting { stanza, bytes, _room }) = next {
            // The semaphore is never closed, and whoever waits longest comes first.
            let turn = self.turns.acquire().await;
            // While nobody takes answers, none are made.
            self.dispatch.room().await;
            handle(&self.dispatch, stanza).await;
            drop(turn);
            next = self.next(&sender, bytes);
        }
    }

    /// The next stanza of a sender, after one of so many bytes; without one, its lane ends.
    fn next(&self, sender: &str, done: u32) -> Option<Waiting> {
        let mut senders = self.senders();
        senders.release(sender, done);
        let lane = senders.lanes.get_mut(sender)?;
        if let Some(next) = lane.waiting.pop_front() {
            lane.bytes -= next.bytes;
            return Some(next);
        }
        senders.lanes.remove(sender);
        drop(senders);
        self.ended.notify_waiters();
        None
    }

    fn senders(&self) -> MutexGuard<'_, Senders> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn has_room(&self, bytes: u32) -> bool {
        let is_first = self.waiting.is_empty();
        self.waiting.len() < MAX_WAITING && (is_first || self.bytes + bytes <= MAX_SENDER_BYTES)
    }
}

impl Senders {
    /// So many bytes of a sender do not wait any more.
    fn release(&mut self, sender: &str, bytes: u32) {
        let domain = domain_of(sender);
        if let Some(waiting) = self.domains.get_mut(domain) {
            *waiting -= bytes;
            if *waiting == 0 {
                self.domains.remove(domain);
            }
        }
    }
}

fn domain_of(bare: &str) -> &str {
    bare.rsplit_once('@').map_or(bare, |(_, domain)| domain)
}

/// Deals with a stanza in a task of its own: should a defect make it panic, its sender is answered
/// and the lane lives on.
async fn handle(dispatch: &Arc<Dispatch>, stanza: Element) {
    let header = Header::of(&stanza);
    let worker = Arc::clone(dispatch);
    let handled = tokio::spawn(async move { worker.handle(&stanza).await });
    if let Err(defect) = handled.await {
        error!(%defect, "a stanza made its handler panic");
        dispatch.refuse(&header, &StanzaError::new("wait", "internal-server-error"));
    }
}
