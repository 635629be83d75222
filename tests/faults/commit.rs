//! Failures of the store, and broken streams.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gjallar::{
    service::Error,
    store::{MemoryStore, SledStore, Store},
};
use gjallar_pubsub::{AccessModel, Affiliation, ConfigField, Limits, PublishModel};
use tokio::{sync::Semaphore, time::timeout};

use crate::support::{
    component::{TestComponent, error},
    failing_store::FailingStore,
    service::{TestService, actor, jid, node},
};

const OWNER: &str = "owner@localhost";

fn faulty(fails_at: u64, commits_all_the_same: bool) -> Arc<dyn Store> {
    FailingStore::new(Arc::new(MemoryStore::new()), fails_at, commits_all_the_same)
}

/// An erasure in which one commit fails is completed by the next call: at a node with an
/// affiliation, and at one with an item only.
#[tokio::test]
async fn failed_erasure_is_completed_by_the_next_one() {
    let (admin, erased) = (actor("admin@localhost"), jid("a@localhost").to_bare());
    let contact = || ConfigField::Contact(vec![jid("a@localhost"), jid("b@localhost")]);
    for fails_at in 6..=10 {
        let fixture = TestService::new(faulty(fails_at, false)).await;
        fixture.create(OWNER, "n").await.unwrap();
        fixture.affiliate(OWNER, "n", "a@localhost", Affiliation::Owner).await.unwrap();
        fixture.configure("a@localhost", "n", contact()).await.unwrap();
        let settings = vec![ConfigField::PublishModel(PublishModel::Open), contact()];
        fixture.create_with(OWNER, "m", settings).await.unwrap();
        fixture.publish("a@localhost", "m", "1").await.unwrap();
        let failed = fixture.service.erase(&admin, &erased).await;
        assert_eq!(failed.is_err(), fails_at < 10, "{fails_at}: {failed:?}");
        fixture.service.erase(&admin, &erased).await.unwrap();
        for name in ["n", "m"] {
            let stored = fixture.store.node(&node(name)).await.unwrap().unwrap();
            assert_eq!(stored.config.contact, [jid("b@localhost")], "{fails_at}");
            assert_eq!(stored.affiliation_of(&erased), Affiliation::None);
            let named = format!("{:?}", stored.revision);
            assert!(!named.contains("a@localhost"), "{named}");
        }
        assert_eq!(fixture.ids("m").await, [""; 0]);
    }
}

/// Memory and store agree after a failed commit, for every kind of change.
#[tokio::test]
async fn memory_equals_the_store_after_a_failed_commit() {
    for commits_all_the_same in [false, true] {
        for fails_at in 1..=7 {
            let fixture = TestService::new(faulty(fails_at, commits_all_the_same)).await;
            let results = [
                fixture.create(OWNER, "a").await.map(|_| ()),
                fixture.subscribe("x@localhost", "a").await,
                fixture.publish(OWNER, "a", "1").await.map(|_| ()),
                fixture.affiliate(OWNER, "a", "x@localhost", Affiliation::Outcast).await,
                fixture.retract(OWNER, "a", "1").await,
                fixture.purge(OWNER, "a").await,
                fixture.delete(OWNER, "a").await,
            ];
            let failed: Vec<_> =
                (1..).zip(&results).filter(|(_, r)| matches!(r, Err(Error::Unknown(_)))).collect();
            assert_eq!(failed.len(), 1, "{results:?}");
            assert_eq!(failed[0].0, fails_at);

            let refused = |result: &Result<(), Error>| matches!(result, Err(Error::Refused(_)));
            match (fails_at, commits_all_the_same) {
                // The creation failed: the next request finds no node, and auto-create of the
                // publish after it creates one.
                (1, false) => {
                    let found_none: Vec<_> = results.iter().map(refused).collect();
                    assert_eq!(found_none, [false, true, false, false, false, false, false]);
                }
                (3, false) => assert!(refused(&results[4]), "{results:?}"),
                _ => assert!(!results.iter().any(refused), "{fails_at}: {results:?}"),
            }
            let stored = fixture.store.node(&node("a")).await.unwrap();
            assert_eq!(stored.is_some(), fails_at == 7 && !commits_all_the_same);
            // The next access to the node reloads it after the failure.
            let _ = fixture.items(OWNER, "a").await;
            let nodes = format!("gjallar_nodes {}\n", usize::from(stored.is_some()));
            assert!(fixture.service.stats().contains(&nodes), "{nodes}");
        }
    }
}

#[tokio::test]
async fn a_failed_publish_is_not_delivered() {
    let fixture = TestService::new(faulty(3, false)).await;
    fixture.create(OWNER, "a").await.unwrap();
    fixture.subscribe("x@localhost", "a").await.unwrap();
    assert!(matches!(fixture.publish(OWNER, "a", "1").await, Err(Error::Unknown(_))));
    assert_eq!(fixture.drain_log(), []);
    fixture.publish(OWNER, "a", "1").await.unwrap();
    assert_eq!(fixture.drain_log().len(), 1);
}

