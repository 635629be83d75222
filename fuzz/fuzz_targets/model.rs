//! Sequences of requests against a model: a second, simple implementation of XEP-0060's privileges
//! (§4.1), of the items of a node, and of audiences. After each step the service and the model must
//! agree.
#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arbitrary::Arbitrary;
use futures::executor::block_on;
use gjallar::{
    service::{Error, Service, WindowEntry},
    store::{MemoryStore, Store},
};
use gjallar_pubsub::{
    AccessModel, Actor, Affiliation, Audience, ConfigField, Event, IdGenerator, ItemId, Limits,
    MaxItems, NodeId, PageRequest, Payload, PublishModel, Timestamp,
    op::{
        affiliations::SetAffiliations,
        configure::Configure,
        create::Create,
        delete::Delete,
        publish::{NewItem, Publish},
        purge::Purge,
        retract::Retract,
        subscribe::Subscribe,
        unsubscribe::Unsubscribe,
    },
};
use jid::Jid;
use libfuzzer_sys::fuzz_target;

const ACTORS: [&str; 3] = ["a@x", "b@x", "c@x"];
const NODES: [&str; 2] = ["n", "m"];
const MAX_STEPS: usize = 40;

#[derive(Arbitrary, Debug)]
struct ModelStep {
    actor: u8,
    node: u8,
    what: StepKind,
}

#[derive(Arbitrary, Debug)]
enum StepKind {
    Create,
    Delete,
    Publish(u8),
    Retract(u8),
    Purge,
    Subscribe,
    Unsubscribe,
    Affiliate(u8, u8),
    MaxItems(u8),
    Access(bool),
    PublishModel(u8),
}

