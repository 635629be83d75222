//! The form `pubsub#meta-data` (§5.4, §16.4.3): what a node is about.

use jid::{BareJid, Jid};

use crate::{
    pubsub::{MaxItems, op::discover::MetaData},
    wire::{
        form::{self, choice},
        notification::date_time,
        ns,
        xml::Tag,
    },
};

const JIDS: &str = "jid-multi";

/// The form for a node. It is written as it comes, for this is asked often.
#[must_use]
pub fn form(data: &MetaData) -> Tag {
    let config = &data.config;
    let max_items = match config.max_items {
        MaxItems::Max => "max".to_owned(),
        MaxItems::Number(number) => number.to_string(),
    };
    let access = choice::access_model(config.access_model);
    let publish = choice::publish_model(config.publish_model);
    let subscribers = data.subscribers.to_string();
    let mut form = form::result(ns::META_DATA);
    for (var, kind, label, value) in [
        ("pubsub#title", "text-single", "A name for people", config.title.as_str()),
        ("pubsub#description", "text-single", "What the node is about", &config.description),
        ("pubsub#type", "text-single", "The namespace of the payloads", &config.r#type),
        ("pubsub#language", "text-single", "The language of what is published", &config.language),
        ("pubsub#access_model", "text-single", "Who may subscribe and retrieve items", access),
        ("pubsub#publish_model", "text-single", "Who may publish", publish),
        ("pubsub#max_items", "text-single", "How many items are kept", &max_items),
        ("pubsub#creation_date", "text-single", "When it was created", &date_time(data.created)),
        ("pubsub#creator", "jid-single", "Its creator", data.creator.as_str()),
        ("pubsub#num_subscribers", "text-single", "How many subscriptions it has", &subscribers),
    ] {
        form = form::shown(form, var, kind, label, [value]);
    }
    let contact = config.contact.iter().map(Jid::as_str);
    form = form::shown(form, "pubsub#contact", JIDS, "Whom to contact with questions", contact);
    form = form::shown(form, "pubsub#owner", JIDS, "Its owners", all(&data.owners));
    form::shown(form, "pubsub#publisher", JIDS, "Its publishers", all(&data.publishers))
}

fn all(jids: &[BareJid]) -> impl Iterator<Item = &str> {
    jids.iter().map(|jid| jid.as_str())
}
