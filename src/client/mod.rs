//! The client half: a bot or a subscriber, with an account on any server, at a publish-subscribe service of any kind.
//!
//! ```no_run
//! use gjallar::client::{Account, Client};
//!
//! # async fn bot() -> Result<(), gjallar::client::ClientError> {
//! let account = Account::new("bot@example.org".parse()?, "password");
//! let mut client = Client::connect(account, "pubsub.example.org".parse()?).await?;
//! client.subscribe("princely_musings").await?;
//! client.publish("princely_musings", None, "<entry xmlns='http://www.w3.org/2005/Atom'/>").await?;
//! while let Some(event) = client.event().await {
//!     println!("{event:?}");
//! }
//! # Ok(())
//! # }
//! ```

mod connect;
mod connection;
mod event;
mod long_values;

pub use event::{Event, EventKind, Item};

use std::{io, time::Duration};

use jid::{BareJid, Jid};
use minidom::Element;
use thiserror::Error;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

use crate::xmpp::{
    stanza::{ns, payload},
    xml::writer::ElementWriter,
};

use self::connection::{ClientConnection, QueuedRequest};

/// How long logging in, and an answer, may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest name or namespace that can be received: the limit of tokio-xmpp's parser, which has no option for it.
const MAX_TOKEN_BYTES: usize = 8192;
/// The longest start tag that can be received, as in stanzas to the service.
const MAX_TAG_BYTES: usize = 4 * 1024 * 1024;

/// Who logs in, and where.
#[derive(Clone, Debug)]
pub struct Account {
    jid: Jid,
    password: String,
    server: Option<String>,
}

impl Account {
    /// An account whose server is found by its domain (RFC 6120 §3.2), and speaks TLS.
    #[must_use]
    pub fn new(jid: Jid, password: &str) -> Self {
        Self { jid, password: password.to_owned(), server: None }
    }

    /// The same at a server of this host and port, without TLS if that is this machine.
    #[must_use]
    pub fn at(self, server: &str) -> Self {
        Self { server: Some(server.to_owned()), ..self }
    }
}

