//! Implicit subscriptions (`+notify`, §12.2): the resources that are sent events, and their lists in the backlog, with those
//! of explicit subscriptions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gjallar::{
    service::{PolicyTable, PresenceUpdate},
    store::{MemoryStore, SledStore},
};
use gjallar_pubsub::{
    AccessModel, Affiliation, ConfigField, Expire, Limits, NotificationType, Policy, Show,
    SubscriptionOption, Timestamp,
};
use tokio::{task::yield_now, time::Instant};

use crate::support::{
    component::{TestComponent, event},
    service::{TestService, jid, node},
};

const OWNER: &str = "owner@localhost";

/// Adds the interest of a resource in a node.
async fn become_interested(fixture: &TestService, resource: &str, name: &str) {
    assert!(fixture.service.interests().on_caps(&jid(resource), "capabilities", "question"));
    fixture.service.set_interests(&jid(resource), vec![node(name)]).await;
}

/// §4.2: after a restart the presence of resources is unknown. The recipients are those that were
/// available at the event.
#[tokio::test]
async fn s4_2_pending_events_of_presence_based_nodes_are_sent_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let reader = "a@x/phone";
    {
        let fixture = TestService::new(open()).await;
        let settings = [
            ConfigField::PresenceBasedDelivery(true),
            ConfigField::NotificationType(NotificationType::Normal),
        ];
        fixture.create_with(OWNER, "based", settings.to_vec()).await.unwrap();
        fixture.create_with(OWNER, "plain", settings[1..].to_vec()).await.unwrap();
        let online = PresenceUpdate { show: Show::Online, away_seconds: None, stamp: None };
        fixture.service.available(&jid(reader), &online).await;
        assert!(fixture.service.interests().on_caps(&jid(reader), "capabilities", "question"));
        fixture.service.set_interests(&jid(reader), ["based", "plain"].map(node).to_vec()).await;
        for id in ["1", "2"] {
            for name in ["based", "plain"] {
                fixture.publish(OWNER, name, id).await.unwrap();
            }
        }
        fixture.store.close().await;
    }
    let mut component = TestComponent::with(open(), |_| {}).await;
    let messages = component.messages().await;
    let mut sent: Vec<_> = messages
        .iter()
        .map(|message| {
            assert_eq!(message.attr("to"), Some(reader));
            let items = event(message);
            let item = items.children().next().unwrap().attr("id").unwrap();
            format!("{} {item} {}", items.attr("node").unwrap(), message.attr("type").unwrap())
        })
        .collect();
    sent.sort_unstable();
    assert_eq!(sent, ["based 1 headline", "based 2 headline", "plain 1 normal", "plain 2 normal"]);
    component.publish(&format!("{OWNER}/x"), "based", "3").await;
    assert!(component.messages().await.is_empty(), "interests are not stored");
    component.finish().await;
}

/// Kinds of subscriptions of the readers of a node.
enum Subscriptions {
    Implicit,
    WithSubIds,
    With(SubscriptionOption),
}

/// Requests share one list of a thousand resources, and one of a thousand subscribers with options,
/// leases or SubIDs: 64 requests in flight take little of the backlog.
#[tokio::test]
async fn s12_2_requests_share_their_recipient_lists() {
    const READERS: usize = 1_000;
    const PUBLISHES: usize = 64;
    let lease = Expire::At(Timestamp(1_700_000_000_000 + 86_400_000 * 30));
    for subscriptions in [
        Subscriptions::Implicit,
        Subscriptions::WithSubIds,
        Subscriptions::With(SubscriptionOption::IncludeBody(true)),
        Subscriptions::With(SubscriptionOption::Expire(lease)),
        Subscriptions::With(SubscriptionOption::Keyword("news".into())),
    ] {
        // One creator may use half of the backlog.
        let max_backlog_bytes = 2 * (2 * PUBLISHES * 1_100 + READERS * 132);
        let max_subids = if matches!(subscriptions, Subscriptions::WithSubIds) { 8 } else { 1 };
        let limits = Limits { max_backlog_bytes, max_subids, ..Limits::default() };
        let fixture = TestService::limited(Arc::new(MemoryStore::new()), limits).await;
        fixture.create(OWNER, "n").await.unwrap();
        for number in 0..READERS {
            let reader = format!("{number}@far.example/phone");
            match &subscriptions {
                Subscriptions::Implicit => become_interested(&fixture, &reader, "n").await,
                Subscriptions::WithSubIds => {
                    fixture.subscribe_other(OWNER, "n", &reader).await.unwrap()
                }
                Subscriptions::With(setting) => {
                    fixture.subscribe_other(OWNER, "n", &reader).await.unwrap();
                    fixture.set_options(&reader, "n", setting.clone()).await.unwrap();
                }
            }
            fixture.drain_log();
        }
        for id in 0..PUBLISHES {
            let xml = format!("<x xmlns='urn:x'>news {id}</x>");
            fixture.publish_xml(OWNER, "n", &id.to_string(), &xml).await.unwrap();
        }
        assert_eq!(fixture.service.log_window().notifications(), PUBLISHES * READERS);
        let entries = fixture.drain_log();
        let entries = entries.iter().filter(|(_, to)| !to.is_empty());
        assert!(entries.clone().all(|(_, to)| to.len() == READERS));
        assert_eq!(entries.count(), PUBLISHES);
        // Delivered entries are no longer counted.
        assert_eq!(fixture.service.log_window().size(), (0, 0));
    }
}

