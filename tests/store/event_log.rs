//! Event log: pending entries outlive removed items, and are delivered to recipients that were and
//! still are entitled.

use std::sync::Arc;

use gjallar::{
    service::PresenceUpdate,
    store::{Owed, SledStore, Told},
};
use gjallar_pubsub::{
    AccessModel, Affiliation, ConfigField, Event, Limits, MaxItems, Recipients,
    SendLastPublishedItem, Show, SubscriptionOption,
};

use crate::support::service::{TestService, jid, node, raw};

const OWNER: &str = "owner@localhost";

/// Service that can be restarted, without a front end that takes notifications.
struct RestartableService {
    limits: Limits,
    folder: tempfile::TempDir,
    fixture: Option<TestService>,
}

impl RestartableService {
    async fn start() -> Self {
        Self::limited(Limits::default()).await
    }

    async fn limited(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Self { limits, folder, fixture: None };
        process.restart().await;
        process
    }

    async fn restart(&mut self) {
        if let Some(fixture) = self.fixture.take() {
            fixture.store.close().await;
        }
        let store = SledStore::open(self.folder.path()).unwrap();
        self.fixture = Some(TestService::limited(Arc::new(store), self.limits.clone()).await);
    }

    fn fixture(&self) -> &TestService {
        self.fixture.as_ref().unwrap()
    }

    async fn pending(&self) -> Vec<Owed> {
        self.fixture().store.poll(None).await.unwrap()
    }

    /// Restarts the service; returns the pending entries with their recipients.
    async fn entries_after_restart(&mut self) -> Vec<String> {
        self.restart().await;
        let shown = |entry: &Owed| {
            let what = match &entry.notification.event {
                Event::Published(items) => format!("item {}", items[0].id),
                Event::Retracted(ids) => format!("retract {}", ids[0]),
                Event::Announced(_) => "announcement".into(),
                Event::Purged => "purge".into(),
                Event::Deleted { .. } => "delete".into(),
                Event::Configured(_) => "configuration".into(),
                Event::AffiliationChanged(_) => "affiliation".into(),
                Event::ApprovalRequested(jid) => format!("request of {jid}"),
                Event::Subscription { .. } => "subscription".into(),
            };
            let to: Vec<_> =
                entry.recipients.iter().map(|jid| jid.node().unwrap().as_str()).collect();
            format!("{what} to {}", to.join(" "))
        };
        let pending = self.pending().await;
        // The service loads the same entries.
        assert_eq!(self.fixture().drain_log().len(), pending.len());
        pending.iter().map(shown).collect()
    }

    async fn acknowledge(&self, debts: &[&Owed]) {
        let debts = debts.iter().map(|entry| entry.debt).collect();
        self.fixture().store.acknowledge(Told { debts, partly: Vec::new() }).await.unwrap();
    }

    /// Returns the number of rows of the store, without metadata.
    async fn rows(mut self) -> usize {
        self.fixture.take().unwrap().store.close().await;
        let db = raw(self.folder.path());
        db.iter().keys().filter(|key| key.as_ref().unwrap().len() > 1).count()
    }
}

async fn with_readers(names: &[&str]) -> RestartableService {
    let process = RestartableService::start().await;
    process.fixture().create(OWNER, "n").await.unwrap();
    for name in names {
        process.fixture().subscribe(&format!("{name}@x"), "n").await.unwrap();
    }
    process
}

#[tokio::test]
async fn event_goes_to_subscribers_at_its_commit_that_are_still_subscribed() {
    let mut process = with_readers(&["a", "b", "c"]).await;
    let fixture = process.fixture();
    fixture.publish(OWNER, "n", "1").await.unwrap();
    fixture.subscribe("late@x", "n").await.unwrap();
    fixture.unsubscribe("a@x", "n").await.unwrap();
    fixture.affiliate(OWNER, "n", "b@x", Affiliation::Outcast).await.unwrap();
    fixture.publish(OWNER, "n", "2").await.unwrap();
    // A renewed subscription does not include earlier events.
    fixture.subscribe("a@x", "n").await.unwrap();
    // The last item is sent to each new subscriber only.
    let expected = [
        "item 1 to c",
        "item 1 to late",
        "affiliation to b",
        "subscription to b",
        "item 2 to c late",
        "item 2 to a",
    ];
    assert_eq!(process.entries_after_restart().await, expected);
    assert_eq!(process.entries_after_restart().await, expected);
}

