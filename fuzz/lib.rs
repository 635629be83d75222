//! What the fuzz targets share: text to elements as the service reads them.

use futures::executor::block_on;
use gjallar::xmpp::{StanzaLimits, StreamElement, StreamReader};
use minidom::Element;

/// The opening of a server's stream.
pub const OPENING: &str = "<stream:stream xmlns='jabber:component:accept' id='1' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

/// The service's limits.
pub const LIMITS: StanzaLimits = StanzaLimits { max_bytes: 65_536, max_depth: 128 };

/// The first stanza of a text, if it is one.
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

/// An element with all that has meaning, and nothing else: not which prefix stands for a namespace, nor the
/// order of attributes.
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
