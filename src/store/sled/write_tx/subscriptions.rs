//! Subscriptions on disk. Those of a node stand in parts, in the order in which they came, for a row costs more
//! than what is in it; each has a row in the index, which says in which part.

use std::slice;

use jid::Jid;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use gjallar_pubsub::{
    ConfiguredSubscription, Expire, Sequence, ShowSet, SubId, Subscription, SubscriptionDetails,
    SubscriptionOptions, SubscriptionState, Timestamp,
};

use super::WriteTx;
use crate::store::sled::{
    keys::{self, NodeNumber},
    record::{StoredRecord, damaged},
};

/// A part has about so many bytes.
const MAX_PART_BYTES: usize = 2000;

/// Where a subscription stands.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::sled) struct SubscriptionPointer {
    /// Whether it was asked for by the subscriber, and not by an owner.
    pub(in crate::store::sled) is_own: bool,
    /// In which part of the node's.
    pub(in crate::store::sled) part: u32,
}

impl StoredRecord for SubscriptionPointer {}

#[derive(Serialize, Deserialize)]
pub(in crate::store::sled) struct SubscriptionRecord {
    jid: String,
    /// The version of the node at which the subscription began; in layout 9 the sequence, which is where versions begin.
    pub(in crate::store::sled) since: u64,
    /// Whether an owner has to approve it first.
    pub(in crate::store::sled) is_pending: bool,
    /// Options and SubIDs, if there are any.
    special: Option<Box<ConfiguredSubscriptionRecord>>,
}

#[derive(Serialize, Deserialize)]
struct ConfiguredSubscriptionRecord {
    /// The version of the node at which it got these.
    since: u64,
    terms: Vec<SubscriptionDetailsRecord>,
}

#[derive(Serialize, Deserialize)]
struct SubscriptionDetailsRecord {
    subid: Option<String>,
    deliver: bool,
    digest: bool,
    digest_frequency: u32,
    expire: ExpireRecord,
    include_body: bool,
    keyword: String,
    show_values: u8,
    is_public: bool,
    since: u64,
    expiry_notified: bool,
    digested: u64,
    digested_at: u64,
}

#[derive(Serialize, Deserialize)]
enum ExpireRecord {
    Never,
    At(u64),
    Presence,
}

impl WriteTx<'_, '_> {
    /// Subscribes a JID, or makes its subscription anew; it keeps its options.
    pub(in crate::store::sled) fn subscribe(
        &mut self,
        node: NodeNumber,
        mut record: SubscriptionRecord,
        jid: &Jid,
        is_own: bool,
        sequence: Sequence,
    ) -> Result<(), StoreError> {
        let before = self.take(node, jid)?;
        if let Some(mut special) = before.and_then(|(_, before)| before.special) {
            special.since = record.since;
            // Digests have nothing from before the subscription began.
            special
                .terms
                .iter_mut()
                .for_each(|terms| terms.digested = terms.digested.max(sequence.0));
            record.special = Some(special);
        }
        self.add(node, &record, jid, is_own)
    }

    /// Gives a JID that is subscribed, or waits for that, options or SubIDs.
    pub(in crate::store::sled) fn agree(
        &mut self,
        node: NodeNumber,
        jid: &Jid,
        terms: &[SubscriptionDetails],
        version: u64,
    ) -> Result<(), StoreError> {
        let (is_own, mut record) =
            self.take(node, jid)?.ok_or_else(|| damaged(&keys::subscription_of(jid, node)))?;
        let since = record.special.as_ref().map_or(version, |special| special.since);
        let terms: Vec<_> = terms.iter().map(SubscriptionDetailsRecord::of).collect();
        record.special = Some(Box::new(ConfiguredSubscriptionRecord { since, terms }));
        self.add(node, &record, jid, is_own)
    }

    fn add(
        &mut self,
        node: NodeNumber,
        record: &SubscriptionRecord,
        jid: &Jid,
        is_own: bool,
    ) -> Result<(), StoreError> {
        if record.is_watched() {
            self.rows.put(&keys::watched(node, jid), &())?;
        }
        let mut counters = self.counters(node)?;
        let record = write_part(slice::from_ref(record))?;
        let there = self.rows.get::<Vec<u8>>(&keys::subscriptions(node, counters.part))?;
        let mut part = there.unwrap_or_default();
        if !part.is_empty() && part.len() + record.len() > MAX_PART_BYTES {
            part.clear();
            counters.part += 1;
            self.rows.put(&keys::counters(node), &counters)?;
        }
        part.extend(record);
        self.rows.put(&keys::subscriptions(node, counters.part), &part)?;
        let place = SubscriptionPointer { is_own, part: counters.part };
        self.rows.put(&keys::subscription_of(jid, node), &place)
    }

    /// Removes a subscription, if it is there.
    pub(in crate::store::sled) fn unsubscribe(
        &mut self,
        node: NodeNumber,
        jid: &Jid,
    ) -> Result<(), StoreError> {
        self.take(node, jid).map(drop)
    }

    /// Removes a subscription, and gives it, and whether it was asked for by the subscriber.
    fn take(
        &mut self,
        node: NodeNumber,
        jid: &Jid,
    ) -> Result<Option<(bool, SubscriptionRecord)>, StoreError> {
        let pointer = keys::subscription_of(jid, node);
        let Some(place) = self.rows.get::<SubscriptionPointer>(&pointer)? else { return Ok(None) };
        let key = keys::subscriptions(node, place.part);
        let mut part = self.part(&key)?;
        let at = part.iter().position(|record| record.is_of(jid)).ok_or_else(|| damaged(&key))?;
        let record = part.remove(at);
        if record.is_watched() {
            self.rows.remove(keys::watched(node, jid));
        }
        self.rows.remove(pointer);
        if part.is_empty() {
            self.rows.remove(key);
        } else {
            self.rows.put(&key, &write_part(&part)?)?;
        }
        Ok(Some((place.is_own, record)))
    }

