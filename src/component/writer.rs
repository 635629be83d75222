//! What goes out: answers first, notifications in between.
//!
//! Answers wait in a queue of their own, so a large audience delays nobody's answer. Only an answer
//! that takes access away from somebody waits until what was told before it has gone out.
//!
//! A notification is rendered once. It leaves the outbox when its last byte went into the connection;
//! after a broken connection the rest is sent on the next one.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};
use tracing::error;

use crate::{
    pubsub::Limits,
    service::{Outbox, Ticket},
    wire::notification::{Rendered, render},
};

/// Bytes that are written at once; between two writes answers are looked for.
const WRITE_BYTES: usize = 64 * 1024;
/// Bytes of answers that may wait; while there are more, nothing is read.
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;

/// The answers that wait to be sent.
#[derive(Debug)]
pub struct Answers {
    queue: Mutex<Queue>,
    outbox: Arc<Outbox>,
    came: Notify,
    went: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<String>,
    /// Those that must not overtake what is told before them.
    after: VecDeque<(Ticket, String)>,
    bytes: usize,
}

impl Answers {
    /// No answers, beside an outbox.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self { queue: Mutex::default(), outbox, came: Notify::new(), went: Notify::new() }
    }

    /// Sends a stanza; if a ticket is given, not before everything up to it.
    pub fn send(&self, stanza: String, after: Option<Ticket>) {
        let mut queue = self.queue();
        queue.bytes += stanza.len();
        match after.filter(|ticket| !self.outbox.is_told(*ticket)) {
            Some(ticket) => queue.after.push_back((ticket, stanza)),
            None => queue.ready.push_back(stanza),
        }
        drop(queue);
        self.came.notify_one();
    }

    /// Waits until more answers may come.
    pub async fn room(&self) {
        while self.queue().bytes > MAX_WAITING_BYTES {
            self.went.notified().await;
        }
    }

    /// Moves answers that may go out now to the end of a buffer.
    fn take_ready(&self, buffer: &mut String) {
        let mut queue = self.queue();
        while queue.after.front().is_some_and(|(ticket, _)| self.outbox.is_told(*ticket)) {
            let told = queue.after.pop_front().map(|(_, stanza)| stanza);
            queue.ready.extend(told);
        }
        while buffer.len() < WRITE_BYTES
            && let Some(stanza) = queue.ready.pop_front()
        {
            queue.bytes -= stanza.len();
            buffer.push_str(&stanza);
        }
        drop(queue);
        self.went.notify_one();
    }

    /// Puts answers back to the front, for the connection broke.
    fn send_again(&self, answers: String) {
        let mut queue = self.queue();
        queue.bytes += answers.len();
        queue.ready.push_front(answers);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending half, across connections.
#[derive(Debug)]
pub struct Writer {
    answers: Arc<Answers>,
    outbox: Arc<Outbox>,
    service: String,
    limits: Limits,
    max_stanza_bytes: usize,
    /// The entry at the front of the outbox, and how many of its recipients were served.
    front: Option<Front>,
    /// What is being written.
    current: Option<Chunk>,
}

/// Whole stanzas on their way into the connection, and what holds when they are in.
#[derive(Debug)]
struct Chunk {
    text: String,
    /// How much of it, at its beginning, are answers.
    answers: usize,
    written: usize,
    told: usize,
    front: Option<Front>,
}

#[derive(Clone, Debug)]
struct Front {
    rendered: Rendered,
    served: usize,
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
        Self { answers, outbox, service, limits, max_stanza_bytes, front: None, current: None }
    }

    /// Begins on a new connection. What did not all go into the old one is sent again.
    pub fn reconnected(&mut self) {
        if let Some(mut chunk) = self.current.take() {
            chunk.text.truncate(chunk.answers);
            self.answers.send_again(chunk.text);
        }
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
                Ok(false) => tokio::select! {
                    () = self.answers.came.notified() => {}
                    () = self.outbox.changed() => {}
                },
                Err(error) => return error,
            }
        }
    }

    /// Sends all that waits, as long as something goes out within this time.
    ///
    /// # Errors
    /// If the connection breaks, or takes nothing.
    pub async fn drain(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        patience: Duration,
    ) -> io::Result<()> {
        while timeout(patience, self.write_some(io)).await?? {}
        Ok(())
    }

    /// Sends a buffer full; whether there was anything.
    async fn write_some(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<bool> {
        if self.current.is_none() {
            let mut buffer = String::new();
            self.answers.take_ready(&mut buffer);
            let answers = buffer.len();
            let (told, front) = self.take_notifications(&mut buffer);
            if buffer.is_empty() && told == 0 {
                return Ok(false);
            }
            self.current = Some(Chunk { text: buffer, answers, written: 0, told, front });
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
            self.front = chunk.front;
            self.outbox.told(chunk.told);
        }
        Ok(true)
    }

    /// Fills a buffer from the outbox. Says how many entries are in it to the end, and how far the one
    /// after them is.
    fn take_notifications(&self, buffer: &mut String) -> (usize, Option<Front>) {
        let (mut told, mut front) = (0, self.front.clone());
        while let Some(telling) = self.outbox.peek(told) {
            let mut current = front.take().unwrap_or_else(|| Front {
                rendered: render(&telling.notification, &self.service, &self.limits),
                served: 0,
            });
            if current.rendered.len() > self.max_stanza_bytes {
                // The rules keep events below this limit; the server would end the stream.
                error!(node = %telling.notification.node, "an event is too large to be sent");
                current.served = telling.recipients.len();
            }
            for recipient in telling.recipients.iter().skip(current.served) {
                if buffer.len() >= WRITE_BYTES {
                    return (told, Some(current));
                }
                current.rendered.write_to(recipient.as_str(), buffer);
                current.served += 1;
            }
            told += 1;
        }
        (told, None)
    }
}
