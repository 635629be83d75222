//! Subscriptions of full JIDs whose resource no longer exists.

use std::{collections::HashMap, sync::Arc};

use gjallar::store::MemoryStore;
use minidom::Element;

use crate::support::component::{SERVICE, TestComponent, is_ping, shown};

const OWNER: &str = "owner@localhost/desk";
/// JID at an unreachable server, or at one that blocks stanzas of strangers.
const FAR: &str = "far@far.example/x";
const SHY: &str = "shy@hiding.example/x";
const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// Returns the answer of different resources and servers to a ping.
fn answer(ping: &Element) -> Option<String> {
    let (to, id) = (ping.attr("to").unwrap(), ping.attr("id").unwrap());
    let error = |content: &str| {
        format!("<iq type='error' from='{to}' to='{SERVICE}' id='{id}'>{content}</iq>")
    };
    let condition =
        |name: &str| format!("<error type='cancel'><{name} xmlns='{STANZAS}'/></error>");
    match to.split_once('/').unwrap() {
        ("shy@hiding.example", _) => Some(error(&condition("service-unavailable"))),
        ("far@far.example", _) => Some(error(&condition("remote-server-timeout"))),
        (_, "live") => Some(format!("<iq type='result' from='{to}' to='{SERVICE}' id='{id}'/>")),
        // A client without support for pings repeats the request in its error.
        (_, "plain") => {
            let ping = "<ping xmlns='urn:xmpp:ping'/>";
            Some(error(&format!("{ping}{}", condition("service-unavailable"))))
        }
        (_, "mute") => None,
        _ => Some(error(&condition("service-unavailable"))),
    }
}

#[tokio::test]
async fn subscriptions_of_long_gone_resources_end() {
    let store = Arc::new(MemoryStore::new());
    let configure = |config: &mut gjallar::config::Config| config.limits.dead_resource_seconds = 1;
    let mut component = TestComponent::with(store, configure).await;
    let kept = ["live", "plain", "mute", "busy"].map(|name| format!("reader@localhost/{name}"));
    let kept: Vec<_> =
        kept.into_iter().chain(["reader@localhost", FAR, SHY].map(String::from)).collect();
    component.link.receive_pings();
    // Rounds of pings begin at once.
    let send = |from: &str, kind: &str, id: &str, content: &str| {
        let pubsub =
            format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub>");
        format!("<iq type='{kind}' id='{id}' from='{from}' to='{SERVICE}'>{pubsub}</iq>")
    };
    let mut requests = vec![send(OWNER, "set", "create", "<create node='n'/>")];
    for jid in kept.iter().map(String::as_str).chain(["reader@localhost/dead"]) {
        let content = format!("<subscribe node='n' jid='{jid}'/>");
        requests.push(send(jid, "set", jid, &content));
    }
    let listed = "<subscription jid='reader@localhost/listed' subscription='subscribed'/>";
    let list = format!("<subscriptions node='n'>{listed}</subscriptions>");
    requests.push(send(OWNER, "set", "list", &list).replace("pubsub'", "pubsub#owner'"));
    for request in &requests {
        component.send(request).await;
    }
    let mut pings = HashMap::<String, usize>::new();
    let (mut is_dead_gone, mut rounds_after) = (false, 0);
    while rounds_after < 6 {
        let stanza = component.answer().await;
        if !is_ping(&stanza) {
            if stanza.attr("id") == Some("look") {
                let own = shown(&stanza);
                is_dead_gone = !own.contains("reader@localhost/dead'") && own.contains("/live");
                let kept = kept.iter().map(String::as_str).filter(|jid| jid.starts_with("reader"));
                // Nor is the owner notified that a subscribed resource is gone.
                for jid in kept.chain(["reader@localhost/listed"]) {
                    assert!(own.contains(&format!("jid='{jid}'")), "{jid}: {own}");
                }
            }
            continue;
        }
        let to = stanza.attr("to").unwrap().to_owned();
        *pings.entry(to.clone()).or_default() += 1;
        if let Some(answer) = answer(&stanza) {
            component.send(&answer).await;
        }
        if to.ends_with("/busy") {
            // The server reports the resource as absent, but the resource still sends stanzas.
            let ping = "<ping xmlns='urn:xmpp:ping'/>";
            component
                .send(&format!("<iq type='get' id='p' from='{to}' to='{SERVICE}'>{ping}</iq>"))
                .await;
        }
        if to.ends_with("/live") {
            rounds_after += usize::from(is_dead_gone);
            let look =
                send("reader@localhost/dead-or-not", "get", "look", "<subscriptions node='n'/>");
            component.send(&look).await;
        }
    }
    assert!(pings["reader@localhost/dead"] >= 3);
    assert!(!pings.contains_key("reader@localhost"), "{pings:?}");
    for jid in [FAR, SHY] {
        component.send(&send(jid, "get", jid, "<subscriptions node='n'/>")).await;
        let own = loop {
            let stanza = component.answer().await;
            if stanza.attr("id") == Some(jid) {
                break shown(&stanza);
            }
        };
        assert!(own.contains(&format!("jid='{jid}'")), "{own}");
    }
}
