//! What Prosody says of a node, wherever it keeps it.

use crate::foreign::found::{Found, FoundSubscription, fields};

use super::lua::Value;

/// What holds where a node's configuration says nothing else.
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

/// A node without its items, from the three tables that there are of it.
pub(super) fn node(name: &str, config: &Value, affiliations: &Value, subscribers: &Value) -> Found {
    let mut found = Found { name: name.to_owned(), config: fields(DEFAULTS), ..Found::default() };
    found.config.extend(pairs(config).map(|(option, value)| (var(&option), value)));
    found.affiliations.extend(pairs(affiliations));
    for (jid, options) in subscribers.entries() {
        let options = pairs(options).collect();
        found.subscriptions.push(FoundSubscription { jid, state: "subscribed".into(), options });
    }
    found
}

/// The plain values of a table, as text.
fn pairs(table: &Value) -> impl Iterator<Item = (String, String)> {
    table.entries().filter_map(|(key, value)| Some((key, value.text()?)))
}

/// The field of a form that Prosody keeps under another name.
fn var(option: &str) -> String {
    match option {
        "include_payload" => "pubsub#deliver_payloads".into(),
        "notify_items" => "pubsub#deliver_notifications".into(),
        "payload_type" => "pubsub#type".into(),
        option if option.starts_with("pubsub#") => option.into(),
        option => format!("pubsub#{option}"),
    }
}
