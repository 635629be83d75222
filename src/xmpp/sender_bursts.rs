//! Tracks bursts. A burst is a series of stanzas of one sender in close succession that exceeded a queue limit. After
//! the first rejected stanza, the rest of the burst is rejected too, so that the accepted requests are the first ones
//! of the burst.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};

use super::sender_queue::QueueLimit;

/// Silence of the sender that ends a burst: longer than gaps caused by a busy network or machine, shorter than the
/// retry interval of clients.
const BURST_END_SILENCE: Duration = Duration::from_millis(500);
/// Maximum time for which the stanzas of a sender without pauses are rejected after its last pending request. The time
/// is limited, because the stanzas may come from other programs of the same account and not belong to the burst.
const MAX_REFUSED: Duration = Duration::from_secs(10);
/// Maximum number of tracked bursts.
const MAX_BURSTS: usize = 10_000;

/// Bursts that exceeded a queue limit, by bare JID.
#[derive(Default)]
pub(super) struct Bursts {
    by_sender: HashMap<String, Burst>,
    pruned: Option<Instant>,
}

struct Burst {
    exceeded: QueueLimit,
    /// Time of the last stanza.
    last: Instant,
    /// Time of the last stanza that arrived while other requests of the sender were pending.
    last_in_flight: Instant,
}

impl Burst {
    /// Returns `true` if the burst has ended, provided that the sender has no pending request.
    fn is_over(&self, now: Instant) -> bool {
        now - self.last >= BURST_END_SILENCE || now - self.last_in_flight >= MAX_REFUSED
    }
}

impl Bursts {
    /// Returns the limit that the sender's burst exceeded, if a stanza that arrives now belongs to the burst.
    pub(super) fn exceeded_limit(
        &mut self,
        sender: &str,
        is_idle: bool,
        now: Instant,
    ) -> Option<QueueLimit> {
        let burst = self.by_sender.get_mut(sender)?;
        if is_idle && burst.is_over(now) {
            self.by_sender.remove(sender);
            return None;
        }
        burst.last = now;
        if !is_idle {
            burst.last_in_flight = now;
        }
        Some(burst.exceeded)
    }

    /// Records that a sender's burst exceeded a limit, unless [`MAX_BURSTS`] are tracked.
    pub(super) fn add(
        &mut self,
        sender: &str,
        exceeded: QueueLimit,
        now: Instant,
        is_idle: impl Fn(&str) -> bool,
    ) {
        let may_prune = self.pruned.is_none_or(|pruned| now - pruned >= BURST_END_SILENCE);
        if self.by_sender.len() >= MAX_BURSTS && may_prune {
            self.by_sender.retain(|sender, burst| !(is_idle(sender) && burst.is_over(now)));
            self.pruned = Some(now);
        }
        if self.by_sender.len() < MAX_BURSTS {
            let burst = Burst { exceeded, last: now, last_in_flight: now };
            self.by_sender.insert(sender.to_owned(), burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: QueueLimit = QueueLimit::StanzasPerJid(1);
    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn burst_ends_after_a_pause_without_requests_in_flight() {
        let (mut bursts, mut now) = (Bursts::default(), Instant::now());
        assert_eq!(bursts.exceeded_limit("a@x", true, now), None);
        bursts.add("a@x", LIMIT, now, |_| true);
        now += BURST_END_SILENCE - MILLI;
        assert_eq!(bursts.exceeded_limit("a@x", true, now), Some(LIMIT));
        assert_eq!(bursts.exceeded_limit("b@x", true, now), None);
        // Rejected stanzas belong to the burst.
        now += BURST_END_SILENCE - MILLI;
        assert_eq!(bursts.exceeded_limit("a@x", true, now), Some(LIMIT));
        now += 2 * MAX_REFUSED;
        assert_eq!(bursts.exceeded_limit("a@x", false, now), Some(LIMIT));
        now += BURST_END_SILENCE;
        assert_eq!(bursts.exceeded_limit("a@x", true, now), None);
        assert!(bursts.by_sender.is_empty());
    }

    #[test]
    fn a_sender_that_never_pauses_is_refused_for_a_while() {
        let (mut bursts, began) = (Bursts::default(), Instant::now());
        bursts.add("a@x", LIMIT, began, |_| true);
        let mut now = began;
        while bursts.exceeded_limit("a@x", true, now).is_some() {
            now += BURST_END_SILENCE / 2;
        }
        assert_eq!(now - began, MAX_REFUSED);
    }

    #[test]
    fn ended_bursts_are_forgotten_and_bursts_are_bounded() {
        let (mut bursts, mut now) = (Bursts::default(), Instant::now());
        let is_idle = |sender: &str| sender != "0@x";
        for sender in 0..2 * MAX_BURSTS {
            bursts.add(&format!("{sender}@x"), LIMIT, now, is_idle);
        }
        assert_eq!(bursts.by_sender.len(), MAX_BURSTS);
        now += BURST_END_SILENCE;
        bursts.add("new@x", LIMIT, now, is_idle);
        assert_eq!(bursts.by_sender.len(), 2);
        assert_eq!(bursts.exceeded_limit("0@x", false, now), Some(LIMIT));
        assert_eq!(bursts.exceeded_limit("new@x", true, now), Some(LIMIT));
    }
}
