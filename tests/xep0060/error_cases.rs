//! The error cases of XEP-0060, a row for each, and what is no error though it looks like one.

use std::sync::Arc;

use gjallar::{config::Config, store::MemoryStore};
use minidom::Element;

use crate::support::component::{
    ADMIN, OWNER as OWNED, PUBSUB, STREAM, TestComponent, error, form, shown,
};

const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";
const STRANGER: &str = "stranger@far.example/x";
const OUTCAST: &str = "outcast@localhost/x";
const PUBLISH_ONLY: &str = "bot@localhost/x";

/// Clause, who asks, `get` or `set`, the namespace, what is asked, and the error: its type, its condition,
/// that of XEP-0060, and the feature that is not there. `result` if there is none.
type ErrorCase = (&'static str, &'static str, &'static str, &'static str, String, &'static str);

/// Nodes for every case: one of each access model, and some that take or give less than others.
async fn stage() -> TestComponent {
    let mut component = TestComponent::start().await;
    for (node, fields) in [
        ("open", &[][..]),
        ("listed", &[("access_model", "whitelist")]),
        ("closed", &[("subscribe", "0")]),
        ("asked", &[("access_model", "authorize")]),
        ("typed", &[("type", "urn:x"), ("max_payload_size", "100"), ("max_items", "2")]),
        ("passing", &[("persist_items", "0")]),
        ("bare", &[("persist_items", "0"), ("deliver_payloads", "0")]),
        ("kept", &[("deliver_payloads", "0")]),
    ] {
        component.create(OWNER, node, fields).await;
        let affiliations = "<affiliation jid='outcast@localhost' affiliation='outcast'/>\
                            <affiliation jid='bot@localhost' affiliation='publish-only'/>";
        let content = format!("<affiliations node='{node}'>{affiliations}</affiliations>");
        let answer = component.owner(OWNER, "set", &content).await;
        assert_eq!(answer.attr("type"), Some("result"));
    }
    component.create(OWNER, "old", &[]).await;
    let moved = "<delete node='old'><redirect uri='xmpp:new.example?;node=new'/></delete>";
    assert_eq!(component.owner(OWNER, "set", moved).await.attr("type"), Some("result"));
    component.subscribe(READER, "open").await;
    component.publish(OWNER, "open", "1").await;
    component
}

fn item(content: &str) -> String {
    format!("<item id='1'>{content}</item>")
}

fn options(form_type: &str, fields: &str) -> String {
    format!(
        "<publish-options><x xmlns='jabber:x:data' type='submit'>\
         <field var='FORM_TYPE'><value>{form_type}</value></field>{fields}</x></publish-options>"
    )
}

fn field(var: &str, value: &str) -> String {
    format!("<field var='pubsub#{var}'><value>{value}</value></field>")
}

async fn check(rows: &[ErrorCase]) {
    let mut component = stage().await;
    let mut wrong = Vec::new();
    for (clause, by, kind, ns, content, expected) in rows {
        let content = format!("<pubsub xmlns='{ns}'>{content}</pubsub>");
        let answer = component.ask(by, kind, &content).await;
        let got = match answer.attr("type") {
            Some("result") => "result".to_owned(),
            _ => error(&answer),
        };
        if got != *expected {
            wrong.push(format!("{clause}: {expected}, but not: {}", shown(&answer)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

macro_rules! rows {
    ($($clause:literal $by:ident $kind:ident $ns:ident $content:expr => $expected:literal;)*) => {
        [$(($clause, $by, stringify!($kind), $ns, String::from($content), $expected)),*]
    };
}

#[tokio::test]
async fn entity() {
    check(&rows! {
        "5.6" STRANGER get PUBSUB "<subscriptions/>" => "result";
        "5.6" STRANGER get PUBSUB "<subscriptions node='open'/>" => "result";
        "5.7" STRANGER get PUBSUB "<affiliations/>" => "result";
    })
    .await;
}

#[tokio::test]
async fn subscriber() {
    let subscribe = |node: &str, jid: &str| format!("<subscribe node='{node}' jid='{jid}'/>");
    let unsubscribe = |node: &str, jid: &str| format!("<unsubscribe node='{node}' jid='{jid}'/>");
    let options = |node: &str, jid: &str| format!("<options node='{node}' jid='{jid}'/>");
    let items = |node: &str| format!("<items node='{node}'/>");
    check(&rows! {
        "6.1.3.1" STRANGER set PUBSUB subscribe("open", READER) => "modify bad-request invalid-jid";
        "6.1.3.1" STRANGER set PUBSUB subscribe("open", "@") => "modify jid-malformed invalid-jid";
        "6.1.3.4" STRANGER set PUBSUB subscribe("listed", STRANGER) => "cancel not-allowed closed-node";
        "6.1.3.7" STRANGER set PUBSUB subscribe("asked", STRANGER) => "result";
        "6.1.3.7" STRANGER set PUBSUB subscribe("asked", STRANGER)
            => "auth not-authorized pending-subscription";
        "6.1.3.8" OUTCAST set PUBSUB subscribe("open", OUTCAST) => "auth forbidden";
        "6.1.3.10" STRANGER set PUBSUB subscribe("closed", STRANGER)
            => "cancel feature-not-implemented unsupported subscribe";
        "6.1.3.11" STRANGER set PUBSUB subscribe("old", STRANGER) => "modify gone";
        "6.1.3.11" STRANGER get PUBSUB items("old") => "modify gone";
        "6.1.3.11" STRANGER set PUBSUB "<publish node='old'><item><x xmlns='urn:x'/></item></publish>"
            => "modify gone";
        "6.1.3.12" STRANGER set PUBSUB subscribe("none", STRANGER) => "cancel item-not-found";
        "6.1.6" READER set PUBSUB subscribe("open", READER) => "result";
        "6.2.3.2" STRANGER set PUBSUB unsubscribe("open", STRANGER)
            => "cancel unexpected-request not-subscribed";
        "6.2.3.3" STRANGER set PUBSUB unsubscribe("open", READER) => "auth forbidden";
        "6.2.3.4" STRANGER set PUBSUB unsubscribe("none", STRANGER) => "cancel item-not-found";
        "6.3.4.1" STRANGER get PUBSUB options("open", READER) => "auth forbidden";
        "6.3.4.2" STRANGER get PUBSUB options("open", STRANGER) => "modify unexpected-request not-subscribed";
        "6.3.4.3" STRANGER get PUBSUB "<options node='open'/>" => "modify bad-request jid-required";
        "6.3.4.7" STRANGER get PUBSUB options("none", STRANGER) => "cancel item-not-found";
        "6.4" STRANGER get PUBSUB "<default/>" => "result";
        "6.5.9.3" READER get PUBSUB items("asked") => "auth not-authorized not-subscribed";
        "6.5.9.3" STRANGER get PUBSUB items("asked") => "auth not-authorized not-subscribed";
        "6.5.9.4" OWNER get PUBSUB items("passing")
            => "cancel feature-not-implemented unsupported persistent-items";
        "6.5.9.8" STRANGER get PUBSUB items("listed") => "cancel not-allowed closed-node";
        "6.5.9.10" OUTCAST get PUBSUB items("open") => "auth forbidden";
        "6.5.9.10" PUBLISH_ONLY get PUBSUB items("open") => "auth forbidden";
        "6.5.9.11" STRANGER get PUBSUB items("none") => "cancel item-not-found";
        "6.5.9.12" STRANGER get PUBSUB "<items node='open'><item id='none'/></items>" => "result";
        "6.5.9.12" STRANGER get PUBSUB format!("<items node='open'>{}</items>", "<item id='1'/>".repeat(101))
            => "cancel not-allowed max-items-exceeded";
        "6.5" STRANGER get PUBSUB "<items node='open' max_items=''/>" => "result";
        "6.5" STRANGER get PUBSUB "<items node='open' max_items=' 1 '/>" => "result";
        "6.5.9.11" STRANGER get PUBSUB items(&"n".repeat(1024)) => "cancel item-not-found";
    })
    .await;
}

#[tokio::test]
async fn publisher() {
    let publish = |node: &str, items: &str| format!("<publish node='{node}'>{items}</publish>");
    let with = |options: String| publish("open", &item("<x xmlns='urn:x'/>")) + &options;
    let retract = |node: &str, items: &str| format!("<retract node='{node}'>{items}</retract>");
    let of_options = "http://jabber.org/protocol/pubsub#publish-options";
    let payload = "<x xmlns='urn:x'/>";
    let large = format!("<x xmlns='urn:x'>{}</x>", "x".repeat(100));
    check(&rows! {
        "7.1.3.1" STRANGER set PUBSUB publish("open", &item(payload)) => "auth forbidden";
        "7.1.3.1" OUTCAST set PUBSUB publish("open", &item(payload)) => "auth forbidden";
        "7.1.3.3" STRANGER set PUBSUB publish("none", &item(payload)) => "cancel item-not-found";
        "7.1.3.5" OWNER set PUBSUB publish("typed", &item(&large))
            => "modify not-acceptable payload-too-big";
        "16.4.4" OWNER set PUBSUB publish("typed", &item("<y xmlns='urn:y'/>")) => "result";
        "7.1.3.6" OWNER set PUBSUB publish("open", &item("<x xmlns='urn:x'/><x xmlns='urn:x'/>"))
            => "modify bad-request invalid-payload";
        "7.1.3.7" OWNER set PUBSUB publish("open", "") => "modify bad-request item-required";
        "7.1.3.7" OWNER set PUBSUB publish("passing", "") => "modify bad-request item-required";
        "7.1.3.7" OWNER set PUBSUB publish("open", &item("")) => "modify bad-request payload-required";
        "7.1.3.7" OWNER set PUBSUB publish("bare", &item(payload))
            => "modify bad-request item-forbidden";
        "7.1.3.7" OWNER set PUBSUB publish("kept", &item("")) => "result";
        "7.1.5" OWNER set PUBSUB with(options(of_options, &field("max_items", "7")))
            => "cancel conflict precondition-not-met";
        "7.1.5" OWNER set PUBSUB with(options(of_options, &field("none", "7")))
            => "modify not-acceptable";
        "7.1.5" OWNER set PUBSUB with(options(of_options, &field("max_items", "10000"))) => "result";
        "7.1.5" OWNER set PUBSUB with(options(of_options, &field("max_items", "max"))) => "result";
        "7.1.5" OWNER set PUBSUB with(options(of_options, &field("max_items", "20000")))
            => "cancel conflict precondition-not-met";
        "7.1.5" OWNER set PUBSUB with(options(of_options, &field("max_payload_size", "65536")))
            => "result";
        "7.1.5" OWNER set PUBSUB with(options(of_options, &field("max_payload_size", "9999999")))
            => "cancel conflict precondition-not-met";
        "7.1.5" OWNER set PUBSUB with(options("urn:other", "")) => "modify not-acceptable";
        "7.1.5" OWNER set PUBSUB with("<publish-options/>".into()) => "modify bad-request";
        "7.2.3.1" STRANGER set PUBSUB retract("open", "<item id='1'/>") => "auth forbidden";
        "7.2.3.2" OWNER set PUBSUB retract("open", "<item id='none'/>") => "cancel item-not-found";
        "7.2.3.2" OWNER set PUBSUB retract("none", "<item id='1'/>") => "cancel item-not-found";
        "7.2.3.3" OWNER set PUBSUB "<retract><item id='1'/></retract>"
            => "modify bad-request nodeid-required";
        "7.2.3.4" OWNER set PUBSUB retract("open", "") => "modify bad-request item-required";
        "7.2.3.4" OWNER set PUBSUB retract("open", "<item/>") => "modify bad-request item-required";
        "7.2.3.5" OWNER set PUBSUB retract("passing", "<item id='1'/>")
            => "cancel feature-not-implemented unsupported persistent-items";
        "12.11" OWNER set PUBSUB publish("typed", &item(payload).repeat(3))
            => "cancel not-allowed max-items-exceeded";
    })
    .await;
}

#[tokio::test]
async fn owner_of_nodes() {
    let create =
        |node: &str, form: &str| format!("<create node='{node}'/><configure>{form}</configure>");
    let configure = |node: &str, fields: &[(&str, &str)]| {
        format!("<configure node='{node}'>{}</configure>", form(fields))
    };
    let cancel = "<x xmlns='jabber:x:data' type='cancel'/>";
    check(&rows! {
        "8.1.1" STRANGER set PUBSUB "<create node='new'/>" => "auth forbidden";
        "8.1.1" OWNER set PUBSUB "<create node='open'/>" => "cancel conflict";
        "8.1.2" OWNER set PUBSUB create("new", &form(&[("access_model", "none")]))
            => "modify not-acceptable unsupported-access-model";
        "8.1.3" OWNER set PUBSUB format!("<configure>{}</configure><create node='new'/>", form(&[]))
            => "modify bad-request";
        "8.1.3" OWNER set PUBSUB "<create node='new'/><configure node='new'/>" => "modify bad-request";
        "8.1.3" OWNER set PUBSUB "<create node='new' type='collection'/>"
            => "cancel feature-not-implemented unsupported collections";
        "8.1" OWNER set OWNED "<collection node='open'><associate node='listed'/></collection>"
            => "cancel feature-not-implemented unsupported collections";
        "8.1" OWNER set PUBSUB "<create node='new' type='push'/>" => "result";
        "8.3" OWNER get OWNED "<default type='collection'/>"
            => "cancel feature-not-implemented unsupported collections";
        "8.3" OWNER get OWNED "<default type='push'/>" => "result";
        "8.1.3" OWNER set PUBSUB create("new", &form(&[("node_type", "collection")]))
            => "cancel feature-not-implemented unsupported collections";
        "8.2.3.2" STRANGER get OWNED "<configure node='open'/>" => "auth forbidden";
        "8.2.3.2" STRANGER set OWNED configure("open", &[]) => "auth forbidden";
        "8.2.3.3" OWNER get OWNED "<configure/>" => "modify bad-request nodeid-required";
        "8.2.3.3" OWNER set OWNED configure("", &[]) => "modify bad-request nodeid-required";
        "8.2.3.5" OWNER get OWNED "<configure node='none'/>" => "cancel item-not-found";
        "8.2.3.5" OWNER set OWNED configure("none", &[]) => "cancel item-not-found";
        "8.2.4" OWNER set OWNED format!("<configure node='open'>{cancel}</configure>") => "result";
        "8.2.5.2" OWNER set OWNED configure("open", &[("max_items", "some")])
            => "modify not-acceptable";
        "8.2.5.2" OWNER set OWNED configure("open", &[("notify_sub", "none")])
            => "modify not-acceptable";
        "8.2.5.1" OWNER set OWNED configure("open", &[("none", "1")]) => "result";
        "8.4.3.1" STRANGER set OWNED "<delete node='open'/>" => "auth forbidden";
        "8.4.3.2" OWNER set OWNED "<delete node='none'/>" => "cancel item-not-found";
        "8.4" OWNER set OWNED "<delete node='open'><redirect uri=''/></delete>" => "modify bad-request";
        "8.4" OWNER set OWNED "<delete node='open'><redirect uri='over there'/></delete>"
            => "modify bad-request";
        "8.4" OWNER set OWNED "<delete/>" => "modify bad-request nodeid-required";
        "8.5.3.2" STRANGER set OWNED "<purge node='open'/>" => "auth forbidden";
        "8.5.3.3" OWNER set OWNED "<purge node='passing'/>"
            => "cancel feature-not-implemented unsupported persistent-items";
        "8.4.2" OWNER get OWNED "<configure node='old'/>" => "modify gone";
        "8.4.2" OWNER set OWNED "<purge node='old'/>" => "modify gone";
        "8.5.3.4" OWNER set OWNED "<purge node='none'/>" => "cancel item-not-found";
        "8.5" OWNER set OWNED "<purge/>" => "modify bad-request nodeid-required";
    })
    .await;
}

#[tokio::test]
async fn owner_of_lists() {
    let subscriptions = |node: &str, entries: &str| {
        format!("<subscriptions node='{node}'>{entries}</subscriptions>")
    };
    let affiliations =
        |node: &str, entries: &str| format!("<affiliations node='{node}'>{entries}</affiliations>");
    let subscribed = "<subscription jid='a@localhost' subscription='subscribed'/>";
    let pending = "<subscription jid='a@localhost' subscription='pending'/>";
    let member = "<affiliation jid='a@localhost' affiliation='member'/>";
    let nobody = "<affiliation jid='owner@localhost' affiliation='none'/>";
    check(&rows! {
        "8.8.1.3.2" READER get OWNED subscriptions("open", "") => "auth forbidden";
        "8.8.1.3.3" READER get OWNED subscriptions("none", "") => "cancel item-not-found";
        "8.8.2.3.2" READER set OWNED subscriptions("open", subscribed) => "auth forbidden";
        "8.8.2.3.3" READER set OWNED subscriptions("none", subscribed) => "cancel item-not-found";
        "8.8.2.4" OWNER set OWNED subscriptions("open", pending) => "modify not-acceptable";
        "8.8.2.4" OWNER set OWNED subscriptions("open", &subscribed.repeat(2)) => "modify bad-request";
        "8.8" OWNER get OWNED "<subscriptions/>" => "modify bad-request nodeid-required";
        "8.9.1.3.2" READER get OWNED affiliations("open", "") => "auth forbidden";
        "8.9.1.3.3" READER get OWNED affiliations("none", "") => "cancel item-not-found";
        "8.9.2.3.3" READER set OWNED affiliations("open", member) => "auth forbidden";
        "8.9.2.3.4" READER set OWNED affiliations("none", member) => "cancel item-not-found";
        "8.9.2.4" OWNER set OWNED affiliations("open", nobody) => "modify not-acceptable";
        "8.9.2.4" OWNER set OWNED affiliations("open", &member.repeat(2)) => "modify bad-request";
        "8.9" OWNER get OWNED "<affiliations/>" => "modify bad-request nodeid-required";
        "administrators" ADMIN get OWNED affiliations("listed", "") => "result";
    })
    .await;
}

/// §6.1.3.11: where to go stands in the error, until a node of that name is there again.
#[tokio::test]
async fn a_node_that_moved_says_where_to() {
    let mut component = stage().await;
    let info = "<query xmlns='http://jabber.org/protocol/disco#info' node='old'/>";
    let answer = component.ask(STRANGER, "get", info).await;
    let gone = answer.get_child("error", STREAM).unwrap().children().next().unwrap();
    assert_eq!((gone.name(), gone.text().as_str()), ("gone", "xmpp:new.example?;node=new"));
    component.create(OWNER, "old", &[]).await;
    assert_eq!(component.ask(STRANGER, "get", info).await.attr("type"), Some("result"));
    let deleted = component.owner(OWNER, "set", "<delete node='old'/>").await;
    assert_eq!(deleted.attr("type"), Some("result"));
    assert_eq!(error(&component.ask(STRANGER, "get", info).await), "cancel item-not-found");
}

/// The text of an error.
fn text(answer: &Element) -> String {
    let text = answer.get_child("error", STREAM).unwrap().get_child("text", STANZAS);
    text.unwrap_or_else(|| panic!("no text: {}", shown(answer))).text()
}

/// The entries of an owner's list, as `jid=value`.
fn entries(answer: &Element, value: &str) -> Vec<String> {
    let Some(pubsub) = answer.get_child("pubsub", OWNED) else { return Vec::new() };
    let list = pubsub.children().next().unwrap();
    let entry =
        |entry: &Element| format!("{}={}", entry.attr("jid").unwrap(), entry.attr(value).unwrap());
    list.children().map(entry).collect()
}

/// §8.9.2.1, §8.9.2.4: valid entries are applied, the others come back with the present value and a reason; an entry
/// without the attribute is left unchanged.
#[tokio::test]
async fn s8_9_2_4_invalid_affiliations_come_back_and_the_others_hold() {
    let mut component = stage().await;
    let mut set = async |entries: &str| {
        let list = format!("<affiliations node='open'>{entries}</affiliations>");
        component.owner(OWNER, "set", &list).await
    };
    let answer = set("<affiliation jid='outcast@localhost' affiliation='king'/>\
         <affiliation jid='a@b@c' affiliation='member'/>\
         <affiliation jid='bot@localhost'/>\
         <affiliation jid='owner@localhost' affiliation='none'/>\
         <affiliation jid='b@localhost' affiliation='member'/>")
    .await;
    assert_eq!(error(&answer), "modify not-acceptable");
    let failed = entries(&answer, "affiliation");
    assert_eq!(failed, ["owner@localhost=owner", "outcast@localhost=outcast", "a@b@c=none"]);
    for reason in ["not an affiliation", "not a valid JID", "must have an owner"] {
        assert!(text(&answer).contains(reason), "{}", text(&answer));
    }
    // The owner that remains may hand over in one request, beside an entry that is invalid.
    let answer = set("<affiliation jid='owner@localhost' affiliation='king'/>\
         <affiliation jid='heir@localhost' affiliation='owner'/>")
    .await;
    assert_eq!(entries(&answer, "affiliation"), ["owner@localhost=owner"]);
    assert_eq!(text(&answer), "not an affiliation of XEP-0060");
    let answer = component.owner(OWNER, "get", "<affiliations node='open'/>").await;
    let mut there = entries(&answer, "affiliation");
    there.sort();
    let expected = [
        "b@localhost=member",
        "bot@localhost=publish-only",
        "heir@localhost=owner",
        "outcast@localhost=outcast",
        "owner@localhost=owner",
    ];
    assert_eq!(there, expected);
}

/// §8.8.2.1, §8.8.2.4: the same of subscriptions.
#[tokio::test]
async fn s8_8_2_4_invalid_subscriptions_come_back_and_the_others_hold() {
    let mut component = stage().await;
    let mut set = async |entries: &str| {
        let list = format!("<subscriptions node='open'>{entries}</subscriptions>");
        component.owner(OWNER, "set", &list).await
    };
    let answer = set("<subscription jid='reader@localhost/phone' subscription='maybe'/>\
         <subscription jid='a@b@c' subscription='subscribed'/>\
         <subscription jid='d@localhost'/>\
         <subscription jid='bot@localhost' subscription='subscribed'/>\
         <subscription jid='e@localhost' subscription='pending'/>\
         <subscription jid='b@localhost' subscription='subscribed'/>")
    .await;
    assert_eq!(error(&answer), "modify not-acceptable");
    let expected = [
        "bot@localhost=none",
        "e@localhost=none",
        "reader@localhost/phone=subscribed",
        "a@b@c=none",
    ];
    assert_eq!(entries(&answer, "subscription"), expected);
    for reason in
        ["not a subscription state", "not a valid JID", "insufficient", "only set subscribed"]
    {
        assert!(text(&answer).contains(reason), "{}", text(&answer));
    }
    let answer = component.owner(OWNER, "get", "<subscriptions node='open'/>").await;
    let there = entries(&answer, "subscription");
    assert_eq!(there, ["b@localhost=subscribed", "reader@localhost/phone=subscribed"]);
}

/// §8.8.2.4, §8.9.2.4: of the entries for one entity or subscription in two spellings of its domain, one that repeats the
/// first one is left out, and one that contradicts it comes back with the value that it set. All others are applied.
#[tokio::test]
async fn entries_that_contradict_an_earlier_one_come_back_and_the_others_hold() {
    const U_LABELS: &str = "u@bücher.example";
    const A_LABELS: &str = "u@xn--bcher-kva.example";
    let mut component = stage().await;
    let mut set = async |list: &str, values: &[(&str, &str)]| {
        let entry = |(jid, value): &(&str, &str)| format!("<{list} jid='{jid}' {list}='{value}'/>");
        let all: String = values.iter().map(entry).collect();
        let set = format!("<{list}s node='open'>{all}</{list}s>");
        let answer = component.owner(OWNER, "set", &set).await;
        let after = component.owner(OWNER, "get", &format!("<{list}s node='open'/>")).await;
        (answer, entries(&after, list))
    };
    let same = [("a@localhost", "member"), (U_LABELS, "outcast"), (A_LABELS, "outcast")];
    let (answer, there) = set("affiliation", &same).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    assert!(there.contains(&"a@localhost=member".into()), "{there:?}");
    assert!(there.contains(&format!("{U_LABELS}=outcast")), "{there:?}");
    assert!(!there.contains(&format!("{A_LABELS}=outcast")), "{there:?}");
    let (answer, there) = set(
        "affiliation",
        &[
            ("a@localhost", "publisher"),
            (A_LABELS, "member"),
            (U_LABELS, "none"),
            ("b@localhost", "king"),
            ("owner@localhost", "owner"),
        ],
    )
    .await;
    assert_eq!(error(&answer), "modify not-acceptable");
    let failed = entries(&answer, "affiliation");
    let held = format!("{U_LABELS}=member");
    assert_eq!(failed, [held.as_str(), "b@localhost=none"]);
    assert!(text(&answer).contains("contradictory entries"), "{}", text(&answer));
    for held in ["a@localhost=publisher", &held, "owner@localhost=owner"] {
        assert!(there.iter().any(|one| one == held), "{held} {there:?}");
    }
    let (answer, there) = set(
        "subscription",
        &[
            ("a@localhost", "subscribed"),
            (U_LABELS, "subscribed"),
            (A_LABELS, "none"),
            ("reader@localhost/phone", "none"),
            ("c@localhost", "subscribed"),
        ],
    )
    .await;
    assert_eq!(error(&answer), "modify not-acceptable");
    let failed = entries(&answer, "subscription");
    assert_eq!(failed, [format!("{U_LABELS}=subscribed")]);
    assert!(text(&answer).contains("contradictory entries"), "{}", text(&answer));
    let subscribed = ["a@localhost", "c@localhost", U_LABELS];
    assert_eq!(there, subscribed.map(|jid| format!("{jid}=subscribed")));
}

/// §8.8.2.4, §8.9.2.4: of a list with two entries for the same address, nothing is applied.
#[tokio::test]
async fn two_entries_for_the_same_entity_are_a_bad_request() {
    let several = |config: &mut Config| config.limits.max_subids = 3;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), several).await;
    component.create(OWNER, "n", &[]).await;
    let subscribe = format!("<subscribe node='n' jid='{READER}'/>");
    let mut subids = Vec::new();
    for _ in 0..3 {
        let answer = component.pubsub(READER, "set", &subscribe).await;
        let subscription = answer.children().next().unwrap().children().next().unwrap();
        subids.push(subscription.attr("subid").unwrap().to_owned());
    }
    let mut set = async |list: &str, values: &[&str]| {
        let entry = |attributes: &&str| format!("<{list} {attributes}/>");
        let all: String = values.iter().map(entry).collect();
        let set = format!("<{list}s node='n'>{all}</{list}s>");
        let answer = component.owner(OWNER, "set", &set).await;
        let after = component.owner(OWNER, "get", &format!("<{list}s node='n'/>")).await;
        (answer, entries(&after, list))
    };
    for values in [
        ["jid='a@localhost' affiliation='member'", "jid='a@localhost' affiliation='member'"],
        ["jid='a@localhost' affiliation='member'", "jid='A@localhost/x' affiliation='outcast'"],
        ["jid='a@localhost' affiliation='member'", "jid='a@localhost' affiliation='king'"],
    ] {
        let (answer, there) = set("affiliation", &values).await;
        assert_eq!(error(&answer), "modify bad-request");
        assert_eq!(there, ["owner@localhost=owner"]);
    }
    let none = |subid: &str| format!("jid='{READER}' subscription='none' subid='{subid}'");
    let [first, second, third] = [0, 1, 2].map(|number: usize| none(&subids[number]));
    let of_all = format!("jid='{READER}' subscription='none'");
    for second in [&first, &of_all] {
        for values in [[first.as_str(), second], [second, first.as_str()]] {
            let (answer, there) = set("subscription", &values).await;
            assert_eq!(error(&answer), "modify bad-request");
            assert_eq!(there.len(), 3);
        }
    }
    let (answer, there) = set("subscription", &[&first, &second]).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    assert_eq!(there.len(), 1);
    let (answer, there) = set("subscription", &[&third]).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
    assert_eq!(there, Vec::<String>::new());
}

/// §8.8.2.4, §8.9.2.4: entries that do not come back count as applied, so one without a JID does not keep the others from
/// being applied, and comes back. If none has a JID, there is nothing to apply.
#[tokio::test]
async fn an_entry_without_a_jid_comes_back_and_the_others_hold() {
    let mut component = stage().await;
    for (list, value) in [("affiliation", "member"), ("subscription", "subscribed")] {
        for (number, nobody) in ["", "jid='' "].into_iter().enumerate() {
            let nobody = format!("<{list} {nobody}{list}='{value}'/>");
            let jid = format!("named{number}@localhost");
            let named = format!("<{list} jid='{jid}' {list}='{value}'/>");
            let set = |entries: &str| format!("<{list}s node='open'>{entries}</{list}s>");
            let answer = component.owner(OWNER, "set", &set(&nobody.repeat(2))).await;
            assert_eq!(error(&answer), "modify bad-request jid-required", "{nobody}");
            let answer = component.owner(OWNER, "set", &set(&(nobody + &named))).await;
            assert_eq!(error(&answer), "modify not-acceptable");
            assert_eq!(entries(&answer, list), ["=none"]);
            assert_eq!(text(&answer), "an entry without a JID");
            let after = component.owner(OWNER, "get", &set("")).await;
            assert!(entries(&after, list).contains(&format!("{jid}={value}")), "{}", shown(&after));
        }
    }
}

/// An entry in either namespace is read; anything else in an owner's list is refused, and so is a child of XEP-0060
/// that a request does not take.
#[tokio::test]
async fn children_are_taken_or_refused() {
    let subscription = |ns: &str| {
        format!("<subscription xmlns='{ns}' jid='c@localhost' subscription='subscribed'/>")
    };
    let affiliation =
        |ns: &str| format!("<affiliation xmlns='{ns}' jid='c@localhost' affiliation='member'/>");
    let subscriptions =
        |entries: &str| format!("<subscriptions node='open'>{entries}</subscriptions>");
    let affiliations =
        |entries: &str| format!("<affiliations node='open'>{entries}</affiliations>");
    let publish = |children: &str| format!("<publish node='open'>{children}</publish>");
    let own = "<item id='1'><x xmlns='urn:x'/></item>";
    let other = format!("<item xmlns='{OWNED}' id='1'><x xmlns='urn:x'/></item>");
    let preconditions = options(
        "http://jabber.org/protocol/pubsub#publish-options",
        &field("access_model", "whitelist"),
    );
    check(&rows! {
        "8.8.2.4" OWNER set OWNED subscriptions(&subscription(PUBSUB)) => "result";
        "8.8.2.4" OWNER set OWNED subscriptions(&subscription(OWNED)) => "result";
        "8.8.2.4" OWNER set OWNED subscriptions(&subscription("urn:x")) => "modify bad-request";
        "8.8.2.4" OWNER set OWNED subscriptions(&affiliation(OWNED)) => "modify bad-request";
        "8.9.2.4" OWNER set OWNED affiliations(&affiliation(PUBSUB)) => "result";
        "8.9.2.4" OWNER set OWNED affiliations(&affiliation(OWNED)) => "result";
        "8.9.2.4" OWNER set OWNED affiliations(&(affiliation(OWNED) + &affiliation("urn:x")))
            => "modify bad-request";
        "8.9.2.4" OWNER set OWNED affiliations("<affiliation affiliation='member'/>")
            => "modify bad-request jid-required";
        "7.1" OWNER set PUBSUB publish(own) => "result";
        "7.1" OWNER set PUBSUB publish(&other) => "modify bad-request";
        "7.1" OWNER set PUBSUB publish(&(own.to_owned() + "<retract/>")) => "modify bad-request";
        "7.1" OWNER set PUBSUB publish(&(own.to_owned() + "<note xmlns='urn:x'/>")) => "result";
        "7.1.5" OWNER set PUBSUB publish(&(own.to_owned() + &preconditions))
            => "cancel conflict precondition-not-met";
        "7.1.5" OWNER set PUBSUB publish(own) + &preconditions
            => "cancel conflict precondition-not-met";
        "7.1.5" OWNER set PUBSUB publish(&(own.to_owned() + &preconditions)) + &preconditions
            => "modify bad-request";
        "7.1.5" OWNER set PUBSUB publish(own) + &preconditions.replace("<publish-options", &format!("<publish-options xmlns='{OWNED}'"))
            => "modify bad-request";
        "7.2" OWNER set PUBSUB format!("<retract node='open'>{other}</retract>") => "modify bad-request";
        "6.5" OWNER get PUBSUB format!("<items node='open'>{other}</items>") => "modify bad-request";
        "6.1" STRANGER set PUBSUB format!("<subscribe node='open' jid='{STRANGER}'><options/></subscribe>")
            => "modify bad-request";
        "8.1" OWNER set PUBSUB "<create node='new'/><configure/>" => "result";
        "8.1" OWNER set PUBSUB "<create node='newer'/><configure><y/></configure>" => "modify bad-request";
        "8.1" OWNER set PUBSUB "<create node='newer'/><configure><x xmlns='urn:x'/></configure>"
            => "modify bad-request";
    })
    .await;
}

/// RFC 6120 §8.3.1: an error repeats the beginning of the request, at most 512 bytes of it.
#[tokio::test]
async fn errors_repeat_the_beginning_of_the_request() {
    let mut component = stage().await;
    let publish = "<publish node='none'><item id='1'><x xmlns='urn:x'/></item></publish>";
    let answer = component.pubsub(OWNER, "set", &format!("{publish}{publish}")).await;
    let repeated = answer.children().next().unwrap();
    let expected: Element =
        format!("<pubsub xmlns='{PUBSUB}'><publish node='none'/></pubsub>").parse().unwrap();
    assert_eq!(repeated, &expected, "{}", shown(&answer));
    let answer = component.owner(OWNER, "get", "<configure node='none'/>").await;
    assert!(answer.get_child("pubsub", OWNED).unwrap().has_child("configure", OWNED));
    for (length, is_repeated) in [(400, true), (500, false)] {
        let long = format!("<items node='{}'/>", "n".repeat(length));
        let answer = component.pubsub(OWNER, "get", &long).await;
        assert_eq!(error(&answer), "cancel item-not-found");
        assert_eq!(answer.has_child("pubsub", PUBSUB), is_repeated, "{length}");
    }
    let version = "<query xmlns='jabber:iq:version'/>";
    let answer = component.ask(OWNER, "set", version).await;
    assert_eq!(answer.children().count(), 1, "{}", shown(&answer));
}

/// Every refusal has a text; that of a limit begins with its name.
#[tokio::test]
async fn refusals_have_texts_and_limits_name_themselves() {
    let mut component = stage().await;
    let ids = "<item id='1'/>".repeat(101);
    let items = format!("<items node='open'>{ids}</items>");
    let answer = component.pubsub(OWNER, "get", &items).await;
    assert_eq!(text(&answer), "max_batch: at most 100 items in one request");
    let batch = "<item><x xmlns='urn:x'/></item>".repeat(101);
    let publish = |node: &str, items: &str| format!("<publish node='{node}'>{items}</publish>");
    let answer = component.pubsub(OWNER, "set", &publish("open", &batch)).await;
    assert_eq!(text(&answer), "max_batch: at most 100 items in one request");
    let three = "<item><x xmlns='urn:x'/></item>".repeat(3);
    let answer = component.pubsub(OWNER, "set", &publish("typed", &three)).await;
    assert_eq!(text(&answer), "pubsub#max_items: at most 2 items in one request");
    for (to, kind, content) in [
        ("pubsub.localhost/x", "get", "<ping xmlns='urn:xmpp:ping'/>"),
        ("pubsub.localhost", "set", "<ping xmlns='urn:xmpp:ping'/>"),
        ("pubsub.localhost", "get", "<query xmlns='urn:unknown'/>"),
        ("pubsub.localhost", "get", "<ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/>"),
        ("pubsub.localhost", "other", "<ping xmlns='urn:xmpp:ping'/>"),
        (
            "pubsub.localhost",
            "set",
            "<command xmlns='http://jabber.org/protocol/commands' node='x'/>",
        ),
    ] {
        let iq = format!("<iq type='{kind}' from='{OWNER}' to='{to}' id='1'>{content}</iq>");
        component.send(&iq).await;
        assert!(!text(&component.answer().await).is_empty());
    }
}

/// §5.6: an answer about one node names it.
#[tokio::test]
async fn own_lists_at_one_node_name_it() {
    let mut component = stage().await;
    for (list, node) in [
        ("<subscriptions node='open'/>", Some("open")),
        ("<affiliations node='open'/>", Some("open")),
        ("<subscriptions/>", None),
        ("<affiliations/>", None),
    ] {
        let answer = component.pubsub(READER, "get", list).await;
        let pubsub = answer.get_child("pubsub", PUBSUB).unwrap();
        assert_eq!(pubsub.children().next().unwrap().attr("node"), node, "{list}");
    }
}

/// No node has a name of more than 1 023 bytes, so every question about one finds none.
#[tokio::test]
async fn a_name_that_is_too_long_is_that_of_no_node() {
    let mut component = stage().await;
    let long = "n".repeat(1024);
    for query in ["disco#info", "disco#items"] {
        let query = format!("<query xmlns='http://jabber.org/protocol/{query}' node='{long}'/>");
        assert_eq!(error(&component.ask(OWNER, "get", &query).await), "cancel item-not-found");
    }
    for list in ["subscriptions", "affiliations", "default", "items"] {
        let answer = component.pubsub(OWNER, "get", &format!("<{list} node='{long}'/>")).await;
        assert_eq!(error(&answer), "cancel item-not-found", "{list}");
    }
}
