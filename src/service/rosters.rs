//! The rosters of owners, as far as the server lets the service read them (XEP-0356).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jid::BareJid;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::pubsub::{Contacts, Timestamp};

/// Rosters that are kept; with one more, all of them are read anew.
const MAX_ROSTERS: usize = 1000;
/// How long a roster is waited for, or that the server lets them be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Rosters that were read, and those that have to be.
#[derive(Debug, Default)]
pub struct Rosters {
    known: Mutex<Known>,
    asked: Notify,
    answered: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// The domain whose users' rosters may be read, and since when that is so.
    domain: Option<String>,
    since: Option<Instant>,
    /// Each with when it was read; nothing where it could not be.
    rosters: HashMap<BareJid, (Timestamp, Option<Arc<Contacts>>)>,
    unasked: VecDeque<BareJid>,
    /// Those that were asked for, and are not here yet.
    awaited: HashSet<BareJid>,
}

impl Rosters {
    /// From now on the rosters of the users of this domain may be read, or none.
    pub fn grant(&self, domain: Option<String>) {
        let mut known = self.known();
        *known = Known { domain, since: Some(Instant::now()), ..Known::default() };
        drop(known);
        self.answered.notify_waiters();
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.known().rosters.len()
    }

    /// Whether some may.
    #[must_use]
    pub fn are_granted(&self) -> bool {
        self.known().domain.is_some()
    }

    /// The rosters of some owners, none older than that; nothing if one cannot be read.
    pub(super) async fn of(
        &self,
        owners: &[BareJid],
        oldest: Timestamp,
        now: Timestamp,
    ) -> Option<Vec<Arc<Contacts>>> {
        let found = async {
            loop {
                let answered = self.answered.notified();
                let all: Vec<_> = owners.iter().map(|owner| self.look(owner, oldest)).collect();
                if let Some(all) = all.into_iter().collect::<Option<Option<_>>>() {
                    return all;
                }
                answered.await;
            }
        };
        let found = timeout(PATIENCE, found).await;
        if found.is_err() {
            // Nobody waits for them again before they are due again.
            owners.iter().for_each(|owner| self.answer(owner, None, now));
        }
        found.unwrap_or_default()
    }

    /// What is known of a roster, which may be that it cannot be read; nothing if that has to be waited for.
    #[allow(clippy::option_option)]
    fn look(&self, owner: &BareJid, oldest: Timestamp) -> Option<Option<Arc<Contacts>>> {
        let mut known = self.known();
        let Some(domain) = known.domain.as_deref() else {
            let is_early = known.since.is_some_and(|since| since.elapsed() < PATIENCE);
            return if is_early { None } else { Some(None) };
        };
        if owner.domain().as_str() != domain || owner.node().is_none() {
            return Some(Some(Arc::default()));
        }
        if let Some((at, contacts)) = known.rosters.get(owner)
            && *at >= oldest
        {
            return Some(contacts.clone());
        }
        if known.awaited.insert(owner.clone()) {
            known.unasked.push_back(owner.clone());
            drop(known);
            self.asked.notify_one();
        }
        None
    }

    /// Waits for a user whose roster has to be read.
    pub async fn wanted(&self) -> BareJid {
        loop {
            if let Some(owner) = self.known().unasked.pop_front() {
                return owner;
            }
            self.asked.notified().await;
        }
    }

    /// Whether a user's roster was asked for, and is not here yet.
    #[must_use]
    pub fn awaits(&self, owner: &BareJid) -> bool {
        self.known().awaited.contains(owner)
    }

    /// A roster that was asked for; nothing if it cannot be read.
    pub(super) fn answer(&self, owner: &BareJid, contacts: Option<Contacts>, now: Timestamp) {
        let mut known = self.known();
        if !known.awaited.remove(owner) {
            return;
        }
        if known.rosters.len() >= MAX_ROSTERS {
            known.rosters.clear();
        }
        known.rosters.insert(owner.clone(), (now, contacts.map(Arc::new)));
        drop(known);
        self.answered.notify_waiters();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
