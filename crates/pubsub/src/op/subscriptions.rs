//! Subscriptions: management by owners (§8.8), and retrieval of one's own (§5.6).

use std::borrow::Cow;
use std::collections::BTreeMap;

use jid::{BareJid, Jid};

use crate::{
    Actor, Change, Changes, Context, Decision, Error, IdGenerator, Item, Node, NodeId, Operation,
    PageBound, PageRequest, Prefetch, Prefetched, ResultPage, SubId, Subscription,
    SubscriptionDetails, SubscriptionOptions, SubscriptionState, access, node::SubscriptionEntry,
    notify::state_changes::state_change_entries,
};

use super::{
    CONTRADICTING, InvalidEntry, decoded, distinct, joined, require_node, subscribe,
    subscription_options::{find, options_change},
};

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] =
    &["manage-subscriptions", "retrieve-subscriptions", "subscription-notifications"];

/// Maximum number of subscriptions that are counted to find the RSM index of a page.
const MAX_COUNTED: usize = 10_000;

/// Request for the actor's own subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSubscriptions {
    /// Node to which the list is restricted, if any.
    pub node: Option<NodeId>,
}

/// Request of an owner to set subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSubscriptions {
    /// Name of the node.
    pub node: NodeId,
    /// JIDs with optional SubIDs, and the new states of their subscriptions. Entries that contradict an earlier one are
    /// not applied.
    pub entries: Vec<(Jid, Option<SubId>, RequestedState)>,
    /// Entries that cannot be applied. The request is carried out without them.
    pub invalid: Vec<InvalidEntry>,
}

impl Operation for SetSubscriptions {
    type Output = SetSubscriptionsReply;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::LastItem
    }

    fn check_access(&self, node: &Node, cx: &Context<'_>) -> Result<(), Error> {
        access::may_configure(node, cx.actor)
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<SetSubscriptionsReply>, Error> {
        set_subscriptions(node, self, prefetched.items.last(), cx)
    }

    fn limit_reached(reply: &Self::Output) -> Option<&'static str> {
        reply.is_full.then_some("max_subscriptions")
    }
}

/// State of a subscription that an owner requests; `None` for a state that the service does not support.
pub type RequestedState = Option<SubscriptionState>;

/// Result of setting subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSubscriptionsReply {
    /// Name of the node.
    pub node: NodeId,
    /// Addresses and SubIDs of the entries that were not applied, with the states that the subscriptions have now. The
    /// other entries were applied (§8.8.2.4).
    pub failed: Vec<(String, Option<SubId>, SubscriptionState)>,
    /// Reasons as a text; empty if all entries were applied.
    pub reason: String,
    /// `true` if entries failed because the node has the maximum number of subscriptions.
    pub is_full: bool,
    /// Pairs of JIDs, one pair for each entry that was to end the subscription of a JID without a subscription, while
    /// the entity is subscribed with another JID. The first JID is the JID of the entry. The second is the other JID of
    /// the entity, which is subscribed or pending.
    pub still_subscribed: Vec<(Jid, Jid)>,
}

impl SetSubscriptionsReply {
    /// Returns a text for each pair in [`still_subscribed`](Self::still_subscribed).
    pub fn not_ended(&self) -> Vec<String> {
        let describe =
            |(jid, other): &(Jid, Jid)| format!("{jid} has no subscription, but {other} has one");
        self.still_subscribed.iter().map(describe).collect()
    }
}

/// Returns a page of the subscriptions at a node, without pending ones, for an owner (§8.8.1). The page ends before the
/// first entry for which `fits` returns `false`. Entries are ordered by bare JID and resource, so that pages stay valid
/// when options change. `page` refers to an entry of the list by its [UID](Subscription::uid).
///
/// A page after or before a UID has no index if the node has more than 10 000 subscriptions, because finding the index
/// means counting entries.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`]; [`Error::ItemNotFound`] if the list does not contain the UID of the
/// request; [`Error::NotImplemented`] for a page that begins at an index above 10 000.
pub fn subscriptions(
    node: Option<&Node>,
    page: &PageRequest<String>,
    fits: impl FnMut(&Subscription) -> bool,
    cx: &Context<'_>,
) -> Result<ResultPage<Subscription>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let total = node.listed_len();
    let page = page.clone().and_then(|uid| edge(node, &uid)).ok_or(Error::ItemNotFound)?;
    let index_of = |edge: &(Jid, Option<SubId>)| {
        (total <= MAX_COUNTED)
            .then(|| node.listed_from(None).position(|entry| is_edge(entry, edge)))?
    };
    let taken = |listed: &mut dyn Iterator<Item = SubscriptionEntry<'_>>| -> Vec<_> {
        listed.take(page.max).map(subscribed).take_while(fits).collect()
    };
    let (entries, index) = match &page.edge {
        PageBound::At(index) if total.min(*index) > MAX_COUNTED => {
            return Err(Error::NotImplemented(format!("paging from an index above {MAX_COUNTED}")));
        }
        PageBound::At(index) => {
            (taken(&mut node.listed_from(None).skip(*index)), Some(total.min(*index)))
        }
        PageBound::After(edge) => {
            let mut later =
                node.listed_from(Some(&edge.0)).skip_while(|entry| !is_edge(*entry, edge));
            (taken(&mut later.by_ref().skip(1)), index_of(edge).map(|index| index + 1))
        }
        PageBound::Before(edge) => {
            let mut earlier =
                node.listed_back(Some(&edge.0)).skip_while(|entry| !is_edge(*entry, edge));
            let entries = taken(&mut earlier.by_ref().skip(1));
            let index = index_of(edge).map(|index| index - entries.len());
            (entries, index)
        }
        PageBound::Last => {
            let entries = taken(&mut node.listed_back(None));
            let index = total - entries.len();
            (entries, Some(index))
        }
    };
    let entries = if page.is_backward() { entries.into_iter().rev().collect() } else { entries };
    Ok(ResultPage { entries, index, total: Some(total) })
}