/// Each event goes to the resources that are interested and have access at that time, whatever
/// changes between events.
#[tokio::test]
async fn s12_2_events_go_to_resources_with_a_current_implicit_subscription() {
    let fixture = TestService::new(Arc::new(MemoryStore::new())).await;
    fixture.create(OWNER, "n").await.unwrap();
    become_interested(&fixture, "a@x/phone", "n").await;
    become_interested(&fixture, "b@x/phone", "n").await;
    let recipients = async || {
        fixture.drain_log();
        fixture.publish(OWNER, "n", "1").await.unwrap();
        let jids = fixture.drain_log().into_iter().flat_map(|(_, to)| to);
        jids.map(|jid| jid.chars().take(1).collect::<String>()).collect::<Vec<_>>().concat()
    };
    let access_model = async |model| {
        fixture.configure(OWNER, "n", ConfigField::AccessModel(model)).await.unwrap();
    };
    assert_eq!(recipients().await, "ab");
    become_interested(&fixture, "c@x/phone", "n").await;
    assert_eq!(recipients().await, "abc");
    fixture.service.interests().remove(&jid("a@x/phone"));
    assert_eq!(recipients().await, "bc");
    fixture.affiliate(OWNER, "n", "b@x", Affiliation::Outcast).await.unwrap();
    assert_eq!(recipients().await, "c");
    fixture.affiliate(OWNER, "n", "b@x", Affiliation::Member).await.unwrap();
    assert_eq!(recipients().await, "bc");
    access_model(AccessModel::Whitelist).await;
    assert_eq!(recipients().await, "b");
    let policies = |administrators: &[&str]| {
        let administrators = administrators.iter().map(|name| jid(name).to_bare()).collect();
        PolicyTable::new(administrators, Vec::new(), Policy::default())
    };
    fixture.service.set_policies(policies(&["c@x"])).await.unwrap();
    assert_eq!(recipients().await, "bc");
    fixture.service.set_policies(policies(&[])).await.unwrap();
    assert_eq!(recipients().await, "b");
    access_model(AccessModel::Open).await;
    assert_eq!(recipients().await, "bc");
    // An explicit subscription replaces an implicit one.
    fixture.subscribe("c@x/phone", "n").await.unwrap();
    assert_eq!(recipients().await, "cb");
    fixture.unsubscribe("c@x/phone", "n").await.unwrap();
    assert_eq!(recipients().await, "bc");
    fixture.delete(OWNER, "n").await.unwrap();
    fixture
        .create_with(OWNER, "n", vec![ConfigField::AccessModel(AccessModel::Whitelist)])
        .await
        .unwrap();
    assert_eq!(recipients().await, "");
}

/// A subscription affects only the resources of its entity, however many others are interested in
/// the node; the same holds for an event after it, if the others have no access.
#[tokio::test]
async fn s12_2_subscribe_reads_no_interested_resources_of_other_entities() {
    const RESOURCES: usize = 20_000;
    const READER: &str = "reader@x";
    let fixture = TestService::new(Arc::new(MemoryStore::new())).await;
    for name in ["n", "quiet"] {
        let settings = vec![ConfigField::AccessModel(AccessModel::Whitelist)];
        fixture.create_with(OWNER, name, settings).await.unwrap();
        fixture.affiliate(OWNER, name, READER, Affiliation::Member).await.unwrap();
    }
    for number in 0..RESOURCES {
        become_interested(&fixture, &format!("{number}@far.example/r"), "n").await;
    }
    become_interested(&fixture, &format!("{READER}/r"), "n").await;
    let mut took = BTreeMap::from([("n", Vec::new()), ("quiet", Vec::new())]);
    for round in 0..50 {
        for (name, took) in &mut took {
            let began = Instant::now();
            fixture.subscribe(READER, name).await.unwrap();
            fixture.publish(OWNER, name, &round.to_string()).await.unwrap();
            fixture.unsubscribe(READER, name).await.unwrap();
            fixture.publish(OWNER, name, &round.to_string()).await.unwrap();
            took.push(began.elapsed());
            let own = |jid: &String| jid.starts_with(READER);
            assert!(fixture.drain_log().iter().all(|(_, to)| to.iter().all(own)));
        }
    }
    // The first event after a change of access checks all resources.
    let median = |name: &str| {
        let mut took = took[name].clone();
        took.sort();
        took[took.len() / 2]
    };
    let (crowded, quiet) = (median("n"), median("quiet"));
    assert!(crowded < 20 * quiet, "{crowded:?} {quiet:?}");
}

