//! Queue of presence requests: round robin over the creators of the nodes that need the presence. Thus a long list of
//! subscribers at the nodes of one creator does not delay the requests for other creators.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use jid::{AccountKey, BareJid};

use super::outages::Outages;

/// Account under which an entity is queued: that of the creator of a node that needs the entity's presence. The queue
/// is round robin over these accounts. `None` while the creator is unknown.
pub(super) type Share = Option<Arc<AccountKey>>;

/// While events wait for some entities, one in this many requests is still for an entity for which no event waits.
const OTHERS_INTERVAL: u64 = 10;

/// Entities whose presence has to be requested, each queued once.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Entities for which an event waits.
    urgent: RoundRobin,
    others: RoundRobin,
    entries: HashMap<BareJid, QueueEntry>,
    /// Failed presence requests and queries, to be repeated later.
    pub(super) outages: Outages,
    /// Number of watched entities for each account: those whose presence the nodes that the account created need.
    sizes: HashMap<Arc<AccountKey>, usize>,
    pushed: u64,
    popped: u64,
}

/// Place of an entity in the queue: account, urgency and number.
#[derive(Debug)]
struct QueueEntry {
    share: Share,
    is_urgent: bool,
    number: u64,
}

/// Queued entities under each account, in order.
#[derive(Debug, Default)]
struct RoundRobin {
    shares: HashMap<Share, BTreeMap<u64, BareJid>>,
    /// Accounts in round-robin order. Each account occurs once.
    order: VecDeque<Share>,
}

impl Requests {
    /// Counts a new watched entity under the account of a creator, and returns this account.
    pub(super) fn join(&mut self, creator: Option<&AccountKey>) -> Share {
        let creator = creator?;
        let known = self.sizes.get_key_value(creator).map(|(known, _)| Arc::clone(known));
        let share = known.unwrap_or_else(|| Arc::new(creator.clone()));
        *self.sizes.entry(Arc::clone(&share)).or_default() += 1;
        Some(share)
    }

    /// Moves an entity from the account `share` to the account of another creator, whose nodes need the entity's
    /// presence too. Does nothing if that account has no fewer entities.
    pub(super) fn reassign(&mut self, entity: &BareJid, share: &mut Share, creator: &AccountKey) {
        let size = |creator: &AccountKey| self.sizes.get(creator).copied().unwrap_or_default();
        let is_smaller =
            share.as_ref().is_none_or(|current| size(creator) + 1 < size(current.as_ref()));
        if is_smaller {
            self.leave(share);
            *share = self.join(Some(creator));
            if self.entries.contains_key(entity) {
                self.push(entity, share, false);
            }
        }
    }

    /// Removes a watched entity from the count of its account.
    pub(super) fn leave(&mut self, share: &Share) {
        if let Some(creator) = share
            && let Some(size) = self.sizes.get_mut(creator)
        {
            *size -= 1;
            if *size == 0 {
                self.sizes.remove(creator);
            }
        }
    }

    /// Queues an entity; `is_urgent` is `true` if an event waits for it. An entity that is already in the queue moves
    /// to the account `share`. If it is urgent, it also moves before the entities for which no event waits.
    pub(super) fn push(&mut self, entity: &BareJid, share: &Share, is_urgent: bool) {
        let before = self.entries.get(entity);
        let is_urgent = is_urgent || before.is_some_and(|entry| entry.is_urgent);
        if before.is_some_and(|entry| entry.share == *share && entry.is_urgent == is_urgent) {
            return;
        }
        let number = before.map_or(self.pushed, |entry| entry.number);
        self.remove(entity);
        self.pushed += 1;
        self.queue(is_urgent).push(share, number, entity.clone());
        self.entries.insert(entity.clone(), QueueEntry { share: share.clone(), is_urgent, number });
    }

    /// Removes and returns the next entity.
    pub(super) fn pop(&mut self) -> Option<BareJid> {
        self.popped += 1;
        let is_urgent = !self.popped.is_multiple_of(OTHERS_INTERVAL);
        let next = self.queue(is_urgent).pop();
        let entity = next.or_else(|| self.queue(!is_urgent).pop())?;
        self.entries.remove(&entity);
        Some(entity)
    }

    /// Removes an entity from the queue.
    pub(super) fn remove(&mut self, entity: &BareJid) {
        self.outages.remove(entity);
        if let Some(QueueEntry { share, is_urgent, number }) = self.entries.remove(entity) {
            self.queue(is_urgent).remove(&share, number);
        }
    }

    /// Empties the queue.
    pub(super) fn clear(&mut self) {
        (self.urgent, self.others) = (RoundRobin::default(), RoundRobin::default());
        self.entries.clear();
        self.outages = Outages::default();
    }

