//! Look-up of the affiliations and subscriptions of an entity in the store, in every spelling of its domain. The limit
//! on subscriptions applies to the account: the subscriptions of all its known addresses are counted.

use std::collections::BTreeSet;

use jid::{AccountKey, BareJid};

use crate::store::StoreError;
use gjallar_pubsub::{Affiliation, NodeId, Subscription};

use super::Service;

impl Service {
    /// Returns the affiliations of an entity, each with its node. Affiliations of exactly this address precede those of
    /// other spellings.
    pub(super) async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Vec<(NodeId, Affiliation)>, StoreError> {
        let mut all = Vec::new();
        for address in entity.spellings() {
            all.extend(self.state.quarantine_damaged(self.store.affiliations_of(&address).await?));
        }
        Ok(all)
    }

    /// Returns the subscriptions of an entity and of its resources, including pending ones.
    pub(super) async fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Vec<(NodeId, Subscription)>, StoreError> {
        let mut all = Vec::new();
        for address in entity.spellings() {
            all.extend(self.state.quarantine_damaged(self.store.subscriptions_of(&address).await?));
        }
        Ok(all)
    }

    /// Returns the number of subscriptions of the account of an entity; counting ends at `up_to`.
    pub(super) async fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<usize, StoreError> {
        let account = AccountKey::of(entity);
        let aliases = self.state.aliases.of(&account);
        let localpart = entity.node().map(|_| format!("{}@", entity.folded_localpart()));
        let folded = format!("{}{}", localpart.unwrap_or_default(), entity.domain());
        let folded = BareJid::new(&folded).ok();
        let mut addresses: BTreeSet<_> = entity.spellings().collect();
        addresses.extend(folded.iter().flat_map(BareJid::spellings));
        addresses.extend(aliases.keys().cloned());
        let mut number = 0;
        for address in addresses {
            if number >= up_to {
                break;
            }
            let own = self.store.count_subscriptions_of(&address, up_to - number).await?;
            let own = self.state.quarantine_damaged(own);
            if own == 0 {
                self.state.aliases.remove(&account, &address, aliases.get(&address));
            }
            number += own;
        }
        Ok(number)
    }
}
