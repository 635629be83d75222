//! A subscriber: subscribes to a node and prints each event as it arrives, until a number of items came.
//!
//! ```text
//! cargo run --example subscriber -- romeo@localhost pw pubsub.localhost princely_musings 10 127.0.0.1:5222
//! ```
//!
//! The last argument is a server on this machine, reached without TLS. Anywhere else use
//! `Client::new(jid, password)` and tokio-xmpp's feature `starttls`.

#![allow(clippy::print_stdout)]

use std::{env, error::Error};

use futures::StreamExt;
use tokio_xmpp::{
    Client, Event, IqRequest, IqResponse, Stanza,
    connect::DnsConfig,
    jid::{BareJid, Jid},
    xmlstream::Timeouts,
};
use xmpp_parsers::{
    message::Message,
    presence::Presence,
    pubsub::{NodeName, PubSub, event, pubsub::Subscribe},
};

// One thread: in tokio-xmpp 6.0.0 what is received while another thread sends may wait for ever, for
// `StanzaReceiver::poll_next` finds its lock taken then, and is not woken.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [jid, password, service, node, number, server] = arguments.as_slice() else {
        return Err("usage: subscriber JID PASSWORD SERVICE NODE NUMBER HOST:PORT".into());
    };
    let (jid, service) = (BareJid::new(jid)?, Jid::new(service)?);
    let mut missing = number.parse::<usize>()?;
    let mut client =
        Client::new_plaintext(jid.clone(), password, DnsConfig::addr(server), Timeouts::tight());

    while missing > 0 {
        match client.next().await.ok_or("the stream ended")? {
            Event::Online { .. } => {
                // Events come to the bare JID, so the server must know that somebody is there.
                client.send_stanza(Presence::available().into()).await?;
                let subscribe =
                    Subscribe { jid: jid.clone().into(), node: Some(NodeName(node.clone())) };
                let subscribe = PubSub::Subscribe { subscribe: Some(subscribe), options: None };
                let request = IqRequest::Set(subscribe.into());
                let answer = client.send_iq(Some(service.clone()), request).await;
                tokio::spawn(async move {
                    match answer.await {
                        Ok(IqResponse::Result(_)) => println!("subscribed"),
                        Ok(IqResponse::Error(error)) => println!("refused: {error:?}"),
                        Err(error) => println!("{error}"),
                    }
                });
            }
            Event::Stanza(Stanza::Message(message)) if message.from.as_ref() == Some(&service) => {
                missing = missing.saturating_sub(items_in(&message));
            }
            Event::Stanza(_) => {}
            Event::Disconnected(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Prints the event in a message, and counts its items.
fn items_in(message: &Message) -> usize {
    let events =
        message.payloads.iter().filter_map(|payload| event::Event::try_from(payload.clone()).ok());
    let mut items = 0;
    for event in events {
        if let event::Payload::Items { published, .. } = &event.payload {
            for item in published {
                let id = item.id.as_ref().map_or("", |id| id.0.as_str());
                let payload = item.payload.as_ref().map(|payload| {
                    payload.children().map(|child| child.text()).collect::<String>()
                });
                println!("received {id}: {}", payload.unwrap_or_default());
            }
            items += published.len();
        } else {
            println!("received {:?}", event.payload);
        }
    }
    items
}
