//! Bytes to the tokens of XML: tags, and the text between them.
//!
//! quick-xml finds the ends of tags and their attributes; what it leaves to its users is checked here, so
//! that whatever passes can be written again as XML. An XML declaration is passed over, and comments are;
//! what else RFC 6120 §11 keeps out of streams is a fault.

use std::{borrow::Cow, str};

use memchr::{memchr, memmem, memrchr};
use quick_xml::{
    XmlVersion,
    escape::unescape,
    events::{BytesText, attributes::Attribute, attributes::Attributes},
    parser::{ElementParser, Parser},
};
use rxml::strings::validate_cdata;

use super::stream::StreamFault;

/// The most bytes of one tag.
const MAX_TOKEN_BYTES: usize = 4 * 1024 * 1024;
/// Text that is longer comes in pieces.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// A piece of a document.
pub(in crate::xmpp) enum Token<'a> {
    Start(StartTag<'a>),
    /// With the name as it stands there.
    End(&'a str),
    /// As it is meant.
    Text(Cow<'a, str>),
    /// A comment, or the XML declaration.
    Aside,
}

/// `<name attributes>` or `<name attributes/>`.
pub(in crate::xmpp) struct StartTag<'a> {
    /// With its prefix.
    pub(in crate::xmpp) name: &'a str,
    pub(in crate::xmpp) attributes: Attributes<'a>,
    pub(in crate::xmpp) is_empty: bool,
}

/// What was read and not understood yet.
#[derive(Default)]
pub(in crate::xmpp) struct Tokenizer {
    buffer: Vec<u8>,
    consumed: usize,
    /// The token that has begun, and how many of its bytes do not hold its end.
    begun: Option<TokenKind>,
    scanned: usize,
    /// Whether there was a token already.
    is_under_way: bool,
}

#[derive(Clone, Copy)]
enum TokenKind {
    Tag(ElementParser),
    Text,
    Section(&'static MarkupSection),
}

/// What has a beginning and an end, and no markup between.
struct MarkupSection {
    opening: &'static [u8],
    closing: &'static [u8],
    content: SectionKind,
}

#[derive(Clone, Copy)]
enum SectionKind {
    Declaration,
    Comment,
    CharacterData,
}

const SECTIONS: &[MarkupSection] = &[
    MarkupSection { opening: b"<?", closing: b"?>", content: SectionKind::Declaration },
    MarkupSection { opening: b"<!--", closing: b"-->", content: SectionKind::Comment },
    MarkupSection { opening: b"<![CDATA[", closing: b"]]>", content: SectionKind::CharacterData },
];

impl Tokenizer {
    /// Those of a part of a document, which is not its beginning.
    pub(in crate::xmpp) fn of(part: Vec<u8>) -> Self {
        Self { buffer: part, is_under_way: true, ..Self::default() }
    }

    /// The bytes of the last token, which had so many.
    pub(in crate::xmpp) fn last(&self, bytes: usize) -> &[u8] {
        self.consumed
            .checked_sub(bytes)
            .and_then(|at| self.buffer.get(at..self.consumed))
            .unwrap_or_default()
    }

    /// Where to append what is read; without what was understood.
    pub(in crate::xmpp) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        &mut self.buffer
    }

    /// The next token and how many bytes it had; nothing if its end was not read.
    pub(in crate::xmpp) fn next(&mut self) -> Result<Option<(Token<'_>, usize)>, StreamFault> {
        let unread = self.buffer.get(self.consumed..).unwrap_or_default();
        let Some(mut kind) = self.begun.map_or_else(|| begin(unread), |kind| Ok(Some(kind)))?
        else {
            return Ok(None);
        };
        let Some(length) = end(&mut kind, unread, self.scanned) else {
            if unread.len() > MAX_TOKEN_BYTES {
                let text = format!("a tag or a reference has at most {MAX_TOKEN_BYTES} bytes");
                return Err(fault(&text));
            }
            self.begun = Some(kind);
            self.scanned = unread.len();
            return Ok(None);
        };
        let is_first = !std::mem::replace(&mut self.is_under_way, true);
        self.begun = None;
        self.scanned = 0;
        self.consumed += length;
        let bytes = unread.get(..length).unwrap_or_default();
        Ok(Some((token(kind, bytes, is_first)?, length)))
    }
}

fn begin(unread: &[u8]) -> Result<Option<TokenKind>, StreamFault> {
    if unread.first().is_none_or(|byte| *byte != b'<') {
        return Ok((!unread.is_empty()).then_some(TokenKind::Text));
    }
    for section in SECTIONS {
        if unread.starts_with(section.opening) {
            return Ok(Some(TokenKind::Section(section)));
        }
        if section.opening.starts_with(unread) {
            return Ok(None);
        }
    }
    if unread.starts_with(b"<!") {
        return Err(fault("document type declaration"));
    }
    Ok(Some(TokenKind::Tag(ElementParser::default())))
}

/// Where a token ends that is not known to end within its first bytes.
fn end(kind: &mut TokenKind, unread: &[u8], scanned: usize) -> Option<usize> {
    match kind {
        TokenKind::Tag(parser) => {
            let found = parser.feed(unread.get(scanned..)?)?;
            Some(scanned + found + 1)
        }
        TokenKind::Text => match memchr(b'<', unread.get(scanned..)?) {
            Some(found) => Some(scanned + found),
            None if unread.len() > MAX_TEXT_BYTES => Some(piece(unread)).filter(|end| *end > 0),
            None => None,
        },
        TokenKind::Section(section) => {
            let overlap = section.closing.len() - 1;
            let from = section.opening.len().max(scanned.saturating_sub(overlap));
            let found = memmem::find(unread.get(from..)?, section.closing)?;
            Some(from + found + section.closing.len())
        }
    }
}

/// How much of a text can be understood without what follows: a reference, a character, the end of a line
/// or `]]>` may only have begun.
fn piece(text: &[u8]) -> usize {
    let is_whole = |at: &usize| text.get(*at..).is_some_and(|rest| memchr(b';', rest).is_some());
    if let Some(reference) = memrchr(b'&', text).filter(|at| !is_whole(at)) {
        return reference;
    }
    let open = text.iter().rev().take(2).take_while(|byte| matches!(byte, b'\r' | b']')).count();
    let closed = text.get(..text.len() - open).unwrap_or_default();
    let last = closed.iter().rposition(|byte| !(0x80..0xC0).contains(byte));
    last.filter(|at| closed.get(*at).is_some_and(|byte| !byte.is_ascii())).unwrap_or(closed.len())
}

fn token(kind: TokenKind, bytes: &[u8], is_first: bool) -> Result<Token<'_>, StreamFault> {
    let Ok(raw) = str::from_utf8(bytes) else { return Err(fault("invalid UTF-8")) };
    match kind {
        TokenKind::Tag(_) => tag(raw),
        TokenKind::Text => text(raw).map(Token::Text),
        TokenKind::Section(section) => match section.content {
            SectionKind::Comment => Ok(Token::Aside),
            SectionKind::Declaration if is_first && raw.starts_with("<?xml ") => Ok(Token::Aside),
            SectionKind::Declaration => Err(fault("processing instruction")),
            SectionKind::CharacterData => {
                let content = raw.get(section.opening.len()..raw.len() - section.closing.len());
                let content = BytesText::from_escaped(content.unwrap_or_default()).xml10_content();
                checked(content).map(Token::Text)
            }
        },
    }
}

