//! Multicast service of the server (XEP-0033): discovery, use and failures.
//!
//! Each connection queries the server for the service (XEP-0033 §2). Notifications wait a moment for the reply, which
//! also proves that the service has no stanza of an earlier connection. Events for users of the server are sent by
//! multicast. The service handles stanzas in order, but concurrently with direct stanzas; so a recipient gets a direct
//! notification only when no multicast stanza for it is pending. When the service rejects a stanza, all notifications
//! that are not acknowledged are resent directly.

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
pub(in crate::xmpp) const QUESTION: &str = "multicast-";
/// Resource of the addresses of pings and queries.
const RESOURCE: &str = "barrier";
/// Usual prefix of the name of a multicast service: ejabberd's default.
pub(in crate::xmpp) const USUAL_NAME: &str = "multicast.";
/// Time that notifications wait for replies before they are sent directly: usually, and where a service may have
/// pending stanzas.
const DISCOVERY_TIMEOUT: Duration = Duration::from_millis(1500);
const DISCOVERY_TIMEOUT_WITH_SERVICE: Duration = Duration::from_secs(10);
/// Interval after which an unanswered query is repeated, and the time for which queries are repeated. A late reply
/// counts.
///
/// COMPAT: ejabberd 23.01 sends replies over any connection of a component, even over a broken one; 24.10 and later
/// with mod_privilege drop stanzas that arrive before the component's grant is entered.
const REPEATED_AFTER: Duration = Duration::from_millis(500);
const REPEATED_FOR: Duration = Duration::from_secs(5);
/// Interval until the service is queried again; doubled after each consecutive failure, up to about 21 hours.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(600);
const MAX_DOUBLINGS: u32 = 7;
/// Time of use without a failure after which failures are no longer consecutive.
const ROW_ENDS_AFTER: Duration = Duration::from_secs(3600);
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
    /// Not known yet.
    Unknown,
    /// One stanza for each recipient.
    Direct,
    /// One stanza for many recipients.
    Through(Arc<MulticastService>),
}

/// Multicast service of the server.
#[derive(Debug)]
pub(in crate::xmpp) struct MulticastService {
    /// JID of the service, a domain; the address of messages.
    pub jid: String,
    /// Address that replied; the address of pings and queries.
    pub address: String,
    /// Domain of the server.
    host: String,
    /// Format of the recipients in a stanza.
    pub format: Format,
    /// Maximum number of recipients of one stanza.
    pub max_recipients: usize,
}

/// Route of events to one recipient where there is a multicast service. The route is the same for all events of the
/// recipient, so that no event overtakes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::xmpp) enum RecipientRoute {
    /// By multicast.
    Through,
    /// Direct. For recipients of other domains, which the service would query for multicast support, trusting the
    /// result; for long addresses, to bound the length of tags; and for addresses that make the service reject the
    /// whole stanza.
    Past,
    /// No delivery: the recipient is the service itself, which would forward the event.
    Not,
}

