//! Fair queue of outgoing replies: by turns and fair in bytes between domains, and between the entities of each domain, so
//! that large replies to one entity delay nobody else by more than one reply.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, VecDeque},
};

use jid::with_u_labels;

/// Limits of queued bytes, per entity, per domain and in total, above which no further requests are processed.
const MAX_BYTES_PER_JID: usize = 1024 * 1024;
const MAX_BYTES_PER_DOMAIN: usize = 4 * 1024 * 1024;
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Queued bytes of a domain, and in total, in excess of these limits up to which requests with small replies are processed,
/// so that large replies to others do not delay them.
const RESERVED_FOR_SMALL: usize = 8 * 1024 * 1024;

/// The queued replies.
#[derive(Debug, Default)]
pub(super) struct AnswerQueue {
    domains: HashMap<String, DomainQueue>,
    turns: Turns,
    bytes: usize,
    /// Number of replies ever pushed, and ever popped.
    pushed: u64,
    popped: u64,
}

#[derive(Debug, Default)]
struct DomainQueue {
    entities: HashMap<String, EntityQueue>,
    turns: Turns,
    bytes: usize,
    /// Its place in the order of domains.
    place: u64,
}

/// The replies to one entity, each with its number among all replies.
#[derive(Debug, Default)]
struct EntityQueue {
    answers: VecDeque<(u64, String)>,
    bytes: usize,
    /// Its place in the order of the entities of its domain.
    place: u64,
}

/// Order of queues that are served in turn, fair in bytes (start-time fair queuing): a queue moves back by the bytes
/// that are sent from it, and a new one starts at the place of the queue that was served last.
#[derive(Debug, Default)]
struct Turns {
    order: BTreeSet<(u64, String)>,
    now: u64,
    /// The places of queues that became empty; needed until the present place has passed them.
    empty: HashMap<String, u64>,
    /// Number of these places above which outdated ones are removed.
    most_empty: usize,
}

/// Minimum number of remembered places before outdated ones are removed.
const MIN_EMPTY: usize = 1000;

impl Turns {
    /// Adds a queue. Returns its place.
    fn join(&mut self, name: &str) -> u64 {
        let place = self.empty.remove(name).unwrap_or_default().max(self.now);
        self.order.insert((place, name.to_owned()));
        place
    }

    /// Moves a queue from which bytes were sent, or removes it if it is empty. Returns its new place.
    fn serve(&mut self, name: String, place: u64, bytes: usize, is_empty: bool) -> u64 {
        let mut key = (place, name);
        self.order.remove(&key);
        self.now = self.now.max(place);
        key.0 += bytes as u64;
        let place = key.0;
        if is_empty {
            self.empty.insert(key.1, place);
            if self.empty.len() > self.most_empty {
                self.empty.retain(|_, place| *place > self.now);
                self.most_empty = MIN_EMPTY.max(2 * self.empty.len());
            }
        } else {
            self.order.insert(key);
        }
        place
    }

    /// The first queue that satisfies a predicate.
    fn first(&self, holds: impl Fn(&str) -> bool) -> Option<String> {
        self.order.iter().find(|(_, name)| holds(name)).map(|(_, name)| name.clone())
    }
}

impl AnswerQueue {
    /// Enqueues a reply to an entity, given by its bare JID.
    pub(super) fn push(&mut self, to: &str, answer: String) {
        let name = &*domain_of(to);
        self.bytes += answer.len();
        if !self.domains.contains_key(name) {
            let place = self.turns.join(name);
            self.domains.insert(name.to_owned(), DomainQueue { place, ..DomainQueue::default() });
        }
        if let Some(domain) = self.domains.get_mut(name) {
            domain.push(to, self.pushed, answer);
            self.pushed += 1;
        }
    }

    /// Dequeues the next reply whose number is below `up_to`.
    pub(super) fn pop(&mut self, up_to: u64) -> Option<String> {
        if self.popped >= up_to {
            return None;
        }
        let is_free = |name: &str| {
            self.domains.get(name).is_some_and(|domain| domain.first_free(up_to).is_some())
        };
        let name = self.turns.first(is_free)?;
        let domain = self.domains.get_mut(&name)?;
        let answer = domain.pop(up_to)?;
        let is_empty = domain.entities.is_empty();
        domain.place = self.turns.serve(name.clone(), domain.place, answer.len(), is_empty);
        if is_empty {
            self.domains.remove(&name);
        }
        self.bytes -= answer.len();
        self.popped += 1;
        Some(answer)
    }

    /// Whether there is room for the reply to another request of an entity, given by its bare JID.
    pub(super) fn has_room(&self, to: &str, may_be_large: bool) -> bool {
        let reserved = if may_be_large { 0 } else { RESERVED_FOR_SMALL };
        let domain = self.domains.get(&*domain_of(to));
        let of_domain = domain.map_or(0, |domain| domain.bytes);
        let own = domain.and_then(|domain| domain.entities.get(to)).map_or(0, |own| own.bytes);
        own <= MAX_BYTES_PER_JID
            && of_domain <= MAX_BYTES_PER_DOMAIN + reserved
            && self.bytes <= MAX_BYTES + reserved
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of replies ever queued.
    pub(super) fn count(&self) -> u64 {
        self.pushed
    }

    /// Whether every queued reply has a number of at least `up_to`.
    pub(super) fn is_held(&self, up_to: u64) -> bool {
        self.bytes > 0 && self.popped >= up_to
    }
}

impl DomainQueue {
    fn push(&mut self, to: &str, number: u64, answer: String) {
        self.bytes += answer.len();
        if !self.entities.contains_key(to) {
            let place = self.turns.join(to);
            self.entities.insert(to.to_owned(), EntityQueue { place, ..EntityQueue::default() });
        }
        if let Some(entity) = self.entities.get_mut(to) {
            entity.bytes += answer.len();
            entity.answers.push_back((number, answer));
        }
    }

