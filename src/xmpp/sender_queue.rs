//! Sender queues: stanzas of one sender are handled in order (RFC 6120 §10.1), stanzas of different senders
//! concurrently. Queues are bounded, and removed when they are empty.
//!
//! A queue continues with its next stanza once the commit of a request has its place in the order, so pipelined
//! requests do not wait for one sync each. Requests that read more than one node wait until the sender's earlier
//! requests are committed.
//!
//! A request that waits for something outside the process, such as a roster, holds no permit of the active senders. At
//! most one request of each queue can wait so; it counts in the limits of queued stanzas, and its parsed stanza is
//! dropped before.
//!
//! A queued stanza is held as received text and parsed again when it is handled: a parsed tree takes up to sixty times
//! as much memory. Only the first MiB of stanzas is queued as trees.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use async_trait::async_trait;
use jid::account;
use minidom::Element;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Duration, Instant},
};
use tracing::{Instrument, error, error_span, instrument::Instrumented};

use crate::{
    service::{RequestPermit, SubmitHandle, with_permit},
    xmpp::stanza::envelope::{Envelope, StanzaError},
};

use super::{
    outbound::reply_scheduler::{RESERVED_FOR_SMALL, domain_of},
    router::Router,
    sender_bursts::Bursts,
    xml::stream::StanzaText,
};

/// Maximum number of senders that are served at the same time; further ones wait.
const MAX_ACTIVE_SENDERS: usize = 64;
/// Maximum number of requests in progress whose replies may be large, of one domain and in total, where a stanza has at
/// most 512 KiB; fewer where stanzas may be larger. Together these replies leave the room that is reserved for small
/// replies.
const MAX_LARGE_PER_DOMAIN: usize = 8;
const MAX_LARGE: usize = 16;
/// Maximum number of stanzas of one sender in flight: enough to share a sync well. Fewer while other senders are
/// active, because each of their requests waits for a sync together with all of these.
const MAX_IN_FLIGHT: usize = 64;
const MAX_UNSETTLED_AMONG_OTHERS: usize = 4;
/// Time that a sender counts as one of several after another sender was active.
const AMONG_OTHERS: Duration = Duration::from_secs(10);
/// Maximum number of characters of a stanza's id in the log.
const MAX_ID_CHARS: usize = 64;
/// Maximum number of bytes of the stanzas that are queued as trees.
const MAX_TREE_BYTES: usize = 1024 * 1024;
/// Reserve of stanzas of one sender, and of their bytes, above its limits for stanzas that need no reply.
const RESERVED_STANZAS: usize = 1000;
const RESERVED_BYTES: usize = 1024 * 1024;
/// Estimated overhead of a queued stanza in bytes, besides its text; counts in the limits of domains and of all
/// senders.
const STANZA_BYTES: usize = 256;

/// Limits of the stanzas that are queued or in flight. The senders of one domain share half of `max_bytes`. An empty
/// queue accepts one stanza of any size.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Maximum number of stanzas of one bare JID.
    pub max_stanzas_per_jid: usize,
    /// Maximum number of bytes of the stanzas of one bare JID.
    pub max_bytes_per_jid: usize,
    /// Maximum number of bytes of the stanzas of all senders.
    pub max_bytes: usize,
}

impl QueueLimits {
    /// Returns the limits for stanzas that need no reply.
    fn with_reserve(self) -> Self {
        Self {
            max_stanzas_per_jid: self.max_stanzas_per_jid + RESERVED_STANZAS,
            max_bytes_per_jid: self.max_bytes_per_jid + RESERVED_BYTES,
            max_bytes: self.max_bytes + self.max_bytes / 4,
        }
    }
}

/// Limit that a stanza would exceed, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueLimit {
    StanzasPerJid(usize),
    BytesPerJid(usize),
    /// Half of the bytes of all senders.
    BytesPerDomain(usize),
    Bytes(usize),
}

/// Queues of the senders of a connection.
#[derive(Clone)]
pub(super) struct SenderQueues {
    dispatch: Arc<Router>,
    limits: watch::Receiver<QueueLimits>,
    waiting: Arc<Mutex<SenderQueueTable>>,
    turns: Arc<Semaphore>,
    /// Permits for requests whose replies may be large.
    large: Arc<Semaphore>,
    ended: Arc<Notify>,
}

