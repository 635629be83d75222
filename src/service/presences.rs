//! Who is available, as far as it is known on this connection, and of whom it should be.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jid::{BareJid, Jid};
use tokio::{sync::Notify, time::Instant};

use crate::pubsub::{NodeId, Show, Shows, op::presence::Went};

use super::domains::Domains;

/// Entities whose presence is known, or asked for. That of more is not looked at.
const MAX_ENTITIES: usize = 200_000;
/// The time between two attempts to make room.
const PAUSE: Duration = Duration::from_secs(60);
/// Nodes of one entity at which something goes when it goes.
const MAX_PUBLISHED_AT: usize = 1000;
/// Resources of one entity.
const MAX_RESOURCES: usize = 32;
/// Those of an entity whose presence nobody asked for.
const MAX_UNWANTED: usize = 8;

/// The presence of entities, and at which nodes it matters.
#[derive(Debug, Default)]
pub struct Presences {
    known: Mutex<Known>,
    asked: Notify,
}

#[derive(Debug)]
struct Known {
    /// The nodes at which somebody's presence matters, or did.
    nodes: HashSet<NodeId>,
    there: HashMap<BareJid, BTreeMap<String, Show>>,
    /// Those who have to be asked, and those who were or will be.
    unasked: VecDeque<BareJid>,
    wanted: HashSet<BareJid>,
    /// Those of them who let the service have it.
    given: HashSet<BareJid>,
    /// Where some of them published what goes when they go.
    publishers: HashMap<BareJid, BTreeSet<NodeId>>,
    /// When room was made.
    dropped: Option<Instant>,
    /// The places of those who are there, and of those who are wanted.
    places: Domains,
    wanted_places: Domains,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            nodes: HashSet::new(),
            there: HashMap::new(),
            unasked: VecDeque::new(),
            wanted: HashSet::new(),
            given: HashSet::new(),
            publishers: HashMap::new(),
            dropped: None,
            places: Domains::new(MAX_ENTITIES),
            wanted_places: Domains::new(MAX_ENTITIES),
        }
    }
}

impl Presences {
    /// How many entities are available.
    pub(super) fn len(&self) -> usize {
        self.known().there.len()
    }

    /// The presence of these entities matters at a node.
    pub(super) fn matter(&self, node: &NodeId, entities: impl Iterator<Item = BareJid>) {
        self.known().nodes.insert(node.clone());
        entities.for_each(|entity| self.want(entity));
    }

    /// What an entity published at a node goes when it goes.
    pub(super) fn publishes(&self, node: &NodeId, entity: BareJid) {
        let mut known = self.known();
        if known.wanted.contains(&entity) {
            let nodes = known.publishers.entry(entity).or_default();
            if nodes.len() < MAX_PUBLISHED_AT {
                nodes.insert(node.clone());
            }
        }
    }

    /// The nodes at which it did.
    pub(super) fn published_at(&self, entity: &BareJid) -> BTreeSet<NodeId> {
        self.known().publishers.remove(entity).unwrap_or_default()
    }

    /// A node is not there any more.
    pub(super) fn ignore(&self, node: &NodeId) {
        self.known().nodes.remove(node);
    }

    /// Whether somebody's presence matters at a node.
    pub(super) fn matters(&self, node: &NodeId) -> bool {
        self.known().nodes.contains(node)
    }

    /// A resource is there, and shows itself so. Whether it has just come.
    pub(super) fn note(&self, jid: &Jid, show: Show) -> bool {
        let mut known = self.known();
        let (entity, resource) = parts(jid);
        let is_wanted = known.wanted.contains(&entity);
        let is_one_more = !known.there.contains_key(&entity);
        let domain = entity.domain().as_str();
        if is_one_more && is_wanted {
            known.places.take_anyway(domain);
        } else if is_one_more && !known.places.take(domain) {
            return false;
        }
        let max = if is_wanted { MAX_RESOURCES } else { MAX_UNWANTED };
        let resources = known.there.entry(entity).or_default();
        if resources.len() >= max && !resources.contains_key(&resource) {
            return false;
        }
        resources.insert(resource, show).is_none()
    }

