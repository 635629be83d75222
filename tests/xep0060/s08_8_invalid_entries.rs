//! Subscription lists (§8.8) and affiliation lists (§8.9) set by owners: applied and returned
//! entries.

use std::sync::Arc;

use gjallar::{config::Config, store::MemoryStore};
use minidom::Element;

use crate::support::component::{OWNER as OWNER_NS, TestComponent, error, error_text, shown};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";

/// Starts a component with a node `open` that has an outcast, an entity with the affiliation
/// publish-only, and the subscriber `READER`.
async fn component_with_open_node() -> TestComponent {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "open", &[]).await;
    let affiliations = "<affiliations node='open'>\
                        <affiliation jid='outcast@localhost' affiliation='outcast'/>\
                        <affiliation jid='bot@localhost' affiliation='publish-only'/></affiliations>";
    let reply = component.owner(OWNER, "set", affiliations).await;
    assert_eq!(reply.attr("type"), Some("result"));
    component.subscribe(READER, "open").await;
    component
}

/// Returns the entries of an owner's list as `jid=value`.
fn entries(reply: &Element, value: &str) -> Vec<String> {
    let Some(pubsub) = reply.get_child("pubsub", OWNER_NS) else { return Vec::new() };
    let list = pubsub.children().next().unwrap();
    let entry =
        |entry: &Element| format!("{}={}", entry.attr("jid").unwrap(), entry.attr(value).unwrap());
    list.children().map(entry).collect()
}

/// §8.9.2.1, §8.9.2.4: valid entries are applied, the others are returned with the present value and a reason; an entry
/// without the attribute is left unchanged.
#[tokio::test]
async fn s8_9_2_4_invalid_affiliations_are_returned_and_the_others_applied() {
    let mut component = component_with_open_node().await;
    let mut set = async |entries: &str| {
        let list = format!("<affiliations node='open'>{entries}</affiliations>");
        component.owner(OWNER, "set", &list).await
    };
    let reply = set("<affiliation jid='outcast@localhost' affiliation='king'/>\
         <affiliation jid='a@b@c' affiliation='member'/>\
         <affiliation jid='bot@localhost'/>\
         <affiliation jid='owner@localhost' affiliation='none'/>\
         <affiliation jid='b@localhost' affiliation='member'/>")
    .await;
    assert_eq!(error(&reply), "modify not-acceptable");
    let failed = entries(&reply, "affiliation");
    assert_eq!(failed, ["owner@localhost=owner", "outcast@localhost=outcast", "a@b@c=none"]);
    for reason in ["not an affiliation", "not a valid JID", "must have an owner"] {
        assert!(error_text(&reply).contains(reason), "{}", error_text(&reply));
    }
    // The only owner may name a successor in the same request as an invalid entry.
    let reply = set("<affiliation jid='owner@localhost' affiliation='king'/>\
         <affiliation jid='heir@localhost' affiliation='owner'/>")
    .await;
    assert_eq!(entries(&reply, "affiliation"), ["owner@localhost=owner"]);
    assert_eq!(error_text(&reply), "not an affiliation of XEP-0060");
    let reply = component.owner(OWNER, "get", "<affiliations node='open'/>").await;
    let mut listed = entries(&reply, "affiliation");
    listed.sort();
    let expected = [
        "b@localhost=member",
        "bot@localhost=publish-only",
        "heir@localhost=owner",
        "outcast@localhost=outcast",
        "owner@localhost=owner",
    ];
    assert_eq!(listed, expected);
}

