//! Message bodies of items, for clients that do not support the payload (§12.8).

use minidom::Element;

use gjallar_pubsub::{EventItem, Payload, op::subscription_options::ATOM};

use super::payload::element;

/// Maximum length of a body in bytes; a longer body is truncated.
const MAX_BODY_BYTES: usize = 2000;

/// Returns a text with a line for each item whose payload is an Atom entry. The line is the summary of the entry or, if
/// there is no summary, its title. Returns `None` if the text is empty.
#[must_use]
pub fn body(items: &[EventItem]) -> Option<String> {
    let said = items.iter().filter_map(|item| words(item.payload.as_ref()?));
    let mut body = said.collect::<Vec<_>>().join("\n");
    if body.len() > MAX_BODY_BYTES {
        let end =
            (0..=MAX_BODY_BYTES - '…'.len_utf8()).rev().find(|end| body.is_char_boundary(*end));
        body.truncate(end.unwrap_or_default());
        body.push('…');
    }
    (!body.is_empty()).then_some(body)
}

fn words(payload: &Payload) -> Option<String> {
    if payload.namespace() != ATOM {
        return None;
    }
    let entry = element(payload.xml()).ok().filter(|root| root.name() == "entry")?;
    let text = |name: &str| {
        let text = entry.get_child(name, ATOM).filter(|text| is_plain(text)).map(Element::text);
        text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    text("summary").or_else(|| text("title"))
}

/// Returns `true` if an Atom text has no markup (RFC 4287 §3.1).
fn is_plain(text: &Element) -> bool {
    matches!(text.attr("type"), None | Some("text"))
}