#[tokio::test]
async fn failed_request_gets_an_error_and_can_be_repeated() {
    let mut component = TestComponent::with(faulty(2, true), |_| {}).await;
    component.create(OWNER, "n", &[]).await;
    let failed = component.publish(OWNER, "n", "1").await;
    assert_eq!(error(&failed), "wait internal-server-error");
    let again = component.publish(OWNER, "n", "1").await;
    assert_eq!(again.attr("type"), Some("result"));
    assert_eq!(component.items(OWNER, "n").await, ["1"]);
}

#[tokio::test]
async fn full_backlog_refuses_requests_before_any_change() {
    let limits = Limits { max_backlog_events: 100, ..Limits::default() };
    let fixture = TestService::limited(Arc::new(MemoryStore::new()), limits).await;
    for (owner, node) in [(OWNER, "a"), ("second@localhost", "b"), ("third@localhost", "c")] {
        fixture.create(owner, node).await.unwrap();
        for reader in ["x@localhost", "y@localhost"] {
            fixture.subscribe(reader, node).await.unwrap();
        }
    }
    let mut published = 0;
    let busy = loop {
        match fixture.publish(OWNER, "a", "1").await {
            Ok(_) => published += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, Error::Busy { .. }), "{busy:?}");
    assert_eq!(published, 50);
    // Revocations succeed even if the backlog is full.
    fixture.affiliate(OWNER, "a", "x@localhost", Affiliation::Outcast).await.unwrap();
    fixture.affiliate(OWNER, "a", "x@localhost", Affiliation::None).await.unwrap();
    fixture.subscribe("x@localhost", "a").await.unwrap_err();
    assert_eq!(fixture.items(OWNER, "a").await.unwrap()[0].event_id.sequence.0, published);
    // A node can be deleted if the deletion is not notified.
    let refused = fixture.delete(OWNER, "a").await;
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    fixture.configure(OWNER, "a", ConfigField::NotifyDelete(false)).await.unwrap();
    fixture.delete(OWNER, "a").await.unwrap();
    // Each further creator gets half of the free space.
    for (owner, node, share) in [("second@localhost", "b", 25), ("third@localhost", "c", 12)] {
        for _ in 0..share {
            fixture.publish(owner, node, "1").await.unwrap();
        }
        let busy = fixture.publish(owner, node, "1").await;
        assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    }
    assert_eq!(fixture.drain_log().len() as u64, published + 25 + 12);
    fixture.create(OWNER, "a").await.unwrap();
    fixture.subscribe("x@localhost", "a").await.unwrap();
    fixture.publish(OWNER, "a", "1").await.unwrap();
}

/// Concurrent publishes share one audience, which counts once.
#[tokio::test]
async fn audience_of_concurrent_publishes_counts_once() {
    // Two audiences, of 100 bytes for each recipient, exceed the half of the backlog that one
    // creator has.
    let limits = Limits { max_backlog_bytes: 350_000, ..Limits::default() };
    let gate = Arc::new(Semaphore::new(1));
    let fixture =
        TestService::limited(FailingStore::gated(Arc::new(MemoryStore::new()), &gate), limits)
            .await;
    fixture.create(OWNER, "a").await.unwrap();
    for number in 0..1000 {
        fixture.subscribe(&format!("s{number}@localhost"), "a").await.unwrap();
    }
    let closed = gate.acquire().await.unwrap();
    let mut publishing = Vec::new();
    for number in 0..20 {
        let name = number.to_string();
        let begun = fixture.begin_to_publish(OWNER, "a", &name);
        // Without space the publish would wait for the commits before it.
        publishing.push(timeout(Duration::from_secs(10), begun).await.expect("there is room"));
    }
    drop(closed);
    for published in publishing {
        published.await.unwrap();
    }
    assert_eq!(fixture.drain_log().len(), 20);
}

/// Memory has a subscription that the store does not have, because its commit failed. That is no
/// corruption.
#[tokio::test(start_paused = true)]
async fn unavailable_presence_after_a_failed_commit_quarantines_no_node() {
    let folder = tempfile::tempdir().unwrap();
    let (store, gate) = (SledStore::open(folder.path()).unwrap(), Arc::new(Semaphore::new(1)));
    let fixture = TestService::new(FailingStore::begin(Arc::new(store), 3..4, false, &gate)).await;
    fixture.create_with(OWNER, "a", vec![ConfigField::Tempsub(true)]).await.unwrap();
    fixture.subscribe("x@localhost", "a").await.unwrap();
    let closed = gate.acquire().await.unwrap();
    let phone = "x@localhost/phone";
    let mut subscribing = pin!(fixture.subscribe(phone, "a"));
    assert!(timeout(Duration::from_secs(1), &mut subscribing).await.is_err());
    let phone = jid(phone);
    let mut departing = pin!(fixture.service.unavailable(&phone));
    assert!(timeout(Duration::from_secs(1), &mut departing).await.is_err(), "it does not wait");
    drop(closed);
    departing.await;
    assert!(matches!(subscribing.await, Err(Error::Unknown(_))));
    fixture.publish(OWNER, "a", "1").await.unwrap();
}

