//! The contract of a store, run against every implementation.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use gjallar::{
    service::Error,
    store::{
        Commit, CommitChain, MAX_FORMER_NODES, MAX_OWN_FORMER_NODES, MemoryStore, SledStore, Store,
        StoreError,
    },
};
use gjallar_pubsub::{
    AccessModel, Affiliation, ConfigField, Epoch, FormerNode, ItemBudget, ItemFilter, ItemOrder,
    ItemPosition, ItemQuery, ItemRef, Limits, MaxItems, Node, NodeConfig, OrderField, OwnerHash,
    PageBound, PageRequest, PublishModel, ResultPage, Sequence, Subscription, SubscriptionState,
    Timestamp, import_changes,
    op::{affiliations::OwnAffiliations, subscriptions::OwnSubscriptions},
};

use crate::support::service::{TestService, actor, item, jid, node, raw};

/// Store implementation. `again` reopens the data of the last closed store.
trait StoreUnderTest {
    fn open(&self) -> Arc<dyn Store>;
    fn again(&self) -> Option<Arc<dyn Store>>;
}

struct MemoryBackend;

impl StoreUnderTest for MemoryBackend {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }

    fn again(&self) -> Option<Arc<dyn Store>> {
        None
    }
}

struct SledBackend(tempfile::TempDir);

impl SledBackend {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl StoreUnderTest for &SledBackend {
    fn open(&self) -> Arc<dyn Store> {
        StoreUnderTest::open(*self)
    }

    fn again(&self) -> Option<Arc<dyn Store>> {
        StoreUnderTest::again(*self)
    }
}

impl StoreUnderTest for SledBackend {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(SledStore::open(self.0.path()).unwrap())
    }

    fn again(&self) -> Option<Arc<dyn Store>> {
        Some(StoreUnderTest::open(self))
    }
}

macro_rules! store_contract {
    ($($test:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $test() { super::$test(super::MemoryBackend).await; })*
        }
        mod sled {
            $(#[tokio::test] async fn $test() { super::$test(super::SledBackend::new()).await; })*
        }
    };
}

store_contract! {
    nodes_are_kept_with_all_their_data
    newest_items_are_kept_in_order
    item_of_the_same_name_replaces_the_old_one_and_is_the_newest
    items_are_selected_by_name
    items_are_selected_by_page
    items_are_listed_in_an_order_and_by_a_filter
    deleted_nodes_are_remembered
    deleted_nodes_are_counted_by_account
    deleted_nodes_with_free_names_are_forgotten
    subscribed_aliases_are_listed
    deleted_nodes_of_one_owner_take_no_room_of_others
    refusals_of_presence_are_stored
    newest_items_that_fit_are_returned
    oldest_items_beyond_max_node_bytes_are_evicted
    nodes_and_subscriptions_of_an_entity_are_counted
    data_of_a_deleted_node_is_forgotten
    affiliations_and_subscriptions_of_an_entity_are_listed
    nodes_are_listed_in_pages
    large_payloads_are_kept
    commits_after_a_failed_commit_are_not_applied
    the_longest_names_and_jids_fit
    concurrent_commits_of_many_nodes_are_all_applied
    commits_are_durable
}

const OWNER: &str = "owner@localhost";

async fn nodes_are_kept_with_all_their_data(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    let settings = vec![
        ConfigField::Title("a title".into()),
        ConfigField::MaxItems(MaxItems::Number(3)),
        ConfigField::NotifyConfig(true),
    ];
    fixture.create_with(OWNER, "a", settings).await.unwrap();
    fixture.subscribe("x@localhost/r", "a").await.unwrap();
    fixture.affiliate(OWNER, "a", "y@localhost", Affiliation::PublishOnly).await.unwrap();
    fixture.publish(OWNER, "a", "1").await.unwrap();
    let kept = fixture.store.node(&node("a")).await.unwrap().unwrap();
    assert_eq!(kept.config.title, "a title");
    assert_eq!(kept.config.max_items, MaxItems::Number(3));
    assert!(kept.config.notify_config);
    assert_eq!(kept.sequence, Sequence(1));
    assert_eq!(kept.creator.as_str(), OWNER);
    assert_eq!(kept.subscribers().collect::<Vec<_>>(), [&jid("x@localhost/r")]);
    let affiliation = |who: &str| kept.affiliation_of(&jid(who).to_bare());
    assert_eq!(affiliation(OWNER), Affiliation::Owner);
    assert_eq!(affiliation("y@localhost"), Affiliation::PublishOnly);
    assert_eq!(fixture.store.node(&node("b")).await.unwrap(), None);
    assert_eq!(nodes(&fixture).await, 1);
}

/// Returns the number of nodes of a store.
async fn nodes(fixture: &TestService) -> u64 {
    fixture.store.node_counts().await.unwrap().values().sum()
}

async fn newest_items_are_kept_in_order(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    let three = vec![ConfigField::MaxItems(MaxItems::Number(3))];
    fixture.create_with(OWNER, "a", three).await.unwrap();
    for id in ["1", "2", "3", "4", "5"] {
        fixture.publish(OWNER, "a", id).await.unwrap();
    }
    assert_eq!(fixture.ids("a").await, ["3", "4", "5"]);
    fixture.configure(OWNER, "a", ConfigField::MaxItems(MaxItems::Number(1))).await.unwrap();
    assert_eq!(fixture.ids("a").await, ["5"]);
    fixture.configure(OWNER, "a", ConfigField::MaxItems(MaxItems::Number(0))).await.unwrap();
    fixture.publish(OWNER, "a", "6").await.unwrap();
    assert_eq!(fixture.ids("a").await, [""; 0]);
}

