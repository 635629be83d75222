//! Retries of failed presence requests and queries by domain, at growing intervals. An entity is retried if its
//! presence request failed or had no answer. A resource is retried if its query failed. One entity or resource of a
//! domain is retried at a time. Once a stanza shows that the domain is reachable, all entities and resources of the
//! domain are retried.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    ops::Bound,
    time::Duration,
};

use jid::{BareJid, Jid};
use tokio::time::Instant;

use super::{PresenceTable, parts};

/// Intervals before the first three attempts at a domain.
const RETRY_INTERVALS: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(300)];
/// Interval before each later attempt at a domain.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(900);
/// Maximum number of domains. Entities of further domains are not retried.
const MAX_DOMAINS: usize = 100_000;

/// Domains with entities or resources to retry.
#[derive(Debug, Default)]
pub(super) struct Outages {
    domains: HashMap<String, Outage>,
    /// Time of the next attempt at each domain.
    due: BTreeSet<(Instant, String)>,
}

#[derive(Debug, Default)]
struct Outage {
    /// Bare JIDs of entities, and full JIDs of resources, to retry.
    entities: BTreeSet<Jid>,
    /// JID that was tried in the last attempt; `None` once a stanza from the domain has arrived.
    tried: Option<Jid>,
    attempts: usize,
}

impl Outages {
    /// Adds an entity or a resource.
    pub(super) fn add(&mut self, entity: &Jid) {
        let domain = entity.domain().as_str();
        if !self.domains.contains_key(domain) {
            if self.domains.len() >= MAX_DOMAINS {
                return;
            }
            self.due.insert((Instant::now() + pause(0), domain.to_owned()));
        }
        self.domains.entry(domain.to_owned()).or_default().entities.insert(entity.clone());
    }

    /// Removes an entity. A domain without entities stays in the table until its next attempt is due.
    pub(super) fn remove(&mut self, entity: &BareJid) {
        if let Some(outage) = self.domains.get_mut(entity.domain().as_str()) {
            outage.entities.remove(entity);
        }
    }

    /// Returns the time of the next attempt.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns `true` if there is any domain to retry.
    pub(super) fn is_any(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Removes and returns the JID of the next attempt that is due. Also removes the other JIDs of the domain that need
    /// no answer any more.
    pub(super) fn pop(&mut self, needs_answer: impl Fn(&Jid) -> bool) -> Option<Jid> {
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

    /// Removes and returns the JIDs to retry at a domain from which a stanza arrived. Only the first stanza after an
    /// attempt has this effect; for later stanzas the result is empty.
    pub(super) fn reach(&mut self, domain: &str) -> BTreeSet<Jid> {
        let Some(outage) = self.domains.get_mut(domain) else { return BTreeSet::new() };
        match outage.tried.take() {
            Some(_) => mem::take(&mut outage.entities),
            None => BTreeSet::new(),
        }
    }
}

impl Outage {
    /// Removes and returns the first JID after that of the last attempt, in sort order. After the last JID, the order
    /// starts again from the first.
    fn pop(&mut self, needs_answer: impl Fn(&Jid) -> bool) -> Option<Jid> {
        self.entities.retain(needs_answer);
        let after = self.tried.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.entities.range((after, Bound::Unbounded)).next();
        let next = next.or_else(|| self.entities.first()).cloned()?;
        self.entities.remove(&next);
        self.tried = Some(next.clone());
        Some(next)
    }
}

/// Returns the interval before the next attempt at a domain, after `attempts` attempts.
fn pause(attempts: usize) -> Duration {
    RETRY_INTERVALS.get(attempts).copied().unwrap_or(MAX_RETRY_INTERVAL)
}

impl PresenceTable {
    /// Records that a presence request returned an error, or that a probe had no answer.
    pub(super) fn fail(&mut self, entity: &BareJid) {
        let watch = self.watched.get_mut(entity);
        if let Some(watch) = watch.filter(|watch| watch.is_asked && !watch.is_answered) {
            watch.has_failed = true;
            self.requests.outages.add(entity);
        }
    }

    /// Records that a query to a resource failed because its server is unreachable.
    pub(super) fn fail_query(&mut self, jid: &Jid) {
        for before in self.before_of(jid) {
            (before.is_asked, before.is_unreachable) = (false, true);
        }
        if self.before_of(jid).next().is_some() {
            self.requests.outages.add(jid);
        }
    }

    /// Returns `true` if the last request for the presence of the JID's entity failed, or if the last query to the
    /// resource failed. For a bare JID, the failed query may be to any of its resources.
    pub(super) fn is_unreachable(&mut self, jid: &Jid) -> bool {
        self.watched.get(&jid.to_bare()).is_some_and(|watch| watch.has_failed)
            || self.before_of(jid).any(|before| before.is_unreachable)
    }

    /// Queues the retry of one entity or resource of the next domain whose retry interval is over. Returns the domain.
    /// If there is no such domain, returns as the error the end of the next interval, or `Err(None)` if no domain has
    /// to be retried.
    pub(super) fn try_again(&mut self) -> Result<String, Option<Instant>> {
        let Self { requests, watched, before, .. } = self;
        let needs_answer = |jid: &Jid| {
            let (entity, resource) = parts(jid);
            match jid.is_bare() {
                true => watched.get(&entity).is_some_and(|watch| !watch.is_answered),
                false => {
                    let before = before.get(&entity).and_then(|all| all.get(&resource));
                    before.is_some_and(|before| before.is_unreachable)
                }
            }
        };
        let Some(jid) = requests.outages.pop(needs_answer) else {
            return Err(requests.outages.next());
        };
        self.retry(&jid);
        Ok(jid.domain().as_str().to_owned())
    }

    /// Queues the retries of a domain when a stanza from the domain arrives.
    pub(super) fn reach(&mut self, domain: &str) {
        let all = self.requests.outages.reach(domain);
        all.iter().for_each(|jid| self.retry(jid));
    }

    fn retry(&mut self, jid: &Jid) {
        if jid.is_bare() {
            self.retry_request(&jid.to_bare());
        } else {
            self.retry_query(jid);
        }
    }

    fn retry_request(&mut self, entity: &BareJid) {
        if let Some(watch) = self.watched.get_mut(entity).filter(|watch| !watch.is_answered) {
            (watch.is_asked, watch.is_doubtful) = (false, true);
            self.requests.push(entity, &watch.share, false);
        }
    }

    fn retry_query(&mut self, resource: &Jid) {
        let Some(before) = self.before_of(resource).find(|before| before.is_unreachable) else {
            return;
        };
        before.is_asked = true;
        self.unconfirmed.push_back(resource.clone());
    }
}
