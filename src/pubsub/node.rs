//! A node: its configuration, who stands how to it, who is subscribed, and where its order is at.
//! Items are not part of it: there may be many, and few rules look at them.

use std::collections::BTreeMap;

use jid::{BareJid, Jid};

use super::{
    Affiliation, Change, Changes, Epoch, NodeConfig, NodeId, Place, Recipients, SubscriptionState,
    Timestamp, subscribers::Subscribers,
};

/// A node as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Which life of that name this is.
    pub epoch: Epoch,
    /// The position of its newest event; 0 before the first.
    pub seq: u64,
    /// How it behaves.
    pub config: NodeConfig,
    /// Who created it.
    pub creator: BareJid,
    /// When.
    pub created: Timestamp,
    affiliations: BTreeMap<BareJid, Affiliation>,
    /// Each with the position of the node's newest event when it was made: it is entitled to later ones.
    subscribers: Subscribers,
    /// Those who wait for an owner.
    pending: Subscribers,
}

impl Node {
    /// A node without affiliations and subscriptions, as a store begins to load it. The rules create
    /// nodes with [`op::create`](super::op::create).
    #[must_use]
    pub fn bare(
        id: NodeId,
        epoch: Epoch,
        config: NodeConfig,
        creator: BareJid,
        created: Timestamp,
    ) -> Self {
        Self {
            id,
            epoch,
            seq: 0,
            config,
            creator,
            created,
            affiliations: BTreeMap::new(),
            subscribers: Subscribers::default(),
            pending: Subscribers::default(),
        }
    }

    /// What an entity is here.
    #[must_use]
    pub fn affiliation_of(&self, entity: &BareJid) -> Affiliation {
        self.affiliations.get(entity).copied().unwrap_or(Affiliation::None)
    }

    /// Every affiliation but `none`.
    pub fn affiliations(&self) -> impl Iterator<Item = (&BareJid, Affiliation)> {
        self.affiliations.iter().map(|(entity, affiliation)| (entity, *affiliation))
    }

    /// How many affiliations there are.
    #[must_use]
    pub fn affiliations_len(&self) -> usize {
        self.affiliations.len()
    }

    /// The owners.
    pub fn owners(&self) -> impl Iterator<Item = &BareJid> {
        self.affiliations().filter(|(_, a)| *a == Affiliation::Owner).map(|(entity, _)| entity)
    }

    /// Every subscriber, by JID.
    pub fn subscribers(&self) -> impl Iterator<Item = &Jid> {
        self.subscriptions().map(|(jid, _)| jid)
    }

    /// Every subscriber, and the position of the node's newest event when it subscribed.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&Jid, u64)> {
        self.subscribers.iter()
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscribers_len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether exactly this JID is subscribed.
    #[must_use]
    pub fn is_subscribed(&self, jid: &Jid) -> bool {
        self.subscribers.contains(jid)
    }

    /// How exactly this JID is subscribed.
    #[must_use]
    pub fn state_of(&self, jid: &Jid) -> SubscriptionState {
        if self.is_subscribed(jid) {
            SubscriptionState::Subscribed
        } else if self.pending.contains(jid) {
            SubscriptionState::Pending
        } else {
            SubscriptionState::None
        }
    }

    /// Those who wait for an owner to approve their subscription.
    pub fn pending(&self) -> impl Iterator<Item = &Jid> {
        self.pending.iter().map(|(jid, _)| jid)
    }

    /// How many they are.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Those of them that are an entity's.
    pub fn pending_of<'a>(&'a self, entity: &'a BareJid) -> impl Iterator<Item = &'a Jid> {
        self.pending.of(entity)
    }

    /// The subscriptions of an entity: its bare JID, and its resources.
    pub fn subscriptions_of<'a>(&'a self, entity: &'a BareJid) -> impl Iterator<Item = &'a Jid> {
        self.subscribers.of(entity)
    }

    /// Everyone who is subscribed now.
    #[must_use]
    pub fn recipients(&self) -> Recipients {
        self.subscribers.recipients()
    }

    /// The place of the next event.
    #[must_use]
    pub(super) fn next_place(&self) -> Place {
        Place { epoch: self.epoch, seq: self.seq + 1 }
    }

    /// Makes what was decided, and is stored, true here. Changes of items leave no trace in a node.
    pub fn apply(&mut self, changes: &Changes) {
        for change in changes.iter() {
            match change {
                Change::Created(node) => *self = (**node).clone(),
                Change::Configured(config) => self.config = (**config).clone(),
                Change::Affiliated(entity, Affiliation::None) => {
                    self.affiliations.remove(entity);
                }
                Change::Affiliated(entity, affiliation) => {
                    self.affiliations.insert(entity.clone(), *affiliation);
                }
                Change::Requested(jid) => self.load_pending(jid.clone()),
                Change::Subscribed(jid) | Change::Enrolled(jid) => {
                    self.pending.remove(jid);
                    self.subscribers.insert(jid.clone(), changes.seq());
                }
                Change::Unsubscribed(jid) => {
                    self.pending.remove(jid);
                    self.subscribers.remove(jid);
                }
                Change::Deleted { .. }
                | Change::Published(_)
                | Change::Retracted(_)
                | Change::Trimmed { .. }
                | Change::Purged => {}
            }
        }
        self.seq = changes.seq();
    }

    /// Adds an affiliation while a store loads the node.
    pub fn load_affiliation(&mut self, entity: BareJid, affiliation: Affiliation) {
        self.affiliations.insert(entity, affiliation);
    }

    /// Adds a subscription while a store loads the node.
    pub fn load_subscription(&mut self, jid: Jid, since: u64) {
        self.subscribers.insert(jid, since);
    }

    /// Adds one that waits for an owner.
    pub fn load_pending(&mut self, jid: Jid) {
        self.pending.insert(jid, 0);
    }
}
