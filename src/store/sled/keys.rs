//! Keys of the rows. The first byte of a key is a letter that names the table.
//!
//! All keys must be short, because sled writes long keys to blob files that it never syncs. Clients choose names and
//! JIDs, which may be long. So a key has the number of a node instead of its name, and the hash of a JID, a node's name
//! or an item's name.
//!
//! | key | value |
//! |---|---|
//! | `v` | layout version |
//! | `t` | the store's id, number of the newest commit, checksum sum of the store |
//! | `N` name | number of the node |
//! | `n` node | node record |
//! | `q` node | sequence of the newest event, version, number of items, bytes of the items, checksum sum of the node |
//! | `d` node | mark of a deleted node; its other rows are removed once none of its log entries is pending |
//! | `M` name | redirect of a deleted node |
//! | `m` node | name of a deleted node with a redirect |
//! | `F` name | time of a node's deletion, and its owners |
//! | `f` time node | name of a node that was deleted at this time without a redirect |
//! | `u` node part | JIDs of ended subscriptions whose rows are not removed yet; the node is read only after their removal |
//! | `R` node row | resources that lost an implicit subscription while log entries of the node were pending |
//! | `p` node | position of the oldest item; the rows of earlier items are garbage |
//! | `a` node entity | affiliation |
//! | `A` entity node | affiliation, by entity |
//! | `s` node part | a part of the node's subscriptions |
//! | `S` entity node JID | two fields: `true` if the JID subscribed itself; number of the part with its subscriptions |
//! | `l` node JID | the subscriptions of this JID need timers or presence |
//! | `i` node sequence index | item |
//! | `x` node item's name | position of the item, and position at which the name was first published |
//! | `c` node sequence index chunk | a chunk of a long payload |
//! | `o` log position, chunk | a chunk of a group of log entries that were written together; the key has the position of the first entry |
//! | `r` entity | entity that refused to share its presence with the service |
//! | `e` | a rebase assigns new epochs to all nodes, and has not finished |
//! | `w` | the next log position; the partly delivered log entries, each with the last recipient that was reached |
//! | `w` log position | bit set of the acknowledged entries of a group whose other entries are pending |
//!
//! The checksums of the rows are added up in checksum sums, so that a missing or outdated row is detected. Each node
//! has a checksum sum of its rows in the tables `a`, `s`, `i`, `x` and `c`. The checksum sum of the store has the rows
//! of the other tables except `v` and `t`.

use jid::Jid;
use sha2::{Digest, Sha256};

pub(super) use crate::store::NodeNumber;
pub(super) use gjallar_pubsub::ItemPosition;
use gjallar_pubsub::{NodeId, Sequence};

/// First 20 bytes of a SHA-256: long enough that clients cannot construct collisions.
pub(super) type NameHash = [u8; 20];

pub(super) fn hash(name: &str) -> NameHash {
    let digest = Sha256::digest(name.as_bytes());
    let mut short = [0; 20];
    short.copy_from_slice(digest.get(..20).unwrap_or(&[0; 20]));
    short
}

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![table];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

pub(super) const VERSION: &[u8] = b"v";
pub(super) const TOTAL: &[u8] = b"t";
pub(super) const CURSOR: &[u8] = b"w";
pub(super) const REBASE: &[u8] = b"e";
/// Tables whose rows are part of the checksum sum of their node.
pub(super) const TABLES_OF_A_NODE: &[u8] = b"asixc";
/// Tables whose rows are part of the store's sum of row checksums.
pub(super) const INDEX_TABLES: &[u8] = b"NnqdpuRASlowMmFfre";

/// Checksum sum to which a row adds its checksum.
pub(super) enum ChecksumScope {
    Node(NodeNumber),
    Store,
    None,
}

pub(super) fn group(key: &[u8]) -> ChecksumScope {
    match key.first() {
        Some(table) if TABLES_OF_A_NODE.contains(table) => {
            node_at(key, 1).map_or(ChecksumScope::None, ChecksumScope::Node)
        }
        Some(table) if INDEX_TABLES.contains(table) => ChecksumScope::Store,
        _ => ChecksumScope::None,
    }
}

pub(super) fn name(node: &NodeId) -> Vec<u8> {
    key(b'N', &[&hash(node.as_str())])
}

/// Key of the redirect of a deleted node.
pub(super) fn redirect(node: &NodeId) -> Vec<u8> {
    key(b'M', &[&hash(node.as_str())])
}

/// Key of the name of a deleted node with a redirect.
pub(super) fn moved(node: NodeNumber) -> Vec<u8> {
    of_node(b'm', node)
}

/// Key of the record of a deleted node.
pub(super) fn former(node: &NodeId) -> Vec<u8> {
    key(b'F', &[&hash(node.as_str())])
}

/// Key of the redirect of a deleted node, derived from the key of its [`former`] row.
pub(super) fn redirect_of_former(former: &[u8]) -> Vec<u8> {
    key(b'M', &[former.get(1..).unwrap_or_default()])
}

/// Key of the name of a node that was deleted without a redirect.
pub(super) fn deleted(at: u64, node: NodeNumber) -> Vec<u8> {
    key(b'f', &[&at.to_be_bytes(), &node.0.to_be_bytes()])
}

/// Prefix of the keys of all rows of a node in a table. In a table with one row for each node, the prefix is the
/// complete key.
pub(super) fn of_node(table: u8, node: NodeNumber) -> Vec<u8> {
    key(table, &[&node.0.to_be_bytes()])
}

