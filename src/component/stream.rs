//! The XML stream that comes in: bytes to stanzas, within limits.
//!
//! A stanza that is too large or too deep is read to its end and reported by its start tag; the stream
//! lives on. Only what is not well-formed XML, or one tag past 4 MiB, ends it (RFC 6120 §4.9.3.13). Why this is not `tokio_xmpp::Component`: `docs/decisions/0004`.

use minidom::Element;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::stanza::Header;

use super::{builder::Builder, tokens::Tokens};

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

/// What came in.
#[derive(Debug)]
pub enum Received {
    /// The stream was opened; with the id that the handshake needs (XEP-0114 §3).
    Opened(Option<String>),
    /// A stanza, or another element at the top level.
    Stanza(Element),
    /// A stanza past a limit, which is said in words.
    Refused(Header, &'static str),
    /// The stream was closed in order.
    Closed,
}

/// Why no more can be read.
#[derive(Debug, Error)]
pub enum StreamFault {
    /// The connection broke.
    #[error("{0}")]
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
    tokens: Tokens,
    builder: Builder,
}

impl<R: AsyncRead + Unpin> StreamReader<R> {
    /// Reads from a connection.
    pub fn new(io: R, limits: StanzaLimits) -> Self {
        Self { io, tokens: Tokens::default(), builder: Builder::new(limits) }
    }

    /// The next thing that comes in. Dropping the future loses nothing.
    ///
    /// # Errors
    /// After an error nothing more can be read.
    pub async fn next(&mut self) -> Result<Received, StreamFault> {
        loop {
            while let Some((token, bytes)) = self.tokens.next()? {
                if let Some(received) = self.builder.take(token, bytes)? {
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
}
