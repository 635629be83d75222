//! `gjallar doctor`: tests whether the server meets the requirements of the service. The tests use a connection of
//! their own, or the connection of the running service.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use minidom::Element;
use tokio::{
    io::AsyncWriteExt,
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::xmpp::{
    stanza::{
        envelope::{Envelope, StanzaError},
        multicast::{offered, services},
        ns,
    },
    xml::writer::ElementWriter,
};
use gjallar_pubsub::IdGenerator;

use super::{
    connect::{WriteHalf, connect},
    handlers::privileged_entity::grants_rosters,
    handshake::handshake,
    outbound::{
        multicast::{
            MAX_RECIPIENTS, MAX_SERVICES, MulticastConfig, USUAL_NAME, is_below, with_resource,
        },
        reply_queue::ReplyQueue,
    },
    probes::{ProbeReply, Probes},
    run::XmppFrontEnd,
    session::{ComponentConfig, ServerStreamReader},
    xml::stream::{StreamElement, StreamReader},
};

/// Timeout of each query.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a connection attempt, login included.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum number of stanzas that wait to be sent on a [`SeparateConnection`].
const MAX_QUEUED: usize = 32;
/// Number of pings for detecting another service with the same JID. If the server chooses one of the two services at
/// random for each stanza, each ping reaches the other service with a probability of one half. Each reply reaches this
/// service with the same probability.
const SHARED_PINGS: usize = 20;
/// Number of pings for measuring the round-trip time.
const ROUND_TRIP_PINGS: usize = 5;
/// Minimum round-trip time of the slowest ping at which the check `round-trip` is [`Verdict::Degraded`].
const SLOW: Duration = Duration::from_secs(1);
/// Number of bytes of the largest test stanza that are reserved for its tags, and for the data that the server adds to
/// a routed stanza.
const ENVELOPE_BYTES: usize = 512;

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The check succeeded.
    Ok,
    /// A feature does not work.
    Degraded,
    /// The service cannot work.
    Failed,
}

/// Result of a check with its explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    /// Result.
    pub verdict: Verdict,
    /// Explanation of the result; for a problem, its consequence and the remedy.
    pub text: String,
    /// Response time of the server, if the check measures it.
    pub took: Option<Duration>,
}

/// Self-test of a service at its server: runs the checks on one connection.
pub struct Doctor {
    jid: String,
    domain: Option<String>,
    multicast_config: MulticastConfig,
    /// JID of a user of the server; the check `rosters` requests the roster of this user.
    user: Option<String>,
    max_stanza_bytes: usize,
    ids: Arc<dyn IdGenerator>,
}

/// Connection on which the checks run.
trait Connection {
    fn probes(&self) -> &Probes;
    fn send(&self, stanza: String);
    /// Returns `true` if the server has granted the service the permission to read rosters.
    fn is_granted(&self) -> bool;
}

type ProbeAnswer = Option<(ProbeReply, Duration)>;

impl Doctor {
    /// Returns the self-test of the service with this configuration. `user` is the user whose roster is requested. The
    /// self-test sends a stanza of the size limit.
    #[must_use]
    pub fn new(link: &ComponentConfig, user: Option<String>, ids: Arc<dyn IdGenerator>) -> Self {
        Self {
            jid: link.jid.to_string(),
            domain: link.domain.clone(),
            multicast_config: link.multicast.clone(),
            user,
            max_stanza_bytes: link.limits.max_bytes,
            ids,
        }
    }

