//! Those who hear of nodes without having subscribed: resources that send the service their presence, and whose
//! capabilities name the nodes (§9.1.3, §9.2).
//!
//! SPEC: §9 speaks of accounts. Here presence goes to the service; it counts for the nodes that the capabilities name
//! with `+notify`, for without names it would be for all nodes there are. Who has subscribed is told as a subscriber.

use jid::Jid;

use crate::pubsub::{
    AccessModel, Admission, Audience, Change, Changes, Fresh, Item, Node, NodeConfig, Notification,
    Options, Recipients, Terms, Timestamp, access,
};

use super::subscribe;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["auto-subscribe", "filtered-notifications"];

/// Tells those who are interested in a node what its subscribers are told of these changes.
#[must_use]
pub fn told(
    node: Option<&Node>,
    changes: &Changes,
    interested: &[Jid],
    notifications: &[Notification],
) -> Vec<Notification> {
    let Some(node) = node.or_else(|| changes.created()) else { return Vec::new() };
    // Who has no access after them is not told of them.
    let config = changes.iter().find_map(|change| match change {
        Change::Configured(config) => Some(&**config),
        _ => None,
    });
    let config = config.unwrap_or(&node.config);
    let hears = interested.iter().filter(|jid| is_implicit(node, config, jid)).cloned();
    let recipients = Recipients::sorted(hears.collect());
    if recipients.is_empty() {
        return Vec::new();
    }
    let of_all = notifications.iter().filter(|told| told.audience == Audience::Subscribers);
    let audience = Audience::Entities(recipients);
    of_all.map(|told| Notification { audience: audience.clone(), ..told.clone() }).collect()
}

/// The last item for a resource that is interested in a node from now on.
#[must_use]
pub fn last(
    node: &Node,
    jid: &Jid,
    last: Option<&Item>,
    fresh: &dyn Fresh,
) -> Option<Notification> {
    let terms = Terms::new(None, Options::default(), node.seq, Timestamp(0));
    let at = (node.version + 1, fresh.number());
    let told = subscribe::last_item(node, &node.config, last, (jid, &terms), at)?;
    is_implicit(node, &node.config, jid).then(|| Notification {
        audience: Audience::Entities(Recipients::one(jid.clone())),
        ..told
    })
}

/// Whether a resource hears of a node because of its presence: at an open one, unless it hears of it anyway.
fn is_implicit(node: &Node, config: &NodeConfig, jid: &Jid) -> bool {
    let bare = jid.to_bare();
    let admitted = access::admits(config, node.affiliation_of(&bare), None);
    let mut own = node.subscriptions_of(&bare);
    config.access_model == AccessModel::Open
        && admitted == Ok(Admission::Granted)
        && !own.any(|other| other.is_bare() || *other == *jid)
}
