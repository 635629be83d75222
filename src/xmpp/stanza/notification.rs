//! Notifications: each event is rendered once as a message. The messages of an event differ only in the recipient's JID
//! (in some events also within the content), in the suffix of the message id, and in the headers with SubIDs.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use minidom::Element;
use siphasher::sip::SipHasher13;

use crate::xmpp::{
    stanza::{
        atom_body,
        forms::{self, authorization, node_config},
        multicast::{ADDRESSES, Format, RECIPIENTS, write_address},
        ns,
    },
    xml::{
        padding::{padding, write_spaces},
        writer::{ElementWriter, escape_attribute},
    },
};
use gjallar_pubsub::{
    ArchiveId, Epoch, Event, EventItem, ItemId, ItemPosition, LogEntry, NodeId, NotificationType,
    SubId, Timestamp,
};

/// Inputs of the suffixes of message ids: the secret key that the store keeps and, for an item that is sent again, a
/// nonce.
#[derive(Clone, Copy, Debug)]
struct Suffix {
    key: u64,
    nonce: u64,
}

/// Length of a suffix.
const SUFFIX_BYTES: usize = 11;

impl Suffix {
    /// Appends eleven characters of base64url (RFC 4648 §5), which identify one recipient's copy of the message. The
    /// characters are the same each time this copy is sent. Other entities cannot predict them.
    fn write(self, recipient: &str, out: &mut String) {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let hash = SipHasher13::new_with_keys(self.key, self.nonce).hash(recipient.as_bytes());
        let mut suffix = [0; SUFFIX_BYTES];
        for (digit, byte) in suffix.iter_mut().enumerate() {
            let index = usize::try_from(hash >> (6 * digit) & 63).unwrap_or_default();
            *byte = ALPHABET.get(index).copied().unwrap_or(b'-');
        }
        out.push_str(str::from_utf8(&suffix).unwrap_or_default());
    }
}

/// Message without its recipient.
#[derive(Clone, Debug)]
pub struct MessageTemplate {
    /// Text up to the suffix of the message id.
    head: Arc<str>,
    suffix: Suffix,
    tail: Arc<str>,
    /// Text after the recipient's JID, if the content contains this JID. In this case `tail` is the text before the
    /// JID.
    rest: Option<Arc<str>>,
    /// Number of spaces after the message, so that its long tags do not wait in the server's parser (see `padding.rs`).
    /// For a recipient with a long address, the number is computed when the message is written.
    padding: usize,
}

/// Recipient of a message.
#[derive(Clone, Copy, Debug)]
pub struct To<'a> {
    /// JID of the recipient.
    pub jid: &'a str,
    /// Recipient-specific part of the message's start tag: the id suffix and the `to` attribute
    /// ([`write_address`](MessageTemplate::write_address)).
    pub address: &'a str,
    /// [Headers](headers) of the message.
    pub headers: &'a str,
}

/// End tag of a message.
const END: &str = "</message>";

/// Maximum length of [`To::address`] for which the padding in the template is sufficient. The padding of a message with
/// a longer address is computed when the message is written.
const SHORT_ADDRESS: usize = 512;

impl MessageTemplate {
    /// Returns the number of bytes of the message with its padding. The recipient's JID is not included; a
    /// [personal](Self::is_personal) message contains it twice.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // it never is
    pub fn len(&self) -> usize {
        let addresses = ADDRESSES.0.len() + ADDRESSES.1.len();
        let rest = self.rest.as_ref().map_or(0, |rest| rest.len());
        let recipient = SUFFIX_BYTES + "' to=''>".len();
        let message = self.head.len() + recipient + addresses + self.tail.len() + rest + END.len();
        message + self.padding
    }

