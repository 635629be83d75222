//! Subscribers of a node: a sorted list, split into parts. Recipient lists share the parts, so a change copies one
//! part, and an event for a million subscribers needs only a list of parts.

use std::{
    cmp::Ordering,
    convert::Infallible,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock, Weak},
};

use jid::{BareJid, Jid};

use crate::SubId;

/// Maximum number of subscriptions in a part.
const MAX_PART: usize = 256;

/// Approximate bytes of a recipient in memory.
const RECIPIENT_BYTES: usize = 100;
/// Approximate bytes of a SubID in memory.
const SUBID_BYTES: usize = 32;

/// JID and the version of the node at which its subscription began.
type SubscribedJid = (Jid, u64);
/// Part of a list of subscribers.
type SubscriberChunk = Arc<Vec<SubscribedJid>>;

/// Subscriptions of a node, ordered by bare JID and then by resource, so that those of one entity are adjacent.
#[derive(Clone, Debug, Default)]
pub(super) struct SubscriberList {
    parts: Vec<SubscriberChunk>,
    len: usize,
}

/// Recipients of an event at one time, with the SubIDs for which they receive it; cheap to clone.
#[derive(Clone, Default)]
pub struct Recipients(Arc<RecipientChunks>);

/// Reference to a recipient list that does not keep it in memory.
#[derive(Clone)]
pub struct WeakRecipients(Weak<RecipientChunks>);

#[derive(Default)]
struct RecipientChunks {
    parts: Vec<SubscriberChunk>,
    /// Number of recipients up to the end of each part.
    ends: Vec<usize>,
    /// SubIDs of each recipient (§12.16); empty if no recipient has one.
    subids: Vec<Arc<[SubId]>>,
    /// Hash of the list; computed when first needed.
    hash: OnceLock<u64>,
}

/// Returns the bare JID as text, and the resource; empty for a JID without a resource.
pub(super) fn parts_of(jid: &Jid) -> (&str, &str) {
    jid.as_str().split_once('/').unwrap_or((jid.as_str(), ""))
}

/// Compares subscribers by bare JID, then by resource.
pub(super) fn order(a: &Jid, b: &Jid) -> Ordering {
    parts_of(a).cmp(&parts_of(b))
}

