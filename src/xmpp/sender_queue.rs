//! Sender queues: stanzas of one sender are handled in order (RFC 6120 §10.1), stanzas of different senders
//! concurrently. Queues are bounded, and removed when they are empty.
//!
//! A queue continues with its next stanza as soon as the commit of a request has its place in the commit order. Thus
//! several pipelined requests share one sync to disk. Requests that read more than one node wait until the sender's
//! earlier requests are committed.
//!
//! While a request waits for something outside the process, such as a roster, it holds no permit
//! ([`MAX_ACTIVE_SENDERS`]). At most one request of each queue waits in this way. The waiting request still counts in
//! the limits of queued stanzas. Its parsed stanza is dropped before the wait.
//!
//! A queued stanza is held as received text and parsed again when it is handled, because a parsed tree takes up to
//! sixty times as much memory. Stanzas are queued as trees only as long as the total size of their texts is at most 1
//! MiB.

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

/// Maximum number of senders that are served at the same time; further senders wait.
const MAX_ACTIVE_SENDERS: usize = 64;
/// Maximum number of requests of one domain that are in progress and may have [large
/// replies](Router::may_have_large_reply). The number is for stanzas of at most 512 KiB; it is smaller if stanzas may
/// be larger.
const MAX_LARGE_PER_DOMAIN: usize = 8;
/// Maximum number of requests of all domains that are in progress and may have large replies. The number is for stanzas
/// of at most 512 KiB; it is smaller if stanzas may be larger. The replies to these requests have at most
/// [`RESERVED_FOR_SMALL`] bytes in total. The limits of the reply queue are higher by this number for requests with
/// small replies, so that these requests are still processed.
const MAX_LARGE: usize = 16;
/// Maximum number of stanzas of one sender in flight. It is large enough that one sync to disk serves many stanzas.
const MAX_IN_FLIGHT: usize = 64;
/// Maximum number of stanzas of one sender in flight while other senders are active. It is small, because a request of
/// another sender waits for the same sync to disk as all stanzas in flight.
const MAX_IN_FLIGHT_AMONG_OTHERS: usize = 4;
/// Time for which [`MAX_IN_FLIGHT_AMONG_OTHERS`] applies after several senders were active at the same time.
const AMONG_OTHERS: Duration = Duration::from_secs(10);
/// Maximum number of characters of a stanza's id in the log.
const MAX_ID_CHARS: usize = 64;
/// Maximum number of bytes of the stanzas that are queued as trees.
const MAX_TREE_BYTES: usize = 1024 * 1024;
/// Number of stanzas that are accepted above the limit of one sender if they need no reply.
const RESERVED_STANZAS: usize = 1000;
/// Number of bytes of stanzas that are accepted above the limit of one sender if the stanzas need no reply.
const RESERVED_BYTES: usize = 1024 * 1024;
/// Estimated overhead in bytes of a queued stanza, which is added to its text in the limits of domains and of all
/// senders.
const STANZA_BYTES: usize = 256;

/// Limits of the stanzas that are queued or in flight. The senders of one domain may use half of `max_bytes` in total.
/// If no other stanza counts against a limit, this limit accepts a stanza of any size.
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
    /// Returns the limits for stanzas that need no reply, which are higher.
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
    /// Limit of the bytes of one domain: half of [`QueueLimits::max_bytes`].
    BytesPerDomain(usize),
    Bytes(usize),
}

/// Queues of the senders of a connection.
#[derive(Clone)]
pub(super) struct SenderQueues {
    router: Arc<Router>,
    limits: watch::Receiver<QueueLimits>,
    waiting: Arc<Mutex<SenderQueueTable>>,
    active_senders: Arc<Semaphore>,
    /// Permits for requests whose replies may be large.
    large: Arc<Semaphore>,
    ended: Arc<Notify>,
}

#[derive(Default)]
struct SenderQueueTable {
    queues: HashMap<String, SenderQueue>,
    bursts: Bursts,
    /// Queued and in-flight bytes of each domain that has a queue.
    domains: HashMap<String, DomainUsage>,
    /// Number of permits of each domain for requests whose replies may be large.
    large_per_domain: usize,
    bytes: usize,
    /// Bytes of the stanzas that are queued as trees.
    tree_bytes: usize,
    /// Last time when there was more than one queue.
    last_contention: Option<Instant>,
}

/// Queued and in-flight bytes, and permits, of the senders of a domain.
struct DomainUsage {
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
    arrived: Arc<Notify>,
}

