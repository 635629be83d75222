//! Several subscriptions of one JID (§6.1.6), and their SubIDs (§12.16).

use std::{sync::Arc, time::Duration};

use gjallar::{
    config::Config,
    store::{MemoryStore, SledStore},
};
use minidom::Element;

use super::s06_3_subscription_options::{
    ATOM, OWNER, PLAIN, READER, form, messages_for, publish, value,
};
use crate::support::component::{EVENT, PUBSUB, TestComponent, error, event, shown};

fn allow_three_subids(config: &mut Config) {
    config.limits.max_subids = 3;
}

/// Adds a subscription; returns its SubID.
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
async fn s6_1_6_jid_with_several_subscriptions_gets_one_notification_with_all_subids() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), allow_three_subids).await;
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
        let received = messages_for(&mut component, READER).await;
        assert_eq!(received.len(), 1);
        assert_eq!(subids(&received[0]), expected.into_iter().cloned().collect::<Vec<_>>());
    }
    // With several subscriptions, the request has to name the SubID.
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
    // An owner ends one of the subscriptions.
    let entry = format!("<subscription jid='{READER}' subid='{c}' subscription='none'/>");
    let entries = format!("<subscriptions node='n'>{entry}</subscriptions>");
    assert_eq!(component.owner(OWNER, "set", &entries).await.attr("type"), Some("result"));
    publish(&mut component, "4", "<x xmlns='urn:x'>one two</x>").await;
    let received = messages_for(&mut component, READER).await;
    assert_eq!(subids(received.last().unwrap()), std::slice::from_ref(&b));
    // The last subscription needs no SubID.
    let gone = component.pubsub(READER, "set", &with("unsubscribe", "")).await;
    assert!(shown(&gone).contains(&format!("subid='{b}' subscription='none'")), "{}", shown(&gone));
    publish(&mut component, "5", "<x xmlns='urn:x'>two</x>").await;
    assert!(messages_for(&mut component, READER).await.is_empty());
}

/// §12.16; §7.1.2.4: headers are the last child.
#[tokio::test]
async fn s12_16_events_about_the_node_itself_have_no_subid() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), allow_three_subids).await;
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
    let events = messages_for(&mut component, READER).await;
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
async fn s8_8_4_notification_of_a_changed_subscription_has_the_subid() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), allow_three_subids).await;
    component.create(OWNER, "n", &[]).await;
    let mut set = async |state: &str, subid: &str| {
        let subid = if subid.is_empty() { String::new() } else { format!("subid='{subid}'") };
        let entry = format!("<subscription jid='{READER}' subscription='{state}' {subid}/>");
        let content = format!("<subscriptions node='n'>{entry}</subscriptions>");
        let answer = component.owner(OWNER, "set", &content).await;
        assert_eq!(answer.attr("type"), Some("result"), "{}", shown(&answer));
        let received = component.messages().await;
        assert_eq!(received.len(), 1);
        let received = event(&received[0]).clone();
        assert_eq!(
            (received.attr("jid"), received.attr("subscription")),
            (Some(READER), Some(state))
        );
        let subid = received.attr("subid").map(str::to_owned).unwrap();
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
async fn s6_1_6_multi_subscribe_is_announced_if_max_subids_allows_it() {
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

/// Entries pending for subscriptions with options are delivered unchanged after a restart.
#[tokio::test]
async fn log_entries_of_configured_subscriptions_outlive_a_broken_stream() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), allow_three_subids).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(PLAIN, "n").await;
    component.messages().await;
    let a = subscribe_again(&mut component, "").await;
    component.link.hold_barriers();
    publish(&mut component, "1", ATOM).await;
    let first = tokio::time::timeout(Duration::from_secs(10), component.message()).await.unwrap();
    assert!(event(&first).is("items", EVENT));
    component.finish().await;
    let mut component = TestComponent::with(open(), allow_three_subids).await;
    let received = component.messages().await;
    let received: Vec<_> =
        received.iter().map(|message| (message.attr("to").unwrap(), subids(message))).collect();
    assert!(
        received.iter().any(|(to, subids)| *to == READER && *subids == [a.clone()]),
        "{received:?}"
    );
    assert!(
        received.iter().all(|(to, subids)| *to != PLAIN || subids.is_empty() || subids.len() == 1)
    );
}
