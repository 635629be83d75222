//! Deferred deletion: rows of large nodes are removed in the background, without visible effects or
//! delays.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gjallar::{
    service::Error,
    store::{Owed, SledStore, Told},
};
use gjallar_pubsub::{
    AccessModel, Affiliation, ConfigField, Event, ItemBudget, Limits, MaxItems, Payload,
    SubscriptionState,
    op::{
        publish::{NewItem, Publish},
        subscriptions::SetSubscriptions,
    },
};

use crate::support::service::{TestService, actor, item, jid, node, raw};

const OWNER: &str = "owner@localhost";
/// Number of items or subscriptions that needs many commits to remove; the last commit removes
/// fewer than the others.
const MANY: usize = 20_100;

struct GcFixture {
    folder: tempfile::TempDir,
    fixture: TestService,
}

impl GcFixture {
    async fn start(folder: tempfile::TempDir) -> Self {
        let store = Arc::new(SledStore::open(folder.path()).unwrap());
        let (max_batch, max_items) = (MANY, u32::try_from(MANY).unwrap());
        let max_reply_bytes = usize::MAX;
        let limits = Limits { max_batch, max_items, max_reply_bytes, ..Limits::default() };
        Self { folder, fixture: TestService::limited(store, limits).await }
    }

    /// Returns a copy of the store, as a kill at this moment would leave it.
    async fn copy(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.fixture.store.snapshot_to(folder.path()).await.unwrap();
        folder
    }

    /// Waits until some tables have exactly this number of rows.
    async fn swept(&self, tables: &str, expected: usize) {
        while rows(&self.copy().await, tables) != expected {
            self.is_sound().await;
        }
    }

    async fn is_sound(&self) {
        assert_eq!(self.fixture.store.check().await.unwrap(), [""; 0]);
    }

    async fn enrol_many(&self, name: &str) {
        let entries = (0..MANY)
            .map(|i| (jid(&format!("r{i}@x")), None, Some(SubscriptionState::Subscribed)))
            .collect();
        let request = SetSubscriptions { node: node(name), entries, invalid: Vec::new() };
        let service = &self.fixture.service;
        service.execute(&actor(OWNER), &request).await.unwrap();
    }

    async fn publish_many(&self, name: &str) {
        let new = |i: usize| {
            let payload = Some(Payload::new("<x xmlns='urn:x'/>", "urn:x"));
            NewItem { id: Some(item(&i.to_string())), payload }
        };
        let request = Publish {
            node: node(name),
            items: (0..MANY).map(new).collect(),
            options: Vec::new(),
            expected_newest: None,
        };
        self.fixture.service.execute(&actor(OWNER), &request).await.unwrap();
    }
}

/// Returns the number of rows of some tables.
fn rows(folder: &tempfile::TempDir, tables: &str) -> usize {
    let db = raw(folder.path());
    db.iter().keys().filter(|key| tables.as_bytes().contains(&key.as_ref().unwrap()[0])).count()
}

