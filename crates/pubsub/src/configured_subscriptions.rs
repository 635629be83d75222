//! Subscriptions with options or SubIDs. They are few, and stored apart from subscriptions without them (plain
//! subscriptions).

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

use jid::{AccountKey, BareJid, Jid};

use crate::{Sequence, SubscriptionDetails, subscriber_list};

/// Subscriptions of one JID at a node that have options or SubIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredSubscription {
    /// Version of the node at which the subscription began; 0 while it is pending.
    pub since: u64,
    /// Version of the node at which the subscription got options or SubIDs. Log entries up to this version are
    /// delivered to the JID as to a subscriber without options and SubIDs.
    pub options_since: u64,
    /// `true` if the subscription waits for the approval of an owner.
    pub is_pending: bool,
    /// Details of each subscription; at least one.
    pub details: Arc<[SubscriptionDetails]>,
}

impl ConfiguredSubscription {
    /// Returns these subscriptions as no longer pending, with `version` as the version of the node at which they began.
    /// Their digests include only events with a number above `sequence`.
    pub(super) fn begun(self, sequence: Sequence, version: u64) -> Self {
        let begun = |details: &SubscriptionDetails| SubscriptionDetails {
            digested_to: details.digested_to.max(sequence),
            ..details.clone()
        };
        Self {
            since: version,
            options_since: version,
            is_pending: false,
            details: self.details.iter().map(begun).collect(),
        }
    }

    /// Returns the number of subscriptions of the JID; 0 while it is pending.
    fn subscriptions_len(&self) -> usize {
        if self.is_pending { 0 } else { self.details.len() }
    }
}

/// Subscriptions of a node that have options or SubIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ConfiguredSubscriptions {
    /// JIDs and their subscriptions. The key is the bare JID and the resource, so the order is that of the node's plain
    /// subscribers.
    all: BTreeMap<(String, String), (Jid, ConfiguredSubscription)>,
    /// For each account, the number of its JIDs whose bare JID differs from the key of the account.
    others: HashMap<AccountKey, usize>,
    /// Number of pending JIDs.
    pending: usize,
    /// Number of subscriptions of the JIDs that are not pending.
    subscriptions: usize,
}

impl ConfiguredSubscriptions {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn pending_len(&self) -> usize {
        self.pending
    }

    pub(super) fn subscriptions_len(&self) -> usize {
        self.subscriptions
    }

    /// Returns the JIDs that are not pending, from `first` on if it is given.
    pub(super) fn iter_from(
        &self,
        first: Option<&Jid>,
    ) -> impl Iterator<Item = (&Jid, &ConfiguredSubscription)> {
        let first = first.map_or(Unbounded, |jid| Included(key(jid)));
        subscribed(self.all.range((first, Unbounded)))
    }

    /// Returns the JIDs that are not pending, up to `last` if it is given, in reverse order.
    pub(super) fn iter_back(
        &self,
        last: Option<&Jid>,
    ) -> impl Iterator<Item = (&Jid, &ConfiguredSubscription)> {
        let last = last.map_or(Unbounded, |jid| Included(key(jid)));
        subscribed(self.all.range((Unbounded, last)).rev())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Jid, &ConfiguredSubscription)> {
        self.all.values().map(|(jid, configured)| (jid, configured))
    }

    /// Returns the JIDs of an entity: its bare JID and its full JIDs.
    pub(super) fn of(
        &self,
        entity: &BareJid,
    ) -> impl Iterator<Item = (&Jid, &ConfiguredSubscription)> {
        let first = (entity.as_str().to_owned(), String::new());
        let bare = first.0.clone();
        self.all
            .range(first..)
            .take_while(move |((other, _), _)| *other == bare)
            .map(|(_, (jid, configured))| (jid, configured))
    }

    /// Returns the number of JIDs of an entity's account.
    pub(super) fn len_of_account(&self, entity: &BareJid) -> usize {
        let account = AccountKey::of(entity);
        let own = BareJid::new(account.as_str()).map_or(0, |address| self.of(&address).count());
        own + self.others.get(&account).copied().unwrap_or_default()
    }

    pub(super) fn get(&self, jid: &Jid) -> Option<&ConfiguredSubscription> {
        self.all.get(&key(jid)).map(|(_, configured)| configured)
    }

    pub(super) fn insert(&mut self, jid: Jid, configured: ConfiguredSubscription) {
        self.remove(&jid);
        self.pending += usize::from(configured.is_pending);
        self.subscriptions += configured.subscriptions_len();
        if let Some(account) = other_account(&jid) {
            *self.others.entry(account).or_default() += 1;
        }
        self.all.insert(key(&jid), (jid, configured));
    }

    pub(super) fn remove(&mut self, jid: &Jid) -> Option<ConfiguredSubscription> {
        let (_, configured) = self.all.remove(&key(jid))?;
        self.pending -= usize::from(configured.is_pending);
        self.subscriptions -= configured.subscriptions_len();
        if let Some(account) = other_account(jid)
            && let Some(number) = self.others.get_mut(&account)
        {
            *number -= 1;
            if *number == 0 {
                self.others.remove(&account);
            }
        }
        Some(configured)
    }
}

/// Returns the key of the account of a JID; `None` if the key equals the bare JID.
fn other_account(jid: &Jid) -> Option<AccountKey> {
    let bare = jid.to_bare();
    let account = AccountKey::of(&bare);
    (account.as_str() != bare.as_str()).then_some(account)
}

fn subscribed<'a>(
    entries: impl Iterator<Item = (&'a (String, String), &'a (Jid, ConfiguredSubscription))>,
) -> impl Iterator<Item = (&'a Jid, &'a ConfiguredSubscription)> {
    let entries = entries.map(|(_, (jid, configured))| (jid, configured));
    entries.filter(|(_, configured)| !configured.is_pending)
}

fn key(jid: &Jid) -> (String, String) {
    let (bare, resource) = subscriber_list::parts_of(jid);
    (bare.to_owned(), resource.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_of_an_account_are_counted_together() {
        let configured = ConfiguredSubscription {
            since: 0,
            options_since: 0,
            is_pending: true,
            details: Arc::from([]),
        };
        let jids = ["ss@bücher.example/1", "ß@bücher.example/1", "ß@xn--bcher-kva.example/2"];
        let jids = jids.map(|jid| Jid::new(jid).unwrap());
        let mut all_configured = ConfiguredSubscriptions::default();
        for jid in jids.iter().chain(&jids) {
            all_configured.insert(jid.clone(), configured.clone());
        }
        let number = |all_configured: &ConfiguredSubscriptions, entity: &str| {
            all_configured.len_of_account(&BareJid::new(entity).unwrap())
        };
        for entity in ["ss@xn--bcher-kva.example", "ß@bücher.example"] {
            assert_eq!(number(&all_configured, entity), 3);
        }
        assert_eq!(number(&all_configured, "s@bücher.example"), 0);
        for jid in &jids {
            all_configured.remove(jid);
        }
        assert_eq!(all_configured, ConfiguredSubscriptions::default());
    }
}
