//! Tests of the rules as functions, without store, clock and runtime.

mod access;
mod changes;
mod deleted_nodes;
mod publishing;
mod spellings;
mod subscriber_list;

use std::time::{Duration, Instant};

use jid::{BareJid, Jid};

use crate::{
    Actor, Affiliation, Change, Changes, ConfigField, Context, Decision, Epoch, Error, IdGenerator,
    Limits, Node, NodeConfig, NodeId, Payload, Policy, Timestamp,
    op::publish::{NewItem, Publish},
};

struct CountingIds(std::sync::atomic::AtomicU64);

impl IdGenerator for CountingIds {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

static FRESH: CountingIds = CountingIds(std::sync::atomic::AtomicU64::new(1));

/// Returns the result of a function and the shortest time of several calls: other processes may delay some of them.
#[expect(clippy::disallowed_methods, reason = "measures how long a rule takes")]
pub(crate) fn fastest<T>(run: impl Fn() -> T) -> (T, Duration) {
    let timed = || {
        let began = Instant::now();
        let result = run();
        (began.elapsed(), result)
    };
    let runs = std::iter::repeat_with(timed).take(5);
    let (took, result) = runs.min_by_key(|(took, _)| *took).unwrap();
    (result, took)
}

fn bare(jid: &str) -> BareJid {
    BareJid::new(jid).unwrap()
}

fn jid(jid: &str) -> Jid {
    Jid::new(jid).unwrap()
}

/// Builder of a node of `owner@x`.
struct NodeBuilder(Node);

fn node() -> NodeBuilder {
    let config = NodeConfig::initial(&Limits::default());
    let id = NodeId::parse("n").unwrap();
    let node = Node::new(id, Epoch(1), config, bare("owner@x"), Timestamp(0));
    NodeBuilder(node).with("owner@x", Affiliation::Owner)
}

impl NodeBuilder {
    fn with(mut self, entity: &str, affiliation: Affiliation) -> Self {
        self.0.load_affiliation(bare(entity), affiliation);
        self
    }

    fn subscribed(mut self, who: &str) -> Self {
        self.0.load_subscription(jid(who), 0);
        self
    }

    fn set(mut self, setting: ConfigField) -> Self {
        self.0.config = self.0.config.with(&[setting], &Limits::default()).unwrap();
        self
    }
}

fn actor(who: &str) -> Actor {
    Actor { jid: jid(who), is_administrator: who.starts_with("admin@") }
}

/// Calls a rule with an actor.
fn by<R>(who: &str, rule: impl FnOnce(&Context<'_>) -> R) -> R {
    let (actor, policy) = (actor(who), Policy::default());
    let now = Timestamp(1);
    rule(&Context {
        actor: &actor,
        administrators: &[],
        service: None,
        policy: &policy,
        now,
        ids: &FRESH,
        node_count: 0,
        actor_node_count: 0,
        policy_node_count: 0,
        actor_subscription_count: 0,
        reads_rosters: false,
        owner_roster: None,
    })
}

fn item(id: &str) -> NewItem {
    let payload = Some(Payload::new("<x xmlns='urn:x'/>", "urn:x"));
    NewItem { id: Some(crate::ItemId::parse(id).unwrap()), payload }
}

fn publication(items: Vec<NewItem>) -> Publish {
    Publish { node: NodeId::parse("n").unwrap(), items, options: Vec::new(), expected_newest: None }
}

fn changes_of<R>(decision: &Decision<R>) -> Vec<&Change> {
    decision.changes.iter().collect()
}

fn applied(node: &Node, changes: &Changes) -> Node {
    let mut node = node.clone();
    node.apply(changes);
    node
}

fn refuses<R: std::fmt::Debug>(decision: Result<Decision<R>, Error>, expected: &Error) {
    assert_eq!(decision.err().as_ref(), Some(expected));
}