/// §8.8.2.1, §8.8.2.4: valid entries are applied, the others are returned with the present value and a reason; an entry
/// without the attribute is left unchanged.
#[tokio::test]
async fn s8_8_2_4_invalid_subscriptions_are_returned_and_the_others_applied() {
    let mut component = component_with_open_node().await;
    let mut set = async |entries: &str| {
        let list = format!("<subscriptions node='open'>{entries}</subscriptions>");
        component.owner(OWNER, "set", &list).await
    };
    let reply = set("<subscription jid='reader@localhost/phone' subscription='maybe'/>\
         <subscription jid='a@b@c' subscription='subscribed'/>\
         <subscription jid='d@localhost'/>\
         <subscription jid='bot@localhost' subscription='subscribed'/>\
         <subscription jid='e@localhost' subscription='pending'/>\
         <subscription jid='b@localhost' subscription='subscribed'/>")
    .await;
    assert_eq!(error(&reply), "modify not-acceptable");
    let expected = [
        "bot@localhost=none",
        "e@localhost=none",
        "reader@localhost/phone=subscribed",
        "a@b@c=none",
    ];
    assert_eq!(entries(&reply, "subscription"), expected);
    for reason in
        ["not a subscription state", "not a valid JID", "insufficient", "only set subscribed"]
    {
        assert!(error_text(&reply).contains(reason), "{}", error_text(&reply));
    }
    let reply = component.owner(OWNER, "get", "<subscriptions node='open'/>").await;
    let listed = entries(&reply, "subscription");
    assert_eq!(listed, ["b@localhost=subscribed", "reader@localhost/phone=subscribed"]);
}