#[derive(Default)]
struct SenderQueueTable {
    lanes: HashMap<String, SenderQueue>,
    bursts: Bursts,
    /// Queued and in-flight bytes of each domain that has a queue.
    domains: HashMap<String, DomainLanes>,
    /// Permits of each domain for requests whose replies may be large.
    large_per_domain: usize,
    bytes: usize,
    /// Bytes of the stanzas that are queued as trees.
    tree_bytes: usize,
    /// Last time when there was more than one queue.
    were_several: Option<Instant>,
}

/// Queued and in-flight bytes, and permits, of the senders of a domain.
struct DomainLanes {
    bytes: usize,
    /// Permits for requests whose replies may be large.
    large: Arc<Semaphore>,
}

/// Stanzas of one sender behind the stanza that is being handled.
#[derive(Default)]
struct SenderQueue {
    waiting: VecDeque<QueuedStanza>,
    /// Number of stanzas that are queued or in flight.
    stanzas: usize,
    bytes: usize,
    came: Arc<Notify>,
}

struct QueuedStanza {
    stanza: Form,
    bytes: usize,
    looks_at_one_node: bool,
    /// `true` if the reply may be large.
    may_be_large: bool,
}

enum Form {
    Tree(Element),
    Text(StanzaText),
}

impl QueueLimit {
    /// Returns the key of the limit in the section `limits`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StanzasPerJid(_) => "max_queued_stanzas_per_jid",
            Self::BytesPerJid(_) => "max_queued_bytes_per_jid",
            Self::BytesPerDomain(_) | Self::Bytes(_) => "max_queued_bytes",
        }
    }

    /// Returns the error for a request that would exceed the limit.
    pub(super) fn error(self) -> StanzaError {
        let queue = match self {
            Self::StanzasPerJid(max) => format!("{max} requests of one sender"),
            Self::BytesPerJid(max) => format!("{max} bytes of requests of one sender"),
            Self::BytesPerDomain(max) => format!("{max} bytes of requests of one domain"),
            Self::Bytes(max) => format!("{max} bytes of requests"),
        };
        let text = format!("more than {queue} are waiting (limits.{}): retry later", self.name());
        StanzaError::new("wait", "resource-constraint").text(text)
    }
}

impl SenderQueues {
    pub(super) fn new(dispatch: &Arc<Router>, limits: watch::Receiver<QueueLimits>) -> Self {
        let permits = |most: usize| {
            let replies = RESERVED_FOR_SMALL / dispatch.max_stanza_bytes();
            (replies * most / MAX_LARGE).clamp(1, most)
        };
        let large_per_domain = permits(MAX_LARGE_PER_DOMAIN);
        Self {
            dispatch: Arc::clone(dispatch),
            limits,
            waiting: Arc::new(Mutex::new(SenderQueueTable {
                large_per_domain,
                ..SenderQueueTable::default()
            })),
            turns: Arc::new(Semaphore::new(MAX_ACTIVE_SENDERS)),
            large: Arc::new(Semaphore::new(permits(MAX_LARGE))),
            ended: Arc::default(),
        }
    }

    /// Returns the limit that a stanza of this size would exceed in its sender's queue. Stanzas that need no reply may
    /// exceed the limits of requests by a reserve, and are not part of a burst, because their sender does not repeat
    /// them.
    pub(super) fn limit_passed(
        &self,
        stanza: &Element,
        needs_answer: bool,
        bytes: usize,
    ) -> Option<QueueLimit> {
        let (limits, sender) = (*self.limits.borrow(), sender_of(stanza));
        let mut senders = self.senders();
        match needs_answer {
            true => senders.limit_passed(&sender, bytes, limits),
            false => senders.limit_passed_by(&sender, bytes, limits.with_reserve()),
        }
    }

