//! Multicast service of the server (XEP-0033): discovery, limits, and fallback after failures.

use std::{collections::HashSet, sync::Arc};

use gjallar::{config::Config, store::MemoryStore};
use minidom::Element;

use crate::support::component::{
    Questions, SERVICE, TestComponent, event, is_about_a_subscription, is_barrier, is_question,
    shown,
};

const OWNER: &str = "owner@localhost/desk";
const POST: &str = "multicast.localhost";
/// Address for queries to the multicast service.
const ASKED: &str = "multicast.localhost/barrier";
const ADDRESS: &str = "http://jabber.org/protocol/address";
const FANOUT: &str = "urn:x-gjallar:fanout:0";
const INFO: &str = "http://jabber.org/protocol/disco#info";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";

/// Returns the form with a limit of a multicast service; ejabberd omits the form for its default.
fn limit(number: &str) -> String {
    format!(
        "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'>\
         <value>{ADDRESS}</value></field><field var='message'><value>{number}</value></field></x>"
    )
}

async fn answer(component: &mut TestComponent, asked: &Element, kind: &str, content: &str) {
    let (to, id) = (asked.attr("to").unwrap(), asked.attr("id").unwrap());
    let query = asked.children().next().unwrap().ns();
    let content = format!("<query xmlns='{query}'>{content}</query>");
    component
        .send(&format!("<iq type='{kind}' from='{to}' to='{SERVICE}' id='{id}'>{content}</iq>"))
        .await;
}

/// Waits for a disco query of this kind to an address, skipping repeated queries. Later queries are
/// refused.
async fn question(component: &mut TestComponent, to: &str, namespace: &str) -> Element {
    component.link.on_questions(Questions::Received);
    loop {
        let asked = component.link.receive_any().await.unwrap();
        assert!(is_question(&asked), "{}", shown(&asked));
        if asked.attr("to") == Some(to) && asked.has_child("query", namespace) {
            component.link.on_questions(Questions::Refused);
            return asked;
        }
    }
}

/// Answers discovery like an ejabberd that offers multicast.
async fn offer(component: &mut TestComponent, limit: &str) {
    let asked = question(component, "localhost", INFO).await;
    answer(component, &asked, "result", "<feature var='jabber:iq:version'/>").await;
    let asked = question(component, "localhost", ITEMS).await;
    let items = ["chat.localhost", SERVICE, POST, "elsewhere.example", "evillocalhost"];
    let items: String = items.iter().map(|jid| format!("<item jid='{jid}'/>")).collect();
    answer(component, &asked, "result", &items).await;
    let asked = question(component, "chat.localhost/barrier", INFO).await;
    answer(component, &asked, "result", "").await;
    let asked = question(component, ASKED, INFO).await;
    answer(component, &asked, "result", &format!("<feature var='{ADDRESS}'/>{limit}")).await;
}

/// Starts a component with multicast, and a node with this number of subscribers.
async fn offered(limit: &str, subscribers: usize) -> TestComponent {
    let mut component = TestComponent::start().await;
    offer(&mut component, limit).await;
    component.create(OWNER, "n", &[]).await;
    enrol(&mut component, &names(subscribers)).await;
    component
}

/// Returns this number of users of the server.
fn names(number: usize) -> Vec<String> {
    (0..number).map(|name| format!("{name}@localhost")).collect()
}

/// Subscribes JIDs to the node through the owner's list.
async fn enrol(component: &mut TestComponent, jids: &[String]) {
    for jids in jids.chunks(1000) {
        let entry = |jid| format!("<subscription jid='{jid}' subscription='subscribed'/>");
        let entries: String = jids.iter().map(entry).collect();
        let content = format!("<subscriptions node='n'>{entries}</subscriptions>");
        assert_eq!(component.owner(OWNER, "set", &content).await.attr("type"), Some("result"));
        for _ in jids {
            assert!(is_about_a_subscription(&component.message().await));
        }
        component.link.next_barrier().await;
    }
}

