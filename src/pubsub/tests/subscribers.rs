//! The list of subscribers against an ordered map, and what lists of recipients share with it.

use std::collections::BTreeMap;

use jid::{BareJid, Jid};
use proptest::prelude::*;

use crate::pubsub::subscribers::Subscribers;

fn jid(number: u16) -> Jid {
    // Names of which one begins like another, with and without resources.
    let (name, resource) = (number / 3 % 700, number % 3);
    let bare = format!("u{name}@example{}", if name % 2 == 0 { "" } else { ".org" });
    let full = if resource == 0 { bare } else { format!("{bare}/r{resource}") };
    Jid::new(&full).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_is_an_ordered_map(changes in prop::collection::vec((any::<u16>(), any::<bool>()), 0..3000)) {
        let (mut list, mut map) = (Subscribers::default(), BTreeMap::<(BareJid, Jid), u64>::new());
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
fn a_list_of_recipients_shares_what_did_not_change_since() {
    let mut list = Subscribers::default();
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
