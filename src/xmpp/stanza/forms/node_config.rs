//! Form `pubsub#node_config`: parsing and rendering of node configurations. The labels are those of the registry
//! (§16.4.4), where some labels end with a full stop, which is left out.

use jid::Jid;
use minidom::Element;
use xmpp_parsers::data_forms::{DataForm, DataFormType, Field, FieldType};

use crate::xmpp::{
    stanza::{
        forms::{
            self,
            enum_fields::{
                ACCESS_MODELS, ITEM_REPLIES, NODE_FULL, NOTIFICATION_TYPES, PUBLISH_MODELS,
                SEND_LAST, access_model, item_expire, item_reply, node_full, notification_type,
                publish_model, send_last,
            },
        },
        ns,
    },
    xml::writer::ElementWriter,
};
use gjallar_pubsub::{
    AccessModel, ConfigField, Configuration, Epoch, Feature, ItemExpire, ItemReply, MaxItems,
    NodeConfig, NotificationType, PublishModel, PublishNodeFull, SeenConfig, SendLastPublishedItem,
};

/// Returns the configuration as a form to fill in (§8.2.2). `offered_groups` are the roster groups to offer; `None` if
/// rosters cannot be read. In this case the access models that need rosters are left out, unless the configuration has
/// one of them.
#[must_use]
pub fn form(config: &NodeConfig, offered_groups: Option<&[String]>) -> ElementWriter {
    forms::render(&data_form(DataFormType::Form, config, offered_groups))
}

/// Returns the configuration as a form of type `result`, which is the content of events (§8.2.5.3).
#[must_use]
pub fn result(config: &NodeConfig) -> ElementWriter {
    let mut form = data_form(DataFormType::Result_, config, None);
    form.fields.retain(is_public);
    forms::render(&form)
}

/// Returns the configuration fields of a node's meta-data (§5.4).
pub(super) fn public_fields(config: &NodeConfig) -> Vec<Field> {
    let mut fields = show(config, &[]);
    fields.retain(is_public);
    fields.iter_mut().for_each(|field| field.options.clear());
    fields
}

/// Returns `true` unless the field has roster groups. The names of roster groups are private to the owner.
fn is_public(field: &Field) -> bool {
    field.var.as_deref() != Some(GROUPS)
}

/// Returns the configuration as a data form of any type, with `offered_groups` as in [`form`].
#[must_use]
pub fn data_form(
    kind: DataFormType,
    config: &NodeConfig,
    offered_groups: Option<&[String]>,
) -> DataForm {
    let mut fields = show(config, offered_groups.unwrap_or_default());
    if offered_groups.is_none() && !config.access_model.reads_rosters() {
        fields.retain(|field| field.var.as_deref() != Some(GROUPS));
        for field in &mut fields {
            field.options.retain(|option| !matches!(option.value.as_str(), "presence" | "roster"));
        }
    }
    forms::form_of_type(kind, ns::NODE_CONFIG, fields)
}

/// Returns the configuration of a node as a form to fill in, with the revision of the configuration.
#[must_use]
pub fn form_of(shown: &Configuration, offered_groups: Option<&[String]>) -> DataForm {
    let mut form = data_form(DataFormType::Form, &shown.config, offered_groups);
    let SeenConfig { epoch, number } = shown.seen;
    let revision = format!("{:016x}-{number}", epoch.0);
    form.fields.push(Field::new(REVISION, FieldType::Hidden).with_value(&revision));
    form
}

/// Hidden field with the revision of the configuration that a form shows: epoch of the node, and number of the
/// revision. The field prevents owners from unknowingly overwriting each other's changes. Clients send the field back
/// (XEP-0004 §3.3, `hidden`).
const REVISION: &str = "x-gjallar#revision";

fn seen(value: &str) -> Option<SeenConfig> {
    let (epoch, number) = value.split_once('-')?;
    let epoch = Epoch(u64::from_str_radix(epoch, 16).ok()?);
    Some(SeenConfig { epoch, number: number.parse().ok()? })
}

