//! Attribute values that are longer than the parser of tokio-xmpp accepts.
//!
//! The parser ends the connection at a name or an attribute value of more than [`MAX_TOKEN_BYTES`] bytes, and has no
//! option for this limit. The text of an element has no limit. Therefore the [`Rewriter`] moves a long attribute value
//! into the text of an additional child element before the parser reads the tag. The attribute gets a reference to that
//! child element instead. [`LongValues::restore`] moves the value back into the parsed element.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    mem,
    ops::Range,
};

use minidom::Element;

use super::{MAX_TAG_BYTES, MAX_TOKEN_BYTES};

/// Child element with a moved value.
const VALUE: &str = "value";
/// Child element that replaces an element that cannot be received.
const LEFT_OUT: &str = "left-out";

/// Rewriting of the long attribute values in the input of one client.
#[derive(Clone, Debug)]
pub(super) struct LongValues {
    /// Namespace of the child elements. It is secret, so that other entities cannot forge a moved value.
    namespace: String,
}

/// Rewriter of the input of one connection.
pub(super) struct Rewriter {
    namespace: String,
    place: DocumentPosition,
    /// Current tag, cut off after [`MAX_TAG_BYTES`] bytes.
    tag: Vec<u8>,
    /// Last byte of the current tag before its closing `>`.
    last: u8,
    /// Offset of the current value in the tag.
    value: usize,
    /// Positions of the long values in the tag.
    long: Vec<Range<usize>>,
    /// Number of bytes of the current name.
    name_bytes: usize,
    /// `true` if the tag cannot be received.
    is_refused: bool,
    /// Number of open elements that are being left out: an element that cannot be received, and its descendants.
    left_out: usize,
}

/// Position of the rewriter in a document.
#[derive(Clone, Copy)]
enum DocumentPosition {
    Text,
    Tag,
    Value(u8),
    /// The rest of the input is passed on unchanged, because a comment or a CDATA section occurred. XMPP servers send
    /// neither.
    Unchanged,
}

impl LongValues {
    /// Creates an instance with a namespace of its own.
    pub(super) fn new() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self { namespace: format!("urn:uuid:{:016x}{:016x}", random(), random()) }
    }

    pub(super) fn rewriter(&self) -> Rewriter {
        Rewriter {
            namespace: self.namespace.clone(),
            place: DocumentPosition::Text,
            tag: Vec::new(),
            last: 0,
            value: 0,
            long: Vec::new(),
            name_bytes: 0,
            is_refused: false,
            left_out: 0,
        }
    }

    /// Restores the long values of an element. Returns `false` if a part of the element is left out, because this part
    /// cannot be received.
    pub(super) fn restore(&self, element: &mut Element) -> bool {
        let mut values = Vec::new();
        while let Some(value) = element.remove_child(VALUE, self.namespace.as_str()) {
            values.push(value.text());
        }
        if !values.is_empty() {
            for (_, value) in element.attrs_mut() {
                let number = value.strip_prefix(&self.namespace).and_then(|at| at.parse().ok());
                if let Some(long) = number.and_then(|number: usize| values.get_mut(number)) {
                    *value = mem::take(long);
                }
            }
        }
        let mut is_whole = !element.is(LEFT_OUT, self.namespace.as_str());
        while element.remove_child(LEFT_OUT, self.namespace.as_str()).is_some() {
            is_whole = false;
        }
        element.children_mut().fold(is_whole, |is_whole, child| self.restore(child) && is_whole)
    }
}

impl Rewriter {
    /// Appends the rewritten input for the parser. The beginning of an incomplete tag is buffered.
    pub(super) fn rewrite(&mut self, bytes: &[u8], output: &mut VecDeque<u8>) {
        for byte in bytes {
            match self.place {
                DocumentPosition::Text if *byte == b'<' => {
                    self.place = DocumentPosition::Tag;
                    self.push(*byte);
                }
                DocumentPosition::Text if self.left_out > 0 => {}
                DocumentPosition::Text | DocumentPosition::Unchanged => output.push_back(*byte),
                DocumentPosition::Tag => {
                    self.push(*byte);
                    self.read_in_tag(*byte, output);
                }
                DocumentPosition::Value(quote) => {
                    if *byte == quote {
                        self.end_value();
                    }
                    self.push(*byte);
                }
            }
        }
    }

