//! Removal of the items of a publisher that becomes unavailable (§16.4.4, `pubsub#purge_offline`).

use std::{sync::Arc, time::Duration};

use gjallar::store::{MemoryStore, SledStore, Store};
use gjallar_pubsub::{Affiliation, ConfigField, Limits, PublishModel};

use super::s12_3_presence::{
    ONLINE, OTHER, OWNER, PHONE, READER, become_briefly_available, component_with_node,
    next_request, presence, presence_requests_until_now,
};
use crate::support::{
    component::{EVENT, TestComponent, event},
    service::{TestService, jid},
};

/// Creates a node with `purge_offline` to which all entities may publish.
async fn with_publishers(store: &Arc<dyn Store>, limits: Limits) -> TestService {
    let fixture = TestService::limited(Arc::clone(store), limits).await;
    let open = ConfigField::PublishModel(PublishModel::Open);
    let settings = vec![ConfigField::PurgeOffline(true), ConfigField::NotifyRetract(true), open];
    fixture.create_with("owner@localhost", "n", settings).await.unwrap();
    fixture.service.presence_tracker().connected();
    fixture
}

#[tokio::test]
async fn s16_4_4_purge_offline_removes_items_of_unavailable_publishers() {
    let mut component =
        component_with_node(&[("purge_offline", "1"), ("publish_model", "open")]).await;
    component.subscribe(READER, "n").await;
    component.publish(OTHER, "n", "1").await;
    component.messages().await;
    let asked = component.link.take_presence();
    assert!(asked.contains(&("subscribe".to_owned(), "other@localhost".to_owned())), "{asked:?}");
    // A stranger may change only its own items, newest or not.
    for (publisher, id) in [(OWNER, "2"), (OTHER, "3")] {
        component.publish(publisher, "n", id).await;
        presence(&mut component, OTHER, "", "").await;
        component.messages().await;
        presence(&mut component, OTHER, "unavailable", "").await;
        assert_eq!(component.items(READER, "n").await, ["2"]);
        let events = component.messages().await;
        assert_eq!(events.len(), 1);
        assert!(event(&events[0]).children().all(|child| child.is("retract", EVENT)));
    }
    presence(&mut component, OWNER, "", "").await;
    presence(&mut component, "owner@localhost/phone", "", "").await;
    presence(&mut component, OWNER, "unavailable", "").await;
    assert_eq!(component.items(READER, "n").await, ["2"]);
    component.messages().await;
    presence(&mut component, "owner@localhost/phone", "unavailable", "").await;
    assert_eq!(component.items(READER, "n").await, [""; 0]);
    let messages = component.messages().await;
    assert_eq!(
        messages.iter().map(|message| event(message).name().to_owned()).collect::<Vec<_>>(),
        ["purge"]
    );
}

/// `purge_offline` also applies to publishers that are neither subscribed nor affiliated.
#[tokio::test]
async fn s16_4_4_purge_offline_retracts_items_of_unaffiliated_publishers() {
    let mut component = TestComponent::start().await;
    let one = ("max_items", "1");
    component.create(OWNER, "n", &[("publish_model", "open"), ("purge_offline", "1"), one]).await;
    component.create(OWNER, "m", &[("publish_model", "open"), one]).await;
    component.publish(PHONE, "n", "1").await;
    component.publish(PHONE, "m", "1").await;
    component.configure(OWNER, "m", &[("purge_offline", "1")]).await;
    presence(&mut component, PHONE, "", "").await;
    presence(&mut component, PHONE, "unavailable", "").await;
    assert_eq!(component.items(OWNER, "n").await, Vec::<String>::new());
    // The publisher of the new newest item of the other node is read after the answer.
    while !component.items(OWNER, "m").await.is_empty() {
        presence(&mut component, PHONE, "", "").await;
        presence(&mut component, PHONE, "unavailable", "").await;
    }
}

