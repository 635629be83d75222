//! Table of privileges (§4.1), and other rules of access.

use crate::{
    AccessModel, Affiliation, Change, ConfigField, ConfiguredSubscription, Context, Error, Expire,
    PublishModel, Roster, RosterItem, Sequence, SubscribeAccess, SubscriptionDetails,
    SubscriptionOptions, Timestamp, access,
    op::{
        create, subscribe,
        timers::{self, Extent},
    },
};

use super::{actor, bare, by, changes_of, jid, node, refuses};

/// §4.1: subscribe, retrieve, publish, retract the item of another publisher, and configure (also purge and delete),
/// with the access model *open* and the publish model *publishers*.
const PRIVILEGES: [(Affiliation, [bool; 5]); 6] = [
    (Affiliation::Owner, [true, true, true, true, true]),
    (Affiliation::Publisher, [true, true, true, true, false]),
    (Affiliation::PublishOnly, [false, false, true, false, false]),
    (Affiliation::Member, [true, true, false, false, false]),
    (Affiliation::None, [true, true, false, false, false]),
    (Affiliation::Outcast, [false, false, false, false, false]),
];

#[test]
fn privileges_equal_the_table_of_the_specification() {
    for (affiliation, expected) in PRIVILEGES {
        let node = node().with("a@x", affiliation).0;
        let actor = actor("a@x/r");
        let may = [
            by("a@x/r", |cx| access::may_subscribe(&node, cx)).is_ok(),
            by("a@x/r", |cx| access::may_retrieve(&node, cx)).is_ok(),
            access::may_publish(&node, &actor).is_ok(),
            access::may_change_item(&node, &actor, &bare("somebody@x")).is_ok(),
            access::may_configure(&node, &actor).is_ok(),
        ];
        assert_eq!(may, expected, "{affiliation:?}");
    }
}

/// §7.1.2: "if the publisher previously published an item with the same ItemID".
#[test]
fn an_item_is_changed_by_its_publisher_and_by_owners_and_publishers_of_the_node() {
    for affiliation in Affiliation::ALL {
        let node =
            node().set(ConfigField::PublishModel(PublishModel::Open)).with("a@x", affiliation).0;
        let changes_all = matches!(affiliation, Affiliation::Owner | Affiliation::Publisher);
        let expected = if changes_all { Ok(()) } else { Err(Error::ForeignItem) };
        let may = |publisher| access::may_change_item(&node, &actor("a@x/r"), &bare(publisher));
        assert_eq!((may("a@x"), may("b@x")), (Ok(()), expected), "{affiliation:?}");
        let admin = access::may_change_item(&node, &actor("admin@x/r"), &bare("b@x"));
        assert_eq!(admin, Ok(()));
    }
}

#[test]
fn a_whitelist_admits_owners_publishers_and_members() {
    for affiliation in Affiliation::ALL {
        let node =
            node().set(ConfigField::AccessModel(AccessModel::Whitelist)).with("a@x", affiliation).0;
        let expected = match affiliation {
            Affiliation::Owner | Affiliation::Publisher | Affiliation::Member => {
                Ok(SubscribeAccess::Granted)
            }
            Affiliation::None => Err(Error::ClosedNode),
            Affiliation::PublishOnly | Affiliation::Outcast => Err(Error::Forbidden),
        };
        assert_eq!(by("a@x", |cx| access::may_subscribe(&node, cx)), expected, "{affiliation:?}");
    }
}

#[test]
fn an_outcast_may_not_publish_even_where_publishing_is_open() {
    let node = node()
        .set(ConfigField::PublishModel(PublishModel::Open))
        .with("a@x", Affiliation::Outcast)
        .0;
    assert_eq!(access::may_publish(&node, &actor("a@x")), Err(Error::Forbidden));
    assert_eq!(access::may_publish(&node, &actor("b@x")), Ok(()));
}

#[test]
fn any_resource_of_a_subscriber_publishes_where_subscribers_may() {
    let node = node()
        .set(ConfigField::PublishModel(PublishModel::Subscribers))
        .subscribed("a@x/one")
        .subscribed("ab@x")
        .0;
    assert_eq!(access::may_publish(&node, &actor("a@x/two")), Ok(()));
    assert_eq!(access::may_publish(&node, &actor("abc@x")), Err(Error::Forbidden));
}

