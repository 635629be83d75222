//! Subscription options (§6.3, §6.4, §12.8, §12.19, §12.20), and several subscriptions of one JID (§6.1.6, §12.16).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, SecondsFormat, Utc};
use gjallar::{
    config::Config,
    store::{MemoryStore, SledStore, Store},
};
use minidom::Element;

use crate::support::component::{EVENT, PUBSUB, TestComponent, error, event, shown};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";
const PLAIN: &str = "plain@localhost/phone";
const OPTIONS: &str = "http://jabber.org/protocol/pubsub#subscribe_options";
const ATOM: &str = "<entry xmlns='http://www.w3.org/2005/Atom'><title>Soliloquy</title>\
                    <summary>To be, or &lt;not&gt; to be.</summary></entry>";

fn form(fields: &[(&str, &str)]) -> String {
    let field = |(var, value): &(&str, &str)| {
        let prefix = if var.contains('#') { "" } else { "pubsub#" };
        format!("<field var='{prefix}{var}'><value>{value}</value></field>")
    };
    let fields: String = fields.iter().map(field).collect();
    let form_type =
        format!("<field var='FORM_TYPE' type='hidden'><value>{OPTIONS}</value></field>");
    format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x>")
}

/// A node with two subscribers, one of whom will have options.
async fn stage(configure: impl FnOnce(&mut Config), fields: &[(&str, &str)]) -> TestComponent {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    component.create(OWNER, "n", fields).await;
    for jid in [READER, PLAIN] {
        component.subscribe(jid, "n").await;
    }
    component
}

async fn set(component: &mut TestComponent, by: &str, fields: &[(&str, &str)]) -> Element {
    let content = format!("<options node='n' jid='{READER}'>{}</options>", form(fields));
    component.pubsub(by, "set", &content).await
}

async fn granted(component: &mut TestComponent, fields: &[(&str, &str)]) {
    let answer = set(component, READER, fields).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
}

/// The value of an option in an answer that shows them.
fn value(answer: &Element, var: &str) -> Option<String> {
    let pubsub = answer.get_child("pubsub", PUBSUB).unwrap_or_else(|| panic!("{}", shown(answer)));
    let forms = pubsub.children().filter_map(|child| child.get_child("x", "jabber:x:data"));
    let mut fields = forms.flat_map(Element::children);
    let field = fields.find(|field| field.attr("var") == Some(var))?;
    Some(field.children().map(Element::text).collect())
}

async fn option(component: &mut TestComponent, var: &str) -> Option<String> {
    let shown =
        component.pubsub(READER, "get", &format!("<options node='n' jid='{READER}'/>")).await;
    value(&shown, var)
}

async fn publish(component: &mut TestComponent, id: &str, payload: &str) {
    let item = format!("<item id='{id}'>{payload}</item>");
    component.granted(OWNER, &format!("<publish node='n'>{item}</publish>")).await;
}

/// The messages that came by now for a JID.
async fn heard(component: &mut TestComponent, jid: &str) -> Vec<Element> {
    let messages = component.messages().await;
    messages.into_iter().filter(|message| message.attr("to") == Some(jid)).collect()
}

fn ids(message: &Element) -> Vec<String> {
    event(message).children().filter_map(|item| item.attr("id").map(str::to_owned)).collect()
}

#[allow(clippy::disallowed_methods)] // leases end by the clock
fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