    /// Runs all checks on a separate connection.
    pub async fn connect(&self, link: &ComponentConfig) -> Vec<Finding> {
        let began = Instant::now();
        let connecting = async {
            let (reader, mut writer) = connect(&link.server, &link.transport).await?;
            let mut reader: ServerStreamReader = StreamReader::new(reader, link.limits);
            handshake(link, &mut reader, &mut writer).await?;
            Ok::<_, super::session::DisconnectReason>((reader, writer))
        };
        let (reader, writer) = match timeout(LOGIN_TIMEOUT, connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(ended)) => return vec![failed("connection", ended.to_string())],
            Err(_) => return vec![failed("connection", "the server does not answer the login")],
        };
        let (send, stanzas) = mpsc::channel(MAX_QUEUED);
        let own = SeparateConnection {
            probes: Probes::default(),
            send,
            is_granted: AtomicBool::new(false),
        };
        let mut findings =
            vec![ok("connection", format!("logged in at {}", link.server)).after(began.elapsed())];
        let serving = own.serve(reader, writer, stanzas, self.domain.as_deref());
        tokio::select! {
            tried = self.examine(&own) => findings.extend(tried),
            () = async { serving.await; std::future::pending().await } => {}
        }
        findings
    }

    /// Runs all checks on the connection of the running service, if it is connected.
    pub async fn examine_running(&self, front_end: &XmppFrontEnd) -> Vec<Finding> {
        if !front_end.is_connected() {
            let text = "the running service is not connected to the server; its log says why";
            return vec![failed("connection", text)];
        }
        let mut findings = vec![ok("connection", "the running service is connected")];
        let (replies, is_granted) = (&*front_end.replies, front_end.is_granted());
        findings.extend(self.examine(&ServiceConnection { replies, is_granted }).await);
        findings
    }

    async fn examine(&self, connection: &impl Connection) -> Vec<Finding> {
        let mut findings = Vec::new();
        let own = with_resource(&self.jid);
        findings.push(self.server(connection).await);
        if self.is_shared(connection, &own).await {
            // The other service receives a part of the stanzas of all further checks.
            findings.push(failed("jid", format!(
                "another service of the server answers for {} too, and takes a part of all requests: give one of them \
                 another JID (option host of mod_pubsub in ejabberd)", self.jid,
            )));
            return findings;
        }
        findings.push(match self.ping(connection, &own).await {
            Some((_, took)) => ok("barrier", "a ping to the service itself returns").after(took),
            None => failed(
                "barrier",
                "a ping of the service to itself does not return, so the server confirms nothing: look for a module of \
                 the server that drops the component's stanzas",
            ),
        });
        findings.push(match self.ping(connection, &self.jid).await {
            Some((_, took)) => {
                ok("components", "requests to a bare address are routed").after(took)
            }
            None => degraded(
                "components",
                "the server drops requests and answers to bare addresses, so other components, and services and hosts of \
                 other servers, such as readers of block lists, get no answers from the service; users do (ejabberd \
                 24.10 and later with mod_privilege)",
            ),
        });
        if let Some(domain) = &self.domain {
            findings.push(match self.ping(connection, domain).await {
                Some((_, took)) => ok("ping", format!("{domain} answers")).after(took),
                None => degraded(
                    "ping",
                    format!("{domain} does not answer: there is no other address for barriers"),
                ),
            });
            findings.push(match self.disco(connection, domain, ns::DISCO_INFO).await {
                Some((reply, took)) if reply.is_result() => {
                    ok("disco", format!("{domain} says what it offers")).after(took)
                }
                _ => degraded(
                    "disco",
                    format!("{domain} does not say what it offers: set link.multicast to the JID of its multicast service, or to off"),
                ),
            });
        }
        findings.push(self.multicast(connection).await);
        findings.extend(self.rosters(connection).await);
        findings.push(self.presence(connection, &own).await);
        findings.push(self.round_trips(connection, &own).await);
        // The last check, since the server may end the connection.
        findings.push(self.stanza_size(connection, &own).await);
        findings
    }

    /// Returns `true` if another service is connected to the server with the same JID, and answers pings that this
    /// service sends to its own JID. A server such as ejabberd routes each stanza to one of the two services at random.
    async fn is_shared(&self, connection: &impl Connection, own: &str) -> bool {
        let pings = (0..SHARED_PINGS).map(|_| self.ping(connection, own));
        let replies = join_all(pings).await;
        replies.iter().flatten().any(|(reply, _)| reply.is_answer())
    }

    async fn server(&self, connection: &impl Connection) -> Finding {
        let Some(domain) = &self.domain else {
            return degraded("server", "the JID is not below a server's domain: set creators");
        };
        let query = ElementWriter::ns("query", ns::VERSION);
        let Some((reply, took)) = self.ask(connection, domain, query).await else {
            return degraded("server", format!("{domain} does not say what server it is"));
        };
        let query = reply.content("query", ns::VERSION);
        let part =
            |name| query.and_then(|query| query.get_child(name, ns::VERSION)).map(Element::text);
        match (part("name"), part("version")) {
            (Some(name), version) => {
                ok("server", format!("{name} {}", version.unwrap_or_default()).trim()).after(took)
            }
            _ => ok("server", format!("{domain} does not say what server it is")).after(took),
        }
    }

    async fn multicast(&self, connection: &impl Connection) -> Finding {
        let mut candidates = Vec::new();
        match &self.multicast_config {
            MulticastConfig::None => return ok("multicast", "link.multicast is off"),
            MulticastConfig::At { jid, host } if jid == host => candidates.push(jid.clone()),
            MulticastConfig::At { jid, .. } => candidates.push(with_resource(jid)),
            MulticastConfig::Of(host) => {
                candidates.push(host.clone());
                let items = self.disco(connection, host, ns::DISCO_ITEMS).await;
                let query =
                    items.as_ref().and_then(|(items, _)| items.content("query", ns::DISCO_ITEMS));
                let is_candidate = |jid: &&str| is_below(jid, host) && *jid != self.jid;
                let listed = query.into_iter().flat_map(services).filter(is_candidate);
                candidates.extend(listed.take(MAX_SERVICES).map(with_resource));
                if query.is_none() {
                    candidates.push(with_resource(&format!("{USUAL_NAME}{host}")));
                }
            }
        }
        for address in &candidates {
            let info = self.disco(connection, address, ns::DISCO_INFO).await;
            let found = info.as_ref().and_then(|(info, took)| {
                Some((offered(info.content("query", ns::DISCO_INFO)?)?, *took))
            });
            if let Some(((_, taken), took)) = found {
                let used = taken.min(MAX_RECIPIENTS);
                let text = format!("{address}: at most {used} recipients in one stanza");
                return ok("multicast", text).after(took);
            }
        }
        match &self.multicast_config {
            MulticastConfig::At { jid, .. } => degraded(
                "multicast",
                format!(
                    "{jid} is no multicast service, or does not answer: correct link.multicast, or set it to off"
                ),
            ),
            _ => ok("multicast", "none: one stanza goes to each subscriber"),
        }
    }

    async fn rosters(&self, connection: &impl Connection) -> Vec<Finding> {
        // The server sends the grant right after the login.
        let until = Instant::now() + ANSWER_TIMEOUT / 3;
        while !connection.is_granted() && Instant::now() < until {
            tokio::time::sleep(ANSWER_TIMEOUT / 60).await;
        }
        if !connection.is_granted() {
            return vec![degraded(
                "privilege",
                "the service may not read rosters, so the access models presence and roster are refused: to use them, \
                 grant the service roster access (mod_privilege, XEP-0356), and restart the server and the service",
            )];
        }
        let mut findings = vec![ok("privilege", "the service may read rosters")];
        if let Some(user) = &self.user {
            let query = ElementWriter::ns("query", ns::ROSTER);
            findings.push(match self.ask(connection, user, query).await {
                Some((reply, took)) if reply.is_result() => {
                    ok("rosters", format!("the roster of {user} came")).after(took)
                }
                Some(_) => degraded(
                    "rosters",
                    format!("the server refuses the roster of {user}: nodes of its users with the access models presence and roster admit nobody"),
                ),
                None => degraded("rosters", format!("the roster of {user} did not come")),
            });
        }
        findings
    }

    async fn presence(&self, connection: &impl Connection, own: &str) -> Finding {
        let presence = |id: &str| {
            let presence = ElementWriter::new("presence").attr("from", &self.jid).attr("to", own);
            presence.attr("id", id).to_string()
        };
        match self.round_trip(connection, own, presence).await {
            Some((_, took)) => ok("presence", "presence is routed to the service").after(took),
            None => degraded(
                "presence",
                "presence does not reach the service: presence_based_delivery, tempsub and +notify have no effect",
            ),
        }
    }

    async fn round_trips(&self, connection: &impl Connection, own: &str) -> Finding {
        let mut times = Vec::new();
        for _ in 0..ROUND_TRIP_PINGS {
            times.extend(self.ping(connection, own).await.map(|(_, took)| took));
        }
        times.sort_unstable();
        match (times.get(times.len() / 2), times.last()) {
            (Some(median), Some(longest)) if *longest < SLOW => ok(
                "round-trip",
                format!(
                    "the median of {ROUND_TRIP_PINGS} pings; the longest took {}",
                    shown(*longest)
                ),
            )
            .after(*median),
            (_, Some(longest)) => degraded(
                "round-trip",
                format!("a ping took {}: the server or the way to it is slow", shown(*longest)),
            ),
            _ => degraded("round-trip", "no ping returned"),
        }
    }

    async fn stanza_size(&self, connection: &impl Connection, own: &str) -> Finding {
        let bytes = self.max_stanza_bytes;
        let message = |id: &str| {
            let text = "x".repeat(bytes.saturating_sub(ENVELOPE_BYTES));
            let message = ElementWriter::new("message").attr("from", &self.jid).attr("to", own);
            message.attr("id", id).child(ElementWriter::new("body").text(&text)).to_string()
        };
        match self.round_trip(connection, own, message).await {
            Some((_, took)) => {
                ok("stanza-size", format!("a stanza of {bytes} bytes passes")).after(took)
            }
            None => failed(
                "stanza-size",
                format!(
                    "a stanza of {bytes} bytes does not pass: raise the server's limit for components \
                     (component_stanza_size_limit of Prosody, max_stanza_size of ejabberd), or lower link.max_stanza_bytes"
                ),
            ),
        }
    }

    async fn ping(&self, connection: &impl Connection, to: &str) -> ProbeAnswer {
        self.ask(connection, to, ElementWriter::ns("ping", ns::PING)).await
    }

    async fn disco(&self, connection: &impl Connection, to: &str, namespace: &str) -> ProbeAnswer {
        self.ask(connection, to, ElementWriter::ns("query", namespace)).await
    }

    async fn ask(
        &self,
        connection: &impl Connection,
        to: &str,
        content: ElementWriter,
    ) -> ProbeAnswer {
        let request = |id: &str| {
            let iq =
                ElementWriter::new("iq").attr("type", "get").attr("from", &self.jid).attr("to", to);
            iq.attr("id", id).child(&content).to_string()
        };
        self.round_trip(connection, to, request).await
    }

    /// Sends a stanza and waits for the reply to it. If the stanza is addressed to the service itself, waits for the
    /// return of the stanza. Returns `None` if nothing arrives within [`ANSWER_TIMEOUT`].
    async fn round_trip(
        &self,
        connection: &impl Connection,
        to: &str,
        stanza: impl FnOnce(&str) -> String,
    ) -> ProbeAnswer {
        // Stanzas of the service to itself return from its bare address.
        let from = vec![to.to_owned(), self.jid.clone()];
        let (id, reply) = connection.probes().expect(self.ids.next_u64(), from);
        let began = Instant::now();
        connection.send(stanza(&id));
        let reply = timeout(ANSWER_TIMEOUT, reply).await.ok()?.ok()?;
        Some((reply, began.elapsed()))
    }
}

