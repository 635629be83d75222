//! Rate limits of the stanzas of each sender, and of all senders of a domain.

use std::collections::HashMap;

use jid::{account, with_u_labels};
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};

/// Maximum burst, in seconds: as many stanzas as the rate allows in this time.
const BURST_SECONDS: u32 = 10;
/// Number of senders above which those are evicted that have their whole allowance available again.
const MAX_REMEMBERED: usize = 10_000;

/// Maximum numbers of requests per second; 0 for no limit.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// Limit of one bare JID.
    pub per_jid: u32,
    /// Limit of all JIDs of one domain.
    pub per_domain: u32,
}

/// Rate limit that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateExceeded {
    Jid,
    Domain,
}

/// Limits the rates of the stanzas of all senders. Stanzas that need no reply, such as presence, are counted separately
/// from requests, with the same limits. A sender does not send such a stanza again if it is rejected, so a burst of
/// requests must not lead to its rejection.
#[derive(Debug)]
pub(crate) struct RequestLimiter {
    requests: Limiters,
    others: Limiters,
    rates: watch::Receiver<RateLimits>,
}

#[derive(Debug)]
struct Limiters {
    jids: GcraLimiter,
    domains: GcraLimiter,
}

impl RequestLimiter {
    pub(crate) fn new(mut rates: watch::Receiver<RateLimits>) -> Self {
        let current = *rates.borrow_and_update();
        Self { requests: Limiters::new(current), others: Limiters::new(current), rates }
    }

    /// Checks the rate limits for a stanza of the JID `from`, and counts the stanza if it is within the limits.
    /// `needs_answer` is `true` for a request.
    pub(crate) fn check(
        &mut self,
        from: &str,
        needs_answer: bool,
        now: Instant,
    ) -> Result<(), RateExceeded> {
        if self.rates.has_changed().unwrap_or(false) {
            let rates = *self.rates.borrow_and_update();
            self.requests.set_limits(rates);
            self.others.set_limits(rates);
        }
        let limiters = if needs_answer { &mut self.requests } else { &mut self.others };
        limiters.check(from, now)
    }
}

impl Limiters {
    fn new(RateLimits { per_jid, per_domain }: RateLimits) -> Self {
        Self { jids: GcraLimiter::new(per_jid), domains: GcraLimiter::new(per_domain) }
    }

    fn set_limits(&mut self, RateLimits { per_jid, per_domain }: RateLimits) {
        self.jids.interval = interval(per_jid);
        self.domains.interval = interval(per_domain);
    }

    fn check(&mut self, from: &str, now: Instant) -> Result<(), RateExceeded> {
        let bare = &*account(from);
        let domain = bare.rsplit_once('@').map_or(bare, |(_, domain)| domain);
        let domain = &*with_u_labels(domain);
        if !self.jids.check(bare, now) {
            return Err(RateExceeded::Jid);
        }
        if self.domains.check(domain, now) { Ok(()) } else { Err(RateExceeded::Domain) }
    }
}

/// Rate limiter (generic cell rate algorithm). For each name (JID or domain) it stores the theoretical arrival time of
/// the next stanza, which assumes that all stanzas arrive at the steady rate.
#[derive(Debug)]
struct GcraLimiter {
    interval: Duration,
    until: HashMap<String, Instant>,
    max: usize,
}

fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1).checked_div(per_second).unwrap_or_default()
}

impl GcraLimiter {
    fn new(per_second: u32) -> Self {
        Self { interval: interval(per_second), until: HashMap::new(), max: MAX_REMEMBERED }
    }

    fn check(&mut self, name: &str, now: Instant) -> bool {
        if self.interval.is_zero() {
            return true;
        }
        let until = self.until.get(name).copied().unwrap_or(now).max(now) + self.interval;
        if until > now + Duration::from_secs(BURST_SECONDS.into()) {
            return false;
        }
        match self.until.get_mut(name) {
            Some(current) => *current = until,
            None => {
                self.until.insert(name.to_owned(), until);
            }
        }
        if self.until.len() > self.max {
            self.until.retain(|_, until| *until > now);
            self.max = MAX_REMEMBERED.max(2 * self.until.len());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_jid: u32, per_domain: u32) -> RequestLimiter {
        RequestLimiter::new(watch::channel(RateLimits { per_jid, per_domain }).1)
    }

    #[test]
    fn burst_of_a_sender_is_ten_seconds_of_its_rate() {
        let (mut limiter, now) = (limiter(5, 0), Instant::now());
        for request in 0..50 {
            let resource = format!("a@x/{request}");
            assert_eq!(limiter.check(&resource, true, now), Ok(()));
        }
        for spelling in ["a@x/r", "A@x/r", "a@X", "ａ@x"] {
            assert_eq!(limiter.check(spelling, true, now), Err(RateExceeded::Jid), "{spelling}");
        }
        assert_eq!(limiter.check("b@x/r", true, now), Ok(()));
        assert_eq!(limiter.check("a@x/r", false, now), Ok(()), "presence is counted for itself");
        let later = now + Duration::from_secs(1);
        for _ in 0..5 {
            assert_eq!(limiter.check("a@x", true, later), Ok(()));
        }
        assert_eq!(limiter.check("a@x", true, later), Err(RateExceeded::Jid));
        for request in 0..50 {
            let spelling = ["ssss@x", "sßs@x", "ßß@x"][request % 3];
            assert_eq!(limiter.check(spelling, true, now), Ok(()));
        }
        assert_eq!(
            limiter.check("ssß@x", true, now),
            Err(RateExceeded::Jid),
            "it may be the same account"
        );
    }

    #[test]
    fn new_rate_applies_at_once() {
        let (rates, receiver) = watch::channel(RateLimits { per_jid: 1, per_domain: 0 });
        let (mut limiter, now) = (RequestLimiter::new(receiver), Instant::now());
        let taken = |limiter: &mut RequestLimiter| {
            (0..1000).filter(|_| limiter.check("a@x", true, now).is_ok()).count()
        };
        assert_eq!(taken(&mut limiter), 10);
        rates.send_replace(RateLimits { per_jid: 0, per_domain: 0 });
        assert_eq!(taken(&mut limiter), 1000);
        rates.send_replace(RateLimits { per_jid: 0, per_domain: 2 });
        assert_eq!(taken(&mut limiter), 20);
    }

    #[test]
    fn a_domain_has_a_rate_of_its_own() {
        let (mut limiter, now) = (limiter(0, 1), Instant::now());
        for user in 0..10 {
            assert_eq!(limiter.check(&format!("u{user}@x/r"), true, now), Ok(()));
        }
        assert_eq!(limiter.check("another@x", true, now), Err(RateExceeded::Domain));
        assert_eq!(limiter.check("X", true, now), Err(RateExceeded::Domain));
        assert_eq!(limiter.check("another@y", true, now), Ok(()));
        for user in 0..10 {
            assert_eq!(limiter.check(&format!("u{user}@bücher.example"), true, now), Ok(()));
        }
        assert_eq!(
            limiter.check("u@xn--bcher-kva.example/r", true, now),
            Err(RateExceeded::Domain)
        );
    }

    #[test]
    fn idle_senders_are_evicted() {
        let (mut limiter, mut now) = (limiter(1000, 0), Instant::now());
        for user in 0..50_000 {
            now += Duration::from_millis(1);
            assert_eq!(limiter.check(&format!("u{user}@x"), true, now), Ok(()));
        }
        assert!(limiter.requests.jids.until.len() <= MAX_REMEMBERED + 1);
    }
}
