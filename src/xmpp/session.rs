//! Session with the server: login (XEP-0114), keep-alive (XEP-0199), and an unlimited number of reconnection attempts.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jid::Jid;
use minidom::Element;
use thiserror::Error;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::watch,
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    connect::{ReadHalf, Transport, WriteHalf, connect},
    handshake::{handshake, stream_error},
    outbound::{multicast::MulticastConfig, reply_queue::ReplyQueue, writer::OutboundWriter},
    router::Router,
    sender_queue::{QueueLimits, SenderQueues},
    xml::stream::{StanzaLimits, StreamElement, StreamFault, StreamReader},
};
use crate::service::{
    RelayLimit,
    admission::{RateExceeded, RateLimits, RequestLimiter},
};
use crate::xmpp::stanza::{
    envelope::{Envelope, StanzaError},
    ns,
};

/// Configuration of the connection to the server.
#[derive(Clone)]
pub struct ComponentConfig {
    /// JID of the component.
    pub jid: Jid,
    /// Domain of the server, if it is known.
    pub domain: Option<String>,
    /// Component port of the server, `host:port`; resolved for each attempt.
    pub server: String,
    /// Shared secret of the login.
    pub secret: String,
    /// Protection of the connection.
    pub transport: Transport,
    /// Limits of the size and depth of stanzas.
    pub limits: StanzaLimits,
    /// Rate limits of requests.
    pub rates: watch::Receiver<RateLimits>,
    /// Limits of queued requests.
    pub queue_limits: watch::Receiver<QueueLimits>,
    /// Size limit of stanzas to users of other servers.
    pub relay_limit: RelayLimit,
    /// Setting of the discovery of a multicast service.
    pub multicast: MulticastConfig,
    /// Time from the last barrier (a ping that confirms all earlier stanzas) to the next ping, which tests whether the
    /// server responds.
    pub ping_after: Duration,
    /// Maximum time for which the server may be silent after the ping that tests whether the server responds.
    pub ping_deadline: Duration,
}

/// Maximum duration of a connection attempt, login included.
const LOGIN_DEADLINE: Duration = Duration::from_secs(20);
/// Maximum duration of sending a stream error.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum time that a shutdown spends on handling queued requests.
const DRAIN_QUEUES: Duration = Duration::from_secs(12);
/// Maximum time that a shutdown spends on sending pending notifications.
const DRAIN_SENDING: Duration = Duration::from_secs(8);
/// Maximum time of a shutdown without progress. A shutdown makes no progress while the server reads nothing.
const DRAIN_STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum duration of a shutdown.
const DRAIN_DEADLINE: Duration = Duration::from_secs(25);
/// Number of stanzas that are read before the task does other work.
const READS_BEFORE_YIELD: u64 = 16;
/// Shortest and longest interval between connection attempts.
const RECONNECT_INTERVALS: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_secs(30));
/// Longest interval to the next attempt after the server rejected the login, or after the service refused to connect
/// because nothing would protect the connection.
const LOGIN_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum number of earlier failures that still lengthen the reconnection interval after a successful login. Thus the
/// interval stays below a second however often the stream of a working server breaks.
const FAILURES_AFTER_LOGIN: u32 = 1;

/// Reason for the end of a connection.
#[derive(Debug, Error)]
pub(super) enum DisconnectReason {
    /// The connection attempt failed, or the connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The inbound stream is not readable.
    #[error(transparent)]
    Stream(#[from] StreamFault),
    /// The server rejected the login.
    #[error("the server refused the login: {0}")]
    NotAuthorized(String),
    /// The server ended the stream with an error.
    #[error("the server ended the stream: {0}")]
    StreamError(String),
    /// The server is on another machine, and nothing protects the connection.
    #[error(
        "plain TCP to {0} would expose the secret and all stanzas: set link.tls_ca, or \
         link.allow_plain_tcp if the network is trusted"
    )]
    Unprotected(SocketAddr),
    /// The server closed the stream.
    #[error("the server closed the stream")]
    Closed,
    /// The server did not respond in time.
    #[error("the server did not respond in time")]
    Silent,
    /// No barrier (a ping that confirms all earlier stanzas) returned in time.
    #[error("the server returned no ping of the service")]
    Unconfirmed,
}