/// §12.3: only the presence of publishers is requested, and not after a restart from those that refused it.
#[tokio::test]
async fn s16_4_4_purge_offline_requests_the_presence_of_publishers_only() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    let purged = ("purge_offline", "1");
    component.create(OWNER, "n", &[("publish_model", "open"), purged]).await;
    component.create(OWNER, "m", &[("publish_model", "open")]).await;
    let [waits, mute] = ["waits@localhost", "mute@localhost"];
    for node in ["n", "m"] {
        component.subscribe(READER, node).await;
        component.publish(&format!("{node}-{mute}"), node, "1").await;
        component.publish(OTHER, node, "2").await;
    }
    component.configure(OWNER, "m", &[purged]).await;
    let authorize = [("access_model", "authorize"), purged];
    component.configure(OWNER, "n", &authorize).await;
    component.subscribe(waits, "n").await;
    let mut asked = presence_requests_until_now(&mut component).await;
    let publishers = ["subscribe m-mute@localhost", "subscribe n-mute@localhost"];
    let all = [&publishers[..], &["subscribe other@localhost"]].concat();
    // The publishers at the node that was configured later are read after the answer.
    while asked.len() < all.len() {
        asked.extend(presence_requests_until_now(&mut component).await);
    }
    asked.sort_unstable();
    assert_eq!(asked, all);
    for entity in [READER, OTHER, waits] {
        presence(&mut component, entity, "unsubscribed", "").await;
    }
    // A subscription here does not need the presence that the publisher refused.
    component.subscribe("other@localhost", "n").await;
    assert_eq!(presence_requests_until_now(&mut component).await, [""; 0]);
    component.finish().await;
    assert_eq!(open().presence_refusals().await.unwrap().len(), 1);
    let mut component = TestComponent::with(open(), |_| {}).await;
    asked.clear();
    while asked.len() < publishers.len() {
        asked.extend(presence_requests_until_now(&mut component).await);
    }
    asked.extend(presence_requests_until_now(&mut component).await);
    asked.sort_unstable();
    assert_eq!(asked, publishers);
    component.finish().await;
}

/// The publishers of all items are known again after a restart, also those of old items.
#[tokio::test]
async fn s16_4_4_purge_offline_retracts_old_items_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[("publish_model", "open"), ("purge_offline", "1")]).await;
    component.publish(OTHER, "n", "old").await;
    for number in 0..210 {
        component.publish("sensor@localhost", "n", &number.to_string()).await;
    }
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    let mut asked = Vec::new();
    while !asked.contains(&"subscribe other@localhost".to_owned()) {
        asked.extend(presence_requests_until_now(&mut component).await);
    }
    presence(&mut component, OTHER, "", "").await;
    presence(&mut component, OTHER, "unavailable", "").await;
    let items = component.items(OWNER, "n").await;
    assert!(items.len() >= 100 && !items.contains(&"old".to_owned()), "{items:?}");
    component.finish().await;
}

/// A publisher that stops sharing its presence counts as offline.
#[tokio::test]
async fn s16_4_4_purge_offline_retracts_items_of_publishers_that_withdraw_their_presence() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("publish_model", "open"), ("purge_offline", "1")]).await;
    component.create(OWNER, "temporary", &[("tempsub", "1")]).await;
    component.publish(OTHER, "n", "1").await;
    component.subscribe(OTHER, "temporary").await;
    for kind in ["subscribed", ""] {
        presence(&mut component, OTHER, kind, "").await;
    }
    assert_eq!(component.items(OWNER, "n").await, ["1"]);
    presence(&mut component, "other@localhost", "unsubscribed", "").await;
    assert_eq!(component.items(OWNER, "n").await, [""; 0]);
    component.publish(OWNER, "temporary", "1").await;
    let messages = component.messages().await;
    assert!(messages.iter().all(|message| message.get_child("event", EVENT).is_none()));
}