fn from_now(millis: i64) -> String {
    let time: DateTime<Utc> = now() + chrono::Duration::milliseconds(millis);
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[tokio::test]
async fn deliver_false_suppresses_events() {
    let mut component = stage(|_| {}, &[]).await;
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("true"));
    granted(&mut component, &[("deliver", "0")]).await;
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("false"));
    publish(&mut component, "1", "<x xmlns='urn:x'/>").await;
    assert!(heard(&mut component, READER).await.is_empty());
    granted(&mut component, &[("deliver", "true")]).await;
    publish(&mut component, "2", "<x xmlns='urn:x'/>").await;
    let messages = component.messages().await;
    let told: Vec<_> =
        messages.iter().map(|message| (message.attr("to").unwrap(), ids(message))).collect();
    assert_eq!(told, [(PLAIN, vec!["2".to_owned()]), (READER, vec!["2".to_owned()])]);
    assert_ne!(messages[0].attr("id"), messages[1].attr("id"));
    // Everything that is told to subscribers goes to those with options too.
    component.owner(OWNER, "set", "<purge node='n'/>").await;
    component.owner(OWNER, "set", "<delete node='n'/>").await;
    let told: Vec<_> = heard(&mut component, READER).await;
    let told: Vec<_> = told.iter().map(|message| event(message).name().to_owned()).collect();
    assert_eq!(told, ["purge", "delete"]);
}

/// §6.3.4, §6.3.6.2.
#[tokio::test]
async fn options_that_cannot_be_shown_or_set_are_refused_by_the_book() {
    let mut component = stage(|_| {}, &[]).await;
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
        let answer = set(&mut component, READER, &[("digest", "1"), wrong]).await;
        assert_eq!(error(&answer), "modify bad-request invalid-options", "{wrong:?}");
    }
    let without =
        component.pubsub(READER, "set", &format!("<options node='n' jid='{READER}'/>")).await;
    assert_eq!(error(&without), "modify bad-request");
    assert_eq!(option(&mut component, "pubsub#digest").await.as_deref(), Some("false"));
    // An administrator may (§6.3.4.1).
    let answer = set(&mut component, "admin@localhost/x", &[("deliver", "0")]).await;
    assert_eq!(answer.attr("type"), Some("result"));
    // A form that is cancelled changes nothing.
    let cancel = "<x xmlns='jabber:x:data' type='cancel'/>";
    let content = format!("<options node='n' jid='{READER}'>{cancel}</options>");
    assert_eq!(component.pubsub(READER, "set", &content).await.attr("type"), Some("result"));
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("false"));
}

/// §6.3.7.
#[tokio::test]
async fn a_subscription_comes_with_its_options() {
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
    // They hold from the beginning: the last item is none that is wanted.
    assert!(heard(&mut component, READER).await.is_empty());
    publish(&mut component, "1", "<x xmlns='urn:x'>SOME<b>THING</b> &amp; more</x>").await;
    publish(&mut component, "2", "<something xmlns='urn:x' at='something'/>").await;
    let told = heard(&mut component, READER).await;
    assert_eq!(told.iter().map(ids).collect::<Vec<_>>(), [["1"]]);
    // Who is subscribed is told so again, and its options are set if it says some.
    let again = component.pubsub(READER, "set", &subscribe("")).await;
    assert_eq!(value(&again, "x-gjallar#keyword"), None);
    let options = form(&[("deliver", "0")]);
    component.pubsub(READER, "set", &subscribe(&format!("<options>{options}</options>"))).await;
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("false"));
}

/// XEP-0004 §3.1: a form may have fields that the service does not know, such as the registered ones of collections, which
/// gloox and QXmpp send, and the filter of §12.20.
#[tokio::test]
async fn unknown_fields_of_options_are_ignored() {
    let mut component = stage(|_| {}, &[]).await;
    let unknown = [
        ("subscription_type", "items"),
        ("subscription_depth", "all"),
        ("x-http://shakespeare.lit/search#keyword", "peasant"),
        ("unheard_of", "1</value><value>2"),
    ];
    let fields = [&unknown[..], &[("digest", "1")]].concat();
    granted(&mut component, &fields).await;
    assert_eq!(option(&mut component, "pubsub#digest").await.as_deref(), Some("true"));
    let options = form(&unknown);
    let content = format!("<subscribe node='n' jid='{OWNER}'/><options>{options}</options>");
    let answer = component.pubsub(OWNER, "set", &content).await;
    assert!(shown(&answer).contains("subscription='subscribed'"), "{}", shown(&answer));
    // What is known has to be right all the same.
    for wrong in [("deliver", "perhaps"), ("deliver", "1</value><value>1")] {
        let fields = [&unknown[..], &[wrong]].concat();
        let answer = set(&mut component, READER, &fields).await;
        assert_eq!(error(&answer), "modify bad-request invalid-options");
        assert!(shown(&answer).contains("pubsub#deliver: "), "{}", shown(&answer));
    }
    granted(&mut component, &[("digest_frequency", " +02000\n"), ("deliver", " 0 ")]).await;
    assert_eq!(option(&mut component, "pubsub#digest_frequency").await.as_deref(), Some("2000"));
    assert_eq!(option(&mut component, "pubsub#deliver").await.as_deref(), Some("false"));
}

