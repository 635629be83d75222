//! Use cases, one file each: request, reply, rule and features.
//!
//! Every rule checks in the same order: the node exists, the actor has access, the request is valid. So errors are
//! consistent, and invalid requests disclose no more than valid ones.

pub mod affiliations;
pub mod announce;
pub mod authorize;
pub mod auto_subscribe;
pub mod configure;
pub mod create;
pub mod delete;
pub mod discover;
pub mod mam;
pub mod presence_change;
pub mod public_subscriptions;
pub mod publish;
pub mod purge;
pub mod reevaluate;
pub mod retract;
pub mod retrieve;
pub mod subscribe;
pub mod subscription_options;
pub mod subscriptions;
pub mod timers;
pub mod unsubscribe;
pub mod unsubscribe_undeliverable;

use std::collections::{BTreeMap, BTreeSet};

use jid::{BareJid, Jid};

use crate::{
    Affiliation, Change, Changes, Context, Error, Node, NodeConfig, SubId, SubscribeAccess, access,
    administers,
};

/// Entry of an owner's list that cannot be applied to any node (§8.8.2.4, §8.9.2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEntry {
    /// Address as the owner wrote it.
    pub jid: String,
    /// SubID, in a list of subscriptions.
    pub subid: Option<SubId>,
    /// Reason why the entry is invalid.
    pub reason: &'static str,
}

/// Separates the entries of an owner's list into those to apply and those that contradict an earlier entry. `named`
/// returns the JID, the SubID and the value of an entry. An entry without a SubID applies to all subscriptions of its
/// JID. Entries that only repeat other entries are dropped.
///
/// SPEC: §8.9.2.4 requires that a list with two entries for the same entity is refused. §8.8.2.4 requires distinct
/// SubIDs, but defines no error for duplicates. Neither says whether two spellings of a domain denote the same entity;
/// here they do. Entries for the same entity with the same value count as one. If the values differ, the first entry is
/// applied. The later entry is returned as invalid, with the value that the first entry set.
fn distinct<'a, E, V: Copy + Ord>(
    entries: &'a [E],
    named: impl Fn(&'a E) -> (&'a Jid, Option<&'a SubId>, V),
) -> (Vec<&'a E>, Vec<&'a E>) {
    let mut of_jid = BTreeMap::<_, (BTreeMap<_, V>, BTreeSet<V>)>::new();
    let (mut distinct, mut contradicting) = (Vec::new(), Vec::new());
    for entry in entries {
        let (jid, subid, value) = named(entry);
        let key = decoded(jid);
        let (by_subid, values) = of_jid.entry(key.clone()).or_default();
        let earlier = by_subid.get(&subid).or_else(|| by_subid.get(&None));
        let contradicts = match subid {
            Some(_) => earlier.is_some_and(|other| *other != value),
            None => values.iter().any(|other| *other != value),
        };
        if contradicts {
            contradicting.push(entry);
        } else if earlier.is_none() {
            by_subid.insert(subid, value);
            values.insert(value);
            distinct.push((key, subid, entry));
        }
    }
    let is_included = |key: &String, subid: Option<&SubId>| {
        let of_all = of_jid.get(key).is_some_and(|(by_subid, _)| by_subid.contains_key(&None));
        of_all && subid.is_some()
    };
    let distinct = distinct.into_iter().filter(|(key, subid, _)| !is_included(key, *subid));
    (distinct.map(|(_, _, entry)| entry).collect(), contradicting)
}

/// Returns the form of a JID that is the same for all spellings of its domain.
fn decoded(jid: &Jid) -> String {
    let bare = jid.to_bare();
    match jid.resource() {
        Some(resource) => format!("{}/{resource}", bare.decoded()),
        None => bare.decoded().into_owned(),
    }
}

/// Reason of an entry that contradicts an earlier one.
const CONTRADICTING: &str = "contradictory entries: the first one is applied";

/// Joins the reasons why entries of a list were not applied, without duplicates.
fn joined(reasons: impl IntoIterator<Item = String>) -> String {
    let reasons: BTreeSet<_> = reasons.into_iter().collect();
    reasons.into_iter().collect::<Vec<_>>().join("; ")
}

/// Returns the node, or the error for a missing node.
fn require_node(node: Option<&Node>) -> Result<&Node, Error> {
    node.ok_or(Error::NodeNotFound)
}

/// Adds the changes to the subscriptions of exactly this address. All subscriptions end if the node no longer admits
/// the entity. Pending subscriptions are approved if they no longer need approval (§8.7.4).
///
/// SPEC: the XEP does not say what happens to the subscriptions of an entity that loses access. Here they end if the
/// entity could not subscribe again, so notifications need no second check. An entity that loses an affiliation loses
/// its subscriptions even while the roster cannot be read, because without the roster there is no evidence that it is
/// admitted.
fn reevaluate_access(
    node: &Node,
    config: &NodeConfig,
    entity: &BareJid,
    affiliation: Affiliation,
    changes: &mut Changes,
    cx: &Context<'_>,
) {
    reevaluate_remaining(node, config, (entity, affiliation), &BTreeSet::new(), changes, cx);
}

/// Reevaluates, as [`reevaluate_access`] does, the subscriptions of an address that are not in `ended`.
fn reevaluate_remaining(
    node: &Node,
    config: &NodeConfig,
    (entity, affiliation): (&BareJid, Affiliation),
    ended: &BTreeSet<Jid>,
    changes: &mut Changes,
    cx: &Context<'_>,
) {
    let admission = match administers(cx.administrators, entity) {
        true => Ok(SubscribeAccess::Granted),
        false => access::admits(config, affiliation, access::contact(cx, entity)),
    };
    match admission {
        Ok(SubscribeAccess::Granted) => {
            for jid in node.pending_of_address(entity).filter(|jid| !ended.contains(*jid)) {
                changes.push(Change::Subscribed(jid.clone()));
            }
        }
        Ok(SubscribeAccess::OnApproval) => {}
        Err(_) => {
            let all = node.subscriptions_of_address(entity).chain(node.pending_of_address(entity));
            for jid in all.filter(|jid| !ended.contains(*jid)) {
                changes.push(Change::Unsubscribed(jid.clone()));
            }
        }
    }
}

/// Reevaluates, as [`reevaluate_access`] does, all subscriptions that the changes have not ended, also pending ones.
/// Subscriptions that only a roster can admit stay unchanged until the roster can be read.
fn reevaluate_all(node: &Node, config: &NodeConfig, changes: &mut Changes, cx: &Context<'_>) {
    let concerned = node.subscribers().chain(node.pending());
    let mut entities: Vec<_> = concerned.map(Jid::to_bare).collect();
    entities.sort_unstable();
    entities.dedup();
    let ended: BTreeSet<_> = changes.unsubscribed().cloned().collect();
    for entity in &entities {
        let affiliation = node.affiliation_of(entity);
        if cx.owner_roster.is_none() && access::is_up_to_rosters(config, affiliation) {
            continue;
        }
        reevaluate_remaining(node, config, (entity, affiliation), &ended, changes, cx);
    }
}
