//! What becomes true when a request is granted.

use std::sync::Arc;

use jid::{BareJid, Jid};

use crate::{
    Affiliation, ConfigRevision, Epoch, EventId, FormerNode, Item, ItemId, LogEntry, Node,
    NodeConfig, Sequence, SubscriptionDetails,
};

/// One thing that becomes true at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node is there; affiliations follow as changes of their own.
    Created(Box<Node>),
    /// It behaves like this.
    Configured(Box<NodeConfig>),
    /// Its configuration has this revision.
    Revised(ConfigRevision),
    /// It is gone, with everything in it; and what is remembered of it, if something is.
    Deleted(Option<Box<FormerNode>>),
    /// An entity is this here; `None` forgets it.
    AffiliationSet(BareJid, Affiliation),
    /// A JID asks to be subscribed, and waits for an owner (§8.6).
    SubscriptionRequested(Jid),
    /// A JID is subscribed, as it asked for.
    Subscribed(Jid),
    /// A JID is subscribed, as an owner of the node asked for.
    SubscribedByOwner(Jid),
    /// A JID that is subscribed, or waits for that, has these subscriptions from now on; at least one.
    SubscriptionOptionsSet(Jid, Arc<[SubscriptionDetails]>),
    /// A JID is not subscribed, and does not ask for it.
    Unsubscribed(Jid),
    /// An item is there, as the newest; an item of the same name is not.
    Published(Arc<Item>),
    /// An item is not there.
    Retracted(ItemId),
    /// Only the newest items are there: at most so many, of so many bytes ([`Item::size`]).
    ItemsEvicted {
        /// How many stay.
        keep: u32,
        /// Their bytes. One item stays, whatever its size.
        max_bytes: u64,
    },
    /// No item is there.
    Purged,
}

/// All that one request changes at one node: true together or not at all.
///
/// Only the rules make it, so nothing outside them can decide what becomes true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    list: Vec<Change>,
    sequence: Sequence,
    version: u64,
}

impl Changes {
    /// Nothing changes.
    pub(super) fn none(node: &Node) -> Self {
        Self { list: Vec::new(), sequence: node.sequence, version: node.version + 1 }
    }

    /// A node comes into being.
    pub(super) fn creation(node: Node) -> Self {
        let (sequence, version) = (node.sequence, node.version + 1);
        Self { list: vec![Change::Created(Box::new(node))], sequence, version }
    }

    /// The node that comes into being.
    #[must_use]
    pub fn created(&self) -> Option<&Node> {
        self.list.iter().find_map(|change| match change {
            Change::Created(node) => Some(&**node),
            _ => None,
        })
    }

    /// Changes that leave a node with this sequence and version.
    pub(super) fn at(sequence: Sequence, version: u64, list: Vec<Change>) -> Self {
        Self { list, sequence, version }
    }

    /// Something changes without an event.
    pub(super) fn push(&mut self, change: Change) {
        self.list.push(change);
    }

    /// Items are not there, before anything else changes: they make room.
    pub(super) fn prepend_retractions(&mut self, items: &[ItemId]) {
        self.list.splice(0..0, items.iter().cloned().map(Change::Retracted));
    }

    /// Takes the next sequence of the node for one event.
    pub(super) fn next_event_id(&mut self, epoch: Epoch) -> EventId {
        self.sequence.0 += 1;
        EventId { epoch, sequence: self.sequence }
    }

    /// The changes, in the order in which they are made.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.list.iter()
    }

    /// Sequence of the node's newest event after these changes.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The version of the node after them: the number of this commit.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns `true` if the node stays exactly as it is.
    #[must_use]
    pub fn is_empty(&self, node: Option<&Node>) -> bool {
        self.list.is_empty() && node.is_none_or(|node| node.sequence == self.sequence)
    }

    /// Who loses a subscription.
    pub fn unsubscribed(&self) -> impl Iterator<Item = &Jid> {
        self.iter().filter_map(|change| match change {
            Change::Unsubscribed(jid) => Some(jid),
            _ => None,
        })
    }

    /// Returns `true` if the changes remove all items of the node.
    #[must_use]
    pub fn drop_all_items(&self) -> bool {
        self.iter()
            .any(|change| matches!(change, Change::ItemsEvicted { keep: 0, .. } | Change::Purged))
    }

    /// Returns `true` if an entity loses access at this node. Revocations are committed even when the backlog is full.
    #[must_use]
    pub fn revokes_access(&self, node: Option<&Node>) -> bool {
        let before = |jid| node.and_then(|node| node.special(jid)).map_or(0, |s| s.terms.len());
        self.iter().any(|change| match change {
            Change::Unsubscribed(_) | Change::AffiliationSet(..) => true,
            Change::SubscriptionOptionsSet(jid, terms) => terms.len() < before(jid),
            _ => false,
        })
    }
}

/// What a rule decided: the answer, what becomes true, and what is told.
#[must_use]
#[derive(Clone, Debug)]
pub struct Decision<R> {
    /// What the actor is answered.
    pub reply: R,
    /// What becomes true.
    pub changes: Changes,
    /// What is told, and to whom, in this order.
    pub notifications: Vec<LogEntry>,
}

impl<R> Decision<R> {
    /// The same decision with another reply.
    pub fn map<S>(self, reply: impl FnOnce(R) -> S) -> Decision<S> {
        let Self { reply: before, changes, notifications } = self;
        Decision { reply: reply(before), changes, notifications }
    }

    /// A decision that is not told.
    pub(super) fn without_entries(reply: R, changes: Changes) -> Self {
        Self { reply, changes, notifications: Vec::new() }
    }
}