    /// The subscriptions in a part.
    pub(in crate::store::sled) fn part(
        &self,
        key: &[u8],
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let part = self.rows.get::<Vec<u8>>(key)?.ok_or_else(|| damaged(key))?;
        read_part(key, &part)
    }
}

/// Writes subscriptions one after the other, so that more can be appended.
pub(in crate::store::sled) fn write_part(
    part: &[SubscriptionRecord],
) -> Result<Vec<u8>, StoreError> {
    part.iter().try_fold(Vec::new(), |bytes, record| {
        postcard::to_extend(record, bytes).map_err(|error| StoreError::Failed(error.to_string()))
    })
}

/// Reads the subscriptions in a part.
pub(in crate::store::sled) fn read_part(
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
    /// Returns `true` if it is this JID's.
    pub(in crate::store::sled) fn is_of(&self, jid: &Jid) -> bool {
        self.jid == jid.as_str()
    }

    /// Returns `true` if it is that of the JID with this hash.
    pub(in crate::store::sled) fn has_hash(&self, hash: &[u8]) -> bool {
        keys::hash(&self.jid) == hash
    }

    pub(in crate::store::sled) fn of(jid: &Jid, since: u64) -> Self {
        Self { jid: jid.as_str().into(), since, is_pending: false, special: None }
    }

    /// One that waits for an owner.
    pub(in crate::store::sled) fn requested(jid: &Jid, since: u64) -> Self {
        Self { is_pending: true, ..Self::of(jid, since) }
    }

    /// Returns `true` if time, or presence, has something to do with it.
    pub(in crate::store::sled) fn is_watched(&self) -> bool {
        let special = self.special.iter();
        special.flat_map(|special| &special.terms).any(SubscriptionDetailsRecord::is_watched)
    }

    /// What of it is shown: one for each SubID, if there are any.
    pub(in crate::store::sled) fn subscriptions(
        &self,
        key: &[u8],
    ) -> Result<Vec<Subscription>, StoreError> {
        let jid = self.jid(key)?;
        let of = |subid| Subscription { jid: jid.clone(), subid, state: self.state() };
        Ok(match self.special() {
            Some(special) => special.terms.iter().map(|terms| of(terms.subid.clone())).collect(),
            None => vec![of(None)],
        })
    }

    /// What tells it from a plain one.
    pub(in crate::store::sled) fn special(&self) -> Option<ConfiguredSubscription> {
        self.special.as_ref().map(|special| ConfiguredSubscription {
            since: if self.is_pending { 0 } else { self.since },
            special_since: special.since,
            is_pending: self.is_pending,
            terms: special.terms.iter().map(SubscriptionDetailsRecord::to_terms).collect(),
        })
    }

    /// The last version as of which it gets entries as a plain subscriber.
    pub(in crate::store::sled) fn plain_until(&self) -> u64 {
        self.special.as_ref().map_or(u64::MAX, |special| special.since)
    }

    pub(in crate::store::sled) fn state(&self) -> SubscriptionState {
        match self.is_pending {
            true => SubscriptionState::Pending,
            false => SubscriptionState::Subscribed,
        }
    }

    pub(in crate::store::sled) fn jid(&self, key: &[u8]) -> Result<Jid, StoreError> {
        Jid::new(&self.jid).map_err(|_| damaged(key))
    }
}

impl SubscriptionDetailsRecord {
    fn of(terms: &SubscriptionDetails) -> Self {
        let options = &terms.options;
        Self {
            subid: terms.subid.as_ref().map(ToString::to_string),
            deliver: options.deliver,
            digest: options.digest,
            digest_frequency: options.digest_frequency,
            expire: match options.expire {
                Expire::Never => ExpireRecord::Never,
                Expire::At(end) => ExpireRecord::At(end.0),
                Expire::Presence => ExpireRecord::Presence,
            },
            include_body: options.include_body,
            keyword: options.keyword.clone(),
            show_values: options.show_values.bits(),
            is_public: options.is_public,
            since: terms.since.0,
            expiry_notified: terms.expiry_notified,
            digested: terms.digested_to.0,
            digested_at: terms.digested_at.0,
        }
    }

    fn is_watched(&self) -> bool {
        self.digest
            || !matches!(self.expire, ExpireRecord::Never)
            || self.show_values != ShowSet::ALL.bits()
    }

    fn to_terms(&self) -> SubscriptionDetails {
        SubscriptionDetails {
            subid: self.subid.as_deref().map(SubId::new),
            options: SubscriptionOptions {
                deliver: self.deliver,
                digest: self.digest,
                digest_frequency: self.digest_frequency,
                expire: match self.expire {
                    ExpireRecord::Never => Expire::Never,
                    ExpireRecord::At(end) => Expire::At(Timestamp(end)),
                    ExpireRecord::Presence => Expire::Presence,
                },
                include_body: self.include_body,
                keyword: self.keyword.clone(),
                show_values: ShowSet::from_bits(self.show_values),
                is_public: self.is_public,
            },
            since: Timestamp(self.since),
            expiry_notified: self.expiry_notified,
            digested_to: Sequence(self.digested),
            digested_at: Timestamp(self.digested_at),
        }
    }
}
