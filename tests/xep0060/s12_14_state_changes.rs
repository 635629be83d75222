//! Notifications about subscriptions and affiliations changed by others (§12.14, §8.8.4, §8.9.4).

use std::sync::Arc;

use gjallar::store::MemoryStore;

use super::{
    s04_1_affiliations::OWNER,
    s08_6_approval::{READER, affiliate, received_messages, state},
};
use crate::support::component::{PUBSUB, TestComponent, event};

/// §12.14: the reply to a change of affiliations does not include the state of the requester's own
/// subscription.
#[tokio::test]
async fn s12_14_resigning_owner_is_notified_of_its_ended_subscription() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("access_model", "whitelist")]).await;
    let set = |jid: &str, affiliation: &str| {
        let entry = format!("<affiliation jid='{jid}' affiliation='{affiliation}'/>");
        format!("<affiliations node='n'>{entry}</affiliations>")
    };
    component.owner(OWNER, "set", &set("romeo@localhost", "owner")).await;
    component.subscribe(OWNER, "n").await;
    component.messages().await;
    let resigned = component.owner(OWNER, "set", &set("owner@localhost", "none")).await;
    assert_eq!(resigned.attr("type"), Some("result"));
    let messages = component.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].attr("to"), Some(OWNER));
    let subscription = event(&messages[0]);
    assert_eq!(subscription.attr("subscription"), Some("none"));
    // If the subscription is kept, no notification is sent.
    component.create(OWNER, "m", &[]).await;
    let open = |content: String| content.replace("node='n'", "node='m'");
    component.owner(OWNER, "set", &open(set("romeo@localhost", "owner"))).await;
    component.subscribe(OWNER, "m").await;
    component.owner(OWNER, "set", &open(set("owner@localhost", "none"))).await;
    assert!(component.messages().await.is_empty());
}

/// §8.9.4 is a MAY, and some clients close their stream when they get an unexpected notice.
#[tokio::test]
async fn s8_9_4_affiliation_changes_are_sent_to_related_entities() {
    for (policy, expected) in [
        (None, vec!["member@localhost", "pending@localhost", "reader@localhost"]),
        (Some("related"), vec!["member@localhost", "pending@localhost", "reader@localhost"]),
        (
            Some("all"),
            vec!["member@localhost", "pending@localhost", "reader@localhost", "stranger@localhost"],
        ),
        (Some("never"), vec![]),
    ] {
        let configure = |config: &mut gjallar::config::Config| {
            let policy = policy.map(|notices| {
                toml::from_str(&format!("nodes = 'n'\naffiliation_notices = '{notices}'")).unwrap()
            });
            config.policies.extend(policy);
        };
        let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
        component.create(OWNER, "n", &[("access_model", "authorize")]).await;
        let set = |jids: &[&str], affiliation: &str| {
            let entry = |jid: &&str| {
                format!("<affiliation jid='{jid}@localhost' affiliation='{affiliation}'/>")
            };
            let entries: String = jids.iter().map(entry).collect();
            format!("<affiliations node='n'>{entries}</affiliations>")
        };
        component.owner(OWNER, "set", &set(&["member"], "member")).await;
        let reader = "<subscription jid='reader@localhost' subscription='subscribed'/>";
        let reader = format!("<subscriptions node='n'>{reader}</subscriptions>");
        component.owner(OWNER, "set", &reader).await;
        component.subscribe("pending@localhost", "n").await;
        component.messages().await;
        let all = set(&["member", "reader", "pending", "stranger"], "publisher");
        assert_eq!(component.owner(OWNER, "set", &all).await.attr("type"), Some("result"));
        let messages = component.messages().await;
        let notices = messages.iter().filter(|message| message.has_child("pubsub", PUBSUB));
        let mut recipients: Vec<_> = notices.map(|message| message.attr("to").unwrap()).collect();
        recipients.sort_unstable();
        assert_eq!(recipients, expected, "{policy:?}");
    }
}

/// §12.14: the message goes to the subscribed JID; the requester gets a reply and no notification.
#[tokio::test]
async fn s12_14_changes_by_others_are_notified() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    let set = |jid: &str, state: &str| {
        let entry = format!("<subscription jid='{jid}' subscription='{state}'/>");
        format!("<subscriptions node='n'>{entry}</subscriptions>")
    };
    component.owner(OWNER, "set", &set(READER, "subscribed")).await;
    let messages = component.messages().await;
    assert_eq!(messages[0].attr("to"), Some(READER));
    assert_eq!(messages[0].attr("type"), Some("normal"));
    assert_eq!(state(&messages[0]), format!("n {READER} subscribed"));
    component.owner(OWNER, "set", &set(READER, "none")).await;
    assert_eq!(received_messages(&mut component).await, [format!("{READER}: n {READER} none")]);
    component.owner(OWNER, "set", &set(OWNER, "subscribed")).await;
    component.subscribe(READER, "n").await;
    affiliate(&mut component, "reader@localhost", "member").await;
    assert_eq!(received_messages(&mut component).await, ["reader@localhost: member"]);
    affiliate(&mut component, "reader@localhost", "outcast").await;
    let out = [format!("{READER}: n {READER} none"), "reader@localhost: outcast".to_owned()];
    assert_eq!(received_messages(&mut component).await, out);
    affiliate(&mut component, "reader@localhost", "none").await;
    assert_eq!(received_messages(&mut component).await, ["reader@localhost: none"]);
}

#[tokio::test]
async fn s16_4_4_notify_sub_notifies_owners_of_subscriptions() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("notify_sub", "1")]).await;
    component.subscribe(READER, "n").await;
    component.granted(READER, &format!("<unsubscribe node='n' jid='{READER}'/>")).await;
    let news = ["subscribed", "none"].map(|state| format!("n {READER} {state}"));
    let messages = component.messages().await;
    assert!(messages.iter().all(|message| message.attr("to") == Some("owner@localhost")));
    assert_eq!(messages.iter().map(state).collect::<Vec<_>>(), news);
    let ids: Vec<_> = messages.iter().map(|message| message.attr("id").unwrap()).collect();
    assert_ne!(ids[0], ids[1]);
    // An owner is not notified of its own change.
    component.subscribe(OWNER, "n").await;
    assert_eq!(received_messages(&mut component).await, Vec::<String>::new());
    component.configure(OWNER, "n", &[("notify_sub", "0")]).await;
    component.subscribe(READER, "n").await;
    assert_eq!(received_messages(&mut component).await, Vec::<String>::new());
}
