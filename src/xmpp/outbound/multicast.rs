//! Multicast service of the server (XEP-0033): discovery, use and failures.
//!
//! Each connection queries the server for the service (XEP-0033 §2). Notifications wait a moment for the reply, which
//! also proves that the service has no stanza of an earlier connection. Events for users of the server are sent by
//! multicast. The service handles stanzas in order, but concurrently with direct stanzas. Therefore a recipient gets a
//! direct notification only when no multicast stanza for it is pending. When the service rejects a stanza, all
//! notifications that are not acknowledged are resent directly.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jid::Jid;
use minidom::Element;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::xmpp::{
    stanza::{
        multicast::{Format, offered, services},
        notification::has_recipient_suffix,
        ns,
    },
    xml::writer::ElementWriter,
};

/// Prefix of the ids of queries.
pub(in crate::xmpp) const QUERY_ID_PREFIX: &str = "multicast-";
/// Resource of the addresses of pings and queries.
const RESOURCE: &str = "barrier";
/// Usual prefix of the name of a multicast service: ejabberd's default.
pub(in crate::xmpp) const USUAL_NAME: &str = "multicast.";
/// Time for which notifications wait for replies if no multicast service was in use before. After this time,
/// notifications are sent directly.
const DISCOVERY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time for which notifications wait for replies if a multicast service may have pending stanzas. After this time,
/// notifications are sent directly.
const DISCOVERY_TIMEOUT_WITH_SERVICE: Duration = Duration::from_secs(10);
/// Interval after which an unanswered query is repeated.
///
/// COMPAT: ejabberd 23.01 sends replies over any connection of a component, even over a broken one. ejabberd 24.10 and
/// later with mod_privilege drop stanzas that arrive before the server has registered the component's privileges.
const REPEAT_INTERVAL: Duration = Duration::from_millis(500);
/// Time for which unanswered queries are repeated. A reply that arrives later is still accepted.
const REPEAT_DURATION: Duration = Duration::from_secs(5);
/// Interval between discoveries while no multicast service is in use. The interval doubles after each consecutive
/// failure, up to about 21 hours.
const QUERY_INTERVAL: Duration = Duration::from_secs(600);
/// Maximum number of times that [`QUERY_INTERVAL`] doubles.
const MAX_DOUBLINGS: u32 = 7;
/// Time of use without a failure after which the count of consecutive failures restarts at 0.
const FAILURES_FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// Maximum number of services of the server that are queried.
pub(in crate::xmpp) const MAX_SERVICES: usize = 50;
/// Maximum number of recipients of one stanza; fewer if the service has a lower limit.
pub(in crate::xmpp) const MAX_RECIPIENTS: usize = 200;
/// Maximum number of bytes of the address of a multicast recipient.
const MAX_ADDRESS_BYTES: usize = 160;

/// Setting of the discovery of a multicast service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MulticastConfig {
    /// No discovery.
    None,
    /// Discovery at the domain of a server, and at its services below that domain.
    Of(String),
    /// Discovery at a configured JID.
    At {
        /// JID of the service.
        jid: String,
        /// Domain of the server.
        host: String,
    },
}

/// Route of notifications.
#[derive(Clone, Debug)]
pub(in crate::xmpp) enum MulticastRoute {
    /// Not known yet; notifications wait.
    Unknown,
    /// One stanza for each recipient.
    Direct,
    /// One stanza for many recipients.
    Through(Arc<MulticastService>),
}

/// Multicast service of the server.
#[derive(Debug)]
pub(in crate::xmpp) struct MulticastService {
    /// JID of the service, which is a domain. Messages are sent to it.
    pub jid: String,
    /// Address that replied to the query, with or without a resource. Pings and queries are sent to it.
    pub address: String,
    /// Domain of the server.
    host: String,
    /// Format of the recipients in a stanza.
    pub format: Format,
    /// Maximum number of recipients of one stanza.
    pub max_recipients: usize,
}

/// Route of events to one recipient if there is a multicast service. The route is the same for all events of the
/// recipient, so that no event overtakes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xmpp) enum RecipientRoute {
    /// By multicast.
    Through,
    /// Direct delivery. It is used for recipients of other domains, because the service would query these domains for
    /// multicast support and trust the result. It is used for long addresses, to limit the length of tags. It is also
    /// used for addresses because of which the service would reject the whole stanza.
    Past,
    /// No delivery: the recipient is the multicast service itself, which would treat the event as a message to forward.
    Not,
}

