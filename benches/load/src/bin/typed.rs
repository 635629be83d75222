//! Typical component on tokio-xmpp: a typed message for each subscriber, without storage.

use std::error::Error;

use clap::Parser;
use futures::{SinkExt, StreamExt};
use gjallar_load::ComparedArgs;
use tokio_xmpp::{
    Component, Stanza,
    connect::DnsConfig,
    jid::{BareJid, Jid},
    xmlstream::Timeouts,
};
use xmpp_parsers::{
    iq::Iq,
    message::{Id, Message, MessageType},
    minidom::Element,
};

const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
const EVENT: &str = "http://jabber.org/protocol/pubsub#event";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = ComparedArgs::parse();
    let subscribers =
        arguments.subscribers().map(|jid| Jid::new(&jid)).collect::<Result<Vec<_>, _>>()?;
    let service = Jid::from(BareJid::new(&arguments.jid)?);
    let server = DnsConfig::addr(&arguments.server);
    let mut component =
        Component::new_plaintext(&arguments.jid, &arguments.secret, server, Timeouts::tight())
            .await?;
    let mut sequence = 0_u64;
    while let Some(stanza) = component.next().await {
        let Stanza::Iq(iq) = stanza else { continue };
        let (from, id, payload) = match iq {
            Iq::Set { from, id, payload, .. } | Iq::Get { from, id, payload, .. } => {
                (from, id, payload)
            }
            _ => continue,
        };
        let answer = Iq::Result { from: Some(service.clone()), to: from, id, payload: None };
        component.feed(answer.into()).await?;
        if let Some(publish) = payload.get_child("publish", PUBSUB) {
            let node = publish.attr("node").unwrap_or_default();
            let items = publish.children().map(|item| {
                Element::builder("item", EVENT)
                    .attr("id".try_into().expect("a name"), item.attr("id").unwrap_or_default())
                    .append_all(item.children().cloned())
                    .build()
            });
            let items = Element::builder("items", EVENT)
                .attr("node".try_into().expect("a name"), node)
                .append_all(items);
            let event = Element::builder("event", EVENT).append(items).build();
            sequence += 1;
            for subscriber in &subscribers {
                let mut message = Message::new(Some(subscriber.clone()));
                message.type_ = MessageType::Headline;
                message.from = Some(service.clone());
                message.id = Some(Id(sequence.to_string()));
                message.payloads.push(event.clone());
                component.feed(message.into()).await?;
            }
        }
        component.flush().await?;
    }
    Ok(())
}
