//! Audit log: changes by owners and administrators, as log lines with the target `gjallar::audit`.

use tracing::info;

use crate::{
    service::{AuditChange, AuditRecord},
    xmpp::stanza::forms::{node_config, subscribe_options},
};
use gjallar_pubsub::{ItemId, NodeConfig, SubscriptionDetails};

/// Logs the changes of one operation, one line each.
pub(super) fn log(AuditRecord { who, node, entries }: &AuditRecord) {
    for entry in entries {
        let (what, whom, before, after) = shown(entry);
        // Names may contain line ends, which are escaped in a text field.
        let node = node.as_str();
        info!(
            target: "gjallar::audit",
            event = "node_changed",
            %who,
            node,
            what,
            whom,
            before,
            after,
            "node changed"
        );
    }
}

/// Returns the kind of the change, the entity or the items that were changed, and the values before and after the
/// change.
fn shown(entry: &AuditChange) -> (&'static str, String, String, String) {
    let none = String::new;
    match entry {
        AuditChange::Affiliated { entity, before, after } => {
            ("affiliation", entity.to_string(), before.as_str().into(), after.as_str().into())
        }
        AuditChange::Announced => ("announced", none(), none(), none()),
        AuditChange::Configured { before, after } => {
            let (before, after) = differences(before, after);
            ("configuration", none(), before, after)
        }
        AuditChange::Created(config) => {
            ("created", none(), none(), fields(&node_config::values(config)))
        }
        AuditChange::Deleted { redirect } => {
            ("deleted", none(), none(), redirect.clone().unwrap_or_default())
        }
        AuditChange::Options { jid, before, after } => {
            ("options", jid.to_string(), details(before), details(after))
        }
        AuditChange::Published(items) => ("published", names(items), none(), none()),
        AuditChange::Purged => ("purged", none(), none(), none()),
        AuditChange::Retracted(items) => ("retracted", names(items), none(), none()),
        AuditChange::Subscribed { jid, before, after } => {
            ("subscription", jid.to_string(), before.as_str().into(), after.as_str().into())
        }
    }
}

fn names(items: &[ItemId]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Formats the options of subscriptions, with their SubIDs.
fn details(all: &[SubscriptionDetails]) -> String {
    let shown = all.iter().map(|details| {
        let subid = details.subid.as_ref().map(|subid| format!("{subid}: ")).unwrap_or_default();
        format!("{subid}{}", fields(&subscribe_options::values(&details.options)))
    });
    shown.collect::<Vec<_>>().join("; ")
}

/// Returns two texts with the configuration fields that differ: one with the values before, and one with the values
/// after the change.
fn differences(before: &NodeConfig, after: &NodeConfig) -> (String, String) {
    let (mut before, mut after) = (node_config::values(before), node_config::values(after));
    let same: Vec<_> = before.iter().filter(|field| after.contains(field)).cloned().collect();
    before.retain(|field| !same.contains(field));
    after.retain(|field| !same.contains(field));
    (fields(&before), fields(&after))
}

fn fields(fields: &[(String, String)]) -> String {
    let shown = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{}={value:?}", name.strip_prefix("pubsub#").unwrap_or(name)));
    shown.collect::<Vec<_>>().join(" ")
}