impl MulticastService {
    pub(in crate::xmpp) fn reach(&self, recipient: &Jid) -> RecipientRoute {
        let domain = recipient.domain().as_str();
        let is_at = |host: &str| domain == host || is_below(domain, host);
        // The Prosody module runs on a host with users and handles only messages with recipients. It routes to each
        // recipient by itself, so an invalid address fails alone.
        let (is_service, is_theirs) = match self.format {
            // COMPAT: ejabberd forwards to the multicast service of a subdomain, which no barrier covers.
            Format::Addresses => (
                domain == self.jid && recipient.node().is_none(),
                domain == self.host && self.is_valid(recipient),
            ),
            Format::Lines => (false, is_at(&self.host) || is_at(&self.jid)),
        };
        if is_service {
            RecipientRoute::Not
        } else if is_theirs && recipient.as_str().len() <= MAX_ADDRESS_BYTES {
            RecipientRoute::Through
        } else {
            RecipientRoute::Past
        }
    }

    /// Returns `true` if the address of a recipient at the server's domain is certainly valid for a server that applies
    /// stringprep. This is the case if localpart and resource are ASCII.
    ///
    /// COMPAT: ejabberd supports the characters of Unicode 3.2 only, and rejects a stanza with all its recipients if
    /// one address is invalid.
    fn is_valid(&self, recipient: &Jid) -> bool {
        let parts = [recipient.node(), recipient.resource()];
        parts.iter().flatten().all(|part| part.as_str().is_ascii())
    }
}

/// Discovery of the server's multicast service, and failures of this service.
#[derive(Debug)]
pub(in crate::xmpp) struct MulticastDiscovery {
    config: MulticastConfig,
    service: String,
    state: Mutex<MulticastTable>,
}

#[derive(Debug)]
struct MulticastTable {
    route: MulticastRoute,
    /// Multicast service of the last connection. It is the first candidate on the next connection.
    last_service: Option<Arc<MulticastService>>,
    /// Name of the connection, which is part of the ids of queries.
    connection: String,
    /// Number of the series of queries, which is part of their ids.
    series: u64,
    /// Addresses whose replies are pending, with the kind of query.
    pending: Vec<(String, DiscoQuery)>,
    queried_at: Instant,
    repeated_at: Instant,
    timeout: Duration,
    /// `true` after the usual name of a service was queried, because the server's domain does not reply.
    has_queried_usual_name: bool,
    /// Total number of failures.
    failures: u64,
    /// Number of consecutive failures. The count restarts at 0 after [`FAILURES_FORGOTTEN_AFTER`] of use without a
    /// failure.
    failures_in_a_row: u32,
    /// Start of the use of the service.
    used_since: Instant,
    /// `true` after a failure. The next reply then proves only that the service has no pending stanzas; the service is
    /// not used again.
    is_failing: bool,
    /// `true` if the server has read the query that was sent after the last multicast failure.
    is_read: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiscoQuery {
    Info,
    Items,
}

impl MulticastDiscovery {
    /// Returns the discovery of a multicast service. `service` is the JID of the component. No query is sent before the
    /// first connection.
    #[must_use]
    pub(in crate::xmpp) fn new(config: MulticastConfig, service: String) -> Self {
        let state = MulticastTable {
            route: MulticastRoute::Direct,
            last_service: None,
            connection: String::new(),
            series: 0,
            pending: Vec::new(),
            queried_at: Instant::now(),
            repeated_at: Instant::now(),
            timeout: DISCOVERY_TIMEOUT,
            has_queried_usual_name: false,
            failures: 0,
            failures_in_a_row: 0,
            used_since: Instant::now(),
            is_failing: false,
            is_read: false,
        };
        Self { config, service, state: Mutex::new(state) }
    }

    /// Starts discovery on the new connection with the name `connection`, and returns the queries to send. After an
    /// earlier multicast failure, queries are sent only if `may_fail` is `true`, because another failure would repeat
    /// notifications.
    pub(in crate::xmpp) fn start_discovery(
        &self,
        connection: String,
        may_fail: bool,
    ) -> Option<String> {
        let mut state = self.state();
        state.connection = connection;
        if state.failures > 0 && !may_fail {
            state.pending.clear();
            state.queried_at = Instant::now();
            state.is_failing = false;
            state.route = MulticastRoute::Direct;
            return None;
        }
        let query = self.discover(&mut state)?;
        state.wait();
        Some(query)
    }

