//! The XML stream that comes in: bytes to stanzas, within limits.
//!
//! A stanza that is too large or too deep is read to its end and reported by its start tag; the stream
//! lives on. Only what is not well-formed XML, or one name or value past [`MAX_TOKEN_BYTES`], ends it
//! (RFC 6120 §4.9.3.13). Why this is not `tokio_xmpp::Component`: `docs/decisions/0004`.

use std::collections::BTreeMap;

use minidom::Element;
use rxml::{
    Namespace, NcName, Parse, RawEvent, RawParser, WithOptions,
    error::EndOrError,
    parser::{CommentMode, Options},
};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::{ns, stanza::Header};

use super::reserved;

/// The most bytes of one name, attribute value or piece of text.
const MAX_TOKEN_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of an attribute that is kept of a stanza that is not read.
const MAX_HEADER_VALUE_BYTES: usize = 65_536;
/// Namespaces that a stanza may declare at one place, for looking one up takes as long as there are.
const MAX_DECLARATIONS: usize = 256;
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
    parser: RawParser,
    buffer: Vec<u8>,
    consumed: usize,
    /// How much of the buffer may be parsed: behind it may be the beginning of something reserved.
    ready: usize,
    builder: Builder,
}

impl<R: AsyncRead + Unpin> StreamReader<R> {
    /// Reads from a connection.
    pub fn new(io: R, limits: StanzaLimits) -> Self {
        let options = Options {
            max_token_length: MAX_TOKEN_BYTES,
            context: None,
            comments: CommentMode::Discard,
        };
        Self {
            io,
            parser: RawParser::with_options(options),
            buffer: Vec::with_capacity(READ_BYTES),
            consumed: 0,
            ready: 0,
            builder: Builder::new(limits),
        }
    }

    /// The next thing that comes in. Dropping the future loses nothing.
    ///
    /// # Errors
    /// After an error nothing more can be read.
    pub async fn next(&mut self) -> Result<Received, StreamFault> {
        loop {
            if let Some(received) = self.parse()? {
                return Ok(received);
            }
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            self.ready = 0;
            self.buffer.reserve(READ_BYTES);
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(StreamFault::Ended);
            }
            self.ready = reserved::replace(&mut self.buffer);
        }
    }

    /// How many bytes the last stanza had.
    pub fn stanza_bytes(&self) -> usize {
        self.builder.bytes
    }

    /// Takes events from what was read until something is complete.
    fn parse(&mut self) -> Result<Option<Received>, StreamFault> {
        loop {
            let mut unread = self.buffer.get(self.consumed..self.ready).unwrap_or_default();
            let before = unread.len();
            let event = self.parser.parse(&mut unread, false);
            self.consumed += before - unread.len();
            match event {
                Ok(Some(event)) => {
                    if let Some(received) = self.builder.take(event)? {
                        return Ok(Some(received));
                    }
                }
                Ok(None) => return Ok(Some(Received::Closed)),
                Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => {
                    return Err(StreamFault::NotWellFormed(error.to_string()));
                }
            }
        }
    }
}

/// Builds elements from events.
struct Builder {
    limits: StanzaLimits,
    /// Open elements of the document, the stream's own among them.
    depth: usize,
    /// The start tag that is being read.
    tag: Option<StartTag>,
    /// Declarations in force, outermost first.
    scope: Vec<(Option<NcName>, String)>,
    /// How many of them are the stream's own.
    stream_scope: usize,
    /// The open elements of the stanza, each with the length of the scope around it.
    open: Vec<(Element, usize)>,
    header: Header,
    bytes: usize,
    refused: Option<&'static str>,
}

#[derive(Default)]
struct StartTag {
    prefix: Option<NcName>,
    name: String,
    attributes: Vec<(Option<NcName>, NcName, String)>,
}

impl Builder {
    fn new(limits: StanzaLimits) -> Self {
        Self {
            limits,
            depth: 0,
            tag: None,
            scope: Vec::new(),
            stream_scope: 0,
            open: Vec::new(),
            header: Header::default(),
            bytes: 0,
            refused: None,
        }
    }

    fn take(&mut self, event: RawEvent) -> Result<Option<Received>, StreamFault> {
        match event {
            RawEvent::XmlDeclaration(..) => {}
            RawEvent::ElementHeadOpen(metrics, (prefix, name)) => {
                self.depth += 1;
                if self.depth == 2 {
                    self.begin_stanza(name.as_str());
                }
                self.count(metrics.len());
                if self.depth > self.limits.max_depth + 1 {
                    self.refuse("a stanza of too many nested elements");
                }
                let name = name.as_str().to_owned();
                self.tag = Some(StartTag { prefix, name, attributes: Vec::new() });
            }
            RawEvent::Attribute(metrics, (prefix, name), value) => {
                self.count(metrics.len());
                if self.depth == 2 && prefix.is_none() {
                    self.note(name.as_str(), &value);
                }
                if let Some(tag) = self.tag.as_mut().filter(|_| self.refused.is_none()) {
                    tag.attributes.push((prefix, name, value));
                }
            }
            RawEvent::ElementHeadClose(metrics) => {
                self.count(metrics.len());
                let tag = self.tag.take().unwrap_or_default();
                if self.depth == 1 {
                    return self.open_stream(tag).map(Some);
                }
                let outer = self.scope.len();
                if self.refused.is_none() {
                    let element = self.element(tag)?;
                    if self.refused.is_none() {
                        self.open.push((element, outer));
                    }
                }
            }
            RawEvent::Text(metrics, text) => {
                self.count(metrics.len());
                if let Some((element, _)) = self.open.last_mut() {
                    element.append_text(text);
                }
            }
            RawEvent::ElementFoot(metrics) => {
                self.count(metrics.len());
                self.depth -= 1;
                return Ok(self.close());
            }
        }
        Ok(None)
    }