async fn item_of_the_same_name_replaces_the_old_one_and_is_the_newest(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    for id in ["1", "2", "3"] {
        fixture.publish(OWNER, "a", id).await.unwrap();
    }
    fixture.publish_xml(OWNER, "a", "1", "<new xmlns='urn:x'/>").await.unwrap();
    assert_eq!(fixture.ids("a").await, ["2", "3", "1"]);
    let items = fixture.items(OWNER, "a").await.unwrap();
    let newest = items.last().unwrap();
    assert_eq!(newest.payload.as_ref().unwrap().xml(), "<new xmlns='urn:x'/>");
    assert_eq!(newest.event_id.sequence, Sequence(4));
    fixture.retract(OWNER, "a", "3").await.unwrap();
    assert_eq!(fixture.ids("a").await, ["2", "1"]);
    fixture.purge(OWNER, "a").await.unwrap();
    assert_eq!(fixture.ids("a").await, [""; 0]);
    fixture.publish(OWNER, "a", "9").await.unwrap();
    assert_eq!(fixture.ids("a").await, ["9"]);
}

async fn items_are_selected_by_name(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    for id in ["1", "2", "3"] {
        fixture.publish(OWNER, "a", id).await.unwrap();
    }
    let some = [item("3"), item("nothing"), item("1"), item("3")];
    let items =
        fixture.store.items(&node("a"), &some, &ItemBudget::stored(usize::MAX)).await.unwrap();
    let names: Vec<_> = items.entries.iter().map(|item| item.id.to_string()).collect();
    assert_eq!((names, items.total), (vec!["1".to_owned(), "3".to_owned()], Some(2)));
    let newest = fixture.store.items(&node("a"), &some, &ItemBudget::stored(0)).await.unwrap();
    assert_eq!((newest.entries.len(), newest.total), (1, Some(2)));
    let nowhere =
        fixture.store.items(&node("b"), &some, &ItemBudget::stored(usize::MAX)).await.unwrap();
    assert_eq!((nowhere.entries, nowhere.total), (Vec::new(), Some(0)));
    let publishers = fixture.store.publishers(&node("a"), &some).await.unwrap();
    let owner = jid(OWNER).to_bare();
    assert_eq!(publishers, [(item("1"), owner.clone()), (item("3"), owner)].into());
    assert!(fixture.store.publishers(&node("b"), &some).await.unwrap().is_empty());
    fixture.purge(OWNER, "a").await.unwrap();
    assert!(fixture.store.publishers(&node("a"), &some).await.unwrap().is_empty());
}

async fn items_are_selected_by_page(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    for id in ["0", "1", "2", "3", "4", "5"] {
        fixture.publish(OWNER, "a", id).await.unwrap();
    }
    fixture.retract(OWNER, "a", "0").await.unwrap();
    let page = async |max, edge| {
        let (page, node) = (PageRequest { max, edge }, node("a"));
        let part = fixture.store.page(&node, &page, usize::MAX).await.unwrap();
        let page = page.map(ItemRef::Name);
        let ids = fixture.store.page_of_ids(&node, &page, 0, usize::MAX).await.unwrap();
        let expected = part.clone().map(|part| part.map(|item| (item.id.clone(), item.position())));
        assert_eq!(expected, ids);
        let part = part?;
        assert_eq!(part.total, Some(5));
        let names: Vec<_> = part.entries.iter().map(|item| item.id.to_string()).collect();
        Some((part.index, names.concat()))
    };
    let found = |index, names: &str| Some((index, names.to_owned()));
    assert_eq!(page(2, PageBound::At(0)).await, found(Some(0), "12"));
    assert_eq!(page(2, PageBound::At(4)).await, found(Some(4), "5"));
    assert_eq!(page(2, PageBound::At(9)).await, found(Some(5), ""));
    assert_eq!(page(2, PageBound::Last).await, found(Some(3), "45"));
    assert_eq!(page(0, PageBound::At(0)).await, found(Some(0), ""));
    assert_eq!(page(2, PageBound::After(item("2"))).await, found(Some(2), "34"));
    assert_eq!(page(2, PageBound::After(item("5"))).await, found(Some(5), ""));
    assert_eq!(page(2, PageBound::Before(item("4"))).await, found(Some(1), "23"));
    assert_eq!(page(9, PageBound::Before(item("4"))).await, found(Some(0), "123"));
    assert_eq!(page(2, PageBound::Before(item("1"))).await, found(Some(0), ""));
    assert_eq!(page(2, PageBound::After(item("0"))).await, None);
    assert_eq!(page(2, PageBound::Before(item("x"))).await, None);
    fixture.purge(OWNER, "a").await.unwrap();
    let gone = PageRequest { max: 2, edge: PageBound::After(item("2")) };
    assert_eq!(fixture.store.page(&node("a"), &gone, usize::MAX).await.unwrap(), None);
    let nowhere = fixture.store.page(&node("b"), &PageRequest::last(1), usize::MAX).await;
    assert_eq!(nowhere.unwrap(), Some(ResultPage::empty()));
}

