//! What goes out: answers first, notifications in between, and barriers.
//!
//! Answers wait in a queue of their own, so a large audience delays nobody's answer. A notification is
//! rendered once. After notifications comes a barrier, a ping to the component itself: servers handle
//! a stream's stanzas in order, so its return shows that the server has all that was sent before.
//! After a broken connection, what no barrier covered is sent again, with the same id and the time at
//! which it happened.
//!
//! Where notifications go by a multicast service, so do the barriers: it is a process of its own. An answer
//! that shuts somebody out waits until it has nothing of theirs any more.

use std::{collections::VecDeque, io, mem, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tracing::warn;

use crate::{
    service::{Outbox, Position, Presences},
    wire::{ns, xml::Tag},
};

use super::{
    answers::{Answers, BARRIER},
    multicast::{Way, with_resource},
    telling::Front,
};

/// Bytes that are written at once; between two writes answers are looked for.
pub(super) const WRITE_BYTES: usize = 64 * 1024;
/// A barrier follows so many notifications, and otherwise when the last one is so long ago.
const BARRIER_EVERY: u64 = 2000;
const BARRIER_PAUSE: Duration = Duration::from_millis(20);
/// How long a multicast service may owe the answer to one.
const BARRIER_PATIENCE: Duration = Duration::from_secs(60);

/// The sending half, across connections.
#[derive(Debug)]
pub struct Writer {
    pub(super) answers: Arc<Answers>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) presences: Arc<Presences>,
    pub(super) service: String,
    pub(super) max_stanza_bytes: usize,
    /// What went into this connection, and what the server confirmed.
    pub(super) sent: Sent,
    confirmed: Position,
    /// What this connection's newest barrier covers, and when it was sent.
    covered: Sent,
    barrier_at: Instant,
    barriers: VecDeque<Barrier>,
    pub(super) last_barrier: u64,
    returned_barrier: u64,
    /// The barrier whose return shows that a multicast service has nothing left of this connection.
    pub(super) multicast_until: u64,
    /// How often multicast failed.
    failures: u64,
    /// Of all answers there ever were, how many may be sent; and up to which they may be when a barrier has returned.
    free_answers: u64,
    held_answers: Option<(u64, u64)>,
    /// How often somebody lost a subscription, as far as answers were looked at.
    losses: u64,
    /// The name of this connection's barriers.
    connection: String,
    /// Entries that were there before this connection are late.
    pub(super) late_before: u64,
    /// When no more is begun.
    ends_at: Option<Instant>,
    pub(super) front: Option<Front>,
    /// What is being written.
    current: Option<Chunk>,
    /// The buffer of the last chunk.
    spare: String,
}

/// How far notifications were sent, and how many they were since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub position: Position,
    pub notifications: u64,
}

#[derive(Debug)]
struct Barrier {
    number: u64,
    covers: Sent,
    at: Instant,
}

/// Whole stanzas on their way into the connection, and how far is told when they are in.
#[derive(Debug)]
struct Chunk {
    text: String,
    /// How much of it, at its beginning, are answers.
    answers: usize,
    written: usize,
    sent: Sent,
    barrier: Option<Barrier>,
}

impl Writer {
    /// Sends in the name of the service of this JID, stanzas of at most so many bytes.
    #[must_use]
    pub fn new(
        answers: Arc<Answers>,
        presences: Arc<Presences>,
        service: String,
        max_stanza_bytes: usize,
    ) -> Self {
        let outbox = Arc::clone(&answers.outbox);
        Self {
            answers,
            outbox,
            presences,
            service,
            max_stanza_bytes,
            sent: Sent::default(),
            confirmed: Position::default(),
            covered: Sent::default(),
            barrier_at: Instant::now(),
            barriers: VecDeque::new(),
            last_barrier: 0,
            returned_barrier: 0,
            multicast_until: 0,
            failures: 0,
            free_answers: 0,
            held_answers: None,
            losses: 0,
            connection: String::new(),
            late_before: 0,
            ends_at: None,
            front: None,
            current: None,
            spare: String::new(),
        }
    }

    /// Begins on a new connection, with a name that no other had. What the server did not confirm is sent
    /// again.
    pub fn reconnected(&mut self, connection: u64) {
        if let Some(mut chunk) = self.current.take() {
            chunk.text.truncate(chunk.answers);
            self.answers.send_again(chunk.text);
        }
        self.settle_barriers();
        self.connection = format!("{connection:016x}");
        self.late_before = self.outbox.next();
        self.begin_again();
        if let Some(question) = self.answers.multicast.begin(self.connection.clone()) {
            self.answers.ask(&question);
        }
    }

    /// Sends what is not confirmed once more, with barriers of the name that is now theirs.
    fn begin_again(&mut self) {
        self.barriers.clear();
        self.last_barrier = 0;
        self.returned_barrier = 0;
        self.multicast_until = 0;
        self.held_answers = self.held_answers.map(|(up_to, _)| (up_to, 0));
        self.answers.begin_barriers(self.barrier_name());
        self.outbox.forgotten(0, self.sent.notifications);
        self.sent.position = self.confirmed;
        self.covered = self.sent;
        self.front = None;
    }

