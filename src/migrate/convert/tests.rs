//! Tests of the conversion of nodes and of its warnings.

use crate::migrate::source_node::fields;
use gjallar_pubsub::{PublishModel, Sequence, Show, ShowSet};

use super::*;

struct CountingIds;

impl IdGenerator for CountingIds {
    fn next_u64(&self) -> u64 {
        7
    }
}

const NOW: Timestamp = Timestamp(1_000_000);

fn converted(found: SourceNode) -> (Option<ConvertedNode>, Vec<(String, Vec<String>)>) {
    converted_within(found, &|_| Limits::default())
}

fn converted_within(
    found: SourceNode,
    limits: &dyn Fn(&NodeId) -> Limits,
) -> (Option<ConvertedNode>, Vec<(String, Vec<String>)>) {
    let mut warnings = MigrationWarnings::default();
    let service = BareJid::new("pubsub.x").unwrap();
    let context = ConvertContext { service: &service, limits, fresh: &CountingIds, now: NOW };
    let node = convert(found, &context, &mut warnings);
    let summary = |(what, warning): (&str, &crate::migrate::MigrationWarning)| {
        (what.to_owned(), warning.places.clone())
    };
    (node, warnings.iter().map(summary).collect())
}

fn found(config: &[(&str, &str)]) -> SourceNode {
    let affiliations = fields(&[("owner@x", "owner")]);
    SourceNode { name: "n".into(), config: fields(config), affiliations, ..SourceNode::default() }
}

fn subscription(jid: &str, state: &str, options: &[(&str, &str)]) -> SourceSubscription {
    SourceSubscription { jid: jid.into(), state: state.into(), options: fields(options) }
}

fn item(id: &str, created: u64, modified: u64) -> SourceItem {
    SourceItem {
        id: id.into(),
        publisher: Some("bot@x/r".into()),
        created: Timestamp(created),
        modified: Timestamp(modified),
        payload: Some("<a xmlns='urn:a'/>".into()),
    }
}

fn only(what: &str, places: &[&str]) -> Vec<(String, Vec<String>)> {
    vec![(what.to_owned(), places.iter().map(|place| (*place).to_owned()).collect())]
}

#[test]
fn unknown_access_values_become_whitelist_and_others_default() {
    let (node, warnings) = converted(found(&[
        ("pubsub#access_model", "friends"),
        ("pubsub#publish_model", "anybody"),
        ("pubsub#title", "t"),
    ]));
    let config = node.unwrap().node.config;
    assert_eq!(config.access_model, AccessModel::Whitelist);
    assert_eq!(config.publish_model, PublishModel::Publishers);
    assert_eq!(config.title, "t");
    let what: Vec<_> = warnings.iter().map(|(what, places)| (what.as_str(), &places[..])).collect();
    assert_eq!(
        what,
        [
            ("an unknown access model: whitelist is used", &["n: friends".to_owned()][..]),
            (
                "pubsub#publish_model is unknown or invalid: the default is used",
                &["n: anybody".to_owned()][..]
            ),
        ]
    );
    // No item is dropped because a number is not understood.
    let mut all = found(&[("pubsub#max_items", "lots")]);
    all.items = (1..=100).map(|n| item(&n.to_string(), n, n)).collect();
    assert_eq!(converted(all).0.unwrap().items.len(), 100);
}

#[test]
fn collections_are_not_converted() {
    let (node, warnings) = converted(found(&[("pubsub#node_type", "collection")]));
    assert!(node.is_none());
    assert_eq!(warnings, only("a collection", &["n"]));
}

#[test]
fn lower_of_two_affiliations_is_converted() {
    let mut node = found(&[]);
    node.affiliations.extend(fields(&[
        ("out@x", "outcast"),
        ("OUT@x", "member"),
        ("bot@x", "publisher"),
        ("BOT@x", "publish-only"),
        ("full@x/r", "none"),
    ]));
    let (node, warnings) = converted(node);
    let affiliations = node.unwrap().affiliations;
    let of = |jid: &str| affiliations[&BareJid::new(jid).unwrap()];
    assert_eq!((of("out@x"), of("bot@x")), (Affiliation::Outcast, Affiliation::PublishOnly));
    let what = "an entity with two affiliations: the lower one is used";
    assert_eq!(warnings, only(what, &["n: OUT@x", "n: BOT@x"]));
}

#[test]
fn items_beyond_the_limits_are_reported() {
    let limits = |node: &NodeId| {
        let max_items = if node.as_str() == "few" { 2 } else { 3 };
        Limits { max_items, ..Limits::default() }
    };
    let what = "more items or bytes than a node may have: the next publish evicts the oldest";
    for (name, expected) in [("few", only(what, &["few"])), ("more", Vec::new())] {
        let mut node = found(&[("pubsub#max_items", "max")]);
        node.name = name.into();
        node.items = (1..=3).map(|n| item(&n.to_string(), n, n)).collect();
        let (node, warnings) = converted_within(node, &limits);
        assert_eq!(node.unwrap().items.len(), 3);
        assert_eq!(warnings, expected);
    }
}

#[test]
fn newer_of_two_items_of_one_name_is_converted() {
    let mut node = found(&[]);
    node.items = vec![item("a", 3, 3), item("a", 1, 1), item("b", 2, 2)];
    let (node, warnings) = converted(node);
    let positions: Vec<_> =
        node.unwrap().items.iter().map(|item| (item.id.to_string(), item.published.0)).collect();
    assert_eq!(positions, [("b".to_owned(), 2), ("a".to_owned(), 3)]);
    assert_eq!(warnings, only("an item replaced by a newer one with the same id", &["n: a"]));
}