/// §6.4.
#[tokio::test]
async fn default_options_are_shown() {
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
    // §12.8: not where there is nothing that could stand in a body.
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
    let answer = set(&mut component, READER, &[("include_body", "1")]).await;
    assert_eq!(error(&answer), "modify bad-request invalid-options");
}

/// §12.8.
#[tokio::test]
async fn include_body_renders_an_atom_entry_as_body() {
    let mut component = stage(|_| {}, &[]).await;
    granted(&mut component, &[("include_body", "1")]).await;
    publish(&mut component, "1", ATOM).await;
    publish(&mut component, "2", "<x xmlns='urn:x'>To be</x>").await;
    let messages = component.messages().await;
    let body = |message: &Element| {
        message.children().find(|child| child.name() == "body").map(Element::text)
    };
    let told: Vec<_> =
        messages.iter().map(|message| (message.attr("to").unwrap(), body(message))).collect();
    let said = Some("To be, or <not> to be.".to_owned());
    assert_eq!(told, [(PLAIN, None), (READER, said), (PLAIN, None), (READER, None)]);
    assert_eq!(ids(&messages[1]), ["1"]);
}

/// §12.19: a lease is cut to what the service grants, announced before it ends, renewed, and ends.
#[tokio::test]
async fn a_lease_ends_with_a_notice_unless_it_is_renewed() {
    let mut component =
        stage(|config| config.limits.max_lease_seconds = 2, &[("notify_sub", "1")]).await;
    heard(&mut component, READER).await;
    granted(&mut component, &[("expire", &from_now(86_400_000))]).await;
    let end = option(&mut component, "pubsub#expire").await.unwrap();
    let end = DateTime::parse_from_rfc3339(&end).unwrap().with_timezone(&Utc);
    let left = end - now();
    assert!(left > chrono::Duration::zero() && left <= chrono::Duration::seconds(2), "{left}");
    // Renewed before it was told to end.
    granted(&mut component, &[("expire", &from_now(1500))]).await;
    let warning = component.message().await;
    assert_eq!(warning.attr("to"), Some(READER));
    let ending = event(&warning);
    assert_eq!(ending.attr("subscription"), Some("subscribed"));
    assert_eq!(ending.attr("jid"), Some(READER));
    let expiry = DateTime::parse_from_rfc3339(ending.attr("expiry").unwrap()).unwrap();
    assert!(expiry > now());
    publish(&mut component, "1", "<x xmlns='urn:x'/>").await;
    assert_eq!(heard(&mut component, READER).await.len(), 1);
    let mut ends = [component.message().await, component.message().await];
    ends.sort_by_key(|message| message.attr("to").unwrap().to_owned());
    assert_eq!(ends[0].attr("to"), Some("owner@localhost"));
    assert_eq!(ends[1].attr("to"), Some(READER));
    for end in &ends {
        assert_eq!(event(end).attr("subscription"), Some("none"), "{}", shown(end));
        assert_eq!(event(end).attr("jid"), Some(READER));
    }
    assert!(now() >= expiry);
    publish(&mut component, "2", "<x xmlns='urn:x'/>").await;
    assert!(heard(&mut component, READER).await.is_empty());
    let gone =
        component.pubsub(READER, "get", &format!("<options node='n' jid='{READER}'/>")).await;
    assert_eq!(error(&gone), "modify unexpected-request not-subscribed");
}

