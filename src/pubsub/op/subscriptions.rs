//! Subscriptions as the owner manages them (§8.8), and as an entity sees its own (§5.6).

use std::collections::{BTreeMap, BTreeSet};

use jid::{BareJid, Jid};

use crate::pubsub::{
    Change, Changes, Context, Decision, Item, Node, NodeId, Options, Refusal, SubId, Subscription,
    SubscriptionState, Terms, access, notices::notices,
};

use super::{
    InvalidEntry, existing, joined,
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
    /// The entries that cannot be applied. The others are.
    pub invalid: Vec<InvalidEntry>,
}

/// What an owner wants a subscription to be; nothing if it is a state that this service does not have.
pub type Wanted = Option<SubscriptionState>;

/// What became of the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionsSet {
    /// At which node.
    pub node: NodeId,
    /// The addresses and SubIDs of the entries that were not applied, with the present states. The others hold
    /// (§8.8.2.4).
    pub failed: Vec<(String, Option<SubId>, SubscriptionState)>,
    /// The reasons, as a text; empty if all were applied.
    pub reason: String,
    /// Whether some failed because the node has as many subscriptions as it takes.
    pub is_full: bool,
}

/// Lists the subscribers for the owner (§8.8.1), without pending ones, ordered by JID so that pages stay valid when
/// options change.
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`].
pub fn subscriptions(node: Option<&Node>, cx: &Context<'_>) -> Result<Vec<Subscription>, Refusal> {
    let node = existing(node)?;
    access::may_configure(node, cx.actor)?;
    let mut jids: Vec<_> = node.subscribers().collect();
    jids.sort_unstable();
    Ok(jids.into_iter().flat_map(|jid| of_jid(node, jid)).collect())
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

/// Resolves the JID of an entry at the node: an approval applies to the pending JID. An entry that ends all
/// subscriptions of a JID ends those in every spelling of its domain.
fn known(
    node: &Node,
    (jid, subid, wanted): &(Jid, Option<SubId>, Wanted),
) -> Vec<(Jid, Option<SubId>, Wanted)> {
    let mut jids = node.known_subscriptions(jid);
    if *wanted == Some(SubscriptionState::Subscribed) {
        jids.sort_by_key(|jid| node.state_of(jid) != SubscriptionState::Pending);
    }
    if subid.is_some() || *wanted != Some(SubscriptionState::None) {
        jids.truncate(1);
    }
    jids.into_iter().map(|jid| (jid, subid.clone(), *wanted)).collect()
}

/// Whether a server may deliver notifications for an entity to another account, so that only the entity itself may
/// create its subscriptions.
///
/// SPEC: §8.8.2 lets an owner subscribe any JID. The account that receives such notifications could not unsubscribe,
/// because its server stamps another address.
fn may_be_of_another(node: &Node, entity: &BareJid, cx: &Context<'_>) -> bool {
    let is_known = || {
        node.subscriptions_of(entity).next().is_some() || node.pending_of(entity).next().is_some()
    };
    !entity.is_folded() && !access::is_self(cx.actor, entity) && !is_known()
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
    let entries: Vec<_> = request.entries.iter().flat_map(|entry| known(node, entry)).collect();
    let distinct: BTreeSet<_> = entries.iter().map(|(jid, subid, _)| (jid, subid)).collect();
    let of_some = entries.iter().filter(|(_, subid, _)| subid.is_some());
    let is_of_all_too = |jid: &Jid| distinct.contains(&(jid, &None));
    if distinct.len() < entries.len() || of_some.into_iter().any(|(jid, ..)| is_of_all_too(jid)) {
        return Err(Refusal::BadRequest("two entries for one subscription"));
    }
    let mut changes = Changes::none(node);
    let (mut failed, mut reasons, mut is_full) = (Vec::new(), Vec::new(), false);
    let mut fail = |jid: &Jid, subid: &Option<SubId>, state, reason: String| {
        failed.push((jid.to_string(), subid.clone(), state));
        reasons.push(reason);
    };
    let there = node.subscribers_len() + node.pending_len();
    let mut room = cx.limits().max_subscriptions.saturating_sub(there);
    let mut agreements = BTreeMap::new();
    for (jid, subid, wanted) in &entries {
        let state = node.state_of(jid);
        let entity = jid.to_bare();
        let contact = access::contact(cx, &entity);
        let admission = access::admits(&node.config, node.affiliation_of(&entity), contact);
        match (wanted, state) {
            (Some(wanted), state) if *wanted == state => {}
            // One of several.
            (Some(SubscriptionState::None), _) if subid.is_some() => {
                let all = || node.terms_of(jid).into_owned();
                let left: &mut Vec<_> = agreements.entry(jid).or_insert_with(all);
                match find(left, subid.as_ref()) {
                    Ok(at) => drop(left.remove(at)),
                    Err(refusal) => fail(jid, subid, state, refusal.to_string()),
                }
            }
            (Some(SubscriptionState::None), _) => {
                changes.push(Change::Unsubscribed(jid.clone()));
            }
            (Some(SubscriptionState::Subscribed), SubscriptionState::Pending) => {
                changes.push(Change::Subscribed(jid.clone()));
            }
            (Some(SubscriptionState::Subscribed), _) if may_be_of_another(node, &entity, cx) => {
                let other = entity.fold();
                let reason =
                    format!("a server may deliver to {other}: {entity} has to subscribe itself");
                fail(jid, subid, state, reason);
            }
            (Some(SubscriptionState::Subscribed), _) if admission.is_ok() && room > 0 => {
                let terms = (cx.limits().max_subids > 1).then(|| {
                    let subid = SubId::new(&cx.fresh.name());
                    Terms::new(Some(subid), Options::default(), node.seq, cx.now)
                });
                let terms = terms.map(|terms| agreed(node, jid.clone(), vec![terms])).transpose();
                match terms {
                    Ok(terms) => {
                        room -= 1;
                        changes.push(Change::Enrolled(jid.clone()));
                        terms.into_iter().for_each(|terms| changes.push(terms));
                    }
                    Err(refusal) => fail(jid, subid, state, refusal.to_string()),
                }
            }
            (Some(SubscriptionState::Subscribed), _) => match admission {
                Ok(_) => {
                    is_full = true;
                    let limit = cx.limits().max_subscriptions;
                    let full = format!("max_subscriptions: at most {limit} at one node");
                    fail(jid, subid, state, full);
                }
                Err(refusal) => fail(jid, subid, state, refusal.to_string()),
            },
            (Some(SubscriptionState::Pending) | None, _) => {
                fail(jid, subid, state, "an owner sets subscribed or none".into());
            }
        }
    }
    for (jid, left) in agreements {
        changes.push(match left.is_empty() {
            true => Change::Unsubscribed(jid.clone()),
            false => agreed(node, jid.clone(), left)?,
        });
    }
    for InvalidEntry { jid, subid, reason } in &request.invalid {
        let present = |jid: Jid| node.state_of(&node.known_subscription(&jid));
        let state = Jid::prepare(jid).map_or(SubscriptionState::None, present);
        failed.push((jid.clone(), subid.clone(), state));
        reasons.push((*reason).to_owned());
    }
    let reason = joined(reasons);
    let reply = SubscriptionsSet { node: node.id.clone(), failed, reason, is_full };
    let mut notifications = notices(node, &node.config, &mut changes, cx);
    notifications.extend(subscribe::last_items(node, &node.config, last, &changes, cx.fresh));
    Ok(Decision { reply, changes, notifications })
}
