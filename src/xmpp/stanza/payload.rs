//! Parser of payloads from text.

use minidom::{Element, tree_builder::TreeBuilder};
use quick_xml::{Reader, events::Event};
use rxml::{Options, RawReader};

use crate::xmpp::{stanza::ns, xml::writer};
use gjallar_pubsub::Payload;

const REFUSAL: gjallar_pubsub::Error =
    gjallar_pubsub::Error::InvalidPayload("the payload must be one element with a namespace");
const RESTRICTED: gjallar_pubsub::Error = gjallar_pubsub::Error::InvalidPayload(
    "the payload must not have an XML declaration, comments, processing instructions or a DTD",
);
/// Maximum nesting depth of elements.
const MAX_DEPTH: usize = 64;
const TOO_DEEP: gjallar_pubsub::Error =
    gjallar_pubsub::Error::InvalidPayload("the payload has more than 64 levels");

/// Parses an element with a namespace.
///
/// # Errors
/// [`InvalidPayload`](gjallar_pubsub::Error::InvalidPayload) if the text is not an element, or has XML that XMPP does
/// not allow (RFC 6120 §11.1).
pub fn parse(text: &str) -> Result<Payload, gjallar_pubsub::Error> {
    check_shape(text)?;
    Ok(payload(&element(text)?))
}

/// Parses an element that gjallar has written.
///
/// # Errors
/// [`InvalidPayload`](gjallar_pubsub::Error::InvalidPayload) if the text is not an element.
pub fn element(text: &str) -> Result<Element, gjallar_pubsub::Error> {
    read(text, TreeBuilder::new())
}

/// Parses an element. A name or value may be as long as the text: the service limits the payload as a whole.
fn read(text: &str, mut builder: TreeBuilder) -> Result<Element, gjallar_pubsub::Error> {
    let options = Options { max_token_length: text.len(), ..Options::default() };
    let mut reader = RawReader::with_options(text.trim().as_bytes(), options);
    while let Some(event) = reader.read().map_err(|_| REFUSAL)? {
        builder.process_event(event).map_err(|_| REFUSAL)?;
        if let Some(root) = builder.root.take() {
            return Ok(root);
        }
    }
    Err(REFUSAL)
}

fn payload(element: &Element) -> Payload {
    Payload::new(writer::stand_alone(element), element.ns())
}

/// Parses an element from the text of an item. If the text declares no default namespace, the default is
/// `http://jabber.org/protocol/pubsub`, as in a stanza with items.
///
/// # Errors
/// Same as [`parse`].
pub fn element_of_item(text: &str) -> Result<Element, gjallar_pubsub::Error> {
    check_shape(text)?;
    let outer = ns::PUBSUB.to_owned();
    read(text, TreeBuilder::new().with_prefixes_stack(vec![outer.into()]))
}

/// Parses a text as [`element_of_item`] does, and returns the element as a payload.
///
/// # Errors
/// Same as [`parse`].
pub fn of_item(text: &str) -> Result<Payload, gjallar_pubsub::Error> {
    element_of_item(text).map(|element| payload(&element))
}

/// Rejects a text that is not one element, or is nested too deeply for code that reads and drops elements recursively.
fn check_shape(text: &str) -> Result<(), gjallar_pubsub::Error> {
    let mut reader = Reader::from_str(text);
    let (mut depth, mut roots) = (0_usize, 0);
    loop {
        match reader.read_event() {
            Ok(Event::Start(_)) if depth == MAX_DEPTH => return Err(TOO_DEEP),
            Ok(Event::Start(_)) => {
                roots += usize::from(depth == 0);
                depth += 1;
            }
            Ok(Event::Empty(_)) => roots += usize::from(depth == 0),
            Ok(Event::End(_)) => depth = depth.saturating_sub(1),
            Ok(Event::Text(text)) if depth > 0 || text.trim_ascii().is_empty() => {}
            Ok(Event::GeneralRef(_) | Event::CData(_)) if depth > 0 => {}
            Ok(Event::Decl(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_)) => {
                return Err(RESTRICTED);
            }
            Ok(Event::Eof) if roots == 1 => return Ok(()),
            _ => return Err(REFUSAL),
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
            "<![CDATA[text]]><a xmlns='urn:a'/>",
            "<a xmlns='urn:a'>&nbsp;</a>",
            "<a xmlns='urn:a'>\u{1}</a>",
            "<b:a xmlns='urn:a'/>",
        ] {
            assert_eq!(parse(bad).unwrap_err(), REFUSAL, "{bad}");
        }
        for restricted in [
            "<?xml version='1.0'?><a xmlns='urn:a'/>",
            "<!-- --><a xmlns='urn:a'/>",
            "<a xmlns='urn:a'><!-- --></a>",
            "<a xmlns='urn:a'><?b c?></a>",
            "<!DOCTYPE a><a xmlns='urn:a'/>",
        ] {
            assert_eq!(parse(restricted).unwrap_err(), RESTRICTED, "{restricted}");
        }
        let section = parse("<a xmlns='urn:a'>b<![CDATA[<c> & d]]></a>").unwrap();
        assert_eq!(section.xml(), "<a xmlns='urn:a'>b&lt;c&gt; &amp; d</a>");
        assert_eq!(nested(MAX_DEPTH + 1).unwrap_err(), TOO_DEEP);
        assert_eq!(
            of_item("<a b='c'/>").unwrap().xml(),
            format!("<a xmlns='{}' b='c'/>", ns::PUBSUB)
        );
        assert_eq!(of_item("<a xmlns='urn:a'/>").unwrap().namespace(), "urn:a");
        assert!(of_item(&"<a>".repeat(200_000)).is_err());
        assert!(nested(200_000).is_err());
    }

    #[test]
    fn names_and_values_may_be_as_long_as_the_payload() {
        for bytes in [8_190, 8_193, 60_000] {
            let long = "v".repeat(bytes);
            for xml in [
                format!("<x xmlns='urn:x' a='{long}'/>"),
                format!("<x xmlns='urn:{long}'/>"),
                format!("<{long} xmlns='urn:x'/>"),
            ] {
                assert_eq!(parse(&xml).unwrap().xml(), xml);
                assert_eq!(of_item(&xml).unwrap().xml(), xml);
            }
        }
    }
}
