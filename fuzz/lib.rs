//! Code shared by the fuzz targets: parsing of text into elements, as in the service.

use futures::executor::block_on;
use gjallar::xmpp::{StanzaLimits, StreamElement, StreamReader};
use minidom::Element;

/// The opening of a server's stream.
pub const OPENING: &str = "<stream:stream xmlns='jabber:component:accept' id='1' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

/// Limits of the service.
pub const LIMITS: StanzaLimits = StanzaLimits { max_bytes: 65_536, max_depth: 128 };

/// Parses the first stanza of a text; `None` if there is none.
pub fn stanza(text: &[u8]) -> Option<Element> {
    let whole = [OPENING.as_bytes(), text].concat();
    let mut reader = StreamReader::new(whole.as_slice(), LIMITS);
    block_on(async {
        reader.next().await.ok()?;
        match reader.next().await {
            Ok(StreamElement::Stanza(stanza)) => Some(stanza),
            _ => None,
        }
    })
}

/// Canonical form of an element, independent of namespace prefixes and of the order of attributes.
pub fn meaning(element: &Element) -> String {
    let mut attributes: Vec<_> = element
        .attrs()
        .iter()
        .map(|((namespace, name), value)| format!("{{{}}}{name}={value:?}", namespace.as_str()))
        .collect();
    attributes.sort();
    let content: Vec<_> = element
        .nodes()
        .map(|node| match node {
            minidom::Node::Element(child) => meaning(child),
            minidom::Node::Text(text) => format!("{text:?}"),
        })
        .collect();
    format!("{{{}}}{} {attributes:?} [{}]", element.ns(), element.name(), content.join(" "))
}
