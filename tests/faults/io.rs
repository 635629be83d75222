//! Full or failing disks under the real service, and damaged files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use gjallar::store::{SledStore, Store};
use minidom::Element;

use crate::support::{
    component::{OWNER as OWNER_NS, PUBSUB, error, event},
    ld_preload::compile,
    process::{ServiceProcess, lines_with_event},
    rng::TestRng,
    service::{TestService, all_items, node, raw},
};

const OWNER: &str = "owner@localhost/x";

/// The real service on a disk with injected failures.
struct FaultyDiskService {
    served: ServiceProcess,
    fault: tempfile::TempDir,
}

impl FaultyDiskService {
    async fn start() -> Self {
        let fault = tempfile::tempdir().unwrap();
        let layer = compile("fault.c").display().to_string();
        let file = fault.path().join("fault").display().to_string();
        let served = ServiceProcess::start(&[], &[("LD_PRELOAD", &layer), ("FAULT", &file)]).await;
        Self { served, fault }
    }

    fn fails(&self, how: &str) {
        fs::write(self.fault.path().join("fault"), how).unwrap();
    }

    fn fails_no_more(&self) {
        fs::remove_file(self.fault.path().join("fault")).unwrap();
    }

    /// Shifts the system clock by a number of years.
    fn is_wrong_by(&self, years: i64) {
        let seconds = (years * 365 * 86_400).to_string();
        fs::write(self.fault.path().join("fault.clock"), seconds).unwrap();
    }

    async fn ask(&mut self, kind: &str, content: &str) -> Element {
        let content = format!("<pubsub xmlns='{PUBSUB}'>{content}</pubsub>");
        self.served.ask(OWNER, kind, &content).await
    }

    async fn publish(&mut self, id: &str) -> Element {
        let item = format!("<item id='{id}'><x xmlns='urn:x'/></item>");
        self.ask("set", &format!("<publish node='n'>{item}</publish>")).await
    }

    async fn items(&mut self) -> Vec<String> {
        ids(self.ask("get", "<items node='n'/>").await.children().next().unwrap())
    }

    /// Receives the items of events up to the item with this name.
    async fn events_until(&mut self, id: &str) -> Vec<String> {
        let messages = self.served.messages.drain(..);
        let mut ids: Vec<_> = messages.flat_map(|message| item_ids(&event(&message))).collect();
        while ids.last().is_none_or(|last| last != id) {
            let stanza = self.served.link.receive().await.unwrap();
            ids.extend(item_ids(&event(&stanza)));
        }
        ids
    }
}

fn ids(pubsub: &Element) -> Vec<String> {
    item_ids(pubsub.children().next().unwrap())
}

fn item_ids(items: &Element) -> Vec<String> {
    items.children().map(|item| item.attr("id").unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_causes_only_errors_until_space_is_free() {
    let mut service = FaultyDiskService::start().await;
    service.ask("set", "<create node='n'/>").await;
    service.ask("set", &format!("<subscribe node='n' jid='{OWNER}'/>")).await;
    service.publish("before").await;
    service.fails("full");
    for _ in 0..3 {
        assert_eq!(error(&service.publish("full").await), "wait internal-server-error");
    }
    service.fails_no_more();
    while service.publish("after").await.attr("type") == Some("error") {}
    // A publish answered with an error has an unknown outcome: stored and notified, or neither; the
    // order is the same.
    let notified = service.events_until("after").await;
    let stored = service.items().await;
    assert_eq!(notified, stored);
    assert_eq!((stored[0].as_str(), stored.last().unwrap().as_str()), ("before", "after"));
    service.served.kill_and_restart().await;
    assert_eq!(service.items().await, stored);
}

/// After a failed sync the kernel may report unwritten pages as clean: the service accepts no more
/// changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_sync_refuses_all_changes_until_a_restart() {
    for how in ["sync", "space"] {
        let mut service = FaultyDiskService::start().await;
        service.ask("set", "<create node='n'/>").await;
        service.publish("before").await;
        service.fails(how);
        assert_eq!(error(&service.publish("lost").await), "wait internal-server-error");
        service.fails_no_more();
        assert_eq!(error(&service.publish("after").await), "wait internal-server-error");
        service.served.kill_and_restart().await;
        assert_eq!(service.publish("again").await.attr("type"), Some("result"));
        let stored = service.items().await;
        assert_eq!((stored[0].as_str(), stored.last().unwrap().as_str()), ("before", "again"));
    }
}

/// After a failure of any write or sync, acknowledged changes are present and the store is
/// consistent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_changes_survive_the_failure_of_any_operation() {
    let mut failures = 0;
    for number in 1..=16 {
        let mut service = FaultyDiskService::start().await;
        service.ask("set", "<create node='n'/>").await;
        service.ask("set", &format!("<subscribe node='n' jid='{OWNER}'/>")).await;
        service.fails(&format!("at {number}"));
        let mut acknowledged = Vec::new();
        for id in 0..20 {
            let answer = service.publish(&id.to_string()).await;
            match answer.attr("type") {
                Some("result") => acknowledged.push(id.to_string()),
                _ => {
                    assert_eq!(error(&answer), "wait internal-server-error");
                    failures += 1;
                }
            }
        }
        service.fails_no_more();
        service.served.kill_and_restart().await;
        service.publish("end").await;
        let stored = service.items().await;
        assert!(acknowledged.iter().all(|id| stored.contains(id)), "{number}: {stored:?}");
        // Stored items were notified in the same order; a repeated notification counts at its first
        // position.
        let mut notified = service.events_until("end").await;
        let mut known = BTreeSet::new();
        notified.retain(|id| known.insert(id.clone()));
        assert_eq!(notified, stored, "{number}");
        assert_eq!(service.served.check().await, "the store is in order\n");
    }
    assert!(failures > 16, "{failures} failures");
}