    /// The entity to serve next, among those with a reply numbered below `up_to`.
    fn first_free(&self, up_to: u64) -> Option<String> {
        let first = |name: &str| self.entities.get(name).and_then(|entity| entity.answers.front());
        self.turns.first(|name| first(name).is_some_and(|(number, _)| *number < up_to))
    }

    fn pop(&mut self, up_to: u64) -> Option<String> {
        let name = self.first_free(up_to)?;
        let entity = self.entities.get_mut(&name)?;
        let (_, answer) = entity.answers.pop_front()?;
        entity.bytes -= answer.len();
        let is_empty = entity.answers.is_empty();
        entity.place = self.turns.serve(name.clone(), entity.place, answer.len(), is_empty);
        if is_empty {
            self.entities.remove(&name);
        }
        self.bytes -= answer.len();
        Some(answer)
    }
}

/// The domain of a bare JID, with U-labels: the limits of a domain count both of its spellings.
pub(super) fn domain_of(bare: &str) -> Cow<'_, str> {
    with_u_labels(bare.rsplit_once('@').map_or(bare, |(_, domain)| domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(queue: &mut AnswerQueue, up_to: u64) -> String {
        std::iter::from_fn(|| queue.pop(up_to)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn domains_have_their_turn_and_in_them_entities() {
        let mut queue = AnswerQueue::default();
        for (to, answer) in [
            ("bot@far", "b1"),
            ("bot@far", "b2"),
            ("bot@far", "b3"),
            ("other@far", "o1"),
            ("a@near", "a1"),
            ("a@near", "a2"),
        ] {
            queue.push(to, answer.into());
        }
        assert_eq!(popped(&mut queue, u64::MAX), "b1 a1 o1 a2 b2 b3");
        assert_eq!((queue.bytes(), queue.count()), (0, 6));
        assert!(queue.domains.is_empty() && queue.turns.order.is_empty());
    }

    /// An entity that is sent large replies one after the other gets no more bytes than the others together, although its
    /// queue is empty in between.
    #[test]
    fn turns_are_fair_in_bytes() {
        for (reader, others) in [("reader@far", "near"), ("reader@near", "near")] {
            let mut queue = AnswerQueue::default();
            let small = |number| (format!("u{}@{others}", number % 10), "x".repeat(100));
            for number in 0..10_000 {
                let (to, answer) = small(number);
                queue.push(&to, answer);
            }
            let (mut large_bytes, mut small_bytes) = (0, 0);
            queue.push(reader, "x".repeat(50_000));
            while small_bytes < 500_000 {
                let answer = queue.pop(u64::MAX).unwrap();
                if answer.len() == 100 {
                    small_bytes += 100;
                } else {
                    large_bytes += answer.len();
                    queue.push(reader, "x".repeat(50_000));
                }
            }
            assert!(large_bytes <= small_bytes + 50_000, "{large_bytes} {small_bytes}");
        }
    }

    #[test]
    fn what_came_later_is_held() {
        let mut queue = AnswerQueue::default();
        for (to, answer) in [("a@x", "a1"), ("b@x", "b1"), ("a@x", "a2"), ("c@y", "c1")] {
            queue.push(to, answer.into());
        }
        assert_eq!(popped(&mut queue, 2), "a1 b1");
        assert!(queue.is_held(2) && !queue.is_held(3));
        assert_eq!(popped(&mut queue, 4), "c1 a2");
        assert!(!queue.is_held(4));
    }

    #[test]
    fn each_has_its_room() {
        let mut queue = AnswerQueue::default();
        let small = |queue: &AnswerQueue, to| queue.has_room(to, false);
        let large = |queue: &AnswerQueue, to| queue.has_room(to, true);
        queue.push("bot@far", "x".repeat(MAX_BYTES_PER_JID + 1));
        assert!(!small(&queue, "bot@far") && large(&queue, "other@far"));
        queue.push("other@far", "x".repeat(MAX_BYTES_PER_DOMAIN));
        assert!(!large(&queue, "third@far") && small(&queue, "third@far"));
        queue.push("other@far", "x".repeat(RESERVED_FOR_SMALL));
        assert!(!small(&queue, "third@far") && large(&queue, "a@near"));
        queue.push("a@near", "x".repeat(MAX_BYTES_PER_DOMAIN));
        assert!(!large(&queue, "b@nearest") && small(&queue, "b@nearest"));
        queue.push("a@near", "x".repeat(RESERVED_FOR_SMALL));
        assert!(!small(&queue, "b@nearest"));
    }
}