/// The first request revokes access and fails, although its changes are stored; the second changes
/// nothing. Pending events are not sent to the revoked subscriber.
#[tokio::test]
async fn failed_revocation_still_stops_notifications() {
    let fixture = TestService::new(faulty(4, true)).await;
    fixture.create(OWNER, "a").await.unwrap();
    fixture.subscribe("x@localhost", "a").await.unwrap();
    fixture.publish(OWNER, "a", "1").await.unwrap();
    let closed = ConfigField::AccessModel(AccessModel::Whitelist);
    let failed = fixture.configure(OWNER, "a", closed.clone()).await;
    assert!(matches!(failed, Err(Error::Unknown(_))), "{failed:?}");
    fixture.configure(OWNER, "a", closed).await.unwrap();
    assert_eq!(fixture.drain_log()[0].1, [""; 0]);
}

/// Three publishes are in progress when the first one fails. The other two depend on it: they fail
/// too, and leave no trace.
#[tokio::test]
async fn dependent_commits_fail_after_failed_commit() {
    for commits_all_the_same in [false, true] {
        let gate = Arc::new(Semaphore::new(1));
        let inner = Arc::new(MemoryStore::new());
        let store = FailingStore::begin(inner, 3..4, commits_all_the_same, &gate);
        let fixture = TestService::new(store).await;
        fixture.create(OWNER, "a").await.unwrap();
        fixture.subscribe("x@localhost", "a").await.unwrap();
        let closed = gate.acquire().await.unwrap();
        let mut commits = Vec::new();
        for id in ["1", "2", "3"] {
            commits.push(fixture.begin_to_publish(OWNER, "a", id).await);
        }
        drop(closed);
        for outcome in commits {
            assert!(matches!(outcome.await, Err(Error::Unknown(_))));
        }
        assert_eq!(fixture.drain_log(), []);
        fixture.publish(OWNER, "a", "4").await.unwrap();
        let stored: &[&str] = if commits_all_the_same { &["1", "4"] } else { &["4"] };
        assert_eq!(fixture.ids("a").await, stored);
        assert_eq!(fixture.drain_log().len(), 1);
    }
}

