//! Queue of outgoing replies, and handling of replies to the service's own stanzas.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jid::account;
use minidom::Element;
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    service::LogWindow,
    xmpp::{
        stanza::{envelope::Envelope, ns},
        xml::padding::{pad, padding, write_spaces},
    },
};

use super::{
    barrier::Address,
    multicast::{MulticastDiscovery, MulticastRoute, QUERY_ID_PREFIX, with_resource},
    reply_scheduler::{MAX_BYTES, ReplyScheduler},
    writer::WRITE_BYTES,
};
use crate::xmpp::probes::Probes;

/// Number of queued bytes above which the service does not read from the connection, unless the replies wait for a
/// barrier. The number is above the limits of the [queue](ReplyScheduler).
const MAX_BYTES_WHILE_READING: usize = 2 * MAX_BYTES;
/// Number of queued bytes above which rejected requests get no error reply. The number is above the limits of the
/// [queue](ReplyScheduler).
const MAX_BYTES_WITH_REFUSALS: usize = 3 * MAX_BYTES;
/// Maximum number of bytes of replies in one buffer. The rest of the buffer is for notifications.
const REPLY_BYTES: usize = WRITE_BYTES / 2;
/// Number of pending bytes of the service's own queries above which no further queries are sent. Queries are sent
/// before all replies, so the limit leaves room for replies in each buffer.
const MAX_OWN_BYTES: usize = REPLY_BYTES / 2;
/// Prefix of the ids of barriers.
pub(in crate::xmpp) const BARRIER: &str = "barrier-";