struct QueuedStanza {
    stanza: Form,
    bytes: usize,
    is_node_local: bool,
    /// `true` if the reply may be large.
    may_be_large: bool,
}

enum Form {
    Tree(Element),
    Text(StanzaText),
}

impl QueueLimit {
    /// Returns the key of the limit in the section `[limits]` of the configuration.
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
    pub(super) fn new(router: &Arc<Router>, limits: watch::Receiver<QueueLimits>) -> Self {
        let permits = |most: usize| {
            let replies = RESERVED_FOR_SMALL / router.max_stanza_bytes();
            (replies * most / MAX_LARGE).clamp(1, most)
        };
        let large_per_domain = permits(MAX_LARGE_PER_DOMAIN);
        Self {
            router: Arc::clone(router),
            limits,
            waiting: Arc::new(Mutex::new(SenderQueueTable {
                large_per_domain,
                ..SenderQueueTable::default()
            })),
            active_senders: Arc::new(Semaphore::new(MAX_ACTIVE_SENDERS)),
            large: Arc::new(Semaphore::new(permits(MAX_LARGE))),
            ended: Arc::default(),
        }
    }

    /// Returns the limit that a stanza of `bytes` bytes would exceed, or that its sender's burst has exceeded. Stanzas
    /// that need no reply have higher limits. They are not part of a burst, because their sender does not repeat them.
    pub(super) fn exceeded_limit(
        &self,
        stanza: &Element,
        needs_answer: bool,
        bytes: usize,
    ) -> Option<QueueLimit> {
        let (limits, sender) = (*self.limits.borrow(), sender_of(stanza));
        let mut senders = self.senders();
        match needs_answer {
            true => senders.exceeded_limit(&sender, bytes, limits),
            false => senders.queue_limit_exceeded(&sender, bytes, limits.with_reserve()),
        }
    }

    /// Enqueues a stanza in its sender's queue. `bytes` is the number of bytes of the stanza's text; `text` returns
    /// this text.
    pub(super) fn submit(&self, stanza: Element, bytes: usize, text: impl FnOnce() -> StanzaText) {
        let sender = sender_of(&stanza).into_owned();
        let mut senders = self.senders();
        let is_node_local = Router::is_node_local(&stanza);
        let may_be_large = Router::may_have_large_reply(&stanza);
        let stanza = match senders.tree_bytes + bytes <= MAX_TREE_BYTES {
            true => Form::Tree(stanza),
            false => Form::Text(text()),
        };
        let waiting = QueuedStanza { stanza, bytes, is_node_local, may_be_large };
        if let Some((arrived, first)) = senders.queue(&sender, waiting) {
            let queues = self.clone();
            tokio::spawn(async move { Box::pin(queues.serve(sender, first, &arrived)).await });
        }
    }

