//! Subscribed addresses that some servers treat as other names of an account, for the limits of that account
//! (docs/SECURITY.md).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::{AccountKey, BareJid};

/// The subscribed aliases of each account. Those that have no subscription any more are removed when they are counted.
#[derive(Debug, Default)]
pub(super) struct Aliases(Mutex<AliasTable>);

/// Each alias with the number of times that it was added.
type AliasTable = HashMap<AccountKey, HashMap<BareJid, u64>>;

impl Aliases {
    /// Adds a subscribed address, if it is an alias.
    pub(super) fn add(&self, address: BareJid) {
        if address.is_alias() {
            let account = AccountKey::of(&address);
            *self.table().entry(account).or_default().entry(address).or_default() += 1;
        }
    }

    /// The aliases of an account.
    pub(super) fn of(&self, account: &AccountKey) -> HashMap<BareJid, u64> {
        self.table().get(account).cloned().unwrap_or_default()
    }

    /// Removes an alias without subscriptions, unless it was added again since it had this number.
    pub(super) fn remove(&self, account: &AccountKey, address: &BareJid, number: Option<&u64>) {
        let mut table = self.table();
        let Some(aliases) = table.get_mut(account) else { return };
        if aliases.get(address) == number {
            aliases.remove(address);
        }
        if aliases.is_empty() {
            table.remove(account);
        }
    }

    fn table(&self) -> MutexGuard<'_, AliasTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_stays_until_it_is_counted_without_subscriptions() {
        let aliases = Aliases::default();
        let [plain, alias] = ["ss@x", "ß@x"].map(|address| BareJid::new(address).unwrap());
        let account = AccountKey::of(&plain);
        [&plain, &alias, &alias].into_iter().for_each(|address| aliases.add(address.clone()));
        let counted = aliases.of(&account);
        assert_eq!(counted, HashMap::from([(alias.clone(), 2)]));
        aliases.add(alias.clone());
        aliases.remove(&account, &alias, counted.get(&alias));
        assert_eq!(aliases.of(&account).len(), 1, "it was added again");
        aliases.remove(&account, &alias, Some(&3));
        assert!(aliases.table().is_empty());
    }
}
