//! Changes that restore a node from an archive. They bypass the rules (functions that decide requests), because the
//! original changes have already passed them.

use std::sync::Arc;

use jid::{BareJid, Jid};

use crate::{
    Affiliation, Change, Changes, ConfigRevision, FormerNode, Item, Node, Sequence,
    SubscriptionDetails,
};

/// Returns the changes that create a node without affiliations and subscriptions, as [`Node::new`] returns it.
#[must_use]
pub fn created(node: Node) -> Changes {
    Changes::creation(node)
}

/// Returns the changes that set affiliations.
#[must_use]
pub fn affiliated(entities: Vec<(BareJid, Affiliation)>) -> Changes {
    let list = entities
        .into_iter()
        .map(|(entity, affiliation)| Change::AffiliationSet(entity, affiliation));
    Changes::at(Sequence(0), 0, list.collect())
}

/// Returns the changes that set the revision of the configuration.
#[must_use]
pub fn revised(revision: ConfigRevision) -> Changes {
    Changes::at(Sequence(0), 0, vec![Change::Revised(revision)])
}

/// Returns the changes that add subscriptions that began at this version of the node. Each JID has a flag, which is
/// `true` if an owner made the subscription.
#[must_use]
pub fn subscribed(jids: Vec<(Jid, bool)>, since: u64) -> Changes {
    let change = |(jid, is_enrolled)| match is_enrolled {
        true => Change::SubscribedByOwner(jid),
        false => Change::Subscribed(jid),
    };
    Changes::at(Sequence(0), since, jids.into_iter().map(change).collect())
}

/// Returns the changes that add pending subscriptions.
#[must_use]
pub fn requested(jids: Vec<Jid>) -> Changes {
    Changes::at(Sequence(0), 0, jids.into_iter().map(Change::SubscriptionRequested).collect())
}

/// Returns the changes that set the options or SubIDs that a JID got at this version of the node.
#[must_use]
pub fn agreed(jid: Jid, details: Vec<SubscriptionDetails>, since: u64) -> Changes {
    Changes::at(Sequence(0), since, vec![Change::SubscriptionOptionsSet(jid, details.into())])
}

/// Returns the changes that add items.
#[must_use]
pub fn published(items: Vec<Item>) -> Changes {
    let sequence = items.last().map_or(Sequence(0), |item| item.event_id.sequence);
    Changes::at(
        sequence,
        0,
        items.into_iter().map(|item| Change::Published(Arc::new(item))).collect(),
    )
}

/// Returns the changes that set the sequence number of the node's newest event, and the version of the node.
#[must_use]
pub fn reached(sequence: Sequence, version: u64) -> Changes {
    Changes::at(sequence, version, Vec::new())
}

/// Returns the changes that delete the node. `sequence` is the number of the node's newest event. `former` is the
/// record of the deleted node that the store keeps, if any.
#[must_use]
pub fn deleted(sequence: Sequence, version: u64, former: Option<FormerNode>) -> Changes {
    Changes::at(sequence, version, vec![Change::Deleted(former.map(Box::new))])
}
