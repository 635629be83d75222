//! Form `pubsub#subscribe_authorization` (§8.6): request to the owners, and their response.

use jid::Jid;
use minidom::Element;
use xmpp_parsers::data_forms::{DataFormType, Field, FieldType};

use crate::xmpp::{
    stanza::{forms, ns},
    xml::writer::ElementWriter,
};
use gjallar_pubsub::{NodeId, SubId, op::authorize::Authorize};

const NODE: &str = "pubsub#node";
/// Label of the field `pubsub#node`.
pub const NODE_LABEL: &str = "The NodeID of the relevant node";
const SUBSCRIBER: &str = "pubsub#subscriber_jid";
const SUBID: &str = "pubsub#subid";
const ALLOW: &str = "pubsub#allow";

/// Returns the form that asks an owner of a node whether a JID may subscribe.
#[must_use]
pub fn request(node: &NodeId, jid: &Jid, subid: Option<&SubId>) -> ElementWriter {
    let mut fields = vec![
        forms::field(NODE, FieldType::TextSingle, NODE_LABEL, node.as_str()),
        forms::field(
            SUBSCRIBER,
            FieldType::JidSingle,
            "The address (JID) of the subscriber",
            jid.as_str(),
        ),
        forms::field(ALLOW, FieldType::Boolean, "Whether to allow the subscription", "false"),
    ];
    fields
        .extend(subid.map(|subid| Field::new(SUBID, FieldType::Hidden).with_value(subid.as_str())));
    let mut asked = forms::form_of_type(DataFormType::Form, ns::SUBSCRIBE_AUTHORIZATION, fields);
    asked.title = Some("PubSub subscriber request".to_owned());
    forms::render(&asked)
}

/// Returns the form in a message, if its type is `pubsub#subscribe_authorization`.
#[must_use]
pub fn find(message: &Element) -> Option<&Element> {
    let form = message.get_child("x", ns::DATA_FORMS)?;
    let is_form_type = |field: &&Element| field.attr("var") == Some("FORM_TYPE");
    let form_type = form.children().find(is_form_type)?.get_child("value", ns::DATA_FORMS)?;
    (form_type.text() == ns::SUBSCRIBE_AUTHORIZATION).then_some(form)
}

/// Parses an owner's response; `None` if the form was cancelled.
///
/// # Errors
/// [`NotAcceptable`](gjallar_pubsub::Error::NotAcceptable) if `pubsub#allow`, `pubsub#node` or `pubsub#subscriber_jid`
/// is missing, if the value of `pubsub#allow` is not a boolean, or if the value of `pubsub#subscriber_jid` is not a
/// JID; the errors of [`NodeId::parse`]; [`BadRequest`](gjallar_pubsub::Error::BadRequest) if the type of the form is
/// neither `submit` nor `cancel`; [`FormTooLarge`](gjallar_pubsub::Error::FormTooLarge).
pub fn answer(form: &Element) -> Result<Option<Authorize>, gjallar_pubsub::Error> {
    let fields: Vec<_> = forms::fields(form)?.collect();
    let value = |var: &str| {
        let values = fields.iter().find(|(other, _)| *other == var).map(|(_, values)| values);
        let value = values.and_then(|values| values.first()).map(String::as_str);
        value.ok_or_else(|| bad(var))
    };
    match form.attr("type") {
        Some("cancel") => return Ok(None),
        Some("submit") => {}
        _ => return Err(gjallar_pubsub::Error::BadRequest("the form must have the type submit")),
    }
    let allow = forms::flag(value(ALLOW)?).ok_or_else(|| bad(ALLOW))?;
    let node = NodeId::parse(value(NODE)?)?;
    let jid = Jid::stamped(value(SUBSCRIBER)?).map_err(|_| bad(SUBSCRIBER))?;
    Ok(Some(Authorize { node, jid, allow }))
}

fn bad(var: &str) -> gjallar_pubsub::Error {
    gjallar_pubsub::Error::NotAcceptable(format!("{var}: a valid value is required"))
}