impl ProbeReply {
    fn is_answer(&self) -> bool {
        matches!(self, Self::Stanza(stanza) if matches!(stanza.attr("type"), Some("result" | "error")))
    }

    fn is_result(&self) -> bool {
        matches!(self, Self::Stanza(stanza) if stanza.attr("type") == Some("result"))
    }

    fn content(&self, name: &str, namespace: &str) -> Option<&Element> {
        match self {
            Self::Stanza(stanza) if stanza.attr("type") == Some("result") => {
                stanza.get_child(name, namespace)
            }
            _ => None,
        }
    }
}

/// Connection of the running service.
struct ServiceConnection<'a> {
    replies: &'a ReplyQueue,
    is_granted: bool,
}

impl Connection for ServiceConnection<'_> {
    fn probes(&self) -> &Probes {
        &self.replies.probes
    }

    fn send(&self, stanza: String) {
        self.replies.ask(&stanza);
    }

    fn is_granted(&self) -> bool {
        self.is_granted
    }
}

/// Separate connection of the doctor.
struct SeparateConnection {
    probes: Probes,
    send: mpsc::Sender<String>,
    is_granted: AtomicBool,
}

impl Connection for SeparateConnection {
    fn probes(&self) -> &Probes {
        &self.probes
    }

    fn send(&self, stanza: String) {
        // Without a connection, or if the server reads nothing, the check times out.
        let _ = self.send.try_send(stanza);
    }