/// Field of publish-options with the expected content version of the newest item (XEP-0395 §3.2).
const COMPARED: &str = "pubsub#prev_item_cap_value";

/// Content of a submitted form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConfigForm {
    /// Fields to change.
    pub settings: Vec<ConfigField>,
    /// Configuration that the form showed, if the form states it.
    pub seen: Option<SeenConfig>,
    /// Expected content version of the newest item (XEP-0395 §3.2).
    pub compared: Option<String>,
}

fn show(config: &NodeConfig, offered_groups: &[String]) -> Vec<Field> {
    let text = |var, label, value: &str| forms::field(var, FieldType::TextSingle, label, value);
    let flag = |var, label, value| {
        forms::field(var, FieldType::Boolean, label, if value { "true" } else { "false" })
    };
    let max_items = match config.max_items {
        MaxItems::Max => "max".to_owned(),
        MaxItems::Number(number) => number.to_string(),
    };
    let item_expire = item_expire(config.item_expire);
    vec![
        text("pubsub#title", "A friendly name for the node", &config.title),
        text("pubsub#description", "A description of the node", &config.description),
        text(
            "pubsub#type",
            "The semantic type information of data in the node, usually specified by the \
             namespace of the payload (if any)",
            &config.r#type,
        ),
        forms::choice("pubsub#language", "The default language of the node", &[], &config.language),
        forms::jids(CONTACT, "The JIDs of those to contact with questions", &config.contact),
        forms::choice(
            "pubsub#access_model",
            "Who may subscribe and retrieve items",
            ACCESS_MODELS,
            access_model(config.access_model),
        ),
        forms::open_choices(
            GROUPS,
            "The roster group(s) allowed to subscribe and retrieve items",
            offered_groups,
            &config.roster_groups_allowed,
        ),
        forms::choice(
            "pubsub#publish_model",
            "The publisher model",
            PUBLISH_MODELS,
            publish_model(config.publish_model),
        ),
        flag("pubsub#subscribe", "Whether to allow subscriptions", config.subscribe),
        flag("pubsub#persist_items", "Whether to persist items to storage", config.persist_items),
        text(
            "pubsub#item_expire",
            "Number of seconds after which to automatically purge items. `max` for no specific \
             limit other than a server imposed maximum",
            &item_expire,
        ),
        text(
            "pubsub#max_items",
            "The maximum number of items to persist. `max` for no specific limit other than a \
             server imposed maximum",
            &max_items,
        ),
        forms::choice(
            "pubsub#publish_node_full",
            "Action to be performed by the service when publishing on a full node",
            NODE_FULL,
            node_full(config.publish_node_full),
        ),
        text(
            "pubsub#max_payload_size",
            "The maximum payload size in bytes",
            &config.max_payload_size.to_string(),
        ),
        flag(
            "pubsub#deliver_notifications",
            "Whether to deliver event notifications",
            config.deliver_notifications,
        ),
        flag(
            "pubsub#deliver_payloads",
            "Whether to deliver payloads with event notifications; applies only to leaf nodes",
            config.deliver_payloads,
        ),
        flag(
            "pubsub#notify_config",
            "Whether to notify subscribers when the node configuration changes",
            config.notify_config,
        ),
        flag(
            "pubsub#notify_delete",
            "Whether to notify subscribers when the node is deleted",
            config.notify_delete,
        ),
        flag(
            "pubsub#notify_retract",
            "Whether to notify subscribers when items are removed from the node",
            config.notify_retract,
        ),
        flag(
            "pubsub#notify_sub",
            "Whether to notify owners about new subscribers and unsubscribes",
            config.notify_sub,
        ),
        flag(
            "pubsub#presence_based_delivery",
            "Whether to deliver notifications to available users only",
            config.presence_based_delivery,
        ),
        flag(
            "pubsub#tempsub",
            "Whether to make all subscriptions temporary, based on subscriber presence",
            config.tempsub,
        ),
        flag(
            "pubsub#purge_offline",
            "Whether to purge all items when the relevant publisher goes offline",
            config.purge_offline,
        ),
        forms::choice(
            "pubsub#notification_type",
            "Specify the delivery style for notifications",
            NOTIFICATION_TYPES,
            notification_type(config.notification_type),
        ),
        forms::choice(
            "pubsub#send_last_published_item",
            "When to send the last published item",
            SEND_LAST,
            send_last(config.send_last_published_item),
        ),
        forms::choice(
            "pubsub#itemreply",
            "Whether owners or publisher should receive replies to items",
            ITEM_REPLIES,
            item_reply(config.itemreply),
        ),
        text(
            "pubsub#body_xslt",
            "The URL of an XSL transformation which can be applied to payloads in order to \
             generate an appropriate message body element",
            &config.body_xslt,
        ),
        text(
            "pubsub#dataform_xslt",
            "The URL of an XSL transformation which can be applied to the payload format in \
             order to generate a valid Data Forms result that the client could display using a \
             generic Data Forms rendering engine",
            &config.dataform_xslt,
        ),
    ]
}

