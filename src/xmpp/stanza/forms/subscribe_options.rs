//! Form `pubsub#subscribe_options` (§6.3): parsing and rendering of subscription options. The labels are those of the
//! registry (§16.4.2).

use minidom::Element;
use xmpp_parsers::data_forms::{DataFormType, Field, FieldType};

use crate::xmpp::{
    stanza::{
        forms,
        notification::{date_time, timestamp},
        ns,
    },
    xml::writer::ElementWriter,
};
use gjallar_pubsub::{
    Expire, Show, ShowSet, SubscriptionOption, SubscriptionOptions,
    op::subscription_options::OptionsForm,
};

/// Option of gjallar that is not in the registry (§12.20).
const KEYWORD: &str = "x-gjallar#keyword";

/// Returns options as a form to fill in (§6.3.2), or as a result (§6.3.7).
#[must_use]
pub fn form(kind: DataFormType, offered: &OptionsForm) -> ElementWriter {
    let mut fields = show(&offered.options);
    fields.retain(|field| field.var.as_deref() != Some(INCLUDE_BODY) || offered.offers_body);
    forms::render(&forms::form_of_type(kind, ns::SUBSCRIBE_OPTIONS, fields))
}

const INCLUDE_BODY: &str = "pubsub#include_body";
const SHOW_VALUES: &str = "pubsub#show-values";

/// Values of `pubsub#show-values`, with their labels.
const SHOWS: [(&str, &str, Show); 5] = [
    ("away", "XMPP Show Value of Away", Show::Away),
    ("chat", "XMPP Show Value of Chat", Show::Chat),
    ("dnd", "XMPP Show Value of DND (Do Not Disturb)", Show::Dnd),
    ("online", "Mere Availability in XMPP (No Show Value)", Show::Online),
    ("xa", "XMPP Show Value of XA (Extended Away)", Show::Xa),
];

fn show_values(shows: ShowSet) -> Field {
    let mut field = Field::new(SHOW_VALUES, FieldType::ListMulti);
    field.label =
        Some("The presence states for which an entity wants to receive notifications".to_owned());
    field.options = SHOWS.iter().map(|(value, label, _)| forms::option(value, label)).collect();
    field.values = show_names(shows).lines().map(str::to_owned).collect();
    field
}

/// Returns the names of presence states, each on a line of its own.
#[must_use]
pub fn show_names(shows: ShowSet) -> String {
    let names = SHOWS.into_iter().filter(|(.., show)| shows.has(*show)).map(|(name, ..)| name);
    names.collect::<Vec<_>>().join("\n")
}

/// Parses names of presence states, each on a line of its own.
#[must_use]
pub fn shows(names: &str) -> Option<ShowSet> {
    let show = |name: &str| {
        let found = SHOWS.into_iter().find(|(other, ..)| *other == name);
        found.map(|(.., show)| show)
    };
    names.lines().map(show).collect()
}

fn show(options: &SubscriptionOptions) -> Vec<Field> {
    let text = |var, label, value: &str| forms::field(var, FieldType::TextSingle, label, value);
    let flag = |var, label, value| {
        forms::field(var, FieldType::Boolean, label, if value { "true" } else { "false" })
    };
    let frequency = options.digest_frequency.to_string();
    let expire = match options.expire {
        Expire::Never => String::new(),
        Expire::At(end) => date_time(end),
        Expire::Presence => "presence".to_owned(),
    };
    vec![
        flag(
            "pubsub#deliver",
            "Whether an entity wants to receive or disable notifications",
            options.deliver,
        ),
        flag(
            "pubsub#digest",
            "Whether an entity wants to receive digests (aggregations) of notifications or all \
             notifications individually",
            options.digest,
        ),
        text(
            "pubsub#digest_frequency",
            "The minimum number of milliseconds between sending any two notification digests",
            &frequency,
        ),
        text(
            "pubsub#expire",
            "The DateTime at which a leased subscription will end or has ended",
            &expire,
        ),
        flag(
            INCLUDE_BODY,
            "Whether an entity wants to receive an XMPP message body in addition to the payload \
             format",
            options.include_body,
        ),
        show_values(options.show_values),
        text(KEYWORD, "Text that items must contain (empty: all items)", &options.keyword),
    ]
}

