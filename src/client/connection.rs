//! Thread of a client connection, with queues for requests and events.
//!
//! tokio-xmpp 6.0.0 may lose a wakeup if one thread sends while another thread receives (`StanzaReceiver::poll_next`).
//! Therefore all tasks of a connection run on one thread.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, thread};

use futures::{FutureExt, StreamExt};
use jid::Jid;
use minidom::Element;
use tokio::{
    runtime,
    sync::{mpsc, watch},
};
use tokio_xmpp::{Event as Incoming, IqRequest, IqResponse, Stanza, xmlstream::Timeouts};
use tracing::warn;
use xmpp_parsers::{
    iq::Iq,
    jid::Jid as Address,
    message::{Message, MessageType},
    presence::Presence,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

use crate::xmpp::{stanza::ns, xml::padding::padding};

use super::{
    Account, ClientError,
    connect::Connector,
    event::{Event, events},
    long_values::LongValues,
};

/// Capacity of the queue of events.
const MAX_EVENTS: usize = 10_000;
/// Capacity of the queue of requests.
const MAX_ASKED: usize = 100;

type IqResult = Result<Option<Element>, ClientError>;

/// Request with the channel for its reply.
pub(super) struct QueuedRequest {
    pub(super) to: Jid,
    pub(super) kind: &'static str,
    pub(super) content: Element,
    pub(super) answer: mpsc::Sender<IqResult>,
}

/// Stanza for the connection's thread to send.
enum Outgoing {
    Request(QueuedRequest),
    /// Presence. It is sent now and after each later login, because the server sends the events of the account to
    /// available resources.
    Presence,
}

#[derive(Debug)]
pub(super) struct ClientConnection {
    requests: mpsc::Sender<Outgoing>,
    is_available: bool,
    events: mpsc::Receiver<Event>,
    online: watch::Receiver<bool>,
    obstacle: watch::Receiver<String>,
}

impl ClientConnection {
    /// Creates the connection, and starts connecting in its thread. Only events of `service` are delivered.
    pub(super) fn open(account: Account, service: Jid) -> Result<Self, ClientError> {
        address(&account.jid).and_then(|_| address(&service))?;
        let (requests, received) = mpsc::channel(MAX_ASKED);
        let (event_sender, events) = mpsc::channel(MAX_EVENTS);
        let (online_sender, online) = watch::channel(false);
        let (report, obstacle) = watch::channel("the server does not answer".to_owned());
        let failed = |error: std::io::Error| ClientError::Login(error.to_string());
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let drive = move || {
            runtime.block_on(drive(
                account,
                &service,
                received,
                &event_sender,
                &online_sender,
                report,
            ))
        };
        thread::Builder::new().name("client".into()).spawn(drive).map_err(failed)?;
        Ok(Self { requests, is_available: false, events, online, obstacle })
    }

    /// Waits for the login. Returns `false` if the connection has ended permanently.
    pub(super) async fn online(&mut self) -> bool {
        self.online.wait_for(|is_online| *is_online).await.is_ok()
    }

    /// Returns the reason why the last login failed.
    pub(super) fn obstacle(&self) -> String {
        self.obstacle.borrow().clone()
    }

    pub(super) async fn ask(&self, request: QueuedRequest) -> Result<(), ClientError> {
        self.requests.send(Outgoing::Request(request)).await.map_err(|_| ClientError::Lost)
    }

    /// Makes the connection an available resource of the account (RFC 6121 §4.2). The connection then receives all
    /// messages of the account. Until then, the server stores the messages, or sends them to other resources.
    pub(super) async fn become_available(&mut self) -> Result<(), ClientError> {
        if !self.is_available {
            self.requests.send(Outgoing::Presence).await.map_err(|_| ClientError::Lost)?;
            self.is_available = true;
        }
        Ok(())
    }

    pub(super) async fn event(&mut self) -> Option<Event> {
        // A lost connection may have received events before, so an error is ignored.
        let _ = self.become_available().await;
        self.events.recv().await
    }
}

/// Runs the connection until the request queue is closed, or until the connection has ended permanently.
async fn drive(
    account: Account,
    service: &Jid,
    mut received: mpsc::Receiver<Outgoing>,
    event_sender: &mpsc::Sender<Event>,
    online_sender: &watch::Sender<bool>,
    obstacle: watch::Sender<String>,
) {
    let Ok(own) = address(&account.jid) else { return };
    let server = Address::from(own.to_bare().domain().to_owned());
    let long_values = LongValues::new();
    let mut client = connected(own, account, long_values.clone(), obstacle);
    let mut is_available = false;
    loop {
        tokio::select! {
            incoming = client.next() => match incoming {
                Some(Incoming::Online { .. }) => {
                    online_sender.send_replace(true);
                    if is_available {
                        send_presence(&mut client).await;
                    }
                }
                Some(Incoming::Stanza(Stanza::Message(mut message))) if is_of(&message, service) => {
                    let payloads = message.payloads.iter_mut().map(|element| long_values.restore(element));
                    if payloads.filter(|is_whole| !is_whole).count() > 0 {
                        warn!(
                            event = "client_event_incomplete",
                            error = %ClientError::TooLong,
                            "left out an element of an event"
                        );
                    }
                    for event in events(&message.payloads) {
                        if event_sender.send(event).await.is_err() {
                            return;
                        }
                    }
                }
                Some(Incoming::Stanza(Stanza::Iq(iq))) => {
                    if let Some(reply) = reply(iq) {
                        // Queued at once, or dropped if the queue is full: waiting for the write would block all input,
                        // including the next login.
                        let _ = client.send_stanza(reply.into()).now_or_never();
                    }
                }
                Some(Incoming::Stanza(_)) => {}
                Some(Incoming::Disconnected(_)) | None => return,
            },
            outgoing = received.recv() => {
                let QueuedRequest { to, kind, content, answer } = match outgoing {
                    Some(Outgoing::Request(request)) => request,
                    Some(Outgoing::Presence) => {
                        is_available = true;
                        send_presence(&mut client).await;
                        continue;
                    }
                    None => {
                        // The connection ends even if the stream cannot be closed in order.
                        let _ = client.send_end().await;
                        return;
                    }
                };
                let spaces = padding(&String::from(&content));
                let request = match kind {
                    "get" => IqRequest::Get(content),
                    _ => IqRequest::Set(content),
                };
                let Ok(to) = address(&to) else { continue };
                let token = client.send_iq(Some(to), request).await;
                if spaces > 0 {
                    drop(client.send_iq(Some(server.clone()), IqRequest::Get(ping(spaces))).await);
                }
                let long_values = long_values.clone();
                tokio::spawn(async move {
                    let answered = match token.await {
                        Ok(IqResponse::Result(mut content)) => {
                            match content.iter_mut().all(|content| long_values.restore(content)) {
                                true => Ok(content),
                                false => Err(ClientError::TooLong),
                            }
                        }
                        Ok(IqResponse::Error(error)) => Err(refusal(&error)),
                        Err(_) => Err(ClientError::Lost),
                    };
                    // The send fails only if the caller has stopped waiting.
                    let _ = answer.send(answered).await;
                });
            }
        }
    }
}

async fn send_presence(client: &mut tokio_xmpp::Client) {
    // Presence lost with the connection is sent again after the next login.
    let _ = client.send_stanza(Presence::available().into()).await;
}

/// Replies to a request (RFC 6120 §8.2.3): a ping gets a result, any other request an error.
fn reply(iq: Iq) -> Option<Iq> {
    match iq {
        Iq::Get { from, id, payload, .. } if payload.is("ping", ns::PING) => {
            Some(Iq::Result { from: None, to: from, id, payload: None })
        }
        Iq::Get { from, id, .. } | Iq::Set { from, id, .. } => {
            let error = StanzaError {
                type_: ErrorType::Cancel,
                by: None,
                defined_condition: DefinedCondition::ServiceUnavailable,
                texts: BTreeMap::new(),
                other: None,
            };
            Some(Iq::Error { from: None, to: from, id, error, payload: None })
        }
        Iq::Result { .. } | Iq::Error { .. } => None,
    }
}

/// Returns a ping that contains `spaces` spaces. The ping follows a request with a long tag, because the server's
/// parser may hold back the tag until more bytes arrive ([`padding`]). tokio-xmpp cannot send white space between
/// stanzas.
fn ping(spaces: usize) -> Element {
    Element::builder("ping", ns::PING).append(" ".repeat(spaces)).build()
}

/// Converts a JID to the type of tokio-xmpp. This type refuses characters newer than Unicode 3.2.
fn address(jid: &Jid) -> Result<Address, ClientError> {
    Address::new(jid.as_str()).map_err(|error| ClientError::Login(error.to_string()))
}

/// Starts the client. The client uses TLS, unless the server's host is given as `localhost` or a loopback address.
fn connected(
    jid: Address,
    account: Account,
    long_values: LongValues,
    obstacle: watch::Sender<String>,
) -> tokio_xmpp::Client {
    let Account { password, server, .. } = account;
    let is_here = |server: &str| {
        let address = server.parse::<SocketAddr>().ok();
        address.is_some_and(|address| address.ip().is_loopback())
            || server.starts_with("localhost:")
    };
    let is_encrypted = !server.as_deref().is_some_and(is_here);
    let timeouts = if is_encrypted { Timeouts::default() } else { Timeouts::tight() };
    let connector = Connector { server, is_encrypted, long_values, next: Arc::default(), obstacle };
    tokio_xmpp::Client::new_with_connector(jid, password, connector, timeouts)
}

fn is_of(message: &Message, service: &Jid) -> bool {
    let from = message.from.as_ref().map(|from| from.as_str());
    from == Some(service.as_str()) && message.type_ != MessageType::Error
}

fn refusal(error: &StanzaError) -> ClientError {
    let condition = Element::from(error.defined_condition.clone()).name().to_owned();
    let application = error.other.as_ref().map(|other| other.name().to_owned());
    let text = error.texts.values().next().cloned();
    ClientError::Refused { condition, application, text }
}
