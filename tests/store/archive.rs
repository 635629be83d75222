//! Archives (stores as text), and comparison of stores.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use gjallar::{
    migrate::archive::{ArchiveError, ArchiveSummary, Epochs, export, import},
    store::{MemoryStore, SledStore, Store, StoreError},
};
use gjallar_pubsub::{
    AccessModel, Affiliation, ConfigField, Event, Expire, IdGenerator, MaxItems, Node,
    SubscriptionOption, SubscriptionState, Timestamp, op::subscriptions::SetSubscriptions,
};

use minidom::Element;
use serde_json::Value;

use crate::support::{
    component::{TestComponent, shown},
    service::{CountingIds, TestService, actor, item, jid, node, raw},
};

const OWNER: &str = "owner@localhost";

fn open(folder: &Path) -> Arc<dyn Store> {
    Arc::new(SledStore::open(folder).unwrap())
}

/// Time in the year 2096.
const FAR: Timestamp = Timestamp(4_000_000_000_000);

/// Fills a store with every kind of record: configuration, affiliations, subscriptions of different
/// times, items with long payloads, evicted and retracted items, and pending log entries, also of a
/// deleted node.
async fn fill(store: Arc<dyn Store>) -> TestService {
    let fixture = TestService::new(store).await;
    let refusals = ["shy@x", "timid@x"].map(|name| (jid(name).to_bare(), true));
    fixture.store.set_presence_refusals(&refusals).await.unwrap();
    let settings = vec![
        ConfigField::Title("a \"title\" <&>".into()),
        ConfigField::MaxItems(MaxItems::Number(3)),
        ConfigField::NotifyRetract(true),
        ConfigField::NotifyConfig(true),
    ];
    fixture.create_with(OWNER, "a", settings).await.unwrap();
    fixture.affiliate(OWNER, "a", "out@x", Affiliation::Outcast).await.unwrap();
    fixture.subscribe("r@x/1", "a").await.unwrap();
    fixture.subscribe_other(OWNER, "a", "e@x").await.unwrap();
    for id in ["1", "2", "3", "4", "5"] {
        let xml = format!("<x xmlns='urn:x'>{}</x>", "long ".repeat(500));
        fixture.publish_xml(OWNER, "a", id, &xml).await.unwrap();
        fixture.subscribe(&format!("later{id}@x"), "a").await.unwrap();
    }
    // Without options first, so that pending entries are addressed to it like to all subscribers.
    fixture.set_options("later5@x", "a", SubscriptionOption::Keyword("long".into())).await.unwrap();
    fixture.set_options("r@x/1", "a", SubscriptionOption::Expire(Expire::At(FAR))).await.unwrap();
    fixture.publish_xml(OWNER, "a", "6", "<x xmlns='urn:x'>long</x>").await.unwrap();
    fixture.retract(OWNER, "a", "4").await.unwrap();
    fixture.configure(OWNER, "a", ConfigField::Title("new".into())).await.unwrap();
    fixture.create(OWNER, "gone").await.unwrap();
    fixture.subscribe("r@x/1", "gone").await.unwrap();
    fixture.publish(OWNER, "gone", "1").await.unwrap();
    fixture.subscribe("r@x/2", "gone").await.unwrap();
    fixture.publish(OWNER, "gone", "2").await.unwrap();
    fixture.delete(OWNER, "gone").await.unwrap();
    fixture.create(OWNER, "gone").await.unwrap();
    for id in ["1", "2", "1"] {
        fixture.publish(OWNER, "gone", id).await.unwrap();
    }
    fixture.subscribe_in_public("public@x", "gone").await.unwrap();
    for (name, uri) in [("moved", "xmpp:a"), ("left", "xmpp:b")] {
        fixture.create(OWNER, name).await.unwrap();
        fixture.subscribe("r@x/1", name).await.unwrap();
        fixture.delete_with_redirect(OWNER, name, uri).await.unwrap();
    }
    // The account of the second owner has another hash than the owner.
    for (owner, name) in [(OWNER, "deleted"), ("ß@x", "deleted too")] {
        fixture.create(owner, name).await.unwrap();
        fixture.configure(owner, name, ConfigField::Title("used".into())).await.unwrap();
        fixture.delete(owner, name).await.unwrap();
    }
    let approved =
        vec![ConfigField::AccessModel(AccessModel::Authorize), ConfigField::NotifySub(true)];
    fixture.create_with(OWNER, "approved", approved).await.unwrap();
    fixture.affiliate(OWNER, "approved", "other@x", Affiliation::Owner).await.unwrap();
    fixture
        .configure("other@x", "approved", ConfigField::Title("by another".into()))
        .await
        .unwrap();
    fixture.subscribe("r@x/1", "approved").await.unwrap();
    fixture.subscribe_other(OWNER, "approved", "e@x").await.unwrap();
    fixture.set_options("r@x/1", "approved", SubscriptionOption::Deliver(false)).await.unwrap();
    fixture.create(OWNER, "handed over").await.unwrap();
    fixture.affiliate(OWNER, "handed over", "other@x", Affiliation::Owner).await.unwrap();
    fixture.affiliate("other@x", "handed over", OWNER, Affiliation::None).await.unwrap();
    let rosters = fixture.service.rosters();
    rosters.await_grant();
    rosters.set_privilege(Some("x".into()));
    let model = ConfigField::AccessModel(AccessModel::Presence);
    let read = async { fixture.service.on_roster_result(&rosters.next_request().await, None) };
    let (configured, ()) = tokio::join!(fixture.configure("other@x", "handed over", model), read);
    configured.unwrap();
    // The administrator owns no node.
    let title = ConfigField::Title("by an administrator".into());
    fixture.configure("admin@x", "handed over", title).await.unwrap();
    fixture
}

