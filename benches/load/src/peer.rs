//! Peer of a service: sends requests, with a limited number outstanding, and counts replies and
//! notifications.

use std::{
    io::{self, Write},
    net::TcpStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use memchr::memmem;

use crate::{link::StanzaReader, scan::attribute};

/// Time without any stanza after which the service counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connected service.
#[derive(Debug)]
pub struct Peer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<PeerState>,
    came: Condvar,
    out: Mutex<Vec<u8>>,
    goes: Condvar,
}

#[derive(Debug)]
struct PeerState {
    answered: u64,
    notifications: u64,
    refused: Option<String>,
    is_over: bool,
    /// Time at which each request of the run was sent.
    sent_at: Vec<Instant>,
    answers: Histogram<u64>,
    /// Number of subscribers of each item, if the time until the last notification is measured; and
    /// the notifications that are missing.
    audience: u64,
    missing: Vec<u64>,
    events: Histogram<u64>,
}

/// Result of a run.
#[derive(Debug)]
pub struct Run {
    /// Time from the first request to the last answer, and to the last notification.
    pub answered_in: Duration,
    pub notified_in: Duration,
    /// Number of notifications.
    pub notifications: u64,
    /// Microseconds from each request to its answer, and to its last notification.
    pub answers: Histogram<u64>,
    pub events: Histogram<u64>,
}

/// Description of a run.
pub struct Plan<'a> {
    pub requests: u64,
    /// Maximum number of unanswered requests.
    pub outstanding: u64,
    /// Requests per second; without it, as many as possible.
    pub rate: Option<u64>,
    /// Notifications of each request.
    pub audience: u64,
    /// Writes the request with this number as its id.
    pub write: &'a mut dyn FnMut(u64, &mut Vec<u8>),
}

impl Peer {
    /// Begins to read from a connection.
    #[must_use]
    pub fn new(mut reader: StanzaReader, tcp: TcpStream) -> Self {
        let state = PeerState {
            answered: 0,
            notifications: 0,
            refused: None,
            is_over: false,
            sent_at: Vec::new(),
            answers: histogram(),
            audience: 0,
            missing: Vec::new(),
            events: histogram(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            came: Condvar::new(),
            out: Mutex::default(),
            goes: Condvar::new(),
        });
        let reading = Arc::clone(&shared);
        thread::spawn(move || {
            let mut echoes = Vec::new();
            loop {
                let mut state = None;
                let read = reader.read(|stanza| {
                    let state = state.get_or_insert_with(|| lock(&reading.state));
                    state.take(stanza, &mut echoes);
                });
                drop(state);
                reading.send(&mut echoes);
                if !matches!(read, Ok(true)) {
                    lock(&reading.state).is_over = true;
                }
                reading.came.notify_all();
                if !matches!(read, Ok(true)) {
                    return;
                }
            }
        });
        let writing = Arc::clone(&shared);
        thread::spawn(move || writing.write(tcp));
        Self { shared }
    }

    /// Executes a plan.
    ///
    /// # Errors
    /// If a request is refused, or the service is stuck or disconnected.
    pub fn run(&self, plan: Plan<'_>) -> io::Result<Run> {
        let Plan { requests, outstanding, rate, audience, write } = plan;
        let mut state = lock(&self.shared.state);
        (state.answered, state.notifications, state.audience) = (0, 0, audience);
        (state.answers, state.events) = (histogram(), histogram());
        state.sent_at.clear();
        state.missing.clear();
        let begun = Instant::now();
        let (mut sent, mut text, mut answered_in) = (0, Vec::new(), None);
        loop {
            let due = rate.map_or(requests, |rate| {
                let due = begun.elapsed().as_micros() * u128::from(rate) / 1_000_000;
                requests.min(due as u64)
            });
            while sent < due && sent < state.answered + outstanding {
                write(sent, &mut text);
                // At a fixed rate latency counts from the scheduled time, even if the load
                // generator was late.
                state.sent_at.push(rate.map_or_else(Instant::now, |rate| {
                    begun + Duration::from_micros(sent * 1_000_000 / rate)
                }));
                state.missing.push(audience);
                sent += 1;
            }
            if !text.is_empty() {
                drop(state);
                self.shared.send(&mut text);
                state = lock(&self.shared.state);
            }
            if state.answered >= requests {
                answered_in.get_or_insert_with(|| begun.elapsed());
                if state.notifications >= requests * audience {
                    break;
                }
            }
            if sent >= due || sent >= state.answered + outstanding {
                let patience = rate.filter(|_| sent < requests);
                let patience = patience.map(|rate| Duration::from_secs(1) / rate as u32);
                state = self.wait(state, patience)?;
            }
        }
        Ok(Run {
            answered_in: answered_in.unwrap_or_default(),
            notified_in: begun.elapsed(),
            notifications: state.notifications,
            answers: state.answers.clone(),
            events: state.events.clone(),
        })
    }

