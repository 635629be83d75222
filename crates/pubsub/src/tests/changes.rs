//! Changes of affiliations, subscriptions and configurations, and the access that they revoke.

use jid::BareJid;

use crate::{
    AccessModel, Affiliation, Change, Changes, ConfigField, ConfigRevision, ConfiguredSubscription,
    Context, MaxItems, Node, Sequence, SubId, SubscriptionDetails, SubscriptionOptions,
    SubscriptionState, Timestamp,
    op::{
        affiliations::{SetAffiliations, set_affiliations},
        auto_subscribe::{InterestedResource, Reevaluation},
        configure::{Configure, configure, roster_after},
        delete::{Delete, RedirectCounts, delete},
        subscriptions::{SetSubscriptions, set_subscriptions},
    },
};

use super::{applied, bare, by, changes_of, jid, node};

fn set(entries: &[(&str, Affiliation)]) -> SetAffiliations {
    let entries = entries.iter().map(|(who, affiliation)| (bare(who), *affiliation)).collect();
    SetAffiliations { node: node().0.id, entries, invalid: Vec::new() }
}

#[test]
fn an_outcast_loses_every_subscription() {
    let node = node().subscribed("a@x").subscribed("a@x/r").subscribed("ab@x").0;
    let request = set(&[("a@x", Affiliation::Outcast)]);
    let decision = by("owner@x", |cx| set_affiliations(Some(&node), &request, None, cx)).unwrap();
    assert_eq!(decision.changes.unsubscribed().count(), 2);
    let after = applied(&node, &decision.changes);
    assert_eq!(after.subscribers().collect::<Vec<_>>(), [&jid("ab@x")]);
}

#[test]
fn last_owner_stays_for_every_order_of_entries() {
    let node = node().with("b@x", Affiliation::Owner).0;
    let none = Affiliation::None;
    for entries in [[("owner@x", none), ("b@x", none)], [("b@x", none), ("owner@x", none)]] {
        let request = set(&entries);
        let decision =
            by("owner@x", |cx| set_affiliations(Some(&node), &request, None, cx)).unwrap();
        assert_eq!(decision.reply.failed.len(), 2);
        assert!(decision.changes.is_empty(Some(&node)));
    }
    let request = set(&[("owner@x", none), ("b@x", none), ("c@x", Affiliation::Owner)]);
    let decision = by("owner@x", |cx| set_affiliations(Some(&node), &request, None, cx)).unwrap();
    assert!(decision.reply.failed.is_empty());
    let after = applied(&node, &decision.changes);
    assert_eq!(after.owners().collect::<Vec<_>>(), [&bare("c@x")]);
}

/// If a new owner exceeds the limit, the last owner keeps its affiliation.
#[test]
fn an_owner_beyond_the_limit_does_not_replace_the_last_one() {
    let node = node().0;
    let request = set(&[("b@x", Affiliation::Owner), ("owner@x", Affiliation::None)]);
    let decision = by("owner@x", |cx| {
        let limits = crate::Limits { max_affiliations: 1, ..cx.limits().clone() };
        let policy = crate::Policy { limits, ..cx.policy.clone() };
        let cx = Context { policy: &policy, ..*cx };
        set_affiliations(Some(&node), &request, None, &cx)
    });
    let decision = decision.unwrap();
    assert_eq!(decision.reply.failed.len(), 2);
    assert_eq!(applied(&node, &decision.changes).owners().count(), 1);
}

#[test]
fn whitelist_keeps_the_subscriptions_of_listed_entities() {
    let node = node()
        .with("m@x", Affiliation::Member)
        .subscribed("m@x/r")
        .subscribed("a@x")
        .subscribed("owner@x")
        .0;
    let settings = vec![ConfigField::AccessModel(AccessModel::Whitelist)];
    let request = Configure { node: node.id.clone(), settings, seen: None };
    let decision = by("owner@x", |cx| configure(Some(&node), &request, None, cx)).unwrap();
    let after = applied(&node, &decision.changes);
    assert_eq!(after.subscribers().collect::<Vec<_>>(), [&jid("m@x/r"), &jid("owner@x")]);
}

#[test]
fn unchanged_configuration_makes_no_changes() {
    let node = node().0;
    let settings = vec![ConfigField::PersistItems(true), ConfigField::Title(String::new())];
    let request = Configure { node: node.id.clone(), settings, seen: None };
    let decision = by("owner@x", |cx| configure(Some(&node), &request, None, cx)).unwrap();
    assert!(decision.changes.is_empty(Some(&node)) && decision.notifications.is_empty());
}