/// Returns every field with its value as text; a field with several values has one per line.
#[must_use]
pub fn values(config: &NodeConfig) -> Vec<(String, String)> {
    let fields = show(config, &[]).into_iter();
    let value = |field: Field| Some((field.var?, field.values.join("\n")));
    fields.filter_map(value).collect()
}

/// Parses a submitted form; returns no field if the form was cancelled (§8.2.4).
///
/// # Errors
/// [`NotAcceptable`](gjallar_pubsub::Error::NotAcceptable) for an invalid value of a field;
/// [`BadRequest`](gjallar_pubsub::Error::BadRequest) if the type of the form is neither `submit` nor `cancel`;
/// [`FormTooLarge`](gjallar_pubsub::Error::FormTooLarge).
pub fn submitted(form: &Element) -> Result<NodeConfigForm, gjallar_pubsub::Error> {
    if form.attr("type") == Some("cancel") {
        return Ok(NodeConfigForm::default());
    }
    settings(form, ns::NODE_CONFIG)
}

/// Parses publish-options (§7.1.5), a form with the fields of a node configuration but with its own form type.
///
/// # Errors
/// Those of [`submitted`]; also [`NotAcceptable`](gjallar_pubsub::Error::NotAcceptable) for a field without a value,
/// [`UnknownField`](gjallar_pubsub::Error::UnknownField), and [`BadRequest`](gjallar_pubsub::Error::BadRequest) for a
/// cancelled form.
pub fn preconditions(form: &Element) -> Result<NodeConfigForm, gjallar_pubsub::Error> {
    settings(form, ns::PUBLISH_OPTIONS)
}

fn settings(form: &Element, type_of_form: &str) -> Result<NodeConfigForm, gjallar_pubsub::Error> {
    if form.attr("type") != Some("submit") {
        return Err(gjallar_pubsub::Error::BadRequest("the form must have the type submit"));
    }
    settings_of(forms::fields(form)?, type_of_form)
}

/// Parses the fields of a submitted form.
///
/// # Errors
/// Same as [`submitted`].
pub fn answered<'a>(
    fields: impl Iterator<Item = (&'a str, Vec<String>)>,
) -> Result<NodeConfigForm, gjallar_pubsub::Error> {
    settings_of(fields, ns::NODE_CONFIG)
}