/// Many subscribers lose access in several commits. After any failure or kill, either all have lost
/// it, or none has and the node is open; acknowledged changes remain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ban_of_many_entities_is_atomic_under_faults() {
    let close = format!(
        "<pubsub xmlns='{OWNER_NS}'><configure node='n'>{}</configure></pubsub>",
        crate::support::component::form(&[("access_model", "whitelist")])
    );
    let list = format!("<pubsub xmlns='{OWNER_NS}'><subscriptions node='n'/></pubsub>");
    let faults = (1..=12).map(|number| Some(format!("at {number}")));
    let mut results = BTreeSet::new();
    for fault in faults.chain([Some("full".into()), None, None, None, None]) {
        let mut service = FaultyDiskService::start().await;
        service.ask("set", "<create node='n'/>").await;
        service.served.subscribe_many(OWNER, "n", 2000).await;
        let mut is_acknowledged = false;
        match &fault {
            Some(fault) => {
                service.fails(fault);
                let answer = service.served.ask(OWNER, "set", &close).await;
                is_acknowledged = answer.attr("type") == Some("result");
                service.fails_no_more();
            }
            // Kills the process during the change.
            None => {
                service.served.request(OWNER, "close", "set", &close).await;
                service.ask("get", "<items node='other'/>").await;
            }
        }
        service.served.kill_and_restart().await;
        let answer = service.served.ask(OWNER, "get", &list).await;
        let subscribed = answer.children().next().unwrap().children().next().unwrap().children();
        let subscribed = subscribed.count();
        let stranger =
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'/></pubsub>";
        let is_open =
            service.served.ask("x@y", "get", stranger).await.attr("type") == Some("result");
        assert_eq!(subscribed, if is_open { 2000 } else { 0 }, "{fault:?}");
        assert!(!(is_acknowledged && is_open), "{fault:?}");
        assert_eq!(service.served.check().await, "the store is in order\n");
        results.insert(is_open);
    }
    assert_eq!(results.len(), 2, "both have to happen");
}

/// The order is that of the commits, regardless of the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_order_survives_clock_jumps() {
    let mut service = FaultyDiskService::start().await;
    service.ask("set", "<create node='n'/>").await;
    service.ask("set", &format!("<subscribe node='n' jid='{OWNER}'/>")).await;
    let mut expected = Vec::new();
    for (number, years) in [0, 10, -20, 5, -1].into_iter().enumerate() {
        service.is_wrong_by(years);
        for id in [format!("{number}a"), format!("{number}b")] {
            assert_eq!(service.publish(&id).await.attr("type"), Some("result"));
            expected.push(id);
        }
        service.served.kill_and_restart().await;
    }
    assert_eq!(service.items().await, expected);
    service.publish("end").await;
    expected.push("end".into());
    let mut known = BTreeSet::new();
    let mut notified = service.events_until("end").await;
    notified.retain(|id| known.insert(id.clone()));
    assert_eq!(notified, expected);
}

