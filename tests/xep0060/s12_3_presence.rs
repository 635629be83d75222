//! Presence (§12.3, §12.5): whose presence is requested, delivery by state, and effects of
//! unavailability.

use std::{sync::Arc, time::Duration};

use gjallar::{
    service::{Availability, PresenceUpdate},
    store::{MemoryStore, SledStore, Store},
};
use gjallar_pubsub::{ConfigField, Show, ShowSet};
use minidom::Element;

use crate::support::{
    component::{EVENT, SERVICE, TestComponent, error, event, is_barrier, shown},
    service::{TestService, jid},
};

pub const OWNER: &str = "owner@localhost/desk";
pub const OTHER: &str = "other@localhost/desk";
pub const READER: &str = "reader@localhost";
pub const PHONE: &str = "reader@localhost/phone";
pub const LAPTOP: &str = "reader@localhost/laptop";
const TABLET: &str = "reader@localhost/tablet";
const OPTIONS: &str = "http://jabber.org/protocol/pubsub#subscribe_options";

pub async fn component_with_node(fields: &[(&str, &str)]) -> TestComponent {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", fields).await;
    component
}

/// Sends presence, and waits until it is processed: stanzas of one sender are processed in order.
pub async fn presence(component: &mut TestComponent, from: &str, kind: &str, show: &str) {
    let kind = if kind.is_empty() { String::new() } else { format!("type='{kind}'") };
    let show = if show.is_empty() { String::new() } else { format!("<show>{show}</show>") };
    component
        .send(&format!("<presence {kind} from='{from}' to='{SERVICE}'>{show}</presence>"))
        .await;
    component.ask(from, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
}

/// Reports that no resource of an entity is available, and that the entity does not share its
/// presence.
pub async fn offline(component: &mut TestComponent, entity: &str) {
    let condition = "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>";
    let error = format!("<error type='cancel'>{condition}</error>");
    component
        .send(&format!("<presence type='error' from='{entity}' to='{SERVICE}'>{error}</presence>"))
        .await;
    component.ask(entity, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
}

pub async fn subscribe(component: &mut TestComponent, jid: &str, options: &[(&str, &[&str])]) {
    let field = |(var, values): &(&str, &[&str])| {
        let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
        format!("<field var='pubsub#{var}'>{values}</field>")
    };
    let fields: String = options.iter().map(field).collect();
    let form_type = format!("<field var='FORM_TYPE'><value>{OPTIONS}</value></field>");
    let form = format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x>");
    let options =
        if options.is_empty() { String::new() } else { format!("<options>{form}</options>") };
    component.granted(jid, &format!("<subscribe node='n' jid='{jid}'/>{options}")).await;
}

/// Returns the current recipients of an item.
async fn recipients_of_item(component: &mut TestComponent, id: &str) -> Vec<String> {
    component.publish(OWNER, "n", id).await;
    let messages = component.messages().await;
    messages.iter().map(|message| message.attr("to").unwrap().to_owned()).collect()
}

/// RFC 6121 §3.1.3, §4.3.2.
#[tokio::test]
async fn s12_3_service_grants_presence_subscriptions_to_all_entities() {
    let mut component = TestComponent::start().await;
    for (kind, expected) in [
        ("subscribe", vec!["subscribed", "available"]),
        ("probe", vec!["available"]),
        ("unsubscribe", vec!["unsubscribed"]),
        ("bogus", vec![]),
    ] {
        presence(&mut component, PHONE, kind, "").await;
        let sent = component.link.take_presence();
        let expected: Vec<_> =
            expected.into_iter().map(|kind| (kind.to_owned(), PHONE.to_owned())).collect();
        assert_eq!(sent, expected, "{kind}");
    }
}

#[tokio::test]
async fn s12_3_presence_is_requested_where_a_node_needs_it() {
    let mut component = component_with_node(&[]).await;
    component.subscribe(OTHER, "n").await;
    component.messages().await;
    assert_eq!(component.link.take_presence(), []);
    let asked = |jid: &str| [("subscribe".to_owned(), jid.to_owned())];
    subscribe(&mut component, PHONE, &[("show-values", &["chat"])]).await;
    component.messages().await;
    assert_eq!(component.link.take_presence(), asked(READER));
    // An entity that shares its presence is probed: it may be available already.
    presence(&mut component, READER, "subscribed", "").await;
    assert_eq!(component.link.take_presence(), [("probe".to_owned(), READER.to_owned())]);
    // Presence is requested once on each connection, with a probe if it was shared before.
    subscribe(&mut component, LAPTOP, &[("expire", &["presence"])]).await;
    component.configure(OWNER, "n", &[("presence_based_delivery", "1")]).await;
    component.messages().await;
    assert_eq!(component.link.take_presence(), asked("other@localhost"));
    component.reconnected_by_force().await;
    component.messages().await;
    let mut again = component.link.take_presence();
    again.sort();
    let probe = ("probe".to_owned(), READER.to_owned());
    assert_eq!(again, [probe, asked("other@localhost")[0].clone()]);
}

/// Returns the presence requests of the service so far.
pub async fn presence_requests_until_now(component: &mut TestComponent) -> Vec<String> {
    component.messages().await;
    let mut asked = component.link.take_presence();
    asked.retain(|(kind, _)| kind == "subscribe" || kind == "probe");
    let mut asked: Vec<_> = asked.into_iter().map(|(kind, to)| format!("{kind} {to}")).collect();
    asked.sort_unstable();
    asked
}

/// Erases the data of an entity as an administrator.
async fn erase(component: &mut TestComponent, entity: &str) {
    let field = |var: &str| format!("<field var='{var}'><value>{entity}</value></field>");
    let form = |var| format!("<x xmlns='jabber:x:data' type='submit'>{}</x>", field(var));
    let command = "xmlns='http://jabber.org/protocol/commands' node='urn:gjallar:command:erase'";
    for form in [String::new(), form("jid"), form("again")] {
        let content = format!("<command {command} sessionid='{entity}'>{form}</command>");
        let answer = component.ask("admin@localhost/desk", "set", &content).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    }
}

/// RFC 6121 §3.1.5: a refusal holds across restarts, until the subscriber makes a request that
/// needs its presence.
#[tokio::test]
async fn s12_3_refused_presence_request_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[("presence_based_delivery", "1")]).await;
    component.subscribe(READER, "n").await;
    component.subscribe("other@localhost", "n").await;
    let requests = ["subscribe other@localhost", "subscribe reader@localhost"];
    assert_eq!(presence_requests_until_now(&mut component).await, requests);
    presence(&mut component, READER, "unsubscribed", "").await;
    // A refusal without a request has no effect.
    presence(&mut component, "stranger@localhost", "unsubscribed", "").await;
    component.publish(OWNER, "n", "1").await;
    assert_eq!(presence_requests_until_now(&mut component).await, [""; 0]);
    component.reconnected_by_force().await;
    component.publish(OWNER, "n", "2").await;
    assert_eq!(presence_requests_until_now(&mut component).await, ["subscribe other@localhost"]);
    component.configure(OWNER, "n", &[("title", "another")]).await;
    assert_eq!(presence_requests_until_now(&mut component).await, [""; 0]);
    component.finish().await;
    let store = open();
    assert_eq!(store.presence_refusals().await.unwrap().len(), 1);
    let mut component = TestComponent::with(store, |_| {}).await;
    while presence_requests_until_now(&mut component).await != ["subscribe other@localhost"] {}
    component.publish(OWNER, "n", "3").await;
    assert_eq!(presence_requests_until_now(&mut component).await, [""; 0]);
    // The subscriber makes a new request that needs presence.
    component.granted(READER, &format!("<unsubscribe node='n' jid='{READER}'/>")).await;
    component.subscribe(READER, "n").await;
    assert_eq!(presence_requests_until_now(&mut component).await, ["subscribe reader@localhost"]);
    component.finish().await;
    assert_eq!(open().presence_refusals().await.unwrap().len(), 0);
    assert_eq!(open().check().await.unwrap(), Vec::<String>::new());
}

