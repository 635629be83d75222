//! Resources that were available on earlier connections.

use std::{collections::BTreeMap, mem, time::Duration};

use jid::{BareJid, Jid};
use tokio::time::Instant;

use gjallar_pubsub::Show;

use super::{MAX_ENTITIES, MAX_RESOURCES, PresenceTable, parts};

/// If a connection is interrupted for longer than this, its resources count as having missed events.
const MAX_INTERRUPTION: Duration = Duration::from_secs(300);
/// A presence counts as sent before a local time only if its timestamp is at least this much earlier. Some servers
/// write timestamps in whole seconds.
const STAMP_PRECISION: Duration = Duration::from_secs(1);

/// A resource that was available on an earlier connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreviousResource {
    pub(super) show: Show,
    /// Time at which the connection broke on which the resource was last available.
    pub(super) lost_at: Instant,
    /// `true` if a capability query or a ping is unanswered.
    pub(super) is_asked: bool,
    /// `true` if the resource may have missed events.
    pub(super) has_missed: bool,
    /// `true` if the answer to a query suggests that the resource is absent. Events do not wait for it, and its entity
    /// can count as unavailable.
    pub(super) is_denied: bool,
    /// `true` if the last query failed because the server is unreachable. If the entity does not share its presence,
    /// and so is not probed, the resource keeps its earlier state until its presence or an answer arrives.
    pub(super) is_unreachable: bool,
}

impl PreviousResource {
    /// Returns `true` if presence of this age proves that the resource was available throughout the interruption.
    pub(super) fn was_there(&self, age: Duration) -> bool {
        is_from_before(age, self.lost_at)
    }
}

/// Returns `true` if presence of this age was sent before `at`.
pub(super) fn is_from_before(age: Duration, at: Instant) -> bool {
    age >= at.elapsed() + STAMP_PRECISION
}

impl PresenceTable {
    /// Returns the record of a resource from earlier connections. For a bare JID, returns the records of all its
    /// resources.
    pub(super) fn before_of(&mut self, jid: &Jid) -> impl Iterator<Item = &mut PreviousResource> {
        let (entity, resource) = parts(jid);
        let is_bare = jid.is_bare();
        let all = self.before.get_mut(&entity).into_iter().flatten();
        all.filter(move |(name, _)| is_bare || **name == resource).map(|(_, before)| before)
    }

    /// Returns `true` if a resource of the entity was available on an earlier connection and may still be available.
    pub(super) fn has_unconfirmed(&self, entity: &BareJid) -> bool {
        let mut resources = self.before.get(entity).into_iter().flat_map(BTreeMap::values);
        resources.any(|before| !before.is_denied)
    }

    /// Moves the resources that were available on the connection that broke to the resources of earlier connections
    /// (`before`).
    pub(super) fn keep_before(&mut self, now: Instant) {
        let lost_at = self.broken_at.unwrap_or(now);
        let is_long = lost_at + MAX_INTERRUPTION < now;
        self.before.retain(|_, resources| {
            resources.retain(|_, before| !before.is_denied);
            !resources.is_empty()
        });
        for (entity, resources) in mem::take(&mut self.available) {
            let all = self.before.entry(entity).or_default();
            for (resource, show) in resources {
                if all.len() < MAX_RESOURCES {
                    let has_missed = all.get(&resource).is_some_and(|before| before.has_missed);
                    let (is_asked, is_denied, is_unreachable) = (false, false, false);
                    let before = PreviousResource {
                        show,
                        lost_at,
                        is_asked,
                        has_missed,
                        is_denied,
                        is_unreachable,
                    };
                    all.insert(resource, before);
                }
            }
        }
        if self.before.len() > MAX_ENTITIES {
            self.before.clear();
        }
        for before in self.before.values_mut().flat_map(BTreeMap::values_mut) {
            (before.is_asked, before.is_unreachable) = (false, false);
            before.has_missed |= is_long;
        }
    }

    /// Queues pings to resources that were available on earlier connections, except resources that receive a capability
    /// query and resources of entities that share their presence, because those entities are probed.
    pub(super) fn queue_pings(&mut self) {
        let Self { before, unconfirmed, watched, refused, .. } = self;
        unconfirmed.clear();
        for (entity, resources) in before {
            let needs_pings = match watched.get(entity) {
                Some(watch) => !watch.is_given,
                None => refused.contains(entity),
            };
            for (resource, before) in resources {
                if needs_pings
                    && !before.is_asked
                    && let Ok(jid) = Jid::new(&format!("{entity}/{resource}"))
                {
                    before.is_asked = true;
                    unconfirmed.push_back(jid);
                }
            }
        }
    }

    /// Removes and returns the record of a resource from earlier connections.
    pub(super) fn take_before(
        &mut self,
        entity: &BareJid,
        resource: &str,
    ) -> Option<PreviousResource> {
        let resources = self.before.get_mut(entity)?;
        let before = resources.remove(resource);
        if resources.is_empty() {
            self.before.remove(entity);
        }
        before
    }
}