    /// A resource is not there any more; with a bare JID none is.
    pub(super) fn remove(&self, jid: &Jid) -> Went {
        let mut known = self.known();
        let (entity, resource) = parts(jid);
        // Of who is not known some may be there.
        let mut is_last = jid.is_bare();
        if !jid.is_bare()
            && let Some(resources) = known.there.get_mut(&entity)
        {
            resources.remove(&resource);
            is_last = resources.is_empty();
        }
        if is_last && known.there.remove(&entity).is_some() {
            known.places.give_back(entity.domain().as_str());
        }
        Went { jid: jid.clone(), is_last }
    }

    /// Whether an event comes to a JID that is told it only in these states: one of its resources has to be in one.
    /// Who is not known is asked, and there next time.
    #[must_use]
    pub fn admit(&self, jid: &Jid, shows: Shows) -> bool {
        let (entity, resource) = parts(jid);
        let known = self.known();
        let Some(resources) = known.there.get(&entity) else {
            drop(known);
            self.want(entity);
            return false;
        };
        match jid.is_bare() {
            true => resources.values().any(|show| shows.has(*show)),
            false => resources.get(&resource).is_some_and(|show| shows.has(*show)),
        }
    }

    /// On a new connection nothing is known, and everybody is asked again.
    pub fn forget(&self) {
        let mut known = self.known();
        let Known { there, unasked, wanted, given, places, .. } = &mut *known;
        there.clear();
        places.clear();
        given.clear();
        unasked.clear();
        unasked.extend(wanted.iter().cloned());
        drop(known);
        self.asked.notify_one();
    }

    /// An entity lets the service have its presence.
    pub fn give(&self, jid: &Jid) {
        let (mut known, entity) = (self.known(), jid.to_bare());
        if known.wanted.contains(&entity) {
            known.given.insert(entity);
        }
    }

    /// It does not let the service have it any more.
    pub fn take_back(&self, jid: &Jid) {
        self.known().given.remove(&jid.to_bare());
    }

    /// Whether it does; so what it sends with its bare JID is about all of its resources.
    #[must_use]
    pub fn is_given(&self, jid: &Jid) -> bool {
        self.known().given.contains(&jid.to_bare())
    }

    /// Waits for somebody whose presence is wanted.
    pub async fn wanted(&self) -> BareJid {
        loop {
            if let Some(entity) = self.known().unasked.pop_front() {
                return entity;
            }
            self.asked.notified().await;
        }
    }

    fn want(&self, entity: BareJid) {
        let mut known = self.known();
        if known.wanted.contains(&entity) {
            return;
        }
        let domain = entity.domain().as_str();
        if !known.wanted_places.take(domain) {
            known.drop_unanswered();
            if !known.wanted_places.take(domain) {
                return;
            }
        }
        known.wanted.insert(entity.clone());
        known.unasked.push_back(entity);
        drop(known);
        self.asked.notify_one();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Makes room, now and then: who was asked for presence and did not give it may be asked again when it matters.
    fn drop_unanswered(&mut self) {
        if self.dropped.is_some_and(|before| before.elapsed() < PAUSE) {
            return;
        }
        self.dropped = Some(Instant::now());
        let Self { wanted, given, there, wanted_places, publishers, .. } = self;
        wanted.retain(|entity| {
            let stays = given.contains(entity) || there.contains_key(entity);
            if !stays {
                wanted_places.give_back(entity.domain().as_str());
                publishers.remove(entity);
            }
            stays
        });
    }
}

fn parts(jid: &Jid) -> (BareJid, String) {
    (jid.to_bare(), jid.resource().map(|resource| resource.as_str().to_owned()).unwrap_or_default())
}