    /// Waits until all queues are empty.
    pub(super) async fn finish(&self) {
        loop {
            let ended = self.ended.notified();
            if self.senders().queues.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Handles a sender's stanzas until none is queued or in flight.
    async fn serve(self, sender: String, first: QueuedStanza, arrived: &Notify) {
        let mut in_flight = InFlight { queues: &self, sender: &sender, stanzas: VecDeque::new() };
        let permits = Arc::new(QueuePermit::new(&self, &sender));
        let mut next = Some(first);
        loop {
            while let Some(waiting) = next {
                in_flight.wait_for_slot(waiting.is_node_local).await;
                permits.set_large(self.large(&sender, &waiting));
                permits.acquire().await;
                let permit = Arc::clone(&permits) as Arc<dyn RequestPermit>;
                with_permit(permit, in_flight.handle(waiting)).await;
                permits.release();
                next = self.next(&sender);
            }
            if in_flight.stanzas.is_empty() {
                if self.end(&sender) {
                    return;
                }
            } else {
                tokio::select! {
                    () = arrived.notified() => {}
                    () = in_flight.await_oldest() => {}
                }
            }
            next = self.next(&sender);
        }
    }

    fn next(&self, sender: &str) -> Option<QueuedStanza> {
        self.senders().next(sender)
    }

    /// Returns two semaphores for large replies: that of the sender's domain, and that of all senders. Returns none if
    /// the reply to this stanza is small.
    fn large(&self, sender: &str, waiting: &QueuedStanza) -> Vec<Arc<Semaphore>> {
        if !waiting.may_be_large {
            return Vec::new();
        }
        let senders = self.senders();
        let of_domain = senders.domains.get(&*domain_of(sender)).map(|domain| &domain.large);
        of_domain.into_iter().chain([&self.large]).cloned().collect()
    }

    /// Removes a sender's queue if no stanza is queued. Returns `true` if the queue was removed.
    fn end(&self, sender: &str) -> bool {
        let mut senders = self.senders();
        if senders.queues.get(sender).is_some_and(|queue| !queue.waiting.is_empty()) {
            return false;
        }
        senders.queues.remove(sender);
        drop(senders);
        self.ended.notify_waiters();
        true
    }

    fn reply_internal_error(&self, header: &Envelope) {
        error!(event = "stanza_handler_panicked", stanza = header.name, "stanza handler panicked");
        let error = StanzaError::new("wait", "internal-server-error");
        self.router
            .refuse(header, &error.text("internal error: the outcome of the request is unknown"));
    }

    fn senders(&self) -> MutexGuard<'_, SenderQueueTable> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SenderQueueTable {
    /// Returns the limit that a stanza of this size would exceed, or that its sender's burst has exceeded.
    fn exceeded_limit(
        &mut self,
        sender: &str,
        bytes: usize,
        limits: QueueLimits,
    ) -> Option<QueueLimit> {
        let now = Instant::now();
        let is_idle = !self.queues.contains_key(sender);
        if let Some(exceeded) = self.bursts.exceeded_limit(sender, is_idle, now) {
            return Some(exceeded);
        }
        let exceeded = self.queue_limit_exceeded(sender, bytes, limits)?;
        self.bursts.add(sender, exceeded, now, |sender| !self.queues.contains_key(sender));
        Some(exceeded)
    }

    /// Returns the limit that a stanza of this size would exceed.
    fn queue_limit_exceeded(
        &self,
        sender: &str,
        bytes: usize,
        limits: QueueLimits,
    ) -> Option<QueueLimit> {
        let is_over = |queued: usize, more: usize, max: usize| queued > 0 && queued + more > max;
        let domain = self.domains.get(&*domain_of(sender)).map_or(0, |domain| domain.bytes);
        let max_of_domain = limits.max_bytes / 2;
        let all = bytes + STANZA_BYTES;
        let queued = self.queues.get(sender).map_or((0, 0), |queue| (queue.stanzas, queue.bytes));
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

    /// Adds a stanza to its sender's queue. If the sender has no queue, creates a queue and returns the stanza and the
    /// queue's notifier. The caller then has to serve the new queue.
    fn queue(
        &mut self,
        sender: &str,
        waiting: QueuedStanza,
    ) -> Option<(Arc<Notify>, QueuedStanza)> {
        let all = waiting.bytes + STANZA_BYTES;
        let permits = self.large_per_domain;
        let new = || DomainUsage { bytes: 0, large: Arc::new(Semaphore::new(permits)) };
        self.domains.entry(domain_of(sender).into_owned()).or_insert_with(new).bytes += all;
        self.bytes += all;
        if matches!(waiting.stanza, Form::Tree(_)) {
            self.tree_bytes += waiting.bytes;
        }
        match self.queues.get_mut(sender) {
            Some(queue) => {
                queue.stanzas += 1;
                queue.bytes += waiting.bytes;
                queue.waiting.push_back(waiting);
                queue.arrived.notify_one();
                None
            }
            None => {
                let queue =
                    SenderQueue { stanzas: 1, bytes: waiting.bytes, ..SenderQueue::default() };
                let arrived = Arc::clone(&queue.arrived);
                self.queues.insert(sender.to_owned(), queue);
                if self.queues.len() > 1 {
                    self.last_contention = Some(Instant::now());
                }
                Some((arrived, waiting))
            }
        }
    }

    /// Removes and returns the next stanza of a sender.
    fn next(&mut self, sender: &str) -> Option<QueuedStanza> {
        self.queues.get_mut(sender)?.waiting.pop_front()
    }

    /// Returns the maximum number of stanzas of one sender that may be in flight now.
    fn max_in_flight(&self) -> usize {
        match self.last_contention {
            Some(last) if last.elapsed() < AMONG_OTHERS => MAX_IN_FLIGHT_AMONG_OTHERS,
            _ => MAX_IN_FLIGHT,
        }
    }

    /// Subtracts `bytes` from the size of the stanzas that are queued as parsed trees.
    fn release_tree(&mut self, bytes: usize) {
        self.tree_bytes -= bytes;
    }

    /// Subtracts a handled stanza from the usage of its sender, of its domain and of all senders.
    fn release(&mut self, sender: &str, bytes: usize) {
        if let Some(queue) = self.queues.get_mut(sender) {
            queue.stanzas -= 1;
            queue.bytes -= bytes;
        }
        let all = bytes + STANZA_BYTES;
        self.bytes -= all;
        let domain = domain_of(sender);
        if let Some(usage) = self.domains.get_mut(&*domain) {
            usage.bytes -= all;
            if usage.bytes == 0 {
                self.domains.remove(&*domain);
            }
        }
    }
}

/// Returns the account of a stanza's sender ([`account`]).
fn sender_of(stanza: &Element) -> Cow<'_, str> {
    account(stanza.attr("from").unwrap_or_default())
}

/// Permits of a sender queue while it handles a request.
struct QueuePermit {
    active_senders: Arc<Semaphore>,
    router: Arc<Router>,
    sender: String,
    /// Semaphores for large replies, if the reply to the request may be large.
    large: Mutex<Vec<Arc<Semaphore>>>,
    held: Mutex<Vec<OwnedSemaphorePermit>>,
}

impl QueuePermit {
    fn new(queues: &SenderQueues, sender: &str) -> Self {
        let (active_senders, router) =
            (Arc::clone(&queues.active_senders), Arc::clone(&queues.router));
        let (sender, large) = (sender.to_owned(), Mutex::default());
        Self { active_senders, router, sender, large, held: Mutex::default() }
    }

    fn set_large(&self, large: Vec<Arc<Semaphore>>) {
        *self.large.lock().unwrap_or_else(PoisonError::into_inner) = large;
    }

    fn set(&self, held: Vec<OwnedSemaphorePermit>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

#[async_trait]
impl RequestPermit for QueuePermit {
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
            self.router.wait_capacity(&self.sender, may_be_large).await;
            let Ok(permit) = Arc::clone(&self.active_senders).acquire_owned().await else { return };
            // Other requests may have used the room meanwhile.
            if self.router.has_room(&self.sender, may_be_large) {
                held.push(permit);
                return self.set(held);
            }
        }
    }
}

/// Stanzas of a sender whose commits are pending, oldest first.
struct InFlight<'a> {
    queues: &'a SenderQueues,
    sender: &'a str,
    stanzas: VecDeque<(Envelope, usize, Instrumented<SubmitHandle<()>>)>,
}

impl InFlight<'_> {
    /// Waits until the next stanza may be handled. If `is_node_local` is `true`, waits until fewer stanzas than the
    /// maximum are in flight; otherwise waits until no stanza is in flight.
    async fn wait_for_slot(&mut self, is_node_local: bool) {
        let most = if is_node_local { self.queues.senders().max_in_flight() - 1 } else { 0 };
        while self.stanzas.len() > most {
            self.await_oldest().await;
        }
    }

