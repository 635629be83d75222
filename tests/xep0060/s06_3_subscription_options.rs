//! Subscription options (§6.3, §6.4, §12.8).

use std::{sync::Arc, time::SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use gjallar::{config::Config, store::MemoryStore};
use minidom::Element;

use crate::support::component::{PUBSUB, TestComponent, error, event, shown};

pub const OWNER: &str = "owner@localhost/desk";
pub const READER: &str = "reader@localhost/phone";
pub const PLAIN: &str = "plain@localhost/phone";
pub const OPTIONS: &str = "http://jabber.org/protocol/pubsub#subscribe_options";
pub const ATOM: &str = "<entry xmlns='http://www.w3.org/2005/Atom'><title>Soliloquy</title>\
                    <summary>To be, or &lt;not&gt; to be.</summary></entry>";

pub fn form(fields: &[(&str, &str)]) -> String {
    let field = |(var, value): &(&str, &str)| {
        let prefix = if var.contains('#') { "" } else { "pubsub#" };
        format!("<field var='{prefix}{var}'><value>{value}</value></field>")
    };
    let fields: String = fields.iter().map(field).collect();
    let form_type =
        format!("<field var='FORM_TYPE' type='hidden'><value>{OPTIONS}</value></field>");
    format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x>")
}

/// Starts a component with a node and two subscribers, one of which gets options later.
pub async fn component_with_subscribers(
    configure: impl FnOnce(&mut Config),
    fields: &[(&str, &str)],
) -> TestComponent {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    component.create(OWNER, "n", fields).await;
    for jid in [READER, PLAIN] {
        component.subscribe(jid, "n").await;
    }
    component
}

async fn set_options(component: &mut TestComponent, by: &str, fields: &[(&str, &str)]) -> Element {
    let content = format!("<options node='n' jid='{READER}'>{}</options>", form(fields));
    component.pubsub(by, "set", &content).await
}

pub async fn configure_options(component: &mut TestComponent, fields: &[(&str, &str)]) {
    let answer = set_options(component, READER, fields).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
}

/// Returns the value of an option from a reply with the options form.
pub fn value(answer: &Element, var: &str) -> Option<String> {
    let pubsub = answer.get_child("pubsub", PUBSUB).unwrap_or_else(|| panic!("{}", shown(answer)));
    let forms = pubsub.children().filter_map(|child| child.get_child("x", "jabber:x:data"));
    let mut fields = forms.flat_map(Element::children);
    let field = fields.find(|field| field.attr("var") == Some(var))?;
    Some(field.children().map(Element::text).collect())
}

pub async fn option(component: &mut TestComponent, var: &str) -> Option<String> {
    let shown =
        component.pubsub(READER, "get", &format!("<options node='n' jid='{READER}'/>")).await;
    value(&shown, var)
}

pub async fn publish(component: &mut TestComponent, id: &str, payload: &str) {
    let item = format!("<item id='{id}'>{payload}</item>");
    component.granted(OWNER, &format!("<publish node='n'>{item}</publish>")).await;
}

/// Returns the messages received so far for a JID.
pub async fn messages_for(component: &mut TestComponent, jid: &str) -> Vec<Element> {
    let messages = component.messages().await;
    messages.into_iter().filter(|message| message.attr("to") == Some(jid)).collect()
}

pub fn item_ids(message: &Element) -> Vec<String> {
    event(message).children().filter_map(|item| item.attr("id").map(str::to_owned)).collect()
}

#[allow(clippy::disallowed_methods)] // leases end by the clock
pub fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

pub fn from_now(millis: i64) -> String {
    let time: DateTime<Utc> = now() + chrono::Duration::milliseconds(millis);
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[tokio::test]
async fn s6_3_deliver_false_suppresses_events() {
    let mut component = component_with_subscribers(|_| {}, &[]).await;
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("true"));
    configure_options(&mut component, &[("deliver", "0")]).await;
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("false"));
    publish(&mut component, "1", "<x xmlns='urn:x'/>").await;
    assert!(messages_for(&mut component, READER).await.is_empty());
    configure_options(&mut component, &[("deliver", "true")]).await;
    publish(&mut component, "2", "<x xmlns='urn:x'/>").await;
    let messages = component.messages().await;
    let received: Vec<_> =
        messages.iter().map(|message| (message.attr("to").unwrap(), item_ids(message))).collect();
    assert_eq!(received, [(PLAIN, vec!["2".to_owned()]), (READER, vec!["2".to_owned()])]);
    assert_ne!(messages[0].attr("id"), messages[1].attr("id"));
    // Subscribers with options receive all other notifications too.
    component.owner(OWNER, "set", "<purge node='n'/>").await;
    component.owner(OWNER, "set", "<delete node='n'/>").await;
    let received: Vec<_> = messages_for(&mut component, READER).await;
    let received: Vec<_> =
        received.iter().map(|message| event(message).name().to_owned()).collect();
    assert_eq!(received, ["purge", "delete"]);
}

