//! Reads during commits that remove the rows. A removed row is no corruption: the node stays open.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gjallar::{service::Error, store::SledStore};
use gjallar_pubsub::{
    AccessModel, ConfigField, ItemBudget, ItemFilter, ItemOrder, ItemQuery, MaxItems, OrderField,
    PageBound, PageRequest, PublishModel, Timestamp,
    op::publish::{NewItem, Publish},
};

use crate::support::service::{TestService, actor, item, jid, node};

const OWNER: &str = "owner@localhost/x";
const ADMIN: &str = "admin@localhost/x";
/// Number of publishes during the reads, and of those in progress at once.
const PUBLISHES: usize = 3_000;
const AT_ONCE: usize = 40;

/// Node that keeps few items, in a store on disk.
struct Busy {
    fixture: Arc<TestService>,
    /// Number of the newest item.
    published: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Busy {
    async fn new(max_items: u32, settings: &[ConfigField]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixture = TestService::new(Arc::new(SledStore::open(folder.path()).unwrap())).await;
        let mut all = vec![ConfigField::MaxItems(MaxItems::Number(max_items))];
        all.extend_from_slice(settings);
        fixture.create_with(OWNER, "n", all).await.unwrap();
        Self { fixture: Arc::new(fixture), published: Arc::default(), _folder: folder }
    }

    /// Publishes items that evict each other, every second one overwriting `r`, and calls `read`
    /// with the number of the newest item until all are published. Asserts that the node is open
    /// and the store consistent.
    async fn beside(&self, publisher: &'static str, read: impl AsyncFn(usize)) {
        let (fixture, published) = (Arc::clone(&self.fixture), Arc::clone(&self.published));
        let publishing = tokio::spawn(async move {
            let xml = format!("<x xmlns='urn:x'>{}</x>", "y".repeat(3_000));
            for batch in 0..PUBLISHES / AT_ONCE {
                let mut commits = Vec::new();
                for number in batch * AT_ONCE..(batch + 1) * AT_ONCE {
                    let name = if number % 2 == 0 { number.to_string() } else { "r".into() };
                    let begun = fixture.begin_to_publish_xml(publisher, "n", &name, &xml).await;
                    commits.push(begun);
                    published.store(number, Ordering::Relaxed);
                }
                for commit in commits {
                    commit.await.unwrap();
                }
            }
        });
        while !publishing.is_finished() {
            read(self.published.load(Ordering::Relaxed)).await;
            tokio::task::yield_now().await;
        }
        publishing.await.unwrap();
        self.fixture.publish(OWNER, "n", "last").await.unwrap();
        self.fixture.items(OWNER, "n").await.unwrap();
        assert_eq!(self.fixture.store.check().await.unwrap(), [""; 0]);
    }
}

/// A stranger requests items that are about to be evicted, at a node without access.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_evicted_items_quarantine_no_node() {
    // Each batch evicts the items of the previous batch.
    let max_items = u32::try_from(AT_ONCE / 2 + 1).unwrap();
    let busy = Busy::new(max_items, &[ConfigField::AccessModel(AccessModel::Whitelist)]).await;
    let stranger = actor("mallory@far.example/m");
    busy.beside(OWNER, async |published| {
        let batch = published / AT_ONCE * AT_ONCE;
        let new = |number: usize| NewItem { id: Some(item(&number.to_string())), payload: None };
        let items = (batch.saturating_sub(AT_ONCE)..batch.max(1)).map(new).collect();
        let request =
            Publish { node: node("n"), items, options: Vec::new(), expected_newest: None };
        let refused = busy.fixture.service.execute(&stranger, &request).await;
        assert!(
            matches!(refused, Err(Error::Refused(gjallar_pubsub::Error::Forbidden))),
            "{refused:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_eviction_quarantines_no_node() {
    let busy = Busy::new(1, &[ConfigField::PublishModel(PublishModel::Open)]).await;
    let xml = format!("<x xmlns='urn:x'>{}</x>", "y".repeat(3_000));
    busy.beside("nurse@localhost/a", async |_| {
        busy.fixture.publish_xml("romeo@localhost/a", "n", "own", &xml).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_of_an_entity_during_publishes_quarantines_no_node() {
    let busy = Busy::new(2, &[]).await;
    let admin = actor(ADMIN);
    busy.beside(OWNER, async |_| {
        let entity = jid(OWNER).to_bare();
        let (items, _) =
            busy.fixture.service.items_published_by(&admin, &entity, None).await.unwrap();
        // An item may be evicted after it was read, so there may be more than two.
        assert!(items.iter().all(|own| own.item.publisher == entity), "{items:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retraction_of_old_items_during_publishes_quarantines_no_node() {
    let busy = Busy::new(30, &[]).await;
    let (owner, day) = (actor(OWNER), Duration::from_secs(86_400));
    busy.beside(OWNER, async |_| {
        let retracted = busy.fixture.service.retract_older(&owner, &node("n"), day).await;
        assert_eq!(retracted.unwrap(), 0);
    })
    .await;
}

/// Reads of the store itself: by name, in pages, in the order of creation, by a filter, and names
/// only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_lists_are_readable_during_evictions() {
    let busy = Busy::new(3, &[]).await;
    let store = Arc::clone(&busy.fixture.store);
    let (id, budget) = (node("n"), ItemBudget::stored(usize::MAX));
    let by_creation = ItemOrder { by: OrderField::Creation, ..ItemOrder::default() };
    let page = || PageRequest { max: 10, edge: PageBound::At(0) };
    let filter = ItemFilter { since: Some(Timestamp(1)), ..ItemFilter::default() };
    let lists = [
        ItemQuery::of(page(), ItemOrder::default()),
        ItemQuery::of(page(), by_creation),
        ItemQuery { filter, ..ItemQuery::of(page(), ItemOrder::default()) },
    ];
    busy.beside(OWNER, async |published| {
        let numbers = published.saturating_sub(AT_ONCE)..published + 2;
        let mut named: Vec<_> = numbers.map(|number| item(&number.to_string())).collect();
        named.push(item("r"));
        store.items(&id, &named, &budget).await.unwrap();
        store.page_of_ids(&id, &page(), 0, usize::MAX).await.unwrap();
        for list in &lists {
            store.list(&id, list, &budget).await.unwrap();
        }
    })
    .await;
}
