//! Reads from the store the affiliations and subscriptions of an entity, in every spelling of its domain.

use jid::BareJid;

use crate::{
    pubsub::{Affiliation, NodeId, Subscription},
    store::StoreError,
};

use super::Service;

impl Service {
    /// The nodes at which an entity has an affiliation; those of exactly this address first.
    pub(super) async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Vec<(NodeId, Affiliation)>, StoreError> {
        let mut all = Vec::new();
        for address in entity.spellings() {
            all.extend(self.memory.sound(self.store.affiliations_of(&address).await?));
        }
        Ok(all)
    }

    /// The subscriptions of an entity and of its resources, pending ones too.
    pub(super) async fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Vec<(NodeId, Subscription)>, StoreError> {
        let mut all = Vec::new();
        for address in entity.spellings() {
            all.extend(self.memory.sound(self.store.subscriptions_of(&address).await?));
        }
        Ok(all)
    }

    /// The number of subscriptions that an entity made, counted up to a maximum.
    pub(super) async fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<usize, StoreError> {
        let mut number = 0;
        for address in entity.spellings() {
            let own = self.store.count_subscriptions_of(&address, up_to - number).await?;
            number += self.memory.sound(own).min(up_to - number);
        }
        Ok(number)
    }
}
