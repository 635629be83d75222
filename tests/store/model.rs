//! Random requests by four actors on three nodes: a store on disk and one in memory stay equal, a
//! refused request changes nothing, only entitled recipients are notified, and no limit is
//! exceeded.

use std::{collections::BTreeSet, sync::Arc};

use gjallar::{
    service::Error,
    store::{MemoryStore, SledStore, Store},
};
use gjallar_pubsub::{AccessModel, Affiliation, ConfigField, MaxItems};
use proptest::{prelude::*, sample::select, test_runner::Config};

use crate::support::service::{TestService, jid, node};

const ACTORS: [&str; 4] =
    ["owner@localhost", "a@localhost/1", "b@localhost", "admin@localhost/desk"];
const NODES: [&str; 3] = ["x", "y", "z"];
const ITEMS: [&str; 4] = ["1", "2", "3", "4"];

#[derive(Clone, Debug)]
enum ModelStep {
    Create,
    Delete,
    Publish(&'static str),
    Retract(&'static str),
    Purge,
    Subscribe,
    Unsubscribe,
    Affiliate(&'static str, Affiliation),
    Configure(ConfigField),
    /// Restart of the service.
    Reopen,
}

fn step() -> impl Strategy<Value = ModelStep> {
    let item = || select(ITEMS.as_slice());
    let affiliation = select(Affiliation::ALL.as_slice());
    let setting = prop_oneof![
        (0_u32..4).prop_map(|n| ConfigField::MaxItems(MaxItems::Number(n))),
        any::<bool>().prop_map(ConfigField::PersistItems),
        any::<bool>().prop_map(ConfigField::DeliverPayloads),
        any::<bool>().prop_map(ConfigField::NotifyRetract),
        Just(ConfigField::AccessModel(AccessModel::Open)),
        Just(ConfigField::AccessModel(AccessModel::Whitelist)),
    ];
    prop_oneof![
        2 => Just(ModelStep::Create),
        1 => Just(ModelStep::Delete),
        8 => item().prop_map(ModelStep::Publish),
        3 => item().prop_map(ModelStep::Retract),
        1 => Just(ModelStep::Purge),
        4 => Just(ModelStep::Subscribe),
        2 => Just(ModelStep::Unsubscribe),
        4 => (select(ACTORS.as_slice()), affiliation).prop_map(|(who, a)| ModelStep::Affiliate(who, a)),
        3 => setting.prop_map(ModelStep::Configure),
        1 => Just(ModelStep::Reopen),
    ]
}

async fn carry_out(
    fixture: &TestService,
    actor: &str,
    name: &str,
    step: &ModelStep,
) -> Result<(), Error> {
    match step {
        ModelStep::Create => fixture.create(actor, name).await.map(|_| ()),
        ModelStep::Delete => fixture.delete(actor, name).await,
        ModelStep::Publish(id) => fixture.publish(actor, name, id).await.map(|_| ()),
        ModelStep::Retract(id) => fixture.retract(actor, name, id).await,
        ModelStep::Purge => fixture.purge(actor, name).await,
        ModelStep::Subscribe => fixture.subscribe(actor, name).await,
        ModelStep::Unsubscribe => fixture.unsubscribe(actor, name).await,
        ModelStep::Affiliate(who, affiliation) => {
            fixture.affiliate(actor, name, who, *affiliation).await
        }
        ModelStep::Configure(setting) => fixture.configure(actor, name, setting.clone()).await,
        ModelStep::Reopen => Ok(()),
    }
}

/// Returns all data of a store as text, without the random epochs.
async fn state(fixture: &TestService) -> String {
    let mut state = String::new();
    for name in NODES {
        let Some(stored) = fixture.store.node(&node(name)).await.unwrap() else { continue };
        let affiliations: Vec<_> = stored.affiliations().collect();
        let subscribers: Vec<_> = stored.subscribers().map(ToString::to_string).collect();
        let ids = match stored.config.persist_items {
            true => fixture.ids(name).await,
            false => Vec::new(),
        };
        state.push_str(&format!(
            "{name} {} {:?} {affiliations:?} {subscribers:?} {ids:?}\n",
            stored.sequence, stored.config
        ));
    }
    for actor in ACTORS {
        let bare = jid(actor).to_bare();
        let stands: BTreeSet<_> =
            fixture.store.affiliations_of(&bare).await.unwrap().found.into_iter().collect();
        let subscribed: BTreeSet<_> =
            fixture.store.subscriptions_of(&bare).await.unwrap().found.into_iter().collect();
        state.push_str(&format!("{actor} {stands:?} {subscribed:?}\n"));
    }
    state.push_str(&format!(
        "{}\n",
        fixture.store.node_counts().await.unwrap().values().sum::<u64>()
    ));
    state
}

async fn invariants(fixture: &TestService) {
    for name in NODES {
        let Some(stored) = fixture.store.node(&node(name)).await.unwrap() else { continue };
        assert!(stored.owners().next().is_some(), "{name} has no owner");
        if let (MaxItems::Number(max), true) =
            (stored.config.max_items, stored.config.persist_items)
        {
            assert!(fixture.ids(name).await.len() <= max as usize);
        }
        for subscriber in stored.subscribers() {
            let affiliation = stored.affiliation_of(&subscriber.to_bare());
            let is_admin = subscriber.as_str().starts_with("admin@");
            // An administrator may subscribe with any affiliation.
            assert!(is_admin || affiliation != Affiliation::Outcast, "{subscriber} is subscribed");
            let closed = stored.config.access_model == AccessModel::Whitelist;
            assert!(!closed || affiliation.is_listed() || is_admin, "{subscriber} is subscribed");
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 40, failure_persistence: None, ..Config::default() })]

    #[test]
    fn sled_store_behaves_like_the_memory_store(
        steps in prop::collection::vec(
            (select(ACTORS.as_slice()), select(NODES.as_slice()), step()), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let open = || Arc::new(SledStore::open(folder.path()).unwrap()) as Arc<dyn Store>;
            let memory = TestService::new(Arc::new(MemoryStore::new())).await;
            let mut disk = TestService::new(open()).await;
            for (actor, name, step) in &steps {
                if let ModelStep::Reopen = step {
                    disk.service.close().await;
                    drop(disk);
                    disk = TestService::new(open()).await;
                }
                let before = state(&memory).await;
                let expected = carry_out(&memory, actor, name, step).await;
                let got = carry_out(&disk, actor, name, step).await;
                assert_eq!(format!("{expected:?}"), format!("{got:?}"), "{actor} {name} {step:?}");
                let (after, on_disk) = (state(&memory).await, state(&disk).await);
                assert_eq!(after, on_disk, "{actor} {name} {step:?}");
                let entries = memory.drain_log();
                assert_eq!(entries, disk.drain_log());
                if expected.is_err() {
                    assert_eq!(before, after, "refused, but something changed");
                    assert!(entries.is_empty());
                }
                if let (ModelStep::Publish(_), Ok(())) = (step, &expected) {
                    let stored = memory.store.node(&node(name)).await.unwrap().unwrap();
                    let subscribers: Vec<_> =
                        stored.subscribers().map(ToString::to_string).collect();
                    let audiences: Vec<_> = entries.into_iter().map(|(_, recipients)| recipients).collect();
                    let all = (!subscribers.is_empty()).then_some(subscribers);
                    assert_eq!(audiences, Vec::from_iter(all), "who hears is who is subscribed");
                }
                invariants(&memory).await;
            }
        });
    }
}