    fn is_granted(&self) -> bool {
        self.is_granted.load(Ordering::Relaxed)
    }
}

impl SeparateConnection {
    /// Reads and writes stanzas until the connection ends. Rejects requests of other entities with an error of type
    /// `wait`, so that they may retry later.
    async fn serve(
        &self,
        mut reader: ServerStreamReader,
        mut writer: WriteHalf,
        mut stanzas: mpsc::Receiver<String>,
        domain: Option<&str>,
    ) {
        let reading = async {
            loop {
                let header = match reader.next().await {
                    Ok(StreamElement::Stanza(stanza)) if self.probes.take(&stanza) => continue,
                    Ok(StreamElement::Stanza(stanza)) => {
                        if stanza.attr("from") == domain && grants_rosters(&stanza) == Some(true) {
                            self.is_granted.store(true, Ordering::Relaxed);
                        }
                        Envelope::of(&stanza)
                    }
                    Ok(StreamElement::Refused(header, _)) if self.probes.take_refused(&header) => {
                        continue;
                    }
                    Ok(StreamElement::Refused(header, _)) => header,
                    Ok(StreamElement::Opened(_) | StreamElement::Closed) | Err(_) => return,
                };
                if header.is_request() && header.from.is_some() {
                    self.send(header.error(&StanzaError::new("wait", "recipient-unavailable")));
                }
            }
        };
        let writing = async {
            while let Some(stanza) = stanzas.recv().await {
                if writer.write_all(stanza.as_bytes()).await.is_err()
                    || writer.flush().await.is_err()
                {
                    return;
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
        self.probes.clear();
    }
}

impl Finding {
    fn after(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }
}

fn finding(check: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { check, verdict, text: text.into(), took: None }
}

fn ok(check: &'static str, text: impl Into<String>) -> Finding {
    finding(check, Verdict::Ok, text)
}

fn degraded(check: &'static str, text: impl Into<String>) -> Finding {
    finding(check, Verdict::Degraded, text)
}

fn failed(check: &'static str, text: impl Into<String>) -> Finding {
    finding(check, Verdict::Failed, text)
}

fn shown(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}
