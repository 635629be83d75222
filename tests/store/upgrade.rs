//! Upgrade of a store of layout 9, in which the rosters of all owners gave access, and no record
//! says which owner chose that.
//!
//! The fixture has five nodes. The creator of `one`, `handed` and `reply` has left them to b, and
//! the creator of `several` to b and c; that of `kept` is still an owner, like b. f is subscribed
//! to each.

use std::{path::Path, sync::Arc, time::Duration};

use gjallar::{
    migrate::archive::{Epochs, export, import},
    service::Error,
    store::{MemoryStore, SledStore, Store, StoreError},
};
use gjallar_pubsub::{
    AccessModel, Affiliation, ConfigField, Limits, Roster, RosterItem, Timestamp,
    op::configure::Configure,
};
use tokio::time::{Instant, sleep};

use crate::support::service::{TestService, actor, jid, node, raw};

const A: &str = "a@localhost";
const B: &str = "b@localhost";
const C: &str = "c@localhost";
/// A contact of all owners.
const F: &str = "f@localhost";
/// A contact of b.
const G: &str = "g@localhost";
/// A contact of c.
const H: &str = "h@localhost";
const NODES: [&str; 5] = ["one", "handed", "several", "kept", "reply"];

fn fixture_path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Copies a store as a binary of layout 9 left it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture_path("store-9-owners")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn open(folder: &Path) -> Arc<dyn Store> {
    Arc::new(SledStore::open(folder).unwrap())
}