async fn exported(store: &dyn Store) -> (String, ArchiveSummary) {
    let mut text = Vec::new();
    let summary = export(store, &mut text).await.unwrap();
    (String::from_utf8(text).unwrap(), summary)
}

async fn pending_entries(store: &dyn Store) -> Vec<String> {
    let pending_entries = store.poll(None).await.unwrap();
    pending_entries
        .iter()
        .map(|entry| format!("{:?} {:?}", entry.notification, entry.recipients))
        .collect()
}

#[tokio::test]
async fn export_and_import_preserve_a_store() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fixture = fill(open(from.path())).await;
    let (text, summary) = exported(&*fixture.store).await;
    assert_eq!((summary.nodes, summary.items), (4, 4));
    assert!(summary.events > 10);

    let copy = open(to.path());
    let read = import(&*copy, &mut text.as_bytes(), Epochs::Same).await.unwrap();
    assert_eq!((read.nodes, read.items, read.events), (4, 4, summary.events));
    for (name, owner) in
        [("a", OWNER), ("approved", OWNER), ("gone", OWNER), ("handed over", "other@x")]
    {
        let stored = copy.node(&node(name)).await.unwrap();
        let responsible = stored.as_ref().and_then(Node::responsible_owner);
        assert_eq!(responsible, Some(&jid(owner).to_bare()));
        let roster_owner = stored.as_ref().and_then(Node::roster_owner);
        assert_eq!(roster_owner, responsible);
        assert_eq!(stored, fixture.store.node(&node(name)).await.unwrap());
    }
    let former = copy.former_nodes().await.unwrap();
    assert_eq!(former, fixture.store.former_nodes().await.unwrap());
    let redirects = former.iter().map(|(_, former)| former.redirect.as_deref());
    assert_eq!(redirects.collect::<Vec<_>>(), [Some("xmpp:a"), Some("xmpp:b"), None, None]);
    assert!(former.iter().any(|(_, former)| former.account.is_some()));
    assert_eq!(copy.presence_refusals().await.unwrap().len(), 2);
    let mut expected = pending_entries(&*fixture.store).await;
    let mut found = pending_entries(&*copy).await;
    // The order is defined within a node; entries of different nodes may be interleaved.
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(copy.check().await.unwrap(), Vec::<String>::new());
    // A second export is identical, also after the store was reopened.
    assert_eq!(exported(&*copy).await.0, text);
    copy.close().await;
    drop(copy);
    assert_eq!(exported(&*open(to.path())).await.0, text);
}

#[tokio::test]
async fn archive_is_imported_into_every_kind_of_store() {
    let fixture = fill(Arc::new(MemoryStore::new())).await;
    let (text, _) = exported(&*fixture.store).await;
    let copy = MemoryStore::new();
    import(&copy, &mut text.as_bytes(), Epochs::Same).await.unwrap();
    assert_eq!(exported(&copy).await.0, text);
}

