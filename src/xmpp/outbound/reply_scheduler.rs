//! Fair queue of outgoing replies (weighted fair queuing, Demers, Keshav and Shenker 1989). It shares bytes fairly
//! between domains, and between the entities of each domain. Thus a small reply waits for at most one large reply,
//! however many entities receive large replies.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, VecDeque},
};

use jid::with_u_labels;

/// Number of queued bytes for one entity above which no further requests of the entity are processed.
const MAX_BYTES_PER_JID: usize = 1024 * 1024;
/// Number of queued bytes for one domain above which no further requests of the domain are processed.
const MAX_BYTES_PER_DOMAIN: usize = 4 * 1024 * 1024;
/// Number of queued bytes in total above which no further requests are processed.
pub(in crate::xmpp) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Additional bytes that may be queued before a request with a small reply has to wait. Thus large replies to other
/// entities do not delay such requests. The bytes are added to the limit of a domain and to the limit of all domains.
pub(in crate::xmpp) const RESERVED_FOR_SMALL: usize = 8 * 1024 * 1024;

/// Queued replies of all domains.
#[derive(Debug, Default)]
pub(in crate::xmpp) struct ReplyScheduler {
    domains: HashMap<String, DomainQueue>,
    order: FairOrder,
    bytes: usize,
    /// Number of replies ever pushed.
    pushed: u64,
    /// Number of replies ever popped.
    popped: u64,
}

#[derive(Debug, Default)]
struct DomainQueue {
    entities: HashMap<String, EntityQueue>,
    order: FairOrder,
    bytes: usize,
    rank: QueueRank,
}

/// Replies to one entity, each with its number among all replies.
#[derive(Debug, Default)]
struct EntityQueue {
    replies: VecDeque<(u64, String)>,
    bytes: usize,
    rank: QueueRank,
}

/// Rank of a queue among the queues of a [`FairOrder`].
#[derive(Clone, Copy, Debug, Default)]
struct QueueRank {
    /// Virtual time at which the next reply starts: number of bytes that were sent from the queue so far. When an empty
    /// queue gets a reply, the start is raised to the current share ([`FairOrder::now`]) if it is lower.
    start: u64,
    /// Number of bytes of the next reply.
    next: usize,
}

impl QueueRank {
    fn end(self) -> u64 {
        self.start + self.next as u64
    }
}

/// Order in which queues are served. The first queue is the one whose next reply would end first if all queues had
/// equal shares of the connection.
#[derive(Debug, Default)]
struct FairOrder {
    /// Queues, each with the virtual time at which its next reply ends ([`QueueRank::end`]): start plus size of the
    /// reply.
    queues: BTreeSet<(u64, String)>,
    /// Current share, which is the virtual time: number of bytes that would have been sent by now from a queue that was
    /// never empty.
    now: u64,
    /// Start values of queues that became empty. A start value is needed until the current share exceeds it.
    empty: HashMap<String, u64>,
    /// Number of empty queues above which outdated start values are removed.
    most_empty: usize,
}

/// Minimum of [`FairOrder::most_empty`].
const MIN_EMPTY: usize = 1000;

impl FairOrder {
    /// Adds a queue with its first reply.
    fn join(&mut self, name: &str, next: usize) -> QueueRank {
        let start = self.empty.remove(name).unwrap_or_default().max(self.now);
        let rank = QueueRank { start, next };
        self.queues.insert((rank.end(), name.to_owned()));
        rank
    }

    /// Updates the rank of a queue whose next reply changed.
    fn replace(&mut self, name: &str, rank: &mut QueueRank, next: usize) {
        if rank.next != next {
            self.queues.remove(&(rank.end(), name.to_owned()));
            rank.next = next;
            self.queues.insert((rank.end(), name.to_owned()));
        }
    }

    /// Updates the order after `sent` bytes were sent from a queue. `next` is the number of bytes of the queue's next
    /// reply; a queue without a next reply is removed.
    fn serve(&mut self, name: String, rank: &mut QueueRank, sent: usize, next: Option<usize>) {
        let sent = sent as u64;
        self.now += sent.div_ceil(self.queues.len().max(1) as u64);
        let mut key = (rank.end(), name);
        self.queues.remove(&key);
        rank.start += sent;
        if let Some(next) = next {
            rank.next = next;
            key.0 = rank.end();
            self.queues.insert(key);
            return;
        }
        self.empty.insert(key.1, rank.start);
        if self.empty.len() > self.most_empty {
            self.empty.retain(|_, start| *start > self.now);
            self.most_empty = MIN_EMPTY.max(2 * self.empty.len());
        }
    }

