//! Names of nodes and items, and identifiers of events and archived items.

use std::{fmt, sync::Arc};

use crate::{Error, ItemPosition};

/// Maximum bytes of the name of a node or an item, in UTF-8. XEP-0060 has no such limit. A part of a JID has the same
/// limit (RFC 7622 §3.1), so a node can also be addressed as a resource (§4.6.1).
const MAX_ID_BYTES: usize = 1023;

macro_rules! id {
    ($name:ident, $doc:literal, $absent:expr) => {
        #[doc = $doc]
        ///
        /// Opaque string of 1 to 1 023 bytes, compared byte by byte. Cheap to clone.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// [`Error::NodeIdRequired`] or [`Error::ItemRequired`] if the text is empty, [`Error::IdTooLong`] past the
            /// limit, [`Error::BadRequest`] if XML does not allow one of the characters.
            pub fn parse(name: &str) -> Result<Self, Error> {
                match name.len() {
                    0 => Err($absent),
                    1..=MAX_ID_BYTES if !is_xml(name) => Err(Error::BadRequest(
                        "the name contains a character that XML does not allow",
                    )),
                    1..=MAX_ID_BYTES => Ok(Self(name.into())),
                    _ => Err(Error::IdTooLong { max: MAX_ID_BYTES }),
                }
            }

            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(NodeId, "Name of a node, unique in the service (§4.6).", Error::NodeIdRequired);
id!(ItemId, "Name of an item, unique in its node (§12.9).", Error::ItemRequired);

/// Returns `true` if XML 1.0 allows all characters of a text: it has neither control characters, except tabs and line
/// ends, nor U+FFFE or U+FFFF (XML 1.0 §2.2).
#[must_use]
pub fn is_xml(text: &str) -> bool {
    let is_char = |c| !matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}');
    text.chars().all(is_char)
}

/// Incarnation of a node name: a node that is deleted and created again has another epoch.
///
/// Random number, so that the epochs of two stores differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Number of an event within its node and epoch: from 1, without gaps; 0 before the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifier of an event: epoch of the node and sequence number.
///
/// Every change that may notify subscribers is given the next sequence number, whether or not a notification is sent.
/// Rendered `EPOCH-SEQUENCE`: sixteen hexadecimal digits and a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Epoch of the node.
    pub epoch: Epoch,
    /// Number of the event in that epoch, from 1.
    pub sequence: Sequence,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch.0, self.sequence)
    }
}

/// Identifier of an item in the archive of its node (XEP-0313 §3.4): `EPOCH-SEQUENCE`, followed by `-INDEX` if the index
/// is not 0. Unique, and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveId {
    /// Epoch of the node.
    pub epoch: Epoch,
    /// Position of the item in the node.
    pub position: ItemPosition,
}

impl ArchiveId {
    /// Parses the text that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, position) = text.split_once('-')?;
        let (sequence, index) = position.split_once('-').unwrap_or((position, "0"));
        let epoch = Epoch(u64::from_str_radix(epoch, 16).ok()?);
        let sequence = Sequence(sequence.parse().ok()?);
        let id = Self { epoch, position: ItemPosition { sequence, index: index.parse().ok()? } };
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ItemPosition { sequence, index } = self.position;
        EventId { epoch: self.epoch, sequence }.fmt(f)?;
        if index > 0 { write!(f, "-{index}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_id_has_one_form() {
        let id = |(sequence, index)| ArchiveId {
            epoch: Epoch(10),
            position: ItemPosition { sequence: Sequence(sequence), index },
        };
        for (position, text) in
            [((3, 0), "000000000000000a-3"), ((3, 65535), "000000000000000a-3-65535")]
        {
            assert_eq!(id(position).to_string(), text);
            assert_eq!(ArchiveId::parse(text), Some(id(position)));
        }
        for text in [
            "",
            "a-3",
            "000000000000000A-3",
            "000000000000000a-03",
            "000000000000000a-3-0",
            "000000000000000a-3-65536",
            "000000000000000a-3-1-1",
            "000000000000000a",
        ] {
            assert_eq!(ArchiveId::parse(text), None, "{text}");
        }
    }
}