#[tokio::test]
async fn deleted_node_rows_are_garbage_collected() {
    let process = GcFixture::start(tempfile::tempdir().unwrap()).await;
    let fixture = &process.fixture;
    for name in ["n", "other"] {
        fixture.create(OWNER, name).await.unwrap();
    }
    process.enrol_many("n").await;
    fixture.subscribe("own@x", "n").await.unwrap();
    fixture.publish(OWNER, "n", "1").await.unwrap();
    fixture.delete(OWNER, "n").await.unwrap();

    let store = &fixture.store;
    let pending = store.poll(None).await.unwrap();
    let is_item = |entry: &&Owed| matches!(entry.notification.event, Event::Published(_));
    let item = pending.iter().find(is_item).unwrap();
    assert_eq!(item.recipients.len(), MANY + 1);
    assert!(store.subscriptions_of(&jid("r7@x").to_bare()).await.unwrap().found.is_empty());
    assert_eq!(store.count_subscriptions_of(&jid("own@x").to_bare(), 9).await.unwrap().found, 0);
    assert_eq!(store.affiliations_of(&jid(OWNER).to_bare()).await.unwrap().found.len(), 1);
    process.is_sound().await;

    // Rows are no longer needed once all entries are acknowledged. Their removal blocks no request.
    let debts = pending.iter().map(|entry| entry.debt).collect();
    let (acknowledged, published, killed) = tokio::join!(
        store.acknowledge(Told { debts, partly: Vec::new() }),
        fixture.publish(OWNER, "other", "1"),
        process.copy(),
    );
    acknowledged.unwrap();
    published.unwrap();
    assert!(rows(&killed, "sS") > 0);
    for process in [process, GcFixture::start(killed).await] {
        process.fixture.create(OWNER, "n").await.unwrap();
        process.fixture.subscribe("own@x", "n").await.unwrap();
        assert!(process.fixture.ids("n").await.is_empty());
        // N, n, q and the owner of each node; at most one item and one subscription; each with its
        // index.
        let items = process.fixture.ids("other").await.len();
        process.swept("NnqdpaAsSixc", 2 * (3 + 2) + 2 + 2 * items).await;
        process.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_items_are_garbage_collected() {
    let process = GcFixture::start(tempfile::tempdir().unwrap()).await;
    process.fixture.create(OWNER, "n").await.unwrap();
    process.publish_many("n").await;
    let (purged, killed) = tokio::join!(process.fixture.purge(OWNER, "n"), process.copy());
    purged.unwrap();
    assert!(rows(&killed, "ix") > 0);
    for process in [process, GcFixture::start(killed).await] {
        let fixture = &process.fixture;
        // Requests for the last items during their removal find none.
        let last: Vec<_> = (MANY - 100..MANY).map(|number| item(&number.to_string())).collect();
        let store = Arc::clone(&fixture.store);
        let is_over = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn({
            let is_over = Arc::clone(&is_over);
            async move {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(
                        store
                            .items(&node("n"), &last, &ItemBudget::stored(usize::MAX))
                            .await
                            .unwrap()
                            .entries,
                        []
                    );
                }
            }
        });
        assert!(fixture.ids("n").await.is_empty());
        process.swept("ixcp", 0).await;
        is_over.store(true, Ordering::Relaxed);
        asking.await.unwrap();
    }
}

/// Ids of purged items can be published and retracted again while the removal of the items is in
/// progress.
#[tokio::test]
async fn names_of_purged_items_can_be_reused() {
    let process = GcFixture::start(tempfile::tempdir().unwrap()).await;
    let fixture = &process.fixture;
    fixture.create(OWNER, "n").await.unwrap();
    process.publish_many("n").await;
    fixture.purge(OWNER, "n").await.unwrap();
    let again = async {
        fixture.publish(OWNER, "n", "20098").await.unwrap();
        fixture.publish(OWNER, "n", "20099").await.unwrap();
        fixture.retract(OWNER, "n", "20099").await.unwrap();
        process.copy().await
    };
    let killed = again.await;
    assert!(rows(&killed, "ix") > 2);
    for process in [process, GcFixture::start(killed).await] {
        assert_eq!(process.fixture.ids("n").await, ["20098"]);
        process.is_sound().await;
        process.fixture.purge(OWNER, "n").await.unwrap();
        process.fixture.publish(OWNER, "n", "20097").await.unwrap();
        process.swept("ixcp", 2).await;
        assert_eq!(process.fixture.ids("n").await, ["20097"]);
        process.is_sound().await;
    }
}

#[tokio::test]
async fn items_evicted_by_a_configuration_are_garbage_collected() {
    let process = GcFixture::start(tempfile::tempdir().unwrap()).await;
    let fixture = &process.fixture;
    fixture.create(OWNER, "n").await.unwrap();
    process.publish_many("n").await;
    let few = ConfigField::MaxItems(MaxItems::Number(2));
    let (configured, killed) = tokio::join!(fixture.configure(OWNER, "n", few), process.copy());
    configured.unwrap();
    assert!(rows(&killed, "ix") > 4);
    for process in [process, GcFixture::start(killed).await] {
        assert_eq!(process.fixture.ids("n").await, ["20098", "20099"]);
        process.fixture.publish(OWNER, "n", "1").await.unwrap();
        assert_eq!(process.fixture.ids("n").await, ["20099", "1"]);
        process.swept("ixcp", 4).await;
        let none = ConfigField::MaxItems(MaxItems::Number(0));
        process.fixture.configure(OWNER, "n", none).await.unwrap();
        assert!(process.fixture.ids("n").await.is_empty());
        process.swept("ixcp", 0).await;
        process.is_sound().await;
    }
}

async fn with_a_crowd() -> GcFixture {
    let process = GcFixture::start(tempfile::tempdir().unwrap()).await;
    for name in ["n", "other"] {
        process.fixture.create(OWNER, name).await.unwrap();
    }
    process.enrol_many("n").await;
    process.fixture.affiliate(OWNER, "n", "member@x", Affiliation::Member).await.unwrap();
    process.fixture.subscribe("member@x", "n").await.unwrap();
    process
}

async fn only_the_member_is_left(process: &GcFixture) {
    let stored = process.fixture.store.node(&node("n")).await.unwrap().unwrap();
    assert_eq!(stored.config.access_model, AccessModel::Whitelist);
    assert_eq!(stored.subscribers().collect::<Vec<_>>(), [&jid("member@x")]);
    assert_eq!(rows(&process.copy().await, "usS"), 2);
    process.is_sound().await;
}

/// The reply waits until all subscriptions are removed, so that their JIDs receive nothing after
/// it; other requests are answered meanwhile, and a kill does not undo the change.
#[tokio::test]
async fn removal_of_many_subscriptions_ends_before_the_reply_and_delays_no_others() {
    let process = with_a_crowd().await;
    let fixture = &process.fixture;
    let closed = ConfigField::AccessModel(AccessModel::Whitelist);
    let mut configured = pin!(fixture.configure(OWNER, "n", closed));
    let (published, killed) = tokio::select! {
        biased;
        _ = &mut configured => panic!("others had to wait"),
        meanwhile = async { tokio::join!(fixture.publish(OWNER, "other", "1"), process.copy()) } => meanwhile,
    };
    published.unwrap();
    configured.await.unwrap();
    only_the_member_is_left(&process).await;
    assert!(rows(&killed, "u") > 0, "it was one commit");
    only_the_member_is_left(&GcFixture::start(killed).await).await;
}

#[tokio::test]
async fn a_stop_waits_for_revocations() {
    let process = with_a_crowd().await;
    let closed = ConfigField::AccessModel(AccessModel::Whitelist);
    let (configured, ()) =
        tokio::join!(process.fixture.configure(OWNER, "n", closed), process.fixture.store.close());
    configured.unwrap();
    let GcFixture { folder, fixture } = process;
    drop(fixture);
    only_the_member_is_left(&GcFixture::start(folder).await).await;
}

/// A node whose lost subscriptions cannot be removed is quarantined: revoked subscribers are not
/// notified.
#[tokio::test]
async fn node_is_quarantined_if_its_lost_subscriptions_cannot_be_removed() {
    let process = with_a_crowd().await;
    let closed = ConfigField::AccessModel(AccessModel::Whitelist);
    let configured = process.fixture.configure(OWNER, "n", closed);
    let (configured, killed) = tokio::join!(configured, process.copy());
    configured.unwrap();
    drop(process);
    let db = raw(killed.path());
    let (key, value) = db.scan_prefix(b"u").next().unwrap().unwrap();
    let mut value = value.to_vec();
    value[1] ^= 1;
    db.insert(key, value).unwrap();
    db.flush().unwrap();
    drop(db);
    let process = GcFixture::start(killed).await;
    let refused = process.fixture.publish(OWNER, "n", "1").await;
    assert!(matches!(refused, Err(Error::Quarantined)), "{refused:?}");
    process.fixture.publish(OWNER, "other", "1").await.unwrap();
    assert!(!process.fixture.store.check().await.unwrap().is_empty());
}
