//! A payload that somebody types.

use minidom::Element;
use quick_xml::{Reader, events::Event};

use crate::{
    pubsub::{Payload, Refusal},
    wire::{ns, xml},
};

const REFUSAL: Refusal =
    Refusal::InvalidPayload("the payload has to be one element with a namespace");
/// How many elements may stand in each other.
const MAX_DEPTH: usize = 64;

/// Reads an element with a namespace.
///
/// # Errors
/// [`Refusal::InvalidPayload`] if it is none, or has what XMPP does not allow (RFC 6120 §11.1).
pub fn parse(text: &str) -> Result<Payload, Refusal> {
    if !is_one_shallow(text) {
        return Err(REFUSAL);
    }
    let element: Element = text.trim().parse().map_err(|_| REFUSAL)?;
    Ok(payload(&element))
}

fn payload(element: &Element) -> Payload {
    Payload::new(xml::stand_alone(element), element.ns())
}

/// Reads an element that stood in an item, whose namespace it has if it names no other.
///
/// # Errors
/// As [`parse`].
pub fn element_of_item(text: &str) -> Result<Element, Refusal> {
    if !is_one_shallow(text) {
        return Err(REFUSAL);
    }
    let outer = ns::PUBSUB.to_owned();
    Element::from_reader_with_prefixes(text.trim().as_bytes(), outer).map_err(|_| REFUSAL)
}

/// The payload that [`element_of_item`] reads.
///
/// # Errors
/// As [`parse`].
pub fn of_item(text: &str) -> Result<Payload, Refusal> {
    element_of_item(text).map(|element| payload(&element))
}

/// Whether a text is one element with elements and text in it, and these are not too many in each other: who reads and
/// drops elements recurses.
fn is_one_shallow(text: &str) -> bool {
    let mut reader = Reader::from_str(text);
    let (mut depth, mut roots) = (0_usize, 0);
    loop {
        match reader.read_event() {
            Ok(Event::Start(_)) if depth < MAX_DEPTH => {
                roots += usize::from(depth == 0);
                depth += 1;
            }
            Ok(Event::Empty(_)) => roots += usize::from(depth == 0),
            Ok(Event::End(_)) => depth = depth.saturating_sub(1),
            Ok(Event::Text(text)) if depth > 0 || text.trim_ascii().is_empty() => {}
            Ok(Event::GeneralRef(_)) if depth > 0 => {}
            Ok(Event::Eof) => return roots == 1,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_element_that_is_not_too_deep() {
        let payload =
            parse(" <a xmlns='urn:a'>&lt;b/&gt;<c:d xmlns:c='urn:c' e='&#10;>'/></a>\n").unwrap();
        assert_eq!(payload.namespace(), "urn:a");
        assert_eq!(
            payload.xml(),
            "<a xmlns='urn:a'>&lt;b/&gt;<d xmlns='urn:c' xmlns:c='urn:c' e='&#10;&gt;'/></a>"
        );
        let nested = |depth: usize| {
            let inner = "<a xmlns='urn:a'>".repeat(depth);
            parse(&format!("{inner}{}", "</a>".repeat(depth)))
        };
        assert!(nested(MAX_DEPTH).is_ok());
        for bad in [
            "",
            "text",
            "<a/>",
            "<a xmlns='urn:a'>",
            "<a xmlns='urn:a'/><a xmlns='urn:a'/>",
            "<a xmlns='urn:a'/>text",
            "<a xmlns='urn:a'><!-- --></a>",
            "<?xml version='1.0'?><a xmlns='urn:a'/>",
            "<!DOCTYPE a><a xmlns='urn:a'/>",
            "<a xmlns='urn:a'>&nbsp;</a>",
            "<a xmlns='urn:a'>\u{1}</a>",
            "<b:a xmlns='urn:a'/>",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(nested(MAX_DEPTH + 1).is_err());
        assert_eq!(
            of_item("<a b='c'/>").unwrap().xml(),
            format!("<a xmlns='{}' b='c'/>", ns::PUBSUB)
        );
        assert_eq!(of_item("<a xmlns='urn:a'/>").unwrap().namespace(), "urn:a");
        assert!(of_item(&"<a>".repeat(200_000)).is_err());
        assert!(nested(200_000).is_err());
    }
}
