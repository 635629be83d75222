//! Subscriber list compared with an ordered map, and the parts that recipient lists share with it.

use std::collections::BTreeMap;

use jid::{BareJid, Jid};
use proptest::prelude::*;

use crate::{
    ConfiguredSubscription, Error, Node, PageBound, PageRequest, ResultPage, Sequence, SubId,
    Subscription, SubscriptionDetails, SubscriptionOptions, Timestamp,
    op::subscriptions::subscriptions, subscriber_list::SubscriberList,
};

use super::{by, fastest, node};

fn jid(number: u16) -> Jid {
    // Some names are prefixes of others; JIDs with and without resources.
    let (name, resource) = (number / 3 % 700, number % 3);
    let bare = format!("u{name}@example{}", if name % 2 == 0 { "" } else { ".org" });
    let full = if resource == 0 { bare } else { format!("{bare}/r{resource}") };
    Jid::new(&full).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn subscriber_list_matches_btreemap(changes in prop::collection::vec((any::<u16>(), any::<bool>()), 0..3000)) {
        let (mut list, mut map) = (SubscriberList::default(), BTreeMap::<(BareJid, Jid), u64>::new());
        let mut shared = Vec::new();
        for (time, (number, is_added)) in (0..).zip(changes) {
            let jid = jid(number);
            let key = (jid.to_bare(), jid.clone());
            if is_added || number % 4 == 0 {
                list.insert(jid.clone(), time);
                map.insert(key, time);
            } else {
                list.remove(&jid);
                map.remove(&key);
            }
            prop_assert_eq!(list.contains(&jid), map.contains_key(&(jid.to_bare(), jid.clone())));
            if time % 500 == 0 {
                let all: Vec<_> = map.keys().map(|(_, jid)| jid.clone()).collect();
                shared.push((list.recipients(), all));
            }
        }
        prop_assert_eq!(list.len(), map.len());
        prop_assert!(list.iter().eq(map.iter().map(|((_, jid), since)| (jid, *since))));
        for number in 0..100 {
            let entity = jid(number * 3).to_bare();
            let of = map.keys().filter(|(bare, _)| *bare == entity).map(|(_, jid)| jid);
            prop_assert!(list.of(&entity).eq(of));
        }
        for (recipients, all) in shared {
            prop_assert_eq!(recipients.len(), all.len());
            for from in [0, 1, all.len() / 2, all.len().saturating_sub(1), all.len()] {
                prop_assert!(recipients.iter_from(from).eq(all.iter().skip(from)));
            }
        }
    }
}

#[test]
fn recipient_list_shares_unchanged_chunks() {
    let mut list = SubscriberList::default();
    for number in 0..2000 {
        list.insert(Jid::new(&format!("{number:04}@x")).unwrap(), 0);
    }
    let first = list.recipients();
    list.insert(Jid::new("0500a@x").unwrap(), 0);
    let second = list.recipients();
    assert_eq!((first.len(), second.len()), (2000, 2001));
    let there: Vec<_> = first.parts().collect();
    let new: Vec<_> = second.parts().filter(|part| !there.contains(part)).collect();
    // One part was copied, and split.
    assert!(new.len() <= 2, "{new:?} of {there:?}");
}

/// Adds subscriptions with these SubIDs.
fn load(node: &mut Node, jid: Jid, subids: &[&str], is_pending: bool) {
    let details = |subid: &&str| {
        let subid = Some(SubId::new(subid)).filter(|subid| !subid.as_str().is_empty());
        SubscriptionDetails::new(subid, SubscriptionOptions::default(), Sequence(0), Timestamp(0))
    };
    let details = subids.iter().map(details).collect();
    node.load_configured(
        jid,
        ConfiguredSubscription { since: 0, options_since: 0, is_pending, details },
    );
}

fn listed(node: &Node, page: &PageRequest<String>) -> Result<ResultPage<Subscription>, Error> {
    by("owner@x", |cx| subscriptions(Some(node), page, |_| true, cx))
}

/// Each page equals a part of the whole list, whatever subscriptions the node has.
#[test]
fn pages_of_subscriptions_are_parts_of_the_list() {
    let mut node = node().0;
    for number in 0..60 {
        match number % 5 {
            0 | 1 => node.load_subscription(jid(number), 0),
            2 => load(&mut node, jid(number), &[""], false),
            3 => load(&mut node, jid(number), &["c", "a", "b"], false),
            _ if number % 2 == 0 => load(&mut node, jid(number), &["x", "y"], true),
            _ => node.load_pending(jid(number)),
        }
    }
    let all = listed(&node, &PageRequest::first(usize::MAX)).unwrap().entries;
    assert_eq!(all.len(), 24 + 12 + 36);
    let key = |one: &Subscription| (one.jid.to_bare(), one.jid.clone());
    assert!(all.is_sorted_by_key(key));
    let mut edges = vec![
        PageBound::At(0),
        PageBound::At(7),
        PageBound::At(71),
        PageBound::At(99),
        PageBound::Last,
    ];
    let pending = jid(4).to_string();
    let others = ["", "x", "zz@x", "u1@example\nnone", &pending].map(str::to_owned);
    for uid in all.iter().map(Subscription::uid).chain(others) {
        edges.extend([PageBound::After(uid.clone()), PageBound::Before(uid)]);
    }
    for edge in edges {
        for max in [0, 1, 2, 10, usize::MAX] {
            let page = PageRequest { max, edge: edge.clone() };
            let expected = page.of(all.clone(), Subscription::uid, |_| true);
            assert_eq!(listed(&node, &page), expected.ok_or(Error::ItemNotFound), "{page:?}");
        }
    }
}

#[test]
fn page_of_subscriptions_takes_time_proportional_to_its_entries() {
    let mut node = node().0;
    for number in 0..100_000 {
        let jid = Jid::new(&format!("{number:06}@x")).unwrap();
        match number % 2 {
            0 => node.load_subscription(jid, 0),
            _ => load(&mut node, jid, &[""], false),
        }
    }
    let (all, whole) = fastest(|| listed(&node, &PageRequest::first(usize::MAX)).unwrap());
    let uid = |number: usize| all.entries[number].uid();
    let ((), pages) = fastest(|| {
        for edge in [
            PageBound::At(10_000),
            PageBound::After(uid(50_000)),
            PageBound::Before(uid(50_001)),
            PageBound::Last,
        ] {
            let is_known = matches!(edge, PageBound::At(_) | PageBound::Last);
            let part = listed(&node, &PageRequest { max: 1, edge }).unwrap();
            assert_eq!((part.entries.len(), part.total), (1, Some(100_000)));
            assert_eq!(part.index.is_some(), is_known);
        }
        for index in [10_001, usize::MAX] {
            let refused = listed(&node, &PageRequest { max: 1, edge: PageBound::At(index) });
            assert!(matches!(refused, Err(Error::NotImplemented(_))));
        }
    });
    assert!(pages * 10 < whole, "{pages:?} {whole:?}");
}
