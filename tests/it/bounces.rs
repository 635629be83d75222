//! Notifications that come back (§12.4).

use std::sync::Arc;

use gjallar::{
    process::Config,
    store::{MemoryStore, Store},
};
use minidom::Element;

use crate::harness::{Component, SERVICE, event, faulty::Faulty};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";
const OTHER: &str = "other@localhost";

/// Those of [`Component::messages`]: a node, a subscription, a publish, its end, the node's.
const COMMITS_OF_MESSAGES: u64 = 5;

async fn stage(max_bounces: u32, interval: u64) -> Component {
    stage_on(Arc::new(MemoryStore::new()), max_bounces, interval).await
}

async fn stage_on(store: Arc<dyn Store>, max_bounces: u32, interval: u64) -> Component {
    let configure = |config: &mut Config| {
        config.limits.max_bounces = max_bounces;
        config.limits.bounce_interval_seconds = interval;
    };
    let mut component = Component::with(store, configure).await;
    component.create(OWNER, "n", &[("notify_sub", "1")]).await;
    component.create(OWNER, "m", &[]).await;
    for (jid, node) in [(READER, "n"), (OTHER, "n"), (READER, "m")] {
        component.subscribe(jid, node).await;
    }
    component.messages().await;
    component
}

/// Publishes, and sends what goes to a subscriber back; whether anything went there.
async fn bounce(component: &mut Component, condition: &str, kind: &str) -> bool {
    component.publish(OWNER, "n", "1").await;
    let messages = component.messages().await;
    let to_reader = |message: &&Element| message.attr("to") == Some(READER);
    let Some(message) = messages.iter().find(to_reader) else { return false };
    let error = format!(
        "<error type='{kind}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    );
    let id = message.attr("id").unwrap();
    component
        .send(&format!(
            "<message type='error' from='{READER}' to='{SERVICE}' id='{id}'>{error}</message>"
        ))
        .await;
    true
}

#[tokio::test]
async fn a_subscription_ends_when_its_events_came_back_too_often() {
    for (condition, kind, times) in [
        ("gone", "modify", 2),
        ("item-not-found", "cancel", 2),
        ("remote-server-timeout", "wait", 6),
    ] {
        let mut component = stage(6, 0).await;
        for _ in 0..times {
            assert!(bounce(&mut component, condition, kind).await, "{condition}");
        }
        // The owner is told; whoever cannot be reached is not.
        let told = loop {
            let message = component.message().await;
            if event(&message).attr("subscription").is_some() {
                break message;
            }
        };
        assert_eq!(told.attr("to"), Some("owner@localhost"));
        assert_eq!(event(&told).attr("jid"), Some(READER));
        assert!(!bounce(&mut component, condition, kind).await, "{condition}");
        // Neither others nor other nodes are concerned.
        component.publish(OWNER, "m", "1").await;
        assert_eq!(component.events_for(READER).await.len(), 1);
        component.publish(OWNER, "n", "2").await;
        assert_eq!(component.events_for(OTHER).await.len(), 1);
    }
}

#[tokio::test]
async fn bounces_that_come_together_count_once_and_those_of_strangers_not_at_all() {
    let mut component = stage(6, 3600).await;
    for _ in 0..8 {
        assert!(bounce(&mut component, "gone", "cancel").await);
    }
    for id in ["", "x", "0123456789abcdef-1", "-1", "0123456789abcdef-", "zzzzzzzzzzzzzzzz-1"] {
        let error =
            "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        for from in [READER, "stranger@far.example"] {
            component
                .send(&format!(
                    "<message type='error' from='{from}' to='{SERVICE}' id='{id}'>{error}</message>"
                ))
                .await;
        }
    }
    assert!(bounce(&mut component, "gone", "cancel").await);
    let mut component = stage(0, 0).await;
    for _ in 0..8 {
        assert!(bounce(&mut component, "gone", "cancel").await);
    }
}

/// A store that fails when a subscription shall end does not keep it for ever.
#[tokio::test]
async fn a_bounced_subscription_ends_after_the_store_has_failed() {
    // Two nodes, three subscriptions, what asks for the messages, and two publishes come before.
    let fails_at = 2 + 3 + 3 * COMMITS_OF_MESSAGES + 2;
    let store = Faulty::new(Arc::new(MemoryStore::new()), fails_at + 1, false);
    let mut component = stage_on(store, 6, 0).await;
    for _ in 0..2 {
        assert!(bounce(&mut component, "gone", "cancel").await);
    }
    loop {
        let message = component.message().await;
        if event(&message).attr("subscription").is_some() {
            assert_eq!(event(&message).attr("jid"), Some(READER));
            break;
        }
    }
    assert!(!bounce(&mut component, "gone", "cancel").await);
}
