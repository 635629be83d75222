//! Subscriptions with options or SubIDs. They are few, and stand beside the plain ones.

use std::{collections::BTreeMap, sync::Arc};

use jid::{BareJid, Jid};

use super::{Terms, subscribers};

/// The subscriptions of one JID at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// The position of the node's newest event when it was subscribed: it is entitled to later ones. 0 while it waits.
    pub since: u64,
    /// That, when it became special: it hears of earlier ones as all others do.
    pub special_since: u64,
    /// Whether it waits for an owner.
    pub is_pending: bool,
    /// One for each subscription, at least one.
    pub terms: Arc<[Terms]>,
}

/// Those of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Specials {
    /// By bare JID and resource, as all subscribers are ordered.
    all: BTreeMap<(String, String), (Jid, Special)>,
    pending: usize,
}

impl Specials {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn pending_len(&self) -> usize {
        self.pending
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Jid, &Special)> {
        self.all.values().map(|(jid, special)| (jid, special))
    }

    /// Those of an entity: of its bare JID, and of its resources.
    pub(super) fn of(&self, entity: &BareJid) -> impl Iterator<Item = (&Jid, &Special)> {
        let first = (entity.as_str().to_owned(), String::new());
        let bare = first.0.clone();
        self.all
            .range(first..)
            .take_while(move |((other, _), _)| *other == bare)
            .map(|(_, (jid, special))| (jid, special))
    }

    pub(super) fn get(&self, jid: &Jid) -> Option<&Special> {
        self.all.get(&key(jid)).map(|(_, special)| special)
    }

    pub(super) fn insert(&mut self, jid: Jid, special: Special) {
        self.remove(&jid);
        self.pending += usize::from(special.is_pending);
        self.all.insert(key(&jid), (jid, special));
    }

    pub(super) fn remove(&mut self, jid: &Jid) -> Option<Special> {
        let (_, special) = self.all.remove(&key(jid))?;
        self.pending -= usize::from(special.is_pending);
        Some(special)
    }
}

fn key(jid: &Jid) -> (String, String) {
    let (bare, resource) = subscribers::parts_of(jid);
    (bare.to_owned(), resource.to_owned())
}