    /// Returns the first queue, in this order, that satisfies a predicate.
    fn first(&self, holds: impl Fn(&str) -> bool) -> Option<String> {
        self.queues.iter().find(|(_, name)| holds(name)).map(|(_, name)| name.clone())
    }
}

impl ReplyScheduler {
    /// Enqueues a reply to an entity, given by its bare JID.
    pub(in crate::xmpp) fn push(&mut self, to: &str, reply: String) {
        let name = &*domain_of(to);
        self.bytes += reply.len();
        if !self.domains.contains_key(name) {
            let rank = self.order.join(name, reply.len());
            self.domains.insert(name.to_owned(), DomainQueue { rank, ..DomainQueue::default() });
        }
        if let Some(domain) = self.domains.get_mut(name) {
            domain.push(to, self.pushed, reply);
            let next = domain.next().unwrap_or_default();
            self.order.replace(name, &mut domain.rank, next);
            self.pushed += 1;
        }
    }

    /// Dequeues the next reply whose number is below `up_to`.
    pub(in crate::xmpp) fn pop(&mut self, up_to: u64) -> Option<String> {
        if self.popped >= up_to {
            return None;
        }
        let is_sendable = |name: &str| {
            self.domains.get(name).is_some_and(|domain| domain.first_sendable(up_to).is_some())
        };
        let name = self.order.first(is_sendable)?;
        let domain = self.domains.get_mut(&name)?;
        let reply = domain.pop(up_to)?;
        let next = domain.next();
        self.order.serve(name.clone(), &mut domain.rank, reply.len(), next);
        if next.is_none() {
            self.domains.remove(&name);
        }
        self.bytes -= reply.len();
        self.popped += 1;
        Some(reply)
    }

    /// Returns `true` if there is room for the reply to one more request of an entity, given by its bare JID.
    pub(in crate::xmpp) fn has_room(&self, to: &str, may_be_large: bool) -> bool {
        let reserved = if may_be_large { 0 } else { RESERVED_FOR_SMALL };
        let domain = self.domains.get(&*domain_of(to));
        let of_domain = domain.map_or(0, |domain| domain.bytes);
        let own = domain.and_then(|domain| domain.entities.get(to)).map_or(0, |own| own.bytes);
        own <= MAX_BYTES_PER_JID
            && of_domain <= MAX_BYTES_PER_DOMAIN + reserved
            && self.bytes <= MAX_BYTES + reserved
    }

    pub(in crate::xmpp) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of replies ever queued.
    pub(in crate::xmpp) fn count(&self) -> u64 {
        self.pushed
    }

    /// Returns `true` if replies are queued, and all of them have numbers of at least `up_to`.
    pub(in crate::xmpp) fn is_held(&self, up_to: u64) -> bool {
        self.bytes > 0 && self.popped >= up_to
    }
}

impl DomainQueue {
    fn push(&mut self, to: &str, number: u64, reply: String) {
        self.bytes += reply.len();
        if !self.entities.contains_key(to) {
            let rank = self.order.join(to, reply.len());
            self.entities.insert(to.to_owned(), EntityQueue { rank, ..EntityQueue::default() });
        }
        if let Some(entity) = self.entities.get_mut(to) {
            entity.bytes += reply.len();
            entity.replies.push_back((number, reply));
        }
    }

    /// Returns the size of the next reply in bytes, or `None` if there is no reply.
    fn next(&self) -> Option<usize> {
        let (_, name) = self.order.queues.first()?;
        self.entities.get(name).map(|entity| entity.rank.next)
    }

    /// Returns the next entity to serve among those with a reply numbered below `up_to`.
    fn first_sendable(&self, up_to: u64) -> Option<String> {
        let first = |name: &str| self.entities.get(name).and_then(|entity| entity.replies.front());
        self.order.first(|name| first(name).is_some_and(|(number, _)| *number < up_to))
    }

    fn pop(&mut self, up_to: u64) -> Option<String> {
        let name = self.first_sendable(up_to)?;
        let entity = self.entities.get_mut(&name)?;
        let (_, reply) = entity.replies.pop_front()?;
        entity.bytes -= reply.len();
        let next = entity.replies.front().map(|(_, reply)| reply.len());
        self.order.serve(name.clone(), &mut entity.rank, reply.len(), next);
        if next.is_none() {
            self.entities.remove(&name);
        }
        self.bytes -= reply.len();
        Some(reply)
    }
}