/// No reply reveals a change that may not be committed: neither a creation nor a deletion.
#[tokio::test]
async fn reply_waits_for_the_commits_that_it_depends_on() {
    let gate = Arc::new(Semaphore::new(1));
    let store = FailingStore::begin(Arc::new(MemoryStore::new()), 2..3, false, &gate);
    let mut component = TestComponent::with(store, |_| {}).await;
    component.create(OWNER, "a", &[]).await;
    let closed = gate.acquire().await.unwrap();
    component
        .send(&format!(
            "<iq type='set' id='1' from='{OWNER}' to='pubsub.localhost'><pubsub \
             xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='a'/></pubsub></iq>"
        ))
        .await;
    // The deletion is decided before the second request is sent; the reply to a ping shows that the
    // request was processed.
    component.ask("p@localhost", "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    component
        .send(
            "<iq type='get' id='2' from='x@localhost' to='pubsub.localhost'><pubsub \
             xmlns='http://jabber.org/protocol/pubsub'><items node='a'/></pubsub></iq>",
        )
        .await;
    let other = component.ask("p@localhost", "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(other.attr("type"), Some("result"));
    drop(closed);
    let mut answers = [component.answer().await, component.answer().await];
    answers.sort_by_key(|answer| answer.attr("id").map(str::to_owned));
    assert_eq!(error(&answers[0]), "wait internal-server-error");
    assert_eq!(answers[1].attr("type"), Some("result"), "{:?}", answers[1]);
}

/// Events of a failed commit whose changes are stored are delivered without another request for the
/// node.
#[tokio::test]
async fn events_of_a_commit_with_unknown_outcome_are_delivered_after_reread() {
    let folder = tempfile::tempdir().unwrap();
    let inner = Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(FailingStore::new(inner, 3, true), |_| {}).await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe("x@localhost", "n").await;
    let failed = component.publish(OWNER, "n", "1").await;
    assert_eq!(error(&failed), "wait internal-server-error");
    assert_eq!(component.events_for("x@localhost").await.len(), 1);
}

/// The stream breaks during a large fan-out, and the server keeps reading what was sent.
#[tokio::test]
async fn unsent_notifications_are_sent_on_the_next_stream() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe_many(OWNER, "n", 2000).await;
    component.publish_much(OWNER, "n").await;
    component.send("</stream:stream>").await;
    let mut received = component.take_messages();
    while let Some(stanza) = component.link.receive().await {
        received.push(stanza);
    }
    let first = received.len();
    assert!(first < 2000, "the audience is too small for this test");
    component.reconnected().await;
    received.extend(component.messages().await);
    let recipients: std::collections::BTreeSet<_> =
        received.iter().filter_map(|message| message.attr("to")).collect();
    assert_eq!(recipients.len(), 2000, "{first} came before the break");
    // Unconfirmed notifications are repeated with the same id, and with the time of the event.
    assert!(received.len() <= 2000 + first, "{} events", received.len());
    let (before, after) = received.split_at(first);
    let is_late = |message: &minidom::Element| message.has_child("delay", "urn:xmpp:delay");
    assert!(after.iter().all(is_late) && !before.iter().any(is_late));
    let ids: std::collections::BTreeSet<_> =
        received.iter().map(|m| (m.attr("to"), m.attr("id"))).collect();
    assert_eq!(ids.len(), 2000, "a repeat has another id");
    let unique: std::collections::BTreeSet<_> = ids.iter().map(|(_, id)| id).collect();
    assert_eq!(unique.len(), 2000, "two recipients have the same id");
}

/// Notifications confirmed by a barrier are not repeated, and the others are, in the middle of an
/// audience.
#[tokio::test]
async fn acknowledged_notifications_are_not_repeated() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe_many(OWNER, "n", 20_000).await;
    component.send(&publish_request("n", "1")).await;
    // The server accepts 7 000 notifications and returns the barriers among them; the last of those
    // is processed after more stanzas than may be repeated.
    let mut received = Vec::new();
    while received.len() < 15_000 {
        let stanza = component.link.receive().await.unwrap();
        received
            .extend(stanza.attr("to").filter(|_| stanza.name() == "message").map(str::to_owned));
    }
    component.reconnected_by_force().await;
    let rest = component.messages().await;
    let rest: Vec<_> = rest.iter().map(|message| message.attr("to").unwrap()).collect();
    let repeated = received.iter().filter(|jid| rest.contains(&jid.as_str())).count();
    assert!((1..=10_000).contains(&repeated), "{repeated} repeated");
    assert!(rest.len() < 20_000);
    let all: std::collections::BTreeSet<_> =
        received.iter().map(String::as_str).chain(rest.iter().copied()).collect();
    assert_eq!(all.len(), 20_000);
}

fn publish_request(node: &str, id: &str) -> String {
    format!(
        "<iq type='set' id='p' from='{OWNER}' to='pubsub.localhost'><pubsub \
         xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'><item id='{id}'>\
         <x xmlns='urn:x'/></item></publish></pubsub></iq>"
    )
}

/// Without returned barriers, only as many notifications are sent as a kill may repeat; replies are
/// still sent.
#[tokio::test]
async fn unacknowledged_notifications_are_bounded() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe_many(OWNER, "n", 20_000).await;
    component.send(&publish_request("n", "1")).await;
    let mut messages = 0;
    while messages < 10_000 {
        let stanza = component.link.receive_any().await.unwrap();
        messages += usize::from(stanza.name() == "message");
    }
    for _ in 0..3 {
        component
            .send("<iq type='get' id='x' from='a@b/c' to='pubsub.localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
            .await;
        loop {
            let stanza = component.link.receive_any().await.unwrap();
            assert_ne!(stanza.name(), "message");
            if stanza.attr("id") == Some("x") {
                break;
            }
        }
    }
}

/// A failure at many nodes reads the pending entries only once.
#[tokio::test(start_paused = true)]
async fn uncertain_nodes_are_reloaded_together() {
    let gate = Arc::new(Semaphore::new(1));
    let store = FailingStore::begin(Arc::new(MemoryStore::new()), 51..101, false, &gate);
    let fixture = TestService::new(Arc::clone(&store) as Arc<dyn Store>).await;
    let nodes: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    for node in &nodes {
        fixture.create(OWNER, node).await.unwrap();
    }
    for node in &nodes {
        assert!(matches!(fixture.publish(OWNER, node, "1").await, Err(Error::Unknown(_))));
    }
    let before = store.scans.load(Ordering::Relaxed);
    let settled = timeout(Duration::from_secs(5), fixture.service.reload_uncertain_nodes()).await;
    assert!(settled.is_err(), "it goes on");
    assert_eq!(store.scans.load(Ordering::Relaxed) - before, 1);
    for node in &nodes {
        fixture.publish(OWNER, node, "1").await.unwrap();
    }
    assert_eq!(store.scans.load(Ordering::Relaxed) - before, 1, "all were read");
}
