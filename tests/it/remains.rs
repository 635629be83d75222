//! What is left of large nodes goes by and by, and nobody sees it or waits for it.

use std::{pin::pin, sync::Arc};

use gjallar::{
    pubsub::{
        AccessModel, Affiliation, Limits, MaxItems, Payload, Setting,
        op::{
            publish::{NewItem, Publish},
            subscriptions::{SetSubscriptions, Wanted},
        },
    },
    store::{SledStore, Told},
};

use crate::harness::stage::{Stage, actor, item, jid, node};

const OWNER: &str = "owner@localhost";
/// Enough for many commits that remove some.
const MANY: usize = 20_000;

struct Process {
    _folder: tempfile::TempDir,
    stage: Stage,
}

impl Process {
    async fn start(folder: tempfile::TempDir) -> Self {
        let store = Arc::new(SledStore::open(folder.path()).unwrap());
        let (max_batch, max_items) = (MANY, u32::try_from(MANY).unwrap());
        let max_reply_bytes = usize::MAX;
        let limits = Limits { max_batch, max_items, max_reply_bytes, ..Limits::default() };
        Self { _folder: folder, stage: Stage::limited(store, limits).await }
    }

    /// What a kill at this moment would leave, started again.
    async fn killed(self) -> Self {
        let folder = self.copy().await;
        drop(self);
        Self::start(folder).await
    }

    async fn copy(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        self.stage.store.copy_to(folder.path()).await.unwrap();
        folder
    }

    /// How many rows some tables have now.
    async fn rows(&self, tables: &str) -> usize {
        let db = ::sled::open(self.copy().await.path()).unwrap();
        db.iter().keys().filter(|key| tables.as_bytes().contains(&key.as_ref().unwrap()[0])).count()
    }

    /// Waits until nothing is left but so many rows.
    async fn swept(&self, tables: &str, rows: usize) {
        while self.rows(tables).await != rows {
            self.is_sound().await;
        }
    }

    async fn is_sound(&self) {
        assert_eq!(self.stage.store.check().await.unwrap(), [""; 0]);
    }

    async fn enrol_many(&self, name: &str) {
        let entries = (0..MANY).map(|i| (jid(&format!("r{i}@x")), Wanted::Subscribed)).collect();
        let request = SetSubscriptions { node: node(name), entries };
        let service = &self.stage.service;
        service.set_subscriptions(&actor(OWNER), &request, |answer| answer.unwrap()).await;
    }

    async fn publish_many(&self, name: &str) {
        let new = |i: usize| {
            let payload = Some(Payload::new("<x xmlns='urn:x'/>", "urn:x"));
            NewItem { id: Some(item(&i.to_string())), payload }
        };
        let request = Publish { node: node(name), items: (0..MANY).map(new).collect() };
        self.stage.service.publish(&actor(OWNER), &request, |answer| answer.unwrap()).await;
    }

    async fn forget_all(&self) {
        let owed = self.stage.store.owed(None).await.unwrap();
        let debts = owed.iter().map(|owed| owed.debt).collect();
        self.stage.store.forget(Told { debts, partly: None }).await.unwrap();
    }
}

#[tokio::test]
async fn a_deleted_node_is_nowhere_and_its_rows_go_by_and_by() {
    let process = Process::start(tempfile::tempdir().unwrap()).await;
    let stage = &process.stage;
    for name in ["n", "other"] {
        stage.create(OWNER, name).await.unwrap();
    }
    process.enrol_many("n").await;
    stage.subscribe("own@x", "n").await.unwrap();
    stage.publish(OWNER, "n", "1").await.unwrap();
    stage.delete(OWNER, "n").await.unwrap();

    let store = &stage.store;
    assert_eq!(store.owed(None).await.unwrap()[1].recipients.len(), MANY + 1);
    assert!(store.subscriptions_of(&jid("r7@x").to_bare()).await.unwrap().found.is_empty());
    assert_eq!(store.count_subscriptions_of(&jid("own@x").to_bare(), 9).await.unwrap().found, 0);
    assert_eq!(store.affiliations_of(&jid(OWNER).to_bare()).await.unwrap().found.len(), 1);
    process.is_sound().await;
    process.forget_all().await;

    // Nobody waits until all of it is gone.
    stage.publish(OWNER, "other", "1").await.unwrap();
    assert!(process.rows("sS").await > 0);
    let process = process.killed().await;
    assert!(process.rows("sS").await > 0);
    process.stage.create(OWNER, "n").await.unwrap();
    process.stage.subscribe("own@x", "n").await.unwrap();
    assert!(process.stage.ids("n").await.is_empty());
    // Of each node N, n, q and its owner; one item and one subscription; each with its index.
    process.swept("NnqdpaAsSixc", 2 * (3 + 2) + 2 + 2).await;
    process.is_sound().await;
}