/// RFC 6121 §3.2.2: an entity that leaves all nodes that need its presence, or is erased, and then removes the service
/// from its roster leaves no record.
#[tokio::test]
async fn no_refusal_of_presence_is_stored_that_no_node_needs() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[("presence_based_delivery", "1")]).await;
    let entities = ["declines", "given", "leaves", "mute"].map(|name| format!("{name}@localhost"));
    for entity in &entities {
        component.subscribe(entity, "n").await;
    }
    assert_eq!(presence_requests_until_now(&mut component).await.len(), 4);
    let [declines, given, leaves, mute] = &entities;
    for entity in [given, leaves] {
        presence(&mut component, entity, "subscribed", "").await;
    }
    presence(&mut component, declines, "unsubscribed", "").await;
    component.granted(leaves, &format!("<unsubscribe node='n' jid='{leaves}'/>")).await;
    presence(&mut component, leaves, "unsubscribed", "").await;
    presence_requests_until_now(&mut component).await;
    for entity in [declines, given, mute] {
        erase(&mut component, entity).await;
    }
    component.publish(OWNER, "n", "1").await;
    assert_eq!(presence_requests_until_now(&mut component).await, [""; 0]);
    for entity in &entities {
        presence(&mut component, entity, "unsubscribed", "").await;
    }
    component.reconnected_by_force().await;
    component.publish(OWNER, "n", "2").await;
    assert_eq!(presence_requests_until_now(&mut component).await, [""; 0]);
    component.finish().await;
    let stored = open().presence_refusals().await.unwrap();
    assert!(stored.is_empty(), "{stored:?}");
}

#[tokio::test]
async fn s12_3_presence_is_not_requested_when_no_node_needs_it() {
    let mut component = component_with_node(&[("tempsub", "1")]).await;
    let silent = ("notify_delete", "0");
    component.create(OWNER, "m", &[("presence_based_delivery", "1"), silent]).await;
    for name in ["stays", "given", "gone"] {
        component.subscribe(&format!("{name}@localhost"), "n").await;
    }
    component.subscribe("deleted@localhost", "m").await;
    assert_eq!(presence_requests_until_now(&mut component).await.len(), 4);
    presence(&mut component, "given@localhost", "subscribed", "").await;
    component.granted("gone@localhost", "<unsubscribe node='n' jid='gone@localhost'/>").await;
    component.owner(OWNER, "set", "<delete node='m'/>").await;
    presence_requests_until_now(&mut component).await;
    component.reconnected_by_force().await;
    let asked = presence_requests_until_now(&mut component).await;
    assert_eq!(asked, ["probe given@localhost", "subscribe stays@localhost"]);
}

/// The digests of several subscribers are due in one commit. Only the presence of the subscriber with `show-values` is
/// needed.
#[tokio::test]
async fn s12_3_digest_of_another_subscriber_requests_no_presence() {
    let mut component = component_with_node(&[]).await;
    let digest: [(&str, &[&str]); 2] = [("digest", &["1"]), ("digest_frequency", &["1000"])];
    for name in ["a@localhost", "b@localhost"] {
        subscribe(&mut component, name, &digest).await;
    }
    let [digest, frequency] = digest;
    let shows: [(&str, &[&str]); 3] = [digest, frequency, ("show-values", &["chat"])];
    subscribe(&mut component, "shows@localhost", &shows).await;
    assert_eq!(presence_requests_until_now(&mut component).await, ["subscribe shows@localhost"]);
    component.publish(OWNER, "n", "1").await;
    for _ in 0..2 {
        component.message().await;
    }
    assert_eq!(presence_requests_until_now(&mut component).await, [""; 0]);
}

/// §4.2: on a new connection events wait for the presence of entities that share it.
#[tokio::test]
async fn s4_2_events_wait_for_probe_replies_on_a_new_connection() {
    let never = ("send_last_published_item", "never");
    let mut component = component_with_node(&[("presence_based_delivery", "1"), never]).await;
    for name in [READER, "away@localhost", "mute@localhost", "stranger@localhost"] {
        component.subscribe(name, "n").await;
    }
    for name in [READER, "away@localhost", "mute@localhost"] {
        presence(&mut component, name, "subscribed", "").await;
        presence(&mut component, &format!("{name}/x"), "", "").await;
    }
    component.messages().await;
    component.reconnected_by_force().await;
    component.publish(OWNER, "n", "1").await;
    // Entities that never shared their presence are not waited for.
    presence(&mut component, "away@localhost", "unavailable", "").await;
    presence(&mut component, "mute@localhost/x", "", "").await;
    presence(&mut component, PHONE, "", "").await;
    for to in ["mute@localhost", READER] {
        let message = component.message().await;
        assert_eq!(message.attr("to"), Some(to), "{}", shown(&message));
    }
    // Events wait for an entity that does not answer, but with a timeout.
    component.reconnected_by_force().await;
    component.publish(OWNER, "n", "2").await;
    presence(&mut component, "away@localhost", "unavailable", "").await;
    presence(&mut component, PHONE, "", "").await;
    let message = component.message().await;
    assert_eq!(message.attr("to"), Some(READER), "{}", shown(&message));
}

/// Entries that wait for presence count towards the notifications that a kill may repeat, and are
/// sent as the server confirms others.
#[tokio::test]
async fn s4_2_unacknowledged_deferred_notifications_are_bounded() {
    const SUBSCRIBERS: usize = 300;
    const EVENTS: usize = 40;
    let never = ("send_last_published_item", "never");
    let mut component = component_with_node(&[("presence_based_delivery", "1"), never]).await;
    let names: Vec<_> = (0..SUBSCRIBERS).map(|number| format!("u{number:03}@localhost")).collect();
    let presence_from =
        |name: &str, kind: &str| format!("<presence {kind} from='{name}' to='{SERVICE}'/>");
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let ping = format!("<iq type='get' id='x' from='a@b/c' to='{SERVICE}'>{ping}</iq>");
    for name in &names {
        component.subscribe(name, "n").await;
        component.send(&presence_from(name, "type='subscribed'")).await;
        component.send(&presence_from(&format!("{name}/r"), "")).await;
    }
    component.messages().await;
    component.reconnected_by_force().await;
    component.link.hold_barriers();
    for number in 0..EVENTS {
        component.publish(OWNER, "n", &number.to_string()).await;
    }
    for name in names.iter().rev() {
        component.send(&presence_from(&format!("{name}/r"), "")).await;
    }
    for _ in 0..10_000 {
        component.message().await;
    }
    for _ in 0..3 {
        component.send(&ping).await;
        loop {
            let stanza = component.link.receive_any().await.unwrap();
            assert_ne!(stanza.name(), "message", "more than 10 000 may be repeated");
            if stanza.attr("id") == Some("x") {
                break;
            }
        }
    }
    component.link.release_barriers().await;
    for _ in 10_000..SUBSCRIBERS * EVENTS {
        component.message().await;
    }
    assert!(component.messages().await.is_empty());
}

