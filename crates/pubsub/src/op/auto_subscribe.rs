//! Implicit subscriptions: a resource that sends presence to the service receives the notifications of the nodes that
//! its capabilities name, without an explicit subscription (§9.1.3, §9.2).
//!
//! SPEC: in §9, presence goes to one account and selects the nodes of that account. Here presence goes to the whole
//! service, and would select all nodes. Therefore the resource receives only the notifications of the nodes that its
//! capabilities name with `+notify`. A resource with an explicit subscription is notified as a subscriber.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
};

use jid::{BareJid, Jid};

use crate::{
    Affiliation, Affiliations, Audience, Change, Changes, Context, Item, LogEntry, Node,
    NodeConfig, Recipients, SubscriptionDetails, SubscriptionOptions, Timestamp, access,
    event::MAX_LISTED, spellings::Spelled, subscriber_list::SubscriberList,
};

use super::subscribe;

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["auto-subscribe", "filtered-notifications"];

/// Resource whose capabilities name a node (`+notify`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterestedResource {
    /// Full JID of the resource.
    pub jid: Jid,
    /// `true` if a roster gave the resource access at the last check. `None` before the first check. If the first check
    /// finds that the resource has access, the resource is sent the last item.
    pub is_admitted: Option<bool>,
}

/// Resources with an implicit subscription to a node. Adding or removing a resource copies at most a few hundred JIDs.
#[derive(Clone, Debug, Default)]
pub struct ImplicitSubscribers(SubscriberList);

impl ImplicitSubscribers {
    /// Adds a resource if `is_implicit` is `true`, otherwise removes it. Returns `true` if the set has changed.
    pub fn set(&mut self, jid: &Jid, is_implicit: bool) -> bool {
        if !is_implicit {
            return self.0.remove(jid).is_some();
        }
        let is_new = !self.0.contains(jid);
        if is_new {
            self.0.insert(jid.clone(), 0);
        }
        is_new
    }

    /// Returns the resources as recipient lists of at most 10 000 JIDs each.
    #[must_use]
    pub fn lists(&self) -> Vec<Recipients> {
        self.0.lists(MAX_LISTED)
    }
}

/// Applies the changes of a decision to all resources that are interested in its node. The caller passes the resources
/// in parts, and lets other requests run between two parts.
pub struct Reevaluation<'a> {
    changes: &'a Changes,
    after: After<'a>,
    implicit: ImplicitSubscribers,
    /// Implicit subscribers that gain access.
    entering: ImplicitSubscribers,
    readmitted: Vec<InterestedResource>,
    revoked: BTreeSet<Jid>,
}

/// Effects of a decision on the resources that are interested in its node.
#[derive(Debug, Default)]
pub struct Effects {
    /// Notifications for resources with an implicit subscription.
    pub notifications: Vec<LogEntry>,
    /// Resources that gain or lose access by a roster, with the new value of `is_admitted`.
    pub readmitted: Vec<InterestedResource>,
    /// Resources that lose their implicit subscription. Also resources that lose an explicit subscription which had
    /// replaced an implicit one. If that explicit subscription was of the bare JID, the bare JID is included.
    pub revoked: BTreeSet<Jid>,
}

impl<'a> Reevaluation<'a> {
    /// Creates a reevaluation without resources. `node` is the node before the changes. `None` if the node does not
    /// exist and the changes do not create it.
    #[must_use]
    pub fn of(node: Option<&'a Node>, changes: &'a Changes) -> Option<Self> {
        let node = node.or_else(|| changes.created())?;
        Some(Self {
            changes,
            after: After::of(node, changes),
            implicit: ImplicitSubscribers::default(),
            entering: ImplicitSubscribers::default(),
            readmitted: Vec::new(),
            revoked: BTreeSet::new(),
        })
    }

    /// Evaluates some of the interested resources. Each resource is passed in one call only.
    pub fn evaluate(&mut self, resources: &[InterestedResource], cx: &Context<'_>) {
        let (may_revoke, readmits) = (may_revoke(self.changes), change_access(self.changes));
        let is_deleted = is_deleted(self.changes);
        for resource in resources {
            let jid = &resource.jid;
            let had_access = may_revoke && had_access(self.after.node, resource, cx);
            let has_access = self.after.has_access(resource, cx);
            let is_subscribed = self.after.is_subscribed(jid);
            if has_access && !is_subscribed {
                self.implicit.set(jid, true);
                if may_revoke && !had_access {
                    self.entering.set(jid, true);
                }
            }
            if had_access && !has_access && !is_subscribed {
                self.revoked.insert(jid.clone());
            }
            let is_admitted = match resource.is_admitted {
                Some(_) if is_deleted => Some(false),
                Some(_) if readmits && self.after.needs_roster(jid, cx) => Some(has_access),
                before => before,
            };
            if is_admitted != resource.is_admitted {
                self.readmitted.push(InterestedResource { is_admitted, ..resource.clone() });
            }
        }
    }