/// The corruption is found when the record is read: the node is quarantined, the log names the
/// record, and other nodes keep working.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_record_is_named_in_the_log() {
    let mut served = ServiceProcess::start(&[], &[]).await;
    for node in ["n", "m"] {
        served.granted(OWNER, &format!("<create node='{node}'/>")).await;
        served.publish(OWNER, node, "1").await;
    }
    served
        .kill_and_restart_after(|store| {
            let db = raw(store);
            let (key, value) = db.scan_prefix(b"i").next().unwrap().unwrap();
            let mut value = value.to_vec();
            value[3] ^= 1;
            db.insert(key, value).unwrap();
        })
        .await;
    let items = |node: &str| format!("<pubsub xmlns='{PUBSUB}'><items node='{node}'/></pubsub>");
    for _ in 0..2 {
        let answer = served.ask(OWNER, "get", &items("n")).await;
        assert_eq!(error(&answer), "wait internal-server-error");
    }
    assert_eq!(served.ask(OWNER, "get", &items("m")).await.attr("type"), Some("result"));
    let log = served.log();
    let lines = lines_with_event(&log, "node_quarantined");
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("ERROR") && lines[0].contains("i 0000000000000001"), "{}", lines[0]);
    assert!(served.check().await.contains("damaged record: i 0000000000000001"));
}

/// Returns the files of a store with every kind of record, after a clean stop or after a kill.
async fn full_store(is_killed: bool) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let fixture = TestService::new(std::sync::Arc::new(SledStore::open(folder).unwrap())).await;
    for name in ["a", "b"] {
        fixture.create("owner@localhost", name).await.unwrap();
        for number in 0..30 {
            fixture.subscribe(&format!("s{number}@localhost"), name).await.unwrap();
            let xml = format!("<x xmlns='urn:x'>{}</x>", "y".repeat(number * 100));
            let id = number.to_string();
            fixture.publish_xml("owner@localhost", name, &id, &xml).await.unwrap();
        }
    }
    if !is_killed {
        fixture.service.close().await;
    }
    read_all(folder)
}

/// Returns all data in a store with these files, or the error.
async fn everything(files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    for (path, content) in files {
        fs::write(folder.path().join(path), content).unwrap();
    }
    let store = SledStore::open(folder.path()).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for name in ["a", "b"] {
        let node_there = store.node(&node(name)).await.map_err(|error| error.to_string())?;
        let items = all_items(&store, &node(name)).await;
        all.push(format!("{node_there:?} {:?}", items.map_err(|error| error.to_string())?));
    }
    let debts = store.poll(None).await.map_err(|error| error.to_string())?;
    all.extend(debts.iter().map(|entry| format!("{entry:?}")));
    for number in 0..30 {
        let jid = crate::support::service::jid(&format!("s{number}@localhost")).to_bare();
        let subscriptions =
            store.subscriptions_of(&jid).await.map_err(|error| error.to_string())?;
        if let Some(damage) = subscriptions.damaged.first() {
            return Err(damage.record.clone());
        }
        all.push(format!("{:?}", subscriptions.found));
    }
    store.close().await;
    Ok(all)
}

fn read_all(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(path).unwrap());
        }
    }
    files
}

/// Every file with flipped bytes or truncated at many offsets: the store is intact or refused; it
/// never returns wrong data, and no panic escapes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrupt_files_are_detected() {
    let mut dice = TestRng(0xF11B);
    for is_killed in [false, true] {
        let files = full_store(is_killed).await;
        let whole = everything(&files).await.unwrap();
        let (mut refused, mut intact) = (0, 0);
        for (path, content) in &files {
            for _ in 0..(content.len() / 2000).clamp(20, 150) {
                let mut files = files.clone();
                let damaged = files.get_mut(path).unwrap();
                let at = dice.roll(content.len());
                match dice.roll(4) {
                    0 => damaged.truncate(at),
                    bit => damaged[at] ^= 1 << (bit * 2),
                }
                match everything(&files).await {
                    Ok(all) => {
                        assert_eq!(all, whole, "{} at {at} is another store", path.display());
                        intact += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 50 && intact > 0, "{refused} refused, {intact} intact");
    }
}
