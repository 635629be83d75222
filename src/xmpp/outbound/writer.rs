//! Writer of the connection to the server. Each write has replies first, then notifications, and a barrier at the end
//! if one is due.
//!
//! Replies have a queue of their own, so a large audience delays no reply. Each log entry is rendered once for all its
//! recipients. A barrier is a ping to the component itself. Its return proves that the server has all earlier stanzas
//! of the stream, because servers handle stanzas in order. After a broken connection, notifications that no returned
//! barrier has confirmed are resent with the same id and the time of the event. `barrier.rs` handles barriers that do
//! not return.
//!
//! A log entry that waits for the presence of a recipient is deferred. Later entries of its node are deferred too,
//! while entries of other nodes are sent. The deferred entry and all entries after it stay unconfirmed until the
//! deferred entry is sent, or until the service stops.
//!
//! If notifications are sent by a multicast service, barriers are sent to this service, because it handles stanzas
//! independently of the server. A reply that acknowledges a revocation waits until the multicast service has no pending
//! notification to the entity that lost access.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use crate::{
    service::{Cursor, LogWindow, PresenceTracker, RelayLimit},
    xmpp::{
        stanza::ns,
        xml::{
            padding::{end_padding, write_spaces},
            writer::ElementWriter,
        },
    },
};

use super::{
    barrier::{Address, Due, Route, Spacing},
    deferred_entries::DeferredEntries,
    fanout::{AddressCache, CurrentEntry},
    multicast::{MulticastRoute, with_resource},
    reply_queue::{BARRIER, ReplyQueue, WrittenReplies},
};
use crate::xmpp::session::DisconnectReason;

/// Approximate number of bytes of one write. New replies wait for the next write, so the number is small.
pub(in crate::xmpp) const WRITE_BYTES: usize = 64 * 1024;
/// Interval after which a barrier is sent while something is unconfirmed. A barrier is also sent after a number of
/// notifications ([`Spacing`]).
const MIN_BARRIER_INTERVAL: Duration = Duration::from_millis(20);

/// Sending half of the link to the server. The writer outlives single connections, and resends what a broken connection
/// left unconfirmed.
#[derive(Debug)]
pub(in crate::xmpp) struct OutboundWriter {
    pub(in crate::xmpp) replies: Arc<ReplyQueue>,
    pub(in crate::xmpp) window: Arc<LogWindow>,
    pub(in crate::xmpp) presences: Arc<PresenceTracker>,
    pub(in crate::xmpp) service: String,
    pub(in crate::xmpp) max_stanza_bytes: usize,
    pub(in crate::xmpp) relay_limit: RelayLimit,
    /// Progress up to which notifications are sent on this connection.
    pub(in crate::xmpp) sent: SendProgress,
    /// Progress that the newest returned barrier of this connection confirms. The first value is how far notifications
    /// were sent. The second value is how far they were sent without a gap, that is, up to the first deferred entry
    /// ([`complete`](Self::complete)).
    confirmed: (SendProgress, SendProgress),
    /// Progress that the newest barrier of this connection covers. The two values have the same meaning as in
    /// `confirmed`.
    covered: (SendProgress, SendProgress),
    /// Time at which the newest barrier was sent, or the connection began.
    barrier_at: Instant,
    barriers: VecDeque<Barrier>,
    pub(in crate::xmpp) spacing: Spacing,
    pub(in crate::xmpp) route: Route,
    pub(in crate::xmpp) last_barrier: u64,
    returned_barrier: u64,
    /// Time at which a barrier of this connection last returned.
    returned_at: Option<Instant>,
    /// Number of the barrier whose return proves that the multicast service has no pending stanza of this connection.
    pub(in crate::xmpp) multicast_until: u64,
    /// Number of multicast failures that were handled.
    failures: u64,
    /// Number of replies that may be sent, counted from the first reply of the process.
    sendable_replies: u64,
    /// Set while the replies after the first `sendable_replies` are held until a barrier returns. The first value is
    /// the new number of sendable replies after this return. The second value is the number of the barrier.
    held_replies: Option<(u64, u64)>,
    /// Number of revocations at the last update of `sendable_replies`.
    revocations: u64,
    /// Name of this connection; part of the ids of its barriers.
    connection: String,
    /// Number of the first log entry that was created after the start of this connection, or after a later failure of
    /// multicast. Notifications of earlier entries carry a delay (XEP-0203).
    pub(in crate::xmpp) delayed_before: u64,
    pub(in crate::xmpp) deferred: DeferredEntries,
    /// `true` if an entry waits for the presence of a recipient.
    pub(in crate::xmpp) awaits_presence: bool,
    /// `true` if the last run of the fan-out skipped so many recipients that the writer yields to other tasks.
    pub(in crate::xmpp) has_skipped_many: bool,
    /// Time after which no further notification is sent.
    ends_at: Option<Instant>,
    pub(in crate::xmpp) current_entry: Option<CurrentEntry>,
    pub(in crate::xmpp) addresses: AddressCache,
    /// Data that is being written.
    current: Option<WriteChunk>,
    /// Time at which the server last resumed reading.
    unblocked_at: Option<Instant>,
    /// Empty buffer of the previous chunk, for reuse.
    spare: String,
}