/// The component's session with the server, across connections.
pub(super) struct ComponentSession {
    link: ComponentConfig,
    router: Arc<Router>,
    queues: SenderQueues,
    limiter: RequestLimiter,
    replies: Arc<ReplyQueue>,
    writer: OutboundWriter,
}

impl ComponentSession {
    /// Returns a session that is not connected yet.
    #[must_use]
    pub(super) fn new(
        link: ComponentConfig,
        router: Arc<Router>,
        replies: Arc<ReplyQueue>,
        writer: OutboundWriter,
    ) -> Self {
        let queues = SenderQueues::new(&router, link.queue_limits.clone());
        let limiter = RequestLimiter::new(link.rates.clone());
        Self { link, router, queues, limiter, replies, writer }
    }

    /// Runs the session until `stop` is set; then completes the queued requests and closes the stream.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            let ended = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                stream = self.connect() => match stream {
                    Ok((reader, writer)) => {
                        failures = failures.min(FAILURES_AFTER_LOGIN);
                        match self.serve(reader, writer, &mut stop).await {
                            Some(ended) => ended,
                            None => return,
                        }
                    }
                    Err(ended) => ended,
                },
            };
            let pause = pause(&ended, failures, self.router.service().next_u64());
            failures += 1;
            log_disconnect(&ended, pause);
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = sleep(pause) => {}
            }
        }
        // Without a connection nothing takes replies, and sender queues may wait for room.
        let _ = timeout(DRAIN_DEADLINE, self.queues.finish()).await;
    }

    async fn connect(&self) -> Result<(ServerStreamReader, WriteHalf), DisconnectReason> {
        let login = async {
            let (reader, mut writer) = connect(&self.link.server, &self.link.transport).await?;
            let mut reader: ServerStreamReader = StreamReader::new(reader, self.link.limits);
            handshake(&self.link, &mut reader, &mut writer).await?;
            Ok((reader, writer))
        };
        timeout(LOGIN_DEADLINE, login).await.unwrap_or(Err(DisconnectReason::Silent))
    }

    /// Serves one connection, and returns the reason for its end. Returns `None` after `stop` was set.
    async fn serve(
        &mut self,
        mut reader: ServerStreamReader,
        mut io: WriteHalf,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<DisconnectReason> {
        info!(
            event = "link_connected",
            remote = self.link.server,
            jid = self.link.jid.as_str(),
            "connected to the server"
        );
        self.router.on_link_change(true);
        self.writer.reconnected(self.router.service().next_u64());
        let reading = read(
            &self.link,
            &mut reader,
            &self.router,
            &self.queues,
            &mut self.limiter,
            &self.replies,
        );
        let ended = tokio::select! {
            () = stopped(stop) => None,
            ended = reading => Some(ended),
            ended = self.writer.run(&mut io) => Some(ended),
        };
        self.router.on_link_change(false);
        self.replies.probes.clear();
        if let Some(DisconnectReason::Stream(StreamFault::NotWellFormed(_))) = &ended {
            // RFC 6120 §4.9 asks for the stream error; the connection ends whether or not it arrives.
            if !self.writer.is_mid_stanza() {
                let _ = timeout(CLOSE_TIMEOUT, io.write_all(NOT_WELL_FORMED.as_bytes())).await;
            }
        }
        if ended.is_none() {
            self.finish(&mut reader, &mut io).await;
        }
        ended
    }

    /// Completes the queued requests, sends pending stanzas and closes the stream.
    async fn finish(
        &mut self,
        reader: &mut ServerStreamReader,
        io: &mut (impl AsyncWrite + Unpin),
    ) {
        let Self { link, router, queues, replies, writer, .. } = self;
        let reading = read_barriers(link, reader, router, replies);
        writer.set_deadline(Instant::now() + DRAIN_SENDING);
        let finishing = async {
            let mut queues = std::pin::pin!(timeout(DRAIN_QUEUES, queues.finish()));
            tokio::select! {
                // Requests that are still queued after the timeout are dropped.
                _ = &mut queues => {}
                ended = writer.run(io) => return Err(io::Error::other(ended)),
            }
            writer.drain(io, DRAIN_STALL_TIMEOUT).await?;
            io.write_all(b"</stream:stream>").await?;
            io.shutdown().await
        };
        let finishing = async {
            tokio::select! {
                // The server may close its half and still read pending stanzas.
                () = async { reading.await; std::future::pending().await } => Ok(()),
                finished = finishing => finished,
            }
        };
        match timeout(DRAIN_DEADLINE, finishing).await {
            Ok(Ok(())) => info!(event = "link_closed", "closed the link"),
            Ok(Err(error)) => warn!(
                event = "link_close_failed",
                %error,
                "link failed during the stop; pending notifications stay in the store"
            ),
            Err(_) => warn!(
                event = "link_close_timeout",
                "stop timed out; pending notifications stay in the store"
            ),
        }
    }
}