#[tokio::test]
async fn log_entries_outlive_eviction_retraction_and_purge() {
    let mut process = with_readers(&["a"]).await;
    let fixture = process.fixture();
    fixture.configure(OWNER, "n", ConfigField::MaxItems(MaxItems::Number(1))).await.unwrap();
    fixture.configure(OWNER, "n", ConfigField::NotifyRetract(true)).await.unwrap();
    for id in ["1", "2", "3"] {
        fixture.publish(OWNER, "n", id).await.unwrap();
    }
    fixture.retract(OWNER, "n", "3").await.unwrap();
    fixture.publish(OWNER, "n", "4").await.unwrap();
    fixture.purge(OWNER, "n").await.unwrap();
    assert!(fixture.ids("n").await.is_empty());
    let expected = [
        "item 1 to a",
        "item 2 to a",
        "item 3 to a",
        "retract 3 to a",
        "item 4 to a",
        "purge to a",
    ];
    assert_eq!(process.entries_after_restart().await, expected);
}

#[tokio::test]
async fn deletion_is_delivered_and_then_the_node_is_collected() {
    let mut process = with_readers(&["a", "b"]).await;
    let fixture = process.fixture();
    fixture.publish(OWNER, "n", "old").await.unwrap();
    fixture.delete(OWNER, "n").await.unwrap();
    fixture.create(OWNER, "n").await.unwrap();
    fixture.subscribe("new@x", "n").await.unwrap();
    fixture.publish(OWNER, "n", "1").await.unwrap();
    let expected = ["item old to a b", "delete to a b", "item 1 to new"];
    assert_eq!(process.entries_after_restart().await, expected);
    let pending = process.pending().await;
    process.acknowledge(&[&pending[0], &pending[1], &pending[2]]).await;
    assert!(process.entries_after_restart().await.is_empty());
    // N, n, q; owner and subscription, each with its index; item and its name.
    assert_eq!(process.rows().await, 3 + 2 + 2 + 2);
}

#[tokio::test]
async fn deleted_node_entries_drain_without_notify_delete() {
    let mut process = with_readers(&["a"]).await;
    let fixture = process.fixture();
    fixture.configure(OWNER, "n", ConfigField::NotifyDelete(false)).await.unwrap();
    fixture.publish(OWNER, "n", "1").await.unwrap();
    fixture.delete(OWNER, "n").await.unwrap();
    assert_eq!(process.entries_after_restart().await, ["item 1 to a"]);
    let pending = process.pending().await;
    process.acknowledge(&[&pending[0]]).await;
    // F, f: the record of the former node.
    assert_eq!(process.rows().await, 2);
}

#[tokio::test]
async fn a_partly_acknowledged_audience_gets_the_rest() {
    let mut process = with_readers(&["a", "b", "c", "d"]).await;
    process.fixture().publish(OWNER, "n", "1").await.unwrap();
    process.fixture().publish(OWNER, "n", "2").await.unwrap();
    let debt = process.pending().await[0].debt;
    let partly = Told { debts: Vec::new(), partly: vec![(debt, jid("b@x"))] };
    process.fixture().store.acknowledge(partly).await.unwrap();
    assert_eq!(process.entries_after_restart().await, ["item 1 to c d", "item 2 to a b c d"]);
}

/// Cursors within entries are recorded exactly as long as other entries are pending.
#[tokio::test]
async fn partly_sent_entries_stay_recorded_beside_other_entries() {
    let mut process = with_readers(&["a", "b", "c", "d"]).await;
    for item in ["1", "2", "3"] {
        process.fixture().publish(OWNER, "n", item).await.unwrap();
    }
    let pending = process.pending().await;
    for (event, last) in [(0, "b@x"), (1, "a@x"), (0, "c@x")] {
        let partly = Told { debts: Vec::new(), partly: vec![(pending[event].debt, jid(last))] };
        process.fixture().store.acknowledge(partly).await.unwrap();
    }
    let expected = ["item 1 to d", "item 2 to b c d", "item 3 to a b c d"];
    assert_eq!(process.entries_after_restart().await, expected);
    process.acknowledge(&[&pending[0]]).await;
    assert_eq!(process.entries_after_restart().await, expected[1..]);
    process.acknowledge(&[&pending[1]]).await;
    process.fixture.take().unwrap().store.close().await;
    let record = raw(process.folder.path()).get("w").unwrap().unwrap();
    assert!(!record.windows(3).any(|bytes| bytes == b"a@x"), "{record:?}");
}