/// Returns the subscription with a UID, if the list contains it.
fn edge(node: &Node, uid: &str) -> Option<(Jid, Option<SubId>)> {
    let (jid, subid) = uid.split_once('\n').map_or((uid, None), |(jid, subid)| (jid, Some(subid)));
    let edge = (Jid::new(jid).ok()?, subid.map(SubId::new));
    let exists = {
        let mut of_jid = node.listed_from(Some(&edge.0)).take_while(|(jid, _)| **jid == edge.0);
        of_jid.any(|entry| is_edge(entry, &edge))
    };
    exists.then_some(edge)
}

fn is_edge(entry: SubscriptionEntry<'_>, edge: &(Jid, Option<SubId>)) -> bool {
    entry == (&edge.0, edge.1.as_ref())
}

fn subscribed((jid, subid): SubscriptionEntry<'_>) -> Subscription {
    let state = SubscriptionState::Subscribed;
    Subscription { jid: jid.clone(), subid: subid.cloned(), state }
}

/// Returns the subscriptions of a JID at a node.
pub fn of_jid(node: &Node, jid: &Jid) -> Vec<Subscription> {
    let state = node.state_of(jid);
    let plain = || Subscription { jid: jid.clone(), subid: None, state };
    match node.configured_subscription(jid) {
        None => vec![plain()],
        Some(configured) => {
            let subids = configured.details.iter().map(|details| details.subid.clone());
            subids.map(|subid| Subscription { subid, ..plain() }).collect()
        }
    }
}

/// Returns copies of an entry, one for each JID to which the entry applies. JIDs that differ only in the spelling of
/// the domain (A-labels or U-labels) denote the same entity. An entry that ends all subscriptions of a JID applies to
/// the JID in all spellings. Any other entry applies to one JID. An entry that approves a subscription prefers a
/// pending JID.
fn known(
    node: &Node,
    (jid, subid, wanted): &(Jid, Option<SubId>, RequestedState),
) -> Vec<(Jid, Option<SubId>, RequestedState)> {
    let mut jids = node.known_subscriptions(jid);
    if *wanted == Some(SubscriptionState::Subscribed) {
        jids.sort_by_key(|jid| node.state_of(jid) != SubscriptionState::Pending);
    }
    if subid.is_some() || *wanted != Some(SubscriptionState::None) {
        jids.truncate(1);
    }
    jids.into_iter().map(|jid| (jid, subid.clone(), *wanted)).collect()
}

/// Returns `true` if only the entity itself may create its subscriptions. The reason is that its server may deliver the
/// notifications to another account: some servers treat different addresses, such as those with ß and ss, as one.
///
/// SPEC: §8.8.2 lets an owner subscribe any JID. The account that receives such notifications could not unsubscribe,
/// because the `from` of its requests is not the subscribed address.
fn may_be_of_another(node: &Node, entity: &BareJid, cx: &Context<'_>) -> bool {
    let is_known = || {
        node.subscriptions_of(entity).next().is_some() || node.pending_of(entity).next().is_some()
    };
    !entity.is_folded() && !access::is_self(cx.actor, entity) && !is_known()
}

/// Returns the states that `changes` give to subscriptions. The key is the JID with decoded A-labels, which is the same
/// for all spellings of the domain.
fn states_after(changes: &Changes) -> BTreeMap<String, SubscriptionState> {
    let state = |change: &Change| match change {
        Change::Subscribed(jid) | Change::SubscribedByOwner(jid) => {
            Some((decoded(jid), SubscriptionState::Subscribed))
        }
        Change::Unsubscribed(jid) => Some((decoded(jid), SubscriptionState::None)),
        _ => None,
    };
    changes.iter().filter_map(state).collect()
}