/// Events of other nodes do not wait with those of a node that waits for presence.
#[tokio::test]
async fn s4_2_events_of_other_nodes_do_not_wait_for_presence() {
    let mut component = component_with_node(&[("presence_based_delivery", "1")]).await;
    component.create(OWNER, "other", &[]).await;
    for (node, name) in [("n", READER), ("n", "mute@localhost"), ("other", OTHER)] {
        component.subscribe(name, node).await;
    }
    for name in [READER, "mute@localhost"] {
        presence(&mut component, name, "subscribed", "").await;
    }
    component.messages().await;
    component.reconnected_by_force().await;
    component.messages().await;
    let began = tokio::time::Instant::now();
    component.publish(OWNER, "n", "1").await;
    component.publish(OWNER, "other", "2").await;
    component.publish(OWNER, "n", "3").await;
    component.publish(OWNER, "other", "4").await;
    assert_eq!(
        sent_items(&mut component).await,
        ["2", "4"].map(|id| format!("{OTHER} other {id}"))
    );
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // Waiting events outlive the connection, and are sent in order; one of the two subscribers does
    // not send presence.
    component.reconnected_by_force().await;
    presence(&mut component, PHONE, "", "").await;
    let mut sent = Vec::new();
    while sent.len() < 2 {
        let message = component.message().await;
        if message.attr("to") == Some(READER) {
            sent.push(event(&message).children().next().unwrap().attr("id").unwrap().to_owned());
        }
    }
    assert_eq!(sent, ["1", "3"]);
    // Now everything is confirmed and not repeated.
    component.messages().await;
    component.publish(OWNER, "other", "5").await;
    assert_eq!(sent_items(&mut component).await, [format!("{OTHER} other 5")]);
    component.finish().await;
}

/// A stop does not wait for presence, because stanzas are no longer read: deferred events are sent
/// after the next start.
#[tokio::test]
async fn s4_2_deferred_events_are_sent_after_a_stop_and_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[("presence_based_delivery", "1")]).await;
    component.create(OWNER, "other", &[]).await;
    component.subscribe(READER, "n").await;
    component.subscribe(OTHER, "other").await;
    presence(&mut component, READER, "subscribed", "").await;
    component.messages().await;
    component.reconnected_by_force().await;
    component.messages().await;
    component.publish(OWNER, "n", "1").await;
    component.publish(OWNER, "other", "2").await;
    let stopping = tokio::time::timeout(Duration::from_secs(5), component.finish());
    let sent = stopping.await.expect("it waits for presence");
    let sent: Vec<_> = sent.iter().filter(|stanza| stanza.name() == "message").collect();
    assert_eq!(sent.iter().map(|to| to.attr("to").unwrap()).collect::<Vec<_>>(), [OTHER]);
    let mut component = TestComponent::with(open(), |_| {}).await;
    presence(&mut component, PHONE, "", "").await;
    let mut sent = sent_items(&mut component).await;
    while !sent.contains(&format!("{READER} n 1")) {
        sent.extend(sent_items(&mut component).await);
    }
    component.finish().await;
    assert_eq!(open().check().await.unwrap(), Vec::<String>::new());
}

/// A stop records events sent after deferred ones, and the recipients they were sent to. Another
/// stop before the presence of the other recipients is known keeps the record.
#[tokio::test]
async fn s4_2_stop_repeats_no_event_that_was_sent_after_deferred_events() {
    const NODES: [&str; 3] = ["n1", "n2", "n3"];
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "other", &[]).await;
    component.subscribe(OTHER, "other").await;
    for node in NODES {
        let fields = [("presence_based_delivery", "1"), ("send_last_published_item", "never")];
        component.create(OWNER, node, &fields).await;
        for name in ["early@localhost", READER] {
            component.subscribe(name, node).await;
        }
    }
    for name in ["early@localhost", READER] {
        presence(&mut component, name, "subscribed", "").await;
    }
    component.messages().await;
    component.reconnected_by_force().await;
    presence(&mut component, "early@localhost/phone", "", "").await;
    component.messages().await;
    let mut sent = Vec::new();
    for node in NODES.into_iter().chain(["other"]) {
        component.publish(OWNER, node, "1").await;
        sent.extend(sent_items(&mut component).await);
    }
    let early = NODES.map(|node| format!("early@localhost {node} 1"));
    assert_eq!(sent, [&early[..], &[format!("{OTHER} other 1")]].concat());
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    presence(&mut component, "early@localhost/phone", "", "").await;
    component.publish(OWNER, "other", "2").await;
    assert_eq!(sent_items(&mut component).await, [format!("{OTHER} other 2")]);
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    for name in ["early@localhost/phone", PHONE] {
        presence(&mut component, name, "", "").await;
    }
    let mut sent = Vec::new();
    while sent.len() < NODES.len() {
        sent.extend(sent_items(&mut component).await);
    }
    component.publish(OWNER, "other", "3").await;
    sent.extend(sent_items(&mut component).await);
    let expected = NODES.map(|node| format!("{READER} {node} 1"));
    assert_eq!(sent, [&expected[..], &[format!("{OTHER} other 3")]].concat());
    component.finish().await;
    assert_eq!(open().check().await.unwrap(), Vec::<String>::new());
}

/// Deferred events are sent although as many notifications as a kill may repeat follow them: none
/// of those counts as confirmed before the deferred ones.
#[tokio::test]
async fn s4_2_deferred_entries_are_delivered_after_many_later_ones() {
    const AUDIENCE: usize = 10_100;
    let mut component = component_with_node(&[("presence_based_delivery", "1")]).await;
    component.subscribe(READER, "n").await;
    presence(&mut component, READER, "subscribed", "").await;
    component.create(OWNER, "large", &[]).await;
    for begin in (0..AUDIENCE).step_by(500) {
        let entry = |n| format!("<subscription jid='s{n}@far.example' subscription='subscribed'/>");
        let all: String = (begin..AUDIENCE.min(begin + 500)).map(entry).collect();
        let content = format!("<subscriptions node='large'>{all}</subscriptions>");
        let answer = component.owner(OWNER, "set", &content).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    }
    component.messages().await;
    component.reconnected_by_force().await;
    component.publish(OWNER, "n", "waits").await;
    component.publish(OWNER, "large", "follows").await;
    let (mut of_large, mut of_n) = (0, 0);
    while (of_large, of_n) != (AUDIENCE, 1) {
        let message = tokio::time::timeout(Duration::from_secs(60), component.message()).await;
        let message = message.expect("nothing goes on");
        let items = event(&message);
        match items.attr("node") {
            Some("large") => of_large += 1,
            Some("n") => of_n += 1,
            other => panic!("{other:?}"),
        }
        if of_large == 10_000 {
            presence(&mut component, PHONE, "", "").await;
        }
    }
    component.finish().await;
}