#[tokio::test]
async fn an_invalid_archive_is_refused_with_the_line() {
    let fixture = fill(Arc::new(MemoryStore::new())).await;
    let (text, _) = exported(&*fixture.store).await;
    let half: String = text.lines().take(5).map(|line| format!("{line}\n")).collect();
    let missing: String =
        text.lines().enumerate().filter(|(n, _)| *n != 4).map(|(_, l)| format!("{l}\n")).collect();
    for (text, expected) in [
        ("", "line 1: not an archive"),
        ("{}\n", "line 1: "),
        ("{\"kind\":\"archive\",\"format\":9}\n", "line 1: format 9, this version reads 1"),
        (&half, "line 6: the archive is cut off: its last line is missing"),
        (&missing, "the archive is incomplete"),
        (&text[..text.len() - 1], "the line is cut"),
        (&text.replace("\"owner\"", "\"king\""), "king"),
    ] {
        let error =
            import(&MemoryStore::new(), &mut text.as_bytes(), Epochs::Same).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error} is not {expected}");
    }
    let full = import(&*fixture.store, &mut text.as_bytes(), Epochs::Same).await.unwrap_err();
    assert!(matches!(full, ArchiveError::NotEmpty));
}

/// Stores of every layout version, as written by a binary of that version.
#[tokio::test]
#[allow(clippy::disallowed_methods)] // GJALLAR_BLESS writes what is expected anew
async fn stores_of_every_version_are_opened_or_refused() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let copy = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(fixtures.join(name)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        folder
    };
    for version in [1, 2, 3, 4, 5, 6, 7, 8] {
        let folder = copy(&format!("store-{version}"));
        let before = std::fs::read(folder.path().join("db")).unwrap();
        let refused = SledStore::open(folder.path()).unwrap_err().to_string();
        let expected = format!("layout version {version}, this version reads 10: ");
        assert!(refused.contains(&expected), "{refused}");
        // A binary of version 1 has no export.
        let advice = if version == 1 { "create a new store" } else { "export it" };
        assert!(refused.contains(advice), "{refused}");
        assert_eq!(std::fs::read(folder.path().join("db")).unwrap(), before);
    }

    let folder = copy("store-9");
    let marker = "gjallar-store 11 0000000000000001 ready 00000000000000000001";
    let sum = crc32c::crc32c(marker.as_bytes());
    std::fs::write(folder.path().join("gjallar.store"), format!("{marker} {sum:08x}\n")).unwrap();
    let refused = SledStore::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("layout version 11, this version reads 10: "), "{refused}");

    // A store of layout 9 is upgraded when opened; afterwards a binary of that layout refuses it.
    let folder = copy("store-9");
    let store = open(folder.path());
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    let text = exported(&*store).await.0;
    if std::env::var_os("GJALLAR_BLESS").is_some() {
        std::fs::write(fixtures.join("store-10.ndjson"), &text).unwrap();
    }
    let expected = std::fs::read_to_string(fixtures.join("store-10.ndjson")).unwrap();
    assert_eq!(text, expected);
    let marker = std::fs::read_to_string(folder.path().join("gjallar.store")).unwrap();
    assert!(marker.starts_with("gjallar-store 10 "), "{marker}");
    let fixture = TestService::new(store).await;
    fixture.publish(OWNER, "a", "after").await.unwrap();
    fixture.store.close().await;
    drop(fixture);
    assert_eq!(open(folder.path()).check().await.unwrap(), Vec::<String>::new());

    // Archives of binaries of layouts 8 and 9 can be imported.
    for before in ["store-8.ndjson", "store-9.ndjson"] {
        let before = std::fs::read_to_string(fixtures.join(before)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        import(&*store, &mut before.as_bytes(), Epochs::Same).await.unwrap();
        assert_eq!(exported(&*store).await.0, expected);
    }
}

/// Returns the parts of a message that matter to its recipient: without its id, the order of
/// elements, and the labels of forms.
fn essence(message: &Element) -> Vec<String> {
    let attribute = |name| message.attr(name).unwrap_or_default().to_owned();
    let mut parts = vec![attribute("to"), attribute("type")];
    let child = |child: &Element| match child.is("x", "jabber:x:data") {
        true => form_values(child),
        false => shown(&without_forms(child)),
    };
    let mut children: Vec<_> = message.children().map(child).collect();
    children.sort();
    parts.append(&mut children);
    parts
}

