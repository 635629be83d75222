//! Who is subscribed to a node: a sorted list in parts, which lists of recipients share. So a change copies a
//! part, and an event for a million takes no more than a list of parts.

use std::{
    cmp::Ordering,
    convert::Infallible,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock, Weak},
};

use jid::{BareJid, Jid};

use crate::SubId;

/// The most subscriptions in a part.
const MAX_PART: usize = 256;

/// Approximate bytes of a recipient in memory, and of a SubID.
const RECIPIENT_BYTES: usize = 100;
const SUBID_BYTES: usize = 32;

/// A subscription, with the position of the node's newest event when it was made.
type SubscribedJid = (Jid, u64);
type SubscriberChunk = Arc<Vec<SubscribedJid>>;

/// The subscriptions of a node, ordered by bare JID first, so that those of one entity stand together.
#[derive(Clone, Debug, Default)]
pub(super) struct SubscriberList {
    parts: Vec<SubscriberChunk>,
    len: usize,
}

/// Who an event goes to, at one time, and for which of its subscriptions; cheap to clone.
#[derive(Clone, Default)]
pub struct Recipients(Arc<RecipientChunks>);

/// A reference to a list of recipients that does not keep it in memory.
#[derive(Clone)]
pub struct WeakRecipients(Weak<RecipientChunks>);

#[derive(Default)]
struct RecipientChunks {
    parts: Vec<SubscriberChunk>,
    /// How many there are up to the end of each part.
    ends: Vec<usize>,
    /// The SubIDs of each (§12.16). If no recipient has some there are none.
    subids: Vec<Arc<[SubId]>>,
    /// Computed when first needed.
    hash: OnceLock<u64>,
}

/// The bare JID of a JID as text, and its resource.
pub(super) fn parts_of(jid: &Jid) -> (&str, &str) {
    jid.as_str().split_once('/').unwrap_or((jid.as_str(), ""))
}