/// Returns the domain of a bare JID, with U-labels, so that both spellings of a domain share its limits.
pub(in crate::xmpp) fn domain_of(bare: &str) -> Cow<'_, str> {
    with_u_labels(bare.rsplit_once('@').map_or(bare, |(_, domain)| domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(queue: &mut ReplyScheduler, up_to: u64) -> String {
        std::iter::from_fn(|| queue.pop(up_to)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn domains_and_their_entities_take_turns() {
        let mut queue = ReplyScheduler::default();
        for (to, reply) in [
            ("bot@far", "b1"),
            ("bot@far", "b2"),
            ("bot@far", "b3"),
            ("other@far", "o1"),
            ("a@near", "a1"),
            ("a@near", "a2"),
        ] {
            queue.push(to, reply.into());
        }
        assert_eq!(popped(&mut queue, u64::MAX), "b1 a1 o1 a2 b2 b3");
        assert_eq!((queue.bytes(), queue.count()), (0, 6));
        assert!(queue.domains.is_empty() && queue.order.queues.is_empty());
    }

    /// An entity that always requests another large reply gets at most as many bytes as all other entities together.
    /// Its queue becomes empty after each reply, but this gives the entity no advantage.
    #[test]
    fn turns_are_fair_in_bytes() {
        for (reader, others) in [("reader@far", "near"), ("reader@near", "near")] {
            let mut queue = ReplyScheduler::default();
            let small = |number| (format!("u{}@{others}", number % 10), "x".repeat(100));
            for number in 0..10_000 {
                let (to, reply) = small(number);
                queue.push(&to, reply);
            }
            let (mut large_bytes, mut small_bytes) = (0, 0);
            queue.push(reader, "x".repeat(50_000));
            while small_bytes < 500_000 {
                let reply = queue.pop(u64::MAX).unwrap();
                if reply.len() == 100 {
                    small_bytes += 100;
                } else {
                    large_bytes += reply.len();
                    queue.push(reader, "x".repeat(50_000));
                }
            }
            assert!(large_bytes <= small_bytes + 50_000, "{large_bytes} {small_bytes}");
        }
    }

    /// A small reply waits for at most one large reply, however many entities, of one domain or of several, receive
    /// large replies.
    #[test]
    fn a_small_reply_waits_for_one_large_reply() {
        for domains in [1, 4, 30] {
            let mut queue = ReplyScheduler::default();
            let reader = |number| format!("reader{number}@{}.example", number % domains);
            let large = || "x".repeat(50_000);
            (0..30).for_each(|number| queue.push(&reader(number), large()));
            let mut served = [0; 30];
            for round in 0..300 {
                if round % 3 == 0 {
                    queue.push(&format!("small{round}@0.example"), "small".into());
                }
                let popped: Vec<_> = (0..2).map_while(|_| queue.pop(u64::MAX)).collect();
                let number_of = |queue: &ReplyScheduler| {
                    (0..30).find(|number| {
                        let domain = queue.domains.get(&*domain_of(&reader(*number)));
                        domain.is_none_or(|domain| !domain.entities.contains_key(&reader(*number)))
                    })
                };
                while let Some(number) = number_of(&queue) {
                    served[number] += 1;
                    queue.push(&reader(number), large());
                }
                if round % 3 == 0 {
                    assert!(popped.contains(&"small".to_owned()), "{domains} domains, {round}");
                }
            }
            let per_domain =
                |domain: usize| served.iter().skip(domain).step_by(domains).sum::<usize>();
            let shares: Vec<_> = (0..domains).map(per_domain).collect();
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 2, "{shares:?}");
        }
    }

    #[test]
    fn later_replies_are_held() {
        let mut queue = ReplyScheduler::default();
        for (to, reply) in [("a@x", "a1"), ("b@x", "b1"), ("a@x", "a2"), ("c@y", "c1")] {
            queue.push(to, reply.into());
        }
        assert_eq!(popped(&mut queue, 2), "a1 b1");
        assert!(queue.is_held(2) && !queue.is_held(3));
        assert_eq!(popped(&mut queue, 4), "c1 a2");
        assert!(!queue.is_held(4));
    }

    #[test]
    fn entities_domains_and_small_replies_have_room_of_their_own() {
        let mut queue = ReplyScheduler::default();
        let small = |queue: &ReplyScheduler, to| queue.has_room(to, false);
        let large = |queue: &ReplyScheduler, to| queue.has_room(to, true);
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