/// Why something was not done.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The login did not succeed; with the obstacle of the last attempt.
    #[error("not logged in within 30 s: {0}")]
    Login(String),
    /// The server that was named cannot be reached.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// Which.
        server: String,
        /// Why.
        reason: String,
    },
    /// The connection is lost.
    #[error("the connection was lost")]
    Lost,
    /// The answer has an element that cannot be received.
    #[error(
        "an element with a name or a namespace of more than {MAX_TOKEN_BYTES} bytes, or a tag of more than 4 MiB, cannot be received"
    )]
    TooLong,
    /// No answer came in time; it may be done all the same.
    #[error("no reply within 30 s")]
    Timeout,
    /// The service refuses it.
    #[error("refused: {condition}{}{}", more(.application.as_ref()), more(.text.as_ref()))]
    Refused {
        /// The defined condition.
        condition: String,
        /// That of XEP-0060.
        application: Option<String>,
        /// What the service says to people.
        text: Option<String>,
    },
    /// A JID is none.
    #[error(transparent)]
    Jid(#[from] jid::Error),
    /// A payload is not one element with a namespace.
    #[error(transparent)]
    Payload(#[from] gjallar_pubsub::Error),
    /// An answer is not what the protocol says.
    #[error("the reply is not valid")]
    Answer,
}

fn more(text: Option<&String>) -> String {
    text.map(|text| format!(", {text}")).unwrap_or_default()
}

/// A connection to a server, and a service behind it.
///
/// It has a thread of its own, reconnects by itself, and ends when it is dropped. Up to 10 000 events wait until they
/// are read; then what comes from the server waits too, answers included.
///
/// Attribute values may have the length that the service allows. An element with a name or a namespace of more than 8 192
/// bytes, or with a tag of more than 4 MiB, cannot be received: an answer that has one is [`ClientError::TooLong`], and an
/// event lacks that element, which is logged as a warning.
#[derive(Debug)]
pub struct Client {
    link: ClientConnection,
    service: Jid,
    own: BareJid,
}

impl Client {
    /// Logs in.
    ///
    /// # Errors
    /// [`ClientError::Login`], [`ClientError::Unreachable`].
    pub async fn connect(account: Account, service: Jid) -> Result<Self, ClientError> {
        let own = account.jid.to_bare();
        if let Some(server) = account.server.clone() {
            let reached = timeout(DEADLINE, TcpStream::connect(&server)).await;
            let reached = reached.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            reached.map_err(|why| ClientError::Unreachable { server, reason: why.to_string() })?;
        }
        let link = ClientConnection::open(account, service.clone())?;
        let mut client = Self { link, service, own };
        match timeout(DEADLINE, client.link.online()).await {
            Ok(true) => Ok(client),
            _ => Err(ClientError::Login(client.link.obstacle())),
        }
    }

    /// Subscribes the account (§6.1); its events come to [`event`](Self::event). Makes the client available, as
    /// [`event`](Self::event) does.
    ///
    /// # Errors
    /// If it is refused, or not answered.
    pub async fn subscribe(&mut self, node: &str) -> Result<(), ClientError> {
        self.link.become_available().await?;
        let subscribe =
            ElementWriter::new("subscribe").attr("node", node).attr("jid", self.own.as_str());
        self.set(ns::PUBSUB, subscribe).await.map(drop)
    }

    /// Ends the subscription of the account (§6.2).
    ///
    /// # Errors
    /// If it is refused, or not answered.
    pub async fn unsubscribe(&mut self, node: &str) -> Result<(), ClientError> {
        let unsubscribe =
            ElementWriter::new("unsubscribe").attr("node", node).attr("jid", self.own.as_str());
        self.set(ns::PUBSUB, unsubscribe).await.map(drop)
    }

    /// Publishes an item (§7.1): a name, or none for one that the service chooses, and an element with a namespace.
    /// Returns the name.
    ///
    /// # Errors
    /// If the payload is no such element, or it is refused, or not answered.
    pub async fn publish(
        &mut self,
        node: &str,
        id: Option<&str>,
        payload: &str,
    ) -> Result<String, ClientError> {
        let payload = payload::parse(payload)?;
        let item = ElementWriter::new("item").attr_if("id", id).child(payload.xml());
        let publish = ElementWriter::new("publish").attr("node", node).child(item);
        let answer = self.set(ns::PUBSUB, publish).await?;
        let named = answer
            .as_ref()
            .and_then(|pubsub| pubsub.get_child("publish", ns::PUBSUB))
            .and_then(|publish| publish.get_child("item", ns::PUBSUB))
            .and_then(|item| item.attr("id"));
        named.or(id).map(str::to_owned).ok_or(ClientError::Answer)
    }

    /// Retracts an item, and has subscribers told (§7.2).
    ///
    /// # Errors
    /// If it is refused, or not answered.
    pub async fn retract(&mut self, node: &str, id: &str) -> Result<(), ClientError> {
        let item = ElementWriter::new("item").attr("id", id);
        let retract =
            ElementWriter::new("retract").attr("node", node).attr("notify", "true").child(item);
        self.set(ns::PUBSUB, retract).await.map(drop)
    }

    /// The newest items, as many as the service gives of so many (§6.5).
    ///
    /// # Errors
    /// If it is refused, or not answered.
    pub async fn items(&mut self, node: &str, max: u32) -> Result<Vec<Item>, ClientError> {
        let items =
            ElementWriter::new("items").attr("node", node).attr("max_items", &max.to_string());
        let answer = self.ask("get", ns::PUBSUB, items).await?.ok_or(ClientError::Answer)?;
        let items = answer.get_child("items", ns::PUBSUB).ok_or(ClientError::Answer)?;
        Ok(items.children().filter_map(Item::of).collect())
    }

    /// Creates a node (§8.1), or one that the service names. Returns the name.
    ///
    /// # Errors
    /// If it is refused, or not answered.
    pub async fn create(&mut self, node: Option<&str>) -> Result<String, ClientError> {
        let create = ElementWriter::new("create").attr_if("node", node);
        let answer = self.set(ns::PUBSUB, create).await?;
        let named = answer
            .as_ref()
            .and_then(|pubsub| pubsub.get_child("create", ns::PUBSUB))
            .and_then(|create| create.attr("node"));
        named.or(node).map(str::to_owned).ok_or(ClientError::Answer)
    }

    /// Deletes a node (§8.4).
    ///
    /// # Errors
    /// If it is refused, or not answered.
    pub async fn delete(&mut self, node: &str) -> Result<(), ClientError> {
        self.set(ns::PUBSUB_OWNER, ElementWriter::new("delete").attr("node", node)).await.map(drop)
    }

    /// The next event of the service; nothing if the connection has ended.
    ///
    /// Makes the client an available resource of the account, since a server sends events to such resources only. From then
    /// on it also gets the other messages of the account, those stored by the server included, and drops them: use an
    /// account that no other program reads messages of.
    pub async fn event(&mut self) -> Option<Event> {
        self.link.event().await
    }

    async fn set(
        &self,
        namespace: &str,
        action: ElementWriter,
    ) -> Result<Option<Element>, ClientError> {
        self.ask("set", namespace, action).await
    }

    async fn ask(
        &self,
        kind: &'static str,
        namespace: &str,
        action: ElementWriter,
    ) -> Result<Option<Element>, ClientError> {
        let content = ElementWriter::ns("pubsub", namespace).child(action).to_string();
        let content = payload::element(&content).map_err(|_| ClientError::Answer)?;
        let (answer, mut answered) = mpsc::channel(1);
        self.link.ask(QueuedRequest { to: self.service.clone(), kind, content, answer }).await?;
        match timeout(DEADLINE, answered.recv()).await {
            Err(_) => Err(ClientError::Timeout),
            Ok(None) => Err(ClientError::Lost),
            Ok(Some(answer)) => answer,
        }
    }
}