/// Minimum duration of a blocked write. If a write takes at least this long, the server is assumed to have stopped
/// reading during the write.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);

/// Progress of sending: position in the event log, and number of notifications sent since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::xmpp) struct SendProgress {
    pub position: Cursor,
    pub notifications: u64,
}

#[derive(Debug)]
struct Barrier {
    number: u64,
    sent: SendProgress,
    covers: SendProgress,
    at: Instant,
    address: Address,
}

/// Whole stanzas that are being written, and what counts as sent once they are written.
#[derive(Debug)]
struct WriteChunk {
    text: String,
    /// Replies that `text` contains.
    replies: WrittenReplies,
    written: usize,
    sent: SendProgress,
    barrier: Option<Barrier>,
}

impl OutboundWriter {
    /// Returns a writer for the service with the JID `service`. Stanzas have at most `max_stanza_bytes`. Stanzas to
    /// users of other servers have at most the bytes that `relay_limit` allows. If no barrier was sent for
    /// `ping_after`, the server is pinged, and has to respond within `ping_deadline`.
    #[must_use]
    pub(in crate::xmpp) fn new(
        replies: Arc<ReplyQueue>,
        presences: Arc<PresenceTracker>,
        service: String,
        (max_stanza_bytes, relay_limit): (usize, RelayLimit),
        (ping_after, ping_deadline): (Duration, Duration),
    ) -> Self {
        let window = Arc::clone(&replies.window);
        Self {
            replies,
            window,
            presences,
            service,
            max_stanza_bytes,
            relay_limit,
            sent: SendProgress::default(),
            confirmed: Default::default(),
            covered: Default::default(),
            barrier_at: Instant::now(),
            barriers: VecDeque::new(),
            spacing: Spacing::default(),
            route: Route::new(ping_after, ping_deadline),
            last_barrier: 0,
            returned_barrier: 0,
            returned_at: None,
            multicast_until: 0,
            failures: 0,
            sendable_replies: 0,
            held_replies: None,
            revocations: 0,
            connection: String::new(),
            delayed_before: 0,
            deferred: DeferredEntries::default(),
            awaits_presence: false,
            has_skipped_many: false,
            ends_at: None,
            current_entry: None,
            addresses: AddressCache::default(),
            current: None,
            unblocked_at: None,
            spare: String::new(),
        }
    }

    /// Resets the writer for a new connection. `connection` is a number that no other connection has. The writer then
    /// resends unconfirmed notifications.
    pub(in crate::xmpp) fn reconnected(&mut self, connection: u64) {
        if let Some(WriteChunk { text, replies, written, .. }) = self.current.take() {
            let (to_resend, dropped) = replies.to_resend(&text, written);
            if dropped > 0 {
                warn!(
                    event = "replies_dropped",
                    dropped_bytes = dropped,
                    "dropped replies: the connection broke twice while they were sent"
                );
            }
            self.replies.requeue(to_resend);
        }
        self.process_acks();
        self.connection = format!("{connection:016x}");
        self.delayed_before = self.window.next();
        self.route.begin();
        self.show_confirmation();
        self.barrier_at = Instant::now();
        self.rewind();
        let may_fail = !self.route.was_unconfirmed();
        if let Some(query) =
            self.replies.multicast.start_discovery(self.connection.clone(), may_fail)
        {
            self.replies.ask(&query);
        }
    }