/// Returns the multicast recipients of a message, or `None` for a message to its own address only.
fn recipients(message: &Element) -> Option<Vec<String>> {
    if message.attr("to") != Some(POST) {
        assert!(!message.has_child("addresses", ADDRESS), "{}", shown(message));
        return None;
    }
    let addresses = message.get_child("addresses", ADDRESS).unwrap();
    let jid = |address: &Element| {
        assert_eq!(address.attr("type"), Some("bcc"), "others learn of it: {}", shown(address));
        address.attr("jid").unwrap().to_owned()
    };
    Some(addresses.children().map(jid).collect())
}

#[tokio::test]
async fn one_multicast_stanza_has_at_most_the_recipients_of_the_limit() {
    // Announced limit, maximum of recipients of a message, and number of messages for 1 100
    // recipients.
    for (announced, most, messages) in [
        (String::new(), 20, 55),
        (limit("150"), 150, 11),
        (limit("infinite"), 200, 6),
        (limit("many"), 20, 55),
    ] {
        let mut component = offered(&announced, 1100).await;
        component.publish(OWNER, "n", "i").await;
        let mut delivered = Vec::new();
        for message in component.messages().await {
            assert_eq!(message.attr("from"), Some(SERVICE));
            let recipients = recipients(&message).unwrap();
            assert!(recipients.len() <= most, "{announced}: {}", recipients.len());
            delivered.push(recipients);
        }
        // The end of a write also ends a multicast stanza.
        assert!(
            (messages..=messages + 1).contains(&delivered.len()),
            "{announced}: {}",
            delivered.len()
        );
        let mut delivered = delivered.concat();
        assert_eq!(delivered.len(), 1100);
        delivered.sort_unstable();
        delivered.dedup();
        assert_eq!(delivered.len(), 1100);
    }
}