    /// Returns the current route of notifications, and the queries to send.
    pub(in crate::xmpp) fn route(&self) -> (MulticastRoute, Option<String>) {
        let mut state = self.state();
        let since = state.queried_at.elapsed();
        if state.is_unknown() && since >= state.timeout && !state.is_unread() {
            state.route = MulticastRoute::Direct;
        }
        let query = match state.route {
            _ if state.is_querying() && state.repeated_at.elapsed() >= REPEAT_INTERVAL => {
                state.repeated_at = Instant::now();
                self.query_usual_name(&mut state);
                let queries =
                    state.pending.iter().map(|(jid, about)| self.query(&state, jid, *about));
                Some(queries.collect())
            }
            MulticastRoute::Direct
                if since >= QUERY_INTERVAL * (1 << state.failures_in_a_row.min(MAX_DOUBLINGS)) =>
            {
                self.discover(&mut state)
            }
            _ => None,
        };
        (state.route.clone(), query)
    }

    /// Returns the time at which [`route`](Self::route) has to be called next, if replies are pending.
    pub(in crate::xmpp) fn waits_until(&self) -> Option<Instant> {
        let state = self.state();
        let end = state.queried_at + state.timeout;
        let repeated = state.is_querying().then(|| state.repeated_at + REPEAT_INTERVAL);
        match state.route {
            MulticastRoute::Unknown if !state.is_unread() => {
                Some(repeated.map_or(end, |repeated| repeated.min(end)))
            }
            _ => repeated,
        }
    }

    /// Returns `true` after a multicast failure until the server is known to have read the query that followed the
    /// failure.
    pub(in crate::xmpp) fn is_unread(&self) -> bool {
        self.state().is_unread()
    }

    /// Records that the server has read the query that was sent after a multicast failure. The timeout of the reply
    /// begins.
    pub(in crate::xmpp) fn note_read(&self) {
        let mut state = self.state();
        if state.is_unread() {
            state.is_read = true;
            state.queried_at = Instant::now();
        }
    }

    /// Returns `true` if `from` is an address of the multicast service through which notifications are sent.
    pub(in crate::xmpp) fn goes_through(&self, from: &str) -> bool {
        matches!(&self.state().route, MulticastRoute::Through(service) if service.jid == from || service.address == from)
    }

    /// Returns `true` if an error is from the multicast service itself. With the Prosody module, the bounce of a
    /// notification to one subscriber may come from the same address. The id of such a bounce has a recipient suffix.
    pub(in crate::xmpp) fn has_refused(&self, from: &str, id: &str) -> bool {
        self.goes_through(from)
            && match &self.state().route {
                MulticastRoute::Through(service) => {
                    service.format == Format::Addresses || !has_recipient_suffix(id)
                }
                _ => false,
            }
    }

    /// Returns the total number of failures.
    pub(in crate::xmpp) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Records that the service rejected a stanza or does not reply. Returns a query; the reply to this query proves
    /// that the service has no pending stanzas. The cause may be a stalled link, so the timeout of the reply begins
    /// when the server has [read](Self::note_read) the query.
    pub(in crate::xmpp) fn record_failure(&self) -> Option<String> {
        let mut state = self.state();
        let MulticastRoute::Through(service) = state.route.clone() else { return None };
        warn!(
            event = "multicast_failed",
            jid = service.jid,
            "multicast failed; sending notifications to each recipient"
        );
        state.wait();
        state.failures += 1;
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        (state.is_failing, state.is_read) = (true, false);
        state.last_service = None;
        Some(self.begin_series(&mut state, &service.address))
    }