#[test]
fn lower_max_items_evicts_items_at_once() {
    let node = node().0;
    for (setting, keep) in [
        (ConfigField::MaxItems(MaxItems::Number(3)), Some(3)),
        (ConfigField::PersistItems(false), Some(0)),
    ] {
        let request = Configure { node: node.id.clone(), settings: vec![setting], seen: None };
        let decision = by("owner@x", |cx| configure(Some(&node), &request, None, cx)).unwrap();
        let trimmed = changes_of(&decision).into_iter().find_map(|change| match change {
            Change::ItemsEvicted { keep, .. } => Some(*keep),
            _ => None,
        });
        assert_eq!(trimmed, keep);
    }
}

#[test]
fn an_owner_cannot_subscribe_entities_without_access() {
    let node = node().with("o@x", Affiliation::Outcast).subscribed("s@x").0;
    let entries = vec![
        (jid("o@x"), None, Some(SubscriptionState::Subscribed)),
        (jid("s@x"), None, Some(SubscriptionState::Pending)),
        (jid("a@x"), None, Some(SubscriptionState::Subscribed)),
    ];
    let request = SetSubscriptions { node: node.id.clone(), entries, invalid: Vec::new() };
    let decision = by("owner@x", |cx| set_subscriptions(Some(&node), &request, None, cx)).unwrap();
    assert_eq!(
        decision.reply.failed,
        [
            ("o@x".into(), None, SubscriptionState::None),
            ("s@x".into(), None, SubscriptionState::Subscribed),
        ]
    );
    let after = applied(&node, &decision.changes);
    assert_eq!(after.subscribers().collect::<Vec<_>>(), [&jid("a@x"), &jid("s@x")]);
}

/// An entry without a SubID applies to all subscriptions of its JID.
#[test]
fn entries_for_all_and_for_some_subscriptions_are_applied_together() {
    let (none, subscribed) = (SubscriptionState::None, SubscriptionState::Subscribed);
    let subids = ["1", "2", "3"].map(SubId::new);
    let details = |id: &SubId| {
        SubscriptionDetails::new(
            Some(id.clone()),
            SubscriptionOptions::default(),
            Sequence(0),
            Timestamp(0),
        )
    };
    let details = subids.iter().map(details).collect();
    let mut node = node().0;
    let configured =
        ConfiguredSubscription { details, is_pending: false, since: 0, options_since: 0 };
    node.load_configured(jid("a@x"), configured);
    let of = |number: usize, wanted| (jid("a@x"), Some(subids[number].clone()), Some(wanted));
    let of_all = |wanted| (jid("a@x"), None, Some(wanted));
    for (entries, left, failed) in [
        (vec![of(0, none), of(0, none), of(1, none)], 1, 0),
        (vec![of(0, none), of_all(none)], 0, 0),
        (vec![of_all(none), of(2, none)], 0, 0),
        (vec![of(0, none), of_all(subscribed), of(1, none)], 1, 1),
        (vec![of_all(none), of(1, subscribed)], 0, 1),
        (vec![of(1, subscribed), of_all(none), of(0, none)], 2, 1),
    ] {
        let request =
            SetSubscriptions { node: node.id.clone(), entries: entries.clone(), invalid: vec![] };
        let set = by("owner@x", |cx| set_subscriptions(Some(&node), &request, None, cx)).unwrap();
        let after = applied(&node, &set.changes);
        let configured = after.configured_subscription(&jid("a@x"));
        assert_eq!(
            configured.map_or(0, |configured| configured.details.len()),
            left,
            "{entries:?}"
        );
        assert_eq!(set.reply.failed.len(), failed, "{entries:?}");
        let state = if left == 0 { none } else { subscribed };
        assert!(set.reply.failed.iter().all(|(_, _, present)| *present == state), "{entries:?}");
    }
}

#[test]
fn deletion_takes_a_sequence() {
    let node = node().0;
    let request = Delete { node: node.id.clone(), redirect: None };
    let decision = by("owner@x", |cx| delete(Some(&node), &request, RedirectCounts::default(), cx));
    let decision = decision.unwrap();
    assert_eq!(decision.notifications[0].event_id.sequence, Sequence(1));
}