    fn push(&mut self, byte: u8) {
        self.last = if byte == b'>' { self.last } else { byte };
        match self.tag.len() < MAX_TAG_BYTES {
            true => self.tag.push(byte),
            false => self.is_refused = true,
        }
    }

    fn read_in_tag(&mut self, byte: u8, output: &mut VecDeque<u8>) {
        match byte {
            b'!' if self.tag.len() == 2 => {
                self.place = DocumentPosition::Unchanged;
                output.extend(self.tag.drain(..));
            }
            b'>' => self.end_tag(output),
            b'"' | b'\'' => {
                self.place = DocumentPosition::Value(byte);
                self.value = self.tag.len();
            }
            b'=' | b'/' => self.name_bytes = 0,
            _ if byte.is_ascii_whitespace() => self.name_bytes = 0,
            _ => {
                self.name_bytes += 1;
                self.is_refused |= self.name_bytes > MAX_TOKEN_BYTES;
            }
        }
    }

    fn end_value(&mut self) {
        self.place = DocumentPosition::Tag;
        self.name_bytes = 0;
        let value = self.value..self.tag.len();
        if value.len() > MAX_TOKEN_BYTES {
            self.is_refused |= self.is_namespace(value.start);
            self.long.push(value);
        }
    }

    /// Returns `true` if the value at this offset belongs to an `xmlns` attribute.
    fn is_namespace(&self, value: usize) -> bool {
        let before = self.tag.get(..value.saturating_sub(1)).unwrap_or_default();
        let before = before.trim_ascii_end();
        let before = before.strip_suffix(b"=").unwrap_or(before).trim_ascii_end();
        let name = before.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
        name == b"xmlns" || name.starts_with(b"xmlns:")
    }

    fn end_tag(&mut self, output: &mut VecDeque<u8>) {
        let (tag, long) = (mem::take(&mut self.tag), mem::take(&mut self.long));
        let is_refused = mem::take(&mut self.is_refused);
        self.place = DocumentPosition::Text;
        self.name_bytes = 0;
        let is_end = tag.starts_with(b"</");
        let is_open = !is_end && self.last != b'/';
        if self.left_out > 0 {
            self.left_out =
                if is_end { self.left_out - 1 } else { self.left_out + usize::from(is_open) };
        } else if is_refused && !is_end {
            self.left_out = usize::from(is_open);
            output.extend(format!("<{LEFT_OUT} xmlns='{}'/>", self.namespace).into_bytes());
        } else if long.is_empty() {
            output.extend(tag);
        } else {
            self.write(&tag, &long, is_open, output);
        }
    }

    /// Writes a start tag, with its long values as child elements.
    fn write(&self, tag: &[u8], long: &[Range<usize>], is_open: bool, output: &mut VecDeque<u8>) {
        let part = |range: Range<usize>| tag.get(range).unwrap_or_default();
        let mut written = 0;
        for (number, value) in long.iter().enumerate() {
            output.extend(part(written..value.start));
            output.extend(format!("{}{number}", self.namespace).into_bytes());
            written = value.end;
        }
        let end = tag.len() - if is_open { 1 } else { 2 };
        output.extend(part(written..end));
        output.push_back(b'>');
        for value in long {
            output.extend(format!("<{VALUE} xmlns='{}'>", self.namespace).into_bytes());
            write_text(part(value.clone()), output);
            output.extend(format!("</{VALUE}>").into_bytes());
        }
        if !is_open {
            let ends_name = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'/';
            let name = part(1..end).split(ends_name).next().unwrap_or_default();
            output.extend([b"</", name, b">"].concat());
        }
    }
}

