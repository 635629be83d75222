//! The form `pubsub#meta-data` (§5.4, §16.4.3): what a node is about.

use xmpp_parsers::data_forms::{DataFormType, FieldType};

use crate::{
    pubsub::{MaxItems, op::discover::MetaData},
    wire::{form, form::node_config, notification::date_time, ns, xml::Tag},
};

/// The form for a node.
#[must_use]
pub fn form(data: &MetaData) -> Tag {
    let config = &data.config;
    let text = |var, label, value: &str| form::field(var, FieldType::TextSingle, label, value);
    let max_items = match config.max_items {
        MaxItems::Max => "max".to_owned(),
        MaxItems::Number(number) => number.to_string(),
    };
    let subscribers = data.subscribers.to_string();
    let (access, publish) = (
        node_config::access_model(config.access_model),
        node_config::publish_model(config.publish_model),
    );
    let fields = vec![
        text("pubsub#title", "A name for people", &config.title),
        text("pubsub#description", "What the node is about", &config.description),
        text("pubsub#type", "The namespace of the payloads", &config.r#type),
        text("pubsub#language", "The language of what is published", &config.language),
        form::jids("pubsub#contact", "Whom to contact with questions", &config.contact),
        text("pubsub#access_model", "Who may subscribe and retrieve items", access),
        text("pubsub#publish_model", "Who may publish", publish),
        text("pubsub#max_items", "How many items are kept", &max_items),
        text("pubsub#creation_date", "When it was created", &date_time(data.created)),
        form::field("pubsub#creator", FieldType::JidSingle, "Its creator", data.creator.as_str()),
        form::jids("pubsub#owner", "Its owners", &data.owners),
        form::jids("pubsub#publisher", "Its publishers", &data.publishers),
        text("pubsub#num_subscribers", "How many subscriptions it has", &subscribers),
    ];
    form::render(&form::form_of_type(DataFormType::Result_, ns::META_DATA, fields))
}
