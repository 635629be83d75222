//! Stanzas to many recipients: discovery, limits, and the format of recipients. Such stanzas are sent by extended
//! stanza addressing (XEP-0033), or by `mod_gjallar_fanout`, the project's own module for Prosody.

use minidom::Element;

use super::ns;
use crate::xmpp::xml::writer::escape_attribute;

/// Start and end tag of a message's addresses.
pub(super) const ADDRESSES: (&str, &str) =
    ("<addresses xmlns='http://jabber.org/protocol/address'>", "</addresses>");

/// Start and end tag of the recipients of a message in the format [`Format::Lines`].
pub(super) const RECIPIENTS: (&str, &str) =
    ("<recipients xmlns='urn:x-gjallar:fanout:0'>", "</recipients>");

/// Maximum number of recipients of a service that announces no limit: ejabberd's default for components.
const MAX_RECIPIENTS: usize = 20;

/// Format of the recipients of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Addresses (XEP-0033).
    Addresses,
    /// Text with one line `SUFFIX JID` for each recipient, for `config/prosody/mod_gjallar_fanout.lua`. `SUFFIX` is
    /// appended to the message id and may be empty.
    Lines,
}

/// Returns the format and the maximum number of recipients that an entity announces in its result of `disco#info` (§2).
/// Returns `None` if the entity does not support multicast. The limit of XEP-0033 is in a form (XEP-0128).
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

/// Returns the services that an entity lists in its result of `disco#items`.
pub fn services(items: &Element) -> impl Iterator<Item = &str> {
    let items = items.children().filter(|item| item.is("item", ns::DISCO_ITEMS));
    items.filter(|item| item.attr("node").is_none()).filter_map(|item| item.attr("jid"))
}

/// Appends a recipient that is hidden from the other recipients (`bcc`).
pub fn write_address(recipient: &str, out: &mut String) {
    out.push_str("<address type='bcc' jid='");
    escape_attribute(recipient, out);
    out.push_str("'/>");
}