    /// Whether a stanza is half written, so that nothing else can be.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.current.as_ref().is_some_and(|chunk| chunk.written > 0)
    }

    /// Sends until the connection breaks. Dropping the future loses nothing: the next one goes on.
    pub async fn run(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> io::Error {
        loop {
            match self.write_some(io).await {
                Ok(true) => {}
                Ok(false) => self.something_to_do().await,
                Err(error) => return error,
            }
        }
    }

    /// After this time no notification is begun: the rest is owed.
    pub fn end_at(&mut self, end: Instant) {
        self.ends_at = Some(end);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ends_at.is_some_and(|end| Instant::now() >= end)
    }

    /// Sends what waits until the [end](Self::end_at), and waits until the server has confirmed what was sent,
    /// as long as something happens within this time.
    ///
    /// # Errors
    /// If the connection breaks, or takes nothing, or no barrier returns.
    pub async fn drain(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        patience: Duration,
    ) -> io::Result<()> {
        let mut is_said = false;
        loop {
            let is_ending = self.is_ending();
            if is_ending && !is_said && self.outbox.get(self.sent.position.number).is_some() {
                is_said = true;
                warn!("the server does not take all that waits in time for the stop");
            }
            if timeout(patience, self.write_some(io)).await?? {
                continue;
            }
            if self.confirmed == self.sent.position
                && self.held_answers.is_none()
                && (is_ending || self.outbox.get(self.confirmed.number).is_none())
            {
                return Ok(());
            }
            tokio::select! {
                something = timeout(patience, self.something_to_do()) => something?,
                () = sleep_until(self.ends_at.unwrap_or_else(Instant::now)), if !is_ending => {}
            }
        }
    }

    async fn something_to_do(&self) {
        let barrier = sleep_until(self.barrier_at + BARRIER_PAUSE);
        let patience = self.answers.multicast.waits_until().or_else(|| self.multicast_fails_at());
        tokio::select! {
            () = self.answers.came.notified() => {}
            () = self.outbox.changed() => {}
            () = barrier, if self.sent != self.covered => {}
            () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {}
        }
    }

    /// Sends a buffer full; whether there was anything.
    async fn write_some(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<bool> {
        self.settle_barriers();
        if self.current.is_none() {
            self.settle_failures();
            let mut buffer = mem::take(&mut self.spare);
            let (way, question) = self.answers.multicast.way();
            buffer.extend(question);
            let free_answers = self.free_answers(&way);
            self.answers.take_ready(free_answers, &mut buffer);
            let answers = buffer.len();
            let sent = self.take_notifications(&way, &mut buffer);
            let barrier = self.barrier(&way, sent, &mut buffer);
            if buffer.is_empty() {
                if sent == self.sent {
                    self.spare = buffer;
                    return Ok(false);
                }
                // Many lost their subscriptions. Nothing is waited for, but others have their turn.
                yield_now().await;
            }
            self.current = Some(Chunk { text: buffer, answers, written: 0, sent, barrier });
        }
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
            if let Some(barrier) = chunk.barrier {
                self.covered = barrier.covers;
                self.barriers.push_back(barrier);
            }
        }
        Ok(true)
    }

    /// Appends a barrier if it is time for one.
    fn barrier(&mut self, way: &Way, sent: Sent, buffer: &mut String) -> Option<Barrier> {
        let is_time = self.held_answers.is_some()
            || sent.notifications - self.covered.notifications >= BARRIER_EVERY
            || self.barrier_at.elapsed() >= BARRIER_PAUSE;
        if sent == self.covered || !is_time {
            return None;
        }
        self.barrier_at = Instant::now();
        let to = match way {
            Way::Through(post) if self.may_be_in_multicast() => post.address.clone(),
            _ => with_resource(&self.service),
        };
        self.last_barrier += 1;
        let ping = Tag::new("iq")
            .attr("type", "get")
            .attr("from", &self.service)
            .attr("to", &to)
            .attr("id", &format!("{BARRIER}{}-{}", self.barrier_name(), self.last_barrier))
            .child(Tag::ns("ping", ns::PING));
        buffer.push_str(&ping.to_string());
        Some(Barrier { number: self.last_barrier, covers: sent, at: self.barrier_at })
    }

    fn barrier_name(&self) -> String {
        format!("{}.{}", self.connection, self.failures)
    }

    /// Whether a multicast service may have stanzas of this connection that it has not dealt with.
    pub(super) fn may_be_in_multicast(&self) -> bool {
        self.returned_barrier < self.multicast_until
    }

    /// How many of all answers may be sent. While a multicast service may still tell those who just lost a
    /// subscription, what is answered since then waits.
    fn free_answers(&mut self, way: &Way) -> u64 {
        let is_back =
            |barrier: u64| self.returned_barrier >= barrier && !matches!(way, Way::Unknown);
        if let Some((up_to, _)) = self.held_answers.take_if(|(_, barrier)| is_back(*barrier)) {
            self.free_answers = up_to;
        }
        if self.held_answers.is_none() {
            let up_to = self.answers.count();
            let losses = self.outbox.losses();
            if losses == self.losses || is_back(self.multicast_until) {
                self.free_answers = up_to;
            } else {
                self.held_answers = Some((up_to, self.multicast_until));
            }
            self.losses = losses;
        }
        self.free_answers
    }

    /// Takes notice of what the server has.
    fn settle_barriers(&mut self) {
        self.returned_barrier = self.answers.barriers().1;
        while self.barriers.front().is_some_and(|barrier| barrier.number <= self.returned_barrier)
            && let Some(Barrier { covers, .. }) = self.barriers.pop_front()
        {
            self.confirmed = covers.position;
            self.outbox.confirm(covers.position, covers.notifications);
        }
    }

    /// When a multicast service has owed an answer for too long.
    fn multicast_fails_at(&self) -> Option<Instant> {
        let oldest = self.barriers.front().filter(|_| self.may_be_in_multicast())?;
        Some(oldest.at + BARRIER_PATIENCE)
    }

    /// After multicast failed: what is not confirmed is told again, another way.
    fn settle_failures(&mut self) {
        if self.multicast_fails_at().is_some_and(|time| Instant::now() >= time) {
            self.answers.multicast_failed();
        }
        let failures = self.answers.multicast.failures();
        if failures != self.failures {
            self.failures = failures;
            self.begin_again();
        }
    }
}
