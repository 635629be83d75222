//! Barriers: addresses, spacing and timeouts. A barrier is a ping whose return proves that the server has all stanzas
//! that were sent before the ping.
//!
//! A server may keep received stanzas in its parser (see [`padding`](crate::xmpp::xml::padding)), or drop stanzas of a
//! component to itself. Therefore spaces are sent each second while a barrier is pending, and after ten seconds the
//! next barrier is sent to another address. If no address returns a barrier, notifications are paused on this
//! connection, because the next connection would only repeat them; requests still get replies. The connection is then
//! renewed after an interval that doubles each time.
//!
//! Each connection sends a barrier soon after it is established, even if nothing is unconfirmed. Thus all addresses are
//! tried on an idle connection before the inbound half of the connection reports a silent server.

use std::time::Duration;

use tokio::time::Instant;

/// Interval between spaces while a barrier is pending.
const SPACES_INTERVAL: Duration = Duration::from_secs(1);
/// Number of spaces that are sent the first time; it doubles each further time.
const FIRST_SPACES: usize = 1024;
/// Maximum number of times that spaces are sent.
const MAX_TIMES: u32 = 7;
/// Timeout for the return of a barrier from one address; shorter if the link's timeouts are short.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay of the first barrier of a connection, because the server may drop stanzas that are sent earlier. The delay is
/// shorter if the link's timeouts are short.
///
/// COMPAT: ejabberd 24.10 and later with mod_privilege drop stanzas that arrive before the server has registered the
/// component's privileges.
const FIRST_AFTER: Duration = Duration::from_secs(5);
/// Maximum duration of a connection on which no barrier returns, unless the link's timeouts are longer.
const MAX_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Minimum number of notifications between two barriers.
const MIN_SPACING: u64 = 50;
/// Maximum number of notifications between two barriers.
const MAX_SPACING: u64 = 2000;
/// Maximum number of notifications between two barriers if notifications are sent by multicast. It is small, because a
/// single late barrier makes multicast fail.
const MAX_MULTICAST_SPACING: u64 = 200;
/// Time between a barrier and its return below which the spacing grows.
const FAST: Duration = Duration::from_secs(1);
/// Minimum time between a barrier and its return at which the spacing shrinks.
const SLOW: Duration = Duration::from_secs(2);

/// Number of notifications between two barriers. The number grows while barriers return quickly. A small number lets a
/// slow server return a barrier in time, for example a server that commits each message to a database.
#[derive(Debug)]
pub(in crate::xmpp) struct Spacing(u64);

impl Default for Spacing {
    fn default() -> Self {
        Self(2 * MIN_SPACING)
    }
}

impl Spacing {
    pub(in crate::xmpp) fn notifications(&self, is_multicast: bool) -> u64 {
        if is_multicast { self.0.min(MAX_MULTICAST_SPACING) } else { self.0 }
    }

    /// Adapts the spacing after the return of a barrier that covers `notifications` notifications. `elapsed` is the
    /// time since the barrier was sent or the previous barrier returned, whichever was later.
    pub(in crate::xmpp) fn adapt(&mut self, notifications: u64, elapsed: Duration) {
        if elapsed >= SLOW {
            self.0 = (self.0 / 2).max(MIN_SPACING);
        } else if elapsed < FAST && notifications >= self.0 / 2 {
            self.0 = (self.0 * 2).min(MAX_SPACING);
        }
    }
}

/// Destination of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xmpp) enum Address {
    /// The component itself, with a resource.
    Own,
    /// The server's multicast service.
    Multicast,
    /// The server's domain.
    Domain,
}

/// Order in which addresses are tried.
const ADDRESSES: [Address; 3] = [Address::Own, Address::Multicast, Address::Domain];

/// Actions that are due while a barrier is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::xmpp) struct Due {
    /// Number of spaces to send, so that the parser of the server passes on the stanzas that it holds.
    pub spaces: usize,
    /// `true` if a barrier has to be sent to another address.
    pub is_retry: bool,
    /// `true` if notifications have to be paused.
    pub is_pause: bool,
}

/// State of the [barriers](self) of the link, across connections.
#[derive(Debug)]
pub(in crate::xmpp) struct Route {
    /// Interval between barriers when nothing is unconfirmed.
    keep_alive: Duration,
    /// Maximum time that a barrier may be pending on a working link.
    timeout: Duration,
    address: Address,
    /// Number of timeouts of addresses since a barrier last returned on this connection.
    retries: u32,
    /// Number of times that spaces were sent since a barrier last returned on this connection.
    spaces: u32,
    /// Start of this connection.
    began: Instant,
    is_paused: bool,
    /// Number of consecutive connections that ended without the return of a barrier.
    unconfirmed: u32,
}

impl Route {
    pub(in crate::xmpp) fn new(ping_after: Duration, ping_deadline: Duration) -> Self {
        Self {
            keep_alive: ping_after,
            timeout: ping_after + ping_deadline,
            address: Address::Own,
            retries: 0,
            spaces: 0,
            began: Instant::now(),
            is_paused: false,
            unconfirmed: 0,
        }
    }