/// Example of XEP-0413: A, B, C and D are published, then C again, then A again.
async fn items_are_listed_in_an_order_and_by_a_filter(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture
        .create_with(OWNER, "n", vec![ConfigField::PublishModel(PublishModel::Open)])
        .await
        .unwrap();
    for (who, id) in [(0, "A"), (1, "B"), (0, "C"), (1, "D"), (0, "C"), (0, "A")] {
        fixture.publish([OWNER, "x@localhost"][who], "n", id).await.unwrap();
    }
    let (creation, modification) = (OrderField::Creation, OrderField::Modification);
    let name = |id: &str| ItemRef::Name(item(id));
    let store = Arc::clone(&fixture.store);
    let list = async |page: PageRequest<ItemRef>, by, is_descending, filter: ItemFilter| {
        let listing = ItemQuery { page, order: ItemOrder { by, is_descending }, filter };
        let listed =
            store.list(&node("n"), &listing, &ItemBudget::stored(usize::MAX)).await.unwrap()?;
        let ids: String = listed.part.entries.iter().map(|item| item.id.as_str()).collect();
        let index = listed.part.index.map_or_else(|| "-".to_owned(), |index| index.to_string());
        let more = if listed.is_complete { "" } else { " …" };
        Some(format!("{index} {ids}{more}"))
    };
    let at = |max, edge| PageRequest { max, edge };
    for (page, by, is_descending, expected) in [
        (PageRequest::first(9), modification, false, "0 BDCA"),
        (PageRequest::first(9), creation, false, "0 ABCD"),
        (PageRequest::first(9), modification, true, "0 ACDB"),
        (PageRequest::first(9), creation, true, "0 DCBA"),
        (PageRequest::first(2), creation, false, "0 AB …"),
        (at(2, PageBound::After(name("D"))), modification, false, "2 CA"),
        (at(2, PageBound::After(name("C"))), creation, true, "2 BA"),
        (at(1, PageBound::After(name("C"))), creation, true, "2 B …"),
        (at(2, PageBound::Before(name("B"))), creation, true, "0 DC"),
        (at(1, PageBound::Before(name("B"))), creation, true, "1 C …"),
        // Former positions of C and A.
        (at(9, PageBound::After(ItemRef::Position(position(3, 0)))), modification, false, "1 DCA"),
        (at(1, PageBound::Before(ItemRef::Position(position(3, 0)))), modification, true, "2 D …"),
        (at(9, PageBound::After(ItemRef::Position(position(1, 0)))), creation, false, "1 BCD"),
        (at(1, PageBound::At(1)), creation, true, "1 C …"),
        (at(9, PageBound::At(7)), creation, true, "4 "),
        (PageRequest::last(3), creation, true, "1 CBA …"),
        (PageRequest::last(3), creation, false, "1 BCD …"),
    ] {
        let found = list(page.clone(), by, is_descending, ItemFilter::default()).await;
        assert_eq!(found.as_deref(), Some(expected), "{page:?} {by:?} {is_descending}");
    }
    assert_eq!(
        list(at(1, PageBound::After(name("x"))), creation, true, ItemFilter::default()).await,
        None
    );

    let all =
        store.page(&node("n"), &PageRequest::first(9), usize::MAX).await.unwrap().unwrap().entries;
    let [b, d, c, a] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((a.created, c.created), (position(1, 0), position(3, 0)));
    assert_eq!((b.created, d.created), (b.position(), d.position()));
    let none = ItemFilter::default;
    let filters = [
        (ItemFilter { after: Some(b.position()), ..none() }, "DCA"),
        (ItemFilter { before: Some(c.position()), ..none() }, "BD"),
        (ItemFilter { after: Some(b.position()), before: Some(a.position()), ..none() }, "DC"),
        (ItemFilter { only: Some(vec![a.position(), b.position(), a.position()]), ..none() }, "BA"),
        (ItemFilter { only: Some(Vec::new()), ..none() }, ""),
        (ItemFilter { since: Some(c.published), ..none() }, "BDCA"),
        (ItemFilter { since: Some(Timestamp(c.published.0 + 1)), ..none() }, ""),
        (ItemFilter { until: Some(d.published), ..none() }, "BDCA"),
        (ItemFilter { until: Some(Timestamp(d.published.0 - 1)), ..none() }, ""),
        (ItemFilter { publisher: Some(jid("x@localhost")), ..none() }, "BD"),
        (ItemFilter { publisher: Some(jid("x@localhost/r")), ..none() }, ""),
    ];
    for (filter, expected) in filters {
        let found = list(PageRequest::first(9), modification, false, filter.clone()).await.unwrap();
        assert_eq!(found, format!("- {expected}"), "{filter:?}");
        let mut sorted: Vec<char> = expected.chars().collect();
        sorted.sort_unstable();
        let sorted: String = sorted.into_iter().collect();
        let found = list(PageRequest::first(9), creation, false, filter).await.unwrap();
        assert_eq!(found, format!("- {sorted}"));
    }
    // A filter by position requires that the item exists; a range of positions does not.
    for (sequence, index) in [(4, 0), (3, 0), (99, 0), (4, 1)] {
        let (gone, is_there) = (position(sequence, index), (sequence, index) == (4, 0));
        let filter = ItemFilter { only: Some(vec![a.position(), gone]), ..none() };
        let found = list(PageRequest::first(9), modification, false, filter).await;
        assert_eq!(found.is_some(), is_there, "{gone:?}");
        let edge = PageBound::After(ItemRef::ModifiedAt(gone));
        assert_eq!(list(at(9, edge), creation, false, none()).await.is_some(), is_there);
    }
    let filter =
        ItemFilter { after: Some(position(3, 0)), before: Some(position(99, 0)), ..none() };
    assert_eq!(list(PageRequest::first(9), modification, false, filter).await.unwrap(), "- DCA");
    // A retracted and republished item is new; a purge removes all earlier items.
    fixture.retract(OWNER, "n", "A").await.unwrap();
    fixture.publish(OWNER, "n", "A").await.unwrap();
    assert_eq!(list(PageRequest::first(9), creation, false, none()).await.unwrap(), "0 BCDA");
    fixture.purge(OWNER, "n").await.unwrap();
    fixture.publish(OWNER, "n", "B").await.unwrap();
    assert_eq!(list(PageRequest::first(9), creation, false, none()).await.unwrap(), "0 B");
    let filter = ItemFilter { only: Some(vec![b.position()]), ..none() };
    assert_eq!(list(PageRequest::first(9), creation, false, filter).await, None);
    assert_eq!(fixture.store.check().await.unwrap(), Vec::<String>::new());
}

