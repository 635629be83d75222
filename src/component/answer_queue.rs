//! Fair queue of outgoing replies: round-robin over domains, and over the entities of each domain, so that large
//! replies to one entity delay nobody else by more than one reply.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
};

use jid::with_u_labels;

/// Limits of queued bytes, per entity, per domain and in total, above which no further requests are processed.
const MAX_BYTES_PER_JID: usize = 1024 * 1024;
const MAX_BYTES_PER_DOMAIN: usize = 4 * 1024 * 1024;
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The queued replies.
#[derive(Debug, Default)]
pub(super) struct AnswerQueue {
    domains: HashMap<String, DomainQueue>,
    /// The domains with queued replies, in round-robin order.
    turn: VecDeque<String>,
    bytes: usize,
    /// Number of replies ever pushed, and ever popped.
    pushed: u64,
    popped: u64,
}

#[derive(Debug, Default)]
struct DomainQueue {
    entities: HashMap<String, EntityQueue>,
    turn: VecDeque<String>,
    bytes: usize,
}

/// The replies to one entity, each with its number among all replies.
#[derive(Debug, Default)]
struct EntityQueue {
    answers: VecDeque<(u64, String)>,
    bytes: usize,
}

impl AnswerQueue {
    /// Enqueues a reply to an entity, given by its bare JID.
    pub(super) fn push(&mut self, to: &str, answer: String) {
        let name = domain_of(to);
        let domain = self.domains.entry(name.clone().into_owned()).or_default();
        if domain.bytes == 0 {
            self.turn.push_back(name.into_owned());
        }
        let waiting = domain.entities.entry(to.to_owned()).or_default();
        if waiting.bytes == 0 {
            domain.turn.push_back(to.to_owned());
        }
        waiting.bytes += answer.len();
        domain.bytes += answer.len();
        self.bytes += answer.len();
        waiting.answers.push_back((self.pushed, answer));
        self.pushed += 1;
    }

    /// Dequeues the next reply whose number is below `up_to`.
    pub(super) fn pop(&mut self, up_to: u64) -> Option<String> {
        if self.popped >= up_to {
            return None;
        }
        for _ in 0..self.turn.len() {
            let name = self.turn.pop_front()?;
            let domain = self.domains.get_mut(&name)?;
            let answer = domain.pop(up_to);
            match domain.bytes {
                0 => drop(self.domains.remove(&name)),
                _ => self.turn.push_back(name),
            }
            if let Some(answer) = answer {
                self.bytes -= answer.len();
                self.popped += 1;
                return Some(answer);
            }
        }
        None
    }

    /// Whether another request of an entity, given by its bare JID, may be processed.
    pub(super) fn has_room(&self, to: &str) -> bool {
        let domain = self.domains.get(&*domain_of(to));
        let of_domain = domain.map_or(0, |domain| domain.bytes);
        let own = domain.and_then(|domain| domain.entities.get(to)).map_or(0, |own| own.bytes);
        own <= MAX_BYTES_PER_JID && of_domain <= MAX_BYTES_PER_DOMAIN && self.bytes <= MAX_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of replies ever queued.
    pub(super) fn count(&self) -> u64 {
        self.pushed
    }

    /// Whether all queued replies have numbers from `up_to` on.
    pub(super) fn is_held(&self, up_to: u64) -> bool {
        self.bytes > 0 && self.popped >= up_to
    }
}

impl DomainQueue {
    fn pop(&mut self, up_to: u64) -> Option<String> {
        for _ in 0..self.turn.len() {
            let name = self.turn.pop_front()?;
            let waiting = self.entities.get_mut(&name)?;
            let is_free = waiting.answers.front().is_some_and(|(number, _)| *number < up_to);
            let answer = if is_free { waiting.answers.pop_front() } else { None };
            let bytes = answer.as_ref().map_or(0, |(_, answer)| answer.len());
            waiting.bytes -= bytes;
            self.bytes -= bytes;
            match waiting.bytes {
                0 => drop(self.entities.remove(&name)),
                _ => self.turn.push_back(name),
            }
            if let Some((_, answer)) = answer {
                return Some(answer);
            }
        }
        None
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
        assert!(queue.domains.is_empty() && queue.turn.is_empty());
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
        queue.push("bot@far", "x".repeat(MAX_BYTES_PER_JID + 1));
        assert!(!queue.has_room("bot@far") && queue.has_room("other@far"));
        queue.push("other@far", "x".repeat(MAX_BYTES_PER_DOMAIN));
        assert!(!queue.has_room("third@far") && queue.has_room("a@near"));
        queue.push("a@near", "x".repeat(MAX_BYTES));
        assert!(!queue.has_room("b@nearest"));
    }
}