    /// Waits for a stanza, with a timeout.
    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, PeerState>,
        patience: Option<Duration>,
    ) -> io::Result<MutexGuard<'a, PeerState>> {
        let waited = self.shared.came.wait_timeout(state, patience.unwrap_or(PATIENCE));
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(refused) = &state.refused {
            return Err(io::Error::other(format!("refused: {refused}")));
        }
        if state.is_over {
            return Err(io::Error::other("the connection ended"));
        }
        if waited.timed_out() && patience.is_none() {
            let (answered, notifications) = (state.answered, state.notifications);
            return Err(io::Error::other(format!(
                "stuck: {answered} answered, {notifications} heard"
            )));
        }
        Ok(state)
    }
}

impl Shared {
    fn send(&self, text: &mut Vec<u8>) {
        if !text.is_empty() {
            lock(&self.out).append(text);
            self.goes.notify_one();
        }
    }

    fn write(&self, mut tcp: TcpStream) {
        loop {
            let mut out = lock(&self.out);
            while out.is_empty() {
                out = self.goes.wait(out).unwrap_or_else(PoisonError::into_inner);
            }
            let text = std::mem::take(&mut *out);
            drop(out);
            if tcp.write_all(&text).is_err() {
                return;
            }
        }
    }
}

impl PeerState {
    fn take(&mut self, stanza: &[u8], echoes: &mut Vec<u8>) {
        if stanza.starts_with(b"<message") {
            self.notifications += 1;
            if self.audience > 0 {
                self.count(stanza);
            }
        } else if stanza.starts_with(b"<iq") {
            match attribute(stanza, "type") {
                Some("result") => {
                    self.answered += 1;
                    let number = attribute(stanza, "id").and_then(|id| id.parse::<usize>().ok());
                    if let Some(sent) = number.and_then(|number| self.sent_at.get(number)) {
                        self.answers.saturating_record(sent.elapsed().as_micros() as u64);
                    }
                }
                Some("get" | "set") => {
                    let of = |name| attribute(stanza, name).unwrap_or_default();
                    if of("from") == of("to") {
                        // Echoes a barrier.
                        echoes.extend_from_slice(stanza);
                    } else {
                        let (from, to, id) = (of("to"), of("from"), of("id"));
                        echoes.extend(
                            format!("<iq type='error' from='{from}' to='{to}' id='{id}'/>").bytes(),
                        );
                    }
                }
                _ => {
                    let text = String::from_utf8_lossy(stanza).into_owned();
                    self.refused.get_or_insert(text);
                }
            }
        }
    }

    /// Counts a notification; the id of an item is the number of its request.
    fn count(&mut self, message: &[u8]) {
        let Some(item) = memmem::find(message, b"<item ").map(|at| &message[at..]) else { return };
        let number = attribute(item, "id").and_then(|id| id.parse::<usize>().ok());
        let Some(number) = number else { return };
        if let Some(missing) = self.missing.get_mut(number) {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.events.saturating_record(self.sent_at[number].elapsed().as_micros() as u64);
            }
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds in order")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
