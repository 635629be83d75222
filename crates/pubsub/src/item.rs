//! Published items, their payloads and positions.

use std::sync::Arc;

use jid::BareJid;

use crate::{ArchiveId, EventId, ItemId, Sequence, Timestamp};

/// Maximum bytes of a tag that needs no padding of its own: the padding at the end of each write covers it.
pub const SHORT_TAG: usize = 1024;

/// Published XML element as a self-contained text: it declares every namespace prefix that it, or text in it, may use.
/// Opaque to the rules, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    xml: Arc<str>,
    namespace: Arc<str>,
}

impl Payload {
    /// Creates a payload from a self-contained element and the namespace of its root. The XML is not validated.
    #[must_use]
    pub fn new(xml: impl Into<Arc<str>>, namespace: impl Into<Arc<str>>) -> Self {
        Self { xml: xml.into(), namespace: namespace.into() }
    }

    /// Returns the element as text.
    #[must_use]
    pub fn xml(&self) -> &str {
        &self.xml
    }

    /// Returns the text content of the element, without markup.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // `>` is always escaped in values and text.
        for piece in self.xml.split('<') {
            text.push_str(piece.split_once('>').map_or("", |(_, text)| text));
        }
        [("&lt;", "<"), ("&gt;", ">"), ("&#13;", "\r"), ("&amp;", "&")]
            .iter()
            .fold(text, |text, (escaped, char)| text.replace(escaped, char))
    }

    /// Returns the bytes of the longest tag, or 0 if none is longer than [`SHORT_TAG`]. A stanza that ends with this
    /// payload may need as many spaces after it.
    #[must_use]
    pub fn longest_tag(&self) -> usize {
        if self.xml.len() <= SHORT_TAG {
            return 0;
        }
        // `>` is always escaped in values and text.
        let tags = self.xml.split('<').filter_map(|piece| piece.find('>'));
        let longest = tags.max().map_or(0, |end| end + "<>".len());
        if longest > SHORT_TAG { longest } else { 0 }
    }

    /// Returns the namespace of the root element, which `pubsub#type` is compared with (§7.1.3.6).
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// Position of an item in the order of its node's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemPosition {
    /// Sequence of the event that published the item.
    pub sequence: Sequence,
    /// Index of the item in that event: 0, except for items that were written before layout 10.
    pub index: u16,
}

impl From<Sequence> for ItemPosition {
    fn from(sequence: Sequence) -> Self {
        Self { sequence, index: 0 }
    }
}

/// Item as a node stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name of the item.
    pub id: ItemId,
    /// Identifier of the event that published the item.
    pub event_id: EventId,
    /// Index of the item in that event: 0, except for items that were written before layout 10.
    pub index: u16,
    /// Position at which the item was created: first published, and not removed since (XEP-0413 §3). A rule that
    /// publishes sets the position of the new item; the store corrects it if an item of this name exists.
    pub created: ItemPosition,
    /// Entity that published the item.
    pub publisher: BareJid,
    /// Time of publication.
    pub published: Timestamp,
    /// Payload; `None` for an item without content.
    pub payload: Option<Payload>,
}

impl Item {
    /// Returns the identifier of the item in the archive of its node.
    #[must_use]
    pub fn archive_id(&self) -> ArchiveId {
        ArchiveId { epoch: self.event_id.epoch, position: self.position() }
    }

    /// Returns the position of the item in the order of its node's items.
    #[must_use]
    pub fn position(&self) -> ItemPosition {
        ItemPosition { sequence: self.event_id.sequence, index: self.index }
    }

    /// Returns the bytes of the longest tag of the payload; see [`Payload::longest_tag`].
    #[must_use]
    pub fn longest_tag(&self) -> usize {
        self.payload.as_ref().map_or(0, Payload::longest_tag)
    }

    /// Returns the approximate bytes of the item in a notification, which also count towards the limits of the node.
    #[must_use]
    pub fn size(&self) -> usize {
        let payload = self.payload.as_ref().map_or(0, |payload| payload.xml().len());
        40 + written_len(self.id.as_str()) + written_len(self.publisher.as_str()) + payload
    }
}

/// Returns the maximum bytes of a name in XML, where some characters are escaped.
#[must_use]
pub fn written_len(name: &str) -> usize {
    let is_escaped = |byte: &u8| matches!(byte, b'<' | b'>' | b'&' | b'\'' | b'"' | b'\t'..=b'\r');
    name.len() + 4 * name.as_bytes().iter().filter(|byte| is_escaped(byte)).count()
}