#[tokio::test]
async fn a_lease_and_its_options_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    let expire = from_now(2000);
    granted(&mut component, &[("expire", &expire), ("x-gjallar#keyword", "be")]).await;
    component.finish().await;
    let store = open();
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    let mut component = TestComponent::with(store, |_| {}).await;
    assert_eq!(option(&mut component, "pubsub#expire").await, Some(expire));
    assert_eq!(option(&mut component, "x-gjallar#keyword").await.as_deref(), Some("be"));
    publish(&mut component, "1", "<x xmlns='urn:x'>not</x>").await;
    publish(&mut component, "2", "<x xmlns='urn:x'>to be</x>").await;
    assert_eq!(ids(&component.message().await), ["2"]);
    let (warning, end) = (component.message().await, component.message().await);
    assert!(event(&warning).attr("expiry").is_some(), "{}", shown(&warning));
    assert_eq!(event(&end).attr("subscription"), Some("none"));
    component.finish().await;
    let store = open();
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.nodes_with_timers().await.unwrap(), []);
}

#[tokio::test]
async fn items_come_together_in_digests() {
    let mut component = stage(|_| {}, &[]).await;
    granted(&mut component, &[("digest", "1"), ("digest_frequency", "1000")]).await;
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
            digest.extend(ids(&message));
        }
    }
    assert_eq!(digest, ["1", "3"]);
    // Nothing is told twice, and there is no digest of nothing.
    publish(&mut component, "4", "<x xmlns='urn:x'/>").await;
    let digest = loop {
        let message = component.message().await;
        if message.attr("to") == Some(READER) {
            break message;
        }
    };
    assert_eq!(ids(&digest), ["4"]);
}

#[tokio::test]
async fn expired_items_are_retracted_with_notifications() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[("item_expire", "1")]).await;
    component.subscribe(READER, "n").await;
    publish(&mut component, "1", "<x xmlns='urn:x'/>").await;
    publish(&mut component, "2", "<x xmlns='urn:x'/>").await;
    let mut gone = Vec::new();
    while gone.len() < 2 {
        let message = component.message().await;
        let items = event(&message);
        gone.extend(
            items
                .children()
                .filter(|child| child.name() == "retract")
                .filter_map(|item| item.attr("id").map(str::to_owned)),
        );
    }
    assert_eq!(gone, ["1", "2"]);
    assert_eq!(component.items(READER, "n").await, Vec::<String>::new());
    // Those that are there when the service starts, and when the node is configured so.
    component.configure(OWNER, "n", &[("item_expire", "max")]).await;
    publish(&mut component, "3", "<x xmlns='urn:x'/>").await;
    component.configure(OWNER, "n", &[("item_expire", "2")]).await;
    component.messages().await;
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    let retracted = component.message().await;
    assert_eq!(ids(&retracted), ["3"]);
    assert_eq!(component.items(READER, "n").await, Vec::<String>::new());
    component.finish().await;
}

#[tokio::test]
async fn new_options_keep_the_pending_digest() {
    let mut component = stage(|_| {}, &[]).await;
    granted(&mut component, &[("digest", "1"), ("digest_frequency", "2000")]).await;
    publish(&mut component, "1", "<x xmlns='urn:x'/>").await;
    granted(&mut component, &[("expire", &from_now(600_000))]).await;
    publish(&mut component, "2", "<x xmlns='urn:x'/>").await;
    let mut digest = Vec::new();
    while digest.len() < 2 {
        let message = component.message().await;
        if message.attr("to") == Some(READER) {
            digest.extend(ids(&message));
        }
    }
    assert_eq!(digest, ["1", "2"]);
}

