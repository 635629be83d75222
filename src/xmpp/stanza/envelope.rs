//! Envelope of a stanza (RFC 6120 §8): the attributes that a reply needs. If a stanza is rejected while it is parsed,
//! for example because it is too large, its envelope is read from its start tag.

use jid::Jid;
use minidom::Element;

use crate::xmpp::{stanza::ns, xml::writer::ElementWriter};

/// Attributes of a stanza that a reply needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Local name: `iq`, `message`, `presence`, or an unknown name.
    pub name: String,
    /// The attribute `type`.
    pub kind: Option<String>,
    /// The attribute `id`.
    pub id: Option<String>,
    /// The attribute `from`.
    pub from: Option<String>,
    /// The attribute `to`.
    pub to: Option<String>,
    /// Outer elements of a request of XEP-0060 (`<pubsub/>` and its first child), which an error reply repeats (RFC
    /// 6120 §8.3.1).
    pub(crate) request: Option<Box<str>>,
}

/// Maximum number of bytes of a request that an error reply repeats; larger requests are not repeated.
const MAX_REPEATED_BYTES: usize = 512;

/// Names of all requests of XEP-0060.
const ACTIONS: &[&str] = &[
    "affiliations",
    "collection",
    "configure",
    "create",
    "default",
    "delete",
    "items",
    "options",
    "publish",
    "purge",
    "retract",
    "subscribe",
    "subscriptions",
    "unsubscribe",
];

/// Returns the `<pubsub/>` of a request with its first child and the child's attributes, without items, payloads and
/// forms.
///
/// COMPAT: gloox needs the repeated element to match an error reply to its request.
fn repeated(stanza: &Element) -> Option<Box<str>> {
    let pubsub = stanza.children().find(|child| child.name() == "pubsub")?;
    let namespace = pubsub.ns();
    if !matches!(namespace.as_str(), ns::PUBSUB | ns::PUBSUB_OWNER) {
        return None;
    }
    let action = pubsub.children().find(|child| child.ns() == namespace)?;
    let mut tag = ElementWriter::new(ACTIONS.iter().find(|name| **name == action.name())?);
    for ((namespace, name), value) in action.attrs() {
        let (namespace, name): (&str, &str) = (namespace.as_ref(), name.as_ref());
        if namespace.is_empty() {
            tag = tag.attr(name, value);
        }
    }
    let repeated = ElementWriter::ns("pubsub", &namespace).child(tag).to_string();
    (repeated.len() <= MAX_REPEATED_BYTES).then(|| repeated.into())
}

impl Envelope {
    /// Returns the envelope of an element.
    #[must_use]
    pub fn of(element: &Element) -> Self {
        let attr = |name: &str| element.attr(name).map(str::to_owned);
        Self {
            name: element.name().to_owned(),
            kind: attr("type"),
            id: attr("id"),
            from: attr("from"),
            to: attr("to"),
            request: repeated(element),
        }
    }

    /// Returns `true` if a reply is required: for an IQ that is neither a result nor an error (RFC 6120 §8.2.3).
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.name == "iq" && !matches!(self.kind.as_deref(), Some("result" | "error"))
    }

    /// Returns the sender's JID if `from` is a JID. The JID is in its identity form ([`Jid::stamped`]), which is the
    /// same for all spellings of one address.
    #[must_use]
    pub fn sender(&self) -> Option<Jid> {
        Jid::stamped(self.from.as_deref()?).ok()
    }

    /// Returns a result with this content.
    #[must_use]
    pub fn result(&self, content: Option<ElementWriter>) -> String {
        self.answer("result").children(content).to_string()
    }

    /// Returns an error reply.
    #[must_use]
    pub fn error(&self, error: &StanzaError) -> String {
        self.answer("error").children(self.request.as_deref()).child(error.tag()).to_string()
    }

    /// Returns an error reply with conditions only: without URI, text and repeated request.
    #[must_use]
    pub fn short_error(&self, error: &StanzaError) -> String {
        let detail = match &error.detail {
            ErrorDetail::Feature(name) => ErrorDetail::Feature(name),
            ErrorDetail::None | ErrorDetail::Compared(_) | ErrorDetail::Uri(_) => ErrorDetail::None,
        };
        let short = StanzaError { detail, text: None, ..error.clone() };
        self.answer("error").child(short.tag()).to_string()
    }

    /// Returns an error reply that also contains `content`, which is the element with the failed entries (§8.8.2.4,
    /// §8.9.2.4).
    #[must_use]
    pub fn error_with(&self, content: ElementWriter, error: &StanzaError) -> String {
        self.answer("error").child(content).child(error.tag()).to_string()
    }

    fn answer(&self, kind: &str) -> ElementWriter {
        let name = if self.name == "message" { "message" } else { "iq" };
        ElementWriter::new(name)
            .attr("type", kind)
            .attr_if("from", self.to.as_deref())
            .attr_if("to", self.from.as_deref())
            .attr_if("id", self.id.as_deref())
    }
}

/// Detail of a stanza error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorDetail {
    /// No detail.
    None,
    /// Failed comparison of content versions (XEP-0395 §3.3). The value is the content version of the newest item, if
    /// there is an item.
    Compared(Option<Box<str>>),
    /// Feature that the condition `unsupported` names.
    Feature(&'static str),
    /// URI in the defined condition (RFC 6120 §8.3.3.5).
    Uri(Box<str>),
}

/// Stanza error (RFC 6120 §8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StanzaError {
    /// Error type: `auth`, `cancel`, `modify` or `wait`.
    pub kind: &'static str,
    /// Defined condition.
    pub condition: &'static str,
    /// Application-specific condition, and its namespace.
    pub application: Option<(&'static str, &'static str)>,
    /// Detail of a condition.
    pub detail: ErrorDetail,
    /// Text for users.
    pub text: Option<Box<str>>,
}

impl StanzaError {
    /// Returns an error with a condition only.
    #[must_use]
    pub const fn new(kind: &'static str, condition: &'static str) -> Self {
        Self { kind, condition, application: None, detail: ErrorDetail::None, text: None }
    }

    /// Adds a condition of XEP-0060.
    #[must_use]
    pub const fn pubsub(mut self, condition: &'static str) -> Self {
        self.application = Some((condition, ns::PUBSUB_ERRORS));
        self
    }

    /// Adds a condition of ad-hoc commands (XEP-0050 §4.4).
    #[must_use]
    pub const fn command(mut self, condition: &'static str) -> Self {
        self.application = Some((condition, ns::COMMANDS));
        self
    }

    /// Adds a text for users.
    #[must_use]
    pub fn text(mut self, text: impl Into<Box<str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    fn tag(&self) -> ElementWriter {
        let (mut uri, mut feature, mut compared) = ("", None, None);
        match &self.detail {
            ErrorDetail::None => {}
            ErrorDetail::Compared(newest) => {
                let failed = ElementWriter::ns("compare-and-publish-failed", ns::CAP);
                compared = Some(failed.attr_if("cap-id", newest.as_deref()));
            }
            ErrorDetail::Feature(name) => feature = Some(*name),
            ErrorDetail::Uri(address) => uri = address,
        }
        let application = self.application.map(|(name, namespace)| {
            ElementWriter::ns(name, namespace).attr_if("feature", feature)
        });
        let text =
            self.text.as_deref().map(|text| ElementWriter::ns("text", ns::STANZAS).text(text));
        ElementWriter::new("error")
            .attr("type", self.kind)
            .child(ElementWriter::ns(self.condition, ns::STANZAS).text(uri))
            .children(text)
            .children(application)
            .children(compared)
    }
}
