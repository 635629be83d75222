//! Builder of stanzas from tokens, within limits.

use std::{borrow::Cow, collections::BTreeMap};

use minidom::Element;
use rxml::{Namespace, NcName, NcNameStr};

use crate::xmpp::stanza::{
    envelope::Envelope,
    ns::{self, XML, XMLNS},
};

use super::{
    stream::{StanzaLimits, StreamElement, StreamFault},
    tokenizer::{StartTag, Token, fault, value},
};

/// Maximum number of bytes of an attribute in the envelope of a rejected stanza; a longer attribute is left out.
const MAX_HEADER_VALUE_BYTES: usize = 65_536;
/// Maximum number of namespace declarations that apply to an element. The time of a lookup is proportional to the
/// number of declarations.
const MAX_DECLARATIONS: usize = 256;
/// Maximum number of bytes of the names of all open elements.
const MAX_PATH_BYTES: usize = 4 * 1024 * 1024;

/// Declaration of a namespace: its prefix, or `None` for the default namespace, and its name.
pub(in crate::xmpp) type Declaration = (Option<String>, String);

/// Builder of elements from tokens.
pub(in crate::xmpp) struct ElementBuilder {
    limits: StanzaLimits,
    /// Number of open elements of the document, including the stream element.
    depth: usize,
    /// Names of the open elements as written, each after a slash.
    path: String,
    /// Namespace declarations in force, outermost first.
    scope: Vec<Declaration>,
    /// Number of namespace declarations of the stream element.
    stream_scope: usize,
    /// Open elements of the stanza, each with the length that `scope` had before the element's own declarations.
    open: Vec<(Element, usize)>,
    bytes: usize,
    refused: Option<(Envelope, String)>,
}

/// Error of a start tag.
enum TagError {
    /// The tag exceeds a limit; the text has the limit's name and value.
    Excess(String),
    Fault(StreamFault),
}

impl From<StreamFault> for TagError {
    fn from(fault: StreamFault) -> Self {
        Self::Fault(fault)
    }
}

impl ElementBuilder {
    pub(in crate::xmpp) fn new(limits: StanzaLimits) -> Self {
        Self {
            limits,
            depth: 0,
            path: String::new(),
            scope: Vec::new(),
            stream_scope: 0,
            open: Vec::new(),
            bytes: 0,
            refused: None,
        }
    }

    /// Returns a builder of elements of a stream that was opened with the namespace declarations `scope`.
    pub(in crate::xmpp) fn within(limits: StanzaLimits, scope: Vec<Declaration>) -> Self {
        let stream_scope = scope.len();
        Self { depth: 1, path: "/stream".into(), scope, stream_scope, ..Self::new(limits) }
    }

    /// Returns the namespace declarations in force.
    pub(in crate::xmpp) fn scope(&self) -> &[Declaration] {
        &self.scope
    }

    /// Returns `true` if a stanza has begun and is not rejected.
    pub(in crate::xmpp) fn is_in_stanza(&self) -> bool {
        !self.open.is_empty()
    }

    /// Returns the number of bytes of the last stanza.
    pub(in crate::xmpp) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a token of `bytes` bytes. Returns the element of the stream that the token completes, if any.
    pub(in crate::xmpp) fn take(
        &mut self,
        token: Token<'_>,
        bytes: usize,
    ) -> Result<Option<StreamElement>, StreamFault> {
        match token {
            Token::Start(tag) => self.start(&tag, bytes),
            Token::End(name) => self.end(name, bytes),
            Token::Text(text) => self.text(text, bytes),
            Token::Skipped => {
                self.count(bytes);
                Ok(None)
            }
        }
    }

