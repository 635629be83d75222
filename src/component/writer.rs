//! What goes out: answers first, notifications in between, and barriers.
//!
//! Answers wait in a queue of their own, so a large audience delays nobody's answer. A notification is
//! rendered once. After notifications comes a barrier, a ping to the component itself: servers handle
//! a stream's stanzas in order, so its return shows that the server has all that was sent before.
//! After a broken connection, what no barrier covered is sent again, with the same id and the time at
//! which it happened.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tracing::{error, warn};

use crate::{
    pubsub::{Limits, written_len},
    service::{Outbox, Position},
    wire::{
        notification::{Rendered, render},
        ns,
        xml::Tag,
    },
};

use super::answers::{Answers, BARRIER};

/// Bytes that are written at once; between two writes answers are looked for.
pub(super) const WRITE_BYTES: usize = 64 * 1024;
/// The longest JID, three parts of 1 023 bytes (RFC 7622), as it is written: six bytes for one at the most.
const MAX_JID_BYTES: usize = 6 * (3 * 1023 + 2);
/// Recipients who lost their subscription, and entries, that are passed over in one go.
const MAX_PASSED_OVER: usize = 10_000;
/// Notifications that a kill may repeat; past it, barriers have to return first.
const MAX_REPEATABLE: u64 = 10_000;
/// A barrier follows so many notifications, and otherwise when the last one is so long ago.
const BARRIER_EVERY: u64 = 500;
const BARRIER_PAUSE: Duration = Duration::from_millis(20);

/// The sending half, across connections.
#[derive(Debug)]
pub struct Writer {
    answers: Arc<Answers>,
    outbox: Arc<Outbox>,
    service: String,
    limits: Limits,
    max_stanza_bytes: usize,
    /// What went into this connection, and what the server confirmed.
    sent: Sent,
    confirmed: Position,
    /// What this connection's newest barrier covers, and when it was sent.
    covered: Sent,
    barrier_at: Instant,
    barriers: VecDeque<Barrier>,
    last_barrier: u64,
    /// The name of this connection's barriers.
    connection: String,
    /// Entries that were there before this connection are late.
    late_before: u64,
    /// When no more is begun.
    ends_at: Option<Instant>,
    front: Option<Front>,
    /// What is being written.
    current: Option<Chunk>,
}

/// How far notifications were sent, and how many they were since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    position: Position,
    stanzas: u64,
}

#[derive(Debug)]
struct Barrier {
    number: u64,
    covers: Sent,
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

/// An entry of the outbox that is being sent.
#[derive(Debug)]
struct Front {
    number: u64,
    rendered: Rendered,
}

impl Writer {
    /// Sends in the name of the service of this JID, stanzas of at most so many bytes.
    #[must_use]
    pub fn new(
        answers: Arc<Answers>,
        service: String,
        limits: Limits,
        max_stanza_bytes: usize,
    ) -> Self {
        let outbox = Arc::clone(&answers.outbox);
        Self {
            answers,
            outbox,
            service,
            limits,
            max_stanza_bytes,
            sent: Sent::default(),
            confirmed: Position::default(),
            covered: Sent::default(),
            barrier_at: Instant::now(),
            barriers: VecDeque::new(),
            last_barrier: 0,
            connection: String::new(),
            late_before: 0,
            ends_at: None,
            front: None,
            current: None,
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
        self.barriers.clear();
        self.last_barrier = 0;
        self.connection = format!("{connection:016x}");
        self.answers.begin_barriers(self.connection.clone());
        self.outbox.forgotten(0, self.sent.stanzas);
        self.sent.position = self.confirmed;
        self.covered = self.sent;
        self.late_before = self.outbox.next();
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

    fn is_ending(&self) -> bool {
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
        tokio::select! {
            () = self.answers.came.notified() => {}
            () = self.outbox.changed() => {}
            () = barrier, if self.sent != self.covered => {}
        }
    }

    /// Sends a buffer full; whether there was anything.
    async fn write_some(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<bool> {
        self.settle_barriers();
        if self.current.is_none() {
            let mut buffer = String::new();
            self.answers.take_ready(&mut buffer);
            let answers = buffer.len();
            let sent = self.take_notifications(&mut buffer);
            let barrier = self.barrier(sent, &mut buffer);
            if buffer.is_empty() {
                if sent == self.sent {
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
            if let Some(barrier) = chunk.barrier {
                self.covered = barrier.covers;
                self.barriers.push_back(barrier);
            }
        }
        Ok(true)
    }

    /// Fills a buffer from the outbox; says how far everything is then sent.
    fn take_notifications(&mut self, buffer: &mut String) -> Sent {
        let Sent { mut position, mut stanzas } = self.sent;
        let mut room = MAX_REPEATABLE.saturating_sub(self.outbox.repeatable(stanzas));
        let mut passed_over = 0;
        while let Some(telling) = self.outbox.get(position.number).filter(|_| !self.is_ending()) {
            let lost = self.outbox.lost(&telling);
            let mut front = self.front.take().filter(|front| front.number == telling.number);
            let mut is_too_large = false;
            for recipient in telling.recipients.iter_from(position.recipients) {
                if buffer.len() >= WRITE_BYTES || room == 0 || passed_over >= MAX_PASSED_OVER {
                    self.front = front;
                    return Sent { position, stanzas };
                }
                position.recipients += 1;
                if lost.has(recipient, telling.number) {
                    passed_over += 1;
                    continue;
                }
                let front = front.get_or_insert_with(|| {
                    let is_late = telling.number < self.late_before;
                    let rendered =
                        render(&telling.notification, is_late, &self.service, &self.limits);
                    Front { number: telling.number, rendered }
                });
                let bytes = front.rendered.len();
                if bytes + MAX_JID_BYTES > self.max_stanza_bytes
                    && bytes + written_len(recipient.as_str()) > self.max_stanza_bytes
                {
                    // The limits keep events below this; the server would end the stream at it, and again.
                    is_too_large = true;
                    continue;
                }
                front.rendered.write_to(recipient.as_str(), buffer);
                stanzas += 1;
                room -= 1;
            }
            if is_too_large {
                error!(node = %telling.notification.node, "an event is too large for some recipients");
            }
            position = Position { number: position.number + 1, recipients: 0 };
            passed_over += 1;
            if passed_over >= MAX_PASSED_OVER {
                break;
            }
        }
        Sent { position, stanzas }
    }

    /// Appends a barrier if it is time for one.
    fn barrier(&mut self, sent: Sent, buffer: &mut String) -> Option<Barrier> {
        let is_time = sent.stanzas - self.covered.stanzas >= BARRIER_EVERY
            || self.barrier_at.elapsed() >= BARRIER_PAUSE;
        if sent == self.covered || !is_time {
            return None;
        }
        self.barrier_at = Instant::now();
        self.last_barrier += 1;
        let ping = Tag::new("iq")
            .attr("type", "get")
            .attr("from", &self.service)
            .attr("to", &self.service)
            .attr("id", &format!("{BARRIER}{}-{}", self.connection, self.last_barrier))
            .child(Tag::ns("ping", ns::PING));
        buffer.push_str(&ping.to_string());
        Some(Barrier { number: self.last_barrier, covers: sent })
    }

    /// Takes notice of what the server has.
    fn settle_barriers(&mut self) {
        let returned = self.answers.barriers().1;
        while self.barriers.front().is_some_and(|barrier| barrier.number <= returned)
            && let Some(Barrier { covers, .. }) = self.barriers.pop_front()
        {
            self.confirmed = covers.position;
            self.outbox.confirm(covers.position, covers.stanzas);
        }
    }
}
