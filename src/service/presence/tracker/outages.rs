//! Entities whose presence could not be requested, or that answered nothing, by their domains. They are asked again after
//! growing pauses: one entity of a domain at a time, and all others at the first stanza that shows that the domain can be
//! reached.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    ops::Bound,
    time::Duration,
};

use jid::BareJid;
use tokio::time::Instant;

use super::PresenceTable;

/// Pauses before the first attempts at a domain, and before each later one.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(300)];
const MAX_PAUSE: Duration = Duration::from_secs(900);
/// Maximum number of domains. The entities of others are not asked again.
const MAX_DOMAINS: usize = 100_000;

/// The domains with such entities.
#[derive(Debug, Default)]
pub(super) struct Outages {
    domains: HashMap<String, Outage>,
    /// The time of the next attempt at each domain.
    due: BTreeSet<(Instant, String)>,
}

#[derive(Debug, Default)]
struct Outage {
    /// The entities to ask again.
    entities: BTreeSet<BareJid>,
    /// The entity of the last attempt, until a stanza of the domain arrives.
    tried: Option<BareJid>,
    attempts: usize,
}

impl Outages {
    /// Adds an entity.
    pub(super) fn add(&mut self, entity: &BareJid) {
        let domain = entity.domain().as_str();
        if !self.domains.contains_key(domain) {
            if self.domains.len() >= MAX_DOMAINS {
                return;
            }
            self.due.insert((Instant::now() + pause(0), domain.to_owned()));
        }
        self.domains.entry(domain.to_owned()).or_default().entities.insert(entity.clone());
    }

    /// Removes an entity. A domain without entities stays until its next attempt.
    pub(super) fn remove(&mut self, entity: &BareJid) {
        if let Some(outage) = self.domains.get_mut(entity.domain().as_str()) {
            outage.entities.remove(entity);
        }
    }

    /// The time of the next attempt.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns `true` if there is any domain.
    pub(super) fn is_any(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Takes the entity of the next attempt that is due, and drops entities that need none.
    pub(super) fn pop(&mut self, needs_answer: impl Fn(&BareJid) -> bool) -> Option<BareJid> {
        let now = Instant::now();
        while self.next().is_some_and(|at| at <= now) {
            let (_, domain) = self.due.pop_first()?;
            let Some(outage) = self.domains.get_mut(&domain) else { continue };
            match outage.pop(&needs_answer) {
                Some(entity) => {
                    outage.attempts += 1;
                    self.due.insert((now + pause(outage.attempts), domain));
                    return Some(entity);
                }
                None => drop(self.domains.remove(&domain)),
            }
        }
        None
    }

    /// Takes all entities of a domain of which a stanza arrived, if it is the first one since the last attempt.
    pub(super) fn reach(&mut self, domain: &str) -> BTreeSet<BareJid> {
        let Some(outage) = self.domains.get_mut(domain) else { return BTreeSet::new() };
        match outage.tried.take() {
            Some(_) => mem::take(&mut outage.entities),
            None => BTreeSet::new(),
        }
    }
}

impl Outage {
    /// Takes the entity after the one of the last attempt.
    fn pop(&mut self, needs_answer: impl Fn(&BareJid) -> bool) -> Option<BareJid> {
        self.entities.retain(needs_answer);
        let after = self.tried.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.entities.range((after, Bound::Unbounded)).next();
        let next = next.or_else(|| self.entities.first()).cloned()?;
        self.entities.remove(&next);
        self.tried = Some(next.clone());
        Some(next)
    }
}

/// The pause after so many attempts.
fn pause(attempts: usize) -> Duration {
    PAUSES.get(attempts).copied().unwrap_or(MAX_PAUSE)
}

impl PresenceTable {
    /// Records an error instead of an entity's presence, or that a probe was not answered.
    pub(super) fn fail(&mut self, entity: &BareJid) {
        let watch = self.wanted.get_mut(entity);
        if let Some(watch) = watch.filter(|watch| watch.is_asked && !watch.is_answered) {
            watch.has_failed = true;
            self.requests.outages.add(entity);
        }
    }

    /// Requests the presence of an entity again at the next domain whose pause is over. Returns the domain; otherwise the
    /// end of the next pause.
    pub(super) fn try_again(&mut self) -> Result<String, Option<Instant>> {
        let Self { requests, wanted, .. } = self;
        let needs_answer =
            |entity: &BareJid| wanted.get(entity).is_some_and(|watch| !watch.is_answered);
        let Some(entity) = requests.outages.pop(needs_answer) else {
            return Err(requests.outages.next());
        };
        self.retry(&entity);
        Ok(entity.domain().as_str().to_owned())
    }

    /// Records that a stanza of a domain arrived.
    pub(super) fn reach(&mut self, domain: &str) {
        let entities = self.requests.outages.reach(domain);
        entities.iter().for_each(|entity| self.retry(entity));
    }

    fn retry(&mut self, entity: &BareJid) {
        if let Some(watch) = self.wanted.get_mut(entity).filter(|watch| !watch.is_answered) {
            (watch.is_asked, watch.is_doubtful) = (false, true);
            self.requests.push(entity, &watch.share, false);
        }
    }
}
