//! Inbound XML stream: converts bytes to stanzas, within limits.
//!
//! A stanza that is too large or too deep is read to its end, and only its envelope is reported. The stream continues.
//! Only XML that is not well-formed, or a tag of more than 4 MiB, ends the stream (RFC 6120 §4.9.3.13).
//! `docs/decisions/0004` gives the reasons against `tokio_xmpp::Component`.

use std::sync::Arc;

use minidom::Element;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::xmpp::stanza::envelope::Envelope;

use super::{
    element_builder::{Declaration, ElementBuilder},
    tokenizer::Tokenizer,
};

/// Maximum number of bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// Limits of size and depth of a stanza.
#[derive(Clone, Copy, Debug)]
pub struct StanzaLimits {
    /// Maximum number of bytes from the first `<` to the last `>` of a stanza.
    pub max_bytes: usize,
    /// Maximum nesting depth. Code that walks trees recurses; 128 levels are far more than real payloads have, and far
    /// fewer than a stack can hold.
    pub max_depth: usize,
}

impl StanzaLimits {
    /// Lowest limit in bytes on the size of stanzas that a server may set (RFC 6120 §13.12).
    pub const MIN_BYTES: usize = 10_000;

    /// Returns the text of the error for a stanza that is too large.
    pub(super) fn bytes_exceeded(&self) -> String {
        format!("max_stanza_bytes: a stanza has at most {} bytes", self.max_bytes)
    }
}

/// Element at the top level of a stream, or the stream's own start or end.
#[derive(Debug)]
pub enum StreamElement {
    /// Start of the stream, with the id for the handshake (XEP-0114 §3).
    Opened(Option<String>),
    /// Stanza, or another element at the top level.
    Stanza(Element),
    /// Envelope of a stanza that exceeds a limit, and a text with the limit's name and value.
    Refused(Envelope, String),
    /// Closing tag of the stream.
    Closed,
}

/// Reason why the stream is no longer readable.
#[derive(Debug, Error)]
pub enum StreamFault {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The connection ended without a closing tag.
    #[error("the connection ended")]
    Ended,
    /// The stream has XML that is not well-formed or not allowed.
    #[error("not well-formed: {0}")]
    NotWellFormed(String),
}

/// Reading half of a stream.
pub struct StreamReader<R> {
    io: R,
    tokens: Tokenizer,
    builder: ElementBuilder,
    limits: StanzaLimits,
    /// Text of the last stanza.
    text: Vec<u8>,
    /// Namespace declarations of the stream element.
    scope: Arc<[Declaration]>,
}

/// Text of a stanza, to be parsed later.
pub(in crate::xmpp) struct StanzaText {
    text: Box<[u8]>,
    scope: Arc<[Declaration]>,
    limits: StanzaLimits,
}

impl StanzaText {
    /// Parses the stanza; returns `None` if the text is not a whole stanza.
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
    /// Returns a reader of a connection.
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

    /// Returns the next element of the stream. Cancel-safe.
    ///
    /// # Errors
    /// If the connection ends, or the input is not well-formed or not allowed. The stream is not readable afterwards.
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

    /// Returns the number of bytes of the last stanza.
    pub fn stanza_bytes(&self) -> usize {
        self.builder.bytes()
    }

    /// Returns the text of the last stanza.
    pub(in crate::xmpp) fn stanza_text(&self) -> StanzaText {
        let (scope, limits) = (Arc::clone(&self.scope), self.limits);
        StanzaText { text: self.text.as_slice().into(), scope, limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parsing the text of a stanza gives the same stanza again, and the text has no bytes from before the stanza. The
    /// stanzas of the test use namespace declarations of the stream. They contain entity references, a CDATA section, a
    /// comment, and text that is long enough to be split.
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