/// As many partly acknowledged entries as fit into a row.
#[tokio::test]
async fn many_partly_acknowledged_audiences_get_the_rest() {
    const EVENTS: usize = 10;
    let names = [format!("a@{}.x", "long.".repeat(100)), "b@x".into()];
    let mut process = with_readers(&[]).await;
    for name in &names {
        process.fixture().subscribe(name, "n").await.unwrap();
    }
    process.fixture().drain_log();
    for number in 0..EVENTS {
        process.fixture().publish(OWNER, "n", &number.to_string()).await.unwrap();
    }
    let pending = process.pending().await;
    let partly = pending.iter().map(|entry| (entry.debt, jid(&names[0]))).collect();
    process.fixture().store.acknowledge(Told { debts: Vec::new(), partly }).await.unwrap();
    process.restart().await;
    let left: Vec<_> = process.pending().await.iter().map(|entry| entry.recipients.len()).collect();
    assert_eq!(left, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2]);
}

#[tokio::test]
async fn recipients_keep_their_subids_after_a_restart() {
    let mut process =
        RestartableService::limited(Limits { max_subids: 8, ..Limits::default() }).await;
    process.fixture().create(OWNER, "n").await.unwrap();
    for name in ["a@x", "b@x", "b@x", "c@x"] {
        process.fixture().subscribe(name, "n").await.unwrap();
    }
    process.fixture().drain_log();
    process.fixture().publish(OWNER, "n", "1").await.unwrap();
    let outbox = process.fixture().service.log_window();
    let live = loop {
        // The entry is in the window shortly after the answer.
        match (0..outbox.next()).find_map(|number| outbox.get(number)) {
            Some(event) => break event.recipients.clone(),
            None => outbox.changed().await,
        }
    };
    let counts = |of: &Recipients| -> Vec<_> {
        of.iter_with_subids().map(|(_, subids)| subids.len()).collect()
    };
    assert_eq!(counts(&live), [1, 2, 1]);
    process.restart().await;
    let pending = process.pending().await;
    let event = pending.last().unwrap();
    assert_eq!(event.recipients, live);
    // A part of the recipients is acknowledged, and one is banned.
    let partly = Told { debts: Vec::new(), partly: vec![(event.debt, jid("a@x"))] };
    process.fixture().store.acknowledge(partly).await.unwrap();
    process.fixture().affiliate(OWNER, "n", "c@x", Affiliation::Outcast).await.unwrap();
    process.restart().await;
    let pending = process.pending().await;
    let event = pending.iter().find(|other| other.debt == event.debt).unwrap();
    let left: Vec<_> = event.recipients.iter_with_subids().collect();
    assert_eq!(left, live.iter_with_subids().skip(1).take(1).collect::<Vec<_>>());
}

/// Items pending for a resource, because its bare JID is subscribed, are not sent after a ban.
#[tokio::test]
async fn missed_items_are_not_sent_after_a_revocation() {
    let process = with_readers(&[]).await;
    let fixture = process.fixture();
    let always = ConfigField::SendLastPublishedItem(SendLastPublishedItem::OnSubAndPresence);
    fixture.configure(OWNER, "n", always).await.unwrap();
    fixture.publish(OWNER, "n", "1").await.unwrap();
    fixture.subscribe("a@x", "n").await.unwrap();
    fixture.drain_log();
    for resource in ["a@x/phone", "a@x/desk"] {
        let shown = PresenceUpdate { show: Show::Online, away_seconds: Some(3600), stamp: None };
        fixture.service.available(&jid(resource), &shown).await;
    }
    fixture.affiliate(OWNER, "n", "a@x", Affiliation::Outcast).await.unwrap();
    let entries = fixture.drain_log();
    let items: Vec<_> = entries.iter().filter(|(event, _)| event.contains("Published")).collect();
    assert!(items.len() >= 2, "{entries:?}");
    assert!(items.iter().all(|(_, to)| to.is_empty()), "{entries:?}");
}