/// The order of subscribers: by bare JID, then by resource.
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

    /// The JIDs from one on, or all.
    pub(super) fn iter_from<'a>(&'a self, first: Option<&'a Jid>) -> impl Iterator<Item = &'a Jid> {
        let parts = self.parts.iter().skip(first.map_or(0, |jid| self.part_of(jid)));
        let is_before = move |jid: &&Jid| first.is_some_and(|first| order(jid, first).is_lt());
        parts.flat_map(|part| part.iter()).map(|(jid, _)| jid).skip_while(is_before)
    }

    /// The JIDs up to one, or all, in reverse order.
    pub(super) fn iter_back<'a>(&'a self, last: Option<&'a Jid>) -> impl Iterator<Item = &'a Jid> {
        let parts = last.map_or(self.parts.len(), |jid| self.part_of(jid) + 1);
        let parts = self.parts.get(..parts).unwrap_or(&self.parts).iter().rev();
        let is_after = move |jid: &&Jid| last.is_some_and(|last| order(jid, last).is_gt());
        parts.flat_map(|part| part.iter().rev()).map(|(jid, _)| jid).skip_while(is_after)
    }

    pub(super) fn contains(&self, jid: &Jid) -> bool {
        self.began(jid).is_some()
    }

    /// The version at which a subscription began.
    pub(super) fn began(&self, jid: &Jid) -> Option<u64> {
        let part = self.parts.get(self.part_of(jid))?;
        let at = part.binary_search_by(|(other, _)| order(other, jid)).ok()?;
        part.get(at).map(|(_, began)| *began)
    }

    /// The subscriptions of an entity.
    pub(super) fn of<'a>(&'a self, entity: &BareJid) -> impl Iterator<Item = &'a Jid> {
        let is_before = |(jid, _): &SubscribedJid| parts_of(jid) < (entity.as_str(), "");
        let first = self.part_of_first(is_before);
        let later = self.parts.iter().skip(first).flat_map(|part| part.iter());
        later
            .skip_while(move |subscription| is_before(subscription))
            .map(|(jid, _)| jid)
            .take_while(move |jid| parts_of(jid).0 == entity.as_str())
    }

    /// Adds a subscription, or moves it to a later time.
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
                    // What comes in order fills parts.
                    let at = if is_last && is_end { MAX_PART } else { MAX_PART / 2 };
                    let rest = part.split_off(at);
                    self.parts.insert(index + 1, Arc::new(rest));
                }
            }
        }
    }

    /// Removes a subscription; says when it was made.
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

    /// Everyone who is subscribed now.
    pub(super) fn recipients(&self) -> Recipients {
        Recipients::of(self.parts.clone())
    }

    /// The same in lists of at most so many, which share their parts with this one.
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

    /// The first part that does not end before a JID.
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
    /// Some entities, each once, in the order of subscribers.
    pub(super) fn sorted(mut jids: Vec<Jid>) -> Self {
        jids.sort_unstable_by(order);
        jids.dedup();
        jids.into_iter().collect()
    }

    /// Entities in the order of subscribers, each with the SubIDs for which it gets the event.
    #[must_use]
    pub fn with_subids(entities: Vec<(Jid, Arc<[SubId]>)>) -> Self {
        let (jids, subids): (Vec<_>, Vec<_>) = entities.into_iter().unzip();
        let subids =
            if subids.iter().all(|subids| subids.is_empty()) { Vec::new() } else { subids };
        let all = Self::listed(vec![Arc::new(jids.into_iter().map(|jid| (jid, 0)).collect())]);
        Self(Arc::new(RecipientChunks { subids, ..all }))
    }

    /// Only one.
    #[must_use]
    pub fn one(jid: Jid) -> Self {
        [jid].into_iter().collect()
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.ends.last().copied().unwrap_or_default()
    }

    /// Returns `true` if there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Jid> {
        self.iter_from(0)
    }

    /// Those who come after the first so many.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = &Jid> {
        let RecipientChunks { parts, ends, .. } = &*self.0;
        let first = ends.partition_point(|end| *end <= index);
        let before = first.checked_sub(1).and_then(|last| ends.get(last)).copied();
        let later = parts.iter().skip(first).flat_map(|part| part.iter());
        later.skip(index - before.unwrap_or_default()).map(|(jid, _)| jid)
    }

    /// The SubIDs for which the recipient with this index gets the event; none if it has no SubIDs.
    #[must_use]
    pub fn subids(&self, index: usize) -> &[SubId] {
        self.0.subids.get(index).map(|subids| &**subids).unwrap_or_default()
    }

    /// All of them in order, each with its SubIDs.
    pub fn iter_with_subids(&self) -> impl Iterator<Item = (&Jid, &[SubId])> {
        self.iter().enumerate().map(|(index, jid)| (jid, self.subids(index)))
    }

    /// Returns `true` if one has SubIDs.
    #[must_use]
    pub fn have_subids(&self) -> bool {
        !self.0.subids.is_empty()
    }

    /// Approximate bytes of all SubIDs.
    #[must_use]
    pub fn subids_size(&self) -> usize {
        self.0.subids.iter().map(|subids| subids.len() * SUBID_BYTES).sum()
    }

    /// Approximate bytes of the list, including shared parts.
    #[must_use]
    pub(super) fn size(&self) -> usize {
        self.len() * RECIPIENT_BYTES + self.subids_size()
    }

    /// Those of them for whom something holds.
    #[must_use]
    pub(super) fn filter(&self, holds: impl Fn(&Jid) -> bool) -> Self {
        self.try_filter(|jid| Ok::<_, Infallible>(holds(jid)))
            .unwrap_or_else(|never| match never {})
    }

    /// The same, where the test may fail.
    ///
    /// # Errors
    /// What the test fails with.
    pub fn try_filter<E>(&self, mut holds: impl FnMut(&Jid) -> Result<bool, E>) -> Result<Self, E> {
        let mut left = Vec::new();
        for (index, jid) in self.iter().enumerate() {
            if holds(jid)? {
                let subids = self.0.subids.get(index).map_or_else(Arc::default, Arc::clone);
                left.push((jid.clone(), subids));
            }
        }
        Ok(Self::with_subids(left))
    }

    /// The same entities in lists of at most so many; none if there is nobody.
    pub(super) fn chunks(&self, max: usize) -> Vec<Self> {
        if self.len() <= max {
            return (!self.is_empty()).then(|| self.clone()).into_iter().collect();
        }
        let all: Vec<_> = self.iter().cloned().collect();
        all.chunks(max).map(|some| some.iter().cloned().collect()).collect()
    }

    /// The parts that the list shares with others: what tells each from all others, and about how many bytes it takes.
    pub fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let bytes = |part: &SubscriberChunk| part.len() * RECIPIENT_BYTES;
        self.0.parts.iter().map(move |part| (Arc::as_ptr(part).addr(), bytes(part)))
    }

    /// The same for a list and its clones, and no other list while these are there.
    #[must_use]
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// The same for equal lists. It is computed once for a list and its clones.
    #[must_use]
    pub fn hash(&self) -> u64 {
        *self.0.hash.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.iter_with_subids().for_each(|recipient| recipient.hash(&mut hasher));
            hasher.finish()
        })
    }

    /// A reference that does not keep the list in memory.
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
    /// The list, as long as it is in memory.
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