/// Decides a request to set subscriptions (§8.8.2), given the newest item. The request may also approve and refuse
/// pending subscriptions. Affected entities are notified (§8.8.4).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn set_subscriptions(
    node: Option<&Node>,
    request: &SetSubscriptions,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Result<Decision<SetSubscriptionsReply>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let (distinct, contradicting) =
        distinct(&request.entries, |(jid, subid, wanted)| (jid, subid.as_ref(), *wanted));
    let entries: Vec<_> = distinct.into_iter().flat_map(|entry| known(node, entry)).collect();
    let mut changes = Changes::none(node);
    let (mut failed, mut reasons, mut is_full) = (Vec::new(), Vec::new(), false);
    let mut fail = |jid: &Jid, subid: &Option<SubId>, state, reason: String| {
        failed.push((jid.to_string(), subid.clone(), state));
        reasons.push(reason);
    };
    let count = node.subscribers_len() + node.pending_len();
    let mut room = cx.limits().max_subscriptions.saturating_sub(count);
    let (mut remaining, mut absent) = (BTreeMap::new(), Vec::new());
    for (jid, subid, wanted) in &entries {
        let state = node.state_of(jid);
        let entity = jid.to_bare();
        let contact = access::contact(cx, &entity);
        let admission = access::admits(&node.config, node.affiliation_of(&entity), contact);
        match (wanted, state) {
            (Some(SubscriptionState::None), SubscriptionState::None) => absent.push(jid),
            (Some(wanted), state) if *wanted == state => {}
            // Ends one of several subscriptions of the JID.
            (Some(SubscriptionState::None), _) if subid.is_some() => {
                let all = || node.details_of(jid).into_owned();
                let details: &mut Vec<_> = remaining.entry(jid).or_insert_with(all);
                match find(details, subid.as_ref()) {
                    Ok(at) => drop(details.remove(at)),
                    Err(error) => fail(jid, subid, state, error.to_string()),
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
                let reason = format!(
                    "{entity} has to subscribe itself: its server may deliver notifications for this address to {other}"
                );
                fail(jid, subid, state, reason);
            }
            (Some(SubscriptionState::Subscribed), _) if admission.is_ok() && room > 0 => {
                let details = (cx.limits().max_subids > 1).then(|| {
                    let subid = SubId::new(&cx.ids.next_id());
                    SubscriptionDetails::new(
                        Some(subid),
                        SubscriptionOptions::default(),
                        node.sequence,
                        cx.now,
                    )
                });
                let change = details
                    .map(|details| options_change(node, jid.clone(), vec![details]))
                    .transpose();
                match change {
                    Ok(change) => {
                        room -= 1;
                        changes.push(Change::SubscribedByOwner(jid.clone()));
                        change.into_iter().for_each(|change| changes.push(change));
                    }
                    Err(error) => fail(jid, subid, state, error.to_string()),
                }
            }
            (Some(SubscriptionState::Subscribed), _) => match admission {
                Ok(_) => {
                    is_full = true;
                    let limit = cx.limits().max_subscriptions;
                    let full = format!("max_subscriptions: at most {limit} at one node");
                    fail(jid, subid, state, full);
                }
                Err(error) => fail(jid, subid, state, error.to_string()),
            },
            (Some(SubscriptionState::Pending) | None, _) => {
                fail(jid, subid, state, "an owner may only set subscribed or none".into());
            }
        }
    }
    for (jid, details) in remaining {
        changes.push(match details.is_empty() {
            true => Change::Unsubscribed(jid.clone()),
            false => options_change(node, jid.clone(), details)?,
        });
    }
    let after = states_after(&changes);
    let present = |jid: &Jid| {
        let after = after.get(&decoded(jid)).copied();
        after.unwrap_or_else(|| node.state_of(&node.known_subscription(jid)))
    };
    for (jid, subid, _) in contradicting {
        failed.push((jid.to_string(), subid.clone(), present(jid)));
        reasons.push(CONTRADICTING.to_owned());
    }
    for InvalidEntry { jid, subid, reason } in &request.invalid {
        let state = Jid::prepare(jid).map_or(SubscriptionState::None, |jid| present(&jid));
        failed.push((jid.clone(), subid.clone(), state));
        reasons.push((*reason).to_owned());
    }
    let still_subscribed = absent.into_iter().filter_map(|jid| {
        let entity = jid.to_bare();
        let stays = |other: &&Jid| present(other) != SubscriptionState::None;
        let other = node.subscriptions_of(&entity).chain(node.pending_of(&entity)).find(stays)?;
        Some((jid.clone(), other.clone()))
    });
    let still_subscribed = still_subscribed.collect();
    let reason = joined(reasons);
    let node_id = node.id.clone();
    let reply = SetSubscriptionsReply { node: node_id, failed, reason, is_full, still_subscribed };
    let mut notifications = state_change_entries(node, &node.config, &mut changes, cx);
    notifications.extend(subscribe::last_items(node, &node.config, last, &changes, cx.ids));
    Ok(Decision { reply, changes, notifications })
}
