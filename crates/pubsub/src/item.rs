//! Published items, their payloads and positions.

use std::sync::Arc;

use jid::BareJid;

use crate::{ArchiveId, EventId, ItemId, Sequence, Timestamp};

/// Maximum bytes of a short tag. Some servers' XML parsers hold back a tag until more bytes follow. The service ends
/// each write with enough spaces for short tags. Longer tags need more spaces ([`Payload::longest_tag`]).
pub const SHORT_TAG: usize = 1024;

/// Published XML element as a self-contained text: it declares every namespace prefix that its tags, or qualified names
/// in its text, may use. The rules of this crate do not interpret it. Cheap to clone.
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
        let text = tags(&self.xml).map(|(_, text)| text).collect();
        [("&lt;", "<"), ("&gt;", ">"), ("&#13;", "\r"), ("&amp;", "&")]
            .iter()
            .fold(text, |text: String, (escaped, char)| text.replace(escaped, char))
    }

    /// Returns the maximum bytes of the payload after a server has relayed it. Servers may escape quotes differently
    /// ([`relayed_len`]).
    #[must_use]
    pub fn relayed_len(&self) -> usize {
        relayed_len(&self.xml)
    }

    /// Returns the length of the longest tag in bytes if it is more than [`SHORT_TAG`], otherwise 0. A stanza that ends
    /// with this payload may need that number of spaces after it, because some servers' XML parsers hold back a tag
    /// until more bytes follow.
    #[must_use]
    pub fn longest_tag(&self) -> usize {
        if self.xml.len() <= SHORT_TAG {
            return 0;
        }
        let longest = tags(&self.xml).map(|(tag, _)| tag.len() + "<>".len()).max().unwrap_or(0);
        if longest > SHORT_TAG { longest } else { 0 }
    }

    /// Returns the namespace of the root element.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// Position of an item in the order of its node's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemPosition {
    /// Sequence number of the event that published the item.
    pub sequence: Sequence,
    /// Index of the item in the event that published it: 0, except for items that were written before layout 10.
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
    /// Index of the item in the event that published it: 0, except for items that were written before layout 10.
    pub index: u16,
    /// Position of the first publication under this name since the name was last unused (XEP-0413 §3). A publish
    /// request sets the position of its own publication here. If the item replaces an item of the same name, the store
    /// keeps the value of the replaced item instead.
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

    /// Returns [`Payload::longest_tag`] of the payload; 0 without a payload.
    #[must_use]
    pub fn longest_tag(&self) -> usize {
        self.payload.as_ref().map_or(0, Payload::longest_tag)
    }

    /// Returns the approximate bytes of the item in a notification, which also count towards the limits of the node.
    #[must_use]
    pub fn size(&self) -> usize {
        // Existing stores have sizes that count a quote in a name as five bytes.
        let name_len = |name: &str| escaped_len(name, 5);
        let payload = self.payload.as_ref().map_or(0, |payload| payload.xml().len());
        40 + name_len(self.id.as_str()) + name_len(self.publisher.as_str()) + payload
    }
}

/// Bytes of a `'` or `"` in a relayed stanza: Prosody and ejabberd write `&apos;` and `&quot;` in text and attribute
/// values.
const QUOTE_BYTES: usize = 6;

/// Returns the maximum bytes that a name or text takes in a stanza after a server has relayed the stanza. Servers
/// escape some characters.
#[must_use]
pub fn written_len(text: &str) -> usize {
    escaped_len(text, QUOTE_BYTES)
}

fn escaped_len(text: &str, quote_bytes: usize) -> usize {
    let added = |byte: &u8| match byte {
        b'\'' | b'"' => quote_bytes - 1,
        b'<' | b'>' | b'&' | b'\t'..=b'\r' => 4,
        _ => 0,
    };
    text.len() + text.as_bytes().iter().map(added).sum::<usize>()
}

/// Returns the maximum bytes that XML written by the service takes after a server has relayed it. The service writes a
/// quote in text as one byte, and a quote in an attribute value as a reference of five bytes. A server may write each
/// quote as six bytes.
#[must_use]
pub fn relayed_len(xml: &str) -> usize {
    let added = |(tag, text): (&str, &str)| {
        let quotes = count(text, |byte| matches!(byte, b'\'' | b'"'));
        (QUOTE_BYTES - 1) * quotes + count(tag, |byte| byte == b'&')
    };
    xml.len() + tags(xml).map(added).sum::<usize>()
}

/// Returns the number of matching bytes. Counters of one byte let the compiler vectorize the loop.
fn count(text: &str, is_counted: impl Fn(u8) -> bool) -> usize {
    let chunks = text.as_bytes().chunks(usize::from(u8::MAX));
    let counts = chunks.map(|chunk| chunk.iter().map(|byte| u8::from(is_counted(*byte))).sum());
    counts.map(|count: u8| usize::from(count)).sum()
}

/// Returns the tags of XML that the service wrote, without angle brackets, each with the text after it.
fn tags(xml: &str) -> impl Iterator<Item = (&str, &str)> {
    // `>` is always escaped in values and text.
    xml.split('<').map(|piece| piece.split_once('>').unwrap_or((piece, "")))
}

#[cfg(test)]
mod tests {
    use crate::{Epoch, EventId};

    use super::*;

    fn item(id: &str, xml: &str) -> Item {
        let sequence = Sequence(1);
        Item {
            id: ItemId::parse(id).unwrap(),
            event_id: EventId { epoch: Epoch(1), sequence },
            index: 0,
            created: sequence.into(),
            publisher: BareJid::new("a@x").unwrap(),
            published: Timestamp(0),
            payload: Some(Payload::new(xml, "u")),
        }
    }

    #[test]
    fn quotes_of_text_and_values_take_six_bytes_after_a_server() {
        for (written, relayed) in [
            ("<x xmlns='u'/>", "<x xmlns='u'/>"),
            ("<x xmlns='u' a='&#39;&#34;'/>", "<x xmlns='u' a='&apos;&quot;'/>"),
            ("<x xmlns='u'>'\"</x>", "<x xmlns='u'>&apos;&quot;</x>"),
            ("<x xmlns='u'>it's<y z='1'/> \"</x>", "<x xmlns='u'>it&apos;s<y z='1'/> &quot;</x>"),
            ("<x xmlns='u'>&amp;&lt;</x>", "<x xmlns='u'>&amp;&lt;</x>"),
            // Of a tag that has no end yet.
            ("<x xmlns='u' a='&#39;", "<x xmlns='u' a='&apos;"),
        ] {
            assert_eq!(relayed_len(written), relayed.len(), "{written}");
        }
        assert_eq!(written_len("a'b\"<"), "a&apos;b&quot;&#60;".len());
    }

    /// A store records the size of each item and compares it with the computed size. So the computation must not
    /// change.
    #[test]
    fn the_recorded_size_of_an_item_counts_quotes_as_they_are_stored() {
        let xml = "<x xmlns='u'>''</x>";
        assert_eq!(item("'", xml).size(), 40 + 5 + 3 + xml.len());
    }
}