    /// Handles a stanza until its commit has its place in the commit order.
    async fn handle(&mut self, QueuedStanza { stanza, bytes, .. }: QueuedStanza) {
        let router = &self.queues.router;
        let stanza = match stanza {
            Form::Tree(stanza) => {
                self.queues.senders().release_tree(bytes);
                Some(stanza)
            }
            Form::Text(text) => text.parse(),
        };
        let Some(stanza) = stanza else {
            // Not expected: the same text was parsed on arrival.
            self.queues.reply_internal_error(&Envelope::default());
            self.queues.senders().release(self.sender, bytes);
            return;
        };
        // The sender chooses the id: its length in the log is limited.
        let id = stanza.attr("id").unwrap_or_default();
        let id = id.char_indices().nth(MAX_ID_CHARS).map_or(id, |(end, _)| &id[..end]);
        let request = error_span!("request", stanza_id = id);
        let header = router.header(&stanza);
        match catch_panic(router.handle(&header, stanza)).instrument(request.clone()).await {
            Ok(Some(handle)) => {
                self.stanzas.push_back((header, bytes, handle.instrument(request)));
            }
            Ok(None) => self.queues.senders().release(self.sender, bytes),
            Err(HandlerPanic) => {
                request.in_scope(|| self.queues.reply_internal_error(&header));
                self.queues.senders().release(self.sender, bytes);
            }
        }
    }

    /// Waits until the oldest stanza in flight is handled. Cancel-safe.
    async fn await_oldest(&mut self) {
        let Some((header, bytes, handle)) = self.stanzas.front_mut() else { return };
        let bytes = *bytes;
        if let Err(HandlerPanic) = catch_panic(&mut *handle).await {
            handle.span().in_scope(|| self.queues.reply_internal_error(header));
        }
        self.queues.senders().release(self.sender, bytes);
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