#[tokio::test]
async fn one_entity_does_not_take_all_the_places_for_options() {
    let mut component = stage(|_| {}, &[]).await;
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

/// Together they are more than a creator may have waiting.
#[tokio::test]
async fn many_digests_that_are_due_at_once_all_come() {
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
    let mut told = Vec::new();
    while told.len() < 3 * readers.len() {
        let message = component.message().await;
        told.push((message.attr("to").unwrap().to_owned(), ids(&message).join(" ")));
    }
    told.sort();
    let items = |reader: &String| ["0", "1", "2"].map(|id| (reader.clone(), id.to_owned()));
    assert_eq!(told, readers.iter().flat_map(items).collect::<Vec<_>>());
}

#[tokio::test]
async fn items_expire_that_are_not_read_at_once() {
    let few = |config: &mut Config| config.limits.max_reply_bytes = 2000;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), few).await;
    component.create(OWNER, "n", &[("item_expire", "1")]).await;
    component.subscribe(READER, "n").await;
    let payload = format!("<x xmlns='urn:x'>{}</x>", "x".repeat(1500));
    let mut gone = Vec::new();
    for id in ["1", "2", "3"] {
        publish(&mut component, id, &payload).await;
    }
    while gone.len() < 3 {
        let message = component.message().await;
        gone.extend(ids(&message).into_iter().filter(|_| shown(&message).contains("<retract")));
    }
    assert_eq!(gone, ["1", "2", "3"]);
}

fn many(config: &mut Config) {
    config.limits.max_subids = 3;
}

/// One more subscription, and its SubID.
async fn subscribe_again(component: &mut TestComponent, keyword: &str) -> String {
    let options = form(&[("x-gjallar#keyword", keyword)]);
    let content = format!("<subscribe node='n' jid='{READER}'/><options>{options}</options>");
    let answer = component.pubsub(READER, "set", &content).await;
    let pubsub = answer.get_child("pubsub", PUBSUB).unwrap_or_else(|| panic!("{}", shown(&answer)));
    let subscription = pubsub.get_child("subscription", PUBSUB).unwrap();
    subscription.attr("subid").unwrap().to_owned()
}

fn subids(message: &Element) -> Vec<String> {
    let headers =
        message.children().filter(|child| child.is("headers", "http://jabber.org/protocol/shim"));
    let headers = headers.flat_map(Element::children);
    headers
        .inspect(|header| assert_eq!(header.attr("name"), Some("SubID")))
        .map(Element::text)
        .collect()
}

