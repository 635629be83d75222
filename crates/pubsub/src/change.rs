//! Changes of a node, and the decisions of rules. A rule is a function that decides a request.

use std::sync::Arc;

use jid::{BareJid, Jid};

use crate::{
    Affiliation, ConfigRevision, Epoch, EventId, FormerNode, Item, ItemId, LogEntry, Node,
    NodeConfig, Sequence, SubscriptionDetails,
};

/// Single change of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node was created. Separate changes in the same [`Changes`] set its affiliations.
    Created(Box<Node>),
    /// The configuration of the node was replaced by this one.
    Configured(Box<NodeConfig>),
    /// The configuration revision of the node (number and authors of changes) was replaced by this one.
    Revised(ConfigRevision),
    /// The node was deleted with all its contents. The value is the record of the deleted node that the store keeps, if
    /// any.
    Deleted(Option<Box<FormerNode>>),
    /// The affiliation of an entity was set to this one; [`Affiliation::None`] removes the affiliation.
    AffiliationSet(BareJid, Affiliation),
    /// A JID requested a subscription that an owner has to approve (§8.6).
    SubscriptionRequested(Jid),
    /// A JID was subscribed by its own request, immediately or after approval.
    Subscribed(Jid),
    /// A JID was subscribed by an owner of the node.
    SubscribedByOwner(Jid),
    /// The subscriptions of a subscribed or pending JID were replaced by this list, which is never empty. Each
    /// subscription may have options and a SubID.
    SubscriptionOptionsSet(Jid, Arc<[SubscriptionDetails]>),
    /// All subscriptions of a JID ended, or its pending request was removed.
    Unsubscribed(Jid),
    /// An item was published as the newest. If the node had an item of the same name, the new item replaced that one.
    Published(Arc<Item>),
    /// An item was removed.
    Retracted(ItemId),
    /// Items were evicted: only the newest remain, up to a number and a size ([`Item::size`]).
    ItemsEvicted {
        /// Maximum number of items.
        keep: u32,
        /// Maximum bytes of items. One item remains whatever its size.
        max_bytes: u64,
    },
    /// All items were removed.
    Purged,
}

/// Changes of one node by one request, committed atomically.
///
/// Only the rules (functions of this crate that decide requests) and [`import_changes`](crate::import_changes) create
/// such lists. All other code only applies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    list: Vec<Change>,
    sequence: Sequence,
    version: u64,
}

impl Changes {
    /// Creates an empty list of changes for a node.
    pub(super) fn none(node: &Node) -> Self {
        Self { list: Vec::new(), sequence: node.sequence, version: node.version + 1 }
    }

    /// Creates the list of changes that creates a node.
    pub(super) fn creation(node: Node) -> Self {
        let (sequence, version) = (node.sequence, node.version + 1);
        Self { list: vec![Change::Created(Box::new(node))], sequence, version }
    }

    /// Returns the node that these changes create; `None` if they create none.
    #[must_use]
    pub fn created(&self) -> Option<&Node> {
        self.list.iter().find_map(|change| match change {
            Change::Created(node) => Some(&**node),
            _ => None,
        })
    }

    /// Creates a list of changes. After these changes, the newest event of the node has the number `sequence`, and the
    /// node has the version `version`.
    pub(super) fn at(sequence: Sequence, version: u64, list: Vec<Change>) -> Self {
        Self { list, sequence, version }
    }

    /// Appends a change. If the change causes an event, the caller allocates the sequence number of the event with
    /// [`next_event_id`](Self::next_event_id).
    pub(super) fn push(&mut self, change: Change) {
        self.list.push(change);
    }

    /// Prepends the retraction of items, which makes room for items that the other changes publish.
    pub(super) fn prepend_retractions(&mut self, items: &[ItemId]) {
        self.list.splice(0..0, items.iter().cloned().map(Change::Retracted));
    }

    /// Allocates the next sequence number of the node for one event, and returns the id of the event.
    pub(super) fn next_event_id(&mut self, epoch: Epoch) -> EventId {
        self.sequence.0 += 1;
        EventId { epoch, sequence: self.sequence }
    }

    /// Returns the changes in the order in which they are applied.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.list.iter()
    }

    /// Returns the sequence number of the node's newest event after these changes.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Returns the version of the node after these changes: the number of this commit, counted per node.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns `true` if the list has no changes and no event was given a sequence number. `node` is the node before
    /// the changes.
    #[must_use]
    pub fn is_empty(&self, node: Option<&Node>) -> bool {
        self.list.is_empty() && node.is_none_or(|node| node.sequence == self.sequence)
    }

    /// Returns the JIDs whose subscriptions end.
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

    /// Returns `true` if an entity may lose access to the node: an affiliation changes or a subscription ends. Such
    /// changes are committed even when the backlog is full. `node` is the node before the changes.
    #[must_use]
    pub fn revokes_access(&self, node: Option<&Node>) -> bool {
        let before = |jid| {
            node.and_then(|node| node.configured_subscription(jid)).map_or(0, |s| s.details.len())
        };
        self.iter().any(|change| match change {
            Change::Unsubscribed(_) | Change::AffiliationSet(..) => true,
            Change::SubscriptionOptionsSet(jid, details) => details.len() < before(jid),
            _ => false,
        })
    }
}

/// Decision of a rule (a function that decides a request): the reply, the changes and the log entries.
#[must_use]
#[derive(Clone, Debug)]
pub struct Decision<R> {
    /// Reply to the actor.
    pub reply: R,
    /// Changes to commit.
    pub changes: Changes,
    /// Log entries to append, in this order.
    pub notifications: Vec<LogEntry>,
}

impl<R> Decision<R> {
    /// Returns the decision with its reply converted.
    pub fn map<S>(self, reply: impl FnOnce(R) -> S) -> Decision<S> {
        let Self { reply: before, changes, notifications } = self;
        Decision { reply: reply(before), changes, notifications }
    }

    /// Creates a decision without log entries.
    pub(super) fn without_entries(reply: R, changes: Changes) -> Self {
        Self { reply, changes, notifications: Vec::new() }
    }
}