/// §6.3.4, §6.3.6.2.
#[tokio::test]
async fn s6_3_4_requests_for_options_have_the_specified_errors() {
    let mut component = component_with_subscribers(|_| {}, &[]).await;
    let options = |content: &str| format!("<options {content}/>");
    for (by, content, expected) in [
        ("other@localhost/x", format!("node='n' jid='{READER}'"), "auth forbidden"),
        (
            "other@localhost/x",
            "node='n' jid='other@localhost'".into(),
            "modify unexpected-request not-subscribed",
        ),
        (READER, "node='n'".into(), "modify bad-request jid-required"),
        (READER, format!("node='none' jid='{READER}'"), "cancel item-not-found"),
    ] {
        let answer = component.pubsub(by, "get", &options(&content)).await;
        assert_eq!(error(&answer), expected);
        let content = format!("<options {content}>{}</options>", form(&[("deliver", "0")]));
        let answer = component.pubsub(by, "set", &content).await;
        assert_eq!(error(&answer), expected);
    }
    for wrong in [
        ("deliver", "perhaps"),
        ("digest_frequency", "1"),
        ("expire", "soon"),
        ("expire", "2001-01-01T00:00:00Z"),
        ("x-gjallar#keyword", &"k".repeat(65)),
    ] {
        let answer = set_options(&mut component, READER, &[("digest", "1"), wrong]).await;
        assert_eq!(error(&answer), "modify bad-request invalid-options", "{wrong:?}");
    }
    let without =
        component.pubsub(READER, "set", &format!("<options node='n' jid='{READER}'/>")).await;
    assert_eq!(error(&without), "modify bad-request");
    assert_eq!(option(&mut component, "pubsub#digest").await.as_deref(), Some("false"));
    // An administrator may set the options of others (§6.3.4.1).
    let answer = set_options(&mut component, "admin@localhost/x", &[("deliver", "0")]).await;
    assert_eq!(answer.attr("type"), Some("result"));
    // A cancelled form changes nothing.
    let cancel = "<x xmlns='jabber:x:data' type='cancel'/>";
    let content = format!("<options node='n' jid='{READER}'>{cancel}</options>");
    assert_eq!(component.pubsub(READER, "set", &content).await.attr("type"), Some("result"));
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("false"));
}

/// §6.3.7.
#[tokio::test]
async fn s6_3_7_subscribe_sets_options_in_the_same_request() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    publish(&mut component, "0", "<x xmlns='urn:x'>nothing</x>").await;
    let subscribe = |options: &str| format!("<subscribe node='n' jid='{READER}'/>{options}");
    for wrong in ["node='n'", "jid='reader@localhost'"] {
        let content = subscribe(&format!("<options {wrong}>{}</options>", form(&[])));
        assert_eq!(error(&component.pubsub(READER, "set", &content).await), "modify bad-request");
    }
    let before = format!("<options>{}</options><subscribe node='n' jid='{READER}'/>", form(&[]));
    assert_eq!(error(&component.pubsub(READER, "set", &before).await), "modify bad-request");
    let invalid = subscribe(&format!("<options>{}</options>", form(&[("deliver", "x")])));
    let answer = component.pubsub(READER, "set", &invalid).await;
    assert_eq!(error(&answer), "modify bad-request invalid-options");
    let own = component.pubsub(READER, "get", "<subscriptions/>").await;
    assert!(!shown(&own).contains("jid="), "{}", shown(&own));

    let options = form(&[("x-gjallar#keyword", "Something")]);
    let answer =
        component.pubsub(READER, "set", &subscribe(&format!("<options>{options}</options>"))).await;
    assert!(shown(&answer).contains("subscription='subscribed'"), "{}", shown(&answer));
    assert!(shown(&answer).contains("type='result'"), "{}", shown(&answer));
    assert_eq!(value(&answer, "x-gjallar#keyword").as_deref(), Some("Something"));
    // The options apply from the beginning: the last item does not match.
    assert!(messages_for(&mut component, READER).await.is_empty());
    publish(&mut component, "1", "<x xmlns='urn:x'>SOME<b>THING</b> &amp; more</x>").await;
    publish(&mut component, "2", "<something xmlns='urn:x' at='something'/>").await;
    let received = messages_for(&mut component, READER).await;
    assert_eq!(received.iter().map(item_ids).collect::<Vec<_>>(), [["1"]]);
    // A repeated subscribe request is confirmed, and sets the options if it has any.
    let again = component.pubsub(READER, "set", &subscribe("")).await;
    assert_eq!(value(&again, "x-gjallar#keyword"), None);
    let options = form(&[("deliver", "0")]);
    component.pubsub(READER, "set", &subscribe(&format!("<options>{options}</options>"))).await;
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("false"));
}

