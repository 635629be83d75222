//! Base of most tests: a running component and the server's end of its stream.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::deferring_store::{Deferring, Reading};
use gjallar::{
    config::{Config, Secret},
    runtime::serve,
    store::{MemoryStore, Store},
    xmpp::{StanzaLimits, StreamElement, StreamReader},
};
use minidom::Element;
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

pub const SERVICE: &str = "pubsub.localhost";
pub const ADMIN: &str = "admin@localhost/desk";
const TIMEOUT: Duration = Duration::from_secs(20);

/// Namespaces that tests look for.
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
pub const OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
pub const EVENT: &str = "http://jabber.org/protocol/pubsub#event";
pub const STREAM: &str = "jabber:component:accept";
const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// Running component with the server's end of its stream; sends and receives raw XML.
pub struct TestComponent {
    listener: TcpListener,
    pub link: ServerStream,
    stop: watch::Sender<bool>,
    /// Sender of new configurations to the component.
    pub reload: watch::Sender<Config>,
    task: JoinHandle<()>,
    /// Messages that were received while a test waited for an answer.
    inbox: VecDeque<Element>,
    asked: u64,
}

/// Connection of the component, seen from the server.
pub struct ServerStream {
    reader: StreamReader<Deferring<OwnedReadHalf>>,
    /// Deferred parsing of the received bytes; tests can change it.
    pub reading: Arc<Reading>,
    writer: OwnedWriteHalf,
    /// Barriers that are held back; `None` if they are returned at once.
    held: Option<Vec<Element>>,
    questions: Questions,
    /// Presence stanzas received: type and recipient.
    presence: Vec<(String, String)>,
    /// Pings to resources received; `None` if they are passed on like other stanzas.
    pings: Option<Vec<Element>>,
}

/// Reaction of the server's end to queries about multicast services.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Questions {
    /// Answers that there is no such service.
    Refused,
    /// Does not answer.
    Dropped,
    /// Passes the query on to the test.
    Received,
}

impl ServerStream {
    /// Performs the server's part of the handshake (XEP-0114) on the next connection.
    pub async fn accept(listener: &TcpListener) -> Self {
        let (tcp, _) = timeout(TIMEOUT, listener.accept()).await.unwrap().unwrap();
        Self::welcome(tcp).await
    }

    async fn welcome(tcp: TcpStream) -> Self {
        let (reader, mut writer) = tcp.into_split();
        let limits = StanzaLimits { max_bytes: 100_000_000, max_depth: 200 };
        let reading = Arc::<Reading>::default();
        let mut reader = StreamReader::new(Deferring::new(reader, Arc::clone(&reading)), limits);
        assert!(matches!(reader.next().await.unwrap(), StreamElement::Opened(None)));
        let open = format!(
            "<?xml version='1.0'?><stream:stream xmlns='{STREAM}' from='{SERVICE}' \
             xmlns:stream='http://etherx.jabber.org/streams' id='abc'>"
        );
        writer.write_all(open.as_bytes()).await.unwrap();
        let StreamElement::Stanza(handshake) = reader.next().await.unwrap() else {
            panic!("no handshake");
        };
        // The SHA-1 of "abcsecret" (XEP-0114 §3).
        assert_eq!(handshake.text(), "de0a408ef519cd62e7379039634152874895c50c");
        writer.write_all(b"<handshake/>").await.unwrap();
        Self {
            reader,
            reading,
            writer,
            held: None,
            questions: Questions::Refused,
            presence: Vec::new(),
            pings: Some(Vec::new()),
        }
    }

    pub async fn send(&mut self, xml: &str) {
        self.writer.write_all(xml.as_bytes()).await.unwrap();
    }

    /// Ends the connection.
    pub async fn shut(&mut self) {
        self.writer.shutdown().await.unwrap();
    }

    /// Sends a stanza that the component may be gone too early to read; ignores errors.
    pub async fn send_if_it_lives(&mut self, xml: &str) {
        let _ = self.writer.write_all(xml.as_bytes()).await;
    }