impl SubscriberList {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Jid, u64)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(jid, since)| (jid, *since))
    }

    /// Returns the JIDs from `first` on; all JIDs if it is `None`.
    pub(super) fn iter_from<'a>(&'a self, first: Option<&'a Jid>) -> impl Iterator<Item = &'a Jid> {
        let parts = self.parts.iter().skip(first.map_or(0, |jid| self.part_of(jid)));
        let is_before = move |jid: &&Jid| first.is_some_and(|first| order(jid, first).is_lt());
        parts.flat_map(|part| part.iter()).map(|(jid, _)| jid).skip_while(is_before)
    }

    /// Returns the JIDs up to `last`, or all JIDs if it is `None`, in reverse order.
    pub(super) fn iter_back<'a>(&'a self, last: Option<&'a Jid>) -> impl Iterator<Item = &'a Jid> {
        let parts = last.map_or(self.parts.len(), |jid| self.part_of(jid) + 1);
        let parts = self.parts.get(..parts).unwrap_or(&self.parts).iter().rev();
        let is_after = move |jid: &&Jid| last.is_some_and(|last| order(jid, last).is_gt());
        parts.flat_map(|part| part.iter().rev()).map(|(jid, _)| jid).skip_while(is_after)
    }

    pub(super) fn contains(&self, jid: &Jid) -> bool {
        self.since(jid).is_some()
    }

    /// Returns the version at which a subscription began.
    pub(super) fn since(&self, jid: &Jid) -> Option<u64> {
        let part = self.parts.get(self.part_of(jid))?;
        let at = part.binary_search_by(|(other, _)| order(other, jid)).ok()?;
        part.get(at).map(|(_, since)| *since)
    }

    /// Returns the subscribed JIDs of an entity: its bare JID and its full JIDs.
    pub(super) fn of<'a>(&'a self, entity: &BareJid) -> impl Iterator<Item = &'a Jid> {
        let is_before = |(jid, _): &SubscribedJid| parts_of(jid) < (entity.as_str(), "");
        let first = self.part_of_first(is_before);
        let later = self.parts.iter().skip(first).flat_map(|part| part.iter());
        later
            .skip_while(move |subscription| is_before(subscription))
            .map(|(jid, _)| jid)
            .take_while(move |jid| parts_of(jid).0 == entity.as_str())
    }

    /// Adds a subscription, or replaces the version of an existing one.
    pub(super) fn insert(&mut self, jid: Jid, since: u64) {
        if self.parts.is_empty() {
            self.parts.push(SubscriberChunk::default());
        }
        let index = self.part_of(&jid).min(self.parts.len() - 1);
        let is_last = index + 1 == self.parts.len();
        let Some(part) = self.parts.get_mut(index) else { return };
        let part = Arc::make_mut(part);
        match part.binary_search_by(|(other, _)| order(other, &jid)) {
            Ok(at) => part.splice(at..=at, [(jid, since)]).for_each(drop),
            Err(at) => {
                self.len += 1;
                let is_end = at == part.len();
                part.insert(at, (jid, since));
                if part.len() > MAX_PART {
                    // JIDs that are added in order fill their parts.
                    let at = if is_last && is_end { MAX_PART } else { MAX_PART / 2 };
                    let rest = part.split_off(at);
                    self.parts.insert(index + 1, Arc::new(rest));
                }
            }
        }
    }

    /// Removes a subscription and returns the version at which it began.
    pub(super) fn remove(&mut self, jid: &Jid) -> Option<u64> {
        let index = self.part_of(jid);
        let part = self.parts.get_mut(index)?;
        let at = part.binary_search_by(|(other, _)| order(other, jid)).ok()?;
        let part = Arc::make_mut(part);
        let (_, since) = part.remove(at);
        self.len -= 1;
        if part.is_empty() {
            self.parts.remove(index);
        }
        Some(since)
    }

    /// Returns the current subscribers as recipients.
    pub(super) fn recipients(&self) -> Recipients {
        Recipients::of(self.parts.clone())
    }

    /// Splits the list into recipient lists of at most `max` JIDs, which share their parts with this list.
    pub(super) fn lists(&self, max: usize) -> Vec<Recipients> {
        let mut len = 0;
        let fits = |part: &SubscriberChunk, next: &SubscriberChunk| {
            len += part.len();
            let fits = len + next.len() <= max;
            if !fits {
                len = 0;
            }
            fits
        };
        self.parts.chunk_by(fits).map(|parts| Recipients::of(parts.to_vec())).collect()
    }

    /// Returns the index of the first part that does not end before a JID.
    fn part_of(&self, jid: &Jid) -> usize {
        self.part_of_first(|(other, _)| order(other, jid) == Ordering::Less)
    }

    fn part_of_first(&self, is_before: impl Fn(&SubscribedJid) -> bool) -> usize {
        self.parts.partition_point(|part| part.last().is_some_and(&is_before))
    }
}

impl PartialEq for SubscriberList {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriberList {}

impl Recipients {
    /// Creates a list in the order of subscribers, without duplicates.
    pub(super) fn sorted(mut jids: Vec<Jid>) -> Self {
        jids.sort_unstable_by(order);
        jids.dedup();
        jids.into_iter().collect()
    }

    /// Creates a list from entities that are sorted in the order of subscribers. Each has the SubIDs for which it
    /// receives the event.
    #[must_use]
    pub fn with_subids(entities: Vec<(Jid, Arc<[SubId]>)>) -> Self {
        let (jids, subids): (Vec<_>, Vec<_>) = entities.into_iter().unzip();
        let subids =
            if subids.iter().all(|subids| subids.is_empty()) { Vec::new() } else { subids };
        let all = Self::listed(vec![Arc::new(jids.into_iter().map(|jid| (jid, 0)).collect())]);
        Self(Arc::new(RecipientChunks { subids, ..all }))
    }

    /// Creates a list with one recipient.
    #[must_use]
    pub fn one(jid: Jid) -> Self {
        [jid].into_iter().collect()
    }

    /// Returns the number of recipients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.ends.last().copied().unwrap_or_default()
    }