/// XEP-0004 §3.1: a form may have fields that the service does not know, such as the registered
/// fields of collections, which gloox and QXmpp send, and the filter of §12.20.
#[tokio::test]
async fn s6_3_unknown_fields_of_options_are_ignored() {
    let mut component = component_with_subscribers(|_| {}, &[]).await;
    let unknown = [
        ("subscription_type", "items"),
        ("subscription_depth", "all"),
        ("x-http://shakespeare.lit/search#keyword", "peasant"),
        ("unheard_of", "1</value><value>2"),
    ];
    let fields = [&unknown[..], &[("digest", "1")]].concat();
    configure_options(&mut component, &fields).await;
    assert_eq!(option(&mut component, "pubsub#digest").await.as_deref(), Some("true"));
    let options = form(&unknown);
    let content = format!("<subscribe node='n' jid='{OWNER}'/><options>{options}</options>");
    let answer = component.pubsub(OWNER, "set", &content).await;
    assert!(shown(&answer).contains("subscription='subscribed'"), "{}", shown(&answer));
    // Known fields must still be valid.
    for wrong in [("deliver", "perhaps"), ("deliver", "1</value><value>1")] {
        let fields = [&unknown[..], &[wrong]].concat();
        let answer = set_options(&mut component, READER, &fields).await;
        assert_eq!(error(&answer), "modify bad-request invalid-options");
        assert!(shown(&answer).contains("pubsub#deliver: "), "{}", shown(&answer));
    }
    configure_options(&mut component, &[("digest_frequency", " +02000\n"), ("deliver", " 0 ")])
        .await;
    assert_eq!(option(&mut component, "pubsub#digest_frequency").await.as_deref(), Some("2000"));
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("false"));
}

/// §6.4.
#[tokio::test]
async fn s6_4_default_options_are_returned() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("type", "urn:x")]).await;
    component.create(OWNER, "listed", &[("access_model", "whitelist")]).await;
    let any = component.pubsub(READER, "get", "<default/>").await;
    for (var, default) in [
        ("FORM_TYPE", OPTIONS),
        ("pubsub#deliver", "true"),
        ("pubsub#digest", "false"),
        ("pubsub#digest_frequency", "86400000"),
        ("pubsub#include_body", "false"),
    ] {
        assert_eq!(value(&any, var).as_deref(), Some(default), "{var}");
    }
    // §12.8: the option is not offered if no payload could supply a body.
    let typed = component.pubsub(READER, "get", "<default node='n'/>").await;
    assert_eq!(value(&typed, "pubsub#deliver").as_deref(), Some("true"));
    assert_eq!(value(&typed, "pubsub#include_body"), None);
    let options = form(&[("deliver", "1")]);
    let content = format!("<subscribe node='n' jid='{OWNER}'/><options>{options}</options>");
    let subscribed = component.pubsub(OWNER, "set", &content).await;
    assert_eq!(value(&subscribed, "pubsub#deliver").as_deref(), Some("true"));
    assert_eq!(value(&subscribed, "pubsub#include_body"), None);
    let none = component.pubsub(READER, "get", "<default node='none'/>").await;
    assert_eq!(error(&none), "cancel item-not-found");
    let listed = component.pubsub(READER, "get", "<default node='listed'/>").await;
    assert_eq!(error(&listed), "auth forbidden");
    component.subscribe(READER, "n").await;
    let answer = set_options(&mut component, READER, &[("include_body", "1")]).await;
    assert_eq!(error(&answer), "modify bad-request invalid-options");
}

