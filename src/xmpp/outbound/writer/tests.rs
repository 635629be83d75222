//! Tests of the writer with a server that reads late or breaks connections.

use jid::Jid;
use minidom::Element;
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    task::JoinHandle,
    time::timeout_at,
};

use super::*;
use crate::{
    service::Service,
    store::MemoryStore,
    xmpp::{
        outbound::multicast::{MulticastConfig, MulticastDiscovery},
        router::Router,
    },
};
use gjallar_pubsub::{IdGenerator, Limits, Timestamp};

const SERVICE: &str = "pubsub.x";
const MULTICAST: &str = "multicast.x/barrier";
const SECOND: Duration = Duration::from_secs(1);

struct Zero;

impl IdGenerator for Zero {
    fn next_u64(&self) -> u64 {
        0
    }
}

/// Writer on a link whose other end reads only when the test does, at a server with a multicast service.
struct TestWriter {
    router: Arc<Router>,
    replies: Arc<ReplyQueue>,
    link: DuplexStream,
    writing: JoinHandle<()>,
}

impl Drop for TestWriter {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

/// Returns a writer, with its router and reply queue.
async fn writer(config: MulticastConfig) -> (Arc<Router>, Arc<ReplyQueue>, OutboundWriter) {
    let clock = Arc::new(|| Timestamp(0));
    let store = Arc::new(MemoryStore::new());
    let service = Service::open(store, Limits::default(), Arc::new(Zero), clock).await.unwrap();
    let multicast = MulticastDiscovery::new(config, SERVICE.into());
    let replies = Arc::new(ReplyQueue::new(Arc::clone(service.log_window()), multicast, None));
    let (service, sent) = (Arc::new(service), Arc::clone(&replies));
    let jid = Jid::new(SERVICE).unwrap();
    let presences = Arc::clone(service.presence_tracker());
    let router = Arc::new(Router::new(service, sent, jid, None, 100_000));
    let times = (30 * SECOND, 15 * SECOND);
    let sent = Arc::clone(&replies);
    let relay_limit =
        RelayLimit { server: None, max_stanza_bytes: 1_000_000, max_reply_bytes: 1_000_000 };
    let limits = (100_000, relay_limit);
    (router, replies, OutboundWriter::new(sent, presences, SERVICE.into(), limits, times))
}

impl TestWriter {
    async fn new() -> Self {
        Self::with(MulticastConfig::At { jid: "multicast.x".into(), host: "x".into() }).await
    }

    async fn with(config: MulticastConfig) -> Self {
        let (router, replies, mut writer) = writer(config).await;
        let (link, mut io) = duplex(1 << 20);
        writer.reconnected(1);
        let writing = tokio::spawn(async move {
            writer.run(&mut io).await;
        });
        Self { router, replies, link, writing }
    }

    /// Returns the stanzas written within a time.
    async fn written(&mut self, time: Duration) -> Vec<Element> {
        let (end, mut text) = (Instant::now() + time, String::new());
        while let Ok(byte) = timeout_at(end, self.link.read_u8()).await {
            text.push(byte.unwrap().into());
        }
        let all: Element = format!("<all xmlns='{}'>{text}</all>", ns::COMPONENT).parse().unwrap();
        all.children().cloned().collect()
    }

    /// Sends a request to the service, and waits for its commit.
    async fn request(&self, id: &str, namespace: &str, content: &str) {
        let content = format!("<pubsub xmlns='{namespace}'>{content}</pubsub>");
        let iq = format!(
            "<iq xmlns='{}' type='set' id='{id}' from='owner@x/r' to='{SERVICE}'>{content}</iq>",
            ns::COMPONENT
        );
        let stanza: Element = iq.parse().unwrap();
        let header = self.router.header(&stanza);
        if let Some(handle) = self.router.handle(&header, stanza).await {
            handle.await;
        }
    }

    /// Replies to a ping or a query of the service.
    fn reply_to(&self, query: &Element) {
        let (to, id) = (query.attr("to").unwrap(), query.attr("id").unwrap());
        let feature = format!("<feature var='{}'/>", ns::ADDRESS);
        let query = format!("<query xmlns='{}'>{feature}</query>", ns::DISCO_INFO);
        let answer = format!(
            "<iq xmlns='{}' type='result' from='{to}' to='{SERVICE}' id='{id}'>{query}</iq>",
            ns::COMPONENT
        );
        assert!(self.replies.handle_own_reply(SERVICE, &answer.parse().unwrap()), "{answer}");
    }

