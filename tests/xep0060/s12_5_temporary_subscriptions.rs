//! Temporary subscriptions (§12.5), which end with the presence of their subscribers.

use std::sync::{Arc, atomic::Ordering};

use gjallar::store::{MemoryStore, SledStore, Store};

use super::s12_3_presence::{
    LAPTOP, OWNER, PHONE, READER, answer_pings, component_with_node, presence, subscribe,
};
use crate::support::{
    component::{SERVICE, TestComponent, event, shown},
    failing_store::FailingStore,
};

async fn is_subscribed(component: &mut TestComponent, jid: &str) -> bool {
    let own = component.pubsub(jid, "get", "<subscriptions node='n'/>").await;
    shown(&own).contains(&format!("jid='{jid}'"))
}

#[tokio::test]
async fn s12_5_temporary_subscription_ends_when_its_subscriber_becomes_unavailable() {
    let mut component = component_with_node(&[("tempsub", "1"), ("notify_sub", "1")]).await;
    component.subscribe(READER, "n").await;
    component.subscribe(PHONE, "n").await;
    component.messages().await;
    presence(&mut component, PHONE, "", "").await;
    presence(&mut component, LAPTOP, "", "").await;
    presence(&mut component, PHONE, "unavailable", "").await;
    assert!(!is_subscribed(&mut component, PHONE).await);
    assert!(is_subscribed(&mut component, READER).await);
    // The owner is notified; the unavailable subscriber is not.
    let notices = component.messages().await;
    let notices: Vec<_> =
        notices.iter().map(|message| (message.attr("to").unwrap(), event(message))).collect();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].0, "owner@localhost");
    assert_eq!(notices[0].1.attr("subscription"), Some("none"));
    presence(&mut component, LAPTOP, "unavailable", "").await;
    assert!(!is_subscribed(&mut component, READER).await);
}

/// Owners are not notified of the presence of entities that they subscribed themselves.
#[tokio::test]
async fn s12_5_subscription_set_by_an_owner_survives_unavailable_presence() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn Store>; 2] =
        [Arc::new(MemoryStore::new()), Arc::new(SledStore::open(folder.path()).unwrap())];
    for store in stores {
        let mut component = TestComponent::with(store, |_| {}).await;
        component.create(OWNER, "n", &[("tempsub", "1"), ("notify_sub", "1")]).await;
        let entry = |jid: &str| format!("<subscription jid='{jid}' subscription='subscribed'/>");
        let entries = entry(READER) + &entry(PHONE);
        let list = format!("<subscriptions node='n'>{entries}</subscriptions>");
        component.owner(OWNER, "set", &list).await;
        component.subscribe(LAPTOP, "n").await;
        component.messages().await;
        for resource in [PHONE, LAPTOP] {
            presence(&mut component, resource, "", "").await;
        }
        for resource in [PHONE, LAPTOP] {
            presence(&mut component, resource, "unavailable", "").await;
        }
        assert!(is_subscribed(&mut component, READER).await);
        assert!(is_subscribed(&mut component, PHONE).await);
        assert!(!is_subscribed(&mut component, LAPTOP).await);
        let notices = component.messages().await;
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert_eq!(event(&notices[0]).attr("jid"), Some(LAPTOP));
    }
}