    /// Returns `true` if the content has the JID of the recipient.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        self.rest.is_some()
    }

    /// Appends the recipient-specific part of a message: the id suffix and the `to` attribute.
    pub fn write_address(&self, jid: &str, out: &mut String) {
        self.suffix.write(jid, out);
        write_to_attribute(jid, out);
    }

    /// Returns `true` if the text of [`write_address`](Self::write_address) depends only on the recipient. All messages
    /// for which this function returns `true` share this text, so it can be cached.
    #[must_use]
    pub fn has_common_addresses(&self) -> bool {
        self.suffix.nonce == 0
    }

    /// Appends the message to one recipient.
    pub fn write_to(&self, recipient: To<'_>, out: &mut String) {
        self.write(recipient.address, None, recipient, out);
    }

    /// Appends the message to several recipients through the multicast service with the JID `multicast`. `recipients`
    /// are the recipients as text in the format `format` ([`write_recipient`](Self::write_recipient)). `last` is the
    /// last recipient. A personal message, or a message with headers, has only one recipient.
    pub fn write_by(
        &self,
        multicast: &str,
        (format, recipients): (Format, &str),
        last: To<'_>,
        out: &mut String,
    ) {
        let mut address = String::new();
        match format {
            Format::Addresses => self.write_address(multicast, &mut address),
            // In lines each recipient has its own suffix.
            Format::Lines => write_to_attribute(multicast, &mut address),
        }
        self.write(&address, Some((format, recipients)), last, out);
    }

    /// Appends a recipient of a multicast message, in this format.
    pub fn write_recipient(&self, format: Format, recipient: &str, out: &mut String) {
        match format {
            Format::Addresses => write_address(recipient, out),
            Format::Lines => {
                self.suffix.write(recipient, out);
                out.push(' ');
                escape_attribute(recipient, out);
                out.push('\n');
            }
        }
    }

    fn write(
        &self,
        address: &str,
        recipients: Option<(Format, &str)>,
        recipient: To<'_>,
        out: &mut String,
    ) {
        let begin = out.len();
        out.push_str(&self.head);
        out.push_str(address);
        if let Some((format, recipients)) = recipients.filter(|(_, all)| !all.is_empty()) {
            let (open, close) = match format {
                Format::Addresses => ADDRESSES,
                Format::Lines => RECIPIENTS,
            };
            [open, recipients, close].iter().for_each(|part| out.push_str(part));
        }
        out.push_str(&self.tail);
        if let Some(rest) = &self.rest {
            escape_attribute(recipient.jid, out);
            out.push_str(rest);
        }
        out.push_str(recipient.headers);
        out.push_str(END);
        let spaces = if address.len() <= SHORT_ADDRESS {
            self.padding
        } else {
            padding(out.get(begin..).unwrap_or(""))
        };
        write_spaces(spaces, out);
    }
}

fn write_to_attribute(jid: &str, out: &mut String) {
    out.push_str("' to='");
    escape_attribute(jid, out);
    out.push_str("'>");
}

/// Renders a notification of the service with this JID. A late notification carries the time of the event (XEP-0203),
/// and so does an item that is sent again. The message id is `EPOCH-SEQUENCE-SUFFIX`; the suffix is a keyed hash of the
/// recipient.
#[must_use]
pub fn render(notification: &LogEntry, is_late: bool, service: &str, key: u64) -> MessageTemplate {
    let LogEntry { node, event_id, event, variant: view, .. } = notification;
    let position = ItemPosition { sequence: event_id.sequence, index: notification.index };
    let name = ArchiveId { epoch: event_id.epoch, position }.to_string();
    let is_again = notification.nonce.is_some();
    let delay = (is_late || is_again).then(|| delay(notification.occurred_at, service));
    let hint = match notification.notification_type {
        NotificationType::Headline => Some(ElementWriter::ns("no-store", ns::HINTS)),
        NotificationType::Normal => None,
    };
    // Entries of layout 9 have an index if they are neither items nor changes of the node.
    let is_event = notification.index == 0 || is_again;
    let stanza_id = |message: ElementWriter| match is_event {
        true => message.with("stanza-id", |tag| {
            tag.attr("xmlns", ns::STANZA_ID).attr("by", service).attr("id", &name)
        }),
        false => message,
    };
    let body = match event {
        Event::Announced(text) => Some(text.clone()),
        Event::Published(items) if view.has_body => atom_body::body(items),
        _ => None,
    };
    let message = ElementWriter::new("message")
        .attr("from", service)
        .attr("type", kind(notification.notification_type))
        .attr("id", "")
        .children(subject(node, event))
        .children(body.map(|body| ElementWriter::new("body").text(&body)))
        .children(content(node, event, &view.subids))
        .children(delay);
    let message = match event {
        Event::Announced(_) | Event::ApprovalRequested(_) => message.children(hint),
        Event::AffiliationChanged(_) | Event::Subscription { .. } => message.children(hint),
        _ => stanza_id(message).children(hint).children(shim(&view.subids)),
    };
    let message = message.to_string();
    let padding = padding(&message);
    let message = message.strip_suffix(END).unwrap_or(&message);
    // The id is the last attribute, so the first empty value ends where it and the recipient belong.
    let (head, tail) = message.split_once(" id=''>").unwrap_or((message, ""));
    let personal = if names_recipient(event) { tail.split_once(" jid=''") } else { None };
    MessageTemplate {
        head: format!("{head} id='{name}-").into(),
        suffix: Suffix { key, nonce: notification.nonce.unwrap_or_default() },
        tail: personal.map_or_else(|| tail.into(), |(tail, _)| format!("{tail} jid='").into()),
        rest: personal.map(|(_, rest)| format!("'{rest}").into()),
        padding,
    }
}

