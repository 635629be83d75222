//! Aliases: subscribed addresses that some servers treat as other names of an account. Their subscriptions count for
//! the limits of that account (docs/SECURITY.md).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::{AccountKey, BareJid};

/// Maximum number of aliases. Subscriptions of further aliases do not count for the limits of their accounts.
const MAX_ALIASES: usize = 20_000;

/// Subscribed addresses that some servers treat as other names (aliases) of an account, by account. Aliases without
/// subscriptions are removed when the subscriptions of the account are counted.
#[derive(Debug, Default)]
pub(super) struct Aliases(Mutex<AliasTable>);

#[derive(Debug, Default)]
struct AliasTable {
    /// Aliases of each account, each with the number of times that it was added.
    by_account: HashMap<AccountKey, HashMap<BareJid, u64>>,
    /// Total number of aliases.
    len: usize,
}

impl Aliases {
    /// Adds a subscribed address, if it is an alias.
    pub(super) fn add(&self, address: BareJid) {
        if !address.is_alias() {
            return;
        }
        let account = AccountKey::of(&address);
        let mut table = self.table();
        let AliasTable { by_account, len } = &mut *table;
        if *len >= MAX_ALIASES
            && !by_account.get(&account).is_some_and(|aliases| aliases.contains_key(&address))
        {
            return;
        }
        let number = by_account.entry(account).or_default().entry(address).or_default();
        *len += usize::from(*number == 0);
        *number += 1;
    }

    /// Returns the aliases of an account, each with the number of times that it was added.
    pub(super) fn of(&self, account: &AccountKey) -> HashMap<BareJid, u64> {
        self.table().by_account.get(account).cloned().unwrap_or_default()
    }

    /// Removes an alias for which the caller found no subscription. Keeps the alias if it was added again after
    /// [`of`](Self::of) returned `number` for it.
    pub(super) fn remove(&self, account: &AccountKey, address: &BareJid, number: Option<&u64>) {
        let mut table = self.table();
        let AliasTable { by_account, len } = &mut *table;
        let Some(aliases) = by_account.get_mut(account) else { return };
        if aliases.get(address) == number && aliases.remove(address).is_some() {
            *len -= 1;
        }
        if aliases.is_empty() {
            by_account.remove(account);
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
    fn alias_is_removed_when_counted_without_subscriptions() {
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
        assert!(aliases.table().by_account.is_empty());
        assert_eq!(aliases.table().len, 0);
        for number in 0..=MAX_ALIASES {
            aliases.add(BareJid::new(&format!("ß{number}@x")).unwrap());
        }
        assert_eq!(aliases.table().len, MAX_ALIASES);
    }
}