#[test]
fn administrators_are_owners_everywhere() {
    let node = node().set(ConfigField::AccessModel(AccessModel::Whitelist)).0;
    let admin = actor("admin@x/r");
    assert_eq!(access::may_configure(&node, &admin), Ok(()));
    assert_eq!(access::may_publish(&node, &admin), Ok(()));
    assert_eq!(by("admin@x/r", |cx| access::may_discover(&node, cx)), Ok(()));
    assert_eq!(by("a@x", |cx| access::may_discover(&node, cx)), Err(Error::Forbidden));
}

#[test]
fn errors_have_a_fixed_precedence() {
    // A missing node is reported before missing rights.
    let request = subscribe::Subscribe {
        node: node().0.id,
        jid: jid("b@x"),
        settings: None,
        is_public: false,
    };
    let nowhere = by("a@x", |cx| subscribe::subscribe(None, &request, None, cx));
    refuses(nowhere, &Error::NodeNotFound);
    // A foreign JID is reported before a closed node.
    let closed = node().set(ConfigField::AccessModel(AccessModel::Whitelist)).0;
    let other = by("a@x", |cx| subscribe::subscribe(Some(&closed), &request, None, cx));
    refuses(other, &Error::InvalidJid);
    // A missing right to create is reported before an existing node.
    let create = create::Create { node: None, settings: Vec::new() };
    let decision = by("a@x", |cx| {
        let creators = crate::Creators::Administrators;
        let policy = crate::Policy { creators, ..cx.policy.clone() };
        let cx = Context { policy: &policy, ..*cx };
        create::create(Some(&closed), closed.id.clone(), &create, None, &cx)
    });
    refuses(decision, &Error::Forbidden);
}

/// §6.5.9: a subscriber keeps access to items exactly as long as no roster can be read.
#[test]
fn a_subscriber_retrieves_items_while_no_roster_can_be_read() {
    let (empty, model) = (Roster::default(), ConfigField::AccessModel);
    for (access_model, roster, affiliation, expected) in [
        (AccessModel::Presence, None, Affiliation::None, true),
        (AccessModel::Roster, None, Affiliation::None, true),
        (AccessModel::Presence, Some(&empty), Affiliation::None, false),
        (AccessModel::Whitelist, None, Affiliation::None, false),
        (AccessModel::Presence, None, Affiliation::Outcast, false),
    ] {
        let node = node().set(model(access_model)).subscribed("a@x").with("a@x", affiliation).0;
        let may = |who: &str| {
            by(who, |cx| {
                let cx = Context { owner_roster: roster, ..*cx };
                let retrieves = access::may_retrieve(&node, &cx).is_ok();
                assert_eq!(access::may_subscribe(&node, &cx).is_ok(), retrieves);
                retrieves
            })
        };
        assert_eq!((may("a@x/r"), may("b@x/r")), (expected, false), "{access_model:?}");
    }
}

/// §12.19: a lease ends although a roster would admit its subscriber in the same commit. The subscription ends only
/// once.
#[test]
fn a_request_whose_lease_ends_is_not_granted_by_a_roster() {
    let mut node = node().set(ConfigField::AccessModel(AccessModel::Presence)).0;
    for (who, is_pending) in [("a@x", true), ("b@x", false)] {
        let options = SubscriptionOptions {
            expire: Expire::At(Timestamp(1)),
            ..SubscriptionOptions::default()
        };
        let details = [SubscriptionDetails::new(None, options, Sequence(0), Timestamp(0))].into();
        node.load_configured(
            jid(who),
            ConfiguredSubscription { since: 0, options_since: 0, is_pending, details },
        );
    }
    node.load_pending(jid("c@x"));
    let contact = RosterItem { has_presence: true, groups: Vec::new() };
    let contacts: Roster =
        ["a@x", "c@x"].map(|who| (bare(who), contact.clone())).into_iter().collect();
    let decision = by("owner@x", |cx| {
        let cx = Context { owner_roster: Some(&contacts), ..*cx };
        timers::run_timers(Some(&node), &[], &[], false, Extent::Everything { halvings: 0 }, &cx)
    });
    let decision = decision.unwrap();
    let [Change::Unsubscribed(a), Change::Unsubscribed(b), Change::Subscribed(c)] =
        changes_of(&decision)[..]
    else {
        panic!("{:?}", changes_of(&decision));
    };
    assert_eq!([a, b, c].map(|jid| jid.as_str()), ["a@x", "b@x", "c@x"]);
}
