//! Notices of state changes: to entities whose affiliation or subscription another entity changed (§8.8.4, §8.9.4,
//! §12.14), and to owners (§8.6, `pubsub#notify_sub`).

use std::collections::BTreeMap;

use jid::{BareJid, Jid};

use crate::{
    Affiliation, AffiliationNotices, Audience, Change, Changes, Context, Event, LogEntry, Node,
    NodeConfig, Recipients, SubId, SubscriptionDetails, SubscriptionState, event::MAX_LISTED,
};

/// Maximum number of owners that are notified of a subscription; a node may have thousands of owners.
const MAX_OWNERS: usize = 100;
/// Maximum number of subscriptions that one request reports to the owners.
const MAX_OWNER_NOTICES: usize = 100;
/// Maximum number of subscriptions with a SubID that one request reports to their subscribers, each in a message of its
/// own.
const MAX_SUBID_NOTICES: usize = 10_000;

/// Returns the log entries with the notices of these changes. `config` is the configuration of the node after the
/// changes.
///
/// SPEC-DEVIATION: §12.14 requires a notice of every change of a subscription. Here the entity that made the change
/// gets no notice, because the reply tells it the new state. Exception: it gets a notice if the request changed its own
/// affiliation, because the reply does not show the subscription.
pub(crate) fn state_change_entries(
    node: &Node,
    config: &NodeConfig,
    changes: &mut Changes,
    cx: &Context<'_>,
) -> Vec<LogEntry> {
    let actor = cx.actor.bare();
    let mut affiliated = BTreeMap::<_, Vec<Jid>>::new();
    let mut subscriptions = BTreeMap::<_, Vec<Jid>>::new();
    let (mut owner_notices, mut requests, mut of_subids) = (Vec::new(), Vec::new(), Vec::new());
    let is_informed = |jid: &Jid| jid.to_bare().is_same(&actor) && !is_affiliated(changes, &actor);
    let configured = changes.iter().filter_map(|change| match change {
        Change::SubscriptionOptionsSet(jid, details) => Some((jid, &**details)),
        _ => None,
    });
    let configured: BTreeMap<&Jid, &[SubscriptionDetails]> = configured.collect();
    for change in changes.iter() {
        let (jid, state) = match change {
            Change::AffiliationSet(entity, affiliation) => {
                if *entity != actor && is_noticed(node, entity, cx) {
                    affiliated.entry(*affiliation).or_default().push(entity.clone().into());
                }
                continue;
            }
            Change::Subscribed(jid) | Change::SubscribedByOwner(jid) => {
                (jid, SubscriptionState::Subscribed)
            }
            Change::SubscriptionRequested(jid) => {
                let details = configured.get(jid).copied().unwrap_or_default();
                requests.push((jid.clone(), subids(details).cloned().collect::<Vec<_>>()));
                continue;
            }
            Change::Unsubscribed(jid) => (jid, SubscriptionState::None),
            Change::SubscriptionOptionsSet(jid, remaining) if !is_informed(jid) => {
                let ended = subids(details_before(node, jid)).filter(|ended| {
                    remaining.iter().all(|details| details.subid.as_ref() != Some(*ended))
                });
                of_subids.extend(ended.map(|ended| (jid, ended.clone(), SubscriptionState::None)));
                continue;
            }
            _ => continue,
        };
        if !is_informed(jid) {
            let details = configured.get(jid).copied().unwrap_or_else(|| details_before(node, jid));
            let before = of_subids.len();
            of_subids.extend(subids(details).map(|subid| (jid, subid.clone(), state)));
            if of_subids.len() == before {
                subscriptions.entry(state).or_default().push(jid.clone());
            }
        }
        let was_pending = node.state_of(jid) == SubscriptionState::Pending;
        if config.notify_sub && !(was_pending && state == SubscriptionState::None) {
            owner_notices.push((jid.clone(), state));
        }
    }
    owner_notices.truncate(MAX_OWNER_NOTICES);
    let mut events = Vec::new();
    for (affiliation, entities) in affiliated {
        events.push((Event::AffiliationChanged(affiliation), Recipients::sorted(entities)));
    }
    for (state, jids) in subscriptions {
        events.push((subscription(None, state), Recipients::sorted(jids)));
    }
    // §6.1.6: each notice of one of several subscriptions has its SubID.
    for (jid, subid, state) in of_subids.into_iter().take(MAX_SUBID_NOTICES) {
        let event = Event::Subscription { jid: None, subid: Some(subid), state, expiry: None };
        events.push((event, Recipients::one(jid.clone())));
    }
    if !owner_notices.is_empty() || !requests.is_empty() {
        let owners = owners_but(node, &actor, changes);
        events.extend(
            owner_notices.into_iter().map(|(j, s)| (subscription(Some(j), s), owners.clone())),
        );
        let approval_requests =
            requests.iter().map(|(jid, _)| (Event::ApprovalRequested(jid.clone()), owners.clone()));
        events.extend(approval_requests);
    }
    events.retain(|(_, recipients)| !recipients.is_empty());
    let mut notices = push_entries(node, events, changes, cx);
    for notice in &mut notices {
        if let Event::ApprovalRequested(jid) = &notice.event {
            let request = requests.iter().find(|(other, _)| other == jid);
            notice.variant.subids = request.map_or_else(Vec::new, |(_, subids)| subids.clone());
        }
    }
    notices
}

