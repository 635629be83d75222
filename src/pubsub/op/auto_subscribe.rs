//! Those who hear of nodes without having subscribed: resources that send the service their presence, and whose
//! capabilities name the nodes (§9.1.3, §9.2).
//!
//! SPEC: §9 speaks of accounts. Here presence goes to the service; it counts for the nodes that the capabilities name
//! with `+notify`, for without names it would be for all nodes there are. Who has subscribed is told as a subscriber.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
};

use jid::Jid;

use crate::pubsub::{
    Affiliations, Audience, Change, Changes, Context, Item, Node, NodeConfig, Notification,
    Options, Recipients, Terms, Timestamp, access, event::MAX_LISTED, spelled::Spelled,
};

use super::subscribe;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["auto-subscribe", "filtered-notifications"];

/// A resource with capabilities that name a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterestedResource {
    /// The full JID.
    pub jid: Jid,
    /// Whether a roster gives it access, as of the last check; `None` before the first check, after which the last item
    /// is sent.
    pub is_admitted: Option<bool>,
}

/// Sends those who are interested in a node what its subscribers are sent of these changes, and the last item to those
/// whom the changes let in (§12.2).
#[must_use]
pub fn told(
    node: Option<&Node>,
    changes: &Changes,
    interested: &[InterestedResource],
    notifications: &[Notification],
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Vec<Notification> {
    let node = node.or_else(|| changes.created()).filter(|_| !interested.is_empty());
    let Some(node) = node else { return Vec::new() };
    let may_let_in = changes.created().is_none() && concern_access(changes);
    if !may_let_in && !notifications.iter().any(|one| one.audience == Audience::Subscribers) {
        return Vec::new();
    }
    // Who has no access after them is not sent anything of them.
    let after = After::of(node, changes);
    let (mut hears, mut enters) = (Vec::new(), Vec::new());
    for resource in interested.iter().filter(|resource| after.is_implicit(resource, cx)) {
        if may_let_in && !had_access(node, resource, cx) {
            enters.push(resource.jid.clone());
        }
        hears.push(resource.jid.clone());
    }
    let mut sent = copies(notifications, &lists(&hears));
    let last = last.filter(|_| !changes.drop_all_items());
    sent.extend(last_items(node, after.config, &enters, last, cx));
    sent
}

/// Returns `true` if changes of a node leave its implicit subscriptions as they are.
#[must_use]
pub fn are_unaffected(changes: &Changes) -> bool {
    changes.iter().all(|change| {
        matches!(
            change,
            Change::Published(_) | Change::Retracted(_) | Change::Trimmed { .. } | Change::Purged
        )
    })
}

/// The resources with an implicit subscription to a node.
#[must_use]
pub fn recipients(
    node: &Node,
    interested: &[InterestedResource],
    cx: &Context<'_>,
) -> Vec<Recipients> {
    lists(&After::unchanged(node).implicit(interested, cx))
}

/// The notifications to subscribers, for these lists of resources.
#[must_use]
pub fn copies(notifications: &[Notification], lists: &[Recipients]) -> Vec<Notification> {
    let for_list = |list: &Recipients| {
        let audience = Audience::Interested(list.clone());
        let of_all = notifications.iter().filter(|one| one.audience == Audience::Subscribers);
        of_all.map(move |one| Notification { audience: audience.clone(), ..one.clone() })
    };
    lists.iter().flat_map(for_list).collect()
}

fn lists(jids: &[Jid]) -> Vec<Recipients> {
    jids.chunks(MAX_LISTED).map(|part| Recipients::sorted(part.to_vec())).collect()
}

/// The resources that gain or lose access by a roster with these changes.
#[must_use]
pub fn readmitted(
    node: Option<&Node>,
    changes: &Changes,
    interested: &[InterestedResource],
    cx: &Context<'_>,
) -> Vec<InterestedResource> {
    let is_deleted = changes.iter().any(|change| matches!(change, Change::Deleted(_)));
    if interested.is_empty() || !is_deleted && !concern_access(changes) {
        return Vec::new();
    }
    let after = node.or_else(|| changes.created()).map(|node| After::of(node, changes));
    let readmitted = |resource: &InterestedResource| {
        let before = resource.is_admitted?;
        let now = match &after {
            _ if is_deleted => false,
            Some(after) if after.needs_roster(&resource.jid, cx) => after.has_access(resource, cx),
            _ => before,
        };
        (now != before).then(|| InterestedResource { is_admitted: Some(now), ..resource.clone() })
    };
    interested.iter().filter_map(readmitted).collect()
}

/// The interested resources that lose an implicit subscription by changes of a node, or an explicit subscription that
/// took its place, and the bare JIDs of such subscriptions.
#[must_use]
pub fn revoked(
    node: Option<&Node>,
    changes: &Changes,
    interested: &[InterestedResource],
    cx: &Context<'_>,
) -> BTreeSet<Jid> {
    let unsubscribed: HashMap<_, _> =
        changes.unsubscribed().map(|jid| (jid.as_str(), jid)).collect();
    let affect_access = concern_access(changes);
    let is_affected = affect_access || !unsubscribed.is_empty();
    let Some(node) = node.filter(|_| is_affected && !interested.is_empty()) else {
        return BTreeSet::new();
    };
    let mut revoked = BTreeSet::new();
    for InterestedResource { jid, .. } in interested {
        let full = jid.as_str();
        let bare = full.split('/').next().unwrap_or_default();
        let own = [full, bare].into_iter().filter_map(|own| unsubscribed.get(own));
        revoked.extend(own.map(|own| (*own).clone()));
    }
    if affect_access {
        let after = After::of(node, changes);
        let loses = |resource: &&InterestedResource| {
            had_access(node, resource, cx)
                && !after.has_access(resource, cx)
                && !after.is_subscribed(&resource.jid)
        };
        revoked.extend(interested.iter().filter(loses).map(|resource| resource.jid.clone()));
    }
    revoked
}

/// The resources that gained or lost access by the roster of a node's owner since the last check.
#[must_use]
pub fn checked(
    node: &Node,
    interested: &[InterestedResource],
    cx: &Context<'_>,
) -> Vec<InterestedResource> {
    let checked = |resource: &InterestedResource| {
        let (before, now) = (resource.is_admitted?, is_admitted(node, resource, cx));
        (now != before).then(|| InterestedResource { is_admitted: Some(now), ..resource.clone() })
    };
    interested.iter().filter_map(checked).collect()
}

/// Returns `true` if a roster gives a resource access, if that is known.
#[must_use]
pub fn is_admitted(node: &Node, resource: &InterestedResource, cx: &Context<'_>) -> bool {
    let after = After::unchanged(node);
    after.needs_roster(&resource.jid, cx) && after.has_access(resource, cx)
}

/// The last item for resources whose interest in a node begins now.
#[must_use]
pub fn last(
    node: &Node,
    resources: &[InterestedResource],
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Vec<Notification> {
    let after = After::unchanged(node);
    last_items(node, &node.config, &after.implicit(resources, cx), last, cx)
}

/// Whether a resource has neither an implicit nor an explicit subscription. While rosters are unknown, entities to which
/// only a roster can give access keep theirs.
#[must_use]
pub fn is_revoked(node: &Node, jid: &Jid, cx: &Context<'_>) -> bool {
    let resource = InterestedResource { jid: jid.clone(), is_admitted: Some(true) };
    let after = After::unchanged(node);
    !after.has_access(&resource, cx) && !after.is_subscribed(jid)
}

fn last_items(
    node: &Node,
    config: &NodeConfig,
    jids: &[Jid],
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Vec<Notification> {
    let terms = Terms::new(None, Options::default(), node.seq, Timestamp(0));
    let of_part = |part: &[Jid]| {
        let at = (node.version + 1, cx.fresh.number());
        let told = subscribe::last_item(node, config, last, (part.first()?, &terms), at)?;
        let audience = Audience::Interested(Recipients::sorted(part.to_vec()));
        Some(Notification { audience, ..told })
    };
    jids.chunks(MAX_LISTED).filter_map(of_part).collect()
}

/// Returns `true` if changes may give or revoke access.
fn concern_access(changes: &Changes) -> bool {
    changes.iter().any(|change| {
        matches!(change, Change::Affiliated(..) | Change::Configured(_) | Change::Created(_))
    })
}

/// Returns `true` if a resource could subscribe without approval before a decision; access by a roster as of the last
/// check.
fn had_access(node: &Node, resource: &InterestedResource, cx: &Context<'_>) -> bool {
    let bare = resource.jid.to_bare();
    let affiliation = node.affiliation_of(&bare);
    match resource.is_admitted {
        Some(is_admitted) if access::needs_roster(&node.config, &bare, affiliation, cx) => {
            is_admitted
        }
        _ => access::is_eligible(&node.config, &bare, affiliation, cx),
    }
}

/// A node as it is after changes, as far as implicit subscriptions depend on them.
struct After<'a> {
    node: &'a Node,
    config: &'a NodeConfig,
    affiliations: Cow<'a, Affiliations>,
    subscribed: HashSet<&'a Jid>,
    /// The bare JIDs of new subscriptions.
    spelled: Spelled,
    unsubscribed: HashSet<&'a Jid>,
}

impl<'a> After<'a> {
    fn unchanged(node: &'a Node) -> Self {
        Self {
            node,
            config: &node.config,
            affiliations: Cow::Borrowed(node.all_affiliations()),
            subscribed: HashSet::new(),
            spelled: Spelled::default(),
            unsubscribed: HashSet::new(),
        }
    }

    fn of(node: &'a Node, changes: &'a Changes) -> Self {
        let affiliations = node.affiliations_after(changes);
        let mut after = Self { affiliations, ..Self::unchanged(node) };
        for change in changes.iter() {
            match change {
                Change::Configured(config) => after.config = config,
                Change::Subscribed(jid) | Change::Enrolled(jid) => {
                    after.subscribed.insert(jid);
                    after.spelled.add(&jid.to_bare());
                }
                Change::Unsubscribed(jid) => {
                    after.unsubscribed.insert(jid);
                }
                _ => {}
            }
        }
        after
    }

    /// Returns `true` if a resource can get access only by a roster.
    fn needs_roster(&self, jid: &Jid, cx: &Context<'_>) -> bool {
        let bare = jid.to_bare();
        access::needs_roster(self.config, &bare, self.affiliations.of(&bare), cx)
    }

    /// Returns `true` if a resource may subscribe without approval. If that needs a roster and none is known, the
    /// result is as before.
    fn has_access(&self, resource: &InterestedResource, cx: &Context<'_>) -> bool {
        let bare = resource.jid.to_bare();
        let affiliation = self.affiliations.of(&bare);
        let is_unknown =
            cx.contacts.is_none() && access::needs_roster(self.config, &bare, affiliation, cx);
        match is_unknown {
            true => had_access(self.node, resource, cx),
            false => access::is_eligible(self.config, &bare, affiliation, cx),
        }
    }

    /// The resources among these that are sent events because of their presence.
    fn implicit(&self, resources: &[InterestedResource], cx: &Context<'_>) -> Vec<Jid> {
        let implicit = resources.iter().filter(|resource| self.is_implicit(resource, cx));
        implicit.map(|resource| resource.jid.clone()).collect()
    }

    /// Whether a resource is sent events because of its presence: it may subscribe, and has not.
    fn is_implicit(&self, resource: &InterestedResource, cx: &Context<'_>) -> bool {
        self.has_access(resource, cx) && !self.is_subscribed(&resource.jid)
    }

    /// Returns `true` if a resource has an explicit subscription, of its own or of its bare JID.
    fn is_subscribed(&self, resource: &Jid) -> bool {
        let stays = |jid: &Jid| self.node.is_subscribed(jid) && !self.unsubscribed.contains(jid);
        self.node.own_jids(resource).any(|jid| stays(&jid))
            || self.spelled.own_jids(resource).any(|jid| self.subscribed.contains(&jid))
    }
}