    /// Handles a reply to a query. Returns the next queries to send, or `None` if the reply was not expected.
    pub(in crate::xmpp) fn answered(&self, from: &str, stanza: &Element) -> Option<Vec<String>> {
        let id = stanza.attr("id")?;
        let mut state = self.state();
        let is_pending =
            |(jid, about): &(String, DiscoQuery)| jid == from && state.id(*about) == id;
        let index = state.pending.iter().position(is_pending)?;
        let (_, about) = state.pending.swap_remove(index);
        let result = stanza.children().next().filter(|_| stanza.attr("type") == Some("result"));
        let max_recipients =
            result.and_then(offered).filter(|(_, max_recipients)| *max_recipients > 1);
        let mut queries = Vec::new();
        match (about, &self.config, max_recipients) {
            (DiscoQuery::Info, ..) if state.is_failing => {}
            (DiscoQuery::Info, _, Some((format, max_recipients))) => {
                let (MulticastConfig::Of(host) | MulticastConfig::At { host, .. }) = &self.config
                else {
                    return None;
                };
                let max_recipients = max_recipients.min(MAX_RECIPIENTS);
                let jid = without_resource(from).unwrap_or(from).to_owned();
                info!(
                    event = "multicast_enabled",
                    jid,
                    max_recipients,
                    ?format,
                    "sending notifications by multicast"
                );
                let (address, host) = (from.to_owned(), host.clone());
                let service =
                    Arc::new(MulticastService { jid, address, host, format, max_recipients });
                state.pending.clear();
                state.last_service = Some(Arc::clone(&service));
                state.route = MulticastRoute::Through(service);
                state.used_since = Instant::now();
            }
            (DiscoQuery::Info, MulticastConfig::Of(host), None) if host == from => {
                queries.push(self.ask(&mut state, from, DiscoQuery::Items));
            }
            (DiscoQuery::Items, MulticastConfig::Of(host), _) => {
                let is_candidate = |jid: &&str| is_below(jid, host) && *jid != self.service;
                let services = result.into_iter().flat_map(services).filter(is_candidate);
                for jid in services.take(MAX_SERVICES) {
                    queries.push(self.ask(&mut state, &with_resource(jid), DiscoQuery::Info));
                }
            }
            // Some services support queries to their bare address only.
            (DiscoQuery::Info, _, None) if result.is_none() => {
                let bare = without_resource(from);
                queries.extend(bare.map(|bare| self.ask(&mut state, bare, DiscoQuery::Info)));
            }
            _ => {}
        }
        if state.pending.is_empty() && state.is_unknown() {
            state.route = MulticastRoute::Direct;
            state.is_failing = false;
        }
        Some(queries)
    }

    fn discover(&self, state: &mut MulticastTable) -> Option<String> {
        let first = match &self.config {
            MulticastConfig::None => return None,
            MulticastConfig::Of(host) => host.clone(),
            MulticastConfig::At { jid, host } if jid == host => jid.clone(),
            MulticastConfig::At { jid, .. } => with_resource(jid),
        };
        state.is_failing = false;
        let mut queries = self.begin_series(state, &first);
        if let Some(last_service) =
            state.last_service.take().filter(|last_service| last_service.address != first)
        {
            queries += &self.ask(state, &last_service.address, DiscoQuery::Info);
        }
        Some(queries)
    }

    /// Adds the usual name of a service to the queries if the server's domain does not reply.
    ///
    /// COMPAT: ejabberd 24.12 with mod_privilege drops all queries of a component to its domain.
    fn query_usual_name(&self, state: &mut MulticastTable) {
        let MulticastConfig::Of(host) = &self.config else { return };
        let is_silent = state.pending.iter().any(|(jid, _)| jid == host);
        if is_silent && !state.is_failing && !state.has_queried_usual_name {
            state.has_queried_usual_name = true;
            let usual = with_resource(&format!("{USUAL_NAME}{host}"));
            if usual != with_resource(&self.service)
                && state.pending.iter().all(|(jid, _)| *jid != usual)
            {
                state.pending.push((usual, DiscoQuery::Info));
            }
        }
    }

    fn begin_series(&self, state: &mut MulticastTable, first: &str) -> String {
        state.pending.clear();
        state.has_queried_usual_name = false;
        state.series += 1;
        state.queried_at = Instant::now();
        state.repeated_at = state.queried_at;
        self.ask(state, first, DiscoQuery::Info)
    }

    fn ask(&self, state: &mut MulticastTable, jid: &str, about: DiscoQuery) -> String {
        state.pending.push((jid.to_owned(), about));
        self.query(state, jid, about)
    }

    fn query(&self, state: &MulticastTable, jid: &str, about: DiscoQuery) -> String {
        let namespace = match about {
            DiscoQuery::Info => ns::DISCO_INFO,
            DiscoQuery::Items => ns::DISCO_ITEMS,
        };
        ElementWriter::new("iq")
            .attr("type", "get")
            .attr("from", &self.service)
            .attr("to", jid)
            .attr("id", &state.id(about))
            .child(ElementWriter::ns("query", namespace))
            .to_string()
    }

    fn state(&self) -> MutexGuard<'_, MulticastTable> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiscoQuery {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Items => "items",
        }
    }
}

impl MulticastTable {
    fn id(&self, about: DiscoQuery) -> String {
        format!("{QUERY_ID_PREFIX}{}-{}-{}", self.connection, self.series, about.name())
    }

    /// Returns `true` if replies are pending and queries are still repeated.
    fn is_querying(&self) -> bool {
        let duration =
            if self.is_unknown() { REPEAT_DURATION.max(self.timeout) } else { REPEAT_DURATION };
        !self.pending.is_empty() && self.queried_at.elapsed() < duration
    }

    fn is_unknown(&self) -> bool {
        matches!(self.route, MulticastRoute::Unknown)
    }