    /// Resets the state for a new connection.
    pub(in crate::xmpp) fn begin(&mut self) {
        self.unconfirmed += u32::from(self.is_paused);
        self.is_paused = false;
        self.begin_tries();
        self.began = Instant::now();
    }

    /// Resets the number of address timeouts and the number of times that spaces were sent. The next barrier begins a
    /// new series of attempts.
    pub(in crate::xmpp) fn begin_tries(&mut self) {
        self.retries = 0;
        self.spaces = 0;
    }

    /// Records that a barrier returned. `address` is the address that returned it, if known. Returns `true` if the link
    /// was [unconfirmed](Self::is_unconfirmed) before.
    pub(in crate::xmpp) fn confirm(&mut self, address: Option<Address>) -> bool {
        let was_unconfirmed = self.is_unconfirmed();
        self.address = address.unwrap_or(self.address);
        self.begin_tries();
        self.is_paused = false;
        self.unconfirmed = 0;
        was_unconfirmed
    }

    /// Returns `true` while notifications are paused on this connection.
    pub(in crate::xmpp) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Returns `true` if notifications are paused on this connection, or if [`was_unconfirmed`](Self::was_unconfirmed)
    /// returns `true`.
    pub(in crate::xmpp) fn is_unconfirmed(&self) -> bool {
        self.is_paused || self.unconfirmed > 0
    }

    /// Returns `true` if an earlier connection ended while notifications were paused, and no barrier has returned since
    /// then.
    pub(in crate::xmpp) fn was_unconfirmed(&self) -> bool {
        self.unconfirmed > 0
    }

    /// Returns the interval between barriers while nothing is unconfirmed. If the next barrier is the first of a
    /// connection (`is_first`), returns its delay after the start of the connection.
    pub(in crate::xmpp) fn interval(&self, is_first: bool) -> Duration {
        if is_first {
            FIRST_AFTER.min(self.timeout / 8).min(self.keep_alive)
        } else {
            self.keep_alive
        }
    }

    /// Returns the address of the next barrier.
    pub(in crate::xmpp) fn address(&self, has_multicast: bool) -> Address {
        match self.address {
            Address::Multicast if !has_multicast => Address::Own,
            address => address,
        }
    }

    /// Selects the next of [`ADDRESSES`] for which `has` returns `true`.
    pub(in crate::xmpp) fn next_address(&mut self, has: impl Fn(Address) -> bool) {
        let place = ADDRESSES.iter().position(|address| *address == self.address).unwrap_or(0);
        let next = ADDRESSES.iter().cycle().skip(place + 1).take(ADDRESSES.len());
        self.address = next.copied().find(|address| has(*address)).unwrap_or(Address::Own);
    }

    /// Returns the actions that are due while a barrier is pending; `since` is the time since which it is pending. A
    /// barrier is sent to another address only if `may_retry` is `true`. `has` returns `true` for an address that can
    /// be used on this connection.
    pub(in crate::xmpp) fn due(
        &mut self,
        since: Instant,
        may_retry: bool,
        has: impl Fn(Address) -> bool,
    ) -> Due {
        let elapsed = since.elapsed();
        let mut due = Due::default();
        if self.spaces < MAX_TIMES && elapsed >= SPACES_INTERVAL * (self.spaces + 1) {
            due.spaces = FIRST_SPACES << self.spaces;
            self.spaces += 1;
        }
        if may_retry && !self.is_paused && elapsed >= self.address_timeout() * (self.retries + 1) {
            let others = ADDRESSES.iter().filter(|address| has(**address)).count() - 1;
            self.retries += 1;
            if self.retries as usize <= others {
                self.next_address(has);
                due.is_retry = true;
            } else {
                due.is_pause = !self.is_unconfirmed();
                self.is_paused = true;
            }
        }
        due
    }

    /// Returns the time of the next action of [`due`](Self::due), if any.
    pub(in crate::xmpp) fn due_at(&self, since: Instant, may_retry: bool) -> Option<Instant> {
        let spaces = (self.spaces < MAX_TIMES).then(|| since + SPACES_INTERVAL * (self.spaces + 1));
        let retry = (may_retry && !self.is_paused)
            .then(|| since + self.address_timeout() * (self.retries + 1));
        spaces.into_iter().chain(retry).min()
    }

    /// Returns the time at which the connection ends if no barrier returns. `since` is the time since which a barrier
    /// is pending, or `None` if none is pending.
    pub(in crate::xmpp) fn ends_at(&self, since: Option<Instant>) -> Option<Instant> {
        let longest = MAX_LIFETIME.max(self.timeout);
        let lifetime = self.timeout.saturating_mul(1 << self.unconfirmed.min(10)).min(longest);
        let since = since.or_else(|| (self.unconfirmed > 0).then_some(self.began));
        since.map(|since| since + lifetime)
    }