impl MulticastService {
    pub(in crate::xmpp) fn reach(&self, recipient: &Jid) -> RecipientRoute {
        let domain = recipient.domain().as_str();
        let is_at = |host: &str| domain == host || is_below(domain, host);
        // The Prosody module runs on a host with users and handles only messages with recipients. It routes to each
        // recipient by itself, so an invalid address fails alone.
        let (is_service, is_theirs) = match self.format {
            // COMPAT: ejabberd forwards to the multicast service of a domain below, which no barrier covers.
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

    /// Returns `true` if a server that prepares addresses by stringprep accepts a recipient at its host: the address is
    /// ASCII, apart from the host's own name.
    ///
    /// COMPAT: ejabberd supports the characters of Unicode 3.2 only, and rejects a stanza with all its recipients if
    /// one address is invalid.
    fn is_valid(&self, recipient: &Jid) -> bool {
        let parts = [recipient.node(), recipient.resource()];
        parts.iter().flatten().all(|part| part.as_str().is_ascii())
    }
}

/// Discovery and failures of the server's multicast service.
#[derive(Debug)]
pub struct MulticastDiscovery {
    offer: MulticastConfig,
    service: String,
    state: Mutex<MulticastTable>,
}

#[derive(Debug)]
struct MulticastTable {
    way: MulticastRoute,
    /// Service of the last connection; the first candidate on the next one.
    known: Option<Arc<MulticastService>>,
    /// Connection and number of the series of queries; both are part of the ids of queries.
    connection: String,
    asking: u64,
    /// Addresses whose replies are pending, with the kind of query.
    asked: Vec<(String, DiscoQuery)>,
    asked_at: Instant,
    repeated_at: Instant,
    patience: Duration,
    /// `true` after the usual name of a service was queried, because the server's domain does not reply.
    has_guessed: bool,
    /// Number of failures. After a failure, the next reply only proves that the service has no pending stanzas.
    failures: u64,
    /// Number of failures since the service was last used for [`ROW_ENDS_AFTER`] without one.
    failures_in_a_row: u32,
    /// Start of the use of the service.
    used_since: Instant,
    is_failing: bool,
    /// `true` if the server has read the query that follows a failure.
    is_read: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiscoQuery {
    Info,
    Items,
}

impl MulticastDiscovery {
    /// Returns a discovery for the component with the JID `service`. It sends no query before the first connection.
    #[must_use]
    pub fn new(offer: MulticastConfig, service: String) -> Self {
        let state = MulticastTable {
            way: MulticastRoute::Direct,
            known: None,
            connection: String::new(),
            asking: 0,
            asked: Vec::new(),
            asked_at: Instant::now(),
            repeated_at: Instant::now(),
            patience: DISCOVERY_TIMEOUT,
            has_guessed: false,
            failures: 0,
            failures_in_a_row: 0,
            used_since: Instant::now(),
            is_failing: false,
            is_read: false,
        };
        Self { offer, service, state: Mutex::new(state) }
    }

    /// Starts discovery on a new connection of this name, and returns the queries to send. A service that failed before
    /// is queried only if `may_fail` is set; otherwise its stanzas would be repeated without need.
    pub(in crate::xmpp) fn start_discovery(
        &self,
        connection: String,
        may_fail: bool,
    ) -> Option<String> {
        let mut state = self.state();
        state.connection = connection;
        if state.failures > 0 && !may_fail {
            state.asked.clear();
            state.asked_at = Instant::now();
            state.is_failing = false;
            state.way = MulticastRoute::Direct;
            return None;
        }
        let question = self.look(&mut state)?;
        state.wait();
        Some(question)
    }

    /// Returns the current route of notifications, and the queries to send.
    pub(in crate::xmpp) fn route(&self) -> (MulticastRoute, Option<String>) {
        let mut state = self.state();
        let since = state.asked_at.elapsed();
        if state.is_unknown() && since >= state.patience && !state.is_unread() {
            state.way = MulticastRoute::Direct;
        }
        let question = match state.way {
            _ if state.is_asking() && state.repeated_at.elapsed() >= REPEATED_AFTER => {
                state.repeated_at = Instant::now();
                self.guess(&mut state);
                let questions =
                    state.asked.iter().map(|(jid, about)| self.question(&state, jid, *about));
                Some(questions.collect())
            }
            MulticastRoute::Direct
                if since
                    >= ASKED_AGAIN_AFTER * (1 << state.failures_in_a_row.min(MAX_DOUBLINGS)) =>
            {
                self.look(&mut state)
            }
            _ => None,
        };
        (state.way.clone(), question)
    }

    /// Returns the time of the next call of [`route`](Self::route), if replies are pending.
    pub(in crate::xmpp) fn waits_until(&self) -> Option<Instant> {
        let state = self.state();
        let end = state.asked_at + state.patience;
        let repeated = state.is_asking().then(|| state.repeated_at + REPEATED_AFTER);
        match state.way {
            MulticastRoute::Unknown if !state.is_unread() => {
                Some(repeated.map_or(end, |repeated| repeated.min(end)))
            }
            _ => repeated,
        }
    }

    /// Returns `true` if the server may not have read the query that follows a failure.
    pub(in crate::xmpp) fn is_unread(&self) -> bool {
        self.state().is_unread()
    }

    /// Records that the server has read the query that follows a failure. The timeout for the answer begins.
    pub(in crate::xmpp) fn note_read(&self) {
        let mut state = self.state();
        if state.is_unread() {
            state.is_read = true;
            state.asked_at = Instant::now();
        }
    }

    /// Returns `true` if notifications go through the service with this address.
    pub(in crate::xmpp) fn goes_through(&self, from: &str) -> bool {
        matches!(&self.state().way, MulticastRoute::Through(post) if post.jid == from || post.address == from)
    }

    /// Returns `true` if an error is from the multicast service itself. The host of the Prosody module may also bounce
    /// a notification as a subscriber; the id of that message has a recipient suffix.
    pub(in crate::xmpp) fn has_refused(&self, from: &str, id: &str) -> bool {
        self.goes_through(from)
            && match &self.state().way {
                MulticastRoute::Through(post) => {
                    post.format == Format::Addresses || !has_recipient_suffix(id)
                }
                _ => false,
            }
    }

    /// Returns the number of failures.
    pub(in crate::xmpp) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Records that the service rejected a stanza or does not reply. Returns a query whose reply proves that the
    /// service has no pending stanzas. The cause may be a stalled link, so the timeout of the reply begins when the
    /// server has [read](Self::note_read) the query.
    pub(in crate::xmpp) fn record_failure(&self) -> Option<String> {
        let mut state = self.state();
        let MulticastRoute::Through(post) = state.way.clone() else { return None };
        warn!(
            event = "multicast_failed",
            jid = post.jid,
            "multicast failed; sending notifications to each recipient"
        );
        state.wait();
        state.failures += 1;
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        (state.is_failing, state.is_read) = (true, false);
        state.known = None;
        Some(self.begin_asking(&mut state, &post.address))
    }

    /// Handles a reply to a query. Returns the next queries to send, or `None` if the reply was not expected.
    pub(in crate::xmpp) fn answered(&self, from: &str, stanza: &Element) -> Option<Vec<String>> {
        let id = stanza.attr("id")?;
        let mut state = self.state();
        let is_asked = |(jid, about): &(String, DiscoQuery)| jid == from && state.id(*about) == id;
        let place = state.asked.iter().position(is_asked)?;
        let (_, about) = state.asked.swap_remove(place);
        let result = stanza.children().next().filter(|_| stanza.attr("type") == Some("result"));
        let taken = result.and_then(offered).filter(|(_, taken)| *taken > 1);
        let mut questions = Vec::new();
        match (about, &self.offer, taken) {
            (DiscoQuery::Info, ..) if state.is_failing => {}
            (DiscoQuery::Info, _, Some((format, taken))) => {
                let (MulticastConfig::Of(host) | MulticastConfig::At { host, .. }) = &self.offer
                else {
                    return None;
                };
                let max_recipients = taken.min(MAX_RECIPIENTS);
                let jid = without_resource(from).unwrap_or(from).to_owned();
                info!(
                    event = "multicast_enabled",
                    jid,
                    max_recipients,
                    ?format,
                    "sending notifications by multicast"
                );
                let (address, host) = (from.to_owned(), host.clone());
                let post =
                    Arc::new(MulticastService { jid, address, host, format, max_recipients });
                state.asked.clear();
                state.known = Some(Arc::clone(&post));
                state.way = MulticastRoute::Through(post);
                state.used_since = Instant::now();
            }
            (DiscoQuery::Info, MulticastConfig::Of(host), None) if host == from => {
                questions.push(self.ask(&mut state, from, DiscoQuery::Items));
            }
            (DiscoQuery::Items, MulticastConfig::Of(host), _) => {
                let theirs = |jid: &&str| is_below(jid, host) && *jid != self.service;
                let services = result.into_iter().flat_map(services).filter(theirs);
                for jid in services.take(MAX_SERVICES) {
                    questions.push(self.ask(&mut state, &with_resource(jid), DiscoQuery::Info));
                }
            }
            // Some services support queries to their bare address only.
            (DiscoQuery::Info, _, None) if result.is_none() => {
                let bare = without_resource(from);
                questions.extend(bare.map(|bare| self.ask(&mut state, bare, DiscoQuery::Info)));
            }
            _ => {}
        }
        if state.asked.is_empty() && state.is_unknown() {
            state.way = MulticastRoute::Direct;
            state.is_failing = false;
        }
        Some(questions)
    }

    fn look(&self, state: &mut MulticastTable) -> Option<String> {
        let first = match &self.offer {
            MulticastConfig::None => return None,
            MulticastConfig::Of(host) => host.clone(),
            MulticastConfig::At { jid, host } if jid == host => jid.clone(),
            MulticastConfig::At { jid, .. } => with_resource(jid),
        };
        state.is_failing = false;
        let mut questions = self.begin_asking(state, &first);
        if let Some(known) = state.known.take().filter(|known| known.address != first) {
            questions += &self.ask(state, &known.address, DiscoQuery::Info);
        }
        Some(questions)
    }

    /// Adds the usual name of a service to the queries if the server's domain does not reply.
    ///
    /// COMPAT: ejabberd 24.12 with mod_privilege drops all queries of a component to its domain.
    fn guess(&self, state: &mut MulticastTable) {
        let MulticastConfig::Of(host) = &self.offer else { return };
        let is_silent = state.asked.iter().any(|(jid, _)| jid == host);
        if is_silent && !state.is_failing && !state.has_guessed {
            state.has_guessed = true;
            let guessed = with_resource(&format!("{USUAL_NAME}{host}"));
            if guessed != with_resource(&self.service)
                && state.asked.iter().all(|(jid, _)| *jid != guessed)
            {
                state.asked.push((guessed, DiscoQuery::Info));
            }
        }
    }

    fn begin_asking(&self, state: &mut MulticastTable, first: &str) -> String {
        state.asked.clear();
        state.has_guessed = false;
        state.asking += 1;
        state.asked_at = Instant::now();
        state.repeated_at = state.asked_at;
        self.ask(state, first, DiscoQuery::Info)
    }

    fn ask(&self, state: &mut MulticastTable, jid: &str, about: DiscoQuery) -> String {
        state.asked.push((jid.to_owned(), about));
        self.question(state, jid, about)
    }

    fn question(&self, state: &MulticastTable, jid: &str, about: DiscoQuery) -> String {
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
        format!("{QUESTION}{}-{}-{}", self.connection, self.asking, about.name())
    }

    /// Returns `true` if replies are pending and queries are still repeated.
    fn is_asking(&self) -> bool {
        let lasts = if self.is_unknown() { REPEATED_FOR.max(self.patience) } else { REPEATED_FOR };
        !self.asked.is_empty() && self.asked_at.elapsed() < lasts
    }

    fn is_unknown(&self) -> bool {
        matches!(self.way, MulticastRoute::Unknown)
    }

    fn is_unread(&self) -> bool {
        self.is_unknown() && self.is_failing && !self.is_read
    }

    /// Pauses notifications until there is a reply, or the timeout has passed.
    fn wait(&mut self) {
        match self.way {
            MulticastRoute::Through(_) => {
                self.patience = DISCOVERY_TIMEOUT_WITH_SERVICE;
                if self.used_since.elapsed() >= ROW_ENDS_AFTER {
                    self.failures_in_a_row = 0;
                }
            }
            MulticastRoute::Direct => self.patience = DISCOVERY_TIMEOUT,
            MulticastRoute::Unknown => {}
        }
        self.way = MulticastRoute::Unknown;
    }
}

/// Returns the address of pings and queries to a domain.
///
/// COMPAT: ejabberd 24.10 and later with mod_privilege drop queries of a component to a bare domain without a grant for
/// it, which is each domain but the server's own.
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
    const POST: &str = "multicast.bücher.example";
    const MINUTE: Duration = Duration::from_secs(60);

    fn post(format: Format) -> MulticastService {
        MulticastService {
            jid: POST.into(),
            address: with_resource(POST),
            host: HOST.into(),
            format,
            max_recipients: 20,
        }
    }

    #[test]
    fn only_addresses_that_stringprep_accepts_are_sent_to_a_xep_0033_service() {
        for (jid, reach) in [
            ("u@bücher.example", RecipientRoute::Through),
            ("u@bücher.example/r", RecipientRoute::Through),
            ("u@bücher.example/r r", RecipientRoute::Through),
            ("u@chat.bücher.example", RecipientRoute::Past),
            ("u@bücher.example/🎉", RecipientRoute::Past),
            ("ꙋ@bücher.example", RecipientRoute::Past),
            ("u@ꙋ.bücher.example", RecipientRoute::Past),
            ("u@far.example", RecipientRoute::Past),
            (POST, RecipientRoute::Not),
        ] {
            assert_eq!(post(Format::Addresses).reach(&Jid::new(jid).unwrap()), reach, "{jid}");
        }
        let invalid = Jid::new("u@bücher.example/🎉").unwrap();
        assert_eq!(post(Format::Lines).reach(&invalid), RecipientRoute::Through);
    }

    /// Replies to the pending query with the multicast feature.
    fn offer(multicast: &MulticastDiscovery, question: &str) {
        let asked: Element =
            question.replacen("<iq", &format!("<iq xmlns='{}'", ns::COMPONENT), 1).parse().unwrap();
        let (jid, id) = (asked.attr("to").unwrap(), asked.attr("id").unwrap());
        let feature = format!("<feature var='{}'/>", ns::ADDRESS);
        let query = format!("<query xmlns='{}'>{feature}</query>", ns::DISCO_INFO);
        let answer = format!("<iq xmlns='{}' type='result' id='{id}'>{query}</iq>", ns::COMPONENT);
        assert!(multicast.answered(jid, &answer.parse().unwrap()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn failure_count_is_reset_after_an_hour_without_failures() {
        let at = MulticastConfig::At { jid: POST.into(), host: HOST.into() };
        let multicast = MulticastDiscovery::new(at, "pubsub.bücher.example".into());
        offer(&multicast, &multicast.start_discovery("1".into(), true).unwrap());
        // Minutes of use before a failure, and minutes until the service is queried again.
        for (used, unused) in [(1, 20), (1, 40), (59, 80), (60, 20), (1, 40)] {
            tokio::time::advance(used * MINUTE).await;
            offer(&multicast, &multicast.record_failure().unwrap());
            tokio::time::advance((unused - 1) * MINUTE).await;
            assert_eq!(multicast.route().1, None, "after {used} minutes of use");
            tokio::time::advance(MINUTE).await;
            let question = multicast.route().1;
            offer(&multicast, &question.expect("the service is asked again"));
            assert!(matches!(multicast.route().0, MulticastRoute::Through(_)));
        }
        assert_eq!(multicast.failures(), 5);
    }
}
