//! Subscriptions on disk. Those of a node stand in parts, in the order in which they came, for a row costs more
//! than what is in it; each has a row in the index, which says in which part.

use jid::Jid;
use serde::{Deserialize, Serialize};

use crate::{pubsub::SubscriptionState, store::StoreError};

use super::{
    keys::{self, Number},
    record::damaged,
    turn::Turn,
};

/// A part has about so many bytes.
const MAX_PART_BYTES: usize = 2000;

/// Where a subscription stands.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubscriptionPlace {
    /// Whether it was asked for by the subscriber, and not by an owner.
    pub(super) is_own: bool,
    /// In which part of the node's.
    pub(super) part: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SubscriptionRecord {
    jid: String,
    /// The position of the node's newest event when the subscription was made: it hears of later ones.
    pub(super) since: u64,
    /// Whether an owner has to approve it first.
    pub(super) is_pending: bool,
}

impl Turn<'_, '_> {
    /// Subscribes a JID, or makes its subscription anew.
    pub(super) fn subscribe(
        &mut self,
        node: Number,
        record: SubscriptionRecord,
        jid: &Jid,
        is_own: bool,
    ) -> Result<(), StoreError> {
        self.unsubscribe(node, jid)?;
        let mut counters = self.counters(node)?;
        let record = write_part(&[record])?;
        let there = self.rows.get::<Vec<u8>>(&keys::subscriptions(node, counters.part))?;
        let mut part = there.unwrap_or_default();
        if !part.is_empty() && part.len() + record.len() > MAX_PART_BYTES {
            part.clear();
            counters.part += 1;
            self.rows.put(&keys::counters(node), &counters)?;
        }
        part.extend(record);
        self.rows.put(&keys::subscriptions(node, counters.part), &part)?;
        let place = SubscriptionPlace { is_own, part: counters.part };
        self.rows.put(&keys::subscription_of(jid, node), &place)
    }

    /// Removes a subscription, if it is there.
    pub(super) fn unsubscribe(&mut self, node: Number, jid: &Jid) -> Result<(), StoreError> {
        let pointer = keys::subscription_of(jid, node);
        let Some(place) = self.rows.get::<SubscriptionPlace>(&pointer)? else { return Ok(()) };
        let key = keys::subscriptions(node, place.part);
        let mut part = self.part(&key)?;
        let before = part.len();
        part.retain(|record| !record.is_of(jid));
        if part.len() == before {
            return Err(damaged(&key));
        }
        self.rows.remove(pointer);
        if part.is_empty() {
            self.rows.remove(key);
            Ok(())
        } else {
            self.rows.put(&key, &write_part(&part)?)
        }
    }

    /// The subscriptions in a part.
    pub(super) fn part(&self, key: &[u8]) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let part = self.rows.get::<Vec<u8>>(key)?.ok_or_else(|| damaged(key))?;
        read_part(key, &part)
    }
}

/// Writes subscriptions one after the other, so that more can be appended.
pub(super) fn write_part(part: &[SubscriptionRecord]) -> Result<Vec<u8>, StoreError> {
    part.iter().try_fold(Vec::new(), |bytes, record| {
        postcard::to_extend(record, bytes).map_err(|error| StoreError::Failed(error.to_string()))
    })
}

/// Reads the subscriptions in a part.
pub(super) fn read_part(
    key: &[u8],
    mut bytes: &[u8],
) -> Result<Vec<SubscriptionRecord>, StoreError> {
    let mut part = Vec::new();
    while !bytes.is_empty() {
        let (record, rest) = postcard::take_from_bytes(bytes).map_err(|_| damaged(key))?;
        part.push(record);
        bytes = rest;
    }
    Ok(part)
}

impl SubscriptionRecord {
    /// Whether it is this JID's.
    pub(super) fn is_of(&self, jid: &Jid) -> bool {
        self.jid == jid.as_str()
    }

    /// Whether it is that of the JID with this hash.
    pub(super) fn has_hash(&self, hash: &[u8]) -> bool {
        keys::hash(&self.jid) == hash
    }

    pub(super) fn of(jid: &Jid, since: u64) -> Self {
        Self { jid: jid.as_str().into(), since, is_pending: false }
    }

    /// One that waits for an owner.
    pub(super) fn requested(jid: &Jid, since: u64) -> Self {
        Self { is_pending: true, ..Self::of(jid, since) }
    }

    pub(super) fn state(&self) -> SubscriptionState {
        match self.is_pending {
            true => SubscriptionState::Pending,
            false => SubscriptionState::Subscribed,
        }
    }

    pub(super) fn jid(&self, key: &[u8]) -> Result<Jid, StoreError> {
        Jid::new(&self.jid).map_err(|_| damaged(key))
    }
}