/// §6.1.6, §6.2.3, §6.3.4, §6.5.9, §12.16.
#[tokio::test]
async fn a_jid_with_several_subscriptions_gets_one_notification_with_all_subids() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), many).await;
    component.create(OWNER, "n", &[]).await;
    let a = subscribe_again(&mut component, "one").await;
    let b = subscribe_again(&mut component, "two").await;
    let c = subscribe_again(&mut component, "").await;
    assert!(a != b && b != c && a != c);
    let full =
        component.pubsub(READER, "set", &format!("<subscribe node='n' jid='{READER}'/>")).await;
    assert_eq!(error(&full), "wait policy-violation too-many-subscriptions");
    for (id, text, expected) in
        [("1", "one two", vec![&a, &b, &c]), ("2", "two", vec![&b, &c]), ("3", "three", vec![&c])]
    {
        publish(&mut component, id, &format!("<x xmlns='urn:x'>{text}</x>")).await;
        let told = heard(&mut component, READER).await;
        assert_eq!(told.len(), 1);
        assert_eq!(subids(&told[0]), expected.into_iter().cloned().collect::<Vec<_>>());
    }
    // Which one has to be said.
    let with = |name: &str, subid: &str| match subid {
        "" => format!("<{name} node='n' jid='{READER}'/>"),
        _ => format!("<{name} node='n' jid='{READER}' subid='{subid}'/>"),
    };
    for (kind, name) in [("get", "options"), ("set", "unsubscribe"), ("get", "items")] {
        let missing = component.pubsub(READER, kind, &with(name, "")).await;
        assert_eq!(error(&missing), "modify bad-request subid-required", "{name}");
        let wrong = component.pubsub(READER, kind, &with(name, "none")).await;
        assert_eq!(error(&wrong), "modify not-acceptable invalid-subid", "{name}");
    }
    let options = component.pubsub(READER, "get", &with("options", &b)).await;
    assert_eq!(value(&options, "x-gjallar#keyword").as_deref(), Some("two"));
    assert_eq!(
        component.pubsub(READER, "get", &with("items", &b)).await.attr("type"),
        Some("result")
    );
    let own = shown(&component.pubsub(READER, "get", "<subscriptions/>").await);
    let all = shown(&component.owner(OWNER, "get", "<subscriptions node='n'/>").await);
    for subid in [&a, &b, &c] {
        assert!(own.contains(&**subid) && all.contains(&**subid), "{own} {all}");
    }
    let gone = component.pubsub(READER, "set", &with("unsubscribe", &a)).await;
    assert!(shown(&gone).contains(&format!("subid='{a}' subscription='none'")), "{}", shown(&gone));
    // An owner ends one of them.
    let entry = format!("<subscription jid='{READER}' subid='{c}' subscription='none'/>");
    let entries = format!("<subscriptions node='n'>{entry}</subscriptions>");
    assert_eq!(component.owner(OWNER, "set", &entries).await.attr("type"), Some("result"));
    publish(&mut component, "4", "<x xmlns='urn:x'>one two</x>").await;
    let told = heard(&mut component, READER).await;
    assert_eq!(subids(told.last().unwrap()), std::slice::from_ref(&b));
    // The last one needs no name.
    let gone = component.pubsub(READER, "set", &with("unsubscribe", "")).await;
    assert!(shown(&gone).contains(&format!("subid='{b}' subscription='none'")), "{}", shown(&gone));
    publish(&mut component, "5", "<x xmlns='urn:x'>two</x>").await;
    assert!(heard(&mut component, READER).await.is_empty());
}

/// §12.16; §7.1.2.4: headers are the last child.
#[tokio::test]
async fn s12_16_events_about_the_node_itself_have_no_subid() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), many).await;
    component.create(OWNER, "n", &[("notify_config", "1"), ("notify_retract", "1")]).await;
    let subid = subscribe_again(&mut component, "").await;
    publish(&mut component, "1", ATOM).await;
    let retract = "<retract node='n' notify='true'><item id='1'/></retract>";
    component.granted(OWNER, retract).await;
    let configured = component.configure(OWNER, "n", &[("title", "News")]).await;
    assert_eq!(configured.attr("type"), Some("result"), "{}", shown(&configured));
    for content in ["<purge node='n'/>", "<delete node='n'/>"] {
        let answer = component.owner(OWNER, "set", content).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    }
    let events = heard(&mut component, READER).await;
    let kinds = events.iter().map(|message| (event(message).name().to_owned(), subids(message)));
    let with_subid = || ("items".to_owned(), vec![subid.clone()]);
    let without = |name: &str| (name.to_owned(), vec![]);
    let expected =
        [with_subid(), with_subid(), without("configuration"), without("purge"), without("delete")];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    let last = |message: &Element| message.children().last().unwrap().name().to_owned();
    let expected = ["headers", "headers", "no-store", "no-store", "no-store"];
    assert_eq!(events.iter().map(last).collect::<Vec<_>>(), expected);
}

