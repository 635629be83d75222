//! One stanza for many recipients, by extended stanza addressing (XEP-0033) or by the module for Prosody: who offers it,
//! within which limit, and how the recipients are written.

use minidom::Element;

use super::ns;
use crate::xmpp::xml::writer::escape_attribute;

/// Begins and ends a message's addresses.
pub(super) const ADDRESSES: (&str, &str) =
    ("<addresses xmlns='http://jabber.org/protocol/address'>", "</addresses>");

/// Begins and ends the recipients of a message in lines.
pub(super) const RECIPIENTS: (&str, &str) =
    ("<recipients xmlns='urn:x-gjallar:fanout:0'>", "</recipients>");

/// How many recipients a service takes that does not say it: the default of ejabberd's for components.
const MAX_RECIPIENTS: usize = 20;

/// How a service takes many recipients in one stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As addresses (XEP-0033).
    Addresses,
    /// As a text with a line for each, which `config/prosody/mod_gjallar_fanout.lua` takes: the suffix of the id of its
    /// message, which may be empty, a space, and its JID.
    Lines,
}

/// How an entity takes a message for many, and the most recipients of one, by its answer to `disco#info` (§2); nothing
/// if it does not. The limit of XEP-0033 is in a form, as XEP-0128 has it.
#[must_use]
pub fn offered(info: &Element) -> Option<(Format, usize)> {
    let has = |feature: &str| {
        let mut children = info.children().filter(|child| child.is("feature", ns::DISCO_INFO));
        children.any(|child| child.attr("var") == Some(feature))
    };
    if has(ns::FANOUT) {
        return Some((Format::Lines, usize::MAX));
    }
    let forms = info.children().filter(|child| child.is("x", ns::DATA_FORMS));
    let limit = forms.filter(|form| value(form, "FORM_TYPE").as_deref() == Some(ns::ADDRESS));
    let limit = limit.filter_map(|form| value(form, "message")).next();
    has(ns::ADDRESS).then(|| match limit.as_deref() {
        None => (Format::Addresses, MAX_RECIPIENTS),
        Some("infinite") => (Format::Addresses, usize::MAX),
        Some(number) => (Format::Addresses, number.parse().unwrap_or(MAX_RECIPIENTS)),
    })
}

fn value(form: &Element, var: &str) -> Option<String> {
    let field = form.children().find(|field| field.attr("var") == Some(var))?;
    Some(field.get_child("value", ns::DATA_FORMS)?.text())
}

/// The services that an entity lists in its answer to `disco#items`.
pub fn services(items: &Element) -> impl Iterator<Item = &str> {
    let items = items.children().filter(|item| item.is("item", ns::DISCO_ITEMS));
    items.filter(|item| item.attr("node").is_none()).filter_map(|item| item.attr("jid"))
}

/// Appends a recipient of whom no other learns (`bcc`).
pub fn write_address(recipient: &str, out: &mut String) {
    out.push_str("<address type='bcc' jid='");
    escape_attribute(recipient, out);
    out.push_str("'/>");
}
