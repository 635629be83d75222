//! The stream parser, compared with rxml (through minidom).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use gjallar::xmpp::{StanzaLimits, StreamElement, StreamReader};
use minidom::{Element, Node};
use proptest::{prelude::*, sample::select};
use tokio::io::{AsyncRead, ReadBuf};

const OPENING: &str = "<stream:stream xmlns='jabber:component:accept' \
                       xmlns:stream='http://etherx.jabber.org/streams'>";

/// Fragments of documents, most of which can be combined.
const PIECES: &[&str] = &[
    "<a>",
    "<a>",
    "<a>",
    "</a>",
    "</a>",
    "</a>",
    "<a/>",
    "<p:a xmlns:p='urn:p'>",
    "</p:a>",
    "<a xmlns='urn:a' b='c'/>",
    "<a b = \"it's\"\n/>",
    "<a p:b='1'/>",
    "<a xmlns:p='urn:p' xmlns:q='urn:q' p:b='1' q:b='2'/>",
    "<a xmlns:p='urn:p' p:b='1' b='2'/>",
    "<a b='&lt;&#10;&#xD;&quot;'/>",
    "<a b=' x\t\r\ny\n '/>",
    "<a b='<'/>",
    "<a b='>'/>",
    "<a b='1'c='2'/>",
    "<a b=c/>",
    "<a b/>",
    "<a xml:lang='de'/>",
    "<a xmlns:p=''/>",
    "<a xmlns=''><b/></a>",
    "<a xmlns:q='http://www.w3.org/XML/1998/namespace'/>",
    "<1/>",
    "<a\u{e9}/>",
    "<\u{e9}:a/>",
    "<a:b:c/>",
    "<:a/>",
    "< a/>",
    "<a / >",
    "</a >",
    "</ a>",
    "<a></b>",
    "<a b='\u{1}'/>",
    "<a/b>",
    "<>",
    "</>",
    "text",
    " \n ",
    "\r\n",
    "\r",
    "&amp;",
    "&#x1F3BA;",
    "&#0;",
    "&#xFFFE;",
    "&#xD800;",
    "&nbsp;",
    "&;",
    "&",
    "]]>",
    "]]&gt;",
    "]",
    "\u{ff}\u{fffd}",
    "\u{feff}",
    "\u{ffff}",
    "\u{7}",
    "🎺",
    "<![CDATA[<x> & \r\n]]>",
    "<![CDATA[]]]]>",
    "<![CDATA[\u{0}]]>",
    "<![CDATA",
    "<!DOCTYPE a>",
    "<?pi?>",
    "<?xml version='1.0'?>",
    ">",
    "<",
    "'",
];

/// Reader that returns a limited number of bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (piece, rest) = self.0.split_at(self.1.min(self.0.len()));
        buffer.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// Returns the elements of a stream, or `None` if it is not well-formed.
async fn read(stream: &str, piece: usize) -> Option<Vec<String>> {
    let limits = StanzaLimits { max_bytes: 1_000_000, max_depth: 128 };
    let mut reader = StreamReader::new(Pieces(stream.as_bytes(), piece), limits);
    let mut stanzas = Vec::new();
    loop {
        match reader.next().await {
            Ok(StreamElement::Opened(_)) => {}
            Ok(StreamElement::Stanza(stanza)) => stanzas.push(meaning(&stanza)),
            Ok(StreamElement::Closed) => return Some(stanzas),
            Ok(StreamElement::Refused(..)) | Err(_) => return None,
        }
    }
}

/// Returns the result of rxml for the same stream.
fn expected(stream: &str) -> Option<Vec<String>> {
    let stream: Element = stream.parse().ok()?;
    Some(stream.children().map(meaning).collect())
}

fn meaning(element: &Element) -> String {
    let content: Vec<_> = element
        .nodes()
        .map(|node| match node {
            Node::Element(child) => meaning(child),
            Node::Text(text) => format!("{text:?}"),
        })
        .collect();
    let attributes = element.attrs().iter();
    let attributes: Vec<_> = attributes
        .map(|((namespace, name), value)| format!("{{{}}}{name}={value:?}", namespace.as_str()))
        .collect();
    let (namespace, name) = (element.ns(), element.name());
    format!("{{{namespace}}}{name} {attributes:?} [{}]", content.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stream_reader_equals_rxml(pieces in prop::collection::vec(select(PIECES), 1..8), piece in 1..40_usize) {
        let content = pieces.concat();
        let stream = format!("{OPENING}<m>{content}</m></stream:stream>");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(read(&stream, piece));
        prop_assert_eq!(read, expected(&stream));
    }
}

/// Long text is parsed correctly, wherever the chunks end.
#[tokio::test]
async fn long_text_is_read_completely() {
    for unit in ["é]\r\n&#x1F3BA;🎺 text", "]", "\r", "é", "&amp;", "a]]&gt;"] {
        for shift in 0..8 {
            let text = format!("{}{}", "x".repeat(shift), unit.repeat(200_000 / unit.len()));
            let stream = format!("{OPENING}<m>{text}</m></stream:stream>");
            let expected = expected(&stream);
            assert!(expected.is_some(), "{unit}");
            for piece in [4093, 64 * 1024] {
                assert!(read(&stream, piece).await == expected, "{unit} {shift} {piece}");
            }
        }
    }
}
