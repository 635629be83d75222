//! A thread with a connection: what is asked goes to it, and what is told comes from it.
//!
//! tokio-xmpp 6.0.0 loses a wakeup where one thread sends while another one receives
//! (`StanzaReceiver::poll_next`), so its tasks have one thread to themselves.

use std::{net::SocketAddr, sync::Arc, thread};

use futures::StreamExt;
use jid::Jid;
use minidom::Element;
use tokio::{
    runtime,
    sync::{mpsc, watch},
};
use tokio_xmpp::{
    Event as Incoming, IqRequest, IqResponse, Stanza, connect::DnsConfig, xmlstream::Timeouts,
};
use tracing::warn;
use xmpp_parsers::{
    jid::Jid as Address,
    message::{Message, MessageType},
    presence::Presence,
    stanza_error::StanzaError,
};

use crate::wire::{ns, padding::padding};

use super::{
    Account, ClientError, MAX_TOKEN_BYTES,
    connect::Connector,
    event::{Event, events},
};

/// Events, and requests, that wait.
const MAX_EVENTS: usize = 10_000;
const MAX_ASKED: usize = 100;

type Answer = Result<Option<Element>, ClientError>;

/// A request, and where its answer goes.
pub(super) struct Ask {
    pub(super) to: Jid,
    pub(super) kind: &'static str,
    pub(super) content: Element,
    pub(super) answer: mpsc::Sender<Answer>,
}

#[derive(Debug)]
pub(super) struct Link {
    asked: mpsc::Sender<Ask>,
    events: mpsc::Receiver<Event>,
    online: watch::Receiver<bool>,
}

impl Link {
    /// Begins to connect. Events of this service are kept.
    pub(super) fn open(account: Account, service: Jid) -> Result<Self, ClientError> {
        address(&account.jid).and_then(|_| address(&service))?;
        let (asked, asks) = mpsc::channel(MAX_ASKED);
        let (tell, events) = mpsc::channel(MAX_EVENTS);
        let (say, online) = watch::channel(false);
        let failed = |error: std::io::Error| ClientError::Login(error.to_string());
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let drive = move || runtime.block_on(drive(account, &service, asks, &tell, &say));
        thread::Builder::new().name("client".into()).spawn(drive).map_err(failed)?;
        Ok(Self { asked, events, online })
    }

    /// Waits until it is logged in; whether it ever will be.
    pub(super) async fn online(&mut self) -> bool {
        self.online.wait_for(|is_online| *is_online).await.is_ok()
    }

    pub(super) async fn ask(&self, ask: Ask) -> Result<(), ClientError> {
        self.asked.send(ask).await.map_err(|_| ClientError::Lost)
    }

    pub(super) async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// Until nobody asks any more, or the connection has ended for good.
async fn drive(
    account: Account,
    service: &Jid,
    mut asks: mpsc::Receiver<Ask>,
    tell: &mpsc::Sender<Event>,
    say: &watch::Sender<bool>,
) {
    let Ok(own) = address(&account.jid) else { return };
    let server = Address::from(own.to_bare().domain().to_owned());
    let (refusals, mut refused) = watch::channel(0);
    let refusals = Arc::new(refusals);
    let connect = || connected(own.clone(), account.clone(), Arc::clone(&refusals));
    let mut client = connect();
    loop {
        tokio::select! {
            Ok(()) = refused.changed() => {
                warn!(
                    event = "client_stanza_too_long",
                    max_bytes = MAX_TOKEN_BYTES,
                    "the connection ended with a name or an attribute value above the limit; events until the next connection are lost"
                );
                // A resumed session would be sent the same stanza again.
                client = connect();
            }
            incoming = client.next() => match incoming {
                Some(Incoming::Online { .. }) => {
                    // Events go to the bare JID, so the server has to know that somebody is there.
                    if client.send_stanza(Presence::available().into()).await.is_ok() {
                        say.send_replace(true);
                    }
                }
                Some(Incoming::Stanza(Stanza::Message(message))) if is_of(&message, service) => {
                    for event in events(&message.payloads) {
                        if tell.send(event).await.is_err() {
                            return;
                        }
                    }
                }
                Some(Incoming::Stanza(_)) => {}
                Some(Incoming::Disconnected(_)) | None => return,
            },
            ask = asks.recv() => {
                let Some(Ask { to, kind, content, answer }) = ask else {
                    // If it cannot be closed in order it is closed all the same.
                    let _ = client.send_end().await;
                    return;
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
                let mut refused = refused.clone();
                refused.mark_unchanged();
                tokio::spawn(async move {
                    let answered = tokio::select! {
                        response = token => match response {
                            Ok(IqResponse::Result(content)) => Ok(content),
                            Ok(IqResponse::Error(error)) => Err(refusal(&error)),
                            Err(_) => Err(ClientError::Lost),
                        },
                        Ok(()) = refused.changed() => Err(ClientError::TooLong),
                    };
                    // Who asked may not wait any more.
                    let _ = answer.send(answered).await;
                });
            }
        }
    }
}

/// A ping with this many spaces, sent after a request with a long tag: the server may have the parser that needs
/// [`padding`], and tokio-xmpp sends white space in stanzas only.
fn ping(spaces: usize) -> Element {
    Element::builder("ping", ns::PING).append(" ".repeat(spaces)).build()
}

/// An address as tokio-xmpp knows it; it refuses characters younger than Unicode 3.2.
fn address(jid: &Jid) -> Result<Address, ClientError> {
    Address::new(jid.as_str()).map_err(|error| ClientError::Login(error.to_string()))
}

/// Without TLS to this machine only. Connections count the refusals of their parser.
fn connected(
    jid: Address,
    account: Account,
    refusals: Arc<watch::Sender<u64>>,
) -> tokio_xmpp::Client {
    let Account { password, server, .. } = account;
    let is_here = |server: &str| {
        let address = server.parse::<SocketAddr>().ok();
        address.is_some_and(|address| address.ip().is_loopback())
            || server.starts_with("localhost:")
    };
    let is_encrypted = !server.as_deref().is_some_and(is_here);
    let timeouts = if is_encrypted { Timeouts::default() } else { Timeouts::tight() };
    let server = match server {
        Some(server) => DnsConfig::addr(&server),
        None => DnsConfig::srv_default_client(jid.domain().as_str()),
    };
    let connector = Connector { server, is_encrypted, refusals };
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
