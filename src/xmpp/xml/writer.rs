//! Writing XML: elements of our own making ([`ElementWriter`]), and elements of strangers ([`stand_alone`]).
//!
//! minidom's own writer panics on some prefixes that a stranger may choose, so it is not used.

use std::fmt::{self, Write};

use minidom::{Element, Node};

use crate::xmpp::stanza::ns::XML;

/// What most elements need, so that a string of them need not grow.
const TAG_BYTES: usize = 256;

/// An element in the making: first its attributes, then its content. Names and namespaces are ours;
/// values and text may be anyone's.
#[derive(Clone, Debug)]
pub struct ElementWriter {
    name: &'static str,
    /// All of it but its end.
    written: String,
    has_content: bool,
}

impl ElementWriter {
    /// An element in the namespace of its parent.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let mut written = String::with_capacity(TAG_BYTES);
        written.push('<');
        written.push_str(name);
        Self { name, written, has_content: false }
    }

    /// An element in a namespace of its own.
    #[must_use]
    pub fn ns(name: &'static str, namespace: &str) -> Self {
        Self::new(name).attr("xmlns", namespace)
    }

    /// With an attribute.
    #[must_use]
    pub fn attr(mut self, name: &str, value: &str) -> Self {
        debug_assert!(!self.has_content, "attributes come first");
        write_attribute(name, value, &mut self.written);
        self
    }

    /// With an attribute, if there is a value.
    #[must_use]
    pub fn attr_if(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// With a child.
    #[must_use]
    pub fn child(mut self, child: impl fmt::Display) -> Self {
        self.begin_content();
        // Writing to a string cannot fail.
        let _ = write!(self.written, "{child}");
        self
    }

    /// With children.
    #[must_use]
    pub fn children<T: fmt::Display>(self, children: impl IntoIterator<Item = T>) -> Self {
        children.into_iter().fold(self, Self::child)
    }

    /// With a child that is written where it stands, which spares a string.
    #[must_use]
    pub fn with(mut self, name: &'static str, fill: impl FnOnce(Self) -> Self) -> Self {
        self.begin_content();
        self.written.push('<');
        self.written.push_str(name);
        let child = fill(Self { name, written: self.written, has_content: false });
        Self { name: self.name, written: child.finish(), has_content: true }
    }

    /// With text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        if !text.is_empty() {
            self.begin_content();
            escape_text(text, &mut self.written);
        }
        self
    }

    /// The number of bytes written.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.written.len() + self.end().iter().map(|part| part.len()).sum::<usize>()
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

/// Appends the value of an attribute, which stands in single quotes. White space other than spaces
/// is escaped, or parsers would make it spaces.
pub(crate) fn escape_attribute(value: &str, out: &mut String) {
    escape(value, |byte| matches!(byte, b'\'' | b'"' | b'\n' | b'\t'), out);
}

/// Appends a text.
pub(crate) fn escape_text(text: &str, out: &mut String) {
    escape(text, |_| false, out);
}

/// Appends a text; escapes what must be anywhere, and these bytes too.
fn escape(text: &str, too: impl Fn(u8) -> bool, out: &mut String) {
    let is_escaped = |byte| matches!(byte, b'&' | b'<' | b'>' | b'\r') || too(byte);
    // Looking at every byte is faster than stopping at the first, and most texts have none.
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

/// Prefixes in scope, outermost first; an inner one hides an outer one of the same name.
pub type Prefixes = Vec<(String, String)>;

/// Adds the prefixes that an element declares to those in scope.
pub fn declare(element: &Element, prefixes: &mut Prefixes) {
    for (prefix, namespace) in element.prefixes.declared_prefixes() {
        if let Some(prefix) = prefix.as_deref().filter(|prefix| *prefix != "xml") {
            prefixes.push((prefix.to_owned(), namespace.clone()));
        }
    }
}

/// The language that an element says it is in.
#[must_use]
pub fn language(element: &Element) -> Option<&str> {
    element.attr_ns(XML, "lang")
}

/// Writes an element so that it means the same anywhere: every namespace is declared in it.
///
/// Recurses once per nesting level; whoever reads elements limits their depth.
#[must_use]
pub fn stand_alone(element: &Element) -> String {
    stand_alone_in(element, &Prefixes::new(), None)
}

/// Writes an element so that it means the same anywhere as it does among these prefixes, for its text
/// may use them, and in this language, if it does not say another.
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

/// `parent` is the default namespace in force; `extra` are declarations, and `language` is a language,
/// to add to this element.
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
    // Its namespace cannot be declared, only meant by its prefix.
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

/// A prefix that stands for a namespace here; one is declared if there is none.
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