    /// Returns the next stanza, or `None` if the component ended the stream. Returns barriers to
    /// the component.
    pub async fn receive(&mut self) -> Option<Element> {
        loop {
            let stanza = self.receive_any().await?;
            if stanza.name() == "presence" {
                let attr = |name| stanza.attr(name).unwrap_or("available").to_owned();
                self.presence.push((attr("type"), attr("to")));
                continue;
            }
            if let Some(pings) = self.pings.as_mut().filter(|_| is_ping(&stanza)) {
                pings.push(stanza);
                continue;
            }
            if !is_barrier(&stanza) {
                return Some(stanza);
            }
            match &mut self.held {
                Some(held) => held.push(stanza),
                None => self.return_barrier(&stanza, false).await,
            }
        }
    }

    /// Returns the presence stanzas received since the last call.
    pub fn take_presence(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.presence)
    }

    /// Passes pings to resources on like other stanzas from now on.
    pub fn receive_pings(&mut self) {
        self.pings = None;
    }

    /// Returns the pings to resources received since the last call.
    pub fn take_pings(&mut self) -> Vec<Element> {
        self.pings.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Waits for the next barrier and returns it, which confirms all notifications sent before.
    pub async fn next_barrier(&mut self) {
        let barrier = self.receive_any().await.unwrap();
        assert!(is_barrier(&barrier), "{}", shown(&barrier));
        self.return_barrier(&barrier, false).await;
    }

    /// Holds back all barriers from now on.
    pub fn hold_barriers(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Returns the held barriers, and every later one at once.
    pub async fn release_barriers(&mut self) {
        for barrier in self.held.take().into_iter().flatten() {
            self.return_barrier(&barrier, false).await;
        }
    }

    /// Takes the held barriers without returning them; later ones are returned at once.
    pub fn take_held(&mut self) -> Vec<Element> {
        self.held.take().unwrap_or_default()
    }

    /// Returns a barrier, answers for the address that it was sent to, or confirms all barriers,
    /// including those of previous processes.
    pub async fn return_barrier(&mut self, barrier: &Element, and_all_others: bool) {
        let (barrier_id, to) = (barrier.attr("id").unwrap(), barrier.attr("to").unwrap());
        let mut barrier = shown(barrier);
        if to.split_once('/').is_none_or(|(domain, _)| domain != SERVICE) {
            let error = "<error type='cancel'>\
                         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
            barrier = format!(
                "<iq type='error' from='{to}' to='{SERVICE}' id='{barrier_id}'>{error}</iq>"
            );
        }
        if and_all_others {
            let (last, id) = (u64::MAX, barrier_id);
            let connection = id.rsplit_once('-').unwrap().0;
            barrier = format!(
                "<iq type='result' from='{SERVICE}' to='{SERVICE}' id='{connection}-{last}'/>"
            );
        }
        // The component may have ended already.
        let _ = self.writer.write_all(barrier.as_bytes()).await;
    }

    /// Ends the connection like a server that dies: unread data is lost.
    pub async fn drop_unread(&mut self) {
        let _ = self.writer.shutdown().await;
    }

    /// Sets the reaction to later queries about multicast services.
    pub fn on_questions(&mut self, questions: Questions) {
        self.questions = questions;
    }

    /// Returns the next stanza of any kind.
    pub async fn receive_any(&mut self) -> Option<Element> {
        loop {
            match timeout(TIMEOUT, self.reader.next()).await.expect("silence") {
                Ok(StreamElement::Stanza(asked))
                    if is_question(&asked) && self.questions == Questions::Dropped => {}
                Ok(StreamElement::Stanza(asked))
                    if is_question(&asked) && self.questions == Questions::Refused =>
                {
                    let (to, id) = (asked.attr("to").unwrap(), asked.attr("id").unwrap());
                    let none = format!("<iq type='error' from='{to}' to='{SERVICE}' id='{id}'/>");
                    self.send_if_it_lives(&none).await;
                }
                Ok(StreamElement::Stanza(element)) => return Some(element),
                Ok(StreamElement::Closed) | Err(_) => return None,
                Ok(other) => panic!("{other:?}"),
            }
        }
    }
}

impl TestComponent {
    /// Starts a component with a store in memory.
    pub async fn start() -> Self {
        Self::with(Arc::new(MemoryStore::new()), |_| {}).await
    }

    /// Starts a component with this store and configuration.
    pub async fn with(store: Arc<dyn Store>, configure: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::at(listener, store, configure).await
    }

    /// Starts a component for the server that listens here.
    pub async fn at(
        listener: TcpListener,
        store: Arc<dyn Store>,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config {
            jid: SERVICE.into(),
            server: listener.local_addr().unwrap().to_string(),
            secret: Secret("secret".into()),
            store: "memory:".into(),
            admins: vec!["admin@localhost".into()],
            ..Config::default()
        };
        configure(&mut config);
        let (stop, stopped) = watch::channel(false);
        let (reload, configs) = watch::channel(config);
        let task = tokio::spawn(async move { serve(configs, store, stopped).await.unwrap() });
        let link = ServerStream::accept(&listener).await;
        Self { listener, link, stop, reload, task, inbox: VecDeque::new(), asked: 0 }
    }

    /// Waits until the component has reconnected.
    pub async fn reconnected(&mut self) {
        self.link = ServerStream::accept(&self.listener).await;
    }

    /// Breaks the connection, and waits until the component has reconnected.
    pub async fn reconnected_by_force(&mut self) {
        self.link.shut().await;
        self.reconnected().await;
    }

    pub async fn send(&mut self, xml: &str) {
        self.link.send(xml).await;
    }

    /// Returns the next answer; keeps messages for [`Self::messages`].
    pub async fn answer(&mut self) -> Element {
        loop {
            let stanza = self.link.receive().await.expect("the stream ended");
            if stanza.name() != "message" {
                return stanza;
            }
            self.inbox.push_back(stanza);
        }
    }

    /// Sends a request and returns its answer.
    pub async fn ask(&mut self, from: &str, kind: &str, content: &str) -> Element {
        self.asked += 1;
        let id = format!("ask-{}", self.asked);
        self.send(&format!(
            "<iq type='{kind}' id='{id}' from='{from}' to='{SERVICE}'>{content}</iq>"
        ))
        .await;
        let answer = self.answer().await;
        assert_eq!(answer.attr("id"), Some(id.as_str()), "another answer: {answer:?}");
        assert_eq!(answer.attr("to"), Some(from));
        assert_eq!(answer.attr("from"), Some(SERVICE));
        answer
    }

    /// Sends a request in the namespace of XEP-0060.
    pub async fn pubsub(&mut self, from: &str, kind: &str, content: &str) -> Element {
        self.ask(from, kind, &format!("<pubsub xmlns='{PUBSUB}'>{content}</pubsub>")).await
    }

    /// Sends a request in the owner namespace.
    pub async fn owner(&mut self, from: &str, kind: &str, content: &str) -> Element {
        self.ask(from, kind, &format!("<pubsub xmlns='{OWNER}'>{content}</pubsub>")).await
    }

    /// Sends a request that must succeed.
    pub async fn granted(&mut self, from: &str, content: &str) -> Element {
        let answer = self.pubsub(from, "set", content).await;
        assert_eq!(answer.attr("type"), Some("result"), "{content}: {}", shown(&answer));
        answer
    }

    /// Creates a node with this configuration.
    pub async fn create(&mut self, owner: &str, node: &str, fields: &[(&str, &str)]) {
        let form = form(fields);
        let content = format!("<create node='{node}'/><configure>{form}</configure>");
        self.granted(owner, &content).await;
    }

    /// Changes the configuration of a node.
    pub async fn configure(&mut self, owner: &str, node: &str, fields: &[(&str, &str)]) -> Element {
        let content = format!("<configure node='{node}'>{}</configure>", form(fields));
        self.owner(owner, "set", &content).await
    }

    pub async fn subscribe(&mut self, from: &str, node: &str) {
        self.granted(from, &format!("<subscribe node='{node}' jid='{from}'/>")).await;
    }

    pub async fn publish(&mut self, from: &str, node: &str, id: &str) -> Element {
        let item = format!("<item id='{id}'><x xmlns='urn:x'>{id}</x></item>");
        self.pubsub(from, "set", &format!("<publish node='{node}'>{item}</publish>")).await
    }

    /// Returns the ids of the items that an entity can retrieve, in order.
    pub async fn items(&mut self, from: &str, node: &str) -> Vec<String> {
        let answer = self.pubsub(from, "get", &format!("<items node='{node}'/>")).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        let items = answer.get_child("pubsub", PUBSUB).unwrap().get_child("items", PUBSUB).unwrap();
        items.children().map(|item| item.attr("id").unwrap().to_owned()).collect()
    }

    /// Subscribes this number of JIDs, with `zz` as the last recipient, and waits until each was
    /// notified.
    pub async fn subscribe_many(&mut self, owner: &str, node: &str, number: usize) {
        let names: Vec<_> =
            (1..number).map(|n| n.to_string()).chain(std::iter::once("zz".into())).collect();
        for names in names.chunks(4000) {
            let entry = |name: &String| {
                format!("<subscription jid='{name}@far.example' subscription='subscribed'/>")
            };
            let entries: String = names.iter().map(entry).collect();
            let content = format!("<subscriptions node='{node}'>{entries}</subscriptions>");
            let set = self.owner(owner, "set", &content).await;
            assert_eq!(set.attr("type"), Some("result"));
            for _ in names {
                assert!(is_about_a_subscription(&self.message().await));
            }
            self.link.next_barrier().await;
        }
    }

    /// Publishes an item of 20 kB: no buffer can hold a thousand copies.
    pub async fn publish_much(&mut self, owner: &str, node: &str) {
        let text = "x".repeat(20_000);
        let item = format!("<item id='much'><x xmlns='urn:x'>{text}</x></item>");
        self.granted(owner, &format!("<publish node='{node}'>{item}</publish>")).await;
    }

    /// Returns all messages sent so far; waits for a later event as the end mark.
    pub async fn messages(&mut self) -> Vec<Element> {
        let probe = "probe@localhost/p";
        let made = self.pubsub(ADMIN, "set", "<create/>").await;
        let made = made.get_child("pubsub", PUBSUB).unwrap().get_child("create", PUBSUB).unwrap();
        let node = made.attr("node").unwrap().to_owned();
        self.subscribe(probe, &node).await;
        self.publish(ADMIN, &node, "probe").await;
        // The end mark goes through the multicast service if notifications may be pending there.
        let is_probe = |message: &Element| {
            let addresses = message.children().filter(|child| child.name() == "addresses");
            let mut others = addresses.flat_map(Element::children).map(|other| other.attr("jid"));
            let mut lists = message.children().filter(|child| child.name() == "recipients");
            message.attr("to") == Some(probe)
                || others.any(|jid| jid == Some(probe))
                || lists.any(|list| list.text().lines().any(|line| line.ends_with(probe)))
        };
        while !self.inbox.iter().any(is_probe) {
            let message = self.link.receive().await.expect("the stream ended");
            assert_eq!(message.name(), "message");
            self.inbox.push_back(message);
        }
        self.granted(probe, &format!("<unsubscribe node='{node}' jid='{probe}'/>")).await;
        let gone = self.owner(ADMIN, "set", &format!("<delete node='{node}'/>")).await;
        assert_eq!(gone.attr("type"), Some("result"));
        self.inbox.drain(..).filter(|message| !is_probe(message)).collect()
    }

    /// Returns the contents of the events sent to a JID so far.
    pub async fn events_for(&mut self, jid: &str) -> Vec<Element> {
        let messages = self.messages().await;
        let received = messages.into_iter().filter(|message| message.attr("to") == Some(jid));
        received.map(|message| event(&message)).collect()
    }

    /// Returns the next message, including those received while a test waited for an answer.
    pub async fn message(&mut self) -> Element {
        let message = match self.inbox.pop_front() {
            Some(message) => message,
            None => self.link.receive().await.expect("the stream ended"),
        };
        assert_eq!(message.name(), "message", "{}", shown(&message));
        message
    }

    /// Returns the messages received while tests waited for answers.
    pub fn take_messages(&mut self) -> Vec<Element> {
        self.inbox.drain(..).collect()
    }

    /// Shuts the component down cleanly; returns the rest of the stream.
    pub async fn finish(mut self) -> Vec<Element> {
        self.stop.send_replace(true);
        let mut rest: Vec<_> = self.inbox.drain(..).collect();
        while let Some(stanza) = self.link.receive().await {
            rest.push(stanza);
        }
        timeout(TIMEOUT, self.task).await.expect("it does not stop").unwrap();
        rest
    }
}

/// Returns `true` if a message reports the state of a subscription.
pub fn is_about_a_subscription(message: &Element) -> bool {
    let event = message.get_child("event", EVENT);
    event.is_some_and(|event| event.has_child("subscription", EVENT))
}

/// Returns `true` if a stanza is a barrier of the component.
pub fn is_barrier(stanza: &Element) -> bool {
    stanza.name() == "iq" && stanza.attr("id").is_some_and(|id| id.starts_with("barrier-"))
}

/// Returns `true` if a stanza is a ping to a resource or its sibling address.
pub fn is_ping(stanza: &Element) -> bool {
    let id = stanza.attr("id").unwrap_or_default();
    stanza.attr("type") == Some("get") && (id.starts_with("resource-") || id.starts_with("beside-"))
}

/// Returns `true` if a stanza is a query for a multicast service.
pub fn is_question(stanza: &Element) -> bool {
    stanza.attr("type") == Some("get")
        && stanza.attr("id").is_some_and(|id| id.starts_with("multicast-"))
}

/// Returns the content of the event in a message.
pub fn event(message: &Element) -> Element {
    let event = message.get_child("event", EVENT).expect("an event");
    event.children().next().expect("content").clone()
}

/// Returns type and conditions of an error, including that of XEP-0060: `cancel item-not-found`.
pub fn error(answer: &Element) -> String {
    assert_eq!(answer.attr("type"), Some("error"), "{}", shown(answer));
    let error = answer.get_child("error", STREAM).unwrap();
    let mut words = vec![error.attr("type").unwrap().to_owned()];
    for child in error.children().filter(|child| child.name() != "text") {
        words.push(child.name().to_owned());
        words.extend(child.attr("feature").map(str::to_owned));
    }
    words.join(" ")
}

/// Returns the text of an error.
pub fn error_text(answer: &Element) -> String {
    let text = answer.get_child("error", STREAM).and_then(|error| error.get_child("text", STANZAS));
    text.unwrap_or_else(|| panic!("no text: {}", shown(answer))).text()
}

/// Returns a submitted form of node configuration; `title` stands for `pubsub#title`.
pub fn form(fields: &[(&str, &str)]) -> String {
    let fields = fields
        .iter()
        .map(|(var, value)| format!("<field var='pubsub#{var}'><value>{value}</value></field>"));
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>\
         http://jabber.org/protocol/pubsub#node_config</value></field>{}</x>",
        fields.collect::<String>()
    )
}

/// Serializes an element for failure messages.
pub fn shown(element: &Element) -> String {
    gjallar::xmpp::xml::writer::stand_alone(element)
}

/// Returns an element as another server receives it: Prosody and ejabberd write quotes in text and values as `&apos;` and `&quot;`.
pub fn relayed(element: &Element) -> String {
    let shown = shown(element);
    let pieces = shown.split_inclusive('>').map(|piece| {
        let (text, tag) = piece.split_at(piece.find('<').unwrap_or(piece.len()));
        text.replace('\'', "&apos;").replace('"', "&quot;")
            + &tag.replace("&#39;", "&apos;").replace("&#34;", "&quot;")
    });
    pieces.collect()
}

/// Asserts that form options have labels: clients such as Converse show an option without a label as an empty line.
pub fn assert_options_have_labels(element: &Element) {
    let is_option = element.is("option", "jabber:x:data");
    assert!(!is_option || element.attr("label").is_some(), "{}", shown(element));
    element.children().for_each(assert_options_have_labels);
}