fn tag(raw: &str) -> Result<Token<'_>, StreamFault> {
    let content = raw.strip_prefix('<').and_then(|raw| raw.strip_suffix('>')).unwrap_or_default();
    if let Some(name) = content.strip_prefix('/') {
        return Ok(Token::End(name.trim_end_matches(is_space)));
    }
    let (content, is_empty) = match content.strip_suffix('/') {
        Some(content) => (content, true),
        None => (content, false),
    };
    if !has_spaces(content) {
        return Err(fault("no space between attributes"));
    }
    let end = content.find(is_space).unwrap_or(content.len());
    let name = content.get(..end).unwrap_or_default();
    Ok(Token::Start(StartTag { name, attributes: Attributes::new(content, end), is_empty }))
}

/// Returns `true` if a space, or nothing, comes after each value in a tag.
fn has_spaces(content: &str) -> bool {
    let mut parts = content.split_inclusive(['\'', '"']);
    let quote_of = |before: &str| before.chars().next_back().filter(|c| matches!(c, '\'' | '"'));
    while let Some(quote) = parts.next().and_then(quote_of) {
        // The value may have quotes of the other kind.
        while parts.next().is_some_and(|value| !value.ends_with(quote)) {}
        if !parts.clone().next().is_none_or(|after| after.starts_with(is_space)) {
            return false;
        }
    }
    true
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// What a text means: its lines end in `\n`, and references are replaced.
fn text(raw: &str) -> Result<Cow<'_, str>, StreamFault> {
    if is_plain(raw, |byte| matches!(byte, b'\n' | b'\t'), b'>') {
        return Ok(Cow::Borrowed(raw));
    }
    if memmem::find(raw.as_bytes(), b"]]>").is_some() {
        return Err(fault("`]]>` outside of a CDATA section"));
    }
    let lines = BytesText::from_escaped(raw).xml10_content();
    let meant = unescape(&lines).map_err(|error| fault(&error.to_string()))?;
    checked(Cow::Owned(meant.into_owned()))
}

/// What the value of an attribute means: white space is spaces, and references are replaced.
pub(in crate::xmpp) fn value(attribute: Attribute<'_>) -> Result<Cow<'_, str>, StreamFault> {
    if is_plain(&attribute.value, |_| false, b'<') {
        return Ok(attribute.value);
    }
    if memchr(b'<', attribute.value.as_bytes()).is_some() {
        return Err(fault("`<` in an attribute"));
    }
    let meant = attribute.normalized_value(XmlVersion::Implicit1_0);
    checked(meant.map_err(|error| fault(&error.to_string()))?)
}

/// Returns `true` if a text means itself: it has no references, no lines to end in another way, no characters that
/// may not be (U+FFFE is written with 0xEF), and not this byte.
fn is_plain(raw: &str, is_allowed: impl Fn(u8) -> bool, special: u8) -> bool {
    // Looking at every byte is faster than stopping at the first.
    !raw.bytes().fold(false, |found, byte| {
        let is_control = byte < b' ' && !is_allowed(byte);
        found | is_control | (byte == b'&') | (byte == 0xEF) | (byte == special)
    })
}

/// A text in which no character is that XML does not have (XML 1.0 §2.2).
fn checked(text: Cow<'_, str>) -> Result<Cow<'_, str>, StreamFault> {
    match validate_cdata(&text) {
        Ok(()) => Ok(text),
        Err(error) => Err(fault(&error.to_string())),
    }
}

pub(in crate::xmpp) fn fault(reason: &str) -> StreamFault {
    StreamFault::NotWellFormed(reason.into())
}