#[tokio::test]
async fn purged_items_are_nowhere_and_their_rows_go_by_and_by() {
    let process = Process::start(tempfile::tempdir().unwrap()).await;
    let stage = &process.stage;
    stage.create(OWNER, "n").await.unwrap();
    process.publish_many("n").await;
    stage.purge(OWNER, "n").await.unwrap();
    assert!(stage.ids("n").await.is_empty());

    // Names that were there may come again, and go again.
    stage.publish(OWNER, "n", "19998").await.unwrap();
    stage.publish(OWNER, "n", "19999").await.unwrap();
    stage.retract(OWNER, "n", "19999").await.unwrap();
    assert_eq!(stage.ids("n").await, ["19998"]);
    assert!(process.rows("ix").await > 2);
    let process = process.killed().await;
    assert_eq!(process.stage.ids("n").await, ["19998"]);
    process.is_sound().await;
    process.stage.purge(OWNER, "n").await.unwrap();
    process.stage.publish(OWNER, "n", "19997").await.unwrap();
    process.swept("ixcp", 2).await;
    assert_eq!(process.stage.ids("n").await, ["19997"]);
    process.is_sound().await;
}

#[tokio::test]
async fn items_that_a_configuration_evicts_are_nowhere_and_their_rows_go_by_and_by() {
    let process = Process::start(tempfile::tempdir().unwrap()).await;
    let stage = &process.stage;
    stage.create(OWNER, "n").await.unwrap();
    process.publish_many("n").await;
    stage.configure(OWNER, "n", Setting::MaxItems(MaxItems::Number(2))).await.unwrap();
    assert_eq!(stage.ids("n").await, ["19998", "19999"]);
    stage.publish(OWNER, "n", "1").await.unwrap();
    assert_eq!(stage.ids("n").await, ["19999", "1"]);
    assert!(process.rows("ix").await > 4);
    let process = process.killed().await;
    assert_eq!(process.stage.ids("n").await, ["19999", "1"]);
    process.swept("ixcp", 4).await;
    process.stage.configure(OWNER, "n", Setting::MaxItems(MaxItems::Number(0))).await.unwrap();
    assert!(process.stage.ids("n").await.is_empty());
    process.swept("ixcp", 0).await;
    process.is_sound().await;
}

/// Not before all of them are gone is it answered, for then nobody of them may hear of anything; but others
/// are answered meanwhile, and a kill takes nothing back.
#[tokio::test]
async fn many_subscriptions_that_go_at_once_are_gone_with_the_answer_and_nobody_else_waits() {
    let process = Process::start(tempfile::tempdir().unwrap()).await;
    let stage = &process.stage;
    for name in ["n", "other"] {
        stage.create(OWNER, name).await.unwrap();
    }
    process.enrol_many("n").await;
    stage.affiliate(OWNER, "n", "member@x", Affiliation::Member).await.unwrap();
    stage.subscribe("member@x", "n").await.unwrap();
    let closed = Setting::AccessModel(AccessModel::Whitelist);
    let (left, killed) = {
        let mut configured = pin!(stage.configure(OWNER, "n", closed));
        let meanwhile = async {
            // The change is in the store when what is asked after it is answered.
            stage.publish(OWNER, "other", "1").await.unwrap();
            (process.rows("u").await, process.copy().await)
        };
        let meanwhile = tokio::select! {
            biased;
            _ = &mut configured => panic!("others had to wait"),
            meanwhile = meanwhile => meanwhile,
        };
        configured.await.unwrap();
        meanwhile
    };
    assert!(left > 0, "it was one commit");
    assert_eq!(process.rows("u").await, 0);
    assert_eq!(process.rows("sS").await, 2);
    process.is_sound().await;

    let process = Process::start(killed).await;
    let there = process.stage.store.node(&node("n")).await.unwrap().unwrap();
    assert_eq!(there.config.access_model, AccessModel::Whitelist);
    assert_eq!(there.subscribers().collect::<Vec<_>>(), [&jid("member@x")]);
    assert_eq!(process.rows("usS").await, 2);
    process.is_sound().await;
}