fn is_affiliated(changes: &Changes, entity: &BareJid) -> bool {
    changes
        .iter()
        .any(|change| matches!(change, Change::AffiliationSet(other, _) if other == entity))
}

/// Returns `true` if an entity is sent a notice of its new affiliation (§8.9.4).
fn is_noticed(node: &Node, entity: &BareJid, cx: &Context<'_>) -> bool {
    match cx.policy.affiliation_notices {
        AffiliationNotices::All => true,
        AffiliationNotices::Never => false,
        AffiliationNotices::Related => {
            node.affiliation_of(entity) != Affiliation::None
                || node.subscriptions_of(entity).next().is_some()
                || node.pending_of(entity).next().is_some()
        }
    }
}

fn subscription(jid: Option<Jid>, state: SubscriptionState) -> Event {
    Event::Subscription { jid, subid: None, state, expiry: None }
}

fn details_before<'a>(node: &'a Node, jid: &Jid) -> &'a [SubscriptionDetails] {
    node.configured_subscription(jid).map_or(&[], |configured| &configured.details)
}

fn subids(details: &[SubscriptionDetails]) -> impl Iterator<Item = &SubId> {
    details.iter().filter_map(|details| details.subid.as_ref())
}

/// Returns log entries that send each event to its recipients, at most [`MAX_LISTED`] in one entry.
pub(crate) fn push_entries(
    node: &Node,
    events: Vec<(Event, Recipients)>,
    changes: &mut Changes,
    cx: &Context<'_>,
) -> Vec<LogEntry> {
    let mut notices = Vec::new();
    for (event, entities) in events {
        for chunk in entities.chunks(MAX_LISTED) {
            let audience = Audience::Explicit(chunk);
            notices.push(LogEntry::for_entities(node, changes, event.clone(), audience, cx.now));
        }
    }
    notices
}

/// Returns the owners before the changes, at most [`MAX_OWNERS`], without the actor and without those that the changes
/// remove.
fn owners_but(node: &Node, actor: &BareJid, changes: &Changes) -> Recipients {
    let is_removed = |owner: &BareJid| {
        changes.iter().any(|change| {
            matches!(change, Change::AffiliationSet(e, a) if e == owner && *a != Affiliation::Owner)
        })
    };
    let owners = node.owners().filter(|owner| *owner != actor && !is_removed(owner));
    Recipients::sorted(owners.take(MAX_OWNERS).cloned().map(Jid::from).collect())
}
