//! The changes that put a node back as it was, when a store is filled from an archive. Nothing is decided
//! here: it was, when it happened.

use std::sync::Arc;

use jid::{BareJid, Jid};

use crate::{
    Affiliation, Change, Changes, ConfigRevision, FormerNode, Item, Node, Sequence,
    SubscriptionDetails,
};

/// A node comes into being, as [`Node::new`] gives it.
#[must_use]
pub fn created(node: Node) -> Changes {
    Changes::creation(node)
}

/// Entities are something.
#[must_use]
pub fn affiliated(entities: Vec<(BareJid, Affiliation)>) -> Changes {
    let list = entities
        .into_iter()
        .map(|(entity, affiliation)| Change::AffiliationSet(entity, affiliation));
    Changes::at(Sequence(0), 0, list.collect())
}

/// The node has this revision.
#[must_use]
pub fn revised(revision: ConfigRevision) -> Changes {
    Changes::at(Sequence(0), 0, vec![Change::Revised(revision)])
}

/// Subscriptions that began at this version of the node; with each, whether an owner made it.
#[must_use]
pub fn subscribed(jids: Vec<(Jid, bool)>, since: u64) -> Changes {
    let change = |(jid, is_enrolled)| match is_enrolled {
        true => Change::SubscribedByOwner(jid),
        false => Change::Subscribed(jid),
    };
    Changes::at(Sequence(0), since, jids.into_iter().map(change).collect())
}

/// JIDs wait for an owner.
#[must_use]
pub fn requested(jids: Vec<Jid>) -> Changes {
    Changes::at(Sequence(0), 0, jids.into_iter().map(Change::SubscriptionRequested).collect())
}

/// Options or SubIDs that a subscription got at this version of the node.
#[must_use]
pub fn agreed(jid: Jid, terms: Vec<SubscriptionDetails>, since: u64) -> Changes {
    Changes::at(Sequence(0), since, vec![Change::SubscriptionOptionsSet(jid, terms.into())])
}

/// Items are there.
#[must_use]
pub fn published(items: Vec<Item>) -> Changes {
    let sequence = items.last().map_or(Sequence(0), |item| item.event_id.sequence);
    Changes::at(
        sequence,
        0,
        items.into_iter().map(|item| Change::Published(Arc::new(item))).collect(),
    )
}

/// The node has this sequence and version.
#[must_use]
pub fn reached(sequence: Sequence, version: u64) -> Changes {
    Changes::at(sequence, version, Vec::new())
}

/// The node is gone, with its newest event; and what is remembered of it, if something is.
#[must_use]
pub fn deleted(sequence: Sequence, version: u64, former: Option<FormerNode>) -> Changes {
    Changes::at(sequence, version, vec![Change::Deleted(former.map(Box::new))])
}
