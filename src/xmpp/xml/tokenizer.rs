//! Tokenizer of XML: splits bytes into tags and text.
//!
//! quick-xml finds the ends of tags and their attributes. This module checks everything that quick-xml does not check,
//! so that each accepted token can be written as XML again. XML declarations and comments are skipped. Anything else
//! that RFC 6120 §11 prohibits is a fault.

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

/// Maximum number of bytes of one tag.
const MAX_TOKEN_BYTES: usize = 4 * 1024 * 1024;
/// Length above which text is returned in pieces.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Token of a document.
pub(in crate::xmpp) enum Token<'a> {
    Start(StartTag<'a>),
    /// End tag; the name has its prefix.
    End(&'a str),
    /// Text with resolved references.
    Text(Cow<'a, str>),
    /// A comment, or the XML declaration.
    Skipped,
}

/// Start tag, `<name attributes>` or `<name attributes/>`.
pub(in crate::xmpp) struct StartTag<'a> {
    /// Name with its prefix.
    pub(in crate::xmpp) name: &'a str,
    pub(in crate::xmpp) attributes: Attributes<'a>,
    pub(in crate::xmpp) is_empty: bool,
}

/// Buffer of bytes that are not returned as tokens yet.
#[derive(Default)]
pub(in crate::xmpp) struct Tokenizer {
    buffer: Vec<u8>,
    consumed: usize,
    /// Kind of an incomplete token.
    incomplete: Option<TokenKind>,
    /// Number of bytes of the incomplete token that were searched for its end.
    scanned: usize,
    /// `true` after the first token.
    has_started: bool,
}

#[derive(Clone, Copy)]
enum TokenKind {
    Tag(ElementParser),
    Text,
    Section(&'static MarkupSection),
}

/// XML declaration, comment or CDATA section: a token with fixed start and end marks, and without markup between the
/// marks.
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
    /// Returns a tokenizer for a part of a document other than its beginning.
    pub(in crate::xmpp) fn of(part: Vec<u8>) -> Self {
        Self { buffer: part, has_started: true, ..Self::default() }
    }

    /// Returns the bytes of the last token, which has the length `bytes`.
    pub(in crate::xmpp) fn last(&self, bytes: usize) -> &[u8] {
        self.consumed
            .checked_sub(bytes)
            .and_then(|at| self.buffer.get(at..self.consumed))
            .unwrap_or_default()
    }

    /// Removes the consumed bytes, and returns the buffer for appending received bytes.
    pub(in crate::xmpp) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        &mut self.buffer
    }

    /// Returns the next token and its number of bytes; `None` if the token is incomplete.
    pub(in crate::xmpp) fn next(&mut self) -> Result<Option<(Token<'_>, usize)>, StreamFault> {
        let unread = self.buffer.get(self.consumed..).unwrap_or_default();
        let Some(mut kind) =
            self.incomplete.map_or_else(|| begin(unread), |kind| Ok(Some(kind)))?
        else {
            return Ok(None);
        };
        let Some(length) = end(&mut kind, unread, self.scanned) else {
            if unread.len() > MAX_TOKEN_BYTES {
                let text = format!("a tag or a reference has at most {MAX_TOKEN_BYTES} bytes");
                return Err(fault(&text));
            }
            self.incomplete = Some(kind);
            self.scanned = unread.len();
            return Ok(None);
        };
        let is_first = !std::mem::replace(&mut self.has_started, true);
        self.incomplete = None;
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

/// Returns the end of a token; `scanned` bytes were searched before.
fn end(kind: &mut TokenKind, unread: &[u8], scanned: usize) -> Option<usize> {
    match kind {
        TokenKind::Tag(parser) => {
            let found = parser.feed(unread.get(scanned..)?)?;
            Some(scanned + found + 1)
        }
        TokenKind::Text => match memchr(b'<', unread.get(scanned..)?) {
            Some(found) => Some(scanned + found),
            None if unread.len() > MAX_TEXT_BYTES => {
                Some(splittable_len(unread)).filter(|end| *end > 0)
            }
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

/// Returns the length of the beginning of a text that can be parsed before more bytes arrive. The rest of the text may
/// be an incomplete reference, character, line end or `]]>`.
fn splittable_len(text: &[u8]) -> usize {
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
            SectionKind::Comment => Ok(Token::Skipped),
            SectionKind::Declaration if is_first && raw.starts_with("<?xml ") => Ok(Token::Skipped),
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

/// Returns `true` if each value in a tag is followed by a space or by the end of the tag.
fn has_spaces(content: &str) -> bool {
    let mut parts = content.split_inclusive(['\'', '"']);
    let quote_of = |before: &str| before.chars().next_back().filter(|c| matches!(c, '\'' | '"'));
    while let Some(quote) = parts.next().and_then(quote_of) {
        // The value may contain quotes of the other kind.
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

/// Returns a text with normalized line ends and resolved references.
fn text(raw: &str) -> Result<Cow<'_, str>, StreamFault> {
    if is_plain(raw, |byte| matches!(byte, b'\n' | b'\t'), b'>') {
        return Ok(Cow::Borrowed(raw));
    }
    if memmem::find(raw.as_bytes(), b"]]>").is_some() {
        return Err(fault("`]]>` outside of a CDATA section"));
    }
    let lines = BytesText::from_escaped(raw).xml10_content();
    let resolved = unescape(&lines).map_err(|error| fault(&error.to_string()))?;
    checked(Cow::Owned(resolved.into_owned()))
}

/// Returns the value of an attribute with normalized white space and resolved references.
pub(in crate::xmpp) fn value(attribute: Attribute<'_>) -> Result<Cow<'_, str>, StreamFault> {
    if is_plain(&attribute.value, |_| false, b'<') {
        return Ok(attribute.value);
    }
    if memchr(b'<', attribute.value.as_bytes()).is_some() {
        return Err(fault("`<` in an attribute"));
    }
    let resolved = attribute.normalized_value(XmlVersion::Implicit1_0);
    checked(resolved.map_err(|error| fault(&error.to_string()))?)
}

/// Returns `true` if a text needs no conversion or check. Such a text contains no references, and no control characters
/// except those for which `is_allowed` returns `true`. It contains neither the byte `special` nor the byte 0xEF, with
/// which prohibited characters such as U+FFFE begin.
fn is_plain(raw: &str, is_allowed: impl Fn(u8) -> bool, special: u8) -> bool {
    // Checking every byte is faster than stopping at the first hit.
    !raw.bytes().fold(false, |found, byte| {
        let is_control = byte < b' ' && !is_allowed(byte);
        found | is_control | (byte == b'&') | (byte == 0xEF) | (byte == special)
    })
}

/// Returns the text unless it has a character that XML does not allow (XML 1.0 §2.2).
fn checked(text: Cow<'_, str>) -> Result<Cow<'_, str>, StreamFault> {
    match validate_cdata(&text) {
        Ok(()) => Ok(text),
        Err(error) => Err(fault(&error.to_string())),
    }
}

pub(in crate::xmpp) fn fault(reason: &str) -> StreamFault {
    StreamFault::NotWellFormed(reason.into())
}
