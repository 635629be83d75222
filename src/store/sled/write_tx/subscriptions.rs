//! Storage of subscriptions. A row (a part) holds several subscriptions of a node, because the overhead of a row is
//! larger than one subscription. New subscriptions go into the newest part. Each subscription also has an index row
//! with the number of its part.

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

/// Approximate maximum bytes of a part.
const MAX_PART_BYTES: usize = 2000;

/// Index row of a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::sled) struct SubscriptionPointer {
    /// `true` if the subscriber requested the subscription, `false` if an owner made it.
    pub(in crate::store::sled) is_own: bool,
    /// Number of the part that holds the subscription.
    pub(in crate::store::sled) part: u32,
}

impl StoredRecord for SubscriptionPointer {}

#[derive(Serialize, Deserialize)]
pub(in crate::store::sled) struct SubscriptionRecord {
    jid: String,
    /// Version of the node at which the subscription began. A subscription of layout 9 has the sequence of the node
    /// instead. The versions of the node continue from that sequence.
    pub(in crate::store::sled) since: u64,
    /// `true` if an owner has to approve the subscription first.
    pub(in crate::store::sled) is_pending: bool,
    /// Options and SubIDs; `None` for a plain subscription.
    configured: Option<Box<ConfiguredSubscriptionRecord>>,
}

#[derive(Serialize, Deserialize)]
struct ConfiguredSubscriptionRecord {
    /// Version of the node at which the subscription got its options or SubIDs.
    since: u64,
    details: Vec<SubscriptionDetailsRecord>,
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
    /// Adds the subscription of a JID. If the JID already has a subscription, the new subscription keeps the options
    /// and SubIDs.
    pub(in crate::store::sled) fn subscribe(
        &mut self,
        node: NodeNumber,
        mut record: SubscriptionRecord,
        jid: &Jid,
        is_own: bool,
        sequence: Sequence,
    ) -> Result<(), StoreError> {
        let before = self.take(node, jid)?;
        if let Some(mut configured) = before.and_then(|(_, before)| before.configured) {
            configured.since = record.since;
            // Digests contain no event from before the subscription began.
            configured
                .details
                .iter_mut()
                .for_each(|details| details.digested = details.digested.max(sequence.0));
            record.configured = Some(configured);
        }
        self.add(node, &record, jid, is_own)
    }

    /// Sets the options and SubIDs of a subscription, which may be pending.
    pub(in crate::store::sled) fn agree(
        &mut self,
        node: NodeNumber,
        jid: &Jid,
        details: &[SubscriptionDetails],
        version: u64,
    ) -> Result<(), StoreError> {
        let (is_own, mut record) =
            self.take(node, jid)?.ok_or_else(|| damaged(&keys::subscription_of(jid, node)))?;
        let since = record.configured.as_ref().map_or(version, |configured| configured.since);
        let details: Vec<_> = details.iter().map(SubscriptionDetailsRecord::of).collect();
        record.configured = Some(Box::new(ConfiguredSubscriptionRecord { since, details }));
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
        let stored = self.rows.get::<Vec<u8>>(&keys::subscriptions(node, counters.part))?;
        let mut part = stored.unwrap_or_default();
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

    /// Removes a subscription, if it exists.
    pub(in crate::store::sled) fn unsubscribe(
        &mut self,
        node: NodeNumber,
        jid: &Jid,
    ) -> Result<(), StoreError> {
        self.take(node, jid).map(drop)
    }

    /// Removes and returns the subscription of a JID, together with its [`SubscriptionPointer::is_own`]. Returns `None`
    /// if the JID has no subscription.
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

    /// Reads the subscriptions in the row with this key, which has one part of a node's subscriptions.
    pub(in crate::store::sled) fn part(
        &self,
        key: &[u8],
    ) -> Result<Vec<SubscriptionRecord>, StoreError> {
        let part = self.rows.get::<Vec<u8>>(key)?.ok_or_else(|| damaged(key))?;
        read_part(key, &part)
    }
}

/// Encodes subscriptions one after another without their number, so that more can be appended.
pub(in crate::store::sled) fn write_part(
    part: &[SubscriptionRecord],
) -> Result<Vec<u8>, StoreError> {
    part.iter().try_fold(Vec::new(), |bytes, record| {
        postcard::to_extend(record, bytes).map_err(|error| StoreError::Failed(error.to_string()))
    })
}

/// Decodes the subscriptions of a part.
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
    /// Returns `true` if this JID is the subscriber.
    pub(in crate::store::sled) fn is_of(&self, jid: &Jid) -> bool {
        self.jid == jid.as_str()
    }

    /// Returns `true` if the JID of the subscriber has this hash.
    pub(in crate::store::sled) fn has_hash(&self, hash: &[u8]) -> bool {
        keys::hash(&self.jid) == hash
    }

    pub(in crate::store::sled) fn of(jid: &Jid, since: u64) -> Self {
        Self { jid: jid.as_str().into(), since, is_pending: false, configured: None }
    }

    /// Creates a subscription that is pending until an owner approves it.
    pub(in crate::store::sled) fn requested(jid: &Jid, since: u64) -> Self {
        Self { is_pending: true, ..Self::of(jid, since) }
    }

    /// Returns `true` if the subscription needs timers or the presence of the subscriber.
    pub(in crate::store::sled) fn is_watched(&self) -> bool {
        let configured = self.configured.iter();
        configured
            .flat_map(|configured| &configured.details)
            .any(SubscriptionDetailsRecord::is_watched)
    }

    /// Returns one [`Subscription`] for each SubID, or a single subscription if the record has no SubIDs.
    pub(in crate::store::sled) fn subscriptions(
        &self,
        key: &[u8],
    ) -> Result<Vec<Subscription>, StoreError> {
        let jid = self.jid(key)?;
        let of = |subid| Subscription { jid: jid.clone(), subid, state: self.state() };
        Ok(match self.configured() {
            Some(configured) => {
                configured.details.iter().map(|details| of(details.subid.clone())).collect()
            }
            None => vec![of(None)],
        })
    }

    /// Returns the options and SubIDs; `None` for a plain subscription.
    pub(in crate::store::sled) fn configured(&self) -> Option<ConfiguredSubscription> {
        self.configured.as_ref().map(|configured| ConfiguredSubscription {
            since: if self.is_pending { 0 } else { self.since },
            options_since: configured.since,
            is_pending: self.is_pending,
            details: configured.details.iter().map(SubscriptionDetailsRecord::to_details).collect(),
        })
    }

    /// Returns the version of the node at which the subscription got its options or SubIDs. Log entries up to this
    /// version are delivered as to a subscriber without options and SubIDs.
    pub(in crate::store::sled) fn plain_until(&self) -> u64 {
        self.configured.as_ref().map_or(u64::MAX, |configured| configured.since)
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
    fn of(details: &SubscriptionDetails) -> Self {
        let options = &details.options;
        Self {
            subid: details.subid.as_ref().map(ToString::to_string),
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
            since: details.since.0,
            expiry_notified: details.expiry_notified,
            digested: details.digested_to.0,
            digested_at: details.digested_at.0,
        }
    }

    fn is_watched(&self) -> bool {
        self.digest
            || !matches!(self.expire, ExpireRecord::Never)
            || self.show_values != ShowSet::ALL.bits()
    }

    fn to_details(&self) -> SubscriptionDetails {
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