pub(super) type ServerStreamReader = StreamReader<ReadHalf>;

/// Logs the reason for a disconnection and the time until the next attempt.
fn log_disconnect(error: &DisconnectReason, pause: Duration) {
    let retry_in_ms = pause.as_millis() as u64;
    match error {
        DisconnectReason::NotAuthorized(_) => {
            error!(event = "login_failed", %error, retry_in_ms, "login failed; will retry");
        }
        DisconnectReason::Unconfirmed => {
            info!(event = "link_renewed", %error, retry_in_ms, "no ping returned; connecting again");
        }
        DisconnectReason::Unprotected(_) => error!(
            event = "link_unprotected",
            %error,
            retry_in_ms,
            "refused to connect without TLS; will retry"
        ),
        _ => warn!(event = "link_failed", %error, retry_in_ms, "not connected; will retry"),
    }
}

/// Returns the interval until the next attempt. The maximum of the interval doubles with each failure. The interval is
/// chosen at random between half of the maximum and all of it, so that many components do not reconnect at the same
/// time.
fn pause(ended: &DisconnectReason, failures: u32, random: u64) -> Duration {
    let longest = match ended {
        DisconnectReason::NotAuthorized(_) | DisconnectReason::Unprotected(_) => {
            LOGIN_RETRY_INTERVAL
        }
        _ => RECONNECT_INTERVALS
            .1
            .min(RECONNECT_INTERVALS.0 * 2_u32.saturating_pow(failures.min(16))),
    };
    let half = longest / 2;
    let jitter = random % u64::try_from(half.as_millis().max(1)).unwrap_or(1);
    half + Duration::from_millis(jitter)
}

const NOT_WELL_FORMED: &str = "<stream:error>\
    <not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender counts as a stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Returns `true` unless a stanza is presence or a reply. If presence or a reply is rejected, its sender is not
/// notified, and does not repeat the stanza.
fn needs_answer(stanza: &Element) -> bool {
    match stanza.name() {
        "presence" => false,
        "iq" => !matches!(stanza.attr("type"), Some("result" | "error")),
        _ => true,
    }
}

fn is_bounce(stanza: &Element) -> bool {
    stanza.name() == "message" && stanza.attr("type") == Some("error")
}

/// Reads stanzas during a shutdown. Handles replies to barriers and to other stanzas of the service, and rejects all
/// requests.
async fn read_barriers(
    link: &ComponentConfig,
    reader: &mut ServerStreamReader,
    router: &Router,
    replies: &ReplyQueue,
) {
    loop {
        let header = match reader.next().await {
            Ok(StreamElement::Stanza(element))
                if replies.handle_own_reply(link.jid.as_str(), &element) =>
            {
                continue;
            }
            Ok(StreamElement::Stanza(element)) => Envelope::of(&element),
            Ok(StreamElement::Refused(header, _)) => {
                replies.handle_oversized_reply(&header);
                header
            }
            Ok(StreamElement::Opened(_) | StreamElement::Closed) | Err(_) => return,
        };
        let error = StanzaError::new("wait", "resource-constraint");
        router.refuse(&header, &error.text("the service is stopping"));
    }
}