/// §6.1.6, §8.8.4.
#[tokio::test]
async fn notices_of_owners_name_the_subid() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), many).await;
    component.create(OWNER, "n", &[]).await;
    let mut set = async |state: &str, subid: &str| {
        let subid = if subid.is_empty() { String::new() } else { format!("subid='{subid}'") };
        let entry = format!("<subscription jid='{READER}' subscription='{state}' {subid}/>");
        let content = format!("<subscriptions node='n'>{entry}</subscriptions>");
        let answer = component.owner(OWNER, "set", &content).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        let told = component.messages().await;
        assert_eq!(told.len(), 1);
        let told = event(&told[0]).clone();
        assert_eq!((told.attr("jid"), told.attr("subscription")), (Some(READER), Some(state)));
        let subid = told.attr("subid").map(str::to_owned).unwrap();
        let another = match state {
            "none" => String::new(),
            _ => subscribe_again(&mut component, "").await,
        };
        (subid, another)
    };
    let (first, second) = set("subscribed", "").await;
    assert_eq!(set("none", &first).await.0, first);
    assert_eq!(set("none", "").await.0, second);
}

#[tokio::test]
async fn several_subscriptions_are_announced_where_there_can_be_some() {
    for (max, is_announced) in [(1, false), (2, true)] {
        let configure = |config: &mut Config| config.limits.max_subids = max;
        let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
        let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        let info = shown(&component.ask(READER, "get", query).await);
        assert_eq!(info.contains("pubsub#multi-subscribe"), is_announced);
        assert!(
            info.contains("pubsub#subscription-options")
                && info.contains("pubsub#leased-subscription")
        );
    }
}

/// What is owed to those with options is told after a restart as it was to be.
#[tokio::test]
async fn log_entries_of_configured_subscriptions_outlive_a_broken_stream() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), many).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(PLAIN, "n").await;
    component.messages().await;
    let a = subscribe_again(&mut component, "").await;
    component.link.hold_barriers();
    publish(&mut component, "1", ATOM).await;
    let first = tokio::time::timeout(Duration::from_secs(10), component.message()).await.unwrap();
    assert!(event(&first).is("items", EVENT));
    component.finish().await;
    let mut component = TestComponent::with(open(), many).await;
    let told = component.messages().await;
    let told: Vec<_> =
        told.iter().map(|message| (message.attr("to").unwrap(), subids(message))).collect();
    assert!(told.iter().any(|(to, subids)| *to == READER && *subids == [a.clone()]), "{told:?}");
    assert!(told.iter().all(|(to, subids)| *to != PLAIN || subids.is_empty() || subids.len() == 1));
}