    /// Enqueues a stanza in its sender's queue. `bytes` is the size of its text, which `text` returns.
    pub(super) fn submit(&self, stanza: Element, bytes: usize, text: impl FnOnce() -> StanzaText) {
        let sender = sender_of(&stanza).into_owned();
        let mut senders = self.senders();
        let looks_at_one_node = Router::is_node_local(&stanza);
        let may_be_large = Router::may_have_large_reply(&stanza);
        let stanza = match senders.tree_bytes + bytes <= MAX_TREE_BYTES {
            true => Form::Tree(stanza),
            false => Form::Text(text()),
        };
        let waiting = QueuedStanza { stanza, bytes, looks_at_one_node, may_be_large };
        if let Some((came, first)) = senders.queue(&sender, waiting) {
            let lanes = self.clone();
            tokio::spawn(async move { Box::pin(lanes.serve(sender, first, &came)).await });
        }
    }

    /// Waits until all queues are empty.
    pub(super) async fn finish(&self) {
        loop {
            let ended = self.ended.notified();
            if self.senders().lanes.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Handles a sender's stanzas until none is queued or in flight.
    async fn serve(self, sender: String, first: QueuedStanza, came: &Notify) {
        let mut unsettled = InFlight { lanes: &self, sender: &sender, stanzas: VecDeque::new() };
        let turn = Arc::new(LanePermit::new(&self, &sender));
        let mut next = Some(first);
        loop {
            while let Some(waiting) = next {
                unsettled.wait_for_slot(waiting.looks_at_one_node).await;
                turn.set_large(self.large(&sender, &waiting));
                turn.acquire().await;
                let permit = Arc::clone(&turn) as Arc<dyn RequestPermit>;
                with_permit(permit, unsettled.handle(waiting)).await;
                turn.release();
                next = self.next(&sender);
            }
            if unsettled.stanzas.is_empty() {
                if self.end(&sender) {
                    return;
                }
            } else {
                tokio::select! {
                    () = came.notified() => {}
                    () = unsettled.await_oldest() => {}
                }
            }
            next = self.next(&sender);
        }
    }

    fn next(&self, sender: &str) -> Option<QueuedStanza> {
        self.senders().next(sender)
    }

    /// Returns the semaphores for large replies, of the sender's domain and of all senders, if the reply to this stanza
    /// may be large.
    fn large(&self, sender: &str, waiting: &QueuedStanza) -> Vec<Arc<Semaphore>> {
        if !waiting.may_be_large {
            return Vec::new();
        }
        let senders = self.senders();
        let of_domain = senders.domains.get(&*domain_of(sender)).map(|domain| &domain.large);
        of_domain.into_iter().chain([&self.large]).cloned().collect()
    }

    /// Removes a sender's queue and returns `true`, unless a stanza is queued.
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

    fn reply_internal_error(&self, header: &Envelope) {
        error!(event = "stanza_handler_panicked", stanza = header.name, "stanza handler panicked");
        let error = StanzaError::new("wait", "internal-server-error");
        self.dispatch
            .refuse(header, &error.text("internal error: the outcome of the request is unknown"));
    }

    fn senders(&self) -> MutexGuard<'_, SenderQueueTable> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SenderQueueTable {
    /// Returns the limit that a stanza of this size would exceed, or that its sender's burst has exceeded.
    fn limit_passed(
        &mut self,
        sender: &str,
        bytes: usize,
        limits: QueueLimits,
    ) -> Option<QueueLimit> {
        let now = Instant::now();
        let is_settled = !self.lanes.contains_key(sender);
        if let Some(passed) = self.bursts.limit_passed(sender, is_settled, now) {
            return Some(passed);
        }
        let passed = self.limit_passed_by(sender, bytes, limits)?;
        self.bursts.add(sender, passed, now, |sender| !self.lanes.contains_key(sender));
        Some(passed)
    }

    /// Returns the limit that a stanza of this size would exceed.
    fn limit_passed_by(
        &self,
        sender: &str,
        bytes: usize,
        limits: QueueLimits,
    ) -> Option<QueueLimit> {
        let is_over = |queued: usize, more: usize, max: usize| queued > 0 && queued + more > max;
        let domain = self.domains.get(&*domain_of(sender)).map_or(0, |domain| domain.bytes);
        let max_of_domain = limits.max_bytes / 2;
        let all = bytes + STANZA_BYTES;
        let queued = self.lanes.get(sender).map_or((0, 0), |lane| (lane.stanzas, lane.bytes));
        if is_over(queued.0, 1, limits.max_stanzas_per_jid) {
            Some(QueueLimit::StanzasPerJid(limits.max_stanzas_per_jid))
        } else if is_over(queued.1, bytes, limits.max_bytes_per_jid) {
            Some(QueueLimit::BytesPerJid(limits.max_bytes_per_jid))
        } else if is_over(domain, all, max_of_domain) {
            Some(QueueLimit::BytesPerDomain(max_of_domain))
        } else if is_over(self.bytes, all, limits.max_bytes) {
            Some(QueueLimit::Bytes(limits.max_bytes))
        } else {
            None
        }
    }

    /// Adds a stanza to its sender's queue. Returns the stanza if the queue is new, so that the caller serves the
    /// queue.
    fn queue(
        &mut self,
        sender: &str,
        waiting: QueuedStanza,
    ) -> Option<(Arc<Notify>, QueuedStanza)> {
        let all = waiting.bytes + STANZA_BYTES;
        let permits = self.large_per_domain;
        let new = || DomainLanes { bytes: 0, large: Arc::new(Semaphore::new(permits)) };
        self.domains.entry(domain_of(sender).into_owned()).or_insert_with(new).bytes += all;
        self.bytes += all;
        if matches!(waiting.stanza, Form::Tree(_)) {
            self.tree_bytes += waiting.bytes;
        }
        match self.lanes.get_mut(sender) {
            Some(lane) => {
                lane.stanzas += 1;
                lane.bytes += waiting.bytes;
                lane.waiting.push_back(waiting);
                lane.came.notify_one();
                None
            }
            None => {
                let lane =
                    SenderQueue { stanzas: 1, bytes: waiting.bytes, ..SenderQueue::default() };
                let came = Arc::clone(&lane.came);
                self.lanes.insert(sender.to_owned(), lane);
                if self.lanes.len() > 1 {
                    self.were_several = Some(Instant::now());
                }
                Some((came, waiting))
            }
        }
    }

    /// Removes and returns the next stanza of a sender.
    fn next(&mut self, sender: &str) -> Option<QueuedStanza> {
        self.lanes.get_mut(sender)?.waiting.pop_front()
    }

    /// Returns the maximum number of stanzas of one sender that may be in flight now.
    fn max_unsettled(&self) -> usize {
        match self.were_several {
            Some(last) if last.elapsed() < AMONG_OTHERS => MAX_UNSETTLED_AMONG_OTHERS,
            _ => MAX_IN_FLIGHT,
        }
    }

    /// Subtracts a stanza that was queued as a tree.
    fn release_tree(&mut self, bytes: usize) {
        self.tree_bytes -= bytes;
    }

    /// Subtracts a stanza that is complete.
    fn release(&mut self, sender: &str, bytes: usize) {
        if let Some(lane) = self.lanes.get_mut(sender) {
            lane.stanzas -= 1;
            lane.bytes -= bytes;
        }
        let all = bytes + STANZA_BYTES;
        self.bytes -= all;
        let domain = domain_of(sender);
        if let Some(lanes) = self.domains.get_mut(&*domain) {
            lanes.bytes -= all;
            if lanes.bytes == 0 {
                self.domains.remove(&*domain);
            }
        }
    }
}

/// Returns the account of a stanza's sender.
fn sender_of(stanza: &Element) -> Cow<'_, str> {
    account(stanza.attr("from").unwrap_or_default())
}

/// Permits of a sender queue while it handles a request.
struct LanePermit {
    turns: Arc<Semaphore>,
    dispatch: Arc<Router>,
    sender: String,
    /// Semaphores for large replies, if the reply to the request may be large.
    large: Mutex<Vec<Arc<Semaphore>>>,
    held: Mutex<Vec<OwnedSemaphorePermit>>,
}

impl LanePermit {
    fn new(lanes: &SenderQueues, sender: &str) -> Self {
        let (turns, dispatch) = (Arc::clone(&lanes.turns), Arc::clone(&lanes.dispatch));
        let (sender, large) = (sender.to_owned(), Mutex::default());
        Self { turns, dispatch, sender, large, held: Mutex::default() }
    }

