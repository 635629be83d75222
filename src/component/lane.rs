//! Worker lanes: the stanzas of one sender in order (RFC 6120 §10.1), those of different senders side
//! by side, one of each at a time. Lanes are bounded, and end when they are empty.
//!
//! A lane goes on when a request has its place among the commits, so who sends many does not wait for the disk
//! with each. Requests that look at more than one node wait until those before them are settled.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use minidom::Element;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument, error, error_span, instrument::Instrumented};

use crate::{
    service::Settling,
    wire::stanza::{Header, StanzaError},
};

use super::dispatch::Dispatch;

/// How many senders are served at the same time; further ones wait for their turn.
const MAX_SERVED: usize = 64;
/// Stanzas of one sender that may wait or be unsettled, and how many of them unsettled.
const MAX_STANZAS: usize = 256;
const MAX_UNSETTLED: usize = 64;
/// Characters of a stanza's id that the log shows.
const MAX_ID_CHARS: usize = 64;
/// Bytes of these stanzas: of one sender, of all of one domain, and of all. As trees they take
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
    /// The bytes of each domain that has a lane.
    domains: HashMap<String, u32>,
}

/// What waits behind the stanza that is dealt with.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    /// How many stanzas wait or are not settled, and their bytes.
    stanzas: usize,
    bytes: u32,
    came: Arc<Notify>,
}

struct Waiting {
    stanza: Element,
    room: Room,
}

/// What a stanza takes until it is settled.
struct Room {
    bytes: u32,
    _of_all: OwnedSemaphorePermit,
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
        let waiting = Waiting { stanza, room: Room { bytes, _of_all: room } };
        let mut senders = self.senders();
        let domain = senders.domains.entry(domain_of(&sender).to_owned()).or_default();
        if *domain > 0 && *domain + bytes > MAX_DOMAIN_BYTES {
            return Err(waiting.stanza);
        }
        *domain += bytes;
        match senders.lanes.get_mut(&sender) {
            Some(lane) if lane.has_room(bytes) => {
                lane.stanzas += 1;
                lane.bytes += bytes;
                lane.waiting.push_back(waiting);
                lane.came.notify_one();
            }
            Some(_) => {
                senders.release(&sender, bytes);
                return Err(waiting.stanza);
            }
            None => {
                let (lane, lanes) = (Lane { stanzas: 1, bytes, ..Lane::default() }, self.clone());
                let came = Arc::clone(&lane.came);
                senders.lanes.insert(sender.clone(), lane);
                tokio::spawn(async move { lanes.serve(sender, waiting, &came).await });
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

    /// Deals with a sender's stanzas until none waits and all are settled.
    async fn serve(self, sender: String, first: Waiting, came: &Notify) {
        let mut unsettled = Unsettled { lanes: &self, sender: &sender, stanzas: VecDeque::new() };
        let mut next = Some(first);
        loop {
            while let Some(Waiting { stanza, room }) = next {
                unsettled.make_way(&stanza).await;
                // The semaphore is never closed, and whoever waits longest comes first.
                let turn = self.turns.acquire().await;
                // While nobody takes answers, none are made.
                self.dispatch.room().await;
                unsettled.handle(stanza, room).await;
                drop(turn);
                next = self.next(&sender);
            }
            if unsettled.stanzas.is_empty() {
                if self.end(&sender) {
                    return;
                }
            } else {
                tokio::select! {
                    () = came.notified() => {}
                    () = unsettled.settle_first() => {}
                }
            }
            next = self.next(&sender);
        }
    }

    /// The next stanza of a sender.
    fn next(&self, sender: &str) -> Option<Waiting> {
        self.senders().lanes.get_mut(sender)?.waiting.pop_front()
    }

    /// Ends a sender's lane, unless a stanza came.
    fn end(&self, sender: &str) -> bool {
        let mut senders = self.senders();
        if senders.lanes.get(sender).is_some_and(|lane| !lane.waiting.is_empty()) {
            return false;
        }
        senders.lanes.remove(sender);
        drop(senders);
        self.ended.notify_waiters();
        true
    }

    fn refuse_after_defect(&self, header: &Header) {
        error!(stanza = header.name, "a stanza made its handler panic");
        self.dispatch.refuse(header, &StanzaError::new("wait", "internal-server-error"));
    }

    fn senders(&self) -> MutexGuard<'_, Senders> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn has_room(&self, bytes: u32) -> bool {
        let is_first = self.waiting.is_empty();
        self.stanzas < MAX_STANZAS && (is_first || self.bytes + bytes <= MAX_SENDER_BYTES)
    }
}

impl Senders {
    /// A stanza of so many bytes of a sender is settled.
    fn settle(&mut self, sender: &str, bytes: u32) {
        if let Some(lane) = self.lanes.get_mut(sender) {
            lane.stanzas -= 1;
            lane.bytes -= bytes;
        }
        self.release(sender, bytes);
    }

    /// So many bytes of a sender's domain are free again.
    fn release(&mut self, sender: &str, bytes: u32) {
        let domain = domain_of(sender);
        if let Some(taken) = self.domains.get_mut(domain) {
            *taken -= bytes;
            if *taken == 0 {
                self.domains.remove(domain);
            }
        }
    }
}

fn domain_of(bare: &str) -> &str {
    bare.rsplit_once('@').map_or(bare, |(_, domain)| domain)
}

/// The stanzas of a sender that are not settled, oldest first.
struct Unsettled<'a> {
    lanes: &'a Lanes,
    sender: &'a str,
    stanzas: VecDeque<(Header, Room, Instrumented<Settling<()>>)>,
}

impl Unsettled<'_> {
    /// Waits until a stanza may be dealt with.
    async fn make_way(&mut self, stanza: &Element) {
        let most = if Dispatch::looks_at_one_node(stanza) { MAX_UNSETTLED - 1 } else { 0 };
        while self.stanzas.len() > most {
            self.settle_first().await;
        }
    }

    /// Deals with a stanza until it has its place.
    async fn handle(&mut self, stanza: Element, room: Room) {
        let dispatch = &self.lanes.dispatch;
        // A stranger chose it.
        let id = stanza.attr("id").unwrap_or_default();
        let id = id.char_indices().nth(MAX_ID_CHARS).map_or(id, |(end, _)| &id[..end]);
        let request = error_span!("request", id);
        match guarded(dispatch.handle(&stanza)).instrument(request.clone()).await {
            Ok(Some(settling)) => {
                self.stanzas.push_back((Header::of(&stanza), room, settling.instrument(request)));
            }
            Ok(None) => self.lanes.senders().settle(self.sender, room.bytes),
            Err(Defect) => {
                request.in_scope(|| self.lanes.refuse_after_defect(&Header::of(&stanza)));
                self.lanes.senders().settle(self.sender, room.bytes);
            }
        }
    }

    /// Waits until the oldest is settled. Dropping the future loses nothing.
    async fn settle_first(&mut self) {
        let Some((header, room, settling)) = self.stanzas.front_mut() else { return };
        if let Err(Defect) = guarded(&mut *settling).await {
            settling.span().in_scope(|| self.lanes.refuse_after_defect(header));
        }
        self.lanes.senders().settle(self.sender, room.bytes);
        self.stanzas.pop_front();
    }
}

/// Something panicked.
struct Defect;

/// A future that may panic: then its stanza's sender is answered, and the lane lives on.
async fn guarded<F: Future>(future: F) -> Result<F::Output, Defect> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Defect)),
    })
    .await
}
