//! What owners and administrators change, for those who want to know later who it was.

use std::sync::Arc;

use jid::Jid;

use gjallar_pubsub::{
    Actor, Affiliation, Change, Changes, Event, ItemId, LogEntry, Node, NodeConfig, NodeId,
    SubscriptionDetails, SubscriptionState,
};

/// Takes notice of changes that are on disk. It must not wait for anything.
pub type Auditor = dyn Fn(&AuditRecord) + Send + Sync;

/// What an owner or an administrator changed at a node with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Who.
    pub who: Jid,
    /// Where.
    pub node: NodeId,
    /// What; at least one thing.
    pub entries: Vec<AuditChange>,
}

/// One thing that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditChange {
    /// Something was said to all subscribers.
    Announced,
    /// The affiliation of an entity.
    Affiliated {
        /// Whose.
        entity: Jid,
        /// What it was.
        before: Affiliation,
        /// What it is.
        after: Affiliation,
    },
    /// The configuration.
    Configured {
        /// What it was.
        before: Box<NodeConfig>,
        /// What it is.
        after: Box<NodeConfig>,
    },
    /// The node is there, configured so.
    Created(Box<NodeConfig>),
    /// The node is gone; perhaps something took its place.
    Deleted {
        /// Its URI.
        redirect: Option<String>,
    },
    /// What somebody else wants of its subscriptions, or how many it has.
    Options {
        /// Whose.
        jid: Jid,
        /// What it was.
        before: Arc<[SubscriptionDetails]>,
        /// What it is.
        after: Arc<[SubscriptionDetails]>,
    },
    /// An administrator published items.
    Published(Vec<ItemId>),
    /// All items are gone.
    Purged,
    /// Items are gone.
    Retracted(Vec<ItemId>),
    /// Somebody else's subscription.
    Subscribed {
        /// Whose.
        jid: Jid,
        /// What it was.
        before: SubscriptionState,
        /// What it is.
        after: SubscriptionState,
    },
}

/// What is noted of changes, given the node before them; nothing if an owner or administrator changes nothing that others
/// have, or nobody does.
pub(super) fn audit_record(
    actor: &Actor,
    node: Option<&Node>,
    changes: &Changes,
    notifications: &[LogEntry],
    id: &NodeId,
) -> Option<AuditRecord> {
    let created = changes.created();
    let bare = actor.bare();
    let is_owner = node.or(created).is_some_and(|node| created.is_some() || node.is_owner(&bare));
    if !is_owner && !actor.is_administrator {
        return None;
    }
    let announces = notifications.iter().any(|told| matches!(told.event, Event::Announced(_)));
    let publishes = changes.iter().any(|change| matches!(change, Change::Published(_)));
    let (mut entries, mut published, mut retracted) = (Vec::new(), Vec::new(), Vec::new());
    entries.extend(announces.then_some(AuditChange::Announced));
    for change in changes.iter() {
        match change {
            Change::Created(node) => {
                entries.push(AuditChange::Created(Box::new(node.config.clone())))
            }
            Change::Configured(after) => entries.extend(node.map(|node| AuditChange::Configured {
                before: Box::new(node.config.clone()),
                after: after.clone(),
            })),
            Change::Deleted(former) => {
                let redirect = former.as_ref().and_then(|former| former.redirect.clone());
                entries.push(AuditChange::Deleted { redirect });
            }
            Change::SubscriptionOptionsSet(jid, after) if jid.to_bare() != bare => {
                let before = node.and_then(|node| node.special(jid));
                let before = before.map(|special| Arc::clone(&special.terms)).unwrap_or_default();
                entries.push(AuditChange::Options {
                    jid: jid.clone(),
                    before,
                    after: after.clone(),
                });
            }
            Change::AffiliationSet(entity, after) => entries.push(AuditChange::Affiliated {
                before: node.map_or(Affiliation::None, |node| node.affiliation_of(entity)),
                entity: entity.clone().into(),
                after: *after,
            }),
            Change::Subscribed(jid)
            | Change::SubscribedByOwner(jid)
            | Change::Unsubscribed(jid)
                if jid.to_bare() != bare =>
            {
                let after = match change {
                    Change::Unsubscribed(_) => SubscriptionState::None,
                    _ => SubscriptionState::Subscribed,
                };
                let before = node.map_or(SubscriptionState::None, |node| node.state_of(jid));
                entries.push(AuditChange::Subscribed { jid: jid.clone(), before, after });
            }
            Change::Published(item) if actor.is_administrator => published.push(item.id.clone()),
            Change::Retracted(item) if !publishes => retracted.push(item.clone()),
            Change::Purged => entries.push(AuditChange::Purged),
            _ => {}
        }
    }
    if !published.is_empty() {
        entries.push(AuditChange::Published(published));
    }
    if !retracted.is_empty() {
        entries.push(AuditChange::Retracted(retracted));
    }
    (!entries.is_empty()).then(|| AuditRecord { who: actor.jid.clone(), node: id.clone(), entries })
}