async fn deleted_nodes_are_remembered(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    for name in ["moved", "gone", "again"] {
        fixture.create(OWNER, name).await.unwrap();
    }
    fixture.affiliate(OWNER, "gone", "second@x", Affiliation::Owner).await.unwrap();
    fixture.affiliate(OWNER, "gone", "bot@x", Affiliation::Publisher).await.unwrap();
    fixture.delete_with_redirect(OWNER, "moved", "xmpp:there").await.unwrap();
    fixture.delete(OWNER, "gone").await.unwrap();
    let owners =
        |names: &[&str]| names.iter().map(|name| OwnerHash::of(&jid(name).to_bare())).collect();
    let deleted = Timestamp(1_700_000_000_000);
    let (moved, gone) = (
        FormerNode {
            redirect: Some("xmpp:there".into()),
            deleted,
            owners: owners(&[OWNER]),
            account: None,
        },
        FormerNode { redirect: None, deleted, owners: owners(&[OWNER, "second@x"]), account: None },
    );
    let all = vec![(node("moved"), moved), (node("gone"), gone)];
    // A recreated node is no longer a former node.
    for redirect in [Some("xmpp:here"), None] {
        match redirect {
            Some(uri) => fixture.delete_with_redirect(OWNER, "again", uri).await.unwrap(),
            None => fixture.delete(OWNER, "again").await.unwrap(),
        }
        let former = fixture.store.former(&node("again")).await.unwrap().unwrap();
        assert_eq!(former.redirect.as_deref(), redirect);
        fixture.create(OWNER, "again").await.unwrap();
        assert_eq!(fixture.store.former(&node("again")).await.unwrap(), None);
    }
    assert_eq!(fixture.store.former_nodes().await.unwrap(), all);
    assert_eq!(fixture.store.redirects_len().await.unwrap(), 1);
    fixture.service.close().await;
    drop(fixture);
    let Some(store) = kind.again() else { return };
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.former_nodes().await.unwrap(), all);
    assert_eq!(store.redirects_len().await.unwrap(), 1);
    let fixture = TestService::new(store).await;
    fixture.create(OWNER, "moved").await.unwrap();
    fixture.create(OWNER, "gone").await.unwrap();
    assert_eq!(fixture.store.former_nodes().await.unwrap(), []);
    assert_eq!(fixture.store.redirects_len().await.unwrap(), 0);
    assert_eq!(fixture.store.check().await.unwrap(), Vec::<String>::new());
}

fn position(sequence: u64, index: u16) -> ItemPosition {
    ItemPosition { sequence: Sequence(sequence), index }
}

/// Returns the commits that create and delete a node.
fn deletion(name: &str, former: FormerNode) -> [Commit; 2] {
    let config = NodeConfig::initial(&Limits::default());
    let made = Node::new(node(name), Epoch(1), config, jid(OWNER).to_bare(), Timestamp(0));
    [import_changes::created(made), import_changes::deleted(Sequence(1), 1, Some(former))].map(
        |changes| {
            let (node, changes, chain) = (node(name), Arc::new(changes), CommitChain::default());
            let revoked = Arc::default();
            Commit { node, changes, notifications: Vec::new(), revoked, chain }
        },
    )
}

/// Creates a node and deletes it at this time, in the store only.
async fn delete_at(store: &dyn Store, name: &str, at: Timestamp, redirect: Option<&str>) {
    let redirect = redirect.map(str::to_owned);
    for commit in
        deletion(name, FormerNode { redirect, deleted: at, owners: Vec::new(), account: None })
    {
        store.commit_now(commit).await.unwrap();
    }
}

/// Of the names deleted by one owner the newest stay reserved, and do not displace names of other
/// owners. Redirects are counted for each owner.
async fn deleted_nodes_of_one_owner_take_no_room_of_others(kind: impl StoreUnderTest) {
    let owner = OwnerHash::of(&jid(OWNER).to_bare());
    let former = |at: u64, redirect: Option<&str>, owners: &[OwnerHash]| FormerNode {
        redirect: redirect.map(str::to_owned),
        deleted: Timestamp(at),
        owners: owners.to_vec(),
        account: None,
    };
    let begin = |store: &dyn Store, name: &str, former: FormerNode| {
        for commit in deletion(name, former) {
            store.commit(commit, Box::new(|result| drop(result.unwrap())));
        }
    };
    let store = kind.open();
    delete_at(&*store, "other", Timestamp(1), None).await;
    for name in ["moved", "again"] {
        begin(&*store, name, former(1, Some("xmpp:there"), &[owner]));
    }
    begin(&*store, "again", former(1, None, &[owner]));
    let number = MAX_OWN_FORMER_NODES as u64;
    for at in 0..number {
        begin(&*store, &at.to_string(), former(at + 2, None, &[owner]));
        // Commits are applied in order, and only a limited number may be queued.
        if (at + 1) % 400 == 0 {
            delete_at(&*store, &format!("other {at}"), Timestamp(1), None).await;
        }
    }
    let is_there =
        async |store: &dyn Store, name: &str| store.former(&node(name)).await.unwrap().is_some();
    for (name, expected) in [("other", true), ("moved", true), ("again", false), ("0", true)] {
        assert_eq!(is_there(&*store, name).await, expected, "{name}");
    }
    let stranger = OwnerHash::of(&jid("stranger@x").to_bare());
    let redirects = async |store: &dyn Store| {
        let counts = [store.redirects_of(&owner).await, store.redirects_of(&stranger).await];
        counts.map(Result::unwrap)
    };
    assert_eq!(redirects(&*store).await, [1, 0]);
    drop(store);
    let Some(store) = kind.again() else { return };
    assert_eq!(redirects(&*store).await, [1, 0]);
    begin(&*store, "newest", former(number + 2, None, &[owner, stranger]));
    delete_at(&*store, "moved", Timestamp(number + 2), None).await;
    for (name, expected) in [("other", true), ("newest", true), ("0", false), ("1", true)] {
        assert_eq!(is_there(&*store, name).await, expected, "{name}");
    }
    assert_eq!(redirects(&*store).await, [0, 0]);
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
}

