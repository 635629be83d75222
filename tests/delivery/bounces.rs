//! Bounced notifications (§12.4).

use std::sync::Arc;

use gjallar::{
    config::Config,
    store::{MemoryStore, Store},
};
use minidom::Element;

use crate::{
    support::{
        component::{SERVICE, TestComponent, event},
        failing_store::FailingStore,
    },
    xep0060::s12_3_presence::name_nodes,
};

const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";
const OTHER: &str = "other@localhost";

/// Commits of [`TestComponent::messages`]: create, subscribe, publish, unsubscribe, delete.
const COMMITS_OF_MESSAGES: u64 = 5;

async fn component_with_subscriptions(max_bounces: u32, interval: u64) -> TestComponent {
    component_with_subscriptions_in(Arc::new(MemoryStore::new()), max_bounces, interval).await
}

async fn component_with_subscriptions_in(
    store: Arc<dyn Store>,
    max_bounces: u32,
    interval: u64,
) -> TestComponent {
    let configure = |config: &mut Config| {
        config.limits.max_bounces = max_bounces;
        config.limits.bounce_interval_seconds = interval;
    };
    let mut component = TestComponent::with(store, configure).await;
    component.create(OWNER, "n", &[("notify_sub", "1")]).await;
    component.create(OWNER, "m", &[]).await;
    for (jid, node) in [(READER, "n"), (OTHER, "n"), (READER, "m")] {
        component.subscribe(jid, node).await;
    }
    component.messages().await;
    component
}

/// Publishes, and bounces the notification to a subscriber. Returns `true` if there was one.
async fn bounce(component: &mut TestComponent, condition: &str, kind: &str) -> bool {
    component.publish(OWNER, "n", "1").await;
    let messages = component.messages().await;
    let to_reader = |message: &&Element| message.attr("to") == Some(READER);
    let Some(message) = messages.iter().find(to_reader) else { return false };
    let (id, error) = (message.attr("id").unwrap(), error(condition, kind));
    component
        .send(&format!(
            "<message type='error' from='{READER}' to='{SERVICE}' id='{id}'>{error}</message>"
        ))
        .await;
    true
}

fn error(condition: &str, kind: &str) -> String {
    format!(
        "<error type='{kind}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    )
}

#[tokio::test]
async fn subscription_ends_after_too_many_bounces() {
    for (condition, kind, times) in [
        ("gone", "modify", 2),
        ("item-not-found", "cancel", 2),
        ("remote-server-timeout", "wait", 6),
    ] {
        let mut component = component_with_subscriptions(6, 0).await;
        for _ in 0..times {
            assert!(bounce(&mut component, condition, kind).await, "{condition}");
        }
        // The owner is notified; the unreachable subscriber is not.
        let notice = loop {
            let message = component.message().await;
            if event(&message).attr("subscription").is_some() {
                break message;
            }
        };
        assert_eq!(notice.attr("to"), Some("owner@localhost"));
        assert_eq!(event(&notice).attr("jid"), Some(READER));
        assert!(!bounce(&mut component, condition, kind).await, "{condition}");
        // Other subscribers and other nodes are unaffected.
        component.publish(OWNER, "m", "1").await;
        assert_eq!(component.events_for(READER).await.len(), 1);
        component.publish(OWNER, "n", "2").await;
        assert_eq!(component.events_for(OTHER).await.len(), 1);
    }
}

#[tokio::test]
async fn simultaneous_bounces_count_once_and_bounces_from_strangers_do_not_count() {
    let mut component = component_with_subscriptions(6, 3600).await;
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
    let mut component = component_with_subscriptions(0, 0).await;
    for _ in 0..8 {
        assert!(bounce(&mut component, "gone", "cancel").await);
    }
}

/// A subscription is removed although the store fails at the first attempt.
#[tokio::test]
async fn bounced_subscription_ends_after_a_store_failure() {
    // Commits before: two nodes, three subscriptions, the calls of `messages`, and two publishes.
    let fails_at = 2 + 3 + 3 * COMMITS_OF_MESSAGES + 2;
    let store = FailingStore::new(Arc::new(MemoryStore::new()), fails_at + 1, false);
    let mut component = component_with_subscriptions_in(store, 6, 0).await;
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

/// Errors of a server that is busy or temporarily unreachable.
const UNREACHABLE: [(&str, &str); 4] = [
    ("remote-server-timeout", "wait"),
    ("remote-server-not-found", "cancel"),
    ("resource-constraint", "wait"),
    ("recipient-unavailable", "wait"),
];
/// Errors that mean that a resource is unavailable.
const ABSENT: [(&str, &str); 4] = [
    ("service-unavailable", "cancel"),
    ("recipient-unavailable", "cancel"),
    ("item-not-found", "cancel"),
    ("gone", "modify"),
];

/// Starts a component with a node in which the reader's resource has an implicit subscription only.
async fn with_interested(settings: &[(&str, &str)]) -> TestComponent {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", settings).await;
    name_nodes(&mut component, READER, &["n"]).await;
    component.ask(READER, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    component
}

/// §12.2: only errors that mean unavailability end the implicit subscription of a resource.
#[tokio::test]
async fn s12_2_resource_stays_interested_while_its_server_is_unreachable() {
    let others = [("forbidden", "auth"), ("policy-violation", "modify")];
    for (condition, kind) in UNREACHABLE.into_iter().chain(others) {
        let mut component = with_interested(&[]).await;
        assert!(bounce(&mut component, condition, kind).await);
        assert!(bounce(&mut component, condition, kind).await, "{condition}");
    }
    for (condition, kind) in ABSENT {
        let mut component = with_interested(&[]).await;
        assert!(bounce(&mut component, condition, kind).await);
        assert!(!bounce(&mut component, condition, kind).await, "{condition}");
    }
}

/// §12.2: the same applies to the capabilities queries for known resources on a new connection,
/// which are repeated on the next one. The resource stays available at a presence-based node too.
#[tokio::test]
async fn s12_2_resource_stays_interested_if_its_capabilities_cannot_be_queried() {
    let errors = UNREACHABLE.into_iter().chain(ABSENT);
    for ((condition, kind), delivery) in errors.flat_map(|error| [(error, "0"), (error, "1")]) {
        let mut component = with_interested(&[("presence_based_delivery", delivery)]).await;
        let mut known = None;
        for item in ["1", "2"] {
            component.reconnected_by_force().await;
            let query = component.answer().await;
            assert_eq!(query.attr("to"), Some(READER));
            let (id, error) = (query.attr("id").unwrap(), error(condition, kind));
            let content = query.children().next().unwrap().attr("node").map(str::to_owned);
            assert_eq!(*known.get_or_insert_with(|| content.clone()), content);
            component
                .send(&format!(
                    "<iq type='error' from='{READER}' to='{SERVICE}' id='{id}'>{error}</iq>"
                ))
                .await;
            component.publish(OWNER, "n", item).await;
            let events = component.events_for(READER).await;
            let mut items = events.iter().flat_map(Element::children);
            let is_sent = items.any(|sent| sent.attr("id") == Some(item));
            let is_unreachable = UNREACHABLE.contains(&(condition, kind));
            assert_eq!(is_sent, is_unreachable, "{condition} {delivery}");
            if !is_unreachable {
                break;
            }
        }
    }
}
