//! Affiliations: management by owners (§8.9), and retrieval of one's own (§5.7).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use jid::{BareJid, Jid};

use crate::{
    Actor, Affiliation, Change, Changes, Context, Decision, Error, IdGenerator, Item, Node, NodeId,
    Operation, Prefetch, Prefetched, access, notify::state_changes::state_change_entries,
};

use super::{
    CONTRADICTING, InvalidEntry, distinct, joined, reevaluate_access, require_node, subscribe,
};

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["modify-affiliations", "retrieve-affiliations"];

/// Request for the actor's own affiliations (§5.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAffiliations {
    /// Node to which the list is restricted, if any.
    pub node: Option<NodeId>,
}

/// Request of an owner to set affiliations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAffiliations {
    /// Name of the node.
    pub node: NodeId,
    /// Entities and their new affiliations. Entries that contradict an earlier one are not applied.
    pub entries: Vec<(BareJid, Affiliation)>,
    /// Entries that cannot be applied. The request is carried out without them.
    pub invalid: Vec<InvalidEntry>,
}

impl Operation for SetAffiliations {
    type Output = SetAffiliationsReply;

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
    ) -> Result<Decision<SetAffiliationsReply>, Error> {
        set_affiliations(node, self, prefetched.items.last(), cx)
    }

    fn limit_reached(reply: &Self::Output) -> Option<&'static str> {
        reply.is_full.then_some("max_affiliations")
    }
}

/// Result of setting affiliations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAffiliationsReply {
    /// Name of the node.
    pub node: NodeId,
    /// Addresses of the entries that were not applied, with the affiliations that these addresses have now. The other
    /// entries were applied (§8.9.2.4).
    pub failed: Vec<(String, Affiliation)>,
    /// Reasons as a text; empty if all entries were applied.
    pub reason: String,
    /// `true` if entries failed because the node has the maximum number of affiliations.
    pub is_full: bool,
}

/// Returns all affiliations of a node, for an entity that may manage them (§8.9.1).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn affiliations(
    node: Option<&Node>,
    cx: &Context<'_>,
) -> Result<Vec<(BareJid, Affiliation)>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    Ok(node.affiliations().map(|(entity, affiliation)| (entity.clone(), affiliation)).collect())
}

/// Returns the entries that were not applied, each with the affiliation that its entity has once the other entries are
/// applied.
fn present(
    node: &Node,
    changes: &Changes,
    failed: Vec<(String, Option<BareJid>)>,
) -> Vec<(String, Affiliation)> {
    if failed.is_empty() {
        return Vec::new();
    }
    let after = node.affiliations_after(changes);
    let affiliation = |entity: Option<BareJid>| entity.map_or(Affiliation::None, |e| after.of(&e));
    failed.into_iter().map(|(named, entity)| (named, affiliation(entity))).collect()
}

/// Decides a request to set affiliations (§8.9.2). The last owner cannot be removed. Entities that lose access lose
/// their subscriptions. Affected entities are notified (§8.9.4). A pending subscription begins if the new affiliation
/// makes approval unnecessary. Its JID is sent the newest item of the node (`newest`).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn set_affiliations(
    node: Option<&Node>,
    request: &SetAffiliations,
    newest: Option<&Item>,
    cx: &Context<'_>,
) -> Result<Decision<SetAffiliationsReply>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let (distinct, contradicting) =
        distinct(&request.entries, |(entity, wanted)| (&**entity, None, *wanted));
    let entries: Vec<_> = distinct
        .into_iter()
        .flat_map(|(entity, wanted)| node.known(entity).into_iter().map(|known| (known, *wanted)))
        .collect();
    let wanted: BTreeMap<_, _> = entries.iter().map(|(e, a)| (e, *a)).collect();
    let mut room = cx.limits().max_affiliations.saturating_sub(node.affiliations_len());
    let mut fits = |entity: &BareJid, affiliation| {
        let is_new = node.affiliation_of_address(entity) == Affiliation::None;
        if !is_new || affiliation == Affiliation::None {
            return true;
        }
        let fits = room > 0;
        room = room.saturating_sub(1);
        fits
    };
    let (fitting, failing): (Vec<_>, Vec<_>) =
        entries.iter().partition(|(entity, affiliation)| fits(entity, *affiliation));
    let is_full = !failing.is_empty();
    let stays_owned = node.owners().any(|o| wanted.get(o).is_none_or(|a| *a == Affiliation::Owner))
        || fitting.iter().any(|(_, affiliation)| *affiliation == Affiliation::Owner);
    let (fitting, last_owners): (Vec<_>, Vec<_>) = fitting
        .into_iter()
        .partition(|(entity, _)| stays_owned || node.affiliation_of(entity) != Affiliation::Owner);

    let mut changes = Changes::none(node);
    let (mut reevaluated, mut folds) = (BTreeSet::new(), HashSet::new());
    for (entity, affiliation) in fitting {
        if node.affiliation_of_address(entity) == *affiliation {
            continue;
        }
        changes.push(Change::AffiliationSet(entity.clone(), *affiliation));
        if *affiliation == Affiliation::Outcast {
            folds.insert(entity.fold().into_owned());
        }
        let has_own = |address: &BareJid| {
            address != entity && node.affiliation_of_address(address) != Affiliation::None
        };
        for address in entity.spellings().filter(|address| !has_own(address)) {
            if reevaluated.insert(address.clone()) {
                reevaluate_access(node, &node.config, &address, *affiliation, &mut changes, cx);
            }
        }
    }
    let named: HashSet<_> = match folds.is_empty() {
        true => HashSet::new(),
        false => entries.iter().flat_map(|(entity, _)| entity.spellings()).collect(),
    };
    for address in
        node.unaffiliated_with_folds(&folds).iter().filter(|address| !named.contains(*address))
    {
        if reevaluated.insert(address.clone()) {
            let outcast = Affiliation::Outcast;
            reevaluate_access(node, &node.config, address, outcast, &mut changes, cx);
        }
    }
    let limit = cx.limits().max_affiliations;
    let full = is_full.then(|| format!("max_affiliations: at most {limit} at one node"));
    let last = (!last_owners.is_empty()).then(|| "a node must have an owner".to_owned());
    let contradicts = (!contradicting.is_empty()).then(|| CONTRADICTING.to_owned());
    let invalid = request.invalid.iter().map(|entry| entry.reason.to_owned());
    let reason = joined(full.into_iter().chain(last).chain(contradicts).chain(invalid));
    let failed = failing.iter().chain(&last_owners).map(|(entity, _)| entity);
    let failed = failed.chain(contradicting.iter().map(|(entity, _)| entity));
    let failed = failed.map(|entity| (entity.to_string(), Some(entity.clone())));
    let invalid = |InvalidEntry { jid, .. }: &InvalidEntry| {
        (jid.clone(), Jid::prepare(jid).map(Jid::into_bare).ok())
    };
    let failed = failed.chain(request.invalid.iter().map(invalid)).collect();
    let failed = present(node, &changes, failed);
    let reply = SetAffiliationsReply { node: node.id.clone(), failed, reason, is_full };
    let mut notifications = state_change_entries(node, &node.config, &mut changes, cx);
    notifications.extend(subscribe::last_items(node, &node.config, newest, &changes, cx.ids));
    Ok(Decision { reply, changes, notifications })
}