    fn start(
        &mut self,
        tag: &StartTag<'_>,
        bytes: usize,
    ) -> Result<Option<StreamElement>, StreamFault> {
        if tag.name.contains('/') {
            return Err(fault("invalid element name"));
        }
        self.depth += 1;
        self.path.push('/');
        self.path.push_str(tag.name);
        if self.path.len() > MAX_PATH_BYTES {
            return Err(fault(&format!(
                "nesting: the names of nested elements have at most {MAX_PATH_BYTES} bytes together"
            )));
        }
        if self.depth == 1 {
            return self.open_stream(tag).map(Some);
        }
        if self.depth == 2 {
            self.bytes = 0;
        }
        self.bytes += bytes;
        if self.refused.is_none() {
            let outer = self.scope.len();
            match self.element(tag) {
                Ok(element) => self.open.push((element, outer)),
                Err(TagError::Excess(reason)) => self.refuse(reason, Some(tag)),
                Err(TagError::Fault(fault)) => return Err(fault),
            }
        }
        if tag.is_empty { self.end(tag.name, 0) } else { Ok(None) }
    }

    fn text(
        &mut self,
        text: Cow<'_, str>,
        bytes: usize,
    ) -> Result<Option<StreamElement>, StreamFault> {
        if self.depth == 0 && !text.chars().all(char::is_whitespace) {
            return Err(fault("text outside of the stream element"));
        }
        self.count(bytes);
        if let Some((element, _)) = self.open.last_mut() {
            element.append_text(text);
        }
        Ok(None)
    }

    fn end(&mut self, name: &str, bytes: usize) -> Result<Option<StreamElement>, StreamFault> {
        let parent_len = self.path.strip_suffix(name).and_then(|path| path.strip_suffix('/'));
        let Some(parent_len) = parent_len.map(str::len).filter(|_| !name.contains('/')) else {
            return Err(fault("mismatched end tag"));
        };
        self.path.truncate(parent_len);
        self.depth -= 1;
        self.count(bytes);
        Ok(self.close())
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes > self.limits.max_bytes && !self.open.is_empty() {
            self.refuse(self.limits.bytes_exceeded(), None);
        }
    }

    /// Rejects the stanza. The rest of the stanza is read, but only its envelope is kept.
    fn refuse(&mut self, reason: String, tag: Option<&StartTag<'_>>) {
        let mut header = match (self.open.first(), tag) {
            (Some((stanza, _)), _) => Envelope::of(stanza),
            (None, tag) => tag.map(header).unwrap_or_default(),
        };
        for value in [&mut header.kind, &mut header.id, &mut header.from, &mut header.to] {
            value.take_if(|value| value.len() > MAX_HEADER_VALUE_BYTES);
        }
        self.refused = Some((header, reason));
        self.scope.truncate(self.stream_scope);
        self.open.clear();
    }

    fn open_stream(&mut self, tag: &StartTag<'_>) -> Result<StreamElement, StreamFault> {
        let header = match self.element(tag) {
            Ok(header) if header.is("stream", ns::STREAMS) && !tag.is_empty => header,
            Err(TagError::Fault(fault)) => return Err(fault),
            Ok(_) | Err(TagError::Excess(_)) => return Err(fault("not an XMPP stream")),
        };
        self.stream_scope = self.scope.len();
        Ok(StreamElement::Opened(header.attr("id").map(str::to_owned)))
    }