    /// Returns the timeout for the return of a barrier from one address.
    pub(in crate::xmpp) fn address_timeout(&self) -> Duration {
        ADDRESS_TIMEOUT.min(self.timeout / 4)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn spacing_follows_the_speed_of_the_server() {
        let mut spacing = Spacing::default();
        let after = |spacing: &mut Spacing, notifications, elapsed| {
            spacing.adapt(notifications, elapsed);
            spacing.notifications(false)
        };
        assert_eq!(after(&mut spacing, 100, SECOND / 10), 200);
        assert_eq!(after(&mut spacing, 99, SECOND / 10), 200, "a single event says nothing");
        assert_eq!(after(&mut spacing, 200, SECOND), 200);
        assert_eq!(
            (0..5).map(|_| after(&mut spacing, 2000, SECOND / 10)).last(),
            Some(MAX_SPACING)
        );
        assert_eq!(spacing.notifications(true), MAX_MULTICAST_SPACING);
        assert_eq!(after(&mut spacing, 0, 2 * SECOND), MAX_SPACING / 2);
        assert_eq!((0..9).map(|_| after(&mut spacing, 50, 3 * SECOND)).last(), Some(MIN_SPACING));
    }

    fn route() -> Route {
        Route::new(30 * SECOND, 15 * SECOND)
    }

    /// Returns the actions that are due in each second after a barrier.
    async fn seconds(route: &mut Route, number: u32, has_multicast: bool) -> Vec<(u32, Due)> {
        let since = Instant::now();
        let mut all = Vec::new();
        for second in 1..=number {
            advance(SECOND).await;
            let due =
                route.due(since, true, |address| has_multicast || address != Address::Multicast);
            if due != Due::default() {
                all.push((second, due));
            }
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn spaces_double_and_addresses_are_tried_in_turn() {
        let mut route = route();
        let due = seconds(&mut route, 60, true).await;
        let spaces: Vec<_> = due.iter().filter(|(_, due)| due.spaces > 0).collect();
        let numbers: Vec<_> = spaces.iter().map(|(second, due)| (*second, due.spaces)).collect();
        let doubling: Vec<_> = (1..=7).map(|second| (second, 512 << second)).collect();
        assert_eq!(numbers, doubling);
        let retries: Vec<_> = due.iter().filter(|(_, due)| due.is_retry).map(|(s, _)| *s).collect();
        let pauses: Vec<_> = due.iter().filter(|(_, due)| due.is_pause).map(|(s, _)| *s).collect();
        assert_eq!((retries, pauses), (vec![10, 20], vec![30]));
        assert!(route.is_paused() && route.is_unconfirmed());
        // Without a multicast service there is one address less.
        let mut route = self::route();
        let due = seconds(&mut route, 60, false).await;
        let retries: Vec<_> = due.iter().filter(|(_, due)| due.is_retry).map(|(s, _)| *s).collect();
        let pauses: Vec<_> = due.iter().filter(|(_, due)| due.is_pause).map(|(s, _)| *s).collect();
        assert_eq!((retries, pauses, route.address), (vec![10], vec![20], Address::Domain));
        // A late barrier counts, and its address is kept.
        assert!(route.confirm(Some(Address::Domain)));
        assert!(!route.is_unconfirmed());
        route.begin();
        assert_eq!(route.address(false), Address::Domain);
    }

    #[test]
    fn all_addresses_are_tried_before_a_quiet_link_counts_as_dead() {
        for (after, deadline) in [(30, 15), (1, 1), (1, 300), (300, 1), (5, 10), (3600, 3600)] {
            let route = Route::new(after * SECOND, deadline * SECOND);
            let tried = route.interval(true) + 3 * route.address_timeout();
            assert!(tried < route.timeout, "{after} and {deadline}: {tried:?}");
            assert_eq!(route.interval(false), after * SECOND);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_without_confirmation_last_twice_as_long_each_up_to_fifteen_minutes() {
        let mut route = route();
        let mut lifetimes = Vec::new();
        for connection in 0..7 {
            let since = Instant::now();
            let paused = seconds(&mut route, 40, false).await;
            let is_first = paused.iter().any(|(_, due)| due.is_pause);
            assert_eq!(is_first, connection == 0, "it is said once");
            lifetimes.push((route.ends_at(Some(since)).unwrap() - since).as_secs());
            route.begin();
            assert!(route.ends_at(None).is_some() && !route.is_paused());
        }
        assert_eq!(lifetimes, [45, 90, 180, 360, 720, 900, 900]);
        assert!(route.confirm(None));
        assert_eq!(route.ends_at(None), None);
        // Short timeouts leave time for all addresses.
        let mut route = Route::new(SECOND, SECOND);
        let since = Instant::now();
        for _ in 0..4 {
            advance(SECOND / 2).await;
            route.due(since, true, |_| true);
        }
        assert!(route.is_paused() && route.ends_at(Some(since)) == Some(Instant::now()));
    }
}