/// XEP-0465 §4.1 to §5.
#[tokio::test]
async fn public_subscriptions_are_shown_to_entities_that_see_the_node() {
    const PUBLIC: &str = "<public xmlns='urn:xmpp:pps:0'/>";
    const AT: &str = "urn:xmpp:pps:subscribers:0/n";
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[("access_model", "open")]).await;
    let subscribe = async |component: &mut TestComponent, jid: &str, public: &str| {
        let content = format!("<subscribe node='n' jid='{jid}'>{public}</subscribe>");
        shown(&component.granted(jid, &content).await)
    };
    let read = async |component: &mut TestComponent, items: &str| {
        let answer = component.pubsub(OWNER, "get", &format!("<items node='{AT}'{items}")).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        let items = answer.get_child("pubsub", PUBSUB).unwrap().get_child("items", PUBSUB).unwrap();
        assert_eq!(items.attr("node"), Some(AT));
        let jid = |item: &Element| {
            let jid = item.get_child("subscriber", "urn:xmpp:pps:0").unwrap().attr("jid").unwrap();
            assert_eq!(item.attr("id"), Some(jid));
            jid.to_owned()
        };
        items.children().map(jid).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(read(&mut component, "/>").await, "");
    for (jid, public) in
        [("b@x/r", PUBLIC), ("a@x", PUBLIC), ("b@x", PUBLIC), ("c@x", ""), ("d@x", PUBLIC)]
    {
        let answer = subscribe(&mut component, jid, public).await;
        assert!(!answer.contains("jabber:x:data"), "{answer}");
    }
    assert_eq!(read(&mut component, "/>").await, "a@x b@x d@x");
    assert_eq!(read(&mut component, " max_items='2'/>").await, "b@x d@x");
    assert_eq!(read(&mut component, "><item id='c@x'/><item id='d@x'/></items>").await, "d@x");
    let page = "/><set xmlns='http://jabber.org/protocol/rsm'><max>1</max><after>a@x</after></set>";
    assert_eq!(read(&mut component, page).await, "b@x");
    // Options leave it as it is; subscribing again without it ends it, and so does unsubscribing.
    let body = "<field var='pubsub#include_body'><value>1</value></field>";
    let form_type = format!("<field var='FORM_TYPE'><value>{OPTIONS}</value></field>");
    let form = format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{body}</x>");
    component.granted("a@x", &format!("<options node='n' jid='a@x'>{form}</options>")).await;
    subscribe(&mut component, "d@x", "").await;
    component.granted("b@x", "<unsubscribe node='n' jid='b@x'/>").await;
    assert_eq!(read(&mut component, "/>").await, "a@x b@x");
    component.granted("b@x/r", "<unsubscribe node='n' jid='b@x/r'/>").await;
    subscribe(&mut component, "c@x", PUBLIC).await;
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    assert_eq!(read(&mut component, "/>").await, "a@x c@x");
    // Nobody else may do anything there, or learn who subscribes to what it does not see.
    for content in [
        format!("<create node='{AT}'/>"),
        "<create node='urn:xmpp:pps:subscriptions:0'/>".to_owned(),
        format!("<publish node='{AT}'><item/></publish>"),
        format!("<retract node='{AT}'><item id='a@x'/></retract>"),
        format!("<subscribe node='{AT}' jid='owner@localhost'/>"),
    ] {
        let refused = component.pubsub(OWNER, "set", &content).await;
        assert_eq!(error(&refused), "auth forbidden", "{content}");
    }
    for content in [format!("<purge node='{AT}'/>"), format!("<delete node='{AT}'/>")] {
        let refused = component.owner(OWNER, "set", &content).await;
        assert_eq!(error(&refused), "auth forbidden", "{content}");
    }
    component.configure(OWNER, "n", &[("access_model", "whitelist")]).await;
    for (node, refused) in [("n", "auth forbidden"), ("x", "cancel item-not-found")] {
        let content = format!("<items node='urn:xmpp:pps:subscribers:0/{node}'/>");
        let answer = component.pubsub("stranger@localhost", "get", &content).await;
        assert_eq!(error(&answer), refused);
    }
}

/// §6.1.5: where every subscription needs a lease, one without is not made, and none is set free of it.
#[tokio::test]
async fn a_subscription_may_have_to_be_configured() {
    let configure = |config: &mut Config| config.limits.require_lease = true;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    component.create(OWNER, "n", &[]).await;
    let subscribe = format!("<subscribe node='n' jid='{READER}'/>");
    let required = "modify not-acceptable configuration-required";
    let answer = component.pubsub(READER, "set", &subscribe).await;
    assert_eq!(error(&answer), required);
    let without = format!("{subscribe}<options>{}</options>", form(&[("deliver", "1")]));
    assert_eq!(error(&component.pubsub(READER, "set", &without).await), required);
    let lease = [("expire", from_now(86_400_000))];
    let lease = lease.iter().map(|(var, value)| (*var, value.as_str())).collect::<Vec<_>>();
    let with = format!("{subscribe}<options>{}</options>", form(&lease));
    component.granted(READER, &with).await;
    // Who has one is told so again; the lease stays.
    component.granted(READER, &subscribe).await;
    let free = form(&[("expire", "")]);
    let free = format!("<options node='n' jid='{READER}'>{free}</options>");
    let answer = component.pubsub(READER, "set", &free).await;
    assert_eq!(error(&answer), "modify bad-request invalid-options");
    // An owner knows what it does.
    let enrolled = format!("<subscription jid='{PLAIN}' subscription='subscribed'/>");
    let content = format!("<subscriptions node='n'>{enrolled}</subscriptions>");
    assert_eq!(component.owner(OWNER, "set", &content).await.attr("type"), Some("result"));
}
