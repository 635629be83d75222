//! Nodes of Prosody, independent of the storage.

use crate::migrate::{
    MigrationError, MigrationWarnings, SourceReader,
    source_node::{SourceItem, SourceNode, SourceSubscription, fields},
};
use gjallar_pubsub::Timestamp;

use super::lua::LuaValue;

/// Defaults of configuration fields that a node does not set.
const DEFAULTS: &[(&str, &str)] = &[
    ("pubsub#persist_items", "true"),
    ("pubsub#max_items", "20"),
    ("pubsub#access_model", "open"),
    ("pubsub#publish_model", "publishers"),
    ("pubsub#send_last_published_item", "never"),
    ("pubsub#notification_type", "headline"),
    ("pubsub#notify_delete", "true"),
    ("pubsub#notify_retract", "true"),
];

/// Warning if no node has items.
pub(super) const NO_ITEMS: &str = "no items: Prosody may store them elsewhere (pubsub_data)";

/// Parses a time in seconds since 1970.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
pub(super) fn seconds(text: &str) -> Option<Timestamp> {
    Some(Timestamp((text.parse::<f64>().ok()? * 1000.0) as u64))
}

/// Reads a node without its items, from its three tables.
pub(super) fn node(
    name: &str,
    config: &LuaValue,
    affiliations: &LuaValue,
    subscribers: &LuaValue,
) -> SourceNode {
    let mut found =
        SourceNode { name: name.to_owned(), config: fields(DEFAULTS), ..SourceNode::default() };
    found.config.extend(pairs(config).map(|(option, value)| (var(&option), value)));
    // A configuration that is not a table does not give the access model; an invalid value closes the node.
    found.config.extend(config.text().map(|odd| ("pubsub#access_model".to_owned(), odd)));
    found.affiliations.extend(pairs(affiliations));
    for (jid, options) in subscribers.entries() {
        let options = pairs(options).collect();
        found.subscriptions.push(SourceSubscription { jid, state: "subscribed".into(), options });
    }
    found
}

/// Iterates over the pairs of a table as text. A nested value becomes an invalid text, so that the conversion reports
/// it.
fn pairs(table: &LuaValue) -> impl Iterator<Item = (String, String)> {
    table.entries().map(|(key, value)| (key, value.text().unwrap_or_else(|| "{}".into())))
}

/// Sorts the names of nodes by the time of their oldest item, nodes without items last: Prosody does not store when a
/// node was created. Reads each node.
pub(super) async fn by_age(
    reader: &mut dyn SourceReader,
    names: Vec<String>,
) -> Result<Vec<String>, MigrationError> {
    let mut aged = Vec::with_capacity(names.len());
    for name in names {
        let node = reader.node(&name, &mut MigrationWarnings::default()).await?;
        let created = node.and_then(|node| node.created());
        aged.push((created.is_none(), created, name));
    }
    aged.sort();
    Ok(aged.into_iter().map(|(_, _, name)| name).collect())
}

/// Adds the items in Prosody's order, regardless of their times.
pub(super) fn take_items(
    found: &mut SourceNode,
    items: impl Iterator<Item = Option<SourceItem>>,
    warnings: &mut MigrationWarnings,
) {
    let mut last = Timestamp(0);
    for item in items {
        let item = item.map(|item| {
            last = last.max(item.modified);
            SourceItem { created: last, modified: last, ..item }
        });
        found.take(item, warnings);
    }
}

/// Returns the form field for an option. Some options have another name in Prosody.
fn var(option: &str) -> String {
    match option {
        "include_payload" => "pubsub#deliver_payloads".into(),
        "notify_items" => "pubsub#deliver_notifications".into(),
        "payload_type" => "pubsub#type".into(),
        option if option.starts_with("pubsub#") => option.into(),
        option => format!("pubsub#{option}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_value_that_is_no_string_does_not_become_open() {
        let last = |config: &LuaValue| {
            let found = node("n", config, &LuaValue::Nil, &LuaValue::Nil);
            let mut models = found.config.iter().filter(|(var, _)| var == "pubsub#access_model");
            models.next_back().unwrap().1.clone()
        };
        let table =
            |value| LuaValue::Table { list: vec![], named: vec![("access_model".into(), value)] };
        let nested = LuaValue::Table { list: vec![], named: vec![] };
        assert_eq!(last(&LuaValue::Nil), "open");
        assert_eq!(last(&table(LuaValue::Text("whitelist".into()))), "whitelist");
        assert_eq!(last(&table(nested)), "{}");
        assert_eq!(last(&LuaValue::Text("odd".into())), "odd");
    }
}