async fn exported(store: &dyn Store) -> String {
    let mut text = Vec::new();
    export(store, &mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Returns the owner whose roster gives access, the owner that items show, and whether no roster is
/// read.
async fn owners(store: &dyn Store, name: &str) -> (Option<String>, Option<String>, bool) {
    let node = store.node(&node(name)).await.unwrap().unwrap();
    let roster_owner = node.roster_owner().map(ToString::to_string);
    let responsible = node.responsible_owner().map(ToString::to_string);
    (roster_owner, responsible, node.revision.roster_owner.is_none())
}

/// Starts a service at a server whose rosters it may read.
async fn service_with_rosters(store: Arc<dyn Store>) -> TestService {
    let begin = Instant::now();
    let clock = move || Timestamp(1_800_000_000_000 + begin.elapsed().as_millis() as u64);
    let fixture = TestService::clocked(store, Limits::default(), Arc::new(clock)).await;
    fixture.service.rosters().set_privilege(Some("localhost".into()));
    fixture
}

async fn serve_rosters(fixture: &TestService) {
    loop {
        let owner = fixture.service.rosters().next_request().await;
        let names: &[&str] = match owner.as_str() {
            B => &[F, G],
            C => &[F, H],
            _ => &[F],
        };
        let contact = |name: &&str| {
            let contact = RosterItem { has_presence: true, groups: vec!["Family".into()] };
            (jid(name).to_bare(), contact)
        };
        let contacts: Roster = names.iter().map(contact).collect();
        fixture.service.on_roster_result(&owner, Some(contacts));
    }
}

/// Runs an operation while roster queries are answered.
async fn with_rosters<T>(fixture: &TestService, does: impl Future<Output = T>) -> T {
    tokio::select! {
        () = serve_rosters(fixture) => unreachable!(),
        done = does => done,
    }
}

async fn subscribers(fixture: &TestService, name: &str) -> Vec<String> {
    let node = fixture.store.node(&node(name)).await.unwrap().unwrap();
    node.subscribers().map(ToString::to_string).collect()
}

/// If a single owner is left, the roster of that owner still gives access, and items still show
/// that owner. Changes after the upgrade do not affect the choice.
#[tokio::test]
async fn only_owner_replaces_a_creator_that_had_left() {
    let some = |name: &str| Some(name.to_owned());
    let folder = folder();
    let store = open(folder.path());
    for (name, owner) in [("one", B), ("handed", B), ("reply", B), ("kept", A)] {
        assert_eq!(owners(&*store, name).await, (some(owner), some(owner), false), "{name}");
    }
    assert_eq!(owners(&*store, "several").await, (None, None, true));
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());

    let text = exported(&*store).await;
    let archive = std::fs::read_to_string(fixture_path("store-9-owners.ndjson")).unwrap();
    for archive in [archive, text.clone()] {
        let folder = tempfile::tempdir().unwrap();
        let copy = open(folder.path());
        import(&*copy, &mut archive.as_bytes(), Epochs::Same).await.unwrap();
        assert_eq!(exported(&*copy).await, text);
    }

    let fixture = TestService::new(store).await;
    fixture.affiliate(A, "kept", A, Affiliation::None).await.unwrap();
    fixture.affiliate(B, "several", C, Affiliation::None).await.unwrap();
    fixture.configure("admin@x", "several", ConfigField::Title("T".into())).await.unwrap();
    fixture.store.close().await;
    drop(fixture);
    let store = open(folder.path());
    assert_eq!(owners(&*store, "kept").await, (None, None, false));
    assert_eq!(owners(&*store, "several").await, (None, None, true));
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
}

/// The roster of the only owner with a roster still gives access at nodes that the service created.
/// If the creator's account is on another server, subscribers keep their access.
#[tokio::test(start_paused = true)]
async fn owner_without_a_roster_ends_no_subscriptions() {
    let archive = std::fs::read_to_string(fixture_path("store-9-owners.ndjson")).unwrap();
    let (before, kept) = archive.split_once("\"node\":\"kept\"").unwrap();
    for (creator, is_replaced) in [("pubsub.localhost", true), ("a@other.example", false)] {
        let archive = format!("{before}\"node\":\"kept\"{}", kept.replacen(A, creator, 2));
        let store = MemoryStore::new();
        import(&store, &mut archive.as_bytes(), Epochs::Same).await.unwrap();
        let roster_owner = if is_replaced { B } else { creator };
        let expected = (Some(roster_owner.to_owned()), Some(creator.to_owned()), false);
        assert_eq!(owners(&store, "kept").await, expected);
        let fixture = &service_with_rosters(Arc::new(store)).await;
        tokio::select! {
            () = fixture.service.run_timers() => {}
            () = serve_rosters(fixture) => {}
            () = sleep(Duration::from_secs(600)) => {}
        }
        assert_eq!(subscribers(fixture, "kept").await, [F], "{creator}");
        with_rosters(fixture, fixture.items(F, "kept")).await.unwrap();
        let is_contact = async || with_rosters(fixture, fixture.items(G, "kept")).await.is_ok();
        assert_eq!(is_contact().await, is_replaced);
        // The roster of another owner gives access once that owner changes the model or the groups.
        for (setting, is_chosen) in [
            (ConfigField::AccessModel(AccessModel::Presence), false),
            (ConfigField::RosterGroupsAllowed(["Family".to_owned()].into()), true),
        ] {
            with_rosters(fixture, fixture.configure(B, "kept", setting)).await.unwrap();
            assert_eq!(is_contact().await, is_replaced || is_chosen, "{creator}");
            assert_eq!(subscribers(fixture, "kept").await, [F]);
        }
    }
}

/// §8.9.2: if no roster is read, a member that an owner removes loses its subscription.
#[tokio::test]
async fn former_member_loses_access_where_no_roster_is_read() {
    const MEMBER: &str = "m@localhost";
    let folder = folder();
    let fixture = service_with_rosters(open(folder.path())).await;
    fixture.affiliate(B, "several", MEMBER, Affiliation::Member).await.unwrap();
    fixture.subscribe(MEMBER, "several").await.unwrap();
    fixture.items(MEMBER, "several").await.unwrap();
    fixture.affiliate(B, "several", MEMBER, Affiliation::None).await.unwrap();
    fixture.items(MEMBER, "several").await.unwrap_err();
    assert_eq!(subscribers(&fixture, "several").await, [F]);
}

/// A node with a corrupt record is quarantined, and the others are converted.
#[tokio::test]
async fn corrupt_node_does_not_prevent_the_conversion_of_others() {
    let folder = folder();
    let db = raw(folder.path());
    let (affiliation, _) = db.scan_prefix(b"a").next().unwrap().unwrap();
    db.insert(affiliation, b"damaged").unwrap();
    db.flush().unwrap();
    drop(db);
    let store = open(folder.path());
    assert!(matches!(store.node(&node("one")).await, Err(StoreError::Corrupt(_))));
    assert_eq!(owners(&*store, "handed").await.0.as_deref(), Some(B));
}

/// Contacts of the only owner keep and gain access. With several owners, access stays as it is
/// until one of them chooses.
#[tokio::test(start_paused = true)]
async fn contacts_of_owners_keep_their_access_after_the_upgrade() {
    let archive = std::fs::read_to_string(fixture_path("store-9-owners.ndjson")).unwrap();
    let store = MemoryStore::new();
    import(&store, &mut archive.as_bytes(), Epochs::Same).await.unwrap();
    let fixture = &service_with_rosters(Arc::new(store)).await;
    tokio::select! {
        () = fixture.service.run_timers() => {}
        () = serve_rosters(fixture) => {}
        () = sleep(Duration::from_secs(600)) => {}
    }
    for name in NODES {
        assert_eq!(subscribers(fixture, name).await, [F], "{name}");
    }
    for (name, is_admitted) in
        [("one", true), ("handed", true), ("several", false), ("kept", false)]
    {
        let subscribed = with_rosters(fixture, fixture.subscribe(G, name)).await;
        let is_refused =
            matches!(subscribed, Err(Error::Refused(gjallar_pubsub::Error::PresenceRequired)));
        assert_eq!((subscribed.is_ok(), is_refused), (is_admitted, !is_admitted), "{name}");
    }
    for name in NODES {
        with_rosters(fixture, fixture.items(F, name)).await.unwrap();
        with_rosters(fixture, fixture.subscribe(F, name)).await.unwrap();
    }
    with_rosters(fixture, fixture.items(G, "several")).await.unwrap_err();
    let model = ConfigField::AccessModel(AccessModel::Presence);
    with_rosters(fixture, fixture.configure(B, "several", model)).await.unwrap();
    with_rosters(fixture, fixture.subscribe(G, "several")).await.unwrap();
    assert_eq!(subscribers(fixture, "several").await, [F, G]);
}

/// Where several owners are left, a whole form that changes something else ends no subscriptions. An owner chooses its own
/// roster by a form that names nothing but the access, or changes it, and then contacts of the others need to be members.
#[tokio::test(start_paused = true)]
async fn whole_form_of_one_of_several_owners_chooses_no_roster() {
    let archive = std::fs::read_to_string(fixture_path("store-9-owners.ndjson")).unwrap();
    let (before, several) = archive.split_once("\"node\":\"several\"").unwrap();
    let line = |jid: &str| format!("{{\"kind\":\"subscription\",\"jid\":\"{jid}\",\"since\":2}}\n");
    let three = [F, G, H].map(line).concat();
    let archive = format!("{before}\"node\":\"several\"{}", several.replacen(&line(F), &three, 1));
    let archive = archive.replacen("\"lines\":23", "\"lines\":25", 1);
    let model = || ConfigField::AccessModel(AccessModel::Presence);
    let groups = |group: &str| ConfigField::RosterGroupsAllowed(vec![group.to_owned()]);
    let title = || ConfigField::Title("Another".into());
    for (choice, is_member) in [
        (vec![model()], false),
        (vec![model(), ConfigField::RosterGroupsAllowed(Vec::new())], true),
        (vec![title(), model(), groups("Family")], false),
    ] {
        let store = MemoryStore::new();
        import(&store, &mut archive.as_bytes(), Epochs::Same).await.unwrap();
        let fixture = &service_with_rosters(Arc::new(store)).await;
        let configure = async |by: &str, settings: Vec<ConfigField>| {
            let request = Configure { node: node("several"), settings, seen: None };
            let by = actor(by);
            let configured = fixture.service.submit(&by, &request, |outcome| outcome);
            with_rosters(fixture, async { configured.await.await }).await.unwrap()
        };
        for owner in [B, C] {
            let whole = vec![title(), model(), ConfigField::RosterGroupsAllowed(Vec::new())];
            configure(owner, whole).await;
            assert!(!configure("admin@localhost", vec![model()]).await);
            assert_eq!(subscribers(fixture, "several").await, [F, G, H]);
            assert_eq!(owners(&*fixture.store, "several").await.0, None);
        }
        if is_member {
            fixture.affiliate(B, "several", H, Affiliation::Member).await.unwrap();
        }
        assert!(configure(B, choice.clone()).await);
        let expected: &[_] = if is_member { &[F, G, H] } else { &[F, G] };
        assert_eq!(subscribers(fixture, "several").await, expected, "{choice:?}");
        assert_eq!(owners(&*fixture.store, "several").await.0.as_deref(), Some(B));
    }
}