/// Reads until the stream ends or the server falls silent.
async fn read(
    link: &ComponentConfig,
    reader: &mut ServerStreamReader,
    router: &Router,
    queues: &SenderQueues,
    limiter: &mut RequestLimiter,
    replies: &ReplyQueue,
) -> DisconnectReason {
    // A barrier is sent within this time, and any received stanza shows that the server responds.
    let longest = link.ping_after + link.ping_deadline;
    let mut read = 0_u64;
    loop {
        read += 1;
        if read.is_multiple_of(READS_BEFORE_YIELD) {
            // A server may send many stanzas at once, and replies are sent by the same task.
            yield_now().await;
        }
        if timeout(longest, replies.wait_read_capacity()).await.is_err() {
            return DisconnectReason::Silent;
        }
        let Ok(received) = timeout(longest, reader.next()).await else {
            if replies.may_be_silent.load(Ordering::Relaxed) {
                continue;
            }
            return DisconnectReason::Silent;
        };
        match received {
            Ok(StreamElement::Stanza(element)) if element.is("error", ns::STREAMS) => {
                return DisconnectReason::StreamError(stream_error(&element));
            }
            Ok(StreamElement::Stanza(element))
                if replies.handle_own_reply(link.jid.as_str(), &element) => {}
            // No rate limit: results of an unreachable domain may be as many as its notifications, and need no reply.
            Ok(StreamElement::Stanza(element)) if router.handle_roster_result(&element) => {}
            Ok(StreamElement::Stanza(element)) if is_bounce(&element) => router.on_bounce(&element),
            Ok(StreamElement::Stanza(element)) => {
                let from = element.attr("from").unwrap_or_default();
                let needs_answer = needs_answer(&element);
                if let Err(exceeded) = limiter.check(from, needs_answer, Instant::now()) {
                    refuse_too_many(router, &Envelope::of(&element), exceeded);
                    continue;
                }
                let bytes = reader.stanza_bytes();
                match queues.exceeded_limit(&element, needs_answer, bytes) {
                    None => queues.submit(element, bytes, || reader.stanza_text()),
                    Some(limit) => {
                        let header = Envelope::of(&element);
                        router.refuse_at_limit(&header, limit.name(), &limit.error());
                    }
                }
            }
            Ok(StreamElement::Refused(header, _)) if router.handle_oversized_roster(&header) => {}
            Ok(StreamElement::Refused(header, reason)) => {
                replies.handle_oversized_reply(&header);
                let from = header.from.as_deref().unwrap_or_default();
                if let Err(exceeded) = limiter.check(from, true, Instant::now()) {
                    refuse_too_many(router, &header, exceeded);
                    continue;
                }
                debug!(stanza = header.name, error = reason, "refused a stanza past a limit");
                let error = StanzaError::new("modify", "policy-violation").text(reason);
                router.refuse_at_limit(&header, "stanza", &error);
            }
            Ok(StreamElement::Closed) => return DisconnectReason::Closed,
            Ok(StreamElement::Opened(_)) => {}
            Err(fault) => return fault.into(),
        }
    }
}

fn refuse_too_many(router: &Router, header: &Envelope, exceeded: RateExceeded) {
    let (limit, of) = match exceeded {
        RateExceeded::Jid => ("max_jid_requests_per_second", "of one sender"),
        RateExceeded::Domain => ("max_domain_requests_per_second", "of one domain"),
    };
    let text = format!("too many requests {of} in a second (limits.{limit}): retry later");
    let error = StanzaError::new("wait", "policy-violation").text(text);
    router.refuse_at_limit(header, limit, &error);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_intervals_double_with_jitter() {
        for random in [0, 1, 99, u64::MAX] {
            for (failures, longest) in [(0, 200), (1, 400), (5, 6_400), (8, 30_000), (999, 30_000)]
            {
                let pause = pause(&DisconnectReason::Closed, failures, random).as_millis();
                assert!((longest / 2..longest).contains(&pause), "{failures}: {pause}");
            }
            let refused = pause(&DisconnectReason::NotAuthorized(String::new()), 0, random);
            assert!(refused >= Duration::from_secs(15));
        }
        assert_ne!(pause(&DisconnectReason::Closed, 3, 7), pause(&DisconnectReason::Closed, 3, 8));
        assert!(
            pause(&DisconnectReason::Closed, FAILURES_AFTER_LOGIN, u64::MAX)
                < Duration::from_secs(1)
        );
    }
}