    /// Resolves the namespaces of a start tag, and adds its declarations to the scope.
    fn element(&mut self, tag: &StartTag<'_>) -> Result<Element, TagError> {
        if self.depth > 1 && self.bytes > self.limits.max_bytes {
            return Err(TagError::Excess(self.limits.bytes_exceeded()));
        }
        if self.depth > self.limits.max_depth + 1 {
            let max = self.limits.max_depth;
            return Err(TagError::Excess(format!("nesting: a stanza has at most {max} levels")));
        }
        let mut prefixes = BTreeMap::new();
        let mut attributes = Vec::new();
        for attribute in tag.attributes.clone() {
            let attribute = attribute.map_err(|error| fault(&error.to_string()))?;
            let (prefix, name) = split(attribute.key.0);
            let value = value(attribute)?;
            if prefix.is_none() && name == "xmlns" {
                self.declare(None, &value, &mut prefixes)?;
            } else if prefix == Some("xmlns") {
                self.declare(Some(name), &value, &mut prefixes)?;
            } else {
                attributes.push((prefix, name, value));
            }
        }
        if self.scope.len() > MAX_DECLARATIONS {
            return Err(TagError::Excess(format!(
                "namespaces: at most {MAX_DECLARATIONS} declarations may apply to an element"
            )));
        }
        let (prefix, name) = split(tag.name);
        NcNameStr::from_str(name).map_err(|_| fault("invalid element name"))?;
        let mut element = Element::bare(name, self.namespace(prefix)?);
        for (prefix, name, value) in attributes {
            let name = NcName::try_from(name).map_err(|_| fault("invalid element name"))?;
            let namespace = match prefix {
                None => Namespace::NONE,
                Some(_) => Namespace::from(self.namespace(prefix)?.to_owned()),
            };
            if prefix.is_some() && element.attr_ns(&namespace, &name).is_some() {
                return Err(fault("duplicate attribute").into());
            }
            element.set_attr(namespace, name, value.into_owned());
        }
        element.prefixes = prefixes.into();
        Ok(element)
    }

    /// Adds a declaration to the scope, if Namespaces in XML 1.0 §3 allows it.
    ///
    /// COMPAT: Prosody 0.12 and ejabberd 23.01 forward `<xml:x/>` as `<x xmlns='…'/>` with the namespace of `xml`. The
    /// specification does not allow that, but any user can make these servers write it.
    fn declare(
        &mut self,
        prefix: Option<&str>,
        namespace: &str,
        prefixes: &mut BTreeMap<Option<String>, String>,
    ) -> Result<(), StreamFault> {
        let is_allowed = match prefix {
            None => namespace != XMLNS,
            Some("xml") => namespace == XML,
            Some("xmlns") => false,
            Some(prefix) => {
                !["", XML, XMLNS].contains(&namespace) && NcNameStr::from_str(prefix).is_ok()
            }
        };
        if !is_allowed {
            return Err(fault("invalid namespace declaration"));
        }
        let prefix = prefix.map(str::to_owned);
        self.scope.push((prefix.clone(), namespace.to_owned()));
        prefixes.insert(prefix, namespace.to_owned());
        Ok(())
    }

    fn namespace(&self, prefix: Option<&str>) -> Result<&str, StreamFault> {
        if prefix == Some("xml") {
            return Ok(XML);
        }
        let bound = self.scope.iter().rev().find(|(declared, _)| declared.as_deref() == prefix);
        match (bound, prefix) {
            (Some((_, namespace)), _) => Ok(namespace),
            (None, None) => Ok(""),
            (None, Some(_)) => Err(fault("undeclared prefix")),
        }
    }

    /// Closes the innermost open element. If this completes a stanza or the stream, returns the stanza or the end of
    /// the stream.
    fn close(&mut self) -> Option<StreamElement> {
        if let Some((element, outer)) = self.open.pop() {
            self.scope.truncate(outer);
            match self.open.last_mut() {
                Some((parent, _)) => parent.append_child(element),
                None => return Some(StreamElement::Stanza(element)),
            };
        }
        match self.depth {
            0 => Some(StreamElement::Closed),
            1 => self.refused.take().map(|(header, reason)| StreamElement::Refused(header, reason)),
            _ => None,
        }
    }
}

/// Returns the envelope of a stanza whose start tag exceeds a limit.
fn header(tag: &StartTag<'_>) -> Envelope {
    let mut header = Envelope { name: split(tag.name).1.to_owned(), ..Envelope::default() };
    for attribute in tag.attributes.clone().flatten() {
        let field = match attribute.key.0 {
            "type" => &mut header.kind,
            "id" => &mut header.id,
            "from" => &mut header.from,
            "to" => &mut header.to,
            _ => continue,
        };
        *field = value(attribute).ok().map(Cow::into_owned);
    }
    header
}

/// Splits a name into its prefix and local name.
fn split(name: &str) -> (Option<&str>, &str) {
    match name.split_once(':') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    }
}