/// A requester knows its own consecutive changes, but not those of other entities.
#[test]
fn revision_reveals_changes_by_others_since_the_form() {
    let (requester, other) = (bare("one@x"), bare("other@x"));
    let first = ConfigRevision::first(requester.clone());
    let own = first.next(&requester, true).next(&requester, true);
    assert!((0..=2).all(|seen| own.is_known(&requester, seen)));
    assert!(own.is_known(&other, 2) && !own.is_known(&other, 1));
    let changed = own.next(&other, true);
    assert!(!changed.is_known(&requester, 2) && changed.is_known(&requester, 3));
    assert!(changed.is_known(&other, 2) && !changed.is_known(&other, 1));
    let again = changed.next(&requester, false);
    assert!(
        again.is_known(&requester, 3)
            && !again.is_known(&requester, 2)
            && !again.is_known(&requester, 9)
    );
    let last_owner = other;
    let expected =
        ConfigRevision { number: 4, changed_by: requester, base: 3, last_owner, ..first };
    assert_eq!(again, expected);
}

/// Access is given by the roster of the owner that last chose to give access by its roster.
#[test]
fn an_owner_chooses_its_own_roster() {
    let node = node().with("other@x", Affiliation::Owner).0;
    let configured = |node: &Node, who: &str, settings: Vec<ConfigField>| {
        let request = Configure { node: node.id.clone(), settings, seen: None };
        by(who, |cx| {
            let after = roster_after(node, &request, cx.policy, &bare(who)).1.cloned();
            let cx = Context { reads_rosters: true, ..*cx };
            let decision = configure(Some(node), &request, None, &cx).unwrap();
            assert_eq!(decision.reply, !decision.changes.is_empty(Some(node)));
            let node = applied(node, &decision.changes);
            assert_eq!(node.roster_owner(), after.as_ref());
            node
        })
    };
    let roster_owner = |node: &Node| node.roster_owner().map_or(String::new(), BareJid::to_string);
    let model = |model| vec![ConfigField::AccessModel(model)];
    let (presence, open) = (|| model(AccessModel::Presence), || model(AccessModel::Open));
    let groups = |group: &str| vec![ConfigField::RosterGroupsAllowed(vec![group.into()])];
    let by_other = configured(&node, "other@x", presence());
    // Changes without an access model that depends on rosters choose no roster.
    for (before, who, settings, expected) in [
        (&node, "owner@x", presence(), "owner@x"),
        (&node, "other@x", presence(), "other@x"),
        (&node, "other@x", groups("G"), "owner@x"),
        (&node, "admin@x", presence(), "owner@x"),
        (&by_other, "owner@x", presence(), "other@x"),
        (&by_other, "owner@x", model(AccessModel::Roster), "owner@x"),
        (&by_other, "owner@x", groups("G"), "owner@x"),
        (&by_other, "admin@x", groups("G"), "other@x"),
        (&by_other, "owner@x", open(), "other@x"),
        (&by_other, "owner@x", vec![ConfigField::Title("T".into())], "other@x"),
    ] {
        assert_eq!(
            roster_owner(&configured(before, who, settings.clone())),
            expected,
            "{settings:?}"
        );
    }
    // The same groups in another order are no new choice.
    let of_groups = |names: [&str; 2]| {
        let names = names.map(ToOwned::to_owned).to_vec();
        vec![ConfigField::AccessModel(AccessModel::Roster), ConfigField::RosterGroupsAllowed(names)]
    };
    let by_groups = configured(&node, "other@x", of_groups(["Work", "Friends"]));
    for (groups, expected) in [(["Friends", "Work"], "other@x"), (["Friends", "Family"], "owner@x")]
    {
        assert_eq!(roster_owner(&configured(&by_groups, "owner@x", of_groups(groups))), expected);
    }
    let entries = vec![(bare("other@x"), Affiliation::None)];
    let request = SetAffiliations { node: node.id.clone(), entries, invalid: Vec::new() };
    let left = by("owner@x", |cx| set_affiliations(Some(&by_other), &request, None, cx)).unwrap();
    let left = applied(&by_other, &left.changes);
    for (who, settings, expected) in [
        ("owner@x", vec![ConfigField::Title("T".into())], ""),
        ("admin@x", presence(), ""),
        ("owner@x", presence(), "owner@x"),
    ] {
        assert_eq!(
            roster_owner(&configured(&left, who, settings.clone())),
            expected,
            "{settings:?}"
        );
    }
    // Whole forms are a choice once the owner who chose has left, but not where none of several owners has chosen.
    let mut undecided = left.clone();
    undecided.revision.roster_owner = None;
    let whole = |setting: ConfigField| vec![ConfigField::Title("T".into()), setting];
    let unchanged = || ConfigField::AccessModel(AccessModel::Presence);
    let no_groups = ConfigField::RosterGroupsAllowed(Vec::new());
    for (settings, expected) in [
        (Vec::new(), ["", ""]),
        (whole(unchanged()), ["owner@x", ""]),
        (whole(no_groups.clone()), ["owner@x", ""]),
        (whole(ConfigField::AccessModel(AccessModel::Roster)), ["owner@x", "owner@x"]),
        (whole(ConfigField::RosterGroupsAllowed(vec!["G".into()])), ["owner@x", "owner@x"]),
        (vec![unchanged(), no_groups], ["owner@x", "owner@x"]),
    ] {
        for (before, expected) in [&left, &undecided].into_iter().zip(expected) {
            let after = configured(before, "owner@x", settings.clone());
            assert_eq!(roster_owner(&after), expected, "{settings:?}");
        }
    }
}

