//! Timer-driven operations at nodes with options or SubIDs: bounded by the backlog, except for
//! expired leases.

use std::{future::Future, sync::Arc, time::Duration};

use gjallar::{service::Error, store::MemoryStore};
use gjallar_pubsub::{
    ConfigField, Expire, ItemExpire, Limits, SubscriptionOption, Timestamp,
    op::subscribe::Subscribe,
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::service::{TestService, actor, jid, node};

const OWNER: &str = "owner@localhost";
const READER: &str = "reader@localhost";
const BEGIN: u64 = 1_700_000_000_000;

/// Starts a service with the paused clock of the runtime.
async fn service_with_paused_clock(limits: Limits) -> TestService {
    let begin = Instant::now();
    let clock = move || Timestamp(BEGIN + begin.elapsed().as_millis() as u64);
    TestService::clocked(Arc::new(MemoryStore::new()), limits, Arc::new(clock)).await
}

/// Advances the clock until a condition holds; checks every 100 milliseconds.
async fn pass<F: Future<Output = bool>>(fixture: &TestService, mut holds: impl FnMut() -> F) {
    let looking = async {
        while !holds().await {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = fixture.service.run_timers() => {}
        looked = timeout(Duration::from_secs(100), looking) => looked.expect("it holds in time"),
    }
}

/// A hundred items expire at once, and only some of the notifications fit into the backlog.
#[tokio::test(start_paused = true)]
async fn expired_items_are_retracted_in_parts_when_the_backlog_is_full() {
    let limits = Limits { max_subids: 8, max_backlog_bytes: 100_000, ..Limits::default() };
    let fixture = service_with_paused_clock(limits).await;
    fixture.create(OWNER, "n").await.unwrap();
    for id in 0..100 {
        fixture.publish(OWNER, "n", &format!("{id:02}")).await.unwrap();
    }
    fixture.subscribe_many(OWNER, "n", 100).await;
    fixture.configure(OWNER, "n", ConfigField::ItemExpire(ItemExpire::Seconds(1))).await.unwrap();
    let mut entries = Vec::new();
    while entries.len() < 100 {
        pass(&fixture, async || fixture.service.log_window().size().0 > 0).await;
        entries.extend(fixture.drain_log());
    }
    for (id, (event, recipients)) in entries.iter().enumerate() {
        assert!(event.contains(&format!("Retracted([ItemId(\"{id:02}\")])")), "{event}");
        assert_eq!(recipients.len(), 100);
    }
    assert!(fixture.ids("n").await.is_empty());
}

/// The owner's share of the backlog is used up and not delivered: leases end nevertheless. Expired
/// items are removed when there is space again.
#[tokio::test(start_paused = true)]
async fn leases_end_while_the_backlog_is_full() {
    leases_end_at(Limits { max_backlog_events: 20, ..Limits::default() }).await;
    leases_end_at(Limits { max_backlog_notifications: 40, ..Limits::default() }).await;
}

async fn leases_end_at(limits: Limits) {
    let fixture = service_with_paused_clock(limits).await;
    fixture.create(OWNER, "n").await.unwrap();
    for reader in [READER, "other@localhost"] {
        fixture.subscribe(reader, "n").await.unwrap();
    }
    let end = Timestamp(BEGIN + 5_000);
    fixture.set_options(READER, "n", SubscriptionOption::Expire(Expire::At(end))).await.unwrap();
    fixture.configure(OWNER, "n", ConfigField::ItemExpire(ItemExpire::Seconds(1))).await.unwrap();
    let mut published = 0;
    while fixture.publish(OWNER, "n", &published.to_string()).await.is_ok() {
        published += 1;
    }
    let outbox = fixture.service.log_window();
    let full = outbox.size();
    let last = outbox.get(outbox.next() - 1).unwrap();
    let reader = jid(READER);
    pass(&fixture, async || outbox.lost(&last).has(&reader, last.number, &last.notification)).await;
    assert_eq!(outbox.size().0, full.0);
    assert!(fixture.unsubscribe(READER, "n").await.is_err());
    assert_eq!(fixture.ids("n").await.len(), published);
    fixture.drain_log();
    let mut retracted = 0;
    while retracted < published {
        pass(&fixture, async || fixture.service.log_window().size().0 > 0).await;
        let entries = fixture.drain_log();
        retracted += entries.iter().filter(|(event, _)| event.contains("Retracted")).count();
    }
    assert!(fixture.ids("n").await.is_empty());
}

/// Of several subscriptions of a JID, the one whose lease expires ends; the JID stays subscribed.
#[tokio::test(start_paused = true)]
async fn lease_of_one_of_several_subscriptions_ends_while_the_backlog_is_full() {
    let limits = Limits { max_subids: 3, max_backlog_events: 20, ..Limits::default() };
    let fixture = service_with_paused_clock(limits).await;
    fixture.create(OWNER, "n").await.unwrap();
    let end = Timestamp(BEGIN + 5_000);
    for settings in [Vec::new(), vec![SubscriptionOption::Expire(Expire::At(end))]] {
        let (node, settings) = (node("n"), Some(settings));
        let request = Subscribe { node, jid: jid(READER), settings, is_public: false };
        let subscribed = fixture.service.submit(&actor(READER), &request, |outcome| outcome).await;
        subscribed.await.unwrap();
    }
    while fixture.publish(OWNER, "n", "1").await.is_ok() {}
    // With several subscriptions a request has to name the SubID.
    assert!(matches!(
        options(&fixture).await,
        Err(Error::Refused(gjallar_pubsub::Error::SubIdRequired))
    ));
    let is_over = async || options(&fixture).await.is_ok();
    pass(&fixture, is_over).await;
}

async fn options(fixture: &TestService) -> Result<(), Error> {
    fixture.set_options(READER, "n", SubscriptionOption::Deliver(true)).await
}

/// More leases expire at once than notifications fit into the backlog.
#[tokio::test(start_paused = true)]
async fn each_subscriber_gets_one_lease_notice() {
    const READERS: usize = 300;
    let limits = Limits { max_backlog_events: 100, ..Limits::default() };
    let fixture = service_with_paused_clock(limits).await;
    fixture.create(OWNER, "n").await.unwrap();
    let end = Timestamp(BEGIN + 1_000_000);
    for number in 0..READERS {
        let reader = format!("{number:03}@localhost");
        fixture.subscribe(&reader, "n").await.unwrap();
        fixture
            .set_options(&reader, "n", SubscriptionOption::Expire(Expire::At(end)))
            .await
            .unwrap();
    }
    fixture.drain_log();
    sleep(Duration::from_secs(910)).await;
    let mut warned = Vec::new();
    while warned.len() < READERS {
        pass(&fixture, async || fixture.service.log_window().size().0 > 0).await;
        warned.extend(fixture.drain_log().into_iter().flat_map(|(_, recipients)| recipients));
    }
    warned.sort();
    let readers: Vec<_> = (0..READERS).map(|number| format!("{number:03}@localhost")).collect();
    assert_eq!(warned, readers);
}
