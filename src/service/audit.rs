//! Audit records of changes made by owners and administrators.

use std::sync::Arc;

use jid::Jid;

use gjallar_pubsub::{
    Actor, Affiliation, Change, Changes, Event, ItemId, LogEntry, Node, NodeConfig, NodeId,
    SubscriptionDetails, SubscriptionState,
};

/// Callback for audit records of committed changes. It must not block.
pub type Auditor = dyn Fn(&AuditRecord) + Send + Sync;

/// Changes that one request of an owner or an administrator made at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// JID of the owner or administrator.
    pub who: Jid,
    /// The node.
    pub node: NodeId,
    /// The changes; at least one.
    pub entries: Vec<AuditChange>,
}

/// One change at a node, as an entry of an audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditChange {
    /// An announcement was sent to subscribers.
    Announced,
    /// The affiliation of an entity was changed.
    Affiliated {
        /// The entity.
        entity: Jid,
        /// Affiliation before the change.
        before: Affiliation,
        /// Affiliation after the change.
        after: Affiliation,
    },
    /// The configuration was changed.
    Configured {
        /// Configuration before the change.
        before: Box<NodeConfig>,
        /// Configuration after the change.
        after: Box<NodeConfig>,
    },
    /// The node was created with this configuration.
    Created(Box<NodeConfig>),
    /// The node was deleted.
    Deleted {
        /// URI of the redirect, if there is one.
        redirect: Option<String>,
    },
    /// The options or SubIDs of the subscriptions of another entity were changed.
    Options {
        /// JID of the subscriptions.
        jid: Jid,
        /// Subscriptions before the change.
        before: Arc<[SubscriptionDetails]>,
        /// Subscriptions after the change.
        after: Arc<[SubscriptionDetails]>,
    },
    /// An administrator published items.
    Published(Vec<ItemId>),
    /// All items were removed.
    Purged,
    /// Items were retracted.
    Retracted(Vec<ItemId>),
    /// The subscription of another entity was changed.
    Subscribed {
        /// JID of the subscription.
        jid: Jid,
        /// State before the change.
        before: SubscriptionState,
        /// State after the change.
        after: SubscriptionState,
    },
}

/// Returns the audit record of changes; `node` is the node before the changes. Changes of the actor's own subscriptions
/// are not recorded. Published items are recorded if the actor is an administrator. Returns `None` if nothing is
/// recorded, or if the actor is neither an owner nor an administrator.
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
    let announces = notifications.iter().any(|entry| matches!(entry.event, Event::Announced(_)));
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
                let before = node.and_then(|node| node.configured_subscription(jid));
                let before =
                    before.map(|configured| Arc::clone(&configured.details)).unwrap_or_default();
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