    fn is_unread(&self) -> bool {
        self.is_unknown() && self.is_failing && !self.is_read
    }

    /// Pauses notifications until there is a reply, or the timeout has passed.
    fn wait(&mut self) {
        match self.route {
            MulticastRoute::Through(_) => {
                self.timeout = DISCOVERY_TIMEOUT_WITH_SERVICE;
                if self.used_since.elapsed() >= FAILURES_FORGOTTEN_AFTER {
                    self.failures_in_a_row = 0;
                }
            }
            MulticastRoute::Direct => self.timeout = DISCOVERY_TIMEOUT,
            MulticastRoute::Unknown => {}
        }
        self.route = MulticastRoute::Unknown;
    }
}

/// Returns the address of pings and queries to a domain.
///
/// COMPAT: ejabberd 24.10 and later with mod_privilege drop the queries of a component to a bare domain that has
/// granted the component no privileges. Only the server's own domain grants privileges.
pub(in crate::xmpp) fn with_resource(domain: &str) -> String {
    format!("{domain}/{RESOURCE}")
}

fn without_resource(address: &str) -> Option<&str> {
    address.strip_suffix(RESOURCE)?.strip_suffix('/')
}

pub(in crate::xmpp) fn is_below(domain: &str, host: &str) -> bool {
    domain.strip_suffix(host).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "bücher.example";
    const SERVICE: &str = "multicast.bücher.example";
    const MINUTE: Duration = Duration::from_secs(60);

    fn multicast_service(format: Format) -> MulticastService {
        MulticastService {
            jid: SERVICE.into(),
            address: with_resource(SERVICE),
            host: HOST.into(),
            format,
            max_recipients: 20,
        }
    }

    #[test]
    fn only_addresses_that_stringprep_accepts_are_sent_to_a_xep_0033_service() {
        for (jid, expected_route) in [
            ("u@bücher.example", RecipientRoute::Through),
            ("u@bücher.example/r", RecipientRoute::Through),
            ("u@bücher.example/r r", RecipientRoute::Through),
            ("u@chat.bücher.example", RecipientRoute::Past),
            ("u@bücher.example/🎉", RecipientRoute::Past),
            ("ꙋ@bücher.example", RecipientRoute::Past),
            ("u@ꙋ.bücher.example", RecipientRoute::Past),
            ("u@far.example", RecipientRoute::Past),
            (SERVICE, RecipientRoute::Not),
        ] {
            assert_eq!(
                multicast_service(Format::Addresses).reach(&Jid::new(jid).unwrap()),
                expected_route,
                "{jid}"
            );
        }
        let invalid = Jid::new("u@bücher.example/🎉").unwrap();
        assert_eq!(multicast_service(Format::Lines).reach(&invalid), RecipientRoute::Through);
    }

    /// Answers the pending query. The reply announces the multicast feature.
    fn reply_to(multicast: &MulticastDiscovery, query: &str) {
        let element: Element =
            query.replacen("<iq", &format!("<iq xmlns='{}'", ns::COMPONENT), 1).parse().unwrap();
        let (jid, id) = (element.attr("to").unwrap(), element.attr("id").unwrap());
        let feature = format!("<feature var='{}'/>", ns::ADDRESS);
        let query = format!("<query xmlns='{}'>{feature}</query>", ns::DISCO_INFO);
        let answer = format!("<iq xmlns='{}' type='result' id='{id}'>{query}</iq>", ns::COMPONENT);
        assert!(multicast.answered(jid, &answer.parse().unwrap()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn failure_count_is_reset_after_an_hour_without_failures() {
        let at = MulticastConfig::At { jid: SERVICE.into(), host: HOST.into() };
        let multicast = MulticastDiscovery::new(at, "pubsub.bücher.example".into());
        reply_to(&multicast, &multicast.start_discovery("1".into(), true).unwrap());
        // Minutes of use before a failure, and minutes until the service is queried again.
        for (used, unused) in [(1, 20), (1, 40), (59, 80), (60, 20), (1, 40)] {
            tokio::time::advance(used * MINUTE).await;
            reply_to(&multicast, &multicast.record_failure().unwrap());
            tokio::time::advance((unused - 1) * MINUTE).await;
            assert_eq!(multicast.route().1, None, "after {used} minutes of use");
            tokio::time::advance(MINUTE).await;
            let query = multicast.route().1;
            reply_to(&multicast, &query.expect("the service is asked again"));
            assert!(matches!(multicast.route().0, MulticastRoute::Through(_)));
        }
        assert_eq!(multicast.failures(), 5);
    }
}