/// Returns the type of the messages.
pub(super) fn kind(notification_type: NotificationType) -> &'static str {
    match notification_type {
        NotificationType::Headline => "headline",
        NotificationType::Normal => "normal",
    }
}

/// Returns the epoch of the node from the id of a notification, which is `EPOCH-SEQUENCE-SUFFIX`.
#[must_use]
pub fn epoch_of_id(id: &str) -> Option<Epoch> {
    let (epoch, place) = id.split_once('-')?;
    let is_place = place.starts_with(|first: char| first.is_ascii_digit());
    if epoch.len() != 16 || !is_place {
        return None;
    }
    u64::from_str_radix(epoch, 16).ok().map(Epoch)
}

/// Returns `true` if the id of a notification has a recipient suffix. Ids of messages to the Prosody module
/// `mod_gjallar_fanout` have no such suffix.
#[must_use]
pub fn has_recipient_suffix(id: &str) -> bool {
    id.splitn(3, '-').nth(2).is_some_and(|suffix| !suffix.is_empty())
}

/// Conditions of the errors that servers send for a resource that is not available.
pub const ABSENT: [&str; 4] =
    ["service-unavailable", "item-not-found", "recipient-unavailable", "gone"];

/// Returns `true` if an error reports that the addressed entity does not exist, or no longer exists (§12.4).
///
/// SPEC-DEVIATION: by §12.4, any error of type `cancel` ends a subscription. Here a subscription ends only after
/// several errors, because servers reply `service-unavailable` for an entity that is only away. Fewer errors suffice if
/// they are `gone` or `item-not-found`.
#[must_use]
pub fn is_gone(bounce: &Element) -> bool {
    has_condition(bounce, &["gone", "item-not-found"])
}

/// Returns `true` if an error reports that the addressed resource is not available.
#[must_use]
pub fn is_absent(stanza: &Element) -> bool {
    has_condition(stanza, &ABSENT) && !is_unreachable(stanza)
}

/// Returns `true` if an error reports only that the addressed entity cannot be reached at present.
/// `remote-server-not-found` counts even with the type `cancel`, because servers send it while they cannot connect to
/// the entity's server.
#[must_use]
pub fn is_unreachable(stanza: &Element) -> bool {
    error_of(stanza).is_some_and(|error| error.attr("type") == Some("wait"))
        || has_condition(stanza, &["remote-server-not-found", "remote-server-timeout"])
}

fn has_condition(stanza: &Element, conditions: &[&str]) -> bool {
    error_of(stanza).is_some_and(|error| {
        conditions.iter().any(|condition| error.has_child(condition, ns::STANZAS))
    })
}

fn error_of(stanza: &Element) -> Option<&Element> {
    stanza.children().find(|child| child.name() == "error")
}

/// Returns the `<headers/>` element with the SubIDs of a message (§12.16, XEP-0131). The element is the last child of
/// the message (§7.1.2.4).
fn shim(subids: &[SubId]) -> Option<ElementWriter> {
    let header =
        |subid: &SubId| ElementWriter::new("header").attr("name", "SubID").text(subid.as_str());
    let headers = || ElementWriter::ns("headers", ns::SHIM).children(subids.iter().map(header));
    (!subids.is_empty()).then(headers)
}

/// Returns the `<headers/>` element with the SubIDs of the recipient's subscriptions as text. The text is empty if
/// there are no SubIDs.
#[must_use]
pub fn headers(subids: &[SubId]) -> String {
    shim(subids).map(|headers| headers.to_string()).unwrap_or_default()
}

/// Returns `true` if the content of an event has the JID of the recipient.
fn names_recipient(event: &Event) -> bool {
    matches!(event, Event::AffiliationChanged(_) | Event::Subscription { jid: None, .. })
}

