//! Client for bots and subscribers. The client logs in with an account on any server, and works with any
//! publish-subscribe service.
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

/// Timeout of a login, and of a reply.
const DEADLINE: Duration = Duration::from_secs(30);
/// Maximum number of bytes of a name or namespace that can be received. This is the limit of tokio-xmpp's parser, which
/// has no option for it.
const MAX_TOKEN_BYTES: usize = 8192;
/// Maximum number of bytes of a start tag that can be received. The limit for stanzas to the service is the same.
const MAX_TAG_BYTES: usize = 4 * 1024 * 1024;

/// Account of the client, with its password and server.
#[derive(Clone, Debug)]
pub struct Account {
    jid: Jid,
    password: String,
    server: Option<String>,
}

impl Account {
    /// Returns an account. The client looks up the server in DNS under the domain of the JID (RFC 6120 §3.2), and uses
    /// TLS.
    #[must_use]
    pub fn new(jid: Jid, password: &str) -> Self {
        Self { jid, password: password.to_owned(), server: None }
    }

    /// Sets the host and port of the server. The client uses TLS, unless the host is given as `localhost` or a loopback
    /// address.
    #[must_use]
    pub fn at(self, server: &str) -> Self {
        Self { server: Some(server.to_owned()), ..self }
    }
}

/// Error of the client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The login failed. The text is the reason of the last attempt.
    #[error("not logged in within 30 s: {0}")]
    Login(String),
    /// The given server cannot be reached.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// Cause.
        reason: String,
    },
    /// The connection is lost.
    #[error("the connection was lost")]
    Lost,
    /// The reply contains an element that cannot be received.
    #[error(
        "an element with a name or a namespace of more than {MAX_TOKEN_BYTES} bytes, or a tag of more than 4 MiB, cannot be received"
    )]
    TooLong,
    /// No reply arrived in time; the request may have been executed.
    #[error("no reply within 30 s")]
    Timeout,
    /// The service rejected the request.
    #[error("refused: {condition}{}{}", more(.application.as_ref()), more(.text.as_ref()))]
    Refused {
        /// Defined condition.
        condition: String,
        /// Application-specific condition of XEP-0060.
        application: Option<String>,
        /// Text for the user.
        text: Option<String>,
    },
    /// A JID is invalid.
    #[error(transparent)]
    Jid(#[from] jid::Error),
    /// A payload is not one element with a namespace, or has XML that XMPP does not allow.
    #[error(transparent)]
    Payload(#[from] gjallar_pubsub::Error),
    /// A reply violates the protocol.
    #[error("the reply is not valid")]
    Answer,
}

fn more(text: Option<&String>) -> String {
    text.map(|text| format!(", {text}")).unwrap_or_default()
}

/// Connection to a server, for requests to one pubsub service.
///
/// The connection has a thread of its own, reconnects automatically, and ends when it is dropped. Up to 10 000 unread
/// events are queued. While the queue is full, all input from the server waits, including replies.
///
/// Attribute values have no length limit of their own. An element cannot be received if its name or namespace has more
/// than 8192 bytes, or if its tag has more than 4 MiB. If a reply has such an element, the request fails with
/// [`ClientError::TooLong`]. If an event has such an element, the event is returned without the element, and a warning
/// is logged.
#[derive(Debug)]
pub struct Client {
    link: ClientConnection,
    service: Jid,
    own: BareJid,
}

impl Client {
    /// Logs in with `account`, for requests to the pubsub service `service`.
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

    /// Subscribes the account (§6.1). [`event`](Self::event) then returns the events of the subscription. Like
    /// [`event`](Self::event), makes the client an available resource of the account.
    ///
    /// # Errors
    /// If the request is rejected or not answered.
    pub async fn subscribe(&mut self, node: &str) -> Result<(), ClientError> {
        self.link.become_available().await?;
        let subscribe =
            ElementWriter::new("subscribe").attr("node", node).attr("jid", self.own.as_str());
        self.set(ns::PUBSUB, subscribe).await.map(drop)
    }

    /// Ends the subscription of the account (§6.2).
    ///
    /// # Errors
    /// If the request is rejected or not answered.
    pub async fn unsubscribe(&mut self, node: &str) -> Result<(), ClientError> {
        let unsubscribe =
            ElementWriter::new("unsubscribe").attr("node", node).attr("jid", self.own.as_str());
        self.set(ns::PUBSUB, unsubscribe).await.map(drop)
    }

    /// Publishes an item (§7.1), and returns the id of the item. Without an id the service chooses one. The payload is
    /// an element with a namespace.
    ///
    /// # Errors
    /// If the payload is invalid, or the request is rejected or not answered.
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

    /// Retracts an item (§7.2), and requests that the subscribers are notified.
    ///
    /// # Errors
    /// If the request is rejected or not answered.
    pub async fn retract(&mut self, node: &str, id: &str) -> Result<(), ClientError> {
        let item = ElementWriter::new("item").attr("id", id);
        let retract =
            ElementWriter::new("retract").attr("node", node).attr("notify", "true").child(item);
        self.set(ns::PUBSUB, retract).await.map(drop)
    }

    /// Returns the newest items (§6.5). Returns at most `max` items, and fewer if the service has a lower limit.
    ///
    /// # Errors
    /// If the request is rejected or not answered.
    pub async fn items(&mut self, node: &str, max: u32) -> Result<Vec<Item>, ClientError> {
        let items =
            ElementWriter::new("items").attr("node", node).attr("max_items", &max.to_string());
        let answer = self.ask("get", ns::PUBSUB, items).await?.ok_or(ClientError::Answer)?;
        let items = answer.get_child("items", ns::PUBSUB).ok_or(ClientError::Answer)?;
        Ok(items.children().filter_map(Item::of).collect())
    }

    /// Creates a node (§8.1), and returns its name. Without a name the service chooses one.
    ///
    /// # Errors
    /// If the request is rejected or not answered.
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
    /// If the request is rejected or not answered.
    pub async fn delete(&mut self, node: &str) -> Result<(), ClientError> {
        self.set(ns::PUBSUB_OWNER, ElementWriter::new("delete").attr("node", node)).await.map(drop)
    }

    /// Waits for the next event of the service. Returns `None` if the connection has ended.
    ///
    /// Makes the client an available resource of the account, because a server sends events only to available
    /// resources. From then on the client also receives the other messages of the account, including messages that the
    /// server has stored, and drops them. Therefore use an account whose messages no other program needs.
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