pub(super) fn node(node: NodeNumber) -> Vec<u8> {
    of_node(b'n', node)
}

pub(super) fn counters(node: NodeNumber) -> Vec<u8> {
    of_node(b'q', node)
}

pub(super) fn affiliation(node: NodeNumber, entity: &str) -> Vec<u8> {
    key(b'a', &[&node.0.to_be_bytes(), &hash(entity)])
}

pub(super) fn affiliations_of(entity: &str) -> Vec<u8> {
    key(b'A', &[&hash(entity)])
}

pub(super) fn affiliation_of(entity: &str, node: NodeNumber) -> Vec<u8> {
    key(b'A', &[&hash(entity), &node.0.to_be_bytes()])
}

/// Key of a part of a node's subscriptions.
pub(super) fn subscriptions(node: NodeNumber, part: u32) -> Vec<u8> {
    key(b's', &[&node.0.to_be_bytes(), &part.to_be_bytes()])
}

/// Part number in a key of the table `s`.
pub(super) fn part(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(9..13)?.try_into().ok()?))
}

pub(super) fn subscriptions_of(entity: &str) -> Vec<u8> {
    key(b'S', &[&hash(entity)])
}

pub(super) fn subscription_of(jid: &Jid, node: NodeNumber) -> Vec<u8> {
    let entity = hash(jid.as_str().split_once('/').map_or(jid.as_str(), |(bare, _)| bare));
    let jid = if jid.is_bare() { entity } else { hash(jid.as_str()) };
    key(b'S', &[&entity, &node.0.to_be_bytes(), &jid])
}

/// Key of the row that marks a JID's subscriptions at a node as dependent on timers or presence.
pub(super) fn watched(node: NodeNumber, jid: &Jid) -> Vec<u8> {
    key(b'l', &[&node.0.to_be_bytes(), &hash(jid.as_str())])
}

/// Returns the node number and the JID hash in a key of the table `S`.
pub(super) fn subscription_pointed_to(key: &[u8]) -> Option<(NodeNumber, &[u8])> {
    Some((node_at(key, 21)?, key.get(29..)?))
}

pub(super) fn item(node: NodeNumber, at: ItemPosition) -> Vec<u8> {
    let (sequence, index) = (at.sequence.0.to_be_bytes(), at.index.to_be_bytes());
    key(b'i', &[&node.0.to_be_bytes(), &sequence, &index])
}

/// Item position in a key of the table `i`.
pub(super) fn position(key: &[u8]) -> Option<ItemPosition> {
    let index = key.get(17..19)?.try_into().ok()?;
    Some(ItemPosition { sequence: Sequence(number_at(key, 9)?), index: u16::from_be_bytes(index) })
}

/// Returns the smallest item position after `at`.
pub(super) fn after(at: ItemPosition) -> ItemPosition {
    match at.index.checked_add(1) {
        Some(index) => ItemPosition { index, ..at },
        None => Sequence(at.sequence.0.saturating_add(1)).into(),
    }
}

pub(super) fn item_name(node: NodeNumber, item: &str) -> Vec<u8> {
    key(b'x', &[&node.0.to_be_bytes(), &hash(item)])
}

pub(super) fn chunk(node: NodeNumber, at: ItemPosition, chunk: u16) -> Vec<u8> {
    let (sequence, index) = (at.sequence.0.to_be_bytes(), at.index.to_be_bytes());
    key(b'c', &[&node.0.to_be_bytes(), &sequence, &index, &chunk.to_be_bytes()])
}

pub(super) fn tombstone(node: NodeNumber) -> Vec<u8> {
    of_node(b'd', node)
}

/// Key of a part of the list of subscriptions that a node lost in one large commit.
pub(super) fn revoked(node: NodeNumber, part: u32) -> Vec<u8> {
    key(b'u', &[&node.0.to_be_bytes(), &part.to_be_bytes()])
}

/// Key of a row of resources that lost an implicit subscription.
pub(super) fn revoked_implicit(node: NodeNumber, row: u32) -> Vec<u8> {
    key(b'R', &[&node.0.to_be_bytes(), &row.to_be_bytes()])
}

/// Key of the position of a node's oldest item.
pub(super) fn first_item(node: NodeNumber) -> Vec<u8> {
    of_node(b'p', node)
}

/// Key of the record of an entity that refused to share its presence with the service.
pub(super) fn presence_refusal(entity: &str) -> Vec<u8> {
    key(b'r', &[&hash(entity)])
}

/// Prefix of the rows of a group of log entries.
pub(super) fn log_row(first: u64) -> Vec<u8> {
    key(b'o', &[&first.to_be_bytes()])
}

pub(super) fn log_chunk(first: u64, chunk: u16) -> Vec<u8> {
    key(b'o', &[&first.to_be_bytes(), &chunk.to_be_bytes()])
}

/// Key of the row that records the acknowledged entries of a group of log entries.
pub(super) fn acked(first: u64) -> Vec<u8> {
    key(b'w', &[&first.to_be_bytes()])
}

/// Node number in a key, at an offset in bytes.
pub(super) fn node_at(key: &[u8], offset: usize) -> Option<NodeNumber> {
    number_at(key, offset).map(NodeNumber)
}

/// Number in a key, at an offset in bytes.
pub(super) fn number_at(key: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(offset..offset + 8)?.try_into().ok()?))
}