fn settings_of<'a>(
    fields: impl Iterator<Item = (&'a str, Vec<String>)>,
    type_of_form: &str,
) -> Result<NodeConfigForm, gjallar_pubsub::Error> {
    let is_config = type_of_form == ns::NODE_CONFIG;
    let mut submitted = NodeConfigForm::default();
    for (var, values) in fields {
        match (var, values.as_slice()) {
            // COMPAT: slixmpp submits the form without its type.
            ("FORM_TYPE", values) => {
                forms::check_type(values, type_of_form)
                    .map_err(gjallar_pubsub::Error::NotAcceptable)?;
            }
            // A field without a value unsets a text or a list (XEP-0004 §3.6). A boolean, a number or a choice keeps
            // its value.
            (_, []) if is_config => {
                submitted.settings.extend(setting(var, "").ok().flatten());
            }
            // No configuration can meet a precondition without a value.
            (_, []) if !is_list(var) => {
                let text = format!("{}: a value is required", forms::shortened(var));
                return Err(gjallar_pubsub::Error::NotAcceptable(text));
            }
            // COMPAT: clients send back hidden fields without their value.
            (REVISION, [value]) if is_config && value.is_empty() => {}
            (REVISION, [value]) if is_config => {
                submitted.seen = Some(seen(value).ok_or_else(|| invalid(var, value))?);
            }
            (REVISION, _) if is_config => {
                let text = format!("{REVISION}: only one value is accepted");
                return Err(gjallar_pubsub::Error::NotAcceptable(text));
            }
            (COMPARED, [value]) if !is_config => submitted.compared = Some(value.clone()),
            (_, values) => match setting(var, &values.join("\n")) {
                // Clients may submit unknown fields of a form (XEP-0004 §3.1); a precondition must be understood
                // (§7.1.5).
                Err(gjallar_pubsub::Error::UnknownField(_)) if is_config => {}
                Ok(_) if values.len() > 1 && !is_list(var) => {
                    let text = format!("{}: only one value is accepted", forms::shortened(var));
                    return Err(gjallar_pubsub::Error::NotAcceptable(text));
                }
                set => submitted.settings.extend(set?),
            },
        }
    }
    Ok(submitted)
}

const CONTACT: &str = "pubsub#contact";
const GROUPS: &str = "pubsub#roster_groups_allowed";

/// Returns `true` if a field can have several values.
#[must_use]
pub fn is_list(var: &str) -> bool {
    [CONTACT, GROUPS].contains(&var)
}

fn invalid(var: &str, value: &str) -> gjallar_pubsub::Error {
    gjallar_pubsub::Error::NotAcceptable(forms::invalid(var, value))
}

