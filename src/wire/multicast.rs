//! Extended stanza addressing (XEP-0033): who offers it, within which limit, and the addresses of one stanza.

use minidom::Element;

use super::{ns, xml::escape_attribute};

/// How many recipients a service takes that does not say it: the default of ejabberd's for components.
const MAX_RECIPIENTS: usize = 20;

/// How many recipients of a message an entity takes, by its answer to `disco#info` (§2); nothing if it is no
/// multicast service. Its limit is in a form, as XEP-0128 has it.
#[must_use]
pub fn max_recipients(info: &Element) -> Option<usize> {
    let is_offered = info
        .children()
        .any(|child| child.is("feature", ns::DISCO_INFO) && child.attr("var") == Some(ns::ADDRESS));
    let forms = info.children().filter(|child| child.is("x", ns::DATA_FORMS));
    let limit = forms.filter(|form| value(form, "FORM_TYPE").as_deref() == Some(ns::ADDRESS));
    let limit = limit.filter_map(|form| value(form, "message")).next();
    is_offered.then(|| match limit.as_deref() {
        None => MAX_RECIPIENTS,
        Some("infinite") => usize::MAX,
        Some(number) => number.parse().unwrap_or(MAX_RECIPIENTS),
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