/// An event is a headline for recipients that may be unavailable, so that no server stores it
/// offline. Such recipients get a separate stanza.
#[tokio::test]
async fn recipients_that_may_be_unavailable_receive_a_separate_stanza() {
    let mut component = offered("", 0).await;
    let fields = ["presence_based_delivery", "notification_type", "send_last_published_item"];
    let fields: Vec<_> = fields.into_iter().zip(["1", "normal", "never"]).collect();
    component.configure(OWNER, "n", &fields).await;
    // The presence of the first subscriber never arrives. Events wait for it as long as after a new
    // connection.
    for name in names(3) {
        component.subscribe(&name, "n").await;
        let given = format!("<presence type='subscribed' from='{name}' to='{SERVICE}'/>");
        let is_there = format!("<presence from='{name}/x' to='{SERVICE}'/>");
        component.send(&given).await;
        if name != "0@localhost" {
            component.send(&is_there).await;
        }
        component.ask(&name, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    }
    component.publish(OWNER, "n", "1").await;
    assert_eq!(recipients(&component.message().await).unwrap(), names(3)[1..]);
    let new = ["1n", "2n"].map(|name| format!("{name}@localhost"));
    for name in &new {
        component.subscribe(name, "n").await;
    }
    component.publish(OWNER, "n", "2").await;
    let messages = component.messages().await;
    let kind = |message: &Element| message.attr("type").unwrap().to_owned();
    let messages = messages.iter().map(|message| (kind(message), recipients(message).unwrap()));
    let expected = [("normal".to_owned(), names(3)[1..].to_vec()), ("headline".into(), new.into())];
    assert_eq!(messages.collect::<Vec<_>>(), expected);
}

/// The module for Prosody is found at the server's domain. A message lists each recipient on a
/// line, and the domain returns the barriers.
#[tokio::test]
async fn prosody_module_gets_one_line_for_each_recipient() {
    let mut component = TestComponent::start().await;
    let asked = question(&mut component, "localhost", INFO).await;
    let features = format!("<feature var='{ADDRESS}'/><feature var='{FANOUT}'/>");
    answer(&mut component, &asked, "result", &features).await;
    component.create(OWNER, "n", &[]).await;
    enrol(&mut component, &names(600)).await;
    enrol(&mut component, &["x@far.example", "a@localhost/b &lt;c&gt;"].map(str::to_owned)).await;
    component.publish(OWNER, "n", "i").await;
    let (mut delivered, mut directly, mut suffixes) = (Vec::new(), Vec::new(), HashSet::new());
    for message in component.messages().await {
        assert_eq!(event(&message).children().next().unwrap().attr("id"), Some("i"));
        assert!(!message.has_child("addresses", ADDRESS), "{}", shown(&message));
        match message.get_child("recipients", FANOUT) {
            Some(recipients) => {
                assert_eq!(message.attr("to"), Some("localhost"));
                // The module appends the suffix of each recipient.
                let stanza_id = message.get_child("stanza-id", "urn:xmpp:sid:0").unwrap();
                let id = format!("{}-", stanza_id.attr("id").unwrap());
                assert_eq!(message.attr("id"), Some(id.as_str()));
                let text = recipients.text();
                let lines = text.lines().map(|line| line.split_once(' ').unwrap());
                assert!(lines.clone().count() <= 500);
                suffixes.extend(lines.clone().map(|(suffix, _)| suffix.to_owned()));
                delivered.extend(lines.map(|(_, jid)| jid.to_owned()));
            }
            None => directly.push(message.attr("to").unwrap().to_owned()),
        }
    }
    let mut expected = names(600);
    expected.push("a@localhost/b <c>".into());
    expected.sort_unstable();
    delivered.sort_unstable();
    assert_eq!(delivered, expected);
    assert_eq!(directly, ["x@far.example"]);
    assert_eq!(suffixes.len(), expected.len());
    assert!(suffixes.iter().all(|suffix| suffix.len() == 11));
}

/// The module refuses components that it does not trust; then each recipient gets a separate
/// stanza.
#[tokio::test]
async fn refusal_by_the_prosody_module_switches_to_direct_delivery() {
    let mut component = TestComponent::start().await;
    let asked = question(&mut component, "localhost", INFO).await;
    answer(&mut component, &asked, "result", &format!("<feature var='{FANOUT}'/>")).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe("a@localhost", "n").await;
    component.subscribe("b@localhost", "n").await;
    component.publish(OWNER, "n", "i").await;
    let refused = component.message().await;
    assert_eq!(refused.attr("to"), Some("localhost"));
    let error =
        "<error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    let id = refused.attr("id").unwrap();
    let mut came = format!(
        "<message type='error' from='localhost' to='{SERVICE}' id='{id}'>{error}</message>"
    );
    // The barrier after the refused message returns with the refusal, from the same address, and
    // confirms nothing.
    let barrier = barrier(&mut component).await;
    assert_eq!(barrier.attr("to"), Some("localhost"));
    let id = barrier.attr("id").unwrap();
    came += &format!("<iq type='result' from='localhost' to='{SERVICE}' id='{id}'/>");
    component.send(&came).await;
    let messages = component.messages().await;
    let to: Vec<_> = messages.iter().map(|message| message.attr("to").unwrap()).collect();
    assert_eq!(to, ["a@localhost", "b@localhost"]);
    assert!(messages.iter().all(|message| !message.has_child("recipients", FANOUT)));
}

/// The module is on a host with users, which itself subscribes where Prosody's modules read a block
/// list. A bounce from the host is not a refusal by the module.
#[tokio::test]
async fn host_of_the_prosody_module_and_its_users_get_events() {
    const HOST: &str = "im.company.example";
    let store = Arc::new(MemoryStore::new());
    let named = |config: &mut Config| config.link.multicast = HOST.into();
    let mut component = TestComponent::with(store, named).await;
    let asked = question(&mut component, &format!("{HOST}/barrier"), INFO).await;
    answer(&mut component, &asked, "result", &format!("<feature var='{FANOUT}'/>")).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(HOST, "n").await;
    enrol(&mut component, &["a", "b"].map(|name| format!("{name}@{HOST}"))).await;
    for item in ["1", "2"] {
        component.publish(OWNER, "n", item).await;
        let messages = component.messages().await;
        let lines = messages[0].get_child("recipients", FANOUT).unwrap().text();
        let mut of_host = None;
        let delivered: Vec<_> = lines.lines().map(|line| line.split_once(' ').unwrap()).collect();
        for (suffix, jid) in &delivered {
            of_host = of_host.or_else(|| (*jid == HOST).then_some(*suffix));
        }
        assert_eq!((messages.len(), delivered.len()), (1, 3), "{}", shown(&messages[0]));
        let id = format!("{}{}", messages[0].attr("id").unwrap(), of_host.unwrap());
        let error = "<error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        let bounce = format!("<message type='error' from='{HOST}' to='{SERVICE}' id='{id}'>");
        component.send(&format!("{bounce}{error}</message>")).await;
    }
}

#[tokio::test]
async fn service_limited_to_one_recipient_is_not_used() {
    for announced in ["0", "1"] {
        let mut component = offered(&limit(announced), 3).await;
        component.publish(OWNER, "n", "i").await;
        let messages = component.messages().await;
        assert_eq!(messages.len(), 3);
        assert!(messages.iter().all(|message| recipients(message).is_none()));
    }
}

#[tokio::test]
async fn configured_service_may_be_the_domain_of_the_server() {
    for (named, jid, users) in [
        ("post.near.example", "post.near.example", "near.example"),
        ("post.example", "post.example", "post.example"),
        ("auto", "localhost", "localhost"),
    ] {
        // The server's domain has no resources.
        let asked = if users == "near.example" { format!("{jid}/barrier") } else { jid.to_owned() };
        let store = Arc::new(MemoryStore::new());
        let mut component =
            TestComponent::with(store, |config| config.link.multicast = named.into()).await;
        let asked = question(&mut component, &asked, INFO).await;
        answer(&mut component, &asked, "result", &format!("<feature var='{ADDRESS}'/>")).await;
        component.create(OWNER, "n", &[]).await;
        enrol(&mut component, &["a", "b"].map(|name| format!("{name}@{users}"))).await;
        component.subscribe(jid, "n").await;
        component.publish(OWNER, "n", "i").await;
        let message = component.messages().await.pop().unwrap();
        assert_eq!(message.attr("to"), Some(jid));
        let addresses = message.get_child("addresses", ADDRESS).unwrap();
        assert_eq!(addresses.children().count(), 2);
    }
}

/// A server domain that offers XEP-0033 may be configured, even if the component is below its
/// parent domain.
#[tokio::test]
async fn users_at_a_named_domain_get_events() {
    const HOST: &str = "im.company.example";
    let named = |config: &mut Config| config.link.multicast = HOST.into();
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), named).await;
    let asked = question(&mut component, &format!("{HOST}/barrier"), INFO).await;
    answer(&mut component, &asked, "result", &format!("<feature var='{ADDRESS}'/>")).await;
    component.create(OWNER, "n", &[]).await;
    let users = ["a", "b"].map(|name| format!("{name}@{HOST}"));
    enrol(&mut component, &users).await;
    component.publish(OWNER, "n", "i").await;
    let messages = component.messages().await;
    assert_eq!(
        messages.iter().map(|message| message.attr("to").unwrap()).collect::<Vec<_>>(),
        users
    );
}