    fn begin_stanza(&mut self, name: &str) {
        self.header = Header { name: name.to_owned(), ..Header::default() };
        self.bytes = 0;
        self.refused = None;
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.depth > 1 && self.bytes > self.limits.max_bytes {
            self.refuse("a stanza of too many bytes");
        }
    }

    /// Reads on without keeping anything but the header.
    fn refuse(&mut self, reason: &'static str) {
        if self.refused.is_none() {
            self.refused = Some(reason);
            self.scope.truncate(self.stream_scope);
            self.open.clear();
        }
    }

    fn note(&mut self, name: &str, value: &str) {
        if value.len() > MAX_HEADER_VALUE_BYTES {
            return;
        }
        let place = match name {
            "type" => &mut self.header.kind,
            "id" => &mut self.header.id,
            "from" => &mut self.header.from,
            "to" => &mut self.header.to,
            _ => return,
        };
        *place = Some(value.to_owned());
    }

    fn open_stream(&mut self, tag: StartTag) -> Result<Received, StreamFault> {
        let header = self.element(tag)?;
        self.stream_scope = self.scope.len();
        if !header.is("stream", ns::STREAMS) {
            return Err(StreamFault::NotWellFormed("not an XMPP stream".into()));
        }
        Ok(Received::Opened(header.attr("id").map(str::to_owned)))
    }

    /// Resolves the namespaces of a start tag, and brings its declarations into scope.
    fn element(&mut self, tag: StartTag) -> Result<Element, StreamFault> {
        let mut prefixes = BTreeMap::new();
        let mut attributes = Vec::new();
        for (prefix, name, value) in tag.attributes {
            let declared = match (prefix.as_ref().map(NcName::as_str), name.as_str()) {
                (None, "xmlns") => None,
                (Some("xmlns"), _) => Some(name.clone()),
                _ => {
                    attributes.push((prefix, name, value));
                    continue;
                }
            };
            if declared.is_some() && value.is_empty() {
                return Err(fault("an empty namespace has no prefix"));
            }
            let key = declared.as_ref().map(|prefix| prefix.as_str().to_owned());
            if prefixes.insert(key, value.clone()).is_some() {
                return Err(fault("a prefix is declared twice"));
            }
            self.scope.push((declared, reserved::restore(value)));
        }
        if self.scope.len() > MAX_DECLARATIONS {
            self.refuse("a stanza of too many namespaces");
            return Ok(Element::bare("refused", ""));
        }
        let namespace = self.namespace(tag.prefix.as_ref())?;
        let mut element = Element::bare(tag.name, namespace);
        for (prefix, name, value) in attributes {
            let namespace = match prefix {
                None => Namespace::NONE,
                Some(prefix) => Namespace::from(self.namespace(Some(&prefix))?),
            };
            if element.attr_ns(&namespace, &name).is_some() {
                return Err(fault("an attribute stands twice"));
            }
            element.set_attr(namespace, name, value);
        }
        element.prefixes = prefixes.into();
        Ok(element)
    }

    fn namespace(&self, prefix: Option<&NcName>) -> Result<String, StreamFault> {
        if prefix.is_some_and(|prefix| prefix.as_str() == "xml") {
            return Ok("http://www.w3.org/XML/1998/namespace".into());
        }
        let bound = self.scope.iter().rev().find(|(declared, _)| declared.as_ref() == prefix);
        match (bound, prefix) {
            (Some((_, namespace)), _) => Ok(namespace.clone()),
            (None, None) => Ok(String::new()),
            (None, Some(_)) => Err(fault("a prefix is not declared")),
        }
    }

    /// An element ends; at the top level that is something to report.
    fn close(&mut self) -> Option<Received> {
        if let Some((element, outer)) = self.open.pop() {
            self.scope.truncate(outer);
            match self.open.last_mut() {
                Some((parent, _)) => parent.append_child(element),
                None => return Some(Received::Stanza(element)),
            };
        }
        match (self.depth, self.refused) {
            (1, Some(reason)) => {
                self.refused = None;
                Some(Received::Refused(std::mem::take(&mut self.header), reason))
            }
            (0, _) => Some(Received::Closed),
            _ => None,
        }
    }
}

fn fault(reason: &str) -> StreamFault {
    StreamFault::NotWellFormed(reason.into())
}