    fn queue(&mut self, is_urgent: bool) -> &mut RoundRobin {
        if is_urgent { &mut self.urgent } else { &mut self.others }
    }
}

impl RoundRobin {
    fn push(&mut self, share: &Share, number: u64, entity: BareJid) {
        if !self.shares.contains_key(share) {
            self.order.push_back(share.clone());
        }
        self.shares.entry(share.clone()).or_default().insert(number, entity);
    }

    /// Removes and returns the first entity of the next account.
    fn pop(&mut self) -> Option<BareJid> {
        while let Some(share) = self.order.pop_front() {
            let first = self.shares.get_mut(&share).and_then(BTreeMap::pop_first);
            match first {
                Some((_, entity)) => {
                    self.order.push_back(share);
                    return Some(entity);
                }
                None => drop(self.shares.remove(&share)),
            }
        }
        None
    }

    /// Removes an entity. An account without entities stays in the round-robin order until `pop` reaches it.
    fn remove(&mut self, share: &Share, number: u64) {
        if let Some(entities) = self.shares.get_mut(share) {
            entities.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(name: &str) -> BareJid {
        BareJid::new(&format!("{name}@x")).unwrap()
    }

    fn account(name: &str) -> AccountKey {
        AccountKey::of(&bare(name))
    }

    fn shares(requests: &mut Requests, creators: [&str; 2]) -> [Share; 2] {
        creators.map(|creator| requests.join(Some(&account(creator))))
    }

    fn popped(requests: &mut Requests) -> String {
        let names = std::iter::from_fn(|| requests.pop());
        names.map(|entity| entity.node().unwrap().as_str().to_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn creators_take_turns() {
        let mut requests = Requests::default();
        let [many, few] = shares(&mut requests, ["many", "few"]);
        for name in ["a", "b", "c", "d"] {
            requests.push(&bare(name), &many, false);
        }
        for name in ["y", "z"] {
            requests.push(&bare(name), &few, false);
        }
        requests.push(&bare("unknown"), &None, false);
        requests.push(&bare("a"), &many, false);
        assert_eq!(popped(&mut requests), "a y unknown b z c d");
        assert!(requests.entries.is_empty());
        assert!(requests.others.shares.is_empty() && requests.others.order.is_empty());
    }

    /// Entities for which an event waits come first, but a few of the requests are for other entities.
    #[test]
    fn urgent_requests_are_sent_first() {
        let mut requests = Requests::default();
        let [many, few] = shares(&mut requests, ["many", "few"]);
        requests.push(&bare("other"), &few, false);
        for number in 0..20 {
            requests.push(&bare(&format!("m{number}")), &many, false);
            requests.push(&bare(&format!("m{number}")), &many, true);
        }
        requests.push(&bare("urgent"), &few, true);
        let order = popped(&mut requests);
        assert!(order.starts_with("m0 urgent m1 m2 m3 m4 m5 m6 m7 other m8 "), "{order}");
        assert_eq!(order.split(' ').count(), 22);
    }

    /// If the nodes of two creators need an entity's presence, the entity is queued under the account with fewer
    /// entities.
    #[test]
    fn entity_is_in_the_smallest_share() {
        let mut requests = Requests::default();
        let mut shares = Vec::new();
        for name in ["a", "b", "c", "reader"] {
            let share = requests.join(Some(&account("many")));
            requests.push(&bare(name), &share, false);
            shares.push(share);
        }
        let share = shares.last_mut().unwrap();
        requests.reassign(&bare("reader"), share, &account("few"));
        assert_eq!(**share.as_ref().unwrap(), account("few"));
        requests.reassign(&bare("reader"), share, &account("many"));
        assert_eq!(**share.as_ref().unwrap(), account("few"), "that is larger");
        assert_eq!(popped(&mut requests), "a reader b c");
        shares.iter().for_each(|share| requests.leave(share));
        assert!(requests.sizes.is_empty());
    }

    #[test]
    fn removed_entities_leave_nothing() {
        let mut requests = Requests::default();
        let [many, few] = shares(&mut requests, ["many", "few"]);
        for (name, share) in [("a", &many), ("b", &few), ("c", &many)] {
            requests.push(&bare(name), share, false);
        }
        requests.remove(&bare("b"));
        requests.push(&bare("d"), &few, false);
        requests.remove(&bare("a"));
        assert_eq!(popped(&mut requests), "c d");
        requests.push(&bare("a"), &many, true);
        requests.clear();
        assert_eq!(popped(&mut requests), "");
    }
}