fn form_values(form: &Element) -> String {
    let fields = form.children().filter(|child| child.name() == "field");
    let field = |field: &Element| {
        let values: String = field.children().map(Element::text).collect();
        format!("{}={values}", field.attr("var").unwrap_or_default())
    };
    fields.map(field).collect::<Vec<_>>().join(" ")
}

fn without_forms(element: &Element) -> Element {
    let mut bare = element.clone();
    while bare.has_child("x", "jabber:x:data") {
        bare.remove_child("x", "jabber:x:data");
    }
    let children: Vec<_> = bare.children().map(without_forms).collect();
    if !children.is_empty() {
        drop(bare.take_nodes());
        for child in children {
            bare.append_child(child);
        }
    }
    bare
}

/// Pending events of a node that is deleted later are sent only to `+notify` resources that kept
/// their access, after an import as after a restart.
#[tokio::test]
async fn a_banned_resource_gets_no_events_of_a_deleted_node_from_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = TestService::new(open(folder.path())).await;
    fixture.create(OWNER, "n").await.unwrap();
    for name in ["banned@x/phone", "reader@x/phone"].map(jid) {
        assert!(fixture.service.interests().on_caps(&name, "capabilities", "question"));
        fixture.service.set_interests(&name, vec![node("n")]).await;
    }
    fixture.publish(OWNER, "n", "1").await.unwrap();
    fixture.affiliate(OWNER, "n", "banned@x", Affiliation::Outcast).await.unwrap();
    fixture.delete(OWNER, "n").await.unwrap();
    let (text, summary) = exported(&*fixture.store).await;
    for epochs in [Epochs::Same, Epochs::New(&CountingIds::default())] {
        let folder = tempfile::tempdir().unwrap();
        let copy = open(folder.path());
        let read = import(&*copy, &mut text.as_bytes(), epochs).await.unwrap();
        assert_eq!(read.events, summary.events);
        let pending_entries = copy.poll(None).await.unwrap();
        let mut published = pending_entries
            .iter()
            .filter(|entry| matches!(entry.notification.event, Event::Published(_)))
            .flat_map(|entry| entry.recipients.iter());
        assert_eq!(published.next(), Some(&jid("reader@x/phone")));
        assert_eq!(published.next(), None);
    }
}

/// Pending entries of a binary of layout 9, in its store and in its archive, are delivered as that
/// binary would have sent them: options of every kind, a half-delivered event, a deleted node, a
/// moved node, approval requests, notices.
#[tokio::test]
async fn pending_events_of_layout_9_are_delivered_as_by_layout_9() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = std::fs::read_to_string(fixtures.join("store-9-pending.stanzas")).unwrap();
    // Operations after the start are not pending entries: digests, and leases that have ended
    // meanwhile.
    let is_digest = |message: &Element| {
        (message.attr("to"), message.attr("type")) == (Some("digest@x"), Some("normal"))
    };
    let happened_before = |message: &Element| {
        let delay = message.get_child("delay", "urn:xmpp:delay");
        delay.and_then(|delay| delay.attr("stamp")).is_some_and(|stamp| stamp.starts_with("2023-"))
    };
    let is_pending = |message: &Element| happened_before(message) && !is_digest(message);
    let messages: Vec<Element> = text.lines().map(|line| line.parse().unwrap()).collect();
    let mut expected: Vec<_> =
        messages.iter().filter(|message| is_pending(message)).map(essence).collect();
    assert!(expected.len() > 50);
    let with_subids = |config: &mut gjallar::config::Config| config.limits.max_subids = 3;

    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures.join("store-9-pending")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let mut component = TestComponent::with(open(folder.path()), with_subids).await;
    let found = component.messages().await;
    let found: Vec<_> = found.iter().filter(|message| is_pending(message)).map(essence).collect();
    assert_eq!(found, expected);
    component.finish().await;

    let archive = std::fs::read_to_string(fixtures.join("store-9-pending.ndjson")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    import(&*store, &mut archive.as_bytes(), Epochs::Same).await.unwrap();
    let mut component = TestComponent::with(store, with_subids).await;
    let found = component.messages().await;
    let mut found: Vec<_> =
        found.iter().filter(|message| is_pending(message)).map(essence).collect();
    // An archive does not contain cursors.
    let half = expected.iter().find(|parts| parts[0] == "b@x/phone").unwrap().clone();
    let first = std::iter::once("a@x".to_owned()).chain(half.into_iter().skip(1)).collect();
    expected.push(first);
    // The order is defined within a node.
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    component.finish().await;
}