/// Changes of access check all interested resources, without blocking other requests.
#[tokio::test]
async fn s12_2_access_changes_yield_to_other_requests() {
    const RESOURCES: usize = 10_000;
    const PAGES: usize = RESOURCES / 500;
    let fixture = TestService::new(Arc::new(MemoryStore::new())).await;
    fixture.create(OWNER, "n").await.unwrap();
    for number in 0..RESOURCES {
        become_interested(&fixture, &format!("{number}@far.example/r"), "n").await;
    }
    let runs_during = async |request: &mut (dyn Future<Output = ()> + Unpin)| {
        let mut runs = 0;
        let others = async {
            loop {
                yield_now().await;
                runs += 1;
            }
        };
        tokio::select! {
            biased;
            () = request => {}
            () = others => unreachable!(),
        }
        runs
    };
    let rounds = [(AccessModel::Whitelist, "0@far.example"), (AccessModel::Open, "1@far.example")];
    for (access_model, banned) in rounds {
        let setting = ConfigField::AccessModel(access_model);
        let mut configure =
            Box::pin(async { fixture.configure(OWNER, "n", setting).await.unwrap() });
        let runs = runs_during(&mut configure).await;
        assert!(runs >= PAGES - 1, "{access_model:?}: {runs}");
        fixture.drain_log();
        let mut publish = Box::pin(async { drop(fixture.publish(OWNER, "n", "1").await.unwrap()) });
        let runs = runs_during(&mut publish).await;
        assert!(runs >= PAGES - 1, "{access_model:?}: {runs}");
        // Pending notifications of resources are checked as well.
        let outcast = Affiliation::Outcast;
        let mut ban =
            Box::pin(async { fixture.affiliate(OWNER, "n", banned, outcast).await.unwrap() });
        let runs = runs_during(&mut ban).await;
        let lists = if access_model == AccessModel::Open { 2 } else { 1 };
        assert!(runs >= lists * PAGES - 1, "{access_model:?}: {runs}");
    }
}

/// After any order of changes, an event goes to the interested resources that have access and no
/// subscription.
#[tokio::test]
async fn s12_2_implicit_subscriptions_follow_each_change() {
    const ENTITIES: [&str; 4] = ["a@x", "b@x", "c@bücher.example", "c@xn--bcher-kva.example"];
    let fixture = TestService::new(Arc::new(MemoryStore::new())).await;
    fixture.create(OWNER, "n").await.unwrap();
    let (mut interested, mut subscribed) = (BTreeSet::new(), BTreeSet::new());
    let (mut outcasts, mut members) = (BTreeSet::new(), BTreeSet::new());
    let mut is_open = true;
    let mut random = 1_u64;
    for _ in 0..600 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = usize::try_from(random >> 33).unwrap();
        let entity = ENTITIES[number % 4];
        let resource = format!("{entity}/{}", number / 4 % 2);
        // Both spellings are one entity, which subscribes in one of them.
        let identity = &entity[..1];
        let subscriber = resource.replace("xn--bcher-kva", "bücher");
        match number / 8 % 16 {
            0..5 => {
                if interested.insert(resource.clone()) {
                    become_interested(&fixture, &resource, "n").await;
                }
            }
            5 | 6 => {
                fixture.service.interests().remove(&jid(&resource));
                interested.remove(&resource);
            }
            7..10 => {
                if fixture.subscribe(&subscriber, "n").await.is_ok() {
                    subscribed.insert(subscriber);
                }
            }
            10..13 => {
                if fixture.unsubscribe(&subscriber, "n").await.is_ok() {
                    subscribed.remove(&subscriber);
                }
            }
            13 => {
                fixture.affiliate(OWNER, "n", entity, Affiliation::Outcast).await.unwrap();
                outcasts.insert(identity);
                members.remove(identity);
            }
            14 => {
                fixture.affiliate(OWNER, "n", entity, Affiliation::Member).await.unwrap();
                outcasts.remove(identity);
                members.insert(identity);
            }
            _ => {
                is_open = !is_open;
                let model = if is_open { AccessModel::Open } else { AccessModel::Whitelist };
                fixture.configure(OWNER, "n", ConfigField::AccessModel(model)).await.unwrap();
            }
        }
        let may = |jid: &&String| match is_open {
            true => !outcasts.contains(&jid[..1]),
            false => members.contains(&jid[..1]),
        };
        subscribed.retain(|jid| may(&jid));
        // A subscription in either spelling belongs to the resource.
        let same = |one: &str, other: &str| jid(one).is_same(&jid(other));
        let is_subscribed = |jid: &str| subscribed.iter().any(|one| same(one, jid));
        let implicit = interested.iter().filter(may).filter(|jid| !is_subscribed(jid));
        let expected: BTreeSet<_> = implicit.chain(&subscribed).cloned().collect();
        fixture.drain_log();
        fixture.publish(OWNER, "n", "1").await.unwrap();
        let notified: Vec<_> = fixture.drain_log().into_iter().flat_map(|(_, to)| to).collect();
        assert_eq!(notified.iter().cloned().collect::<BTreeSet<_>>(), expected);
        assert_eq!(notified.len(), expected.len(), "{notified:?}");
    }
}
