//! Those who hear of nodes without having subscribed: resources that send the service their presence, and whose
//! capabilities name the nodes (§9.1.3, §9.2).
//!
//! SPEC: §9 speaks of accounts. Here presence goes to the service; it counts for the nodes that the capabilities name
//! with `+notify`, for without names it would be for all nodes there are. Who has subscribed is told as a subscriber.

use std::collections::{HashMap, HashSet};

use jid::{BareJid, Jid};

use crate::pubsub::{
    Affiliation, Audience, Change, Changes, Context, Item, Node, NodeConfig, Notification, Options,
    Recipients, Terms, Timestamp, access, event::MAX_LISTED,
};

use super::subscribe;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["auto-subscribe", "filtered-notifications"];

/// Sends those who are interested in a node what its subscribers are sent of these changes, and the last item to those
/// whom the changes let in (§12.2).
#[must_use]
pub fn told(
    node: Option<&Node>,
    changes: &Changes,
    interested: &[Jid],
    notifications: &[Notification],
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Vec<Notification> {
    let Some(node) = node.or_else(|| changes.created()) else { return Vec::new() };
    // Who has no access after them is not sent anything of them.
    let after = After::of(node, changes);
    let (mut hears, mut enters) = (Vec::new(), Vec::new());
    for jid in interested.iter().filter(|jid| after.is_implicit(jid, cx)) {
        let is_new = changes.created().is_none() && !is_eligible(node, jid, cx);
        if is_new { &mut enters } else { &mut hears }.push(jid.clone());
    }
    let mut sent = Vec::new();
    hears.extend(enters.iter().cloned());
    for part in hears.chunks(MAX_LISTED) {
        let audience = Audience::Interested(Recipients::sorted(part.to_vec()));
        let of_all = notifications.iter().filter(|told| told.audience == Audience::Subscribers);
        sent.extend(of_all.map(|told| Notification { audience: audience.clone(), ..told.clone() }));
    }
    let last = last.filter(|_| !changes.drop_all_items());
    sent.extend(enters.iter().filter_map(|jid| last_item(node, after.config, jid, last, cx)));
    sent
}

/// The last item for a resource that is interested in a node from now on.
#[must_use]
pub fn last(node: &Node, jid: &Jid, last: Option<&Item>, cx: &Context<'_>) -> Option<Notification> {
    let is_implicit = is_eligible(node, jid, cx) && !is_subscribed(node, jid);
    last_item(node, &node.config, jid, last.filter(|_| is_implicit), cx)
}

fn last_item(
    node: &Node,
    config: &NodeConfig,
    jid: &Jid,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Option<Notification> {
    let terms = Terms::new(None, Options::default(), node.seq, Timestamp(0));
    let at = (node.version + 1, cx.fresh.number());
    let told = subscribe::last_item(node, config, last, (jid, &terms), at)?;
    Some(Notification { audience: Audience::Interested(Recipients::one(jid.clone())), ..told })
}

/// Whether a resource may subscribe to a node at once.
fn is_eligible(node: &Node, jid: &Jid, cx: &Context<'_>) -> bool {
    let bare = jid.to_bare();
    access::is_eligible(&node.config, &bare, node.affiliation_of(&bare), cx)
}

/// Whether a resource has a subscription, of its own or of its bare JID.
fn is_subscribed(node: &Node, jid: &Jid) -> bool {
    node.subscriptions_of(&jid.to_bare()).any(|other| other.is_bare() || other == jid)
}

/// A node as it is after changes, as far as implicit subscriptions depend on them.
struct After<'a> {
    node: &'a Node,
    config: &'a NodeConfig,
    affiliations: HashMap<&'a BareJid, Affiliation>,
    subscribed: HashSet<&'a Jid>,
    unsubscribed: HashSet<&'a Jid>,
}

impl<'a> After<'a> {
    fn of(node: &'a Node, changes: &'a Changes) -> Self {
        let mut after = Self {
            node,
            config: &node.config,
            affiliations: HashMap::new(),
            subscribed: HashSet::new(),
            unsubscribed: HashSet::new(),
        };
        for change in changes.iter() {
            match change {
                Change::Configured { config, .. } => after.config = config,
                Change::Affiliated(entity, affiliation) => {
                    after.affiliations.insert(entity, *affiliation);
                }
                Change::Subscribed(jid) | Change::Enrolled(jid) => {
                    after.subscribed.insert(jid);
                }
                Change::Unsubscribed(jid) => {
                    after.unsubscribed.insert(jid);
                }
                _ => {}
            }
        }
        after
    }

    /// Whether a resource is sent events because of its presence: it may subscribe, and has not.
    fn is_implicit(&self, jid: &Jid, cx: &Context<'_>) -> bool {
        let bare = jid.to_bare();
        let affiliation = self.affiliations.get(&bare).copied();
        let affiliation = affiliation.unwrap_or_else(|| self.node.affiliation_of(&bare));
        let mut own = self.node.subscriptions_of(&bare);
        access::is_eligible(self.config, &bare, affiliation, cx)
            && !self.subscribed.contains(&Jid::from(bare.clone()))
            && !self.subscribed.contains(jid)
            && !own.any(|other| {
                (other.is_bare() || other == jid) && !self.unsubscribed.contains(other)
            })
    }
}