#[tokio::test]
async fn users_of_other_servers_bypass_the_multicast_service() {
    let mut component = offered("", 2).await;
    enrol(&mut component, &["x@far.example", "y@evillocalhost"].map(str::to_owned)).await;
    enrol(&mut component, &["z@users.localhost".to_owned()]).await;
    component.publish(OWNER, "n", "i").await;
    let mut delivered: Vec<_> = component
        .messages()
        .await
        .iter()
        .flat_map(|message| {
            recipients(message)
                .unwrap_or_else(|| vec![format!("to {}", message.attr("to").unwrap())])
        })
        .collect();
    delivered.sort();
    assert_eq!(
        delivered,
        [
            "0@localhost",
            "1@localhost",
            "to x@far.example",
            "to y@evillocalhost",
            // ejabberd forwards events to the multicast service of a virtual host below the domain,
            // which returns no barrier.
            "to z@users.localhost"
        ]
    );
}

/// If ejabberd's stringprep rejects the address of one recipient, it refuses the stanza for all
/// recipients.
#[tokio::test]
async fn addresses_that_stringprep_may_refuse_bypass_the_service() {
    let mut component = offered("", 2).await;
    let others = ["2@localhost/🎉", "ꙋ@localhost", "שלום1@localhost"];
    enrol(&mut component, &others.map(str::to_owned)).await;
    component.publish(OWNER, "n", "i").await;
    let (mut through, mut past) = (Vec::new(), Vec::new());
    for message in component.messages().await {
        match recipients(&message) {
            Some(recipients) => through.extend(recipients),
            None => past.push(message.attr("to").unwrap().to_owned()),
        }
    }
    assert_eq!(through, ["0@localhost", "1@localhost"]);
    assert_eq!(past.len(), others.len());
    assert!(others.iter().all(|jid| past.iter().any(|to| to == jid)), "{past:?}");
}