/// §8.8.2.4, §8.9.2.4: two entries for one entity or subscription may spell its domain in two ways. A later entry with the value
/// of the first one is ignored. A later entry with another value is returned with the value that the first one set.
#[tokio::test]
async fn s8_8_2_4_contradictory_entries_are_returned_and_the_others_applied() {
    const U_LABELS: &str = "u@bücher.example";
    const A_LABELS: &str = "u@xn--bcher-kva.example";
    let mut component = component_with_open_node().await;
    let mut set = async |list: &str, values: &[(&str, &str)]| {
        let entry = |(jid, value): &(&str, &str)| format!("<{list} jid='{jid}' {list}='{value}'/>");
        let all: String = values.iter().map(entry).collect();
        let set = format!("<{list}s node='open'>{all}</{list}s>");
        let reply = component.owner(OWNER, "set", &set).await;
        let after = component.owner(OWNER, "get", &format!("<{list}s node='open'/>")).await;
        (reply, entries(&after, list))
    };
    let repeated = [("a@localhost", "member"), (U_LABELS, "outcast"), (A_LABELS, "outcast")];
    let (reply, listed) = set("affiliation", &repeated).await;
    assert_eq!(reply.attr("type"), Some("result"), "{}", shown(&reply));
    assert!(listed.contains(&"a@localhost=member".into()), "{listed:?}");
    assert!(listed.contains(&format!("{U_LABELS}=outcast")), "{listed:?}");
    assert!(!listed.contains(&format!("{A_LABELS}=outcast")), "{listed:?}");
    let (reply, listed) = set(
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
    assert_eq!(error(&reply), "modify not-acceptable");
    let failed = entries(&reply, "affiliation");
    let first = format!("{U_LABELS}=member");
    assert_eq!(failed, [first.as_str(), "b@localhost=none"]);
    assert!(error_text(&reply).contains("contradictory entries"), "{}", error_text(&reply));
    for applied in ["a@localhost=publisher", &first, "owner@localhost=owner"] {
        assert!(listed.iter().any(|entry| entry == applied), "{applied} {listed:?}");
    }
    let (reply, listed) = set(
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
    assert_eq!(error(&reply), "modify not-acceptable");
    let failed = entries(&reply, "subscription");
    assert_eq!(failed, [format!("{U_LABELS}=subscribed")]);
    assert!(error_text(&reply).contains("contradictory entries"), "{}", error_text(&reply));
    let subscribed = ["a@localhost", "c@localhost", U_LABELS];
    assert_eq!(listed, subscribed.map(|jid| format!("{jid}=subscribed")));
}

/// §8.8.2.4, §8.9.2.4: a list with two entries for the same address is refused as a whole.
#[tokio::test]
async fn s8_8_2_4_two_entries_for_the_same_entity_are_a_bad_request() {
    let configure = |config: &mut Config| config.limits.max_subids = 3;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    component.create(OWNER, "n", &[]).await;
    let subscribe = format!("<subscribe node='n' jid='{READER}'/>");
    let mut subids = Vec::new();
    for _ in 0..3 {
        let reply = component.pubsub(READER, "set", &subscribe).await;
        let subscription = reply.children().next().unwrap().children().next().unwrap();
        subids.push(subscription.attr("subid").unwrap().to_owned());
    }
    let mut set = async |list: &str, values: &[&str]| {
        let entry = |attributes: &&str| format!("<{list} {attributes}/>");
        let all: String = values.iter().map(entry).collect();
        let set = format!("<{list}s node='n'>{all}</{list}s>");
        let reply = component.owner(OWNER, "set", &set).await;
        let after = component.owner(OWNER, "get", &format!("<{list}s node='n'/>")).await;
        (reply, entries(&after, list))
    };
    for values in [
        ["jid='a@localhost' affiliation='member'", "jid='a@localhost' affiliation='member'"],
        ["jid='a@localhost' affiliation='member'", "jid='A@localhost/x' affiliation='outcast'"],
        ["jid='a@localhost' affiliation='member'", "jid='a@localhost' affiliation='king'"],
    ] {
        let (reply, listed) = set("affiliation", &values).await;
        assert_eq!(error(&reply), "modify bad-request");
        assert_eq!(listed, ["owner@localhost=owner"]);
    }
    let none = |subid: &str| format!("jid='{READER}' subscription='none' subid='{subid}'");
    let [first, second, third] = [0, 1, 2].map(|number: usize| none(&subids[number]));
    let all_subids = format!("jid='{READER}' subscription='none'");
    for second in [&first, &all_subids] {
        for values in [[first.as_str(), second], [second, first.as_str()]] {
            let (reply, listed) = set("subscription", &values).await;
            assert_eq!(error(&reply), "modify bad-request");
            assert_eq!(listed.len(), 3);
        }
    }
    let (reply, listed) = set("subscription", &[&first, &second]).await;
    assert_eq!(reply.attr("type"), Some("result"), "{}", shown(&reply));
    assert_eq!(listed.len(), 1);
    let (reply, listed) = set("subscription", &[&third]).await;
    assert_eq!(reply.attr("type"), Some("result"), "{}", shown(&reply));
    assert_eq!(listed, Vec::<String>::new());
}

/// §8.8.2.4, §8.9.2.4: entries that are not returned count as applied, so an entry without a JID is returned and the
/// others are applied. A list in which no entry has a JID is a bad request.
#[tokio::test]
async fn s8_8_2_4_entry_without_a_jid_is_returned_and_the_others_applied() {
    let mut component = component_with_open_node().await;
    for (list, value) in [("affiliation", "member"), ("subscription", "subscribed")] {
        for (number, unnamed) in ["", "jid='' "].into_iter().enumerate() {
            let unnamed = format!("<{list} {unnamed}{list}='{value}'/>");
            let jid = format!("named{number}@localhost");
            let named = format!("<{list} jid='{jid}' {list}='{value}'/>");
            let set = |entries: &str| format!("<{list}s node='open'>{entries}</{list}s>");
            let reply = component.owner(OWNER, "set", &set(&unnamed.repeat(2))).await;
            assert_eq!(error(&reply), "modify bad-request jid-required", "{unnamed}");
            let reply = component.owner(OWNER, "set", &set(&(unnamed + &named))).await;
            assert_eq!(error(&reply), "modify not-acceptable");
            assert_eq!(entries(&reply, list), ["=none"]);
            assert_eq!(error_text(&reply), "an entry without a JID");
            let after = component.owner(OWNER, "get", &set("")).await;
            assert!(entries(&after, list).contains(&format!("{jid}={value}")), "{}", shown(&after));
        }
    }
}