/// §16.4.4, §7.2: all items of a publisher that may change only its own are retracted, and no other
/// items.
#[tokio::test]
async fn s16_4_4_purge_offline_retracts_items_that_the_publisher_may_retract() {
    let [owner, sensor, stranger] = ["owner@localhost", "sensor@localhost", "stranger@localhost"];
    let banned = "banned@localhost";
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let fixture = with_publishers(&store, Limits::default()).await;
    fixture.affiliate(owner, "n", sensor, Affiliation::PublishOnly).await.unwrap();
    fixture.subscribe("reader@localhost", "n").await.unwrap();
    let (mut number, mut own) = (0, Vec::new());
    let mut publish = async |publisher: &str, items: usize| {
        for _ in 0..items {
            number += 1;
            let id = format!("{number:05}");
            fixture.publish(publisher, "n", &id).await.unwrap();
            own.push((publisher.to_owned(), id));
        }
        fixture.drain_log();
    };
    for (publisher, items) in
        [(sensor, 1), (stranger, 2), (owner, 2100), (sensor, 150), (banned, 1)]
    {
        publish(publisher, items).await;
    }
    fixture.affiliate(owner, "n", banned, Affiliation::Outcast).await.unwrap();
    let of = |publishers: &[&str]| {
        let some = own.iter().filter(|(publisher, _)| publishers.contains(&publisher.as_str()));
        some.map(|(_, id)| id.clone()).collect::<Vec<_>>()
    };
    fixture.drain_log();
    become_briefly_available(&fixture, banned).await;
    assert_eq!(fixture.ids("n").await.len(), own.len());
    become_briefly_available(&fixture, sensor).await;
    assert_eq!(fixture.ids("n").await, of(&[stranger, owner, banned]));
    let entries = fixture.drain_log();
    let retracted = of(&[sensor]);
    assert_eq!(entries.len(), retracted.len());
    for ((event, recipients), id) in entries.iter().zip(&retracted) {
        assert!(event.contains(&format!("Retracted([ItemId(\"{id}\")])")), "{event}");
        assert_eq!(recipients, &["reader@localhost"]);
    }
    // After a start the publishers of the newest items are known.
    let late = "late@localhost";
    fixture.publish(late, "n", "late").await.unwrap();
    fixture.publish(owner, "n", "newest").await.unwrap();
    drop(fixture);
    let fixture = TestService::new(store).await;
    fixture.service.presence_tracker().connected();
    tokio::select! {
        () = fixture.service.run_timers() => {}
        () = async { while next_request(&fixture).await.expect("it is asked").0 != late {} } => {}
    }
    become_briefly_available(&fixture, late).await;
    let mut left = of(&[stranger, owner, banned]);
    left.push("newest".into());
    assert_eq!(fixture.ids("n").await, left);
}

/// Items are retracted in parts if the backlog has no space for all notifications. A publisher that
/// returns keeps the rest until it becomes unavailable again.
#[tokio::test(start_paused = true)]
async fn s16_4_4_purge_offline_retracts_in_parts_when_the_backlog_is_full() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let limits = Limits { max_backlog_events: 40, ..Limits::default() };
    let fixture = with_publishers(&store, limits).await;
    fixture.subscribe("reader@localhost", "n").await.unwrap();
    for id in 0..100 {
        fixture.publish("stranger@localhost", "n", &format!("{id:02}")).await.unwrap();
        fixture.drain_log();
    }
    become_briefly_available(&fixture, "stranger@localhost").await;
    let left = fixture.ids("n").await.len();
    assert!((1..100).contains(&left), "{left}");
    fixture.service.available(&jid("stranger@localhost/x"), &ONLINE).await;
    let room = async |until: usize| {
        while fixture.ids("n").await.len() > until {
            fixture.drain_log();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = fixture.service.retry_presence() => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => {}
    }
    assert_eq!(fixture.ids("n").await.len(), left);
    fixture.service.unavailable(&jid("stranger@localhost/x")).await;
    tokio::select! {
        () = fixture.service.retry_presence() => {}
        () = room(0) => {}
    }
}