/// Sends presence as a server repeats it in reply to a probe, with its original time.
async fn send_delayed_presence(component: &mut TestComponent, from: &str, stamp: &str) {
    let delay = format!("<delay xmlns='urn:xmpp:delay' stamp='{stamp}'/>");
    component.send(&format!("<presence from='{from}' to='{SERVICE}'>{delay}</presence>")).await;
    component.ask(from, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
}

/// §16.4.4: a resource that was online all the time has not come online, which the repeated
/// presence proves; a resource that may have been away is sent the last item.
#[tokio::test]
async fn s16_4_4_available_resource_does_not_come_online_again_on_a_new_connection() {
    const EARLIER: &str = "2000-01-01T00:00:00Z";
    let mut component =
        component_with_node(&[("send_last_published_item", "on_sub_and_presence")]).await;
    component.publish(OWNER, "n", "1").await;
    component.subscribe(READER, "n").await;
    presence(&mut component, PHONE, "", "").await;
    presence(&mut component, LAPTOP, "", "").await;
    assert_eq!(component.messages().await.len(), 3);
    for _ in 0..2 {
        // Presence of the laptop is received only after the second interruption.
        component.reconnected_by_force().await;
        // Unconfirmed notifications are repeated.
        component.messages().await;
        send_delayed_presence(&mut component, PHONE, EARLIER).await;
        presence(&mut component, PHONE, "", "away").await;
        assert_eq!(component.messages().await.len(), 0);
    }
    send_delayed_presence(&mut component, LAPTOP, EARLIER).await;
    assert_eq!(component.messages().await.len(), 0);
    // A new resource and a returning resource are sent the last item.
    presence(&mut component, "reader@localhost/third", "", "").await;
    assert_eq!(component.messages().await.len(), 1);
    presence(&mut component, LAPTOP, "unavailable", "").await;
    presence(&mut component, LAPTOP, "", "").await;
    assert_eq!(component.messages().await.len(), 1);
    // After a restart of the server all resources come online again.
    for (stamp, times) in [(None, 1), (Some("2999-01-01T00:00:00Z"), 1), (Some("soon"), 1)] {
        component.reconnected_by_force().await;
        component.messages().await;
        match stamp {
            None => presence(&mut component, PHONE, "", "").await,
            Some(stamp) => send_delayed_presence(&mut component, PHONE, stamp).await,
        }
        assert_eq!(component.messages().await.len(), times, "{stamp:?}");
        // At most once on each connection.
        presence(&mut component, PHONE, "", "away").await;
        assert_eq!(component.messages().await.len(), 0);
    }
}

/// Presence requests after a reconnection are paced, and requests of clients are answered
/// meanwhile.
#[tokio::test]
async fn s12_3_presence_requests_are_paced_after_a_reconnection() {
    let mut component = component_with_node(&[]).await;
    component.subscribe_many(OWNER, "n", 4000).await;
    component.configure(OWNER, "n", &[("presence_based_delivery", "1")]).await;
    // The first presence requests are sent while the component connects.
    let broken = tokio::time::Instant::now();
    component.reconnected_by_force().await;
    let began = tokio::time::Instant::now();
    let (mut asked, mut took) = (0, Vec::new());
    while began.elapsed() < Duration::from_secs(2) {
        let sent = tokio::time::Instant::now();
        component.ask(OWNER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
        took.push(sent.elapsed());
        asked += component.link.take_presence().len();
    }
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    let most = 50.0 + 500.0 * broken.elapsed().as_secs_f64();
    assert!(asked > 500 && (asked as f64) <= most, "{asked} of at most {most}");
    assert!(p99 < Duration::from_millis(100), "{p99:?} of {} requests", took.len());
}

/// Number of known entities in the test below, and its maximum duration.
const ENTITIES: usize = 2000;
const TIMEOUT: Duration = Duration::from_secs(120);

/// Memory of this process in MiB, including the server's end of the stream.
fn resident_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Answers pings as the server until the service answers a request.
async fn answer_until(component: &mut TestComponent, id: &str) {
    loop {
        let stanza = component.link.receive_any().await.unwrap();
        let (to, asked) = (stanza.attr("to").unwrap(), stanza.attr("id").unwrap_or_default());
        if is_barrier(&stanza) {
            component.link.return_barrier(&stanza, false).await;
        } else if asked.starts_with("silent-") {
            let pong = format!("<iq type='result' from='{to}' to='{SERVICE}' id='{asked}'/>");
            component.send(&pong).await;
        } else if asked == id {
            assert_eq!(stanza.attr("type"), Some("result"), "{}", shown(&stanza));
            return;
        }
    }
}

/// After a reconnection with many known entities, events of other nodes and answers are not delayed, and events that depend
/// on presence wait no longer than the timeout. `make presence` runs the long form; `PRESENCE_ENTITIES` sets the number.
#[tokio::test]
async fn s12_3_reconnection_with_many_entities_delays_no_other_events() {
    #[allow(clippy::disallowed_methods)] // the long form is asked for by a variable
    let entities = std::env::var("PRESENCE_ENTITIES").map_or(ENTITIES, |all| all.parse().unwrap());
    // No domain may use up all the slots for presence requests.
    let name = |number: usize| format!("u{number}@d{}.example", number % 1000);
    let never = ("send_last_published_item", "never");
    let mut component = component_with_node(&[("presence_based_delivery", "1"), never]).await;
    component.create(OWNER, "other", &[]).await;
    component.subscribe(OTHER, "other").await;
    for first in (0..entities).step_by(2000) {
        let batch = first..entities.min(first + 2000);
        let entry = |n| format!("<subscription jid='{}' subscription='subscribed'/>", name(n));
        let entries: String = batch.clone().map(entry).collect();
        let content = format!("<subscriptions node='n'>{entries}</subscriptions>");
        let content =
            format!("<pubsub xmlns='{}'>{content}</pubsub>", crate::support::component::OWNER);
        component
            .send(&format!("<iq type='set' id='list' from='{OWNER}' to='{SERVICE}'>{content}</iq>"))
            .await;
        answer_until(&mut component, "list").await;
        for number in batch.clone() {
            let from = name(number);
            component
                .send(&format!("<presence type='subscribed' from='{from}' to='{SERVICE}'/>"))
                .await;
            component.send(&format!("<presence from='{from}/x' to='{SERVICE}'/>")).await;
        }
        let last = format!("{}/x", name(batch.end - 1));
        component
            .send(&format!(
                "<iq type='get' id='last' from='{last}' to='{SERVICE}'>\
                 <ping xmlns='urn:xmpp:ping'/></iq>"
            ))
            .await;
        answer_until(&mut component, "last").await;
    }
    let before = resident_mebibytes();
    component.reconnected_by_force().await;
    let began = tokio::time::Instant::now();
    let send = |node: &str| {
        let item = "<item id='1'><x xmlns='urn:x'/></item>";
        let publish = format!("<publish node='{node}'>{item}</publish>");
        let content =
            format!("<pubsub xmlns='{}'>{publish}</pubsub>", crate::support::component::PUBSUB);
        format!("<iq type='set' id='p' from='{OWNER}' to='{SERVICE}'>{content}</iq>")
    };
    let ping = format!(
        "<iq type='get' id='ping' from='{OTHER}' to='{SERVICE}'><ping xmlns='urn:xmpp:ping'/></iq>"
    );
    component.send(&(send("n") + &send("other") + &ping)).await;
    let (mut asked, mut pinged, mut sent, mut most) = (0, 0, 0, before);
    let (mut of_other, mut of_presence) = (None, None);
    let (mut took, mut ping_sent) = (Vec::new(), began);
    while (asked < entities || sent <= entities / 2) && began.elapsed() < TIMEOUT {
        let stanza = component.link.receive_any().await.unwrap();
        let (to, id) = (stanza.attr("to").unwrap(), stanza.attr("id").unwrap_or_default());
        if is_barrier(&stanza) {
            component.link.return_barrier(&stanza, false).await;
        } else if stanza.name() == "presence" {
            assert_eq!(stanza.attr("type"), Some("probe"));
            asked += 1;
            // Every second entity is unavailable, and its server does not report it.
            if asked % 2 == 0 {
                component.send(&format!("<presence from='{to}/x' to='{SERVICE}'/>")).await;
            }
        } else if stanza.name() == "message" {
            sent += 1;
            let first = if to == OTHER { &mut of_other } else { &mut of_presence };
            first.get_or_insert_with(|| began.elapsed());
        } else if id.starts_with("silent-") {
            pinged += 1;
            let pong = format!("<iq type='result' from='{to}' to='{SERVICE}' id='{id}'/>");
            component.send(&pong).await;
        } else if id == "ping" {
            took.push(ping_sent.elapsed());
            ping_sent = tokio::time::Instant::now();
            component.send(&ping).await;
            if took.len().is_multiple_of(1000) {
                most = most.max(resident_mebibytes());
            }
        }
    }
    let elapsed = began.elapsed();
    took.sort_unstable();
    let (p99, worst) = (took[took.len() * 99 / 100], took[took.len() - 1]);
    eprintln!(
        "{entities} entities: {asked} asked and {pinged} pinged in {elapsed:?}; first event of another node after \
         {of_other:?}, of the node with presence after {of_presence:?}, {sent} notifications; p99 of {} pings {p99:?}, \
         worst {worst:?}; {before} MiB before, {most} MiB at most",
        took.len()
    );
    // All entities are examined once when the connection begins.
    let begins = Duration::from_secs(1 + entities as u64 / 40_000);
    assert!(of_other.unwrap() < begins, "{of_other:?}");
    assert!(p99 < Duration::from_millis(100), "{p99:?}");
    assert!(of_presence.unwrap() < Duration::from_secs(11) + begins, "{of_presence:?}");
    assert!(sent > entities / 2, "{sent}");
}

#[tokio::test]
async fn s16_4_2_events_are_sent_in_the_requested_show_states() {
    let mut component = component_with_node(&[]).await;
    subscribe(&mut component, READER, &[("show-values", &["chat", "online"])]).await;
    presence(&mut component, READER, "subscribed", "").await;
    assert_eq!(recipients_of_item(&mut component, "unknown").await, [""; 0]);
    for (from, kind, show, is_delivered) in [
        (PHONE, "", "", true),
        (PHONE, "", "away", false),
        (LAPTOP, "", "chat", true),
        (LAPTOP, "", "dnd", false),
        (LAPTOP, "", "nonsense", false),
        (PHONE, "", "chat", true),
        (PHONE, "unavailable", "", false),
        (LAPTOP, "", "", true),
        (READER, "unavailable", "", false),
    ] {
        presence(&mut component, from, kind, show).await;
        let recipients = recipients_of_item(&mut component, &format!("{from}{kind}{show}")).await;
        assert_eq!(!recipients.is_empty(), is_delivered, "{from} {kind} {show}");
    }
    // With all values, presence is irrelevant.
    let all = ["away", "chat", "dnd", "online", "xa"];
    component.granted(READER, &format!("<unsubscribe node='n' jid='{READER}'/>")).await;
    subscribe(&mut component, READER, &[("show-values", &all)]).await;
    component.messages().await;
    assert_eq!(recipients_of_item(&mut component, "any").await, [READER]);
    let wrong = "<field var='pubsub#show-values'><value>busy</value></field>";
    let form_type = format!("<field var='FORM_TYPE'><value>{OPTIONS}</value></field>");
    let form = format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{wrong}</x>");
    let content = format!("<options node='n' jid='{READER}'>{form}</options>");
    let refused = component.pubsub(READER, "set", &content).await;
    assert_eq!(error(&refused), "modify bad-request invalid-options");
}

#[tokio::test]
async fn s4_2_presence_based_delivery_reaches_available_subscribers() {
    let never = ("send_last_published_item", "never");
    let mut component = component_with_node(&[("presence_based_delivery", "1"), never]).await;
    for jid in [READER, PHONE, OTHER] {
        component.subscribe(jid, "n").await;
    }
    for jid in [READER, "other@localhost"] {
        offline(&mut component, jid).await;
    }
    assert_eq!(recipients_of_item(&mut component, "1").await, [""; 0]);
    presence(&mut component, LAPTOP, "", "xa").await;
    assert_eq!(recipients_of_item(&mut component, "2").await, [READER]);
    presence(&mut component, PHONE, "", "").await;
    assert_eq!(recipients_of_item(&mut component, "3").await, [READER, PHONE]);
    component.configure(OWNER, "n", &[("presence_based_delivery", "0")]).await;
    assert_eq!(recipients_of_item(&mut component, "4").await, [OTHER, READER, PHONE]);
}

#[tokio::test]
async fn s12_2_last_item_is_sent_to_entities_that_become_available() {
    let mut component =
        component_with_node(&[("send_last_published_item", "on_sub_and_presence")]).await;
    component.publish(OWNER, "n", "1").await;
    component.subscribe(READER, "n").await;
    let is_delayed = |message: &Element| message.children().any(|child| child.name() == "delay");
    let messages = component.messages().await;
    assert!(messages.len() == 1 && is_delayed(&messages[0]));
    for (from, kind, times) in
        [(PHONE, "", 1), (PHONE, "", 0), (LAPTOP, "", 1), (PHONE, "unavailable", 0), (PHONE, "", 1)]
    {
        presence(&mut component, from, kind, "").await;
        let messages = component.messages().await;
        assert_eq!(messages.len(), times, "{from} {kind}");
        for message in &messages {
            assert!(is_delayed(message) && event(message).is("items", EVENT));
            assert_eq!(message.attr("to"), Some(READER));
        }
    }
    component.configure(OWNER, "n", &[("send_last_published_item", "on_sub")]).await;
    presence(&mut component, "reader@localhost/third", "", "").await;
    assert_eq!(component.messages().await.len(), 0);
}

/// §16.4.4: an entity that was online before the service needed its presence does not count as coming online.
#[tokio::test]
async fn s16_4_4_online_subscribers_receive_no_further_last_items() {
    const EARLIER: &str = "2000-01-01T00:00:00Z";
    const LATER: &str = "2999-01-01T00:00:00Z";
    let based = ("presence_based_delivery", "1");
    let purged = ("purge_offline", "1");
    let open = ("publish_model", "open");
    for (fields, later) in [
        (vec![based], vec![]),
        (vec![based, ("access_model", "authorize")], vec![]),
        (vec![], vec![based]),
        (vec![open], vec![purged]),
    ] {
        let mut component = component_with_node(&fields).await;
        component.create(OTHER, "plain", &[]).await;
        component.publish(OTHER, "plain", "p").await;
        component.subscribe(READER, "plain").await;
        let publisher = if fields.contains(&open) { PHONE } else { OWNER };
        component.publish(publisher, "n", "1").await;
        component.subscribe(READER, "n").await;
        component.messages().await;
        if !later.is_empty() {
            component.configure(OWNER, "n", &later).await;
        }
        while presence_requests_until_now(&mut component).await.is_empty() {}
        presence(&mut component, READER, "subscribed", "").await;
        send_delayed_presence(&mut component, PHONE, EARLIER).await;
        assert_eq!(sent_items(&mut component).await, [""; 0], "{fields:?}");
        let last = |jid: &str| format!("{jid} plain p");
        for (resource, stamp) in [(LAPTOP, None), (TABLET, Some(LATER))] {
            match stamp {
                None => presence(&mut component, resource, "", "").await,
                Some(stamp) => send_delayed_presence(&mut component, resource, stamp).await,
            }
            let sent = sent_items(&mut component).await;
            assert!(sent.contains(&last(READER)), "{fields:?} {resource}: {sent:?}");
        }
        component.finish().await;
    }
}

pub const INFO: &str = "http://jabber.org/protocol/disco#info";

/// Sends presence of a resource with capabilities that name nodes, and waits until it is fully
/// processed.
pub async fn name_nodes(component: &mut TestComponent, from: &str, nodes: &[&str]) {
    let ver = nodes.join("-");
    let caps = format!(
        "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:client' ver='{ver}'/>"
    );
    component.send(&format!("<presence from='{from}' to='{SERVICE}'>{caps}</presence>")).await;
    let question = component.answer().await;
    assert_eq!(question.attr("to"), Some(from), "{}", shown(&question));
    answer_question(component, &question, nodes).await;
}

/// Answers a capabilities query with features that name nodes.
async fn answer_question(component: &mut TestComponent, question: &Element, nodes: &[&str]) {
    let (id, from) = (question.attr("id").unwrap(), question.attr("to").unwrap());
    let feature = |node: &&str| format!("<feature var='{node}+notify'/>");
    let features: String = nodes.iter().map(feature).collect();
    let query = format!("<query xmlns='{INFO}'>{features}</query>");
    component
        .send(&format!("<iq type='result' from='{from}' to='{SERVICE}' id='{id}'>{query}</iq>"))
        .await;
}

/// Returns the items sent to resources so far: `resource node item`.
pub async fn sent_items(component: &mut TestComponent) -> Vec<String> {
    let sent = component.messages().await.into_iter().filter_map(|message| {
        let items = message.get_child("event", EVENT)?.get_child("items", EVENT)?;
        let item = items.children().next()?.attr("id")?;
        Some(format!("{} {} {item}", message.attr("to")?, items.attr("node")?))
    });
    let mut sent: Vec<_> = sent.collect();
    sent.sort_unstable();
    sent
}

/// §4.2, §12.2: on a new connection events wait for interested resources, and for those of
/// subscribers that sent their presence, if it is needed.
#[tokio::test]
async fn s4_2_events_wait_for_replies_of_resources_on_a_new_connection() {
    let mut component = component_with_node(&[("presence_based_delivery", "1")]).await;
    component.publish(OWNER, "n", "1").await;
    component.subscribe(READER, "n").await;
    let desks = ["a@localhost/desk", "b@localhost/desk"];
    name_nodes(&mut component, PHONE, &["else"]).await;
    for desk in desks {
        name_nodes(&mut component, desk, &["n"]).await;
        component.ask(desk, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    }
    let of_all = |item: &str| [desks[0], desks[1], READER].map(|to| format!("{to} n {item}"));
    sent_items(&mut component).await;
    component.publish(OWNER, "n", "2").await;
    assert_eq!(sent_items(&mut component).await, of_all("2"));
    component.reconnected_by_force().await;
    let mut questions = Vec::new();
    for _ in 0..3 {
        questions.push(component.answer().await);
    }
    component.publish(OWNER, "n", "3").await;
    let error = "<error type='cancel'/>";
    for question in questions {
        let (id, to) = (question.attr("id").unwrap(), question.attr("to").unwrap());
        let gone = format!("<iq type='error' from='{to}' to='{SERVICE}' id='{id}'>{error}</iq>");
        match to {
            _ if to == desks[0] => answer_question(&mut component, &question, &["n"]).await,
            PHONE => answer_question(&mut component, &question, &["else"]).await,
            _ => component.send(&gone).await,
        }
    }
    let is_three = |items: &Vec<String>| items.iter().any(|item| item.ends_with(" 3"));
    let mut sent = sent_items(&mut component).await;
    while !is_three(&sent) || sent.len() < 2 {
        sent.extend(sent_items(&mut component).await);
    }
    sent.retain(|item| item.ends_with(" 3"));
    assert_eq!(sent, [format!("{} n 3", desks[0]), format!("{READER} n 3")]);
    // The resources are available as before, and do not count as coming online.
    presence(&mut component, PHONE, "", "away").await;
    presence(&mut component, desks[0], "", "away").await;
    assert_eq!(sent_items(&mut component).await, [""; 0]);
}

/// §4.2, §12.3: presence that is not a reply to the probe of a new connection ends no wait for the
/// reply: neither capabilities of a resource, whose state may have changed, nor presence of another
/// resource.
#[tokio::test]
async fn s12_3_other_presence_does_not_end_the_wait_for_a_probe_reply() {
    let never = ("send_last_published_item", "never");
    let mut component = component_with_node(&[("presence_based_delivery", "1"), never]).await;
    component.create(OWNER, "shown", &[never]).await;
    component.subscribe(LAPTOP, "n").await;
    let values = "<field var='pubsub#show-values'><value>online</value></field>";
    let form_type = format!("<field var='FORM_TYPE'><value>{OPTIONS}</value></field>");
    let form = format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{values}</x>");
    let subscribe = format!("<subscribe node='shown' jid='{READER}'/><options>{form}</options>");
    component.granted(READER, &subscribe).await;
    presence(&mut component, READER, "subscribed", "").await;
    name_nodes(&mut component, PHONE, &["else"]).await;
    presence(&mut component, PHONE, "", "dnd").await;
    component.messages().await;
    component.reconnected_by_force().await;
    let question = component.answer().await;
    answer_question(&mut component, &question, &["else"]).await;
    presence(&mut component, TABLET, "", "dnd").await;
    component.publish(OWNER, "shown", "1").await;
    component.publish(OWNER, "n", "2").await;
    assert_eq!(sent_items(&mut component).await, [""; 0]);
    // The phone came online after the interruption, and the laptop during it.
    let delay = "<delay xmlns='urn:xmpp:delay' stamp='2000-01-01T00:00:00Z'/>";
    let answer = |from: &str| format!("<presence from='{from}' to='{SERVICE}'>{delay}</presence>");
    component.send(&(answer(PHONE) + &answer(LAPTOP))).await;
    let mut sent = Vec::new();
    while sent.len() < 2 {
        sent.extend(sent_items(&mut component).await);
    }
    sent.sort_unstable();
    assert_eq!(sent, [format!("{READER} shown 1"), format!("{LAPTOP} n 2")]);
}

/// Answers the pings to resources of the reader on a new connection: the laptop is gone, and the
/// tablet does not support pings.
pub async fn answer_pings(component: &mut TestComponent, resources: usize) {
    let mut pings = Vec::new();
    while pings.len() < 2 * resources {
        component.ask(OWNER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
        pings.extend(component.link.take_pings());
    }
    for ping in pings {
        let (to, id) = (ping.attr("to").unwrap(), ping.attr("id").unwrap());
        let stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";
        let error =
            format!("<error type='cancel'><service-unavailable xmlns='{stanzas}'/></error>");
        let (kind, content) = match to {
            PHONE => ("result", String::new()),
            TABLET => ("error", format!("<ping xmlns='urn:xmpp:ping'/>{error}")),
            _ => ("error", error),
        };
        component
            .send(&format!("<iq type='{kind}' from='{to}' to='{SERVICE}' id='{id}'>{content}</iq>"))
            .await;
    }
}

/// §4.2, §12.3: a resource that sent its presence, but does not share it with the service, is
/// pinged on a new connection, and events wait for the answer.
#[tokio::test]
async fn s12_3_events_wait_for_ping_replies_of_resources_that_share_no_presence() {
    let never = ("send_last_published_item", "never");
    let mut component = component_with_node(&[("presence_based_delivery", "1"), never]).await;
    component.create(OWNER, "else", &[]).await;
    for jid in [PHONE, LAPTOP, TABLET] {
        component.subscribe(jid, "n").await;
        presence(&mut component, jid, "", "").await;
    }
    presence(&mut component, OTHER, "", "").await;
    // The entity refuses a presence subscription, and stays available.
    presence(&mut component, READER, "unsubscribed", "").await;
    let to = |resources: &[&str], item: &str| -> Vec<_> {
        resources.iter().map(|to| format!("{to} n {item}")).collect()
    };
    component.publish(OWNER, "n", "1").await;
    assert_eq!(sent_items(&mut component).await, to(&[LAPTOP, PHONE, TABLET], "1"));
    component.reconnected_by_force().await;
    component.publish(OWNER, "n", "2").await;
    let waits = sent_items(&mut component).await;
    assert!(waits.iter().all(|item| item.ends_with(" 1")), "{waits:?}");
    // No event depends on the presence of `OTHER`.
    answer_pings(&mut component, 3).await;
    let mut sent = Vec::new();
    while sent.len() < 2 {
        sent.extend(sent_items(&mut component).await);
    }
    assert_eq!(sent, to(&[PHONE, TABLET], "2"));
    assert_eq!(component.link.take_pings().len(), 0);
}

/// §12.3, §16.4.2: the requested show states also apply to the last item.
#[tokio::test]
async fn s16_4_2_last_item_is_sent_in_the_requested_show_states() {
    let mut component =
        component_with_node(&[("send_last_published_item", "on_sub_and_presence")]).await;
    component.publish(OWNER, "n", "1").await;
    // A new subscriber counts as available.
    subscribe(&mut component, READER, &[("show-values", &["chat"])]).await;
    assert_eq!(sent_items(&mut component).await, [format!("{READER} n 1")]);
    offline(&mut component, READER).await;
    presence(&mut component, PHONE, "", "dnd").await;
    assert_eq!(sent_items(&mut component).await, [""; 0]);
    presence(&mut component, LAPTOP, "", "chat").await;
    assert_eq!(sent_items(&mut component).await, [format!("{READER} n 1")]);
    presence(&mut component, LAPTOP, "unavailable", "").await;
    // The same for missed items.
    let ago = "<ago xmlns='urn:xmpp:ago:0' secs='3600'/>";
    for (show, sent) in [("dnd", 0), ("chat", 1)] {
        let content = format!("<show>{show}</show>{ago}");
        component
            .send(&format!("<presence from='{LAPTOP}' to='{SERVICE}'>{content}</presence>"))
            .await;
        component.ask(LAPTOP, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
        assert_eq!(sent_items(&mut component).await.len(), sent, "{show}");
        presence(&mut component, LAPTOP, "unavailable", "").await;
    }
}

/// The same for the last item sent on approval: the subscriber may have gone offline since its
/// request.
#[tokio::test]
async fn s16_4_2_last_item_after_an_approval_is_sent_in_the_requested_show_states() {
    let config = [("access_model", "authorize"), ("send_last_published_item", "on_sub")];
    let mut component = component_with_node(&config).await;
    component.publish(OWNER, "n", "1").await;
    let approve = format!("<subscription jid='{READER}' subscription='subscribed'/>");
    let approve = format!("<subscriptions node='n'>{approve}</subscriptions>");
    let wanted: [(&str, &[&str]); 1] = [("show-values", &["chat"])];
    let (any, chat) = wanted.split_at(0);
    for (delivery, options, kind, show, sent) in [
        ("0", chat, "", "dnd", 0),
        ("0", chat, "", "chat", 1),
        ("1", any, "unavailable", "", 0),
        ("1", any, "", "dnd", 1),
        ("0", any, "unavailable", "", 1),
    ] {
        component.configure(OWNER, "n", &[("presence_based_delivery", delivery)]).await;
        subscribe(&mut component, READER, options).await;
        presence(&mut component, READER, "subscribed", "").await;
        presence(&mut component, PHONE, kind, show).await;
        component.owner(OWNER, "set", &approve).await;
        let items = sent_items(&mut component).await;
        assert_eq!(items.len(), sent, "{delivery} {options:?} {kind} {show}");
        component.granted(READER, &format!("<unsubscribe node='n' jid='{READER}'/>")).await;
    }
}

/// §4.2: a new subscriber counts as available, and receives events published before its presence arrives.
#[tokio::test]
async fn s4_2_new_subscriber_receives_events_before_its_presence_is_known() {
    let never = ("send_last_published_item", "never");
    let mut component = component_with_node(&[("presence_based_delivery", "1"), never]).await;
    component.subscribe(READER, "n").await;
    component.publish(OWNER, "n", "1").await;
    assert_eq!(presence_requests_until_now(&mut component).await, [format!("subscribe {READER}")]);
    component.publish(OWNER, "n", "2").await;
    presence(&mut component, READER, "subscribed", "").await;
    component.publish(OWNER, "n", "3").await;
    presence(&mut component, PHONE, "", "").await;
    let sent = sent_items(&mut component).await;
    assert_eq!(sent, ["1", "2", "3"].map(|id| format!("{READER} n {id}")));
}

/// §4.2, RFC 6121 §8.5.2.2.1: a server stores a message of type `normal` for a user who is offline.
/// Therefore an event is a headline for a recipient with unknown presence, whatever the
/// notification type of the node.
#[tokio::test]
async fn s4_2_events_for_possibly_unavailable_entities_are_headlines() {
    let fields = ["presence_based_delivery", "notification_type", "send_last_published_item"];
    let values = ["1", "normal", "never"];
    let fields: Vec<_> = fields.into_iter().zip(values).collect();
    let mut component = component_with_node(&fields).await;
    // The event waits for the presence of an entity that shares it, as long as events wait after a
    // new connection.
    component.subscribe(OTHER, "n").await;
    presence(&mut component, "other@localhost", "subscribed", "").await;
    component.subscribe(READER, "n").await;
    presence(&mut component, READER, "subscribed", "").await;
    presence(&mut component, PHONE, "", "").await;
    component.publish(OWNER, "n", "1").await;
    component.message().await;
    component.subscribe("new@localhost", "n").await;
    component.publish(OWNER, "n", "2").await;
    let messages = component.messages().await;
    let messages = messages.iter().map(|message| {
        let has_hint = message.has_child("no-store", "urn:xmpp:hints");
        (message.attr("to").unwrap(), message.attr("type").unwrap(), has_hint)
    });
    let expected = [("new@localhost", "headline", true), (READER, "normal", false)];
    assert_eq!(messages.collect::<Vec<_>>(), expected);
}

/// §12.2, §8.6: presence is requested together with the subscription, so that it is known when an
/// owner approves.
#[tokio::test]
async fn s12_2_approved_subscriber_that_shares_its_presence_gets_the_last_item() {
    let last = ("send_last_published_item", "on_sub");
    let based = ("presence_based_delivery", "1");
    let mut component = component_with_node(&[("access_model", "authorize"), based, last]).await;
    component.publish(OWNER, "n", "1").await;
    component.subscribe(READER, "n").await;
    assert_eq!(presence_requests_until_now(&mut component).await, [format!("subscribe {READER}")]);
    presence(&mut component, READER, "subscribed", "").await;
    presence(&mut component, PHONE, "", "").await;
    let approve = format!("<subscription jid='{READER}' subscription='subscribed'/>");
    let approve = format!("<subscriptions node='n'>{approve}</subscriptions>");
    component.owner(OWNER, "set", &approve).await;
    assert_eq!(sent_items(&mut component).await, [format!("{READER} n 1")]);
}

/// Makes an entity whose presence was requested available for a moment.
pub async fn become_briefly_available(fixture: &TestService, entity: &str) {
    let request = || fixture.service.next_presence_request();
    while tokio::time::timeout(Duration::ZERO, request()).await.is_ok() {}
    let resource = jid(&format!("{entity}/x"));
    fixture.service.available(&resource, &ONLINE).await;
    fixture.service.unavailable(&resource).await;
}

const READERS: [&str; 2] = ["a@localhost", "b@localhost"];

/// Creates a node whose two subscribers share their presence, and are available on the current
/// connection.
async fn with_available_readers(store: Arc<dyn Store>) -> TestService {
    let fixture = TestService::new(store).await;
    let setting = ConfigField::PresenceBasedDelivery(true);
    fixture.create_with("owner@localhost", "n", vec![setting]).await.unwrap();
    fixture.service.presence_tracker().connected();
    for name in READERS {
        fixture.subscribe(name, "n").await.unwrap();
        assert_eq!(next_request(&fixture).await, Some((name.to_owned(), false)));
        fixture.service.presence_tracker().on_subscribed(&jid(name));
        fixture.service.available(&jid(&format!("{name}/x")), &ONLINE).await;
    }
    fixture.publish("owner@localhost", "n", "0").await.unwrap();
    fixture.drain_log();
    fixture
}

pub const ONLINE: PresenceUpdate =
    PresenceUpdate { show: Show::Online, away_seconds: None, stamp: None };

/// Returns the next entity whose presence is requested, and whether the request is a probe.
pub async fn next_request(fixture: &TestService) -> Option<(String, bool)> {
    let next = fixture.service.next_presence_request();
    let request = tokio::time::timeout(Duration::from_secs(1), next).await.ok()?;
    Some((request.entity.to_string(), request.is_probe))
}

/// §4.2, §8.4.2: pending events need the presence of their recipients, even if the node is deleted
/// before the request.
#[tokio::test(start_paused = true)]
async fn s4_2_presence_is_requested_for_pending_events_of_a_node_that_no_longer_needs_it() {
    let end = async |fixture: &TestService, is_deleted| match is_deleted {
        true => fixture.delete("owner@localhost", "n").await.unwrap(),
        false => {
            let setting = ConfigField::PresenceBasedDelivery(false);
            fixture.configure("owner@localhost", "n", setting).await.unwrap();
        }
    };
    for is_deleted in [true, false] {
        let fixture = with_available_readers(Arc::new(MemoryStore::new())).await;
        let presences = fixture.service.presence_tracker();
        let availability = |name| presences.availability(&jid(name), ShowSet::ALL, true);
        presences.disconnected();
        presences.connected();
        fixture.publish("owner@localhost", "n", "1").await.unwrap();
        end(&fixture, is_deleted).await;
        let mut asked = Vec::new();
        for _ in READERS {
            asked.extend(next_request(&fixture).await);
        }
        asked.sort();
        assert_eq!(asked, READERS.map(|name| (name.to_owned(), true)), "{is_deleted}");
        assert_eq!(READERS.map(availability), [Availability::Unknown; 2]);
        for name in READERS {
            fixture.service.available(&jid(&format!("{name}/x")), &ONLINE).await;
        }
        assert_eq!(READERS.map(availability), [Availability::Available; 2]);
        // On the next connection only pending events need presence.
        presences.disconnected();
        presences.connected();
        assert_eq!(next_request(&fixture).await, None, "{is_deleted}");
        assert_eq!(availability(READERS[1]), Availability::Unknown);
        assert_eq!(next_request(&fixture).await, Some((READERS[1].to_owned(), false)));
    }
    // After a restart as well.
    for is_deleted in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let open = || Arc::new(SledStore::open(folder.path()).unwrap());
        let fixture = with_available_readers(open()).await;
        fixture.publish("owner@localhost", "n", "1").await.unwrap();
        end(&fixture, is_deleted).await;
        fixture.store.close().await;
        drop(fixture);
        let fixture = TestService::new(open()).await;
        fixture.service.presence_tracker().connected();
        for name in READERS {
            assert_eq!(
                next_request(&fixture).await,
                Some((name.to_owned(), false)),
                "{is_deleted}"
            );
        }
    }
}

/// §4.2: after a start, presence is requested at once from all recipients of pending events,
/// whatever timer-driven work is due.
#[tokio::test]
async fn s4_2_presence_of_recipients_of_pending_entries_is_requested_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let [unavailable, available] = ["a@localhost", "b@localhost"];
    {
        let fixture = TestService::new(open()).await;
        let setting = ConfigField::PresenceBasedDelivery(true);
        fixture.create_with("owner@localhost", "n", vec![setting]).await.unwrap();
        for name in [unavailable, available] {
            fixture.subscribe(name, "n").await.unwrap();
        }
        fixture.publish("owner@localhost", "n", "1").await.unwrap();
        fixture.store.close().await;
    }
    // No timers run in this service.
    let TestService { service, .. } = TestService::new(open()).await;
    let presences = service.presence_tracker();
    presences.connected();
    for name in [unavailable, available] {
        let asked = tokio::time::timeout(Duration::from_secs(5), service.next_presence_request());
        assert_eq!(asked.await.expect("nobody is asked").entity, jid(name));
        presences.on_subscribed(&jid(name));
    }
    let availability = |name| presences.availability(&jid(name), ShowSet::ALL, true);
    assert_eq!([unavailable, available].map(availability), [Availability::Unknown; 2]);
    service.unavailable(&jid(unavailable)).await;
    service.available(&jid("b@localhost/x"), &ONLINE).await;
    assert_eq!(
        [unavailable, available].map(availability),
        [Availability::Unavailable, Availability::Available]
    );
}
