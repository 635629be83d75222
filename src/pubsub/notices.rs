//! What a decision tells besides an event: to those whose affiliation or subscription somebody else changed
//! (§8.8.4, §8.9.4, §12.14), and to owners (§8.6, `pubsub#notify_sub`).

use std::collections::BTreeMap;

use jid::{BareJid, Jid};

use super::{
    Affiliation, Audience, Change, Changes, Context, Event, Node, NodeConfig, Notification,
    Recipients, SubscriptionState,
};

/// Owners that are told of a subscription; all of them could be thousands.
const MAX_OWNERS: usize = 100;
/// Subscriptions that owners are told of after one request.
const MAX_TOLD_TO_OWNERS: usize = 100;

/// Tells what changes at a node that is then configured so.
///
/// SPEC: §12.14 speaks of every change of a subscription. Who made it knows it by the answer, and gets no message.
pub(super) fn notices(
    node: &Node,
    config: &NodeConfig,
    changes: &mut Changes,
    cx: &Context<'_>,
) -> Vec<Notification> {
    let actor = cx.actor.bare();
    let mut affiliated = BTreeMap::<_, Vec<Jid>>::new();
    let mut subscriptions = BTreeMap::<_, Vec<Jid>>::new();
    let (mut news, mut requests) = (Vec::new(), Vec::new());
    for change in changes.iter() {
        let (jid, state) = match change {
            Change::Affiliated(entity, affiliation) => {
                if *entity != actor {
                    affiliated.entry(*affiliation).or_default().push(entity.clone().into());
                }
                continue;
            }
            Change::Subscribed(jid) | Change::Enrolled(jid) => (jid, SubscriptionState::Subscribed),
            Change::Requested(jid) => {
                requests.push(jid.clone());
                continue;
            }
            Change::Unsubscribed(jid) => (jid, SubscriptionState::None),
            _ => continue,
        };
        if jid.to_bare() != actor {
            subscriptions.entry(state).or_default().push(jid.clone());
        }
        let was_pending = node.state_of(jid) == SubscriptionState::Pending;
        if config.notify_sub && !(was_pending && state == SubscriptionState::None) {
            news.push((jid.clone(), state));
        }
    }
    news.truncate(MAX_TOLD_TO_OWNERS);
    let mut told = Vec::new();
    for (affiliation, entities) in affiliated {
        told.push((Event::Affiliated(affiliation), Recipients::sorted(entities)));
    }
    for (state, jids) in subscriptions {
        told.push((subscription(None, state), Recipients::sorted(jids)));
    }
    if !news.is_empty() || !requests.is_empty() {
        let owners = owners_but(node, &actor, changes);
        told.extend(news.into_iter().map(|(j, s)| (subscription(Some(j), s), owners.clone())));
        told.extend(requests.into_iter().map(|jid| (Event::Requested(jid), owners.clone())));
    }
    told.retain(|(_, recipients)| !recipients.is_empty());
    tell(node, told, changes, cx)
}

fn subscription(jid: Option<Jid>, state: SubscriptionState) -> Event {
    Event::Subscription { jid, subid: None, state, expiry: None }
}

/// Tells things, each to some entities.
pub(super) fn tell(
    node: &Node,
    told: Vec<(Event, Recipients)>,
    changes: &mut Changes,
    cx: &Context<'_>,
) -> Vec<Notification> {
    let place = node.next_place();
    if !told.is_empty() {
        changes.advance_to(place);
    }
    let notice = |(index, (event, entities))| {
        Notification::notice(node, place, index, event, Audience::Entities(entities), cx.now)
    };
    (1..).zip(told).map(notice).collect()
}

/// Those who own the node after the change, but for the actor.
fn owners_but(node: &Node, actor: &BareJid, changes: &Changes) -> Recipients {
    let goes = |owner: &BareJid| {
        changes.iter().any(|change| {
            matches!(change, Change::Affiliated(e, a) if e == owner && *a != Affiliation::Owner)
        })
    };
    let owners = node.owners().filter(|owner| *owner != actor && !goes(owner));
    Recipients::sorted(owners.take(MAX_OWNERS).cloned().map(Jid::from).collect())
}
