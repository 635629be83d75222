//! Implicit subscriptions (`+notify`, §12.2): the resources that are sent events, and their lists in the backlog, with those
//! of explicit subscriptions.

use std::sync::Arc;

use gjallar::{
    pubsub::{AccessModel, Affiliation, Expire, Limits, OptionSetting, Policy, Setting, Timestamp},
    service::Policies,
    store::MemoryStore,
};

use crate::harness::stage::{Stage, jid, node};

const OWNER: &str = "owner@localhost";

/// Adds the interest of a resource in a node.
async fn become_interested(stage: &Stage, resource: &str, name: &str) {
    assert!(stage.service.interests().note(&jid(resource), "capabilities", "question"));
    stage.service.interested(&jid(resource), vec![node(name)]).await;
}

/// The subscriptions of the readers of a node.
enum Subscriptions {
    Implicit,
    WithSubIds,
    With(OptionSetting),
}

/// Requests have one list for a thousand resources, and one for a thousand subscribers with options, leases or SubIDs: 64
/// of them in flight take little of the backlog.
#[tokio::test]
async fn requests_share_their_recipients() {
    const READERS: usize = 1_000;
    const PUBLISHES: usize = 64;
    let lease = Expire::At(Timestamp(1_700_000_000_000 + 86_400_000 * 30));
    for subscriptions in [
        Subscriptions::Implicit,
        Subscriptions::WithSubIds,
        Subscriptions::With(OptionSetting::IncludeBody(true)),
        Subscriptions::With(OptionSetting::Expire(lease)),
        Subscriptions::With(OptionSetting::Keyword("news".into())),
    ] {
        // Half is for one creator.
        let max_backlog_bytes = 2 * (2 * PUBLISHES * 1_100 + READERS * 132);
        let max_subids = if matches!(subscriptions, Subscriptions::WithSubIds) { 8 } else { 1 };
        let limits = Limits { max_backlog_bytes, max_subids, ..Limits::default() };
        let stage = Stage::limited(Arc::new(MemoryStore::new()), limits).await;
        stage.create(OWNER, "n").await.unwrap();
        for number in 0..READERS {
            let reader = format!("{number}@far.example/phone");
            match &subscriptions {
                Subscriptions::Implicit => become_interested(&stage, &reader, "n").await,
                Subscriptions::WithSubIds => stage.enrol(OWNER, "n", &reader).await.unwrap(),
                Subscriptions::With(setting) => {
                    stage.enrol(OWNER, "n", &reader).await.unwrap();
                    stage.agree(&reader, "n", setting.clone()).await.unwrap();
                }
            }
            stage.told();
        }
        for id in 0..PUBLISHES {
            let xml = format!("<x xmlns='urn:x'>news {id}</x>");
            stage.publish_xml(OWNER, "n", &id.to_string(), &xml).await.unwrap();
        }
        assert_eq!(stage.service.outbox().notifications(), PUBLISHES * READERS);
        let told = stage.told();
        let told = told.iter().filter(|(_, to)| !to.is_empty());
        assert!(told.clone().all(|(_, to)| to.len() == READERS));
        assert_eq!(told.count(), PUBLISHES);
        // Nothing that is not pending any more is counted.
        assert_eq!(stage.service.outbox().size(), (0, 0));
    }
}

/// Whatever changes between two events, each goes to the resources that are interested then and have access.
#[tokio::test]
async fn s12_2_events_go_to_resources_with_an_implicit_subscription_now() {
    let stage = Stage::new(Arc::new(MemoryStore::new())).await;
    stage.create(OWNER, "n").await.unwrap();
    become_interested(&stage, "a@x/phone", "n").await;
    become_interested(&stage, "b@x/phone", "n").await;
    let recipients = async || {
        stage.told();
        stage.publish(OWNER, "n", "1").await.unwrap();
        let told = stage.told().into_iter().flat_map(|(_, to)| to);
        told.map(|jid| jid.chars().take(1).collect::<String>()).collect::<Vec<_>>().concat()
    };
    let access_model = async |model| {
        stage.configure(OWNER, "n", Setting::AccessModel(model)).await.unwrap();
    };
    assert_eq!(recipients().await, "ab");
    become_interested(&stage, "c@x/phone", "n").await;
    assert_eq!(recipients().await, "abc");
    stage.service.interests().remove(&jid("a@x/phone"));
    assert_eq!(recipients().await, "bc");
    stage.affiliate(OWNER, "n", "b@x", Affiliation::Outcast).await.unwrap();
    assert_eq!(recipients().await, "c");
    stage.affiliate(OWNER, "n", "b@x", Affiliation::Member).await.unwrap();
    assert_eq!(recipients().await, "bc");
    access_model(AccessModel::Whitelist).await;
    assert_eq!(recipients().await, "b");
    let policies = |administrators: &[&str]| {
        let administrators = administrators.iter().map(|name| jid(name).to_bare()).collect();
        Policies::new(administrators, Vec::new(), Policy::default())
    };
    stage.service.govern(policies(&["c@x"])).await.unwrap();
    assert_eq!(recipients().await, "bc");
    stage.service.govern(policies(&[])).await.unwrap();
    assert_eq!(recipients().await, "b");
    access_model(AccessModel::Open).await;
    assert_eq!(recipients().await, "bc");
    // An explicit subscription takes the place of an implicit one.
    stage.subscribe("c@x/phone", "n").await.unwrap();
    assert_eq!(recipients().await, "cb");
    stage.unsubscribe("c@x/phone", "n").await.unwrap();
    assert_eq!(recipients().await, "bc");
    stage.delete(OWNER, "n").await.unwrap();
    stage
        .create_with(OWNER, "n", vec![Setting::AccessModel(AccessModel::Whitelist)])
        .await
        .unwrap();
    assert_eq!(recipients().await, "");
}
