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

/// What holds of every node here for those who keep its items (XEP-0460): they are the same for everyone, in the order
/// in which they came, and none is left by a purge. Nobody may suggest a node to strangers.
const CACHING: &str = "\
    <field var='{urn:xmpp:pubsub-caching:0}consistent-items' type='boolean'><value>true</value></field>\
    <field var='{urn:xmpp:pubsub-caching:0}consistent-set' type='boolean'><value>true</value></field>\
    <field var='{urn:xmpp:pubsub-caching:0}stable-items' type='boolean'><value>true</value></field>\
    <field var='{urn:xmpp:pubsub-caching:0}purge-keep-last-item' type='boolean'><value>false</value></field>\
    <field var='{urn:xmpp:pubsub-caching:0}allowed-for-suggestions' type='boolean'><value>false</value></field>";

/// The form for a node. It is written as it comes, for this is asked often.
#[must_use]
pub fn form(data: &MetaData) -> Tag {
    let config = &data.config;
    let max_items = match config.max_items {
        MaxItems::Max => "max".to_owned(),
        MaxItems::Number(number) => number.to_string(),
    };
    let item_expire = choice::item_expire(config.item_expire);
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
        ("pubsub#item_expire", "text-single", "How many seconds items are kept", &item_expire),
        ("pubsub#creation_date", "text-single", "When it was created", &date_time(data.created)),
        ("pubsub#creator", "jid-single", "Its creator", data.creator.as_str()),
        ("pubsub#num_subscribers", "text-single", "How many subscriptions it has", &subscribers),
    ] {
        form = form::shown(form, var, kind, label, [value]);
    }
    let contact = config.contact.iter().map(Jid::as_str);
    form = form::shown(form, "pubsub#contact", JIDS, "Whom to contact with questions", contact);
    form = form::shown(form, "pubsub#owner", JIDS, "Its owners", all(&data.owners));
    form = form::shown(form, "pubsub#publisher", JIDS, "Its publishers", all(&data.publishers));
    let persistence = match (config.persist_items, data.is_durable) {
        (true, true) => "persistent",
        (true, false) => "semi-persistent",
        (false, _) => "transient",
    };
    let is_told = config.deliver_notifications && config.notify_retract;
    let (kept, told) =
        ("{urn:xmpp:pubsub-caching:0}persistence", "{urn:xmpp:pubsub-caching:0}always-notify");
    form = form::shown(form, kept, "list-single", "How items are kept", [persistence]);
    let is_told = if is_told { "true" } else { "false" };
    form::shown(form, told, "boolean", "Whether every change is told", [is_told]).child(CACHING)
}

fn all(jids: &[BareJid]) -> impl Iterator<Item = &str> {
    jids.iter().map(|jid| jid.as_str())
}