/// Writes an attribute value as text, with its white space normalized as XML prescribes for attribute values (XML 1.0
/// §3.3.3).
fn write_text(value: &[u8], output: &mut VecDeque<u8>) {
    let mut before = 0;
    for byte in value {
        match byte {
            b'>' => output.extend(b"&gt;"),
            b'\n' if before == b'\r' => {}
            b'\t' | b'\n' | b'\r' => output.push_back(b' '),
            _ => output.push_back(*byte),
        }
        before = *byte;
    }
}

#[cfg(test)]
mod tests {
    use crate::xmpp::stanza::payload;

    use super::*;

    /// Passes `xml` through a rewriter in chunks of `bytes` bytes. Returns the parsed and restored element, and `true`
    /// if the element is complete.
    fn received(xml: &str, bytes: usize) -> (Element, bool) {
        let values = LongValues::new();
        let (mut rewriter, mut output) = (values.rewriter(), VecDeque::new());
        xml.as_bytes().chunks(bytes).for_each(|part| rewriter.rewrite(part, &mut output));
        let read = String::from_utf8(output.into()).unwrap();
        // The parser of the test has the limit too.
        let mut element = read.parse::<Element>().unwrap();
        let is_whole = values.restore(&mut element);
        (element, is_whole)
    }

    #[test]
    fn values_of_any_length_are_received() {
        let long = "v&amp;>\u{fc}\t".repeat(7_000);
        for xml in [
            format!("<x xmlns='urn:x' a='{}'/>", "v".repeat(20_000)),
            format!(
                "<x a='{0}' xmlns='urn:x' b=\"'{long}\" c='{0}'><y z = '{long}'/>t</x >",
                "v".repeat(60_000)
            ),
            format!("<p:x xmlns:p='urn:x' p:a='{long}' a='short'><p:y/></p:x>"),
            format!("<x xmlns='urn:x' a='{}' b='>'/>", "v".repeat(MAX_TOKEN_BYTES + 1)),
            format!("<x xmlns='urn:x' a='{}' b='/'>\u{fc}</x>", "v".repeat(MAX_TOKEN_BYTES)),
            format!("<x xmlns='urn:x'><{0} {0}=''/></x>", "n".repeat(MAX_TOKEN_BYTES)),
            format!("<x xmlns='urn:x'><{0}>t</{0}><{0}/></x>", "n".repeat(MAX_TOKEN_BYTES)),
        ] {
            let expected = payload::element(&xml).unwrap();
            for bytes in [1, 7, 4096, usize::MAX] {
                assert_eq!(received(&xml, bytes), (expected.clone(), true));
            }
        }
        assert!(format!("<x xmlns='urn:x' a='{long}'/>").parse::<Element>().is_err());
    }

    #[test]
    fn elements_with_long_names_are_left_out() {
        let long = "n".repeat(MAX_TOKEN_BYTES + 1);
        for part in [
            format!("<{long}/>"),
            format!("<{long} a='/'>text<y>text</y><y/></{long}>"),
            format!("<y {long}=''/>"),
            format!("<y xmlns='{long}'><y/></y>"),
            format!("<p:y a='' xmlns:p = \"{long}\"></p:y>"),
            format!("<y a='{}'><y/></y>", "v".repeat(MAX_TAG_BYTES)),
            format!("<y a='{}'/>", "v".repeat(MAX_TAG_BYTES)),
        ] {
            let xml = format!("<x xmlns='urn:x'>before<y>{part}</y>after</x>");
            let expected = "<x xmlns='urn:x'>before<y/>after</x>".parse::<Element>().unwrap();
            for bytes in [4096, usize::MAX] {
                assert_eq!(received(&xml, bytes), (expected.clone(), false));
            }
        }
    }

    /// A sender that knows the format of moved values cannot forge a moved value, because the namespace is secret.
    #[test]
    fn markers_of_other_senders_are_not_replaced() {
        let xml = format!(
            "<x xmlns='urn:x' a='{}'><value>other</value><left-out/></x>",
            "v".repeat(20_000)
        );
        assert_eq!(received(&xml, usize::MAX), (payload::element(&xml).unwrap(), true));
        let section = "<x xmlns='urn:x'><![CDATA[<y a='>]]><y/></x>";
        assert_eq!(received(section, 1), (section.parse::<Element>().unwrap(), true));
    }
}