/// A node counts towards the account of its owner, whose hash may differ from that of the owner.
async fn deleted_nodes_are_counted_by_account(kind: impl StoreUnderTest) {
    let store = kind.open();
    let entity = |name: &str| jid(name).to_bare();
    for owner in ["ss@x", "ß@x"] {
        let former = FormerNode {
            redirect: Some("xmpp:there".into()),
            deleted: Timestamp(1),
            owners: vec![OwnerHash::of(&entity(owner))],
            account: (owner == "ß@x").then(|| OwnerHash::of_account(&entity(owner))),
        };
        for commit in deletion(owner, former.clone()) {
            store.commit_now(commit).await.unwrap();
        }
        assert_eq!(store.former(&node(owner)).await.unwrap(), Some(former));
    }
    let redirects = async |store: &dyn Store, owner: &str| {
        store.redirects_of(&OwnerHash::of(&entity(owner))).await.unwrap()
    };
    assert_eq!((redirects(&*store, "ss@x").await, redirects(&*store, "ß@x").await), (2, 0));
    store.close().await;
    drop(store);
    let Some(store) = kind.again() else { return };
    assert_eq!((redirects(&*store, "ss@x").await, redirects(&*store, "ß@x").await), (2, 0));
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
}

async fn subscribed_aliases_are_listed(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    let approved = vec![ConfigField::AccessModel(AccessModel::Authorize)];
    fixture.create_with(OWNER, "approved", approved).await.unwrap();
    for (name, subscriber) in [
        ("a", "ss@x/1"),
        ("a", "ßs@x/1"),
        ("a", "ßs@x/2"),
        ("a", "ü@ß.example"),
        ("a", "gone.ß@x"),
        ("approved", "ß@x/1"),
    ] {
        fixture.subscribe(subscriber, name).await.unwrap();
    }
    fixture.unsubscribe("gone.ß@x", "a").await.unwrap();
    let aliases = BTreeSet::from(["ßs@x", "ß@x"].map(|alias| jid(alias).to_bare()));
    assert_eq!(fixture.store.subscribed_aliases().await.unwrap(), aliases);
    fixture.service.close().await;
    drop(fixture);
    let Some(store) = kind.again() else { return };
    assert_eq!(store.subscribed_aliases().await.unwrap(), aliases);
}