#[tokio::test]
async fn s12_5_expire_presence_ends_the_subscription_at_unavailable_presence() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(PHONE, "n").await;
    subscribe(&mut component, READER, &[("expire", &["presence"])]).await;
    component.messages().await;
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    // The server reports an entity that has not been online since when presence is requested.
    component.messages().await;
    let asked = component.link.take_presence();
    assert!(asked.contains(&("subscribe".to_owned(), READER.to_owned())), "{asked:?}");
    assert!(is_subscribed(&mut component, READER).await);
    // Prosody sends unavailable presence when it accepts the request, whether the user is online or
    // not.
    presence(&mut component, READER, "unavailable", "").await;
    assert!(is_subscribed(&mut component, READER).await);
    presence(&mut component, READER, "subscribed", "").await;
    presence(&mut component, READER, "unavailable", "").await;
    assert!(!is_subscribed(&mut component, READER).await);
    assert!(is_subscribed(&mut component, PHONE).await);
    component.finish().await;
    assert_eq!(open().check().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn s12_5_possibly_available_entity_keeps_its_temporary_subscription() {
    let mut component = component_with_node(&[("tempsub", "1")]).await;
    component.subscribe(READER, "n").await;
    presence(&mut component, PHONE, "", "").await;
    presence(&mut component, LAPTOP, "", "").await;
    // On a new connection resources are unknown until their presence arrives.
    component.reconnected_by_force().await;
    presence(&mut component, PHONE, "unavailable", "").await;
    assert!(is_subscribed(&mut component, READER).await);
    let error = |condition: &str| {
        let condition = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>");
        let error = format!("<error type='cancel'>{condition}</error>");
        format!("<presence type='error' from='{READER}' to='{SERVICE}'>{error}</presence>")
    };
    component.send(&error("remote-server-not-found")).await;
    assert!(is_subscribed(&mut component, READER).await);
    component.send(&error("item-not-found")).await;
    assert!(!is_subscribed(&mut component, READER).await);
}

/// §12.5: the departure of the last resource is also detected on a new connection.
#[tokio::test]
async fn s12_5_temporary_subscription_ends_by_presence_known_before_a_new_connection() {
    let mut component = component_with_node(&[("tempsub", "1")]).await;
    for resources in [&[PHONE][..], &[PHONE, LAPTOP]] {
        component.subscribe(READER, "n").await;
        for resource in resources {
            presence(&mut component, resource, "", "").await;
        }
        component.reconnected_by_force().await;
        component.messages().await;
        assert!(is_subscribed(&mut component, READER).await);
        answer_pings(&mut component, resources.len()).await;
        presence(&mut component, PHONE, "unavailable", "").await;
        assert!(!is_subscribed(&mut component, READER).await, "{resources:?}");
    }
    // Without an answer too.
    component.subscribe(READER, "n").await;
    presence(&mut component, PHONE, "", "").await;
    component.reconnected_by_force().await;
    component.messages().await;
    presence(&mut component, PHONE, "unavailable", "").await;
    assert!(!is_subscribed(&mut component, READER).await);
}

/// Effects of presence are retried after a failure of the store.
#[tokio::test]
async fn s12_5_unavailable_presence_is_processed_when_the_store_is_readable_again() {
    let store = FailingStore::new(Arc::new(MemoryStore::new()), 0, false);
    let mut component = TestComponent::with(Arc::clone(&store) as Arc<dyn Store>, |_| {}).await;
    let last = ("send_last_published_item", "on_sub_and_presence");
    component.create(OWNER, "n", &[("tempsub", "1"), ("notify_sub", "1"), last]).await;
    component.publish(OWNER, "n", "1").await;
    component.subscribe(READER, "n").await;
    component.messages().await;
    store.failing_lists.store(2, Ordering::Relaxed);
    presence(&mut component, PHONE, "", "").await;
    assert_eq!(event(&component.message().await).name(), "items");
    store.failing_lists.store(2, Ordering::Relaxed);
    presence(&mut component, PHONE, "unavailable", "").await;
    // The owner is notified of the end of the subscription.
    assert_eq!(event(&component.message().await).attr("subscription"), Some("none"));
    assert_eq!(store.failing_lists.load(Ordering::Relaxed), 0);
    // An entity that has come back meanwhile keeps its subscription.
    component.subscribe(READER, "n").await;
    component.messages().await;
    presence(&mut component, PHONE, "", "").await;
    component.messages().await;
    store.failing_lists.store(usize::MAX, Ordering::Relaxed);
    presence(&mut component, PHONE, "unavailable", "").await;
    presence(&mut component, PHONE, "", "").await;
    store.failing_lists.store(0, Ordering::Relaxed);
    assert_eq!(event(&component.message().await).name(), "items");
    assert!(is_subscribed(&mut component, READER).await);
}