    /// Returns `true` if there is no recipient.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all recipients in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = &Jid> {
        self.iter_from(0)
    }

    /// Returns the recipients from this index on.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = &Jid> {
        let RecipientChunks { parts, ends, .. } = &*self.0;
        let first = ends.partition_point(|end| *end <= index);
        let before = first.checked_sub(1).and_then(|last| ends.get(last)).copied();
        let later = parts.iter().skip(first).flat_map(|part| part.iter());
        later.skip(index - before.unwrap_or_default()).map(|(jid, _)| jid)
    }

    /// Returns the SubIDs for which the recipient at this index receives the event; empty if it has no SubIDs.
    #[must_use]
    pub fn subids(&self, index: usize) -> &[SubId] {
        self.0.subids.get(index).map(|subids| &**subids).unwrap_or_default()
    }

    /// Returns all recipients in the order of the list, each with its SubIDs.
    pub fn iter_with_subids(&self) -> impl Iterator<Item = (&Jid, &[SubId])> {
        self.iter().enumerate().map(|(index, jid)| (jid, self.subids(index)))
    }

    /// Returns `true` if a recipient has SubIDs.
    #[must_use]
    pub fn have_subids(&self) -> bool {
        !self.0.subids.is_empty()
    }

    /// Returns the approximate bytes of all SubIDs.
    #[must_use]
    pub fn subids_size(&self) -> usize {
        self.0.subids.iter().map(|subids| subids.len() * SUBID_BYTES).sum()
    }

    /// Returns the approximate bytes of the list, including shared parts.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        self.len() * RECIPIENT_BYTES + self.subids_size()
    }

    /// Returns the recipients for which `holds` returns `true`.
    #[must_use]
    pub(super) fn filter(&self, holds: impl Fn(&Jid) -> bool) -> Self {
        self.try_filter(|jid| Ok::<_, Infallible>(holds(jid)))
            .unwrap_or_else(|never| match never {})
    }

    /// Returns the recipients for which `holds` returns `true`.
    ///
    /// # Errors
    /// The error of `holds`.
    pub fn try_filter<E>(&self, mut holds: impl FnMut(&Jid) -> Result<bool, E>) -> Result<Self, E> {
        let mut filtered = Vec::new();
        for (index, jid) in self.iter().enumerate() {
            if holds(jid)? {
                let subids = self.0.subids.get(index).map_or_else(Arc::default, Arc::clone);
                filtered.push((jid.clone(), subids));
            }
        }
        Ok(Self::with_subids(filtered))
    }

    /// Splits the list into lists of at most `max` recipients; none if the list is empty.
    pub(super) fn chunks(&self, max: usize) -> Vec<Self> {
        if self.len() <= max {
            return (!self.is_empty()).then(|| self.clone()).into_iter().collect();
        }
        let all: Vec<_> = self.iter().cloned().collect();
        all.chunks(max).map(|chunk| chunk.iter().cloned().collect()).collect()
    }

    /// Returns the parts of the list, which other lists may share: an identifier and the approximate bytes of each.
    pub fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let bytes = |part: &SubscriberChunk| part.len() * RECIPIENT_BYTES;
        self.0.parts.iter().map(move |part| (Arc::as_ptr(part).addr(), bytes(part)))
    }

    /// Returns an identifier that only this list and its clones have while they exist.
    #[must_use]
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Returns a hash that is the same for equal lists; computed once for a list and its clones.
    #[must_use]
    pub fn hash(&self) -> u64 {
        *self.0.hash.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.iter_with_subids().for_each(|recipient| recipient.hash(&mut hasher));
            hasher.finish()
        })
    }

    /// Returns a reference that does not keep the list in memory.
    #[must_use]
    pub fn downgrade(&self) -> WeakRecipients {
        WeakRecipients(Arc::downgrade(&self.0))
    }

    fn of(parts: Vec<SubscriberChunk>) -> Self {
        Self(Arc::new(Self::listed(parts)))
    }

    fn listed(parts: Vec<SubscriberChunk>) -> RecipientChunks {
        let mut len = 0;
        let end = |part: &SubscriberChunk| {
            len += part.len();
            len
        };
        let ends = parts.iter().map(end).collect();
        RecipientChunks { parts, ends, ..RecipientChunks::default() }
    }
}

impl WeakRecipients {
    /// Returns the list if it is still in memory.
    #[must_use]
    pub fn upgrade(&self) -> Option<Recipients> {
        self.0.upgrade().map(Recipients)
    }
}

impl fmt::Debug for WeakRecipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromIterator<Jid> for Recipients {
    fn from_iter<I: IntoIterator<Item = Jid>>(jids: I) -> Self {
        Self::of(vec![Arc::new(jids.into_iter().map(|jid| (jid, 0)).collect())])
    }
}

impl PartialEq for Recipients {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() || self.iter_with_subids().eq(other.iter_with_subids())
    }
}

impl Eq for Recipients {}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter_with_subids()).finish()
    }
}