    /// Returns a writer with an event pending in the multicast service, after a ban of one of the event's recipients.
    async fn with_ban() -> Self {
        let mut writer = Self::new().await;
        let queries = writer.written(SECOND / 10).await;
        writer.reply_to(queries.iter().find(|one| one.attr("to") == Some(MULTICAST)).unwrap());
        writer.request("create", ns::PUBSUB, "<create node='n'/>").await;
        let entry = |jid| format!("<subscription jid='{jid}' subscription='subscribed'/>");
        let entries: String = ["a@x", "b@x", "c@x"].map(entry).concat();
        let list = format!("<subscriptions node='n'>{entries}</subscriptions>");
        writer.request("list", ns::PUBSUB_OWNER, &list).await;
        for barrier in writer.written(SECOND).await.iter().filter(|one| is_barrier(one)) {
            writer.reply_to(barrier);
        }
        let item = "<item id='i'><x xmlns='urn:x'/></item>";
        writer.request("publish", ns::PUBSUB, &format!("<publish node='n'>{item}</publish>")).await;
        let written = writer.written(SECOND).await;
        assert!(written.iter().any(|one| one.attr("to") == Some("multicast.x")), "{written:?}");
        let mut barriers = written.iter().filter(|one| is_barrier(one));
        assert!(barriers.all(|one| one.attr("to") == Some(MULTICAST)));
        let entry = "<affiliation jid='a@x' affiliation='outcast'/>";
        let list = format!("<affiliations node='n'>{entry}</affiliations>");
        writer.request("ban", ns::PUBSUB_OWNER, &list).await;
        writer
    }
}

fn is_barrier(stanza: &Element) -> bool {
    stanza.attr("id").is_some_and(|id| id.starts_with(BARRIER))
}

fn is_reply_to_ban(stanza: &Element) -> bool {
    stanza.attr("id") == Some("ban")
}

/// The server reads nothing, so the multicast service seems to fail. The reply that acknowledges a ban is not written
/// before the service has processed all events that were written earlier.
#[tokio::test(start_paused = true)]
async fn stalled_link_sends_no_events_after_the_reply_to_a_ban() {
    for replies_to_query in [true, false] {
        let mut writer = TestWriter::with_ban().await;
        let written = writer.written(30 * SECOND).await;
        assert!(!written.iter().any(is_reply_to_ban), "the service may have the event");
        // The server now reads everything.
        let is_own = |one: &&Element| is_barrier(one) && one.attr("to") != Some(MULTICAST);
        writer.reply_to(written.iter().rfind(is_own).expect("a barrier after the question"));
        let written = writer.written(5 * SECOND).await;
        assert!(!written.iter().any(is_reply_to_ban), "the service may have the event");
        if replies_to_query {
            let query = written.iter().find(|one| one.attr("to") == Some(MULTICAST));
            writer.reply_to(query.expect("the question is repeated"));
        }
        let written = writer.written(6 * SECOND).await;
        assert!(written.iter().any(is_reply_to_ban), "{replies_to_query}: {written:?}");
        let again = written.iter().filter(|one| one.name() == "message");
        let mut to: Vec<_> = again.map(|one| one.attr("to").unwrap()).collect();
        to.retain(|to| *to != "a@x");
        assert_eq!(to, ["b@x", "c@x"]);
    }
}

/// A reply that the server rejects, for example because of its size, breaks two connections and no third one.
#[tokio::test(start_paused = true)]
async fn a_reply_that_breaks_connections_is_dropped() {
    let (_router, replies, mut writer) = writer(MulticastConfig::None).await;
    replies.send("a@x/r", format!("<large>{}</large>", "x".repeat(100_000)));
    let mut began_with_it = Vec::new();
    for connection in 1..=3 {
        writer.reconnected(connection);
        let (mut link, mut io) = duplex(50_000);
        assert!(timeout(SECOND, writer.run(&mut io)).await.is_err());
        replies.send("b@x/r", format!("<small id='{connection}'/>"));
        let mut read = vec![0; 50_000];
        let len = link.read(&mut read).await.unwrap();
        let text = String::from_utf8_lossy(&read[..len]).into_owned();
        began_with_it.push(text.starts_with("<large>"));
        if connection == 3 {
            assert!((1..=2).all(|id| text.contains(&format!("<small id='{id}'/>"))), "{text}");
        }
    }
    assert_eq!(began_with_it, [true, true, false]);
}

/// A server that commits each message to a database would seem to return no barrier if thousands of notifications
/// preceded the first one.
#[tokio::test(start_paused = true)]
async fn few_notifications_are_sent_before_a_barrier_until_barriers_return() {
    let mut writer = TestWriter::new().await;
    let queries = writer.written(SECOND / 10).await;
    writer.reply_to(queries.iter().find(|one| one.attr("to") == Some(MULTICAST)).unwrap());
    writer.request("create", ns::PUBSUB, "<create node='n'/>").await;
    let entry = |n| format!("<subscription jid='u{n}@x' subscription='subscribed'/>");
    let entries: String = (0..450).map(entry).collect();
    let list = format!("<subscriptions node='n'>{entries}</subscriptions>");
    writer.request("list", ns::PUBSUB_OWNER, &list).await;
    writer.written(SECOND).await;
    let item = "<item id='i'><x xmlns='urn:x'/></item>";
    writer.request("publish", ns::PUBSUB, &format!("<publish node='n'>{item}</publish>")).await;
    let (mut recipients, mut before_barriers) = (0, Vec::new());
    for stanza in writer.written(SECOND).await {
        if is_barrier(&stanza) {
            before_barriers.push(mem::take(&mut recipients));
        } else if let Some(addresses) = stanza.get_child("addresses", ns::ADDRESS) {
            recipients += addresses.children().count();
        }
    }
    assert_eq!(before_barriers.iter().sum::<usize>(), 450, "{before_barriers:?}");
    assert!(before_barriers.iter().all(|number| *number <= 100), "{before_barriers:?}");
}

/// Replies that the server cannot have received are kept.
#[tokio::test(start_paused = true)]
async fn only_partially_written_replies_are_dropped() {
    let (_router, replies, mut writer) = writer(MulticastConfig::None).await;
    for number in 0..5 {
        replies.send("a@x/r", format!("<reply id='{number}'>{}</reply>", "x".repeat(10_000)));
    }
    for (connection, capacity) in [(1, 5000), (2, 15_000)] {
        writer.reconnected(connection);
        let (_link, mut io) = duplex(capacity);
        assert!(timeout(SECOND, writer.run(&mut io)).await.is_err());
    }
    writer.reconnected(3);
    let (mut link, mut io) = duplex(100_000);
    assert!(timeout(SECOND, writer.run(&mut io)).await.is_err());
    let mut read = vec![0; 100_000];
    let len = link.read(&mut read).await.unwrap();
    let text = std::str::from_utf8(&read[..len]).unwrap();
    let is_written: Vec<_> =
        (0..5).map(|id| text.contains(&format!("<reply id='{id}'>"))).collect();
    assert_eq!(is_written, [false, false, true, true, true]);
}

/// An entity that reads large lists leaves notifications as many bytes as its replies take.
#[tokio::test(start_paused = true)]
async fn notifications_get_as_many_bytes_as_large_replies() {
    const SUBSCRIBERS: usize = 150;
    let mut writer = TestWriter::with(MulticastConfig::None).await;
    writer.request("create", ns::PUBSUB, "<create node='n'/>").await;
    let entry = |n| format!("<subscription jid='u{n}@x' subscription='subscribed'/>");
    let entries: String = (0..SUBSCRIBERS).map(entry).collect();
    let list = format!("<subscriptions node='n'>{entries}</subscriptions>");
    writer.request("list", ns::PUBSUB_OWNER, &list).await;
    writer.written(SECOND).await;
    for _ in 0..5 {
        writer.replies.send("a@x/r", format!("<large>{}</large>", "x".repeat(400_000)));
    }
    // The connection takes two of the large replies before the test reads.
    let item = format!("<item id='i'><x xmlns='urn:x'>{}</x></item>", "x".repeat(1000));
    writer.request("publish", ns::PUBSUB, &format!("<publish node='n'>{item}</publish>")).await;
    let written = writer.written(SECOND).await;
    let mut names: Vec<_> = written.iter().map(Element::name).collect();
    let last = names.iter().rposition(|name| *name == "large").expect("the last large reply");
    names.truncate(last);
    assert_eq!(names.iter().filter(|name| **name == "message").count(), SUBSCRIBERS);
}

/// A barrier that returns while a write is blocked confirms the connection.
#[tokio::test(start_paused = true)]
async fn a_server_that_reads_slowly_and_returns_barriers_is_confirmed() {
    let (_router, replies, mut writer) = writer(MulticastConfig::None).await;
    let (mut link, mut io) = duplex(50_000);
    writer.reconnected(1);
    assert!(timeout(6 * SECOND, writer.run(&mut io)).await.is_err());
    let mut read = vec![0; 50_000];
    let len = link.read(&mut read).await.unwrap();
    let text = std::str::from_utf8(&read[..len]).unwrap();
    let all: Element = format!("<all xmlns='{}'>{text}</all>", ns::COMPONENT).parse().unwrap();
    let barrier = all.children().find(|one| is_barrier(one)).expect("a barrier");
    replies.send("a@x/r", format!("<large>{}</large>", "x".repeat(100_000)));
    let returning = async {
        sleep_until(Instant::now() + SECOND).await;
        let answer = barrier.clone();
        assert!(replies.handle_own_reply(SERVICE, &answer));
    };
    let (running, ()) = tokio::join!(timeout(60 * SECOND, writer.run(&mut io)), returning);
    assert!(running.is_err(), "{running:?}");
}