/// Messages wait for the answer to the query for a short time only: a server may drop the query.
#[tokio::test]
async fn events_wait_briefly_for_discovery_and_a_late_reply_counts() {
    let mut component = TestComponent::start().await;
    let asked = question(&mut component, "localhost", INFO).await;
    component.link.on_questions(Questions::Dropped);
    component.create(OWNER, "n", &[]).await;
    component.subscribe("0@localhost", "n").await;
    let begun = tokio::time::Instant::now();
    component.publish(OWNER, "n", "i").await;
    assert_eq!(recipients(&component.message().await), None);
    let waited = begun.elapsed();
    assert!(waited.as_secs() >= 1, "it did not wait for the server: {waited:?}");
    assert!(waited.as_secs() < 3, "{waited:?}");
    answer(&mut component, &asked, "result", &format!("<feature var='{ADDRESS}'/>")).await;
    component.subscribe("1@localhost", "n").await;
    component.publish(OWNER, "n", "j").await;
    let messages = component.messages().await;
    let last = messages.last().unwrap();
    assert_eq!(last.attr("to"), Some("localhost"), "{}", shown(last));
}

/// ejabberd 24.12 with mod_privilege drops queries to its domain and to bare addresses.
#[tokio::test]
async fn usual_name_is_queried_if_the_domain_is_silent() {
    let mut component = TestComponent::start().await;
    let asked = question(&mut component, ASKED, INFO).await;
    answer(&mut component, &asked, "result", &format!("<feature var='{ADDRESS}'/>")).await;
    component.create(OWNER, "n", &[]).await;
    enrol(&mut component, &names(2)).await;
    component.publish(OWNER, "n", "1").await;
    assert_eq!(recipients(&component.message().await).unwrap(), ["0@localhost", "1@localhost"]);
    assert_eq!(barrier(&mut component).await.attr("to"), Some(ASKED));
    // On the next connection the service is queried at once.
    component.reconnected_by_force().await;
    let begun = tokio::time::Instant::now();
    let asked = question(&mut component, ASKED, INFO).await;
    answer(&mut component, &asked, "result", &format!("<feature var='{ADDRESS}'/>")).await;
    assert_eq!(recipients(&component.message().await).unwrap().len(), 2);
    assert!(begun.elapsed().as_millis() < 450, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn service_without_resources_is_queried_at_its_bare_address() {
    let mut component = TestComponent::start().await;
    let asked = question(&mut component, "localhost", INFO).await;
    answer(&mut component, &asked, "error", "").await;
    let asked = question(&mut component, "localhost", ITEMS).await;
    answer(&mut component, &asked, "result", &format!("<item jid='{POST}'/>")).await;
    let asked = question(&mut component, ASKED, INFO).await;
    let id = asked.attr("id").unwrap();
    component.send(&format!("<iq type='error' from='{ASKED}' to='{SERVICE}' id='{id}'/>")).await;
    let asked = question(&mut component, POST, INFO).await;
    answer(&mut component, &asked, "result", &format!("<feature var='{ADDRESS}'/>")).await;
    component.create(OWNER, "n", &[]).await;
    enrol(&mut component, &names(2)).await;
    component.publish(OWNER, "n", "1").await;
    assert_eq!(recipients(&component.message().await).unwrap().len(), 2);
    assert_eq!(barrier(&mut component).await.attr("to"), Some(POST));
}

/// ejabberd may have sent its answer on a broken connection.
#[tokio::test]
async fn query_is_repeated_until_it_is_answered() {
    let mut component = TestComponent::start().await;
    let asked = question(&mut component, "localhost", INFO).await;
    let again = question(&mut component, "localhost", INFO).await;
    assert_eq!(asked.attr("id"), again.attr("id"));
    answer(&mut component, &again, "result", &format!("<feature var='{ADDRESS}'/>")).await;
    component.create(OWNER, "n", &[]).await;
    enrol(&mut component, &names(2)).await;
    component.publish(OWNER, "n", "1").await;
    let stanza = component.link.receive_any().await.unwrap();
    assert_eq!(stanza.attr("to"), Some("localhost"), "{}", shown(&stanza));
}

#[tokio::test]
async fn single_recipient_is_sent_directly_unless_multicast_stanzas_are_in_flight() {
    let mut component = offered("", 2).await;
    component.create(OWNER, "one", &[]).await;
    component.subscribe("a@localhost/r", "one").await;
    component.link.hold_barriers();
    component.publish(OWNER, "one", "1").await;
    assert_eq!(recipients(&component.message().await), None);
    component.publish(OWNER, "n", "2").await;
    assert_eq!(recipients(&component.message().await).unwrap().len(), 2);
    component.publish(OWNER, "one", "3").await;
    assert_eq!(recipients(&component.message().await).unwrap(), ["a@localhost/r"]);
    component.link.release_barriers().await;
    component.messages().await;
    component.publish(OWNER, "one", "4").await;
    assert_eq!(recipients(&component.message().await), None);
}

/// Returns the next barrier; skips events before it.
async fn barrier(component: &mut TestComponent) -> Element {
    loop {
        let stanza = component.link.receive_any().await.unwrap();
        if is_barrier(&stanza) {
            return stanza;
        }
        assert_eq!(stanza.name(), "message", "{}", shown(&stanza));
    }
}

#[tokio::test]
async fn notifications_unacknowledged_by_the_multicast_service_are_resent() {
    let mut component = offered("", 2).await;
    component.publish(OWNER, "n", "i").await;
    let first = component.message().await;
    let unanswered = barrier(&mut component).await;
    assert_eq!(unanswered.attr("to"), Some(ASKED));
    component.reconnected_by_force().await;
    offer(&mut component, "").await;
    let again = component.message().await;
    assert_eq!(again.attr("id"), first.attr("id"));
    assert_eq!(recipients(&again), recipients(&first));
    assert!(again.has_child("delay", "urn:xmpp:delay"));
    let answered = barrier(&mut component).await;
    component.link.return_barrier(&answered, false).await;
    // The answer to a later request shows that the barrier was processed.
    component.items(OWNER, "n").await;
    component.reconnected_by_force().await;
    offer(&mut component, "").await;
    assert!(component.messages().await.is_empty());
}

#[tokio::test]
async fn a_refused_multicast_stanza_is_sent_directly_after_the_service_is_empty() {
    let mut component = offered("", 3).await;
    component.link.hold_barriers();
    component.publish(OWNER, "n", "1").await;
    let refused = component.message().await;
    assert_eq!(recipients(&refused).unwrap().len(), 3);
    component.publish(OWNER, "n", "2").await;
    component.message().await;
    let mut came = format!(
        "<message type='error' from='{POST}' to='{SERVICE}' id='{}'><error type='modify'>\
         <not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
        refused.attr("id").unwrap()
    );
    // Barriers sent before the error and returned with it do not confirm the events.
    let held = component.link.take_held();
    assert!(!held.is_empty());
    for id in held.iter().filter_map(|barrier| barrier.attr("id")) {
        came += &format!("<iq type='error' from='{ASKED}' to='{SERVICE}' id='{id}'/>");
    }
    component.send(&came).await;
    let asked = question(&mut component, ASKED, INFO).await;
    component.publish(OWNER, "n", "3").await;
    answer(&mut component, &asked, "result", &format!("<feature var='{ADDRESS}'/>")).await;
    let mut delivered = Vec::new();
    for message in component.messages().await {
        assert_eq!(recipients(&message), None);
        let item = event(&message).children().next().unwrap().attr("id").unwrap().to_owned();
        // Only events in flight are marked as delayed.
        assert_eq!(message.has_child("delay", "urn:xmpp:delay"), item != "3", "{item}");
        delivered.push((item, message.attr("to").unwrap().to_owned()));
    }
    let to_each = |id: &str| ["0", "1", "2"].map(|to| (id.into(), format!("{to}@localhost")));
    assert_eq!(delivered, ["1", "2", "3"].map(to_each).concat());
}

#[tokio::test]
async fn no_notification_follows_an_acknowledged_revocation() {
    let mut component = offered("", 3).await;
    component.subscribe("a@localhost/r", "n").await;
    component.publish(OWNER, "n", "i").await;
    assert_eq!(recipients(&component.message().await).unwrap().len(), 4);
    let ask = |id: &str, kind: &str, content: &str| {
        format!("<iq type='{kind}' id='{id}' from='a@localhost/r' to='{SERVICE}'>{content}</iq>")
    };
    let pubsub = |content: &str| {
        format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{content}</pubsub>")
    };
    let barrier = barrier(&mut component).await;
    component
        .send(&ask("out", "set", &pubsub("<unsubscribe node='n' jid='a@localhost/r'/>")))
        .await;
    // An event without the recipient proves that the unsubscription is processed; a reply that did
    // not wait for the barrier would precede that event.
    let mut is_out = false;
    while !is_out {
        let publish = pubsub("<publish node='n'><item id='j'><x xmlns='urn:x'/></item></publish>");
        let publish = ask("publish", "set", &publish).replace("a@localhost/r", OWNER);
        component.send(&publish).await;
        let message = loop {
            let stanza = component.link.receive_any().await.unwrap();
            assert_ne!(stanza.attr("id"), Some("out"), "an answer that overtakes events");
            if stanza.name() == "message" {
                break stanza;
            }
        };
        is_out = !recipients(&message).unwrap().contains(&"a@localhost/r".to_owned());
    }
    component.link.return_barrier(&barrier, false).await;
    while component.answer().await.attr("id") != Some("out") {}
    // Nothing holds up an answer when no event is in flight.
    component.send(&ask("ping", "get", "<ping xmlns='urn:xmpp:ping'/>")).await;
    while component.answer().await.attr("id") != Some("ping") {}
}

/// Starts a component with an unconfirmed multicast event; returns its barrier too.
async fn unconfirmed(subscribers: usize) -> (TestComponent, Element) {
    let mut component = offered("", subscribers).await;
    component.publish(OWNER, "n", "i").await;
    assert_eq!(recipients(&component.message().await).unwrap().len(), subscribers);
    let barrier = barrier(&mut component).await;
    (component, barrier)
}

/// Asserts that the event is repeated in a separate stanza for each recipient.
async fn is_told_again(component: &mut TestComponent) {
    let asked = question(component, ASKED, INFO).await;
    answer(component, &asked, "result", "").await;
    let messages = component.messages().await;
    assert_eq!(messages.len(), 2);
    assert!(messages.iter().all(|message| recipients(message).is_none()));
}

/// Starts a component with two subscribers and multicast. A barrier has one second for each
/// address, on a link that counts as dead after four seconds.
async fn impatient() -> TestComponent {
    let store = Arc::new(MemoryStore::new());
    let mut component = TestComponent::with(store, |config| {
        (config.link.ping_after_seconds, config.link.ping_deadline_seconds) = (3, 1);
    })
    .await;
    offer(&mut component, "").await;
    component.create(OWNER, "n", &[]).await;
    enrol(&mut component, &names(2)).await;
    component.publish(OWNER, "n", "i").await;
    assert_eq!(recipients(&component.message().await).unwrap().len(), 2);
    component
}

/// The service answers queries, but does not return pings. Events are sent directly while the link
/// is up, and replies that wait for the barrier are sent.
#[tokio::test]
async fn service_that_returns_no_barrier_fails_before_a_quiet_link_counts_as_dead() {
    let mut component = impatient().await;
    let began = tokio::time::Instant::now();
    let out = "<unsubscribe node='n' jid='0@localhost'/>";
    component
        .send(&format!(
            "<iq type='set' id='out' from='0@localhost/r' to='{SERVICE}'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'>{out}</pubsub></iq>"
        ))
        .await;
    let (mut delivered, mut is_out, mut is_confirmed) = (Vec::new(), false, false);
    while delivered.is_empty() || !is_out || !is_confirmed {
        let stanza = component.link.receive_any().await.expect("the link lives");
        if is_barrier(&stanza) && stanza.attr("to") != Some(ASKED) {
            component.link.return_barrier(&stanza, false).await;
            is_confirmed = !delivered.is_empty();
        } else if stanza.name() == "message" {
            assert_eq!(recipients(&stanza), None);
            delivered.push(stanza.attr("to").unwrap().to_owned());
        }
        is_out |= stanza.attr("id") == Some("out");
    }
    assert_eq!(delivered, ["1@localhost"]);
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
}

/// The service failed, and no address returns barriers: events are not sent twice to its recipients
/// on each connection.
#[tokio::test]
async fn failed_service_is_not_used_while_no_barrier_returns() {
    let mut component = impatient().await;
    let mut delivered = 0;
    while let Some(stanza) = component.link.receive_any().await {
        if stanza.name() == "message" {
            assert_eq!(recipients(&stanza), None);
            delivered += 1;
        }
    }
    assert_eq!(delivered, 2);
    component.reconnected().await;
    component.link.on_questions(Questions::Received);
    component.link.hold_barriers();
    for _ in 0..2 {
        let stanza = component.link.receive().await.unwrap();
        assert!(stanza.name() == "message" && recipients(&stanza).is_none(), "{}", shown(&stanza));
    }
}

#[tokio::test]
async fn forged_barrier_replies_acknowledge_nothing() {
    let (mut component, barrier) = unconfirmed(2).await;
    let id = barrier.attr("id").unwrap();
    component
        .send(&format!(
            "<iq type='error' from='{ASKED}' to='{SERVICE}' id='{id}'><error type='cancel'>\
             <remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        ))
        .await;
    is_told_again(&mut component).await;
}

#[tokio::test]
async fn refusal_beyond_the_stanza_limit_is_detected() {
    let (mut component, _) = unconfirmed(2).await;
    let much = "x".repeat(600_000);
    component
        .send(&format!(
            "<message type='error' from='{POST}' to='{SERVICE}' id='1'>{much}</message>"
        ))
        .await;
    is_told_again(&mut component).await;
}

#[tokio::test]
async fn replies_of_strangers_and_a_subscribed_service_change_nothing() {
    let mut component = TestComponent::start().await;
    let asked = question(&mut component, "localhost", INFO).await;
    component.link.on_questions(Questions::Dropped);
    let id = asked.attr("id").unwrap();
    let feature = format!("<query xmlns='{INFO}'><feature var='{ADDRESS}'/></query>");
    component
        .send(&format!(
            "<iq type='result' from='mallory@evil.example/x' to='{SERVICE}' id='{id}'>{feature}</iq>\
             <iq type='get' from='mallory@evil.example/x' to='{SERVICE}' id='{id}'>\
             <ping xmlns='urn:xmpp:ping'/></iq>"
        ))
        .await;
    let pong = component.link.receive().await.unwrap();
    assert_eq!((pong.attr("type"), pong.attr("id")), (Some("result"), Some(id)));
    answer(&mut component, &asked, "error", "").await;
    let asked = question(&mut component, "localhost", ITEMS).await;
    answer(&mut component, &asked, "result", &format!("<item jid='{POST}'/>")).await;
    let asked = question(&mut component, ASKED, INFO).await;
    answer(&mut component, &asked, "result", &format!("<feature var='{ADDRESS}'/>")).await;

    component.create(OWNER, "n", &[]).await;
    enrol(&mut component, &names(2)).await;
    // The multicast service itself is subscribed, but gets no event: it would redistribute the
    // event.
    component.subscribe(POST, "n").await;
    component.publish(OWNER, "n", "i").await;
    assert_eq!(recipients(&component.message().await).unwrap(), ["0@localhost", "1@localhost"]);
    // An error from another address is an ordinary bounce of a recipient.
    component
        .send(&format!(
            "<message type='error' from='1@localhost' to='{SERVICE}' id='x'><error type='cancel'/>\
             </message>"
        ))
        .await;
    component.publish(OWNER, "n", "j").await;
    let messages = component.messages().await;
    assert_eq!(messages.len(), 1);
    assert!(recipients(&messages[0]).is_some());
}