/// Expected state of a node.
#[derive(Default)]
struct Node {
    affiliations: BTreeMap<&'static str, Affiliation>,
    subscribers: BTreeSet<&'static str>,
    items: Vec<(u8, &'static str)>,
    max_items: Option<usize>,
    is_whitelist: bool,
    publish_model: u8,
}

/// Kind of an event, and its recipients.
type ExpectedEvent = (&'static str, BTreeSet<String>);

impl Node {
    fn of(creator: &'static str) -> Self {
        Self { affiliations: [(creator, Affiliation::Owner)].into(), ..Self::default() }
    }

    fn affiliation(&self, who: &str) -> Affiliation {
        self.affiliations.get(who).copied().unwrap_or(Affiliation::None)
    }

    fn may_receive(&self, who: &str) -> bool {
        use Affiliation::{Member, None, Outcast, Owner, PublishOnly, Publisher};
        match self.affiliation(who) {
            Outcast | PublishOnly => false,
            Owner | Publisher | Member => true,
            None => !self.is_whitelist,
        }
    }

    fn may_publish(&self, who: &str) -> bool {
        use Affiliation::{Member, None, Outcast, Owner, PublishOnly, Publisher};
        match self.affiliation(who) {
            Owner | Publisher | PublishOnly => true,
            Outcast => false,
            Member | None => match self.publish_model {
                0 => false,
                1 => true,
                _ => self.subscribers.contains(who),
            },
        }
    }

    fn may_change(&self, who: &str, publisher: &str) -> bool {
        match self.affiliation(who) {
            Affiliation::Owner | Affiliation::Publisher => true,
            Affiliation::Outcast => false,
            _ => who == publisher,
        }
    }

    fn owners(&self) -> BTreeSet<&'static str> {
        let owners = self.affiliations.iter().filter(|(_, a)| **a == Affiliation::Owner);
        owners.map(|(who, _)| *who).collect()
    }

    fn trim(&mut self) {
        let keep = self.max_items.unwrap_or(usize::MAX);
        self.items.drain(..self.items.len().saturating_sub(keep));
    }

    fn drop_strangers(&mut self) {
        let leaving: Vec<_> =
            self.subscribers.iter().filter(|who| !self.may_receive(who)).copied().collect();
        leaving.iter().for_each(|who| {
            self.subscribers.remove(who);
        });
    }

    fn everyone(&self) -> BTreeSet<String> {
        self.subscribers.iter().map(ToString::to_string).collect()
    }
}

fn affiliation(number: u8) -> Affiliation {
    Affiliation::ALL[usize::from(number) % Affiliation::ALL.len()]
}

/// Returns whether the request succeeds, and the expected notifications.
fn expected(
    nodes: &mut BTreeMap<&'static str, Node>,
    former_owners: &mut BTreeMap<&'static str, BTreeSet<&'static str>>,
    who: &'static str,
    name: &'static str,
    what: &StepKind,
) -> (bool, Option<ExpectedEvent>) {
    if matches!(what, StepKind::Create | StepKind::Publish(_)) {
        // The first publisher creates the node; a deleted node is created again only by a former
        // owner.
        let is_new = !nodes.contains_key(name);
        let is_free = former_owners.get(name).is_none_or(|owners| owners.contains(who));
        if is_new && is_free {
            nodes.insert(name, Node::of(who));
            former_owners.remove(name);
        }
        if let StepKind::Create = what {
            return (is_new && is_free, None);
        }
    }
    let Some(node) = nodes.get_mut(name) else { return (false, None) };
    let is_owner = node.affiliation(who) == Affiliation::Owner;
    let everyone = node.everyone();
    let to_all = |what| Some((what, everyone.clone())).filter(|_| !everyone.is_empty());
    match what {
        StepKind::Create => (false, None),
        StepKind::Delete if is_owner => {
            former_owners.insert(name, node.owners());
            nodes.remove(name);
            (true, to_all("delete"))
        }
        StepKind::Purge if is_owner => {
            node.items.clear();
            (true, to_all("purge"))
        }
        StepKind::MaxItems(max) if is_owner => {
            node.max_items = Some(usize::from(max % 4));
            node.trim();
            (true, None)
        }
        StepKind::Access(is_whitelist) if is_owner => {
            node.is_whitelist = *is_whitelist;
            node.drop_strangers();
            (true, None)
        }
        StepKind::PublishModel(model) if is_owner => {
            node.publish_model = model % 3;
            (true, None)
        }
        StepKind::Affiliate(whom, number) if is_owner => {
            let whom = ACTORS[usize::from(*whom) % 3];
            let owners = node.affiliations.values().filter(|a| **a == Affiliation::Owner).count();
            let new = affiliation(*number);
            let was_owner = node.affiliation(whom) == Affiliation::Owner;
            if !(was_owner && owners == 1 && new != Affiliation::Owner) {
                node.affiliations.insert(whom, new);
                node.drop_strangers();
            }
            (true, None)
        }
        StepKind::Delete
        | StepKind::Purge
        | StepKind::MaxItems(_)
        | StepKind::Access(_)
        | StepKind::PublishModel(_)
        | StepKind::Affiliate(..) => (false, None),
        StepKind::Publish(id) => {
            let is_foreign =
                |(other, publisher): &(u8, &str)| other == id && !node.may_change(who, publisher);
            if !node.may_publish(who) || node.items.iter().any(is_foreign) {
                return (false, None);
            }
            node.items.retain(|(other, _)| other != id);
            node.items.push((*id, who));
            node.trim();
            (true, to_all("items"))
        }
        StepKind::Retract(id) => {
            let item = node.items.iter().position(|(other, _)| other == id);
            let Some(at) = item else { return (false, None) };
            let may_see = node.may_publish(who) || node.may_receive(who);
            if !may_see || !node.may_change(who, node.items[at].1) {
                return (false, None);
            }
            node.items.remove(at);
            (true, to_all("retract"))
        }
        StepKind::Subscribe => {
            if !node.may_receive(who) {
                return (false, None);
            }
            let is_new = node.subscribers.insert(who);
            let last = is_new && !node.items.is_empty();
            (true, last.then(|| ("items", [who.to_string()].into())))
        }
        StepKind::Unsubscribe => (node.subscribers.remove(who), None),
    }
}

struct CountingIds(AtomicU64);

impl IdGenerator for CountingIds {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn node_id(name: &str) -> NodeId {
    NodeId::parse(name).expect("a name")
}

async fn asked(service: &Service, who: &str, name: &str, what: &StepKind) -> Result<(), Error> {
    let jid = Jid::new(who).expect("a JID");
    let actor = Actor { jid: jid.clone(), is_administrator: false };
    let node = node_id(name);
    let configure = async |setting| {
        let request = Configure { node: node.clone(), settings: vec![setting], seen: None };
        service.execute(&actor, &request).await.map(drop)
    };
    let item = |id: &u8| ItemId::parse(&id.to_string()).expect("a name");
    match what {
        StepKind::Create => {
            let request = Create { node: Some(node), settings: Vec::new() };
            service.execute(&actor, &request).await.map(drop)
        }
        StepKind::Delete => {
            let request = Delete { node, redirect: None };
            service.execute(&actor, &request).await
        }
        StepKind::Purge => service.execute(&actor, &Purge { node }).await,
        StepKind::Publish(id) => {
            let payload = Some(Payload::new("<x xmlns='urn:x'/>", "urn:x"));
            let items = vec![NewItem { id: Some(item(id)), payload }];
            let request = Publish { node, items, options: Vec::new(), expected_newest: None };
            service.execute(&actor, &request).await.map(drop)
        }
        StepKind::Retract(id) => {
            let request = Retract { node, items: vec![item(id)], notify: false };
            service.execute(&actor, &request).await
        }
        StepKind::Subscribe => {
            let request = Subscribe { node, jid, settings: None, is_public: false };
            service.execute(&actor, &request).await.map(drop)
        }
        StepKind::Unsubscribe => {
            let request = Unsubscribe { node, jid, subid: None };
            service.execute(&actor, &request).await.map(drop)
        }
        StepKind::Affiliate(whom, number) => {
            let whom = Jid::new(ACTORS[usize::from(*whom) % 3]).expect("a JID").to_bare();
            let request = SetAffiliations {
                node,
                entries: vec![(whom, affiliation(*number))],
                invalid: Vec::new(),
            };
            service.execute(&actor, &request).await.map(drop)
        }
        StepKind::MaxItems(max) => {
            configure(ConfigField::MaxItems(MaxItems::Number(u32::from(max % 4)))).await
        }
        StepKind::Access(true) => configure(ConfigField::AccessModel(AccessModel::Whitelist)).await,
        StepKind::Access(false) => configure(ConfigField::AccessModel(AccessModel::Open)).await,
        StepKind::PublishModel(model) => {
            let models = [PublishModel::Publishers, PublishModel::Open, PublishModel::Subscribers];
            configure(ConfigField::PublishModel(models[usize::from(model % 3)])).await
        }
    }
}

async fn agree(store: &MemoryStore, name: &str, node: Option<&Node>) {
    let stored = store.node(&node_id(name)).await.expect("a store in memory");
    let Some(node) = node else { return assert!(stored.is_none()) };
    let stored = stored.expect("a node that is there");
    let subscribers: BTreeSet<_> = stored.subscribers().map(ToString::to_string).collect();
    assert_eq!(subscribers, node.everyone());
    for who in ACTORS {
        let bare = Jid::new(who).expect("a JID").to_bare();
        assert_eq!(stored.affiliation_of(&bare), node.affiliation(who), "{who}");
    }
    let all = store.page(&node_id(name), &PageRequest::first(usize::MAX), usize::MAX).await;
    let items = all.expect("a store in memory").map(|part| part.entries).unwrap_or_default();
    let items: Vec<_> = items.iter().map(|item| item.id.to_string()).collect();
    let expected: Vec<_> = node.items.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(items, expected);
}

fuzz_target!(|steps: Vec<ModelStep>| {
    block_on(async {
        let store = Arc::new(MemoryStore::new());
        let fresh = Arc::new(CountingIds(AtomicU64::new(1)));
        let clock = Arc::new(|| Timestamp(0));
        let shared: Arc<dyn Store> = store.clone();
        let opened = Service::open(shared, Limits::default(), fresh, clock).await;
        let service = opened.expect("a store in memory");
        let (mut nodes, mut former_owners, mut next) = (BTreeMap::new(), BTreeMap::new(), 0);
        for ModelStep { actor, node, what } in steps.iter().take(MAX_STEPS) {
            let who = ACTORS[usize::from(*actor) % 3];
            let name = NODES[usize::from(*node) % 2];
            let (is_granted, expected_event) =
                expected(&mut nodes, &mut former_owners, who, name, what);
            let result = asked(&service, who, name, what).await;
            assert_eq!(result.is_ok(), is_granted, "{who} {name} {what:?}: {result:?}");
            // Notifications to entities that need not be subscribed are not modelled.
            let is_event = |entry: &Arc<WindowEntry>| {
                !matches!(entry.notification.audience, Audience::Explicit(_))
            };
            let entries =
                (next..service.log_window().next()).filter_map(|n| service.log_window().get(n));
            let actual = entries.filter(is_event).next().map(|entry| {
                let what = match entry.notification.event {
                    Event::Configured(_) => "configuration",
                    Event::Deleted { .. } => "delete",
                    Event::Published(_) => "items",
                    Event::Purged => "purge",
                    Event::Retracted(_) => "retract",
                    Event::AffiliationChanged(_)
                    | Event::Announced(_)
                    | Event::ApprovalRequested(_)
                    | Event::Subscription { .. } => "notice",
                };
                (what, entry.recipients.iter().map(ToString::to_string).collect())
            });
            next = service.log_window().next();
            assert_eq!(actual, expected_event, "{who} {name} {what:?}");
            agree(&store, name, nodes.get(name)).await;
        }
    });
});
