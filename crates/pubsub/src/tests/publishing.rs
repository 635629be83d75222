//! Publishing: the items that nodes accept (§4.3, §7.1.3), and the resulting changes and log entries.

use crate::{
    Affiliation, Audience, Change, ConfigField, ConfiguredSubscription, Context, Creators, Error,
    Event, Limits, MaxItems, NodeConfig, Payload, Policy, Recipients, Sequence, SubId,
    SubscriptionDetails, SubscriptionOptions, Timestamp,
    op::{
        publish::{ExistingItems, NewItem, publish},
        retract::{Retract, retract},
        subscribe::{Subscribe, subscribe},
    },
};

use super::{applied, bare, by, changes_of, item, jid, node, publication, refuses};

#[test]
fn four_kinds_of_node_accept_items_and_payloads_as_specified() {
    let empty = || NewItem { id: None, payload: None };
    // Whether items persist, whether notifications include payloads; then the errors for no item, an item without
    // payload, an item with payload.
    for (persist, payloads, expected) in [
        (true, true, [Some(Error::ItemRequired), Some(Error::PayloadRequired), None]),
        (true, false, [Some(Error::ItemRequired), None, None]),
        (false, true, [Some(Error::ItemRequired), Some(Error::PayloadRequired), None]),
        (false, false, [None, Some(Error::ItemForbidden), Some(Error::ItemForbidden)]),
    ] {
        let node = node()
            .set(ConfigField::PersistItems(persist))
            .set(ConfigField::DeliverPayloads(payloads))
            .0;
        let requests = [vec![], vec![empty()], vec![item("1")]];
        for (items, expected) in requests.into_iter().zip(expected) {
            let request = publication(items);
            let decision =
                by("owner@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx));
            assert_eq!(decision.err(), expected, "{persist} {payloads} {request:?}");
        }
    }
}

#[test]
fn transient_publish_only_advances_sequence() {
    let node = node().set(ConfigField::PersistItems(false)).0;
    let request = publication(vec![item("1")]);
    let decision =
        by("owner@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx)).unwrap();
    assert!(changes_of(&decision).is_empty());
    assert_eq!(decision.changes.sequence(), Sequence(1));
    assert!(!decision.changes.is_empty(Some(&node)));
    assert!(matches!(decision.notifications[0].event, Event::Published(_)));
}

#[test]
fn each_item_of_one_request_takes_the_next_sequence() {
    let node = node().0;
    let request = publication(vec![item("a"), item("b")]);
    let decision =
        by("owner@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx)).unwrap();
    let published: Vec<_> = changes_of(&decision)
        .into_iter()
        .filter_map(|change| match change {
            Change::Published(item) => {
                Some((item.id.to_string(), item.event_id.sequence.0, item.index))
            }
            _ => None,
        })
        .collect();
    assert_eq!(published, [("a".to_owned(), 1, 0), ("b".to_owned(), 2, 0)]);
    assert_eq!(decision.notifications[0].event_id.sequence, Sequence(1));
}

/// §6.1.7: the last item has its original event id and time.
#[test]
fn new_subscriber_gets_the_last_item_as_it_was_delivered() {
    let node = node().0;
    let request = publication(vec![item("a")]);
    let published =
        by("owner@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx)).unwrap();
    let last = changes_of(&published).into_iter().find_map(|change| match change {
        Change::Published(item) => Some(item.clone()),
        _ => None,
    });
    let request =
        Subscribe { node: node.id.clone(), jid: jid("a@x/r"), settings: None, is_public: false };
    let decision = by("a@x/r", |cx| subscribe(Some(&node), &request, last.as_deref(), cx));
    let entry = decision.unwrap().notifications.remove(0);
    assert_eq!((entry.nonce.is_some(), entry.occurred_at), (true, Timestamp(1)));
    assert_eq!(entry.event_id, published.notifications[0].event_id);
    assert_eq!(entry.audience, Audience::Listed(Recipients::one(jid("a@x/r"))));
}

#[test]
fn batch_with_a_repeated_item_id_is_refused() {
    let node = node().0;
    let request = publication(vec![item("a"), item("a")]);
    let decision =
        by("owner@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx));
    refuses(decision, &Error::BadRequest("two items have the same id"));
}

#[test]
fn transient_node_announces_each_item() {
    let node = node().set(ConfigField::MaxItems(MaxItems::Number(0))).0;
    let request = publication(vec![item("a"), item("b")]);
    let decision =
        by("owner@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx)).unwrap();
    let is_emptied = |change: &&Change| matches!(change, Change::ItemsEvicted { keep: 0, .. });
    assert!(changes_of(&decision).iter().any(is_emptied));
    assert!(!decision.notifications.is_empty());
}

#[test]
fn event_does_not_exceed_the_stanza_limit() {
    let node = node().0;
    let items = (0..20).map(|n| {
        let xml = format!("<x xmlns='urn:x'>{}</x>", "x".repeat(30_000));
        NewItem { id: item(&n.to_string()).id, payload: Some(Payload::new(xml, "urn:x")) }
    });
    let request = publication(items.collect());
    let decision =
        by("owner@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx));
    refuses(decision, &Error::BatchTooBig { max: Limits::default().max_reply_bytes });
}

/// Bulk retraction takes as many items as fit into a reply by `Item::size`; the rule accepts such a batch.
#[test]
fn batch_that_fits_by_the_size_of_its_items_is_retracted() {
    let node = node().0;
    let items: Vec<_> = (0..96).map(|n| item(&format!("{}{n}", "'".repeat(1020)))).collect();
    let ids: Vec<_> = items.iter().filter_map(|item| item.id.clone()).collect();
    let publishers = ids.iter().map(|id| (id.clone(), bare("owner@x"))).collect();
    let request = Retract { node: node.id.clone(), items: ids, notify: false };
    let decision = by("owner@x", |cx| retract(Some(&node), &request, &publishers, cx)).unwrap();
    assert_eq!(changes_of(&decision).len(), 96);
}

#[test]
fn first_publisher_creates_the_node_with_its_options() {
    let mut request = publication(vec![item("1")]);
    request.options = vec![ConfigField::MaxItems(MaxItems::Number(7))];
    let decision =
        by("bot@x", |cx| publish(None, &request, &ExistingItems::default(), cx)).unwrap();
    let created = match changes_of(&decision).as_slice() {
        [
            Change::Created(created),
            Change::AffiliationSet(owner, Affiliation::Owner),
            Change::Published(_),
            ..,
        ] => {
            assert_eq!(owner.as_str(), "bot@x");
            created.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(created.config.max_items, MaxItems::Number(7));
    let node = applied(&created, &decision.changes);
    assert_eq!(node.affiliation_of(&bare("bot@x")), Affiliation::Owner);
    assert_eq!(node.sequence, Sequence(1));
    // The options are met at first, and then one of them is not.
    assert!(
        by("bot@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx)).is_ok()
    );
    request.options.push(ConfigField::PersistItems(false));
    let decision = by("bot@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx));
    refuses(decision, &Error::PreconditionNotMet { field: "pubsub#persist_items" });
}

#[test]
fn entities_that_may_not_create_nodes_publish_at_existing_ones() {
    let request = publication(vec![item("1")]);
    let decision = by("bot@x", |cx| {
        let policy = Policy { creators: Creators::Administrators, ..cx.policy.clone() };
        publish(None, &request, &ExistingItems::default(), &Context { policy: &policy, ..*cx })
    });
    refuses(decision, &Error::NodeNotFound);
    let full = by("bot@x", |cx| {
        publish(
            None,
            &request,
            &ExistingItems::default(),
            &Context { node_count: cx.limits().max_nodes, ..*cx },
        )
    });
    refuses(full, &Error::MaxNodesExceeded);
}

/// Ten log entries list a hundred thousand subscribers with SubIDs in the order of the subscribers: ten thousand in
/// each entry.
#[test]
fn an_event_for_many_subids_is_one_event() {
    let mut node = node().0;
    for number in 0..100_000 {
        let subid = SubId::new(&number.to_string());
        let details = SubscriptionDetails::new(
            Some(subid),
            SubscriptionOptions::default(),
            Sequence(0),
            Timestamp(0),
        );
        let configured = ConfiguredSubscription {
            since: 0,
            options_since: 0,
            is_pending: false,
            details: vec![details].into(),
        };
        node.load_configured(jid(&format!("{number:06}@x")), configured);
    }
    let request = publication(vec![item("1")]);
    let decision =
        by("owner@x", |cx| publish(Some(&node), &request, &ExistingItems::default(), cx)).unwrap();
    let listed =
        decision.notifications.iter().filter_map(|notification| match &notification.audience {
            Audience::Listed(recipients) => Some(recipients),
            _ => None,
        });
    let listed: Vec<_> = listed.collect();
    assert_eq!(listed.iter().map(|list| list.len()).collect::<Vec<_>>(), [10_000; 10]);
    let all = listed.iter().flat_map(|list| list.iter_with_subids());
    for (number, (to, subids)) in all.enumerate() {
        assert_eq!(to, &jid(&format!("{number:06}@x")));
        assert_eq!(subids, [SubId::new(&number.to_string())]);
    }
}

/// §7.1.5: fields with several values are sets, and `max` is the maximum number of items of the service.
#[test]
fn preconditions_are_met_by_equivalent_configurations() {
    let limits = Limits::default();
    let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let config = NodeConfig {
        roster_groups_allowed: groups(&["a", "b"]),
        max_items: MaxItems::Number(limits.max_items),
        ..NodeConfig::initial(&limits)
    };
    let wants_groups = |names| ConfigField::RosterGroupsAllowed(groups(names));
    for (wanted, is_met) in [
        (wants_groups(&["b", "a"]), true),
        (wants_groups(&["b"]), false),
        (wants_groups(&["a", "b", "c"]), false),
        (ConfigField::MaxItems(MaxItems::Max), true),
        (ConfigField::MaxItems(MaxItems::Number(limits.max_items + 1)), false),
        (ConfigField::MaxPayloadSize(limits.max_payload_bytes + 1), false),
    ] {
        assert_eq!(config.meets(&wanted, &limits), is_met, "{wanted:?}");
    }
}
