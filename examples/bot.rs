//! A bot: publishes an item a second to a node, and says when each is on stable storage.
//!
//! ```text
//! cargo run --example bot -- bot@localhost pw pubsub.localhost princely_musings 10 127.0.0.1:5222
//! ```
//!
//! The last argument is a server on this machine, reached without TLS. Anywhere else use
//! `Client::new(jid, password)` and tokio-xmpp's feature `starttls`.

#![allow(clippy::print_stdout)]

use std::{env, error::Error, time::Duration};

use futures::StreamExt;
use tokio::time::interval;
use tokio_xmpp::{
    Client, Event, IqRequest, IqResponse,
    connect::DnsConfig,
    jid::{BareJid, Jid},
    minidom::Element,
    xmlstream::Timeouts,
};
use xmpp_parsers::pubsub::{
    ItemId, NodeName, PubSub,
    pubsub::{Item, Publish},
};

// One thread: in tokio-xmpp 6.0.0 what is received while another thread sends may wait for ever, for
// `StanzaReceiver::poll_next` finds its lock taken then, and is not woken.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [jid, password, service, node, number, server] = arguments.as_slice() else {
        return Err("usage: bot JID PASSWORD SERVICE NODE NUMBER HOST:PORT".into());
    };
    let (jid, service) = (BareJid::new(jid)?, Jid::new(service)?);
    let mut client =
        Client::new_plaintext(jid, password, DnsConfig::addr(server), Timeouts::tight());

    // Nothing can be sent before the client is online.
    while let Some(event) = client.next().await {
        match event {
            Event::Online { .. } => break,
            Event::Disconnected(error) => return Err(error.into()),
            Event::Stanza(_) => {}
        }
    }
    let (sender, mut receiver) = client.split();
    // Somebody has to read the stream, or no answer ever arrives.
    let reading = tokio::spawn(async move { while receiver.next().await.is_some() {} });

    let mut second = interval(Duration::from_secs(1));
    for count in 1..=number.parse::<u32>()? {
        second.tick().await;
        let request = IqRequest::Set(publish(node, count).into());
        let answer = sender.send_iq(Some(service.clone()), request).await.await?;
        match answer {
            IqResponse::Result(_) => println!("published item-{count}: it is on disk"),
            IqResponse::Error(error) => return Err(format!("refused: {error:?}").into()),
        }
    }
    reading.abort();
    Ok(())
}

/// A request to publish one Atom entry.
fn publish(node: &str, count: u32) -> PubSub {
    let title = Element::builder("title", "http://www.w3.org/2005/Atom")
        .append(format!("Thought number {count}"));
    let entry = Element::builder("entry", "http://www.w3.org/2005/Atom").append(title).build();
    let id = Some(ItemId(format!("item-{count}")));
    let item = Item { id, publisher: None, payload: Some(entry) };
    let publish = Publish { node: NodeName(node.to_owned()), items: vec![item] };
    PubSub::Publish { publish, publish_options: None }
}