/// A node may know both spellings of a domain: owners use one, and the server sets the other as the sender.
#[test]
fn a_ban_holds_for_every_spelling_that_a_node_knows() {
    let (a_labels, u_labels) = ("u@xn--bcher-kva.example", "u@bücher.example");
    let member = Affiliation::Member;
    for named in [a_labels, u_labels] {
        for of in [&[a_labels, u_labels][..], &[a_labels], &[u_labels], &[]] {
            let mut builder = node();
            for address in of {
                builder = builder.with(address, member);
            }
            let node = builder.subscribed(a_labels).subscribed(u_labels).0;
            let request = set(&[(named, Affiliation::Outcast)]);
            let decision = by("owner@x", |cx| set_affiliations(Some(&node), &request, None, cx));
            let decision = decision.unwrap();
            assert_eq!(decision.changes.unsubscribed().count(), 2, "{named} {of:?}");
            let after = applied(&node, &decision.changes);
            for address in [a_labels, u_labels] {
                assert_eq!(after.affiliation_of(&bare(address)), Affiliation::Outcast);
            }
            assert_eq!(after.affiliations_len(), 1 + of.len().max(1), "{named} {of:?}");
            assert_eq!(after.subscribers_len(), 0);
        }
    }
}

#[test]
fn the_last_owner_stays_in_every_spelling() {
    let node = node().with("u@xn--bcher-kva.example", Affiliation::Owner).0;
    let request = set(&[("owner@x", Affiliation::None), ("u@bücher.example", Affiliation::None)]);
    let decision = by("owner@x", |cx| set_affiliations(Some(&node), &request, None, cx)).unwrap();
    assert_eq!(decision.reply.failed.len(), 2);
    assert!(decision.changes.is_empty(Some(&node)));
}

/// An earlier version stored subscriptions in both spellings of a domain. An approval applies to the pending
/// subscription.
#[test]
fn subscriptions_in_both_spellings_are_approved_and_end_together() {
    let (a_labels, u_labels) = ("u@xn--bcher-kva.example", "u@bücher.example");
    let mut pending = node().subscribed(u_labels).0;
    pending.load_pending(jid(a_labels));
    for named in [a_labels, u_labels] {
        let entries = vec![(jid(named), None, Some(SubscriptionState::Subscribed))];
        let request = SetSubscriptions { node: pending.id.clone(), entries, invalid: Vec::new() };
        let approved = by("owner@x", |cx| set_subscriptions(Some(&pending), &request, None, cx));
        assert_eq!(applied(&pending, &approved.unwrap().changes).subscribers_len(), 2);
    }
    let node = node().subscribed(a_labels).subscribed(u_labels).0;
    for named in [a_labels, u_labels] {
        let entries = vec![(jid(named), None, Some(SubscriptionState::None))];
        let request = SetSubscriptions { node: node.id.clone(), entries, invalid: Vec::new() };
        let ended = by("owner@x", |cx| set_subscriptions(Some(&node), &request, None, cx));
        assert_eq!(ended.unwrap().changes.unsubscribed().count(), 2);
    }
    let settings = vec![ConfigField::AccessModel(AccessModel::Whitelist)];
    let request = Configure { node: node.id.clone(), settings, seen: None };
    let closed = by("owner@x", |cx| configure(Some(&node), &request, None, cx)).unwrap();
    assert_eq!(closed.changes.unsubscribed().count(), 2);
}