/// A resource that is also interested keeps pending entries as a subscriber when another entity is
/// banned.
#[tokio::test]
async fn an_explicit_subscription_survives_the_end_of_interest() {
    let process = RestartableService::start().await;
    let fixture = process.fixture();
    let setting = vec![ConfigField::AccessModel(AccessModel::Authorize)];
    fixture.create_with(OWNER, "n", setting).await.unwrap();
    fixture.subscribe_other(OWNER, "n", "a@x/phone").await.unwrap();
    let phone = jid("a@x/phone");
    assert!(fixture.service.interests().on_caps(&phone, "capabilities", "question"));
    fixture.service.set_interests(&phone, vec![node("n")]).await;
    fixture.drain_log();
    fixture.publish(OWNER, "n", "1").await.unwrap();
    fixture.affiliate(OWNER, "n", "b@x", Affiliation::Outcast).await.unwrap();
    let entries = fixture.drain_log();
    let (_, to) = entries.iter().find(|(event, _)| event.contains("Published")).unwrap();
    assert_eq!(to, &["a@x/phone"], "{entries:?}");
}

/// A ban also holds for other spellings of the outcast's domain and for addresses with the same
/// fold, before and after a restart.
#[tokio::test]
async fn resources_of_an_outcast_in_another_spelling_get_no_pending_entries() {
    for (banned, alike) in [
        ("strasse@x", "straße@x/phone"),
        ("straße@x", "strasse@x/phone"),
        ("u@bücher.example", "u@xn--bcher-kva.example/phone"),
    ] {
        for is_restarted in [false, true] {
            let mut process = RestartableService::start().await;
            let fixture = process.fixture();
            fixture.create(OWNER, "n").await.unwrap();
            let phone = jid(alike);
            assert!(fixture.service.interests().on_caps(&phone, "capabilities", "question"));
            fixture.service.set_interests(&phone, vec![node("n")]).await;
            fixture.drain_log();
            fixture.publish(OWNER, "n", "1").await.unwrap();
            fixture.affiliate(OWNER, "n", banned, Affiliation::Outcast).await.unwrap();
            if is_restarted {
                process.restart().await;
            }
            let entries = process.fixture().drain_log();
            assert!(
                entries.iter().all(|(_, to)| to.is_empty()),
                "{banned} {is_restarted}: {entries:?}"
            );
        }
    }
}