/// Neither an archive nor a folder restored from a copy repeats an event id: new events get other
/// ids, and pending entries are still delivered and can be revoked.
#[tokio::test]
async fn restored_stores_have_new_epochs() {
    let (original, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fixture = fill(open(original.path())).await;
    let (text, _) = exported(&*fixture.store).await;
    let epoch = async |store: &dyn Store| store.node(&node("a")).await.unwrap().unwrap().epoch;
    let pending = async |store: &dyn Store| {
        let pending_entries = store.poll(None).await.unwrap();
        let summary = |entry: &gjallar::store::Owed| {
            let notification = &entry.notification;
            (
                notification.node.to_string(),
                notification.event_id.sequence,
                entry.recipients.clone(),
            )
        };
        pending_entries.iter().map(summary).collect::<Vec<_>>()
    };
    let before = epoch(&*fixture.store).await;
    let fresh = CountingIds::default();
    // Numbers that no node uses.
    for _ in 0..1000 {
        fresh.next_u64();
    }
    let copy = open(folder.path());
    import(&*copy, &mut text.as_bytes(), Epochs::New(&fresh)).await.unwrap();
    assert_ne!(epoch(&*copy).await, before);
    assert_eq!(copy.check().await.unwrap(), Vec::<String>::new());
    copy.close().await;
    drop(copy);

    let expected = pending(&*fixture.store).await;
    fixture.store.close().await;
    drop(fixture);
    assert_eq!(SledStore::rebase(original.path(), &fresh).unwrap(), 4);
    let store = open(original.path());
    assert_ne!(epoch(&*store).await, before);
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    assert_eq!(pending(&*store).await, expected);
    let of_a = |entry: &gjallar::store::Owed| entry.notification.node == node("a");
    let pending_entries = store.poll(None).await.unwrap();
    let now = epoch(&*store).await;
    assert!(
        pending_entries
            .iter()
            .filter(|entry| of_a(entry))
            .all(|o| o.notification.event_id.epoch == now)
    );
}

type Edit<'a> = &'a dyn Fn(&mut Value);

/// Numbers that no export writes: later events or commits of the node would repeat them, or never
/// reach them.
#[tokio::test]
async fn import_refuses_numbers_that_a_node_has_not_reached() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = fill(open(folder.path())).await;
    let (text, _) = exported(&*fixture.store).await;
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    // Entries of existing nodes follow those of deleted nodes.
    let last = |what: &str| lines.iter().rposition(|line| line.contains(what)).unwrap();
    let to_all =
        |line: &String| line.contains("\"kind\":\"event\"") && !line.contains("\"listed\"");
    let event = lines.iter().rposition(to_all).unwrap();
    let read = async |number: usize, change: Edit<'_>| {
        let mut lines = lines.clone();
        let mut line = serde_json::from_str(&lines[number]).unwrap();
        change(&mut line);
        lines[number] = line.to_string();
        let text = lines.join("\n") + "\n";
        import(&MemoryStore::new(), &mut text.as_bytes(), Epochs::Same).await
    };
    let set = |path: &'static str, number: u64| {
        move |line: &mut Value| *line.pointer_mut(path).unwrap() = number.into()
    };
    let owners = |line: &mut Value| line["owners"] = vec!["0".repeat(40); 101].into();
    let changes: [(usize, &str, Edit<'_>); 6] = [
        (last("\"kind\":\"subscription\""), "since", &set("/since", 1_000)),
        (last("\"special\""), "special.since", &set("/special/since", 1_000)),
        (last("\"kind\":\"item\""), "seq", &set("/seq", 1_000)),
        (event, "seq", &set("/seq", 1_000)),
        (event, "as_of", &set("/as_of", 1_000)),
        (last("\"owners\""), "owners", &owners),
    ];
    for (number, what, change) in changes {
        read(number, &|_| {}).await.unwrap();
        match read(number, change).await {
            Err(ArchiveError::Line { number: at, reason }) => {
                assert_eq!(at, number as u64 + 1);
                assert!(reason.starts_with(what), "{reason}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Entries for many recipients with long addresses are exported in lines that an import accepts.
#[tokio::test]
async fn exported_lines_are_short_enough_for_an_import() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fixture = TestService::new(open(folder.path())).await;
    fixture.create(OWNER, "n").await.unwrap();
    let long = |number| {
        let jid = format!("{}{number}@x/{}", "l".repeat(900), "\\".repeat(1000));
        (jid::Jid::new(&jid).unwrap(), None, Some(SubscriptionState::Subscribed))
    };
    let request = |entries| SetSubscriptions { node: node("n"), entries, invalid: Vec::new() };
    let owner = actor(OWNER);
    let all = request((0..6_000).map(long).collect());
    let set = fixture.service.execute(&owner, &all).await;
    assert!(set.unwrap().failed.is_empty());
    fixture.drain_log();
    fixture.configure(OWNER, "n", ConfigField::AccessModel(AccessModel::Whitelist)).await.unwrap();
    let (text, written) = exported(&*fixture.store).await;
    let longest = text.lines().map(str::len).max().unwrap();
    assert!((4 << 20..16 << 20).contains(&longest), "{longest}");
    let copy = open(other.path());
    let read = import(&*copy, &mut text.as_bytes(), Epochs::Same).await.unwrap();
    assert!(written.events > 0 && read.events > written.events);
}

/// Random source with a limited supply of numbers.
struct Few(AtomicUsize);

impl IdGenerator for Few {
    fn next_u64(&self) -> u64 {
        let left = self.0.fetch_sub(1, Ordering::Relaxed);
        u64::try_from(left.checked_sub(1).expect("no number is left")).unwrap() + 1
    }
}

/// A store in which only some nodes might have new epochs is not opened before all have them.
#[tokio::test]
async fn interrupted_rebase_is_completed_before_the_store_opens() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = fill(open(folder.path())).await;
    fixture.store.close().await;
    drop(fixture);
    let few = AssertUnwindSafe(|| SledStore::rebase(folder.path(), &Few(2.into())));
    catch_unwind(few).unwrap_err();
    assert!(matches!(SledStore::open(folder.path()), Err(StoreError::Rebase)));
    SledStore::rebase(folder.path(), &CountingIds::default()).unwrap();
    assert_eq!(open(folder.path()).check().await.unwrap(), Vec::<String>::new());
}

/// The check finds every single removed row, and every single added row.
#[tokio::test]
async fn check_detects_every_changed_row() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = fill(open(folder.path())).await;
    fixture.retract(OWNER, "gone", item("1").as_str()).await.unwrap();
    assert_eq!(fixture.store.check().await.unwrap(), Vec::<String>::new());
    fixture.store.close().await;
    drop(fixture);
    let rows: Vec<(Vec<u8>, Vec<u8>)> = {
        let db = raw(folder.path());
        db.iter().map(|row| row.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
    };
    assert!(rows.len() > 50);
    let added = rows.iter().map(|(key, value)| {
        let mut other = key.clone();
        // Changes the node number in the keys of node tables to that of no existing node.
        let at = if b"asixc".contains(&key[0]) { 8 } else { other.len() - 1 };
        other[at] ^= 0x80;
        (other, value.clone())
    });
    // A row without a node is an error in every table.
    let added: Vec<_> = added.filter(|(key, _)| key.len() > 1).collect();
    let marker = std::fs::read(folder.path().join("gjallar.store")).unwrap();
    let removed = rows.iter().map(|(key, _)| (Some(key), None));
    for (key, added) in removed.chain(added.iter().map(|row| (None, Some(row)))) {
        let copy = tempfile::tempdir_in("/dev/shm").unwrap();
        {
            let db = raw(copy.path());
            for (other, value) in rows.iter().filter(|(other, _)| Some(other) != key).chain(added) {
                db.insert(other, value.as_slice()).unwrap();
            }
        }
        std::fs::write(copy.path().join("gjallar.store"), &marker).unwrap();
        let found = match SledStore::open(copy.path()) {
            Err(_) => true,
            Ok(store) => !store.check().await.unwrap().is_empty(),
        };
        assert!(found, "nobody notices: {key:?} is missing, {added:?} is there");
    }
}