/// Returns every option and its value as text.
#[must_use]
pub fn values(options: &SubscriptionOptions) -> Vec<(String, String)> {
    let value = |field: Field| Some((field.var?, field.values.join("\n")));
    show(options).into_iter().filter_map(value).collect()
}

/// Returns the options that differ from the defaults, with their values as text.
#[must_use]
pub fn changed_values(options: &SubscriptionOptions) -> Vec<(String, String)> {
    let default = values(&SubscriptionOptions::default());
    let mut changed = values(options);
    changed.retain(|value| !default.contains(value));
    changed
}

/// Parses a submitted form; returns no option if the form was cancelled.
///
/// # Errors
/// [`InvalidOptions`](gjallar_pubsub::Error::InvalidOptions) for an invalid value of a field;
/// [`BadRequest`](gjallar_pubsub::Error::BadRequest) if the type of the form is neither `submit` nor `cancel`;
/// [`FormTooLarge`](gjallar_pubsub::Error::FormTooLarge).
pub fn submitted(form: &Element) -> Result<Vec<SubscriptionOption>, gjallar_pubsub::Error> {
    match form.attr("type") {
        Some("cancel") => return Ok(Vec::new()),
        Some("submit") => {}
        _ => return Err(gjallar_pubsub::Error::BadRequest("the form must have the type submit")),
    }
    let mut settings = Vec::new();
    for (var, values) in forms::fields(form)? {
        match (var, values.as_slice()) {
            ("FORM_TYPE", values) => {
                forms::check_type(values, ns::SUBSCRIBE_OPTIONS)
                    .map_err(gjallar_pubsub::Error::InvalidOptions)?;
            }
            // A field without a value unsets an option (XEP-0004 §3.6). A boolean or a number keeps its value.
            (_, []) => settings.extend(setting(var, "").ok()),
            (_, values) => match setting(var, &values.join("\n")) {
                // Clients may send fields that the service does not support (XEP-0004 §3.1).
                Err(gjallar_pubsub::Error::UnknownField(_)) => {}
                Ok(_) if values.len() > 1 && var != SHOW_VALUES => {
                    let text = format!("{}: only one value is accepted", forms::shortened(var));
                    return Err(gjallar_pubsub::Error::InvalidOptions(text));
                }
                set => settings.push(set?),
            },
        }
    }
    Ok(settings)
}

/// Parses one field.
///
/// # Errors
/// [`UnknownField`](gjallar_pubsub::Error::UnknownField); [`InvalidOptions`](gjallar_pubsub::Error::InvalidOptions) for
/// an invalid value of the field.
pub fn setting(var: &str, value: &str) -> Result<SubscriptionOption, gjallar_pubsub::Error> {
    let bad = || gjallar_pubsub::Error::InvalidOptions(forms::invalid(var, value));
    let flag = || forms::flag(value).ok_or_else(bad);
    Ok(match var {
        "pubsub#deliver" => SubscriptionOption::Deliver(flag()?),
        "pubsub#digest" => SubscriptionOption::Digest(flag()?),
        "pubsub#digest_frequency" => {
            SubscriptionOption::DigestFrequency(forms::number(value).ok_or_else(bad)?)
        }
        "pubsub#expire" => SubscriptionOption::Expire(match value {
            "" => Expire::Never,
            "presence" => Expire::Presence,
            _ => Expire::At(timestamp(value).ok_or_else(bad)?),
        }),
        INCLUDE_BODY => SubscriptionOption::IncludeBody(flag()?),
        KEYWORD => SubscriptionOption::Keyword(value.to_owned()),
        SHOW_VALUES => SubscriptionOption::ShowValues(shows(value).ok_or_else(bad)?),
        _ => return Err(gjallar_pubsub::Error::UnknownField(forms::shortened(var))),
    })
}
