//! Rules that evaluate many addresses of internationalised domains.

#![expect(clippy::disallowed_methods, reason = "measures how long a rule takes")]

use jid::Jid;
use std::time::{Duration, Instant};

use crate::{
    AccessModel, Affiliation, Change, Changes, ConfigField, ConfiguredSubscription, Context, Node,
    Roster, RosterItem, Sequence, SubscriptionDetails, SubscriptionOptions, Timestamp,
    import_changes,
    op::{
        auto_subscribe::{self, InterestedResource, Reevaluation},
        configure::{Configure, configure},
        subscribe::{Subscribe, subscribe},
    },
};

use super::{bare, by, jid, node};

/// Returns a domain with the maximum number of spellings. Converting this domain is slow.
fn domain() -> String {
    let labels = ["ü", "ö", "ä", "é"].map(|letter| letter.repeat(40));
    format!("{}.x", labels.join("."))
}

fn resources(number: usize) -> Vec<InterestedResource> {
    let domain = domain();
    let resource = |i| InterestedResource {
        jid: jid(&format!("a{}@{domain}/{i}", i / 8)),
        is_admitted: Some(true),
    };
    (0..number).map(resource).collect()
}

fn subscription(who: &str, node: &Node) -> Changes {
    let request =
        Subscribe { node: node.id.clone(), jid: jid(who), settings: None, is_public: false };
    by(who, |cx| subscribe(Some(node), &request, None, cx)).unwrap().changes
}

/// Subscribes at a node with other entities of the domain: without an index, each lookup of a resource would convert
/// its domain.
#[test]
fn resources_of_internationalised_domains_are_looked_up_without_converting_them() {
    let domain = domain();
    let mut node = node().subscribed(&format!("s@{domain}")).subscribed(&format!("s@{domain}/r"));
    for (local, affiliation) in [("m", Affiliation::Member), ("o", Affiliation::Outcast)] {
        node = node.with(&format!("{local}@{domain}"), affiliation);
    }
    let contact = (bare(&format!("c@{domain}")), RosterItem { has_presence: true, groups: vec![] });
    let contacts: Roster = [contact].into_iter().collect();
    let administrators = [bare("x"), bare("admin@y")];
    let interested = resources(5000);
    for model in [AccessModel::Open, AccessModel::Presence] {
        let node = node.0.clone();
        let mut node = super::NodeBuilder(node).set(ConfigField::AccessModel(model)).0;
        node.apply(&import_changes::affiliated(vec![(bare("b@x"), Affiliation::Member)]));
        let changes = subscription("b@x", &node);
        let began = Instant::now();
        let number = by("b@x", |cx| {
            let cx =
                Context { owner_roster: Some(&contacts), administrators: &administrators, ..*cx };
            let mut reevaluation = Reevaluation::of(Some(&node), &changes).unwrap();
            reevaluation.evaluate(&interested, &cx);
            let _ = reevaluation.effects(&[], None, &cx);
            let is_implicit = |resource: &&_| auto_subscribe::is_implicit(&node, resource, &cx);
            interested.iter().filter(is_implicit).count()
        });
        let took = began.elapsed();
        assert_eq!(number, if model == AccessModel::Open { 5000 } else { 0 });
        assert!(took < Duration::from_secs(1), "{model:?}: {took:?}");
    }
}

/// Applies a new access model to many subscribers.
#[test]
fn subscribers_of_internationalised_domains_are_looked_up_without_converting_them() {
    let domain = domain();
    let mut node = node();
    for i in 0..5000 {
        node = node.subscribed(&format!("a{i}@{domain}"));
    }
    let node = node.with("m@ü.x", Affiliation::Member).with("o@x", Affiliation::Outcast).0;
    let began = Instant::now();
    let settings = vec![ConfigField::AccessModel(AccessModel::Authorize)];
    let request = Configure { node: node.id.clone(), settings, seen: None };
    for _ in 0..4 {
        let _ = by("owner@x", |cx| configure(Some(&node), &request, None, cx)).unwrap();
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

const U_LABELS: &str = "u@bücher.example";
const A_LABELS: &str = "u@xn--bcher-kva.example";

fn is_implicit(node: &Node, who: &str) -> bool {
    let resource = InterestedResource { jid: jid(who), is_admitted: Some(true) };
    by("owner@x", |cx| auto_subscribe::is_implicit(node, &resource, cx))
}

/// Subscriptions, affiliations and contacts of one spelling are found by the other spelling until they are removed.
#[test]
fn subscriptions_affiliations_and_contacts_are_found_by_each_spelling() {
    for (stored, other) in [(U_LABELS, A_LABELS), (A_LABELS, U_LABELS)] {
        let full = format!("{other}/r");
        let mut node = node().subscribed(stored).subscribed(&format!("{stored}/r")).0;
        assert!(!is_implicit(&node, &full));
        let at = |version| import_changes::reached(Sequence(0), version);
        for ended in [format!("{stored}/r"), stored.to_owned()] {
            assert!(!is_implicit(&node, &full));
            let mut changes = at(node.version + 1);
            changes.push(Change::Unsubscribed(jid(&ended)));
            node.apply(&changes);
        }
        assert!(is_implicit(&node, &full));
        assert_eq!(node, {
            let mut same = super::node().0;
            same.apply(&at(node.version));
            same
        });
        node.load_affiliation(bare(stored), Affiliation::Publisher);
        assert_eq!(node.affiliation_of(&bare(other)), Affiliation::Publisher);
        node.load_affiliation(bare(stored), Affiliation::None);
        assert_eq!(node.affiliation_of(&bare(other)), Affiliation::None);
        let contact = RosterItem { has_presence: true, groups: Vec::new() };
        let contacts: Roster = [(bare(stored), contact)].into_iter().collect();
        assert!(contacts.get(&bare(other)).is_some());
        assert!(contacts.get(&bare("v@bücher.example")).is_none());
    }
}

/// A subscription that an owner made moves to the address that the server stamped, and keeps its options.
#[test]
fn a_subscription_moves_to_the_address_that_subscribes() {
    let mut node = node().0;
    let options = SubscriptionOptions { digest: true, ..SubscriptionOptions::default() };
    let details = SubscriptionDetails::new(None, options.clone(), Sequence(0), Timestamp(0));
    let configured = ConfiguredSubscription {
        since: 0,
        options_since: 0,
        is_pending: false,
        details: [details].into(),
    };
    node.load_configured(jid(U_LABELS), configured);
    node.apply(&subscription(A_LABELS, &node));
    assert_eq!(node.subscribers().map(Jid::as_str).collect::<Vec<_>>(), [A_LABELS]);
    assert_eq!(node.details_of(&jid(A_LABELS))[0].options, options);
    assert_eq!(subscription(A_LABELS, &node).iter().count(), 0);
}

#[test]
fn spellings_of_an_address_have_one_decoded_form() {
    for address in [U_LABELS, A_LABELS] {
        assert_eq!(bare(address).decoded(), U_LABELS);
    }
    let mixed = bare("u@xn--bcher-kva.münchen.example");
    assert!(mixed.other_spellings().all(|other| other.decoded() == mixed.decoded()));
    for same in ["u@xn--bcher-KVA.example", "u@example", "xn--foo-.example"] {
        assert_eq!(bare(same).decoded(), same);
    }
    assert_eq!(bare("straße@x").folded_localpart(), "strasse");
    assert_eq!(bare("x").folded_localpart(), "");
}
