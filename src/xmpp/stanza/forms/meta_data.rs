//! Form `pubsub#meta-data` (§5.4): description of a node. The labels are those of the registry (§16.4.3) and of
//! XEP-0460.

use xmpp_parsers::data_forms::{DataFormType, Field, FieldType};

use crate::xmpp::{
    stanza::{
        forms::{self, node_config},
        notification::date_time,
        ns,
    },
    xml::writer::ElementWriter,
};
use gjallar_pubsub::{MaxItems, NodeConfig, op::discover::MetaData};

/// Guarantees of every node for clients that cache its items (XEP-0460). Items are the same for everyone and keep their
/// order. A purge deletes all items. Clients must not suggest nodes to other users.
const CACHING: &str = "\
    <field var='{urn:xmpp:pubsub-caching:0}consistent-items' type='boolean'><value>true</value></field>\
    <field var='{urn:xmpp:pubsub-caching:0}consistent-set' type='boolean'><value>true</value></field>\
    <field var='{urn:xmpp:pubsub-caching:0}stable-items' type='boolean'><value>true</value></field>\
    <field var='{urn:xmpp:pubsub-caching:0}purge-keep-last-item' type='boolean'><value>false</value></field>\
    <field var='{urn:xmpp:pubsub-caching:0}allowed-for-suggestions' type='boolean'><value>false</value></field>";

/// Configuration fields that have another label in the meta-data.
const LABELS: [(&str, &str); 5] = [
    ("pubsub#access_model", "Access model"),
    ("pubsub#max_items", "Max # of items to persist"),
    ("pubsub#publish_model", "Publish model"),
    ("pubsub#title", "The name of the node"),
    ("pubsub#type", "Payload semantic type information"),
];

/// Returns the form of a node: its configuration, and data derived from it. If the configured maximum number of items
/// is `max`, the form states the actual limit as a number (XEP-0460 §4.2).
#[must_use]
pub fn form(data: &MetaData) -> ElementWriter {
    let max_items = MaxItems::Number(data.max_items);
    let config = NodeConfig { max_items, ..data.config.clone() };
    let text = |var, label, value: &str| forms::field(var, FieldType::TextSingle, label, value);
    let mut fields = node_config::public_fields(&config);
    for field in &mut fields {
        let label = LABELS.iter().find(|(var, _)| field.var.as_deref() == Some(*var));
        if let Some((_, label)) = label {
            field.label = Some((*label).to_owned());
        }
    }
    fields.extend([
        text(
            "pubsub#creation_date",
            "The datetime when the node was created",
            &date_time(data.created),
        ),
        forms::field(
            "pubsub#creator",
            FieldType::JidSingle,
            "The JID of the node creator",
            data.creator.as_str(),
        ),
        text(
            "pubsub#num_subscribers",
            "The number of subscribers to the node",
            &data.subscribers.to_string(),
        ),
        forms::jids("pubsub#owner", "The JIDs of those with an affiliation of owner", &data.owners),
        forms::jids(
            "pubsub#publisher",
            "The JIDs of those with an affiliation of publisher",
            &data.publishers,
        ),
        persistence(data),
        always_notify(data),
    ]);
    forms::render(&forms::form_of_type(DataFormType::Result_, ns::META_DATA, fields)).child(CACHING)
}

fn persistence(data: &MetaData) -> Field {
    let persistence = match (data.config.persist_items, data.is_durable) {
        (true, true) => "persistent",
        (true, false) => "semi-persistent",
        (false, _) => "transient",
    };
    let var = "{urn:xmpp:pubsub-caching:0}persistence";
    forms::field(var, FieldType::ListSingle, "How items are stored", persistence)
}

/// Returns the field that states whether subscribers are notified of every change. This requires that they are notified
/// of new configurations, because a new configuration may remove items (§8.2.5.3). Items that `max_items` and
/// `item_expire` remove need no notification, because subscribers can derive these removals themselves (XEP-0460 §4.2).
fn always_notify(data: &MetaData) -> Field {
    let config = &data.config;
    let always = config.deliver_notifications && config.notify_retract && config.notify_config;
    let var = "{urn:xmpp:pubsub-caching:0}always-notify";
    let label = "Are notifications always sent";
    forms::field(var, FieldType::Boolean, label, if always { "true" } else { "false" })
}
