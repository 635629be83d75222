//! Reading the pending log entries with their remaining recipients, at the start and after a failed commit.

use std::{collections::HashMap, sync::Arc};

use jid::{BareJid, Jid};
use tracing::error;

use crate::store::{LogPosition, Owed, StoreError};
use gjallar_pubsub::{
    Affiliation, Affiliations, Audience, LogEntry, NodeId, Recipients, SubscriptionState,
    is_entitled, may_subscribe_implicitly,
};

use super::{
    keys::{self, NodeNumber},
    log_entry_record::{CursorRecord, ReadAudiences},
    record::{self, NodeRecord, damaged},
    recovery,
    revoked_resources::RevokedRecord,
    tree_reader::TreeReader,
};

/// Subscribers of a node in delivery order: bare JID, JID, version at which the subscription began, and last version at
/// which the subscription had no options or SubIDs (`u64::MAX` if it still has none).
type Subscribers = Vec<(BareJid, Jid, u64, u64)>;

/// Recipient lists of a node, by their length. A longer list has all recipients of the shorter ones, so the length
/// identifies a list.
type Lists = HashMap<usize, Recipients>;

/// Reads the pending log entries of some nodes, or of all nodes (`None`), in commit order.
pub(super) fn pending_entries(
    view: &TreeReader,
    nodes: Option<&[NodeId]>,
) -> Result<Vec<Owed>, StoreError> {
    let cursor = view.get::<CursorRecord>(keys::CURSOR)?.unwrap_or_default();
    let partly = cursor.partly(keys::CURSOR)?;
    let mut audiences =
        Audiences { view, of: HashMap::new(), listed: HashMap::new(), revoked: HashMap::new() };
    let mut read = ReadAudiences::default();
    let mut pending = Vec::new();
    let groups: Result<Vec<_>, _> = recovery::log_rows(&view.tree).collect();
    for (position, record) in groups?.into_iter().flat_map(|group| group.pending) {
        if nodes.is_some_and(|nodes| !nodes.iter().any(|node| record.is_at(node))) {
            continue;
        }
        let (key, number) = (keys::log_row(position), record.number());
        let notification = record.into_notification(&key, &mut read)?;
        let recipients = match &notification.audience {
            Audience::Explicit(entities) => Ok(entities.clone()),
            Audience::Interested(resources) => {
                audiences.caps_recipients(number, resources, (position, &notification))
            }
            Audience::Listed(listed) => audiences.listed(number, listed, notification.as_of),
            Audience::Subscribers => audiences.at(number, notification.as_of),
        };
        let mut recipients = match (recipients, nodes) {
            (Ok(recipients), _) => recipients,
            // A damaged node is quarantined on its next request; entries of other nodes are delivered.
            (Err(StoreError::Corrupt(record)), None) => {
                error!(
                    event = "log_entry_corrupt",
                    node = notification.node.as_str(),
                    record,
                    "corrupt log entry; skipped its notifications"
                );
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        if let Some(jid) = partly.get(&position) {
            let last = (jid.to_bare(), jid.clone());
            recipients = recipients
                .try_filter(|jid| Ok::<_, StoreError>((jid.to_bare(), jid.clone()) > last))?;
        }
        pending.push(Owed { debt: LogPosition(position), notification, recipients });
    }
    Ok(pending)
}

/// Returns `true` if a resource or its bare JID has an explicit subscription. The subscribed JID may have the domain
/// with U-labels or with A-labels.
fn has_explicit(view: &TreeReader, jid: &Jid, node: NodeNumber) -> Result<bool, StoreError> {
    let addresses = [jid.clone(), jid.to_bare().into()];
    for own in addresses.iter().cloned().chain(addresses.iter().flat_map(Jid::other_spellings)) {
        let record = view.subscription(&own, node)?;
        if record.is_some_and(|record| record.state() == SubscriptionState::Subscribed) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Audiences of nodes, each read once. Log entries with equal recipients share a list.
struct Audiences<'a> {
    view: &'a TreeReader,
    of: HashMap<NodeNumber, (Subscribers, Lists)>,
    /// Cache of filtered recipient lists: each original list with its filtered list. The key is the node, the memory
    /// address of the original list, and a number for the state that the filter depends on, for example a version.
    listed: HashMap<(NodeNumber, usize, u64), (Recipients, Recipients)>,
    revoked: HashMap<NodeNumber, Arc<RevokedResources>>,
}

/// Resources that lost an implicit subscription to a node.
struct RevokedResources {
    /// Resources, each with the first log position at which it may receive entries again.
    until: HashMap<Jid, u64>,
    /// The log positions of `until`, in ascending order.
    positions: Vec<u64>,
}

impl RevokedResources {
    /// Returns `true` if a resource must not receive a log entry of the node.
    fn has(&self, jid: &Jid, position: u64, notification: &LogEntry) -> bool {
        let mut own = notification.subscriptions_of(jid);
        own.any(|jid| self.until.get(&*jid).is_some_and(|until| position < *until))
    }

    /// Returns the number of resources that must not receive the log entry at a position. Two entries with the same
    /// number exclude the same resources.
    fn count(&self, position: u64) -> usize {
        self.positions.len() - self.positions.partition_point(|until| *until <= position)
    }
}

impl Audiences<'_> {
    /// Returns those of `resources` that have kept their implicit subscription since a log entry. They must also still
    /// have access to the node, or an explicit subscription. If the node is deleted, all entities count as having
    /// access except outcast and publish-only entities.
    fn caps_recipients(
        &mut self,
        node: NodeNumber,
        resources: &Recipients,
        (position, notification): (u64, &LogEntry),
    ) -> Result<Recipients, StoreError> {
        let revoked = self.revoked(node)?;
        let key = 2 * revoked.count(position) as u64 + u64::from(notification.nonce.is_some());
        if let Some((_, known)) = self.listed.get(&(node, resources.id(), key)) {
            return Ok(known.clone());
        }
        let of_node = keys::node(node);
        let record = self.view.get::<NodeRecord>(&of_node)?;
        let config =
            record.map(|record| record.to_node(&of_node)).transpose()?.map(|node| node.config);
        let mut affiliations = Affiliations::default();
        for affiliation in self.view.affiliations(node) {
            let (entity, affiliation) = affiliation?;
            affiliations.set(entity, affiliation);
        }
        self.once(node, resources, key, |view, jid| {
            let bare = jid.to_bare();
            let affiliation = affiliations.of(&bare);
            let is_named = matches!(affiliation, Affiliation::Outcast | Affiliation::PublishOnly);
            let has_access = config
                .as_ref()
                .map_or(!is_named, |config| may_subscribe_implicitly(config, affiliation));
            if revoked.has(jid, position, notification) {
                return Ok(false);
            }
            // As live, the end of an implicit subscription revokes nothing while an explicit one exists.
            Ok(has_access || has_explicit(view, jid, node)?)
        })
    }

    fn revoked(&mut self, node: NodeNumber) -> Result<Arc<RevokedResources>, StoreError> {
        if let Some(revoked) = self.revoked.get(&node) {
            return Ok(Arc::clone(revoked));
        }
        let mut until = HashMap::new();
        for row in self.view.scan(&keys::of_node(b'R', node)) {
            let (key, value) = row?;
            for (jid, position) in record::decode::<RevokedRecord>(&key, &value)? {
                until.insert(Jid::new(&jid).map_err(|_| damaged(&key))?, position);
            }
        }
        let mut positions: Vec<_> = until.values().copied().collect();
        positions.sort_unstable();
        let revoked = Arc::new(RevokedResources { until, positions });
        self.revoked.insert(node, Arc::clone(&revoked));
        Ok(revoked)
    }

    /// Returns the JIDs of a list whose subscription began before version `as_of` of the node and still exists.
    fn listed(
        &mut self,
        node: NodeNumber,
        listed: &Recipients,
        as_of: u64,
    ) -> Result<Recipients, StoreError> {
        self.once(node, listed, as_of, |view, jid| {
            let record = view.subscription(jid, node)?;
            Ok(record.is_some_and(|record| is_entitled(record.since, u64::MAX, as_of)))
        })
    }

    /// Returns the JIDs of `list` for which `gets` returns `true`. The result is cached by node, list and `state`, so
    /// `state` must stand for everything else that `gets` depends on.
    fn once(
        &mut self,
        node: NodeNumber,
        list: &Recipients,
        state: u64,
        gets: impl Fn(&TreeReader, &Jid) -> Result<bool, StoreError>,
    ) -> Result<Recipients, StoreError> {
        let key = (node, list.id(), state);
        if let Some((_, those)) = self.listed.get(&key) {
            return Ok(those.clone());
        }
        let those = list.try_filter(|jid| gets(self.view, jid))?;
        self.listed.insert(key, (list.clone(), those.clone()));
        Ok(those)
    }

    /// Returns the subscribers whose subscription had no options or SubIDs at version `as_of` of the node, and has not
    /// ended since.
    fn at(&mut self, node: NodeNumber, as_of: u64) -> Result<Recipients, StoreError> {
        if !self.of.contains_key(&node) {
            let subscribers = self.subscribers(node)?;
            self.of.insert(node, (subscribers, HashMap::new()));
        }
        let Some((subscribers, lists)) = self.of.get_mut(&node) else {
            return Ok(Recipients::default());
        };
        let entitled =
            || subscribers.iter().filter(|(_, _, since, until)| is_entitled(*since, *until, as_of));
        if subscribers.iter().any(|(.., until)| *until != u64::MAX) {
            return Ok(entitled().map(|(_, jid, ..)| jid.clone()).collect());
        }
        // Later events have all recipients of earlier ones, so equal numbers mean equal lists.
        let list = lists
            .entry(entitled().count())
            .or_insert_with(|| entitled().map(|(_, jid, ..)| jid.clone()).collect());
        Ok(list.clone())
    }

    fn subscribers(&self, node: NodeNumber) -> Result<Subscribers, StoreError> {
        self.view.check_node(node)?;
        self.view.check_revoked(node)?;
        let mut subscribers = Vec::new();
        for subscription in self.view.subscriptions(node) {
            let (_, jid, record) = subscription?;
            if record.state() == SubscriptionState::Subscribed {
                subscribers.push((jid.to_bare(), jid, record.since, record.plain_until()));
            }
        }
        subscribers.sort_unstable();
        Ok(subscribers)
    }
}