async fn deleted_nodes_with_free_names_are_forgotten(kind: impl StoreUnderTest) {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let store = kind.open();
    let names = async || {
        let former = store.former_nodes().await.unwrap();
        former.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    delete_at(&*store, "moved", Timestamp(1), Some("xmpp:there")).await;
    for (name, day) in [("c", 1), ("a", 2), ("b", 3)] {
        delete_at(&*store, name, Timestamp(day * DAY), None).await;
    }
    assert_eq!(names().await, ["moved", "c", "a", "b"]);
    delete_at(&*store, "d", Timestamp(32 * DAY), None).await;
    assert_eq!(names().await, ["moved", "b", "d"]);
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn newest_hundred_thousand_deleted_nodes_are_remembered() {
    let store = MemoryStore::new();
    for number in 0..=MAX_FORMER_NODES as u64 {
        delete_at(&store, &number.to_string(), Timestamp(number + 1), None).await;
    }
    assert_eq!(store.former_nodes().await.unwrap().len(), MAX_FORMER_NODES);
    assert_eq!(store.former(&node("0")).await.unwrap(), None);
    assert!(store.former(&node("1")).await.unwrap().is_some());
}

async fn refusals_of_presence_are_stored(kind: impl StoreUnderTest) {
    let store = kind.open();
    let [a, b, c] = ["a@x", "b@x", "c@x"].map(|name| jid(name).to_bare());
    let set = [(a.clone(), true), (b.clone(), true), (c.clone(), false)];
    store.set_presence_refusals(&set).await.unwrap();
    store.set_presence_refusals(&[(b.clone(), false), (c.clone(), true)]).await.unwrap();
    store.set_presence_refusals(&[]).await.unwrap();
    let of = async |store: &dyn Store| {
        let mut all = store.presence_refusals().await.unwrap();
        all.sort();
        all
    };
    assert_eq!(of(&*store).await, [a.clone(), c.clone()]);
    store.close().await;
    drop(store);
    let Some(store) = kind.again() else { return };
    assert_eq!(of(&*store).await, [a, c]);
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
}

async fn newest_items_that_fit_are_returned(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    for id in ["1", "2", "3"] {
        fixture.publish(OWNER, "a", id).await.unwrap();
    }
    let size = fixture.items(OWNER, "a").await.unwrap()[0].size();
    let fitting = async |bytes| {
        let page =
            async |page| fixture.store.page(&node("a"), &page, bytes).await.unwrap().unwrap();
        let oldest = page(PageRequest::first(9)).await.map(|item| item.id.to_string()).entries;
        let newest = page(PageRequest::last(9)).await.map(|item| item.id.to_string()).entries;
        assert_eq!(oldest, ["1", "2", "3"][..oldest.len()]);
        assert_eq!(newest, ["1", "2", "3"][3 - newest.len()..]);
        assert_eq!(oldest.len(), newest.len());
        newest.len()
    };
    assert_eq!(fitting(3 * size).await, 3);
    assert_eq!(fitting(3 * size - 1).await, 2);
    assert_eq!(fitting(0).await, 1);
}

async fn oldest_items_beyond_max_node_bytes_are_evicted(kind: impl StoreUnderTest) {
    // An item has 40 bytes plus its id, its publisher, and its payload.
    let size = |payload: usize| 40 + 1 + OWNER.len() as u64 + payload as u64;
    let xml = |bytes: usize| format!("<x xmlns='urn:x'>{}</x>", "x".repeat(bytes - 21));
    let limits = Limits { max_node_bytes: 3 * size(1000), ..Limits::default() };
    let fixture = TestService::limited(kind.open(), limits).await;
    fixture.create(OWNER, "a").await.unwrap();
    for id in ["1", "2", "3"] {
        fixture.publish_xml(OWNER, "a", id, &xml(1000)).await.unwrap();
    }
    assert_eq!(fixture.ids("a").await, ["1", "2", "3"]);
    // One byte more evicts the oldest item; an overwritten item counts once.
    fixture.publish_xml(OWNER, "a", "3", &xml(1001)).await.unwrap();
    assert_eq!(fixture.ids("a").await, ["2", "3"]);
    fixture.publish_xml(OWNER, "a", "4", &xml(999)).await.unwrap();
    assert_eq!(fixture.ids("a").await, ["2", "3", "4"]);
    fixture.publish_xml(OWNER, "a", "5", &xml(3000)).await.unwrap();
    assert_eq!(fixture.ids("a").await, ["5"]);
    fixture.retract(OWNER, "a", "5").await.unwrap();
    for id in ["1", "2", "3"] {
        fixture.publish_xml(OWNER, "a", id, &xml(1000)).await.unwrap();
    }
    fixture.purge(OWNER, "a").await.unwrap();
    for id in ["1", "2", "3"] {
        fixture.publish_xml(OWNER, "a", id, &xml(1000)).await.unwrap();
    }
    assert_eq!(fixture.ids("a").await, ["1", "2", "3"]);
    assert_eq!(fixture.store.check().await.unwrap(), Vec::<String>::new());
    assert!(fixture.service.stats().contains("gjallar_items_evicted_total 4\n"));
}

async fn nodes_and_subscriptions_of_an_entity_are_counted(kind: impl StoreUnderTest) {
    let limits =
        Limits { max_nodes_per_owner: 2, max_subscriptions_per_jid: 3, ..Limits::default() };
    let fixture = TestService::limited(kind.open(), limits).await;
    let refused = |result: Result<(), Error>| match result {
        Err(Error::Refused(refusal)) => Some(refusal),
        _ => None,
    };
    for name in ["a", "b"] {
        fixture.create(OWNER, name).await.unwrap();
    }
    let third = fixture.create(OWNER, "c").await.map(|_| ());
    assert_eq!(refused(third), Some(gjallar_pubsub::Error::MaxNodesOfOwnerExceeded));
    // Ownership granted by others does not use up the quota for creation.
    fixture.affiliate(OWNER, "a", "other@localhost", Affiliation::Owner).await.unwrap();
    fixture.affiliate(OWNER, "b", "other@localhost", Affiliation::Owner).await.unwrap();
    fixture.create("other@localhost", "o").await.unwrap();
    fixture.delete("other@localhost", "a").await.unwrap();
    fixture.create(OWNER, "c").await.unwrap();
    for name in ["admin-1", "admin-2", "admin-3"] {
        fixture.create("admin@localhost", name).await.unwrap();
    }
    for resource in ["x@localhost", "x@localhost/1", "x@localhost/2"] {
        fixture.subscribe(resource, "c").await.unwrap();
    }
    let fourth = fixture.subscribe("x@localhost/3", "b").await;
    assert_eq!(refused(fourth), Some(gjallar_pubsub::Error::TooManyOwnSubscriptions));
    // Repeated subscriptions and those of other accounts do not count.
    fixture.subscribe("x@localhost/2", "c").await.unwrap();
    fixture.subscribe("xy@localhost", "b").await.unwrap();
    fixture.unsubscribe("x@localhost", "c").await.unwrap();
    fixture.subscribe("x@localhost/3", "b").await.unwrap();
    for name in ["admin-1", "admin-2", "admin-3", "b", "c"] {
        fixture.subscribe("admin@localhost", name).await.unwrap();
    }
    // Subscriptions created by an owner do not count.
    for resource in ["z@localhost/1", "z@localhost/2", "z@localhost/3"] {
        fixture.subscribe_other(OWNER, "b", resource).await.unwrap();
    }
    let own = fixture.store.count_subscriptions_of(&jid("z@localhost").to_bare(), 9).await;
    assert_eq!(own.unwrap().found, 0);
    fixture.subscribe("z@localhost", "b").await.unwrap();
    let own = fixture.store.count_subscriptions_of(&jid("z@localhost").to_bare(), 9).await;
    assert_eq!(own.unwrap().found, 1);
}

async fn data_of_a_deleted_node_is_forgotten(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    fixture.subscribe("x@localhost", "a").await.unwrap();
    fixture.publish(OWNER, "a", "1").await.unwrap();
    let first = fixture.store.node(&node("a")).await.unwrap().unwrap();
    fixture.delete(OWNER, "a").await.unwrap();
    assert_eq!(fixture.store.node(&node("a")).await.unwrap(), None);
    assert_eq!(nodes(&fixture).await, 0);
    let owner = jid(OWNER).to_bare();
    assert_eq!(fixture.store.affiliations_of(&owner).await.unwrap().found, []);
    let subscriber = jid("x@localhost").to_bare();
    assert_eq!(fixture.store.subscriptions_of(&subscriber).await.unwrap().found, []);
    fixture.create(OWNER, "a").await.unwrap();
    let second = fixture.store.node(&node("a")).await.unwrap().unwrap();
    assert_ne!(first.epoch, second.epoch);
    assert_eq!((second.sequence, second.subscribers_len()), (Sequence(0), 0));
    assert_eq!(fixture.ids("a").await, [""; 0]);
}

async fn affiliations_and_subscriptions_of_an_entity_are_listed(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    for name in ["a", "b"] {
        fixture.create(OWNER, name).await.unwrap();
        fixture.affiliate(OWNER, name, "x@localhost", Affiliation::Member).await.unwrap();
        for who in ["x@localhost", "x@localhost/1", "x@localhost/2", "xy@localhost"] {
            fixture.subscribe(who, name).await.unwrap();
        }
    }
    fixture.unsubscribe("x@localhost/1", "a").await.unwrap();
    fixture.affiliate(OWNER, "b", "x@localhost", Affiliation::None).await.unwrap();
    let x = jid("x@localhost").to_bare();
    let stands = fixture.store.affiliations_of(&x).await.unwrap().found;
    assert_eq!(stands, [(node("a"), Affiliation::Member)]);
    let mut subscribed = fixture.store.subscriptions_of(&x).await.unwrap().found;
    subscribed.sort();
    let (bare, one, two) = (jid("x@localhost"), jid("x@localhost/1"), jid("x@localhost/2"));
    let state = SubscriptionState::Subscribed;
    let subscription = |at: &str, jid: &jid::Jid| {
        (node(at), Subscription { jid: jid.clone(), subid: None, state })
    };
    let at_a = [&bare, &two].map(|jid| subscription("a", jid));
    let at_b = [&bare, &one, &two].map(|jid| subscription("b", jid));
    assert_eq!(subscribed, [at_a.as_slice(), at_b.as_slice()].concat());
}

async fn nodes_are_listed_in_pages(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    for name in ["c", "a", "b"] {
        fixture.create(OWNER, name).await.unwrap();
    }
    fixture.delete(OWNER, "a").await.unwrap();
    fixture.create(OWNER, "a").await.unwrap();
    let page = async |max, edge| {
        let found = fixture.store.nodes(&PageRequest { max, edge }).await.unwrap().found;
        found.into_iter().map(|(_, summary)| summary.node.to_string()).collect::<String>()
    };
    let (cursor, summary) = fixture.store.summary(&node("b")).await.unwrap().unwrap();
    assert_eq!(summary.node, node("b"));
    assert_eq!(page(2, PageBound::At(0)).await, "cb");
    assert_eq!(page(2, PageBound::At(1)).await, "ba");
    assert_eq!(page(2, PageBound::After(cursor)).await, "a");
    assert_eq!(page(2, PageBound::Before(cursor)).await, "c");
    assert_eq!(page(2, PageBound::Last).await, "ba");
    assert_eq!(fixture.store.summary(&node("x")).await.unwrap(), None);
}

async fn large_payloads_are_kept(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    for bytes in [0, 899, 900, 901, 4096, 65_000] {
        let xml = format!("<x xmlns='urn:x'>{}</x>", "é".repeat(bytes / 2));
        fixture.publish_xml(OWNER, "a", "large", &xml).await.unwrap();
        let items = fixture.items(OWNER, "a").await.unwrap();
        let payload = items[0].payload.as_ref().unwrap();
        assert_eq!((payload.xml(), payload.namespace()), (xml.as_str(), "urn:x"));
        assert_eq!(items.len(), 1);
    }
}

async fn the_longest_names_and_jids_fit(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    let long = |letter: &str| letter.repeat(1023);
    // Maximum lengths: a domain has at most 255 bytes in labels of at most 63, a local part and a
    // resource 1 023 each.
    let domain = [&"d".repeat(63), &"e".repeat(63), &"f".repeat(63), "localhost"].join(".");
    let owner = format!("{}@{domain}", long("o"));
    let subscriber = format!("{}@{domain}/{}", long("s"), long("r"));
    let settings = vec![
        ConfigField::Title("t".repeat(200)),
        ConfigField::Description("d".repeat(512)),
        ConfigField::Type("urn:x".into()),
    ];
    fixture.create_with(&owner, &long("n"), settings).await.unwrap();
    fixture.subscribe(&subscriber, &long("n")).await.unwrap();
    let xml = format!("<x xmlns='urn:x'>{}</x>", "p".repeat(870));
    fixture.publish_xml(&owner, &long("n"), &long("i"), &xml).await.unwrap();
    assert_eq!(fixture.ids(&long("n")).await, [long("i")]);
    let mut name = long("n");
    for number in 0..300 {
        name.replace_range(0..3, &format!("{number:03}"));
        fixture.create(&owner, &name).await.unwrap();
        fixture.subscribe(&subscriber, &name).await.unwrap();
    }
    assert_eq!(nodes(&fixture).await, 301);
}

async fn concurrent_commits_of_many_nodes_are_all_applied(kind: impl StoreUnderTest) {
    let fixture = Arc::new(TestService::new(kind.open()).await);
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move {
                let name = format!("node-{number}");
                fixture.create(OWNER, &name).await.unwrap();
                for id in 0..20 {
                    fixture.publish(OWNER, &name, &id.to_string()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(nodes(&fixture).await, 20);
    for number in 0..20 {
        let expected: Vec<_> = (0..20).map(|id| id.to_string()).collect();
        assert_eq!(fixture.ids(&format!("node-{number}")).await, expected);
    }
}

async fn commits_are_durable(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    fixture.subscribe("x@localhost/r", "a").await.unwrap();
    fixture.publish(OWNER, "a", "1").await.unwrap();
    let (before, items) =
        (fixture.store.node(&node("a")).await.unwrap(), fixture.items(OWNER, "a").await.unwrap());
    fixture.service.close().await;
    drop(fixture);
    let Some(again) = kind.again() else { return };
    let fixture = TestService::new(again).await;
    assert_eq!(fixture.store.node(&node("a")).await.unwrap(), before);
    assert_eq!(fixture.items(OWNER, "a").await.unwrap(), items);
    // Node numbers are not reused, so a new node never finds rows of an old one.
    fixture.create(OWNER, "b").await.unwrap();
    assert_eq!(fixture.ids("b").await, [""; 0]);
    assert_eq!(fixture.ids("a").await, ["1"]);
}

#[tokio::test]
async fn a_second_sled_store_in_the_same_folder_is_refused() {
    let kind = SledBackend::new();
    let first = kind.open();
    let second = SledStore::open(kind.0.path());
    assert!(matches!(second, Err(StoreError::Locked)), "{second:?}");
    drop(first);
}

#[tokio::test]
async fn rows_are_small_enough_for_the_log_of_sled() {
    let kind = SledBackend::new();
    the_longest_names_and_jids_fit(&kind).await;
    large_payloads_are_kept(&kind).await;
    let blobs = kind.0.path().join("blobs");
    assert_eq!(blobs.read_dir().map(Iterator::count).unwrap_or(0), 0);
}

#[tokio::test]
async fn store_of_another_version_or_program_is_refused() {
    let kind = SledBackend::new();
    let db = raw(kind.0.path());
    db.insert("a", "foreign").unwrap();
    db.flush().unwrap();
    drop(db);
    let opened = SledStore::open(kind.0.path());
    assert!(matches!(opened, Err(StoreError::Corrupt(_))), "{opened:?}");
}

/// The same for a store that never had a node.
#[tokio::test]
async fn a_new_store_that_lost_its_rows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    SledStore::open(folder.path()).unwrap().close().await;
    let db = raw(folder.path());
    db.clear().unwrap();
    db.flush().unwrap();
    drop(db);
    let opened = SledStore::open(folder.path());
    assert!(matches!(opened, Err(StoreError::Corrupt(_))), "{opened:?}");
}

/// Changes every row of a table without updating the checksums.
fn damage(folder: &Path, table: &[u8]) {
    let db = raw(folder);
    for row in db.scan_prefix(table) {
        let (key, value) = row.unwrap();
        let mut value = value.to_vec();
        value[1] ^= 1;
        db.insert(key, value).unwrap();
    }
    db.flush().unwrap();
}

#[tokio::test]
async fn corrupt_record_quarantines_only_its_node() {
    let kind = SledBackend::new();
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    fixture.publish(OWNER, "a", "1").await.unwrap();
    fixture.create(OWNER, "b").await.unwrap();
    fixture.service.close().await;
    drop(fixture);
    damage(kind.0.path(), b"i");
    let fixture = TestService::new(kind.open()).await;
    // Operations that do not read the record succeed until the corruption is found.
    fixture.publish(OWNER, "a", "2").await.unwrap();
    for _ in 0..2 {
        assert!(matches!(fixture.items(OWNER, "a").await, Err(Error::Quarantined)));
        assert!(matches!(fixture.publish(OWNER, "a", "3").await, Err(Error::Quarantined)));
        assert!(matches!(fixture.delete(OWNER, "a").await, Err(Error::Quarantined)));
    }
    fixture.publish(OWNER, "b", "1").await.unwrap();
    assert!(fixture.service.stats().contains("gjallar_nodes_quarantined_total 1\n"));
}

/// For each table that lists are read from: the list has the intact entries, and nodes with corrupt
/// records are quarantined.
#[tokio::test]
async fn list_with_a_corrupt_record_quarantines_its_node_and_shows_the_others() {
    for table in [b"A", b"S", b"s"] {
        let kind = SledBackend::new();
        let fixture = TestService::new(kind.open()).await;
        fixture.create(OWNER, "a").await.unwrap();
        fixture.subscribe(OWNER, "a").await.unwrap();
        fixture.service.close().await;
        drop(fixture);
        damage(kind.0.path(), table);
        let fixture = TestService::new(kind.open()).await;
        fixture.create(OWNER, "b").await.unwrap();
        let owner = actor(OWNER);
        let nodes = async || {
            let nodes =
                fixture.service.nodes(&owner, &PageRequest::first(usize::MAX), None, 0).await;
            nodes.unwrap().entries.len()
        };
        assert_eq!(nodes().await, if table == b"A" { 1 } else { 2 });
        let everywhere = OwnAffiliations { node: None };
        let stands = fixture.service.own_affiliations(&owner, &everywhere).await.unwrap();
        assert_eq!(stands.len(), if table == b"A" { 1 } else { 2 });
        // An entity whose subscriptions cannot be counted may subscribe.
        fixture.subscribe(OWNER, "b").await.unwrap();
        let everywhere = OwnSubscriptions { node: None };
        let subscribed = fixture.service.own_subscriptions(&owner, &everywhere).await.unwrap();
        assert_eq!(subscribed.len(), if table == b"A" { 2 } else { 1 });
        let at_node = OwnSubscriptions { node: Some(node("a")) };
        let at_node = fixture.service.own_subscriptions(&owner, &at_node).await;
        assert!(matches!(at_node, Err(Error::Quarantined)));
        assert_eq!(nodes().await, 1);
        assert!(matches!(fixture.items(OWNER, "a").await, Err(Error::Quarantined)));
        assert!(fixture.service.stats().contains("gjallar_nodes_quarantined_total 1\n"));
        fixture.publish(OWNER, "b", "1").await.unwrap();
    }
}

async fn commits_after_a_failed_commit_are_not_applied(kind: impl StoreUnderTest) {
    let fixture = TestService::new(kind.open()).await;
    fixture.create(OWNER, "a").await.unwrap();
    let x = jid("x@localhost").to_bare();
    let commit = |chain: &CommitChain| Commit {
        node: node("a"),
        changes: Arc::new(import_changes::affiliated(vec![(x.clone(), Affiliation::Member)])),
        notifications: Vec::new(),
        revoked: Arc::default(),
        chain: chain.clone(),
    };
    let (broken, whole) = (CommitChain::default(), CommitChain::default());
    broken.poison();
    fixture.store.commit_now(commit(&broken)).await.unwrap_err();
    assert_eq!(fixture.store.affiliations_of(&x).await.unwrap().found, []);
    assert!(!whole.is_poisoned());
    fixture.store.commit_now(commit(&whole)).await.unwrap();
    assert_eq!(fixture.store.affiliations_of(&x).await.unwrap().found.len(), 1);
    // A closed store with files rejects commits with an error.
    fixture.store.close().await;
    let late = fixture.store.commit_now(commit(&whole)).await;
    assert_eq!(late.is_err(), whole.is_poisoned());
}