#[test]
fn node_with_an_invalid_name_is_not_converted() {
    for name in ["", "a\u{1}", &"a".repeat(1024)] {
        let (node, warnings) = converted(SourceNode { name: name.into(), ..found(&[]) });
        assert!(node.is_none());
        assert_eq!(warnings.len(), 1);
    }
}

#[test]
fn subscriptions_without_access_end() {
    let mut closed = found(&[("pubsub#access_model", "whitelist")]);
    closed.affiliations.extend(fields(&[("member@x", "member"), ("out@x", "outcast")]));
    for jid in ["member@x/1", "owner@x", "out@x", "other@x"] {
        closed.subscriptions.push(subscription(jid, "subscribed", &[]));
    }
    let (node, warnings) = converted(closed);
    let jids: Vec<_> = node.unwrap().subscriptions.iter().map(|(jid, _)| jid.to_string()).collect();
    assert_eq!(jids, ["member@x/1", "owner@x"]);
    let what = "a subscription of an entity that has no access to the node";
    assert_eq!(warnings, only(what, &["n: out@x", "n: other@x"]));
    // Subscribers whom only a roster can admit keep their subscriptions.
    let mut roster = found(&[("pubsub#access_model", "presence")]);
    roster.subscriptions.push(subscription("other@x", "subscribed", &[]));
    assert_eq!(converted(roster).0.unwrap().subscriptions.len(), 1);
}

#[test]
fn a_subscription_keeps_its_options_and_ends_with_its_lease() {
    let mut node = found(&[]);
    node.subscriptions = vec![
        subscription("a@x", "subscribed", &[("pubsub#show-values", "away"), ("pubsub#x", "y")]),
        subscription("b@x", "subscribed", &[("pubsub#expire", "1970-01-01T00:00:01Z")]),
        subscription("c@x", "unconfigured", &[]),
        subscription("c@x", "subscribed", &[("pubsub#deliver", "0")]),
        subscription("d@x", "pending", &[]),
        subscription("@", "subscribed", &[]),
    ];
    let (node, warnings) = converted(node);
    let subscriptions = node.unwrap().subscriptions;
    let shows = subscriptions[0].1.show_values;
    assert!(shows.has(Show::Away) && shows != ShowSet::ALL);
    assert_eq!(subscriptions[1].0.to_string(), "c@x");
    assert!(!subscriptions[1].1.deliver);
    assert_eq!(subscriptions.len(), 2);
    let what: Vec<_> = warnings.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(
        what,
        [
            "a subscription whose lease is over",
            "a subscription with an invalid JID",
            "a subscription with missing data",
            "another subscription of the same JID",
            "unsupported subscription option pubsub#x",
        ]
    );
}

#[test]
fn a_pending_subscription_stays_pending() {
    let mut asks = found(&[("pubsub#access_model", "authorize")]);
    asks.subscriptions.push(subscription("a@x", "pending", &[("pubsub#deliver", "0")]));
    let (node, warnings) = converted(asks);
    let pending = node.unwrap().pending;
    assert!(pending.len() == 1 && !pending[0].1.deliver);
    assert_eq!(warnings, []);
}

#[test]
fn items_keep_their_order_of_creation_and_modification() {
    let mut node = found(&[("pubsub#max_items", "max")]);
    node.items = vec![item("b", 20, 20), item("a", 10, 30), item("c", 25, 25)];
    let (node, warnings) = converted(node);
    let node = node.unwrap();
    let positions: Vec<_> = node
        .items
        .iter()
        .map(|item| (item.id.as_str(), item.created.sequence.0, item.event_id.sequence.0))
        .collect();
    // a, b and c were created, then a was modified.
    assert_eq!(positions, [("b", 2, 2), ("c", 3, 3), ("a", 1, 4)]);
    assert_eq!((node.sequence, node.node.created), (Sequence(4), Timestamp(10)));
    assert_eq!(node.items[0].publisher.to_string(), "bot@x");
    assert_eq!(warnings, []);
}

#[test]
fn items_beyond_max_items_and_invalid_items_are_not_converted() {
    let mut node = found(&[("pubsub#max_items", "5")]);
    node.items = (1..=6).map(|n| item(&n.to_string(), n, n)).collect();
    node.items[1].payload = Some("<a><!-- --></a>".into());
    node.items[2].payload = None;
    node.items[3].publisher = None;
    node.items[4].id = String::new();
    let (node, warnings) = converted(node);
    let items = node.unwrap().items;
    let ids: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["3", "4", "6"]);
    assert_eq!(items[1].publisher.to_string(), "owner@x");
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    let (node, warnings) = converted(SourceNode {
        items: vec![item("1", 1, 1)],
        ..found(&[("pubsub#persist_items", "0")])
    });
    assert!(node.unwrap().items.is_empty());
    assert_eq!(warnings, only("an item beyond pubsub#max_items", &["n: 1"]));
}

#[test]
fn node_without_owners_belongs_to_the_service() {
    let (node, warnings) = converted(SourceNode { affiliations: Vec::new(), ..found(&[]) });
    assert_eq!(node.unwrap().node.creator.to_string(), "pubsub.x");
    assert_eq!(warnings, only("a node without owner: only administrators can change it", &["n"]));
}

#[test]
fn each_warning_keeps_its_first_places() {
    let mut warnings = MigrationWarnings::default();
    (0..10).for_each(|n| warnings.add("what", n.to_string()));
    let (what, warning) = warnings.iter().next().unwrap();
    assert_eq!((what, warning.times, warning.places.len()), ("what", 10, 3));
}