    fn set_large(&self, large: Vec<Arc<Semaphore>>) {
        *self.large.lock().unwrap_or_else(PoisonError::into_inner) = large;
    }

    fn set(&self, held: Vec<OwnedSemaphorePermit>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

#[async_trait]
impl RequestPermit for LanePermit {
    fn release(&self) {
        self.set(Vec::new());
    }

    async fn acquire(&self) {
        let large = self.large.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let may_be_large = !large.is_empty();
        let mut held = Vec::new();
        for large in large {
            // The semaphores are never closed, and grant permits in order of arrival.
            held.extend(large.acquire_owned().await.ok());
        }
        loop {
            // A sender with too many queued replies waits without a permit.
            self.dispatch.wait_capacity(&self.sender, may_be_large).await;
            let Ok(permit) = Arc::clone(&self.turns).acquire_owned().await else { return };
            // Other requests may have used the room meanwhile.
            if self.dispatch.has_room(&self.sender, may_be_large) {
                held.push(permit);
                return self.set(held);
            }
        }
    }
}

/// Stanzas of a sender whose commits are pending, oldest first.
struct InFlight<'a> {
    lanes: &'a SenderQueues,
    sender: &'a str,
    stanzas: VecDeque<(Envelope, usize, Instrumented<SubmitHandle<()>>)>,
}

impl InFlight<'_> {
    /// Waits until another stanza may be handled.
    async fn wait_for_slot(&mut self, looks_at_one_node: bool) {
        let most = if looks_at_one_node { self.lanes.senders().max_unsettled() - 1 } else { 0 };
        while self.stanzas.len() > most {
            self.await_oldest().await;
        }
    }