    /// Resets the progress to the confirmed progress, so that unconfirmed notifications are resent. From now on,
    /// returns of earlier barriers are ignored.
    fn rewind(&mut self) {
        self.barriers.clear();
        self.last_barrier = 0;
        self.returned_barrier = 0;
        self.returned_at = None;
        self.multicast_until = 0;
        self.held_replies = self.held_replies.map(|(up_to, _)| (up_to, 0));
        self.replies.reset_barriers(self.barrier_name());
        self.spacing = Spacing::default();
        self.window.forgotten(0, self.sent.notifications);
        self.sent.position = self.confirmed.1.position;
        self.deferred = DeferredEntries::default();
        self.confirmed = (self.sent, self.sent);
        self.covered = self.confirmed;
        self.current_entry = None;
    }

    /// Returns `true` if a stanza is partially written, so that nothing else can be sent.
    #[must_use]
    pub(in crate::xmpp) fn is_mid_stanza(&self) -> bool {
        self.current.as_ref().is_some_and(|chunk| chunk.written > 0)
    }

    /// Sends until the connection breaks, or until the server fails to return barriers in time. Cancel-safe: the next
    /// call continues.
    pub(in crate::xmpp) async fn run(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> DisconnectReason {
        loop {
            let end = self.connection_end();
            let writing = async {
                match self.write_some(io).await {
                    Ok(true) => Ok(()),
                    Ok(false) => {
                        self.wait_for_work().await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            };
            tokio::select! {
                written = writing => if let Err(error) = written {
                    return error.into();
                },
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    // Barriers may have returned while a write was blocked.
                    self.process_acks();
                    if self.connection_end().is_some_and(|end| Instant::now() >= end) {
                        return DisconnectReason::Unconfirmed;
                    }
                }
            }
        }
    }

    /// Returns the time at which the connection ends if no barrier returns.
    fn connection_end(&self) -> Option<Instant> {
        self.route.ends_at(self.outstanding_since().filter(|_| self.may_retry()))
    }

    /// Sets the time after which no further notification is sent. Notifications that are not sent by then stay in the
    /// event log.
    pub(in crate::xmpp) fn set_deadline(&mut self, end: Instant) {
        self.ends_at = Some(end);
    }

    pub(in crate::xmpp) fn is_ending(&self) -> bool {
        self.ends_at.is_some_and(|end| Instant::now() >= end)
    }

    /// Sends pending notifications until the [deadline](Self::set_deadline). Then waits until the server has confirmed
    /// all sent notifications, but gives up when there is no progress for `stall_timeout`. Deferred entries stay in the
    /// event log and are sent after the next start. Notifications of later entries that are already sent are not
    /// repeated.
    ///
    /// # Errors
    /// Returns an error if the connection breaks or stalls, or no barrier returns.
    pub(in crate::xmpp) async fn drain(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        stall_timeout: Duration,
    ) -> io::Result<()> {
        let mut is_logged = false;
        loop {
            let is_ending = self.is_ending();
            if is_ending && !is_logged && self.window.get(self.sent.position.number).is_some() {
                is_logged = true;
                warn!(
                    event = "stop_deadline_reached",
                    "stop deadline reached; pending notifications stay in the store"
                );
            }
            if timeout(stall_timeout, self.write_some(io)).await?? {
                continue;
            }
            if self.route.is_paused() {
                return Ok(());
            }
            if self.confirmed == (self.sent, self.complete(self.sent))
                && self.held_replies.is_none()
                && (is_ending
                    || self.awaits_presence
                    || self.window.get(self.sent.position.number).is_none())
            {
                let SendProgress { position, notifications } = self.sent;
                self.window.confirm_finally(position, self.deferred.positions(), notifications);
                return Ok(());
            }
            tokio::select! {
                outcome = timeout(stall_timeout, self.wait_for_work()) => outcome?,
                () = sleep_until(self.ends_at.unwrap_or_else(Instant::now)), if !is_ending => {}
            }
        }
    }

    async fn wait_for_work(&self) {
        let is_covered = (self.sent, self.complete(self.sent)) == self.covered;
        let pause = if is_covered { self.interval() } else { MIN_BARRIER_INTERVAL };
        let since = self.outstanding_since();
        let due = since.and_then(|since| self.route.due_at(since, self.may_retry()));
        let times = [self.replies.multicast.waits_until(), self.multicast_fails_at(), due];
        let next = times.into_iter().flatten().fold(self.barrier_at + pause, Instant::min);
        tokio::select! {
            () = self.replies.changed.notified() => {}
            () = self.window.changed() => {}
            () = self.presences.answers(), if self.awaits_presence => {}
            () = sleep_until(next) => {}
        }
    }

    /// Fills a buffer and sends it. Returns `false` if there was nothing to send.
    async fn write_some(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<bool> {
        self.process_acks();
        if self.current.is_none() {
            self.handle_multicast_failure();
            let mut buffer = mem::take(&mut self.spare);
            let (route, query) = self.replies.multicast.route();
            buffer.extend(query);
            let sendable_replies = self.update_sendable_replies(&route);
            let replies = self.replies.drain_ready(sendable_replies, &mut buffer);
            let due = self.due(&route);
            let sent = self.fill_buffer(&route, &mut buffer);
            let barrier = self.barrier(&route, sent, due.is_retry, &mut buffer);
            write_spaces(due.spaces.max(end_padding(&buffer)), &mut buffer);
            if buffer.is_empty() {
                if sent == self.sent && !self.has_skipped_many {
                    self.spare = buffer;
                    return Ok(false);
                }
                // Many recipients were skipped. Other tasks get to run.
                yield_now().await;
            }
            self.current = Some(WriteChunk { text: buffer, replies, written: 0, sent, barrier });
        }
        let begun = Instant::now();
        if let Some(chunk) = &mut self.current {
            let bytes = chunk.text.as_bytes();
            while let Some(rest) = bytes.get(chunk.written..).filter(|rest| !rest.is_empty()) {
                match io.write(rest).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    written => chunk.written += written,
                }
            }
            io.flush().await?;
        }
        if let Some(chunk) = self.current.take() {
            self.sent = chunk.sent;
            self.spare = chunk.text;
            self.spare.clear();
            let now = Instant::now();
            if now - begun >= BLOCKED_AFTER {
                self.unblocked_at = Some(now);
            }
            if let Some(mut barrier) = chunk.barrier {
                // The server cannot have returned the barrier earlier.
                barrier.at = now;
                self.covered = (barrier.sent, barrier.covers);
                self.barriers.push_back(barrier);
            }
        }
        Ok(true)
    }

    /// Returns the actions that are due because a barrier does not return.
    fn due(&mut self, route: &MulticastRoute) -> Due {
        let Some(since) = self.outstanding_since() else { return Due::default() };
        let may_retry = self.may_retry();
        let due = self.route.due(since, may_retry, |address| self.replies.has(address, route));
        if due.is_pause {
            warn!(
                event = "link_unconfirmed",
                elapsed_ms = since.elapsed().as_millis() as u64,
                "server returns no pings of the service; pausing notifications: look for a server module that drops stanzas from the service to its own JID"
            );
            self.show_confirmation();
        }
        due
    }

    /// Returns the time at which the oldest pending barrier was sent, or the time at which the last barrier returned if
    /// that is later. Returns `None` if no barrier is pending. Thus a slow server that returns barriers one by one is
    /// not treated as unresponsive.
    fn outstanding_since(&self) -> Option<Instant> {
        self.barriers
            .front()
            .map(|barrier| self.returned_at.map_or(barrier.at, |at| at.max(barrier.at)))
    }

    /// Returns `true` if a barrier to another address would confirm the same notifications as the pending barrier. This
    /// is the case unless the multicast service may have pending notifications.
    fn may_retry(&self) -> bool {
        !self.may_be_in_multicast()
    }

    fn show_confirmation(&self) {
        self.window.note_confirmation(!self.route.is_unconfirmed());
        self.replies.may_be_silent.store(self.route.is_unconfirmed(), Ordering::Relaxed);
    }

    /// Returns the interval until the next barrier while all sent notifications are confirmed.
    fn interval(&self) -> Duration {
        self.route.interval(self.last_barrier == 0)
    }

    /// Appends a barrier if one is due: to confirm new notifications, to retry at another address, or to test whether
    /// the server responds.
    fn barrier(
        &mut self,
        route: &MulticastRoute,
        sent: SendProgress,
        is_retry: bool,
        buffer: &mut String,
    ) -> Option<Barrier> {
        let elapsed = self.barrier_at.elapsed();
        let spacing = self.spacing.notifications(matches!(route, MulticastRoute::Through(_)));
        let is_time = self.held_replies.is_some()
            || sent.notifications - self.covered.0.notifications >= spacing
            || elapsed >= MIN_BARRIER_INTERVAL;
        let covers = self.complete(sent);
        let is_news = (sent, covers) != self.covered;
        let is_kept_alive = elapsed >= self.interval()
            || (self.last_barrier == 0 && self.replies.multicast.is_unread());
        if !(is_retry || is_kept_alive || (is_news && is_time)) {
            return None;
        }
        if is_kept_alive && self.route.is_paused() {
            self.route.next_address(|address| self.replies.has(address, route));
        }
        self.barrier_at = Instant::now();
        let address = match route {
            MulticastRoute::Through(_) if self.may_be_in_multicast() => Address::Multicast,
            _ => self.route.address(matches!(route, MulticastRoute::Through(_))),
        };
        let to = match (address, route, self.replies.domain()) {
            (Address::Multicast, MulticastRoute::Through(post), _) => post.address.clone(),
            (Address::Domain, _, Some(domain)) => domain.to_owned(),
            _ => with_resource(&self.service),
        };
        self.last_barrier += 1;
        let ping = ElementWriter::new("iq")
            .attr("type", "get")
            .attr("from", &self.service)
            .attr("to", &to)
            .attr("id", &format!("{BARRIER}{}-{}", self.barrier_name(), self.last_barrier))
            .child(ElementWriter::ns("ping", ns::PING));
        buffer.push_str(&ping.to_string());
        let (number, at) = (self.last_barrier, self.barrier_at);
        Some(Barrier { number, sent, covers, at, address })
    }

    fn barrier_name(&self) -> String {
        format!("{}.{}", self.connection, self.failures)
    }

    /// Returns `true` if the multicast service may have pending stanzas of this connection.
    pub(in crate::xmpp) fn may_be_in_multicast(&self) -> bool {
        self.returned_barrier < self.multicast_until
    }

    /// Returns the number of replies that may be sent. Later replies are held while the multicast service may still
    /// have notifications to entities that just lost access.
    fn update_sendable_replies(&mut self, route: &MulticastRoute) -> u64 {
        let is_back = |barrier: u64| {
            self.returned_barrier >= barrier && !matches!(route, MulticastRoute::Unknown)
        };
        if let Some((up_to, _)) = self.held_replies.take_if(|(_, barrier)| is_back(*barrier)) {
            self.sendable_replies = up_to;
        }
        if self.held_replies.is_none() {
            let up_to = self.replies.count();
            let revocations = self.window.losses();
            if revocations == self.revocations || is_back(self.multicast_until) {
                self.sendable_replies = up_to;
            } else {
                self.held_replies = Some((up_to, self.multicast_until));
            }
            self.revocations = revocations;
        }
        self.sendable_replies
    }

    /// Processes the barriers that returned.
    fn process_acks(&mut self) {
        self.returned_barrier = self.replies.barriers().1;
        let mut returned = None;
        while self.barriers.front().is_some_and(|barrier| barrier.number <= self.returned_barrier)
            && let Some(Barrier { number, sent, covers, at, address }) = self.barriers.pop_front()
        {
            let since = self.returned_at.map_or(at, |returned| returned.max(at));
            let notifications = sent.notifications.saturating_sub(self.confirmed.0.notifications);
            self.spacing.adapt(notifications, since.elapsed());
            self.returned_at = Some(Instant::now());
            self.confirmed = (sent, covers);
            self.window.acknowledge(covers.position, covers.notifications);
            // A barrier through the multicast service proves nothing about the other addresses.
            let is_its_own = number == self.returned_barrier && address != Address::Multicast;
            returned = Some(is_its_own.then_some(address));
        }
        if let Some(address) = returned
            && self.route.confirm(address)
        {
            info!(event = "link_confirmed", "server returns pings again; sending notifications");
            self.show_confirmation();
        }
    }

    /// Returns the time at which multicast counts as failed, unless the multicast service returns the pending barrier
    /// before this time.
    fn multicast_fails_at(&self) -> Option<Instant> {
        let is_multicast = |barrier: &&Barrier| barrier.address == Address::Multicast;
        let oldest =
            self.barriers.iter().find(is_multicast).filter(|_| self.may_be_in_multicast())?;
        let since = [self.unblocked_at, self.returned_at].into_iter().flatten();
        Some(since.fold(oldest.at, Instant::max) + self.route.address_timeout())
    }

    /// Handles a failure of multicast: unconfirmed notifications are resent directly.
    fn handle_multicast_failure(&mut self) {
        if self.multicast_fails_at().is_some_and(|time| Instant::now() >= time) {
            self.replies.multicast_failed();
        }
        let failures = self.replies.multicast.failures();
        if failures != self.failures {
            self.failures = failures;
            self.delayed_before = self.window.next();
            self.rewind();
            self.route.begin_tries();
        } else if self.returned_barrier > 0 {
            // Barriers of the current name are sent after the query that follows a failure.
            self.replies.multicast.note_read();
        }
    }
}

#[cfg(test)]
mod tests;