/// Returns the content of the notification of an event.
pub(super) fn content(node: &NodeId, event: &Event, subids: &[SubId]) -> Option<ElementWriter> {
    let named = |name| ElementWriter::new(name).attr("node", node.as_str());
    let content = match event {
        Event::AffiliationChanged(affiliation) => {
            let affiliation = ElementWriter::new("affiliation")
                .attr("jid", "")
                .attr("affiliation", affiliation.as_str());
            let affiliations = named("affiliations").child(affiliation);
            return Some(ElementWriter::ns("pubsub", ns::PUBSUB).child(affiliations));
        }
        Event::Announced(_) => return None,
        Event::Configured(config) => {
            named("configuration").children(config.as_deref().map(node_config::result))
        }
        Event::Deleted { redirect } => {
            let redirect =
                redirect.as_deref().map(|uri| ElementWriter::new("redirect").attr("uri", uri));
            named("delete").children(redirect)
        }
        Event::Published(published) => published
            .iter()
            .fold(named("items"), |items, one| items.with("item", |tag| item(tag, one))),
        Event::Purged => named("purge"),
        Event::ApprovalRequested(jid) => {
            return Some(authorization::request(node, jid, subids.first()));
        }
        Event::Retracted(ids) => named("items").children(ids.iter().map(retract)),
        Event::Subscription { jid, subid, state, expiry } => named("subscription")
            .attr("jid", jid.as_ref().map_or("", |jid| jid.as_str()))
            .attr_if("subid", subid.as_ref().map(SubId::as_str))
            .attr("subscription", state.as_str())
            .attr_if("expiry", expiry.map(date_time).as_deref()),
    };
    Some(ElementWriter::ns("event", ns::PUBSUB_EVENT).child(content))
}

/// Returns the subject of a message with an owner's announcement: the name of the node. Messages of other events have
/// no subject.
fn subject(node: &NodeId, event: &Event) -> Option<ElementWriter> {
    matches!(event, Event::Announced(_)).then(|| ElementWriter::new("subject").text(node.as_str()))
}

fn item(tag: ElementWriter, item: &EventItem) -> ElementWriter {
    tag.attr("id", item.id.as_str())
        .attr_if("publisher", item.publisher.as_ref().map(|jid| jid.as_str()))
        .children(item.payload.as_ref().map(|payload| payload.xml()))
}

fn retract(id: &ItemId) -> ElementWriter {
    ElementWriter::new("retract").attr("id", id.as_str())
}

fn delay(since: Timestamp, service: &str) -> ElementWriter {
    ElementWriter::ns("delay", ns::DELAY).attr("from", service).attr("stamp", &date_time(since))
}

/// Returns a time in the format of XEP-0082.
#[must_use]
pub fn date_time(timestamp: Timestamp) -> String {
    let millis = i64::try_from(timestamp.0).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(millis)
        .unwrap_or(DateTime::UNIX_EPOCH)
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Parses a time (XEP-0082).
#[must_use]
pub fn timestamp(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(forms::collapsed(text)).ok()?;
    u64::try_from(time.timestamp_millis()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gjallar_pubsub::{Audience, DeliveryVariant, Epoch, EventId, Recipients, Sequence};

    #[test]
    fn timestamps_have_the_format_of_xep_0082() {
        assert_eq!(date_time(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(date_time(Timestamp(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert!(date_time(Timestamp(u64::MAX)).ends_with('Z'));
    }

    #[test]
    fn late_event_has_its_timestamp() {
        let jid = jid::Jid::new("a@b").unwrap();
        let notification = LogEntry {
            node: NodeId::parse("to=''").unwrap(),
            event_id: EventId { epoch: Epoch(10), sequence: Sequence(3) },
            event: Event::Purged,
            audience: Audience::Listed(Recipients::one(jid)),
            variant: DeliveryVariant::default(),
            notification_type: NotificationType::Headline,
            occurred_at: Timestamp(0),
            index: 0,
            as_of: 1,
            nonce: Some(1),
        };
        let mut message = String::new();
        let rendered = render(&notification, false, "s", 7);
        let mut address = String::new();
        rendered.write_address("it's@b", &mut address);
        rendered.write_to(To { jid: "it's@b", address: &address, headers: "" }, &mut message);
        assert_eq!(
            message,
            "<message from='s' type='headline' id='000000000000000a-3-LpIGloX29_M' to='it&#39;s@b'>\
             <event xmlns='http://jabber.org/protocol/pubsub#event'>\
             <purge node='to=&#39;&#39;'/></event>\
             <delay xmlns='urn:xmpp:delay' from='s' stamp='1970-01-01T00:00:00.000Z'/>\
             <stanza-id xmlns='urn:xmpp:sid:0' by='s' id='000000000000000a-3'/>\
             <no-store xmlns='urn:xmpp:hints'/></message>"
        );
    }
}
