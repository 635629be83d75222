//! Writer of XML: elements of gjallar ([`ElementWriter`]), and received elements ([`stand_alone`]).
//!
//! minidom's own writer panics on some prefixes that a sender may choose, so it is not used.

use std::fmt::{self, Write};

use minidom::{Element, Node};

use crate::xmpp::stanza::ns::XML;
use gjallar_pubsub::relayed_len;

/// Initial capacity in bytes, enough for most elements.
const TAG_BYTES: usize = 256;

/// Element that is being written: first attributes, then content. Names and namespaces are constants of gjallar; values
/// and text may come from any sender.
#[derive(Clone, Debug)]
pub struct ElementWriter {
    name: &'static str,
    /// Text of the element without its end tag.
    written: String,
    has_content: bool,
}

impl ElementWriter {
    /// Starts an element in the namespace of its parent.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let mut written = String::with_capacity(TAG_BYTES);
        written.push('<');
        written.push_str(name);
        Self { name, written, has_content: false }
    }

    /// Starts an element with a namespace of its own.
    #[must_use]
    pub fn ns(name: &'static str, namespace: &str) -> Self {
        Self::new(name).attr("xmlns", namespace)
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attr(mut self, name: &str, value: &str) -> Self {
        debug_assert!(!self.has_content, "attributes come first");
        write_attribute(name, value, &mut self.written);
        self
    }

    /// Adds an attribute, if there is a value.
    #[must_use]
    pub fn attr_if(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// Adds a child.
    #[must_use]
    pub fn child(mut self, child: impl fmt::Display) -> Self {
        self.begin_content();
        // Writing to a string cannot fail.
        let _ = write!(self.written, "{child}");
        self
    }

    /// Adds children.
    #[must_use]
    pub fn children<T: fmt::Display>(self, children: impl IntoIterator<Item = T>) -> Self {
        children.into_iter().fold(self, Self::child)
    }

    /// Adds a child that `fill` writes in place, which saves a string.
    #[must_use]
    pub fn with(mut self, name: &'static str, fill: impl FnOnce(Self) -> Self) -> Self {
        self.begin_content();
        self.written.push('<');
        self.written.push_str(name);
        let child = fill(Self { name, written: self.written, has_content: false });
        Self { name: self.name, written: child.finish(), has_content: true }
    }

    /// Adds text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        if !text.is_empty() {
            self.begin_content();
            escape_text(text, &mut self.written);
        }
        self
    }

    /// Returns the maximum bytes of the element in a relayed stanza; see [`relayed_len`].
    #[must_use]
    pub fn relayed_len(&self) -> usize {
        relayed_len(&self.written) + self.end().iter().map(|part| part.len()).sum::<usize>()
    }

    fn finish(mut self) -> String {
        for part in self.end() {
            self.written.push_str(part);
        }
        self.written
    }

    fn end(&self) -> [&'static str; 3] {
        if self.has_content { ["</", self.name, ">"] } else { ["/>", "", ""] }
    }

    fn begin_content(&mut self) {
        if !self.has_content {
            self.written.push('>');
            self.has_content = true;
        }
    }
}

impl fmt::Display for ElementWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)?;
        self.end().iter().try_for_each(|part| f.write_str(part))
    }
}

/// Appends the value of an attribute in single quotes. White space other than spaces is escaped, because parsers would
/// replace it by spaces.
pub(crate) fn escape_attribute(value: &str, out: &mut String) {
    escape(value, |byte| matches!(byte, b'\'' | b'"' | b'\n' | b'\t'), out);
}

/// Appends escaped text.
pub(crate) fn escape_text(text: &str, out: &mut String) {
    escape(text, |_| false, out);
}

/// Appends a text. Escapes the characters that XML requires to be escaped, and the bytes that match `extra`.
fn escape(text: &str, extra: impl Fn(u8) -> bool, out: &mut String) {
    let is_escaped = |byte| matches!(byte, b'&' | b'<' | b'>' | b'\r') || extra(byte);
    // Checking every byte is faster than stopping at the first hit, and most texts need no escape.
    if !text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
        out.push_str(text);
        return;
    }
    let mut rest = text;
    while let Some(at) = rest.bytes().position(is_escaped) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let mut chars = from.chars();
        out.push_str(match chars.next() {
            Some('&') => "&amp;",
            Some('<') => "&lt;",
            Some('>') => "&gt;",
            Some('\r') => "&#13;",
            Some('\'') => "&#39;",
            Some('"') => "&#34;",
            Some('\n') => "&#10;",
            _ => "&#9;",
        });
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// Prefixes in scope with their namespaces, outermost first. An inner prefix hides an outer prefix of the same name.
pub type Prefixes = Vec<(String, String)>;

