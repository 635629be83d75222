//! What is owed since before the store was opened, and to whom.

use std::collections::HashMap;

use jid::{BareJid, Jid};
use tracing::error;

use crate::{
    pubsub::{Audience, NodeId, Place, Recipients, SubscriptionState},
    store::{Debt, Owed, StoreError},
};

use super::{
    debt::ToldRecord,
    index,
    keys::{self, Number},
    reader::View,
    subscriptions::SubscriptionPlace,
};

/// A node's subscribers in the order in which they are told, since when each is, and until when it hears of events
/// as all do.
type Subscribers = Vec<(BareJid, Jid, u64, u64)>;

/// The first so many of them.
type Lists = HashMap<usize, Recipients>;

/// Reads what is owed, of some nodes or of all, in the order of the commits.
pub(super) fn owed(view: &View, nodes: Option<&[NodeId]>) -> Result<Vec<Owed>, StoreError> {
    let told = view.get::<ToldRecord>(keys::TOLD)?.unwrap_or_default();
    let partly = told.partly(keys::TOLD)?;
    let mut audiences = Audiences { view, of: HashMap::new() };
    let mut owed = Vec::new();
    let groups: Result<Vec<_>, _> = index::debts(&view.tree).collect();
    for (debt, record) in groups?.into_iter().flat_map(|group| group.unpaid) {
        if nodes.is_some_and(|nodes| !nodes.iter().any(|node| record.is_at(node))) {
            continue;
        }
        let (key, number) = (keys::debt(debt), record.number);
        let notification = record.into_notification(&key)?;
        let recipients = match &notification.audience {
            Audience::Entities(entities) => Ok(entities.clone()),
            Audience::Listed(listed) => audiences.listed(number, listed),
            Audience::Subscribers => audiences.at(number, notification.place),
        };
        let mut recipients = match (recipients, nodes) {
            (Ok(recipients), _) => recipients,
            // A damaged node is closed when it is asked for; the others are told what is owed to them.
            (Err(StoreError::Damaged(record)), None) => {
                error!(node = notification.node.as_str(), record, "what is owed cannot be told");
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        if let Some((_, jid)) = partly.as_ref().filter(|(told, _)| *told == debt) {
            let last = (jid.to_bare(), jid.clone());
            recipients = recipients
                .try_filter(|jid| Ok::<_, StoreError>((jid.to_bare(), jid.clone()) > last))?;
        }
        owed.push(Owed { debt: Debt(debt), notification, recipients });
    }
    Ok(owed)
}

/// The audiences of nodes, each read once; events that the same entities hear of share a list.
struct Audiences<'a> {
    view: &'a View,
    of: HashMap<Number, (Subscribers, Lists)>,
}

impl Audiences<'_> {
    /// Some recipients, of whom each may have lost its subscription.
    fn listed(&self, node: Number, listed: &Recipients) -> Result<Recipients, StoreError> {
        listed.try_filter(|jid| {
            let place = self.view.get::<SubscriptionPlace>(&keys::subscription_of(jid, node))?;
            Ok(place.is_some())
        })
    }

    /// Everyone who was subscribed when an event took its place, and is still.
    fn at(&mut self, node: Number, place: Place) -> Result<Recipients, StoreError> {
        if !self.of.contains_key(&node) {
            let subscribers = self.subscribers(node)?;
            self.of.insert(node, (subscribers, HashMap::new()));
        }
        let Some((subscribers, lists)) = self.of.get_mut(&node) else {
            return Ok(Recipients::default());
        };
        let entitled = || {
            let is_entitled = |since: u64, until: u64| (since + 1..=until).contains(&place.seq);
            subscribers.iter().filter(move |(_, _, since, until)| is_entitled(*since, *until))
        };
        if subscribers.iter().any(|(.., until)| *until != u64::MAX) {
            return Ok(entitled().map(|(_, jid, ..)| jid.clone()).collect());
        }
        // Later events have all recipients of earlier ones, so equal numbers mean equal lists.
        let list = lists
            .entry(entitled().count())
            .or_insert_with(|| entitled().map(|(_, jid, ..)| jid.clone()).collect());
        Ok(list.clone())
    }

    fn subscribers(&self, node: Number) -> Result<Subscribers, StoreError> {
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
