//! The envelope of a stanza (RFC 6120 §8), read from its element or, where that is refused, from its
//! start tag alone.

use jid::Jid;
use minidom::Element;

use crate::xmpp::{stanza::ns, xml::writer::ElementWriter};

/// The start tag of a stanza, as far as an answer needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The local name: `iq`, `message`, `presence`, or something that does not belong here.
    pub name: String,
    /// The attribute `type`.
    pub kind: Option<String>,
    /// The attribute `id`.
    pub id: Option<String>,
    /// The attribute `from`.
    pub from: Option<String>,
    /// The attribute `to`.
    pub to: Option<String>,
    /// The beginning of a request of XEP-0060, which an error repeats (RFC 6120 §8.3.1).
    pub(crate) request: Option<Box<str>>,
}

/// The most bytes of a request that an error repeats; more is left out.
const MAX_REPEATED_BYTES: usize = 512;

/// The names of all requests of XEP-0060.
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

/// The `<pubsub/>` of a request with its first child and the attributes of that, without items, payloads and forms.
///
/// COMPAT: gloox finds the program that waits for an answer by what the error repeats.
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
    /// Reads the start tag of an element.
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

    /// Returns `true` if an answer is due: to an IQ that is neither a result nor an error (RFC 6120 §8.2.3).
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.name == "iq" && !matches!(self.kind.as_deref(), Some("result" | "error"))
    }

    /// The identity form of the sender's JID, if `from` is a JID.
    #[must_use]
    pub fn sender(&self) -> Option<Jid> {
        Jid::stamped(self.from.as_deref()?).ok()
    }

    /// A result with this content.
    #[must_use]
    pub fn result(&self, content: Option<ElementWriter>) -> String {
        self.answer("result").children(content).to_string()
    }

    /// An error.
    #[must_use]
    pub fn error(&self, error: &StanzaError) -> String {
        self.answer("error").children(self.request.as_deref()).child(error.tag()).to_string()
    }

    /// The conditions of an error without their address, without the text and the request.
    #[must_use]
    pub fn short_error(&self, error: &StanzaError) -> String {
        let detail = match &error.detail {
            ErrorDetail::Feature(name) => ErrorDetail::Feature(name),
            ErrorDetail::None | ErrorDetail::Compared(_) | ErrorDetail::Uri(_) => ErrorDetail::None,
        };
        let short = StanzaError { detail, text: None, ..error.clone() };
        self.answer("error").child(short.tag()).to_string()
    }

    /// An error that carries more of the protocol beside it (§8.8.2.4, §8.9.2.4).
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

/// What an error says of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorDetail {
    /// Nothing.
    None,
    /// What the newest item is told by, where another one was expected, if there is any (XEP-0395 §3.3).
    Compared(Option<Box<str>>),
    /// The feature that an `unsupported` names.
    Feature(&'static str),
    /// The address that stands in the condition (RFC 6120 §8.3.3.5).
    Uri(Box<str>),
}

/// A stanza error (RFC 6120 §8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StanzaError {
    /// What the sender may do: `auth`, `cancel`, `modify`, `wait`.
    pub kind: &'static str,
    /// The defined condition.
    pub condition: &'static str,
    /// The condition of another protocol, and its namespace.
    pub application: Option<(&'static str, &'static str)>,
    /// What else there is to say.
    pub detail: ErrorDetail,
    /// For people.
    pub text: Option<Box<str>>,
}

impl StanzaError {
    /// An error without more than its condition.
    #[must_use]
    pub const fn new(kind: &'static str, condition: &'static str) -> Self {
        Self { kind, condition, application: None, detail: ErrorDetail::None, text: None }
    }

    /// With a condition of XEP-0060.
    #[must_use]
    pub const fn pubsub(mut self, condition: &'static str) -> Self {
        self.application = Some((condition, ns::PUBSUB_ERRORS));
        self
    }

    /// With a condition of ad-hoc commands (XEP-0050 §4.4).
    #[must_use]
    pub const fn command(mut self, condition: &'static str) -> Self {
        self.application = Some((condition, ns::COMMANDS));
        self
    }

    /// With a text for people.
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