    /// Handles a stanza until its commit has its place in the order.
    async fn handle(&mut self, QueuedStanza { stanza, bytes, .. }: QueuedStanza) {
        let dispatch = &self.lanes.dispatch;
        let stanza = match stanza {
            Form::Tree(stanza) => {
                self.lanes.senders().release_tree(bytes);
                Some(stanza)
            }
            Form::Text(text) => text.parse(),
        };
        let Some(stanza) = stanza else {
            // Not expected: the same text was parsed on arrival.
            self.lanes.reply_internal_error(&Envelope::default());
            self.lanes.senders().release(self.sender, bytes);
            return;
        };
        // The sender chooses the id: its length in the log is limited.
        let id = stanza.attr("id").unwrap_or_default();
        let id = id.char_indices().nth(MAX_ID_CHARS).map_or(id, |(end, _)| &id[..end]);
        let request = error_span!("request", stanza_id = id);
        let header = dispatch.header(&stanza);
        match catch_panic(dispatch.handle(&header, stanza)).instrument(request.clone()).await {
            Ok(Some(settling)) => {
                self.stanzas.push_back((header, bytes, settling.instrument(request)));
            }
            Ok(None) => self.lanes.senders().release(self.sender, bytes),
            Err(HandlerPanic) => {
                request.in_scope(|| self.lanes.reply_internal_error(&header));
                self.lanes.senders().release(self.sender, bytes);
            }
        }
    }

    /// Waits until the oldest stanza is complete. Cancel-safe.
    async fn await_oldest(&mut self) {
        let Some((header, bytes, settling)) = self.stanzas.front_mut() else { return };
        let bytes = *bytes;
        if let Err(HandlerPanic) = catch_panic(&mut *settling).await {
            settling.span().in_scope(|| self.lanes.reply_internal_error(header));
        }
        self.lanes.senders().release(self.sender, bytes);
        self.stanzas.pop_front();
    }
}

/// Panic of a stanza handler.
struct HandlerPanic;

/// Runs a future that may panic. A panic becomes an error, so that the sender gets a reply and its queue continues.
async fn catch_panic<F: Future>(future: F) -> Result<F::Output, HandlerPanic> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(HandlerPanic)),
    })
    .await
}