/// §12.8.
#[tokio::test]
async fn s12_8_include_body_renders_an_atom_entry_as_body() {
    let mut component = component_with_subscribers(|_| {}, &[]).await;
    configure_options(&mut component, &[("include_body", "1")]).await;
    publish(&mut component, "1", ATOM).await;
    publish(&mut component, "2", "<x xmlns='urn:x'>To be</x>").await;
    let messages = component.messages().await;
    let body = |message: &Element| {
        message.children().find(|child| child.name() == "body").map(Element::text)
    };
    let received: Vec<_> =
        messages.iter().map(|message| (message.attr("to").unwrap(), body(message))).collect();
    let body = Some("To be, or <not> to be.".to_owned());
    assert_eq!(received, [(PLAIN, None), (READER, body), (PLAIN, None), (READER, None)]);
    assert_eq!(item_ids(&messages[1]), ["1"]);
}

#[tokio::test]
async fn s6_3_digest_delivers_several_items_in_one_notification() {
    let mut component = component_with_subscribers(|_| {}, &[]).await;
    configure_options(&mut component, &[("digest", "1"), ("digest_frequency", "1000")]).await;
    for id in ["1", "2", "3"] {
        publish(&mut component, id, "<x xmlns='urn:x'/>").await;
    }
    component.granted(OWNER, "<retract node='n'><item id='2'/></retract>").await;
    let mut digest = Vec::new();
    while digest.len() < 2 {
        let message = component.message().await;
        let is_retraction = event(&message).children().any(|child| child.name() == "retract");
        if message.attr("to") == Some(READER) && !is_retraction {
            assert!(message.has_child("delay", "urn:xmpp:delay"));
            digest.extend(item_ids(&message));
        }
    }
    assert_eq!(digest, ["1", "3"]);
    // No item is sent twice, and no empty digest is sent.
    publish(&mut component, "4", "<x xmlns='urn:x'/>").await;
    let digest = loop {
        let message = component.message().await;
        if message.attr("to") == Some(READER) {
            break message;
        }
    };
    assert_eq!(item_ids(&digest), ["4"]);
}

#[tokio::test]
async fn s6_3_new_options_keep_the_pending_digest() {
    let mut component = component_with_subscribers(|_| {}, &[]).await;
    configure_options(&mut component, &[("digest", "1"), ("digest_frequency", "2000")]).await;
    publish(&mut component, "1", "<x xmlns='urn:x'/>").await;
    configure_options(&mut component, &[("expire", &from_now(600_000))]).await;
    publish(&mut component, "2", "<x xmlns='urn:x'/>").await;
    let mut digest = Vec::new();
    while digest.len() < 2 {
        let message = component.message().await;
        if message.attr("to") == Some(READER) {
            digest.extend(item_ids(&message));
        }
    }
    assert_eq!(digest, ["1", "2"]);
}

#[tokio::test]
async fn s6_3_configured_subscriptions_of_one_entity_are_limited() {
    let mut component = component_with_subscribers(|_| {}, &[]).await;
    let options = form(&[("deliver", "0")]);
    let content =
        |jid: &str| format!("<subscribe node='n' jid='{jid}'/><options>{options}</options>");
    for number in 0..100 {
        let jid = format!("taker@localhost/{number}");
        component.granted(&jid, &content(&jid)).await;
    }
    let refused = component.pubsub("taker@localhost/x", "set", &content("taker@localhost/x")).await;
    assert_eq!(error(&refused), "wait policy-violation too-many-subscriptions");
    component.granted(READER, &content(READER)).await;
}

/// Together the digests exceed the share of a creator in the backlog.
#[tokio::test]
async fn s6_3_many_digests_due_at_once_are_all_delivered() {
    let small = |config: &mut Config| config.limits.max_backlog_bytes = 4 * 1024 * 1024;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), small).await;
    component.create(OWNER, "n", &[]).await;
    let readers: Vec<_> = (0..20).map(|number| format!("{READER}/{number:02}")).collect();
    let options = form(&[("digest", "1"), ("digest_frequency", "1000")]);
    for reader in &readers {
        let content = format!("<subscribe node='n' jid='{reader}'/><options>{options}</options>");
        component.granted(reader, &content).await;
    }
    let payload = format!("<x xmlns='urn:x'>{}</x>", "x".repeat(60_000));
    let publish = |id| format!("<item id='{id}'>{payload}</item>");
    let items: String = (0..3).map(publish).collect();
    component.granted(OWNER, &format!("<publish node='n'>{items}</publish>")).await;
    let mut received = Vec::new();
    while received.len() < 3 * readers.len() {
        let message = component.message().await;
        received.push((message.attr("to").unwrap().to_owned(), item_ids(&message).join(" ")));
    }
    received.sort();
    let items = |reader: &String| ["0", "1", "2"].map(|id| (reader.clone(), id.to_owned()));
    assert_eq!(received, readers.iter().flat_map(items).collect::<Vec<_>>());
}