    /// Evaluates some of the resources with pending notifications of an implicit subscription to the node.
    pub fn evaluate_pending(&mut self, resources: &[Jid], cx: &Context<'_>) {
        for jid in resources {
            let bare = Jid::from(jid.to_bare());
            if self.after.unsubscribed.contains(jid) || self.after.is_revoked(jid, cx) {
                self.revoked.insert(jid.clone());
            }
            if self.after.unsubscribed.contains(&bare) {
                self.revoked.insert(bare);
            }
        }
    }

    /// Returns the effects. `notifications` are those of the decision, `last` is the last item. Resources with an
    /// implicit subscription after the changes receive the notifications for subscribers, and the last item if they
    /// gain access (§12.2).
    #[must_use]
    pub fn effects(
        self,
        notifications: &[LogEntry],
        last: Option<&Item>,
        cx: &Context<'_>,
    ) -> Effects {
        let Self { changes, after, implicit, entering, readmitted, revoked } = self;
        let mut entries = copies(notifications, &implicit.lists());
        let last = last.filter(|_| !changes.drop_all_items());
        entries.extend(last_items(after.node, after.config, &entering, last, cx));
        Effects { notifications: entries, readmitted, revoked }
    }
}

/// Returns `true` if changes may give or revoke access of any interested resource.
#[must_use]
pub fn change_access(changes: &Changes) -> bool {
    changes.created().is_some() || is_deleted(changes) || may_revoke(changes)
}

/// Returns `true` if changes may give or revoke access to an existing node. Returns `false` for changes that create or
/// delete the node.
#[must_use]
pub fn may_revoke(changes: &Changes) -> bool {
    let is_moved =
        |change: &Change| matches!(change, Change::AffiliationSet(..) | Change::Configured(_));
    changes.created().is_none() && !is_deleted(changes) && changes.iter().any(is_moved)
}

fn is_deleted(changes: &Changes) -> bool {
    changes.iter().any(|change| matches!(change, Change::Deleted(_)))
}

/// Returns the JIDs whose explicit subscriptions change. Their resources may gain or lose an implicit subscription,
/// because a resource with an explicit subscription has no implicit one.
pub fn resubscribed(changes: &Changes) -> impl Iterator<Item = &Jid> {
    changes.iter().filter_map(|change| match change {
        Change::Subscribed(jid)
        | Change::SubscribedByOwner(jid)
        | Change::SubscriptionOptionsSet(jid, _)
        | Change::Unsubscribed(jid) => Some(jid),
        _ => None,
    })
}

/// Returns `true` if one of the notifications is for the subscribers of the node, explicit or implicit.
#[must_use]
pub fn concern_subscribers(notifications: &[LogEntry]) -> bool {
    notifications.iter().any(|entry| entry.audience == Audience::Subscribers)
}

/// Returns `true` if a resource that is interested in a node has an implicit subscription.
#[must_use]
pub fn is_implicit(node: &Node, resource: &InterestedResource, cx: &Context<'_>) -> bool {
    After::unchanged(node).is_implicit(resource, cx)
}

/// Returns copies of the notifications with the audience [`Audience::Subscribers`]: one copy for each of these lists of
/// resources.
#[must_use]
pub fn copies(notifications: &[LogEntry], lists: &[Recipients]) -> Vec<LogEntry> {
    let for_list = |list: &Recipients| {
        let audience = Audience::Interested(list.clone());
        let of_all = notifications.iter().filter(|entry| entry.audience == Audience::Subscribers);
        of_all.map(move |entry| LogEntry { audience: audience.clone(), ..entry.clone() })
    };
    lists.iter().flat_map(for_list).collect()
}

/// Returns the resources that gained or lost access by the roster of the node's owner since the last check. Each has
/// the new value of `is_admitted`.
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

/// Returns `true` if a roster gives a resource access. While the roster is unknown, this is the result of the last
/// check.
#[must_use]
pub fn is_admitted(node: &Node, resource: &InterestedResource, cx: &Context<'_>) -> bool {
    let after = After::unchanged(node);
    after.needs_roster(&resource.jid, cx) && after.has_access(resource, cx)
}