/// Queued replies, and the data that the reading half passes to the writing half.
#[derive(Debug)]
pub(in crate::xmpp) struct ReplyQueue {
    queue: Mutex<QueuedReplies>,
    pub(in crate::xmpp) window: Arc<LogWindow>,
    pub(in crate::xmpp) multicast: MulticastDiscovery,
    pub(in crate::xmpp) probes: Probes,
    /// Domain of the server, which may return barriers too.
    domain: Option<String>,
    /// `true` if a silent server does not end the connection. This is the case after all addresses failed to return a
    /// barrier, until a barrier returns.
    pub(in crate::xmpp) may_be_silent: AtomicBool,
    /// `true` if another service of the server has used this JID. This is logged only once.
    is_shared: AtomicBool,
    /// Name of the barriers of this connection, and number of the newest returned barrier of this connection.
    barriers: Mutex<(String, u64)>,
    pub(in crate::xmpp) changed: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct QueuedReplies {
    /// The service's own queries, which are sent before all replies.
    queries: String,
    /// Replies that were being written when the connection broke.
    interrupted: Vec<String>,
    scheduler: ReplyScheduler,
    /// `true` if replies wait for a barrier.
    is_held: bool,
}

impl ReplyQueue {
    /// Returns an empty queue. `domain` is the domain of the server, if it is known.
    #[must_use]
    pub(in crate::xmpp) fn new(
        window: Arc<LogWindow>,
        multicast: MulticastDiscovery,
        domain: Option<String>,
    ) -> Self {
        Self {
            queue: Mutex::default(),
            window,
            multicast,
            probes: Probes::default(),
            domain,
            may_be_silent: AtomicBool::new(false),
            is_shared: AtomicBool::new(false),
            barriers: Mutex::default(),
            changed: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Enqueues a stanza to an entity. Stanzas to one entity are sent in the order in which they were enqueued.
    pub(in crate::xmpp) fn send(&self, to: &str, mut stanza: String) {
        pad(&mut stanza);
        self.queue().scheduler.push(&account(to), stanza);
        self.changed.notify_one();
    }

    /// Enqueues a query that the service itself sends, for example for service discovery. Queries are sent before all
    /// queued replies.
    pub(in crate::xmpp) fn ask(&self, query: &str) {
        let mut queue = self.queue();
        queue.queries.push_str(query);
        write_spaces(padding(query), &mut queue.queries);
        drop(queue);
        self.changed.notify_one();
    }

    /// Handles a stanza if it is a reply to a stanza of the component itself: to a barrier, to a query, or to a stanza
    /// to the multicast service. `service` is the JID of the component. Returns `true` if the stanza needs no further
    /// handling.
    pub(in crate::xmpp) fn handle_own_reply(&self, service: &str, stanza: &Element) -> bool {
        let (Some(from), Some(id)) = (stanza.attr("from"), stanza.attr("id")) else { return false };
        if self.probes.take(stanza) {
            return true;
        }
        match (stanza.name(), stanza.attr("type")) {
            ("iq", _) if id.starts_with(BARRIER) && self.multicast.goes_through(from) => {
                if is_from_other_entity(stanza) {
                    self.multicast_failed();
                    return true;
                }
                self.is_barrier(id)
            }
            ("iq", Some("result" | "error"))
                if id.starts_with(BARRIER) && self.domain.as_deref() == Some(from) =>
            {
                self.is_barrier(id)
            }
            ("iq", kind) if id.starts_with(BARRIER) && is_own(service, from) => {
                if matches!(kind, Some("result" | "error"))
                    && !self.is_shared.swap(true, Ordering::Relaxed)
                {
                    warn!(
                        event = "jid_shared",
                        jid = service,
                        "another service of the server answers for this JID; give one of them another JID"
                    );
                }
                self.is_barrier(id)
            }
            ("iq", Some("result" | "error")) if id.starts_with(QUERY_ID_PREFIX) => {
                let queries = self.multicast.answered(from, stanza);
                queries.iter().flatten().for_each(|query| self.ask(query));
                self.changed.notify_one();
                queries.is_some()
            }
            ("message", Some("error")) if self.multicast.has_refused(from, id) => {
                self.multicast_failed();
                true
            }
            _ => false,
        }
    }

    /// Handles a received reply that exceeds a limit for stanzas, so that only its envelope was read. For example, a
    /// multicast service sends an error that repeats the whole rejected stanza.
    pub(in crate::xmpp) fn handle_oversized_reply(&self, header: &Envelope) {
        self.probes.take_refused(header);
        let is_error = header.name == "message" && header.kind.as_deref() == Some("error");
        let (from, id) = (header.from.as_deref(), header.id.as_deref().unwrap_or_default());
        if is_error && from.is_some_and(|from| self.multicast.has_refused(from, id)) {
            self.multicast_failed();
        }
    }

    /// Records that notifications sent by multicast may be undelivered. From now on, returns of earlier barriers are
    /// ignored, even if they were received together with the failure. The ids of later barriers contain a new
    /// connection name.
    pub(in crate::xmpp) fn multicast_failed(&self) {
        if let Some(query) = self.multicast.record_failure() {
            self.reset_barriers(String::new());
            self.ask(&query);
        }
    }

    /// Records the return of a barrier. Returns `true` if `id` is the id of a barrier. The return is ignored if the id
    /// does not contain the current connection name ([`reset_barriers`](Self::reset_barriers)).
    fn is_barrier(&self, id: &str) -> bool {
        let Some((connection, number)) = id.strip_prefix(BARRIER).and_then(|id| id.split_once('-'))
        else {
            return false;
        };
        let mut barriers = self.barriers();
        if let (true, Ok(number)) = (connection == barriers.0, number.parse()) {
            barriers.1 = barriers.1.max(number);
            self.changed.notify_one();
        }
        true
    }

    /// Sets the connection name. From now on, the return of a barrier is recorded only if its id contains this name.
    pub(in crate::xmpp) fn reset_barriers(&self, connection: String) {
        *self.barriers() = (connection, 0);
    }

    /// Returns `true` if barriers can be sent to an address: the component itself, a known multicast service, or the
    /// known domain of the server.
    pub(in crate::xmpp) fn has(&self, address: Address, route: &MulticastRoute) -> bool {
        match address {
            Address::Own => true,
            Address::Multicast => matches!(route, MulticastRoute::Through(_)),
            Address::Domain => self.domain.is_some(),
        }
    }

    /// Returns the domain of the server, if it is known.
    pub(in crate::xmpp) fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    pub(in crate::xmpp) fn barriers(&self) -> MutexGuard<'_, (String, u64)> {
        self.barriers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if the queue has room for the reply to one more request of the entity `to`.
    pub(in crate::xmpp) fn has_room(&self, to: &str, may_be_large: bool) -> bool {
        self.queue().scheduler.has_room(&account(to), may_be_large)
    }

    /// Waits until the queue has room for the reply to one more request of the entity `to`.
    pub(in crate::xmpp) async fn wait_capacity(&self, to: &str, may_be_large: bool) {
        let entity = account(to);
        self.until(|queue| queue.scheduler.has_room(&entity, may_be_large)).await;
    }

    /// Waits until the service may send another query of its own. Queued replies do not delay queries.
    pub(in crate::xmpp) async fn room_of_own(&self) {
        self.until(|queue| queue.queries.len() <= MAX_OWN_BYTES).await;
    }

    /// Waits until the connection may be read. Replies that wait for a barrier do not stop reading, since the barrier
    /// has to be read.
    pub(in crate::xmpp) async fn wait_read_capacity(&self) {
        self.until(|queue| queue.bytes() <= MAX_BYTES_WHILE_READING || queue.is_held).await;
    }

    async fn until(&self, holds: impl Fn(&QueuedReplies) -> bool) {
        loop {
            let drained = self.drained.notified();
            if holds(&self.queue()) {
                return;
            }
            drained.await;
        }
    }

    /// Returns `true` if so many bytes are queued that rejected requests get no error reply.
    pub(in crate::xmpp) fn is_overfull(&self) -> bool {
        self.queue().bytes() > MAX_BYTES_WITH_REFUSALS
    }

    /// Returns the number of replies ever queued.
    pub(in crate::xmpp) fn count(&self) -> u64 {
        self.queue().scheduler.count()
    }

    /// Appends all interrupted replies and all pending queries to a buffer. Then appends replies with numbers below
    /// `up_to` until the buffer has [`REPLY_BYTES`].
    pub(in crate::xmpp) fn drain_ready(&self, up_to: u64, buffer: &mut String) -> WrittenReplies {
        let mut queue = self.queue();
        let mut taken =
            WrittenReplies { bounds: vec![buffer.len()], interrupted: queue.interrupted.len() };
        let mut append = |stanza: &str| {
            buffer.push_str(stanza);
            taken.bounds.push(buffer.len());
            buffer.len() < REPLY_BYTES
        };
        for stanza in mem::take(&mut queue.interrupted) {
            append(&stanza);
        }
        let mut has_room = append(&mem::take(&mut queue.queries));
        while has_room && let Some(reply) = queue.scheduler.pop(up_to) {
            has_room = append(&reply);
        }
        queue.is_held = queue.scheduler.is_held(up_to);
        drop(queue);
        self.drained.notify_waiters();
        taken
    }

    /// Puts interrupted replies back at the front of the queue. Called after the connection broke.
    pub(in crate::xmpp) fn requeue(&self, replies: Vec<String>) {
        self.queue().interrupted.splice(0..0, replies);
    }

    fn queue(&self) -> MutexGuard<'_, QueuedReplies> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedReplies {
    fn bytes(&self) -> usize {
        self.interrupted.iter().map(String::len).sum::<usize>() + self.scheduler.bytes()
    }
}

/// Stanzas that were appended to a buffer.
#[derive(Debug)]
pub(in crate::xmpp) struct WrittenReplies {
    /// Offset of the first stanza in the buffer, followed by the offset at which each stanza ends.
    bounds: Vec<usize>,
    /// Number of stanzas at the front that were being written when an earlier connection broke.
    interrupted: usize,
}

impl WrittenReplies {
    /// Returns the stanzas to resend, and the number of bytes of the dropped stanzas. Called after the connection broke
    /// when `written` bytes of the buffer were sent. A stanza is dropped after its second interruption, because a reply
    /// that the server rejects would otherwise break every connection.
    pub(in crate::xmpp) fn to_resend(&self, buffer: &str, written: usize) -> (Vec<String>, usize) {
        let (mut to_resend, mut dropped) = (Vec::new(), 0);
        for (number, bounds) in self.bounds.windows(2).enumerate() {
            let [begin, end] = *bounds else { continue };
            match buffer.get(begin..end) {
                Some(stanza) if number >= self.interrupted || written <= begin => {
                    to_resend.push(stanza.to_owned());
                }
                _ => dropped += end - begin,
            }
        }
        (to_resend, dropped)
    }
}

/// Returns `true` if an address is the component's own: its JID, or the address of its pings.
fn is_own(service: &str, from: &str) -> bool {
    from == service || from == with_resource(service)
}

/// Returns `true` if the reply to a barrier does not come from the addressed service. A service that does not support
/// pings replies with `service-unavailable` or `feature-not-implemented`. Any other error comes from the server, which
/// replies on behalf of a service that does not exist.
fn is_from_other_entity(reply: &Element) -> bool {
    let error = reply.children().find(|child| child.name() == "error");
    let is_its_own = |error: &Element| {
        error.has_child("service-unavailable", ns::STANZAS)
            || error.has_child("feature-not-implemented", ns::STANZAS)
    };
    reply.attr("type") == Some("error") && !error.is_some_and(is_its_own)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::service::Load;
    use crate::xmpp::outbound::multicast::MulticastConfig;

    fn replies() -> ReplyQueue {
        let multicast = MulticastDiscovery::new(MulticastConfig::None, "s".into());
        ReplyQueue::new(Arc::new(LogWindow::new(Load::default(), 0)), multicast, None)
    }

    /// If queries waited behind replies, a few entities that request large replies could block all presence queries.
    #[test]
    fn replies_delay_no_query_of_the_service() {
        let replies = replies();
        for to in ["a@x/r", "b@x/r", "c@y/r"] {
            replies.send(to, "<reply/>".repeat(100_000));
        }
        for _ in 0..MAX_OWN_BYTES / 8 {
            assert!(replies.room_of_own().now_or_never().is_some());
            replies.ask("<query/>");
        }
        replies.ask("<query/>");
        assert!(replies.room_of_own().now_or_never().is_none());
        let mut buffer = String::new();
        replies.drain_ready(1, &mut buffer);
        assert!(buffer.starts_with("<query/>") && buffer.ends_with("<reply/>"), "both go out");
        assert!(replies.room_of_own().now_or_never().is_some());
    }

    #[test]
    fn replies_held_for_a_barrier_do_not_stop_reading() {
        let replies = replies();
        replies.send("a@x/r", "x".repeat(MAX_BYTES_WHILE_READING + 1));
        assert!(replies.wait_read_capacity().now_or_never().is_none());
        let mut buffer = String::new();
        replies.drain_ready(0, &mut buffer);
        assert!(replies.wait_read_capacity().now_or_never().is_some());
        assert!(
            replies.wait_capacity("b@y", false).now_or_never().is_none(),
            "more would be answered"
        );
        replies.send("a@x/r", "x".repeat(MAX_BYTES));
        assert!(replies.is_overfull());
        replies.drain_ready(1, &mut buffer);
        buffer.clear();
        replies.drain_ready(2, &mut buffer);
        assert!(
            replies.wait_capacity("a@x", true).now_or_never().is_some() && !replies.is_overfull()
        );
    }
}