/// §8.9.2: access that an owner revokes ends also where no roster can be read. Other entities, which a roster may have
/// admitted, keep their access.
#[test]
fn a_former_member_has_no_access_while_no_roster_can_be_read() {
    let interest = |who: &str| InterestedResource { jid: jid(who), is_admitted: Some(true) };
    let interested = ["member@x/r", "contact@x/r"].map(interest);
    let pending = ["member@x/r", "contact@x/r"].map(jid);
    for is_subscribed in [true, false] {
        let node = node()
            .with("member@x", Affiliation::Member)
            .set(ConfigField::AccessModel(AccessModel::Presence));
        let node = match is_subscribed {
            true => node.subscribed("member@x").subscribed("contact@x").0,
            false => node.0,
        };
        let request = set(&[("member@x", Affiliation::None)]);
        let (changes, effects) = by("owner@x", |cx| {
            let changes = set_affiliations(Some(&node), &request, None, cx).unwrap().changes;
            let mut reevaluation = Reevaluation::of(Some(&node), &changes).unwrap();
            reevaluation.evaluate(&interested, cx);
            reevaluation.evaluate_pending(&pending, cx);
            let effects = reevaluation.effects(&[], None, cx);
            (changes, effects)
        });
        let ended: &[_] = if is_subscribed { &["member@x"] } else { &[] };
        assert_eq!(changes.unsubscribed().map(|jid| jid.as_str()).collect::<Vec<_>>(), ended);
        let revoked = effects.revoked.iter().map(|jid| jid.as_str());
        let revoked: Vec<_> = revoked.filter(|jid| *jid != "member@x").collect();
        assert_eq!(revoked, ["member@x/r"], "{is_subscribed}");
        let no_access = InterestedResource { is_admitted: Some(false), ..interest("member@x/r") };
        assert_eq!(effects.readmitted, [no_access]);
    }
}

/// §8.8.2: an entry that ends no subscription is returned with another subscription of the same entity, unless the
/// request ends that subscription too.
#[test]
fn an_entry_that_ends_nothing_is_returned_with_a_subscription_that_stays() {
    let node = node().subscribed("a@x/1").subscribed("a@x/2").0;
    for (ended, stays) in [
        (&["a@x"][..], Some("a@x/1")),
        (&["a@x", "a@x/1"], Some("a@x/2")),
        (&["a@x/1", "a@x/2", "a@x"], None),
        (&["b@x"], None),
    ] {
        let end = |who: &&str| (jid(who), None, Some(SubscriptionState::None));
        let entries = ended.iter().map(end).collect();
        let request = SetSubscriptions { node: node.id.clone(), entries, invalid: Vec::new() };
        let set = by("owner@x", |cx| set_subscriptions(Some(&node), &request, None, cx)).unwrap();
        let expected: Vec<_> = stays.map(|stays| (jid("a@x"), jid(stays))).into_iter().collect();
        assert_eq!(set.reply.still_subscribed, expected, "{ended:?}");
    }
}

/// §12.2: a change revokes nothing from resources that had no access before, however many a server announces.
#[test]
fn change_revokes_only_existing_implicit_subscriptions() {
    let interest = |who: &str| InterestedResource { jid: jid(who), is_admitted: Some(false) };
    let interested = ["member@x/r", "stranger@x/r", "subscriber@x/r"].map(interest);
    let revoked = |node: &Node, changes: &Changes| {
        let effects = by("owner@x", |cx| {
            let mut reevaluation = Reevaluation::of(Some(node), changes).unwrap();
            reevaluation.evaluate(&interested, cx);
            reevaluation.effects(&[], None, cx)
        });
        effects.revoked.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let node = node()
        .with("member@x", Affiliation::Member)
        .with("subscriber@x", Affiliation::Member)
        .subscribed("subscriber@x")
        .set(ConfigField::AccessModel(AccessModel::Whitelist))
        .0;
    let bans = set(&[("member@x", Affiliation::Outcast), ("other@x", Affiliation::Outcast)]);
    let banned = by("owner@x", |cx| set_affiliations(Some(&node), &bans, None, cx)).unwrap();
    assert_eq!(revoked(&node, &banned.changes), ["member@x/r"]);
    let ban = set(&[("subscriber@x", Affiliation::Outcast)]);
    let banned = by("owner@x", |cx| set_affiliations(Some(&node), &ban, None, cx)).unwrap();
    assert_eq!(revoked(&node, &banned.changes), ["subscriber@x/r"]);
}
