//! The XML stream that comes in: bytes to stanzas, within limits.
//!
//! A stanza that is too large or too deep is read to its end and reported by its start tag; the stream
//! lives on. Only what is not well-formed XML, or one tag past 4 MiB, ends it (RFC 6120 §4.9.3.13). Why this is not `tokio_xmpp::Component`: `docs/decisions/0004`.

use std::sync::Arc;

use minidom::Element;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::xmpp::stanza::envelope::Envelope;

use super::{
    element_builder::{Declaration, ElementBuilder},
    tokenizer::Tokenizer,
};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// How large and how deep a stanza may be.
#[derive(Clone, Copy, Debug)]
pub struct StanzaLimits {
    /// Bytes from its first `<` to its last `>`.
    pub max_bytes: usize,
    /// Nesting levels. Code that walks trees recurses; 128 is far above real payloads and far below
    /// what a stack holds.
    pub max_depth: usize,
}

impl StanzaLimits {
    /// Describes that a stanza has more than the maximum number of bytes.
    pub(super) fn bytes_exceeded(&self) -> String {
        format!("max_stanza_bytes: a stanza has at most {} bytes", self.max_bytes)
    }
}

/// What came in.
#[derive(Debug)]
pub enum StreamElement {
    /// The stream was opened; with the id that the handshake needs (XEP-0114 §3).
    Opened(Option<String>),
    /// A stanza, or another element at the top level.
    Stanza(Element),
    /// A stanza past a limit, which the text names with its value.
    Refused(Envelope, String),
    /// The stream was closed in order.
    Closed,
}

/// Why no more can be read.
#[derive(Debug, Error)]
pub enum StreamFault {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The connection ended without a closing tag.
    #[error("the connection ended")]
    Ended,
    /// What came in is no XML that a stream may have.
    #[error("not well-formed: {0}")]
    NotWellFormed(String),
}

/// The reading half of a stream.
pub struct StreamReader<R> {
    io: R,
    tokens: Tokenizer,
    builder: ElementBuilder,
    limits: StanzaLimits,
    /// The last stanza as it was read, and what the stream declares around it.
    text: Vec<u8>,
    scope: Arc<[Declaration]>,
}

/// A stanza as it was read, to be parsed later.
pub(in crate::xmpp) struct StanzaText {
    text: Box<[u8]>,
    scope: Arc<[Declaration]>,
    limits: StanzaLimits,
}

impl StanzaText {
    /// The stanza; nothing if this is not all of one.
    pub(in crate::xmpp) fn parse(self) -> Option<Element> {
        let mut builder = ElementBuilder::within(self.limits, self.scope.to_vec());
        let mut tokens = Tokenizer::of(self.text.into_vec());
        while let Ok(Some((token, bytes))) = tokens.next() {
            match builder.take(token, bytes) {
                Ok(None) => {}
                Ok(Some(StreamElement::Stanza(stanza))) => return Some(stanza),
                Ok(Some(_)) | Err(_) => return None,
            }
        }
        None
    }
}

impl<R: AsyncRead + Unpin> StreamReader<R> {
    /// Reads from a connection.
    pub fn new(io: R, limits: StanzaLimits) -> Self {
        Self {
            io,
            tokens: Tokenizer::default(),
            builder: ElementBuilder::new(limits),
            limits,
            text: Vec::new(),
            scope: Arc::default(),
        }
    }

    /// The next thing that comes in. Dropping the future loses nothing.
    ///
    /// # Errors
    /// After an error nothing more can be read.
    pub async fn next(&mut self) -> Result<StreamElement, StreamFault> {
        loop {
            while let Some((token, bytes)) = self.tokens.next()? {
                if !self.builder.is_in_stanza() {
                    self.text.clear();
                }
                let received = self.builder.take(token, bytes)?;
                if self.builder.is_in_stanza() || matches!(received, Some(StreamElement::Stanza(_)))
                {
                    self.text.extend_from_slice(self.tokens.last(bytes));
                }
                if let Some(received) = received {
                    if matches!(received, StreamElement::Opened(_)) {
                        self.scope = self.builder.scope().into();
                    }
                    return Ok(received);
                }
            }
            let buffer = self.tokens.buffer();
            buffer.reserve(READ_BYTES);
            if self.io.read_buf(buffer).await? == 0 {
                return Err(StreamFault::Ended);
            }
        }
    }

    /// How many bytes the last stanza had.
    pub fn stanza_bytes(&self) -> usize {
        self.builder.bytes()
    }

    /// The last stanza as it was read.
    pub(in crate::xmpp) fn stanza_text(&self) -> StanzaText {
        let (scope, limits) = (Arc::clone(&self.scope), self.limits);
        StanzaText { text: self.text.as_slice().into(), scope, limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is parsed later is what was read: with the declarations of the stream, long text that comes in pieces,
    /// references, sections and comments; and nothing of what stood before it.
    #[tokio::test]
    async fn a_stanza_is_parsed_again_from_its_text() {
        let long = "&lt;x&gt;".repeat(20_000);
        let stanzas = [
            "<iq id='1'/>".to_owned(),
            "<iq id='2' a:b='c'><q xmlns='urn:q' xml:lang='en'><a:x/>t<!-- c --><![CDATA[<]]></q></iq>"
                .to_owned(),
            format!("<message><body>{long}</body></message>"),
            "<iq\n id='&apos;3'  ><x></x></iq>".to_owned(),
        ];
        let open = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:a='urn:a' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";
        let limits = StanzaLimits { max_bytes: 300_000, max_depth: 8 };
        let excess = format!("<iq id='{}'/>", "x".repeat(300_000));
        let input = format!("{open}{}", stanzas.join(&format!(" \n{excess}")));
        let mut reader = StreamReader::new(input.as_bytes(), limits);
        let mut parsed = 0;
        while let Ok(received) = reader.next().await {
            if let StreamElement::Stanza(stanza) = received {
                assert_eq!(reader.stanza_text().parse().as_ref(), Some(&stanza));
                assert_eq!(&*reader.stanza_text().text, stanzas[parsed].as_bytes());
                parsed += 1;
            }
        }
        assert_eq!(parsed, stanzas.len());
    }
}