/// All items of one request share a few copies of their recipient lists, in the store and in memory
/// after a restart.
#[tokio::test]
async fn items_of_one_request_share_recipient_lists_after_a_restart() {
    const READERS: usize = 300;
    let limits = Limits { max_subids: 8, ..Limits::default() };
    let mut process = RestartableService::limited(limits).await;
    process.fixture().create(OWNER, "n").await.unwrap();
    process.fixture().subscribe_many(OWNER, "n", READERS).await;
    let items = (0..100).map(|id| format!("<x xmlns='urn:x'>{id}</x>"));
    process.fixture().publish_all(OWNER, "n", items).await.unwrap();
    let all = process.pending().await;
    assert_eq!(process.fixture().store.check().await.unwrap(), Vec::<String>::new());
    process.restart().await;
    let outbox = process.fixture().service.log_window();
    let (events, bytes) = outbox.size();
    assert_eq!(events, all.len());
    assert!(bytes < events * 1100 + READERS * 200, "{bytes}");
    let last = outbox.get(outbox.next() - 1).unwrap();
    assert_eq!(last.recipients.len(), READERS);
    assert_eq!(last.recipients.subids(READERS - 1).len(), 1);
    // The rest of a group whose first entries are acknowledged keeps its recipients.
    let acknowledged =
        Told { debts: all[..70].iter().map(|entry| entry.debt).collect(), partly: Vec::new() };
    process.fixture().store.acknowledge(acknowledged).await.unwrap();
    process.restart().await;
    let left = process.pending().await;
    assert_eq!(left.len(), all.len() - 70);
    for (left, before) in left.iter().zip(&all[70..]) {
        assert_eq!(left.debt, before.debt);
        assert_eq!(left.notification, before.notification);
        assert_eq!(left.recipients, before.recipients);
    }
    assert_eq!(process.fixture().store.check().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn partial_ack_applies_to_one_entry() {
    let mut process = with_readers(&["a", "b"]).await;
    process.fixture().publish(OWNER, "n", "1").await.unwrap();
    let pending = process.pending().await;
    let partly = Told { debts: Vec::new(), partly: vec![(pending[0].debt, jid("a@x"))] };
    process.fixture().store.acknowledge(partly).await.unwrap();
    process.acknowledge(&[&pending[0]]).await;
    process.restart().await;
    process.fixture().publish(OWNER, "n", "2").await.unwrap();
    assert_eq!(process.entries_after_restart().await, ["item 2 to a b"]);
}

#[tokio::test]
async fn events_without_an_audience_are_not_logged() {
    let process = with_readers(&[]).await;
    process.fixture().publish(OWNER, "n", "1").await.unwrap();
    assert!(process.pending().await.is_empty());
    assert!(process.fixture().drain_log().is_empty());
}

/// Commit groups have entries of two nodes. Those of one node are acknowledged before those of the
/// other; then the first node is deleted. Acknowledged entries are not repeated, and the others are
/// delivered.
#[tokio::test]
async fn an_entry_acknowledged_before_older_ones_is_not_repeated() {
    let mut process = with_readers(&["a", "b"]).await;
    let fixture = process.fixture();
    fixture.create(OWNER, "m").await.unwrap();
    fixture.subscribe("c@x", "m").await.unwrap();
    fixture.configure(OWNER, "m", ConfigField::NotifyDelete(false)).await.unwrap();
    let mut commits = Vec::new();
    for number in 0..40 {
        let node = ["n", "m"][number % 2];
        commits.push(fixture.begin_to_publish(OWNER, node, &number.to_string()).await);
    }
    for commits in commits {
        commits.await.unwrap();
    }
    let pending = process.pending().await;
    let of_m: Vec<_> = pending.iter().skip(1).step_by(2).collect();
    let others: Vec<_> = (0..40).step_by(2).map(|number| format!("item {number} to a b")).collect();
    process.acknowledge(&of_m[..10]).await;
    let mut expected = others.clone();
    let rest = (21..40).step_by(2).map(|number| (number, format!("item {number} to c")));
    rest.for_each(|(number, entry)| expected.insert(number - 10, entry));
    assert_eq!(process.entries_after_restart().await, expected);
    process.acknowledge(&of_m[10..]).await;
    process.fixture().delete(OWNER, "m").await.unwrap();
    // Acknowledges the last of the remaining entries; a new node gets none of them.
    process.fixture().create(OWNER, "later").await.unwrap();
    process.fixture().subscribe("d@x", "later").await.unwrap();
    let partly = Told { debts: Vec::new(), partly: vec![(pending[4].debt, jid("a@x"))] };
    process.fixture().store.acknowledge(partly).await.unwrap();
    let mut expected = others;
    expected[2] = "item 4 to b".into();
    for _ in 0..2 {
        assert_eq!(process.entries_after_restart().await, expected);
        assert_eq!(process.fixture().store.check().await.unwrap(), Vec::<String>::new());
    }
    process.acknowledge(&pending.iter().step_by(2).collect::<Vec<_>>()).await;
    assert!(process.entries_after_restart().await.is_empty());
    // N, n, q of two nodes; an owner each, three subscriptions, all with an index; twenty items and
    // their names; F, f of the deleted node.
    assert_eq!(process.rows().await, 6 + 4 + 2 + 3 + 40 + 2);
}

/// Change of a node between the commit of an event and its delivery.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Ban(&'static str),
    Dismiss(&'static str),
    BanAndDelete(&'static str),
    BanAndReadmit(&'static str),
    CloseAndReopen,
    Unsubscribe(&'static str),
    SubscribeAgain(&'static str),
    SubscribeForNow(&'static str),
    SubscribeAndClose(&'static str),
    Option(&'static str, fn() -> SubscriptionOption),
    AccessModel(AccessModel),
    Approve,
    Delete,
    MakeAgain,
    Retract,
    Overwrite,
    Purge,
}

impl Between {
    async fn happen(self, fixture: &TestService) {
        match self {
            Self::Nothing => {}
            Self::Ban(name) => {
                fixture.affiliate(OWNER, "n", name, Affiliation::Outcast).await.unwrap();
            }
            Self::Dismiss(name) => {
                fixture.affiliate(OWNER, "n", name, Affiliation::None).await.unwrap();
            }
            Self::BanAndDelete(name) => {
                fixture.affiliate(OWNER, "n", name, Affiliation::Outcast).await.unwrap();
                fixture.delete(OWNER, "n").await.unwrap();
            }
            Self::BanAndReadmit(name) => {
                for affiliation in [Affiliation::Outcast, Affiliation::Member] {
                    fixture.affiliate(OWNER, "n", name, affiliation).await.unwrap();
                }
            }
            Self::CloseAndReopen => {
                for is_open in [false, true] {
                    let setting = ConfigField::Subscribe(is_open);
                    fixture.configure(OWNER, "n", setting).await.unwrap();
                }
            }
            Self::Unsubscribe(name) => fixture.unsubscribe(name, "n").await.unwrap(),
            Self::SubscribeAgain(name) => {
                fixture.unsubscribe(name, "n").await.unwrap();
                fixture.subscribe(name, "n").await.unwrap();
            }
            Self::SubscribeForNow(name) => {
                fixture.subscribe(name, "n").await.unwrap();
                fixture.unsubscribe(name, "n").await.unwrap();
            }
            Self::SubscribeAndClose(name) => {
                fixture.subscribe(name, "n").await.unwrap();
                fixture.configure(OWNER, "n", ConfigField::Subscribe(false)).await.unwrap();
            }
            Self::Option(name, option) => fixture.set_options(name, "n", option()).await.unwrap(),
            Self::AccessModel(model) => {
                fixture.configure(OWNER, "n", ConfigField::AccessModel(model)).await.unwrap();
            }
            Self::Approve => fixture.subscribe_other(OWNER, "n", "pending@x").await.unwrap(),
            Self::Delete => fixture.delete(OWNER, "n").await.unwrap(),
            Self::MakeAgain => {
                fixture.delete(OWNER, "n").await.unwrap();
                fixture.create(OWNER, "n").await.unwrap();
                fixture.subscribe("plain@x", "n").await.unwrap();
                fixture.publish(OWNER, "n", "new").await.unwrap();
            }
            Self::Retract => fixture.retract(OWNER, "n", "1").await.unwrap(),
            Self::Overwrite => {
                fixture.publish(OWNER, "n", "1").await.unwrap();
            }
            Self::Purge => fixture.purge(OWNER, "n").await.unwrap(),
        }
    }
}

/// Returns the entries so far that have recipients; publishes at another node and waits for that
/// entry as the end mark.
async fn entries_until_now(fixture: &TestService) -> Vec<(String, Vec<String>)> {
    fixture.publish(OWNER, "z", "last").await.unwrap();
    let mut entries = Vec::new();
    while !entries.iter().any(|(_, to)| to == &["z@x"]) {
        tokio::task::yield_now().await;
        entries.extend(fixture.drain_log());
    }
    entries.retain(|(_, to)| !to.is_empty() && to != &["z@x"]);
    entries
}

/// The same notifications are sent live and after a kill, whatever happened between commit and
/// delivery: one rule resolves the audience.
#[tokio::test]
async fn audience_after_a_restart_equals_the_live_audience() {
    let changes = [
        Between::Nothing,
        Between::Ban("plain@x"),
        Between::Ban("keyword@x"),
        Between::Ban("member@x"),
        Between::Dismiss("member@x"),
        Between::BanAndDelete("member@x"),
        Between::BanAndReadmit("member@x"),
        Between::CloseAndReopen,
        Between::Unsubscribe("plain@x"),
        Between::Unsubscribe("keyword@x"),
        Between::SubscribeAgain("plain@x"),
        Between::SubscribeAgain("keyword@x"),
        Between::SubscribeForNow("member@x/phone"),
        Between::SubscribeForNow("member@x"),
        Between::SubscribeAndClose("member@x/phone"),
        Between::SubscribeAndClose("member@x"),
        Between::SubscribeAndClose("plain@x"),
        Between::Option("plain@x", || SubscriptionOption::Deliver(false)),
        Between::Option("plain@x", || SubscriptionOption::Keyword("nowhere".into())),
        Between::Option("plain@x", || SubscriptionOption::Digest(true)),
        Between::Option("plain@x", || SubscriptionOption::IncludeBody(true)),
        Between::Option("keyword@x", || SubscriptionOption::Keyword("nowhere".into())),
        Between::Option("keyword@x", || SubscriptionOption::Deliver(false)),
        Between::AccessModel(AccessModel::Open),
        Between::AccessModel(AccessModel::Whitelist),
        Between::Approve,
        Between::Delete,
        Between::MakeAgain,
        Between::Retract,
        Between::Overwrite,
        Between::Purge,
    ];
    for change in changes {
        let mut process = RestartableService::start().await;
        let fixture = process.fixture();
        let settings =
            vec![ConfigField::AccessModel(AccessModel::Authorize), ConfigField::NotifyConfig(true)];
        fixture.create_with(OWNER, "n", settings).await.unwrap();
        for name in ["plain@x", "keyword@x"] {
            fixture.subscribe_other(OWNER, "n", name).await.unwrap();
        }
        fixture
            .set_options("keyword@x", "n", SubscriptionOption::Keyword("1".into()))
            .await
            .unwrap();
        fixture.subscribe("pending@x", "n").await.unwrap();
        fixture.affiliate(OWNER, "n", "member@x", Affiliation::Member).await.unwrap();
        let interested = jid("member@x/phone");
        assert!(fixture.service.interests().on_caps(&interested, "capabilities", "question"));
        fixture.service.set_interests(&interested, vec![node("n")]).await;
        fixture.create(OWNER, "z").await.unwrap();
        fixture.subscribe("z@x", "z").await.unwrap();
        entries_until_now(fixture).await;
        let pending = process.pending().await;
        process.acknowledge(&pending.iter().collect::<Vec<_>>()).await;
        let fixture = process.fixture();
        fixture.publish(OWNER, "n", "1").await.unwrap();
        change.happen(fixture).await;
        fixture.publish(OWNER, "n", "1 later").await.ok();
        let mut live = entries_until_now(fixture).await;
        process.restart().await;
        let mut after = process.fixture().drain_log();
        after.retain(|(_, to)| !to.is_empty() && to != &["z@x"]);
        if let Between::MakeAgain = change {
            // The order is defined within a node and epoch.
            live.sort();
            after.sort();
        }
        assert_eq!(after, live, "{change:?}");
    }
}

/// Resources that lost and regained an implicit subscription are sent only later events, before and
/// after a restart. The store remembers the resources while earlier events are pending.
#[tokio::test]
async fn resources_that_regained_access_are_sent_only_later_events() {
    const MANY: usize = 300;
    let mut process = RestartableService::start().await;
    let fixture = process.fixture();
    fixture.create(OWNER, "n").await.unwrap();
    for number in 0..MANY {
        let resource = jid(&format!("{number}@far.example/phone"));
        assert!(fixture.service.interests().on_caps(&resource, "capabilities", "question"));
        fixture.service.set_interests(&resource, vec![node("n")]).await;
    }
    fixture.publish(OWNER, "n", "1").await.unwrap();
    for affiliation in [Affiliation::Outcast, Affiliation::None] {
        fixture.affiliate(OWNER, "n", "7@far.example", affiliation).await.unwrap();
    }
    fixture.publish(OWNER, "n", "2").await.unwrap();
    let counts = |entries: Vec<(String, Vec<String>)>| {
        let events = entries.into_iter().filter(|(event, _)| event.contains("Published"));
        events.map(|(_, to)| to.len()).collect::<Vec<_>>()
    };
    // The resource was sent the last item when it regained access.
    let expected = [MANY - 1, 1, MANY];
    for _ in 0..2 {
        process.restart().await;
        assert_eq!(counts(process.fixture().drain_log()), expected);
        assert_eq!(process.fixture().store.check().await.unwrap(), Vec::<String>::new());
    }
    process.restart().await;
    for model in [AccessModel::Whitelist, AccessModel::Open] {
        process.fixture().configure(OWNER, "n", ConfigField::AccessModel(model)).await.unwrap();
    }
    process.fixture().publish(OWNER, "n", "3").await.unwrap();
    process.restart().await;
    assert_eq!(counts(process.fixture().drain_log()), [0; 3], "nobody is interested any more");
    assert_eq!(process.fixture().store.check().await.unwrap(), Vec::<String>::new());
    let pending = process.pending().await;
    process.acknowledge(&pending.iter().collect::<Vec<_>>()).await;
    process.fixture.take().unwrap().store.close().await;
    assert_eq!(raw(process.folder.path()).scan_prefix(b"R").count(), 0);
}