/// Appends the prefixes that an element declares to `prefixes`.
pub fn declare(element: &Element, prefixes: &mut Prefixes) {
    for (prefix, namespace) in element.prefixes.declared_prefixes() {
        if let Some(prefix) = prefix.as_deref().filter(|prefix| *prefix != "xml") {
            prefixes.push((prefix.to_owned(), namespace.clone()));
        }
    }
}

/// Returns the language of an element, if the element states it.
#[must_use]
pub fn language(element: &Element) -> Option<&str> {
    element.attr_ns(XML, "lang")
}

/// Writes an element with declarations of all its namespaces, so that its meaning does not depend on the context.
///
/// Recurses once per nesting level; the depth of elements is limited when they are read.
#[must_use]
pub fn stand_alone(element: &Element) -> String {
    stand_alone_in(element, &Prefixes::new(), None)
}

/// Writes an element so that its meaning in `scope` does not depend on the context. Declares the prefixes of the scope,
/// because text in the element may use them. States the language `inherited`, if the element states no language.
#[must_use]
pub fn stand_alone_in(element: &Element, scope: &Prefixes, inherited: Option<&str>) -> String {
    let mut out = String::new();
    let mut declared = Prefixes::new();
    let mut visible = Prefixes::new();
    for (prefix, namespace) in scope.iter().rev() {
        if visible.iter().all(|(hidden, _)| hidden != prefix) {
            visible.push((prefix.clone(), namespace.clone()));
        }
    }
    let inherited = inherited.filter(|_| language(element).is_none());
    write_element(element, None, &visible, inherited, &mut declared, &mut out);
    out
}

/// Writes an element. `parent` is the default namespace in force, and `declared` are the prefixes in scope. The
/// prefixes `extra` and the language `language` are declared at this element.
fn write_element(
    element: &Element,
    parent: Option<&str>,
    extra: &Prefixes,
    language: Option<&str>,
    declared: &mut Prefixes,
    out: &mut String,
) {
    let outer = declared.len();
    let own_namespace = element.ns();
    // The namespace of `xml` cannot be declared, only used by its prefix.
    let is_xml = own_namespace == XML;
    let name = if is_xml { format!("xml:{}", element.name()) } else { element.name().to_owned() };
    let namespace = if is_xml { parent.unwrap_or_default() } else { &own_namespace };
    out.push('<');
    out.push_str(&name);
    if parent != Some(namespace) {
        write_attribute("xmlns", namespace, out);
    }
    let mut own = Prefixes::new();
    declare(element, &mut own);
    for (prefix, namespace) in extra {
        if own.iter().all(|(hiding, _)| hiding != prefix) {
            own.push((prefix.clone(), namespace.clone()));
        }
    }
    for (prefix, namespace) in own {
        write_attribute(&format!("xmlns:{prefix}"), &namespace, out);
        declared.push((prefix, namespace));
    }
    if let Some(language) = language {
        write_attribute("xml:lang", language, out);
    }
    for ((namespace, name), value) in element.attrs() {
        let (namespace, name): (&str, &str) = (namespace.as_ref(), name.as_ref());
        match namespace {
            "" => write_attribute(name, value, out),
            XML => {
                write_attribute(&format!("xml:{name}"), value, out);
            }
            _ => {
                let prefix = prefix_for(namespace, declared, out);
                write_attribute(&format!("{prefix}:{name}"), value, out);
            }
        }
    }
    if element.nodes().len() == 0 {
        out.push_str("/>");
    } else {
        out.push('>');
        for node in element.nodes() {
            match node {
                Node::Element(child) => {
                    write_element(child, Some(namespace), &Prefixes::new(), None, declared, out);
                }
                Node::Text(text) => escape_text(text, out),
            }
        }
        out.push_str("</");
        out.push_str(&name);
        out.push('>');
    }
    declared.truncate(outer);
}

/// Appends an attribute.
pub(crate) fn write_attribute(name: &str, value: &str, out: &mut String) {
    out.push(' ');
    out.push_str(name);
    out.push_str("='");
    escape_attribute(value, out);
    out.push('\'');
}

/// Returns a prefix for a namespace; declares a new prefix if there is none.
fn prefix_for(namespace: &str, declared: &mut Prefixes, out: &mut String) -> String {
    let bound = |prefix: &str| {
        declared.iter().rev().find(|(p, _)| p == prefix).map(|(_, namespace)| namespace.as_str())
    };
    let found = declared.iter().rev().find(|(p, n)| n == namespace && bound(p) == Some(namespace));
    if let Some((prefix, _)) = found {
        return prefix.clone();
    }
    let mut number = 0;
    while bound(&format!("ns{number}")).is_some() {
        number += 1;
    }
    let prefix = format!("ns{number}");
    write_attribute(&format!("xmlns:{prefix}"), namespace, out);
    declared.push((prefix.clone(), namespace.to_owned()));
    prefix
}