/// Parses one field; a field with several values has one per line. Returns `None` for `pubsub#node_type`, whose only
/// value is `leaf`.
///
/// # Errors
/// [`UnknownField`](gjallar_pubsub::Error::UnknownField); [`NotAcceptable`](gjallar_pubsub::Error::NotAcceptable) for
/// an invalid value of the field.
pub fn setting(var: &str, value: &str) -> Result<Option<ConfigField>, gjallar_pubsub::Error> {
    let bad = || invalid(var, value);
    let flag = || forms::flag(value).ok_or_else(bad);
    let number = || forms::number(value).ok_or_else(bad);
    let jids = || value.lines().map(Jid::prepare).collect::<Result<Vec<_>, _>>().map_err(|_| bad());
    Ok(Some(match var {
        "pubsub#title" => ConfigField::Title(value.to_owned()),
        "pubsub#description" => ConfigField::Description(value.to_owned()),
        "pubsub#type" => ConfigField::Type(value.to_owned()),
        "pubsub#language" => ConfigField::Language(value.to_owned()),
        CONTACT => ConfigField::Contact(forms::distinct(jids()?.into_iter())),
        GROUPS => {
            let groups = value.lines().filter(|group| !group.is_empty()).map(str::to_owned);
            ConfigField::RosterGroupsAllowed(forms::distinct(groups))
        }
        "pubsub#body_xslt" => ConfigField::BodyXslt(value.to_owned()),
        "pubsub#dataform_xslt" => ConfigField::DataformXslt(value.to_owned()),
        "pubsub#subscribe" => ConfigField::Subscribe(flag()?),
        "pubsub#access_model" => ConfigField::AccessModel(match value {
            "authorize" => AccessModel::Authorize,
            "open" => AccessModel::Open,
            "presence" => AccessModel::Presence,
            "roster" => AccessModel::Roster,
            "whitelist" => AccessModel::Whitelist,
            _ => return Err(gjallar_pubsub::Error::UnsupportedAccessModel),
        }),
        "pubsub#publish_model" => ConfigField::PublishModel(match value {
            "open" => PublishModel::Open,
            "publishers" => PublishModel::Publishers,
            "subscribers" => PublishModel::Subscribers,
            _ => return Err(bad()),
        }),
        "pubsub#persist_items" => ConfigField::PersistItems(flag()?),
        "pubsub#max_items" => ConfigField::MaxItems(match value {
            "max" => MaxItems::Max,
            _ => MaxItems::Number(number()?),
        }),
        "pubsub#publish_node_full" => ConfigField::PublishNodeFull(match value {
            "discard-oldest" => PublishNodeFull::DiscardOldest,
            "reject" => PublishNodeFull::Reject,
            "retract-oldest" => PublishNodeFull::RetractOldest,
            _ => return Err(bad()),
        }),
        "pubsub#item_expire" => ConfigField::ItemExpire(match value {
            "max" => ItemExpire::Max,
            _ => match number()? {
                0 => return Err(bad()),
                seconds => ItemExpire::Seconds(seconds),
            },
        }),
        "pubsub#max_payload_size" => ConfigField::MaxPayloadSize(number()?),
        "pubsub#deliver_notifications" => ConfigField::DeliverNotifications(flag()?),
        "pubsub#deliver_payloads" => ConfigField::DeliverPayloads(flag()?),
        "pubsub#notify_config" => ConfigField::NotifyConfig(flag()?),
        "pubsub#notify_delete" => ConfigField::NotifyDelete(flag()?),
        "pubsub#notify_retract" => ConfigField::NotifyRetract(flag()?),
        "pubsub#notify_sub" => ConfigField::NotifySub(flag()?),
        "pubsub#presence_based_delivery" => ConfigField::PresenceBasedDelivery(flag()?),
        "pubsub#purge_offline" => ConfigField::PurgeOffline(flag()?),
        "pubsub#tempsub" => ConfigField::Tempsub(flag()?),
        "pubsub#notification_type" => ConfigField::NotificationType(match value {
            "headline" => NotificationType::Headline,
            "normal" => NotificationType::Normal,
            _ => return Err(bad()),
        }),
        "pubsub#send_last_published_item" => ConfigField::SendLastPublishedItem(match value {
            "never" => SendLastPublishedItem::Never,
            "on_sub" => SendLastPublishedItem::OnSub,
            "on_sub_and_presence" => SendLastPublishedItem::OnSubAndPresence,
            _ => return Err(bad()),
        }),
        "pubsub#itemreply" => ConfigField::ItemReply(match value {
            "none" => ItemReply::None,
            "owner" => ItemReply::Owner,
            "publisher" => ItemReply::Publisher,
            _ => return Err(bad()),
        }),
        _ => return holds_anyway(var, value).map(|()| None),
    }))
}

/// Accepts the fields that are not stored because they have only one possible value: `pubsub#node_type` with the value
/// `leaf`.
///
/// COMPAT: clients that build the form themselves also send such fields, with the usual value.
fn holds_anyway(var: &str, value: &str) -> Result<(), gjallar_pubsub::Error> {
    match (var, value) {
        ("pubsub#node_type", "leaf") => Ok(()),
        ("pubsub#node_type", "collection") => {
            Err(gjallar_pubsub::Error::Unsupported(Feature::Collections))
        }
        ("pubsub#node_type", _) => Err(invalid(var, value)),
        _ => Err(gjallar_pubsub::Error::UnknownField(forms::shortened(var))),
    }
}
