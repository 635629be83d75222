//! Subscriptions as the owner manages them (§8.8), and as an entity sees its own (§5.6).

use std::collections::{BTreeMap, BTreeSet};

use jid::Jid;

use crate::pubsub::{
    Change, Changes, Context, Decision, Item, Node, NodeId, Options, Refusal, SubId, Subscription,
    SubscriptionState, Terms, access, notices::notices,
};

use super::{
    existing,
    options::{agreed, find},
    subscribe,
};

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] =
    &["manage-subscriptions", "retrieve-subscriptions", "subscription-notifications"];

/// Asks for one's own subscriptions, at one node or at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSubscriptions {
    /// At which node only.
    pub node: Option<NodeId>,
}

/// Asks that JIDs be subscribed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSubscriptions {
    /// At which node.
    pub node: NodeId,
    /// Who, which of its subscriptions if that is said, and what they shall be; each once.
    pub entries: Vec<(Jid, Option<SubId>, Wanted)>,
}

/// What an owner wants a subscription to be; nothing if it is a state that this service does not have.
pub type Wanted = Option<SubscriptionState>;

/// What became of the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionsSet {
    /// At which node.
    pub node: NodeId,
    /// Those that could not be set, and how they are all the same. The others hold (§8.8.2.4).
    pub failed: Vec<Subscription>,
    /// Whether some failed because the node has as many subscriptions as it takes.
    pub is_full: bool,
}

/// Shows who is subscribed to those who may manage it (§8.8.1); not who waits for that.
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`].
pub fn subscriptions(node: Option<&Node>, cx: &Context<'_>) -> Result<Vec<Subscription>, Refusal> {
    let node = existing(node)?;
    access::may_configure(node, cx.actor)?;
    Ok(node.subscribers().flat_map(|jid| of_jid(node, jid)).collect())
}

/// The subscriptions of a JID at a node.
pub fn of_jid(node: &Node, jid: &Jid) -> Vec<Subscription> {
    let state = node.state_of(jid);
    let plain = || Subscription { jid: jid.clone(), subid: None, state };
    match node.special(jid) {
        None => vec![plain()],
        Some(special) => {
            let subids = special.terms.iter().map(|terms| terms.subid.clone());
            subids.map(|subid| Subscription { subid, ..plain() }).collect()
        }
    }
}

/// Decides a request to set subscriptions (§8.8.2), given the newest item: one that waits is approved, or refused, so too. Those
/// concerned are told (§8.8.4).
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`]; [`Refusal::BadRequest`] if a JID stands twice.
pub fn set_subscriptions(
    node: Option<&Node>,
    request: &SetSubscriptions,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Result<Decision<SubscriptionsSet>, Refusal> {
    let node = existing(node)?;
    access::may_configure(node, cx.actor)?;
    let distinct: BTreeSet<_> =
        request.entries.iter().map(|(jid, subid, _)| (jid, subid)).collect();
    let of_some = request.entries.iter().filter(|(_, subid, _)| subid.is_some());
    let is_of_all_too = |jid: &Jid| distinct.contains(&(jid, &None));
    if distinct.len() < request.entries.len()
        || of_some.into_iter().any(|(jid, ..)| is_of_all_too(jid))
    {
        return Err(Refusal::BadRequest("two entries for one subscription"));
    }
    let mut changes = Changes::none(node);
    let (mut failed, mut is_full) = (Vec::new(), false);
    let there = node.subscribers_len() + node.pending_len();
    let mut room = cx.limits().max_subscriptions.saturating_sub(there);
    let mut agreements = BTreeMap::new();
    for (jid, subid, wanted) in &request.entries {
        let state = node.state_of(jid);
        let admitted = node.config.subscribe && {
            let entity = jid.to_bare();
            let contact = access::contact(cx, &entity);
            access::admits(&node.config, node.affiliation_of(&entity), contact).is_ok()
        };
        match (wanted, state) {
            (Some(wanted), state) if *wanted == state => {}
            // One of several.
            (Some(SubscriptionState::None), _) if subid.is_some() => {
                let all = || node.terms_of(jid).into_owned();
                let left: &mut Vec<_> = agreements.entry(jid).or_insert_with(all);
                match find(left, subid.as_ref()) {
                    Ok(at) => drop(left.remove(at)),
                    Err(_) => {
                        failed.push(Subscription { jid: jid.clone(), subid: subid.clone(), state })
                    }
                }
            }
            (Some(SubscriptionState::None), _) => {
                changes.push(Change::Unsubscribed(jid.clone()));
            }
            (Some(SubscriptionState::Subscribed), SubscriptionState::Pending) => {
                changes.push(Change::Subscribed(jid.clone()));
            }
            (Some(SubscriptionState::Subscribed), _) if admitted && room > 0 => {
                room -= 1;
                changes.push(Change::Enrolled(jid.clone()));
                if cx.limits().max_subids > 1 {
                    let subid = SubId::new(&cx.fresh.name());
                    let terms = Terms::new(Some(subid), Options::default(), node.seq, cx.now);
                    changes.push(agreed(node, jid.clone(), vec![terms])?);
                }
            }
            (wanted, _) => {
                is_full |= *wanted == Some(SubscriptionState::Subscribed) && admitted;
                failed.push(Subscription { jid: jid.clone(), subid: subid.clone(), state });
            }
        }
    }
    for (jid, left) in agreements {
        changes.push(match left.is_empty() {
            true => Change::Unsubscribed(jid.clone()),
            false => agreed(node, jid.clone(), left)?,
        });
    }
    let reply = SubscriptionsSet { node: node.id.clone(), failed, is_full };
    let mut notifications = notices(node, &node.config, &mut changes, cx);
    notifications.extend(subscribe::last_items(node, &node.config, last, &changes, cx.fresh));
    Ok(Decision { reply, changes, notifications })
}