/// Returns the log entries that send the last item to these resources, because their interest in a node begins now.
/// Resources without an implicit subscription are left out.
#[must_use]
pub fn last_item_for(
    node: &Node,
    resources: &[InterestedResource],
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Vec<LogEntry> {
    let after = After::unchanged(node);
    last_items(node, &node.config, &after.implicit(resources, cx), last, cx)
}

/// Returns `true` if a resource has neither an implicit nor an explicit subscription. While rosters are unknown,
/// entities that only a roster can admit keep their implicit subscriptions.
#[must_use]
pub fn is_revoked(node: &Node, jid: &Jid, cx: &Context<'_>) -> bool {
    After::unchanged(node).is_revoked(jid, cx)
}

fn last_items(
    node: &Node,
    config: &NodeConfig,
    resources: &ImplicitSubscribers,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Vec<LogEntry> {
    let details =
        SubscriptionDetails::new(None, SubscriptionOptions::default(), node.sequence, Timestamp(0));
    let of_list = |list: Recipients| {
        let at = (node.version + 1, cx.ids.next_u64());
        let entry = subscribe::last_item(node, config, last, (list.iter().next()?, &details), at)?;
        Some(LogEntry { audience: Audience::Interested(list), ..entry })
    };
    resources.lists().into_iter().filter_map(of_list).collect()
}

/// Returns `true` if, before the change that is being decided, a resource could subscribe without approval. If only a
/// roster can give access, the result is that of the last check of the resource against the roster.
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

/// Node after changes, as far as implicit subscriptions depend on it.
struct After<'a> {
    node: &'a Node,
    config: &'a NodeConfig,
    affiliations: Cow<'a, Affiliations>,
    subscribed: HashSet<&'a Jid>,
    /// Spellings of the bare JIDs of new subscriptions.
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
                Change::Subscribed(jid) | Change::SubscribedByOwner(jid) => {
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

    /// Returns `true` if a resource may subscribe without approval. If its access needs a roster that is unknown, it
    /// keeps the access that it had, unless the affiliation of the entity changes.
    fn has_access(&self, resource: &InterestedResource, cx: &Context<'_>) -> bool {
        let bare = resource.jid.to_bare();
        let affiliation = self.affiliations.of(&bare);
        match self.is_unknown(&bare, affiliation, cx) {
            true => had_access(self.node, resource, cx),
            false => access::is_eligible(self.config, &bare, affiliation, cx),
        }
    }

    /// Returns `true` if the changes keep the `affiliation` of an entity, and access of the entity needs a roster that
    /// is unknown.
    fn is_unknown(&self, entity: &BareJid, affiliation: Affiliation, cx: &Context<'_>) -> bool {
        cx.owner_roster.is_none()
            && self.node.affiliation_of(entity) == affiliation
            && access::needs_roster(self.config, entity, affiliation, cx)
    }

    /// Returns the resources that have an implicit subscription.
    fn implicit(&self, resources: &[InterestedResource], cx: &Context<'_>) -> ImplicitSubscribers {
        let mut implicit = ImplicitSubscribers::default();
        for resource in resources.iter().filter(|resource| self.is_implicit(resource, cx)) {
            implicit.set(&resource.jid, true);
        }
        implicit
    }

    /// Returns `true` if a resource has an implicit subscription: it may subscribe, and has no explicit subscription.
    fn is_implicit(&self, resource: &InterestedResource, cx: &Context<'_>) -> bool {
        self.has_access(resource, cx) && !self.is_subscribed(&resource.jid)
    }

    /// Returns `true` if a resource has neither an implicit nor an explicit subscription after the changes; see the
    /// function [`is_revoked`].
    fn is_revoked(&self, jid: &Jid, cx: &Context<'_>) -> bool {
        let bare = jid.to_bare();
        let affiliation = self.affiliations.of(&bare);
        !self.is_unknown(&bare, affiliation, cx)
            && !access::is_eligible(self.config, &bare, affiliation, cx)
            && !self.is_subscribed(jid)
    }

    /// Returns `true` if a resource has an explicit subscription, of its own or of its bare JID.
    fn is_subscribed(&self, resource: &Jid) -> bool {
        let stays = |jid: &Jid| self.node.is_subscribed(jid) && !self.unsubscribed.contains(jid);
        self.node.own_jids(resource).any(|jid| stays(&jid))
            || self.spelled.own_jids(resource).any(|jid| self.subscribed.contains(&jid))
    }
}
