//! The keys, one table. All are short: a long key makes sled write blob files that it never syncs,
//! and names and JIDs are chosen by strangers. So a node stands as its number, and a JID, a node's
//! name or an item's name as a hash.
//!
//! | key | value |
//! |---|---|
//! | `v` | schema version |
//! | `t` | the store's name, the number of the newest commit, a sum over the index |
//! | `N` name | the node's number |
//! | `n` node | the node |
//! | `q` node | position of its newest event, number and bytes of its items, a sum |
//! | `d` node | the node is deleted; what is left of it goes when none of its events is owed any more |
//! | `M` name | what took the place of a deleted node |
//! | `m` node | the name of a deleted node of which that was said |
//! | `F` name | when a node was deleted, and its owners |
//! | `f` time node | the name of a node that was deleted then without a redirect |
//! | `u` node part | JIDs whose subscriptions are gone; their rows go before anyone asks for the node |
//! | `R` node row | resources that lost an implicit subscription while events of the node were pending |
//! | `p` node | the items before this position and index are gone; their rows go by and by |
//! | `a` node entity | affiliation |
//! | `A` entity node | affiliation |
//! | `s` node part | subscriptions |
//! | `S` entity node JID | whether it subscribed itself, and in which part that stands |
//! | `l` node JID | time, or presence, has something to do with the subscriptions of this JID |
//! | `i` node position index | item |
//! | `x` node item's name | position and index, and those at which an item of this name was published first |
//! | `c` node position index chunk | a part of a long payload |
//! | `o` debt chunk | a part of the events that are owed since one group of commits, the first of which this is |
//! | `r` entity | it refused the service its presence |
//! | `e` | new epochs are being given to all nodes, and some may have the old one |
//! | `w` | what was told in part; the number of the next debt |
//! | `w` debt | which of a group's events are paid, where some are not |
//!
//! Every row is part of a sum, so that a row that is lost, or is an older one, is noticed: `a s i x c`
//! of their node's, the others of the store's.

use jid::Jid;
use sha2::{Digest, Sha256};

pub(super) use crate::store::NodeNumber;
pub(super) use gjallar_pubsub::ItemPosition;
use gjallar_pubsub::{NodeId, Sequence};

/// The first 20 bytes of a SHA-256: strangers cannot make two names meet.
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
pub(super) const TOLD: &[u8] = b"w";
pub(super) const REBASE: &[u8] = b"e";
/// The tables whose rows are part of their node's sum.
pub(super) const TABLES_OF_A_NODE: &[u8] = b"asixc";
/// The tables whose rows are part of the store's sum.
pub(super) const INDEX_TABLES: &[u8] = b"NnqdpuRASlowMmFfre";

/// The sum that a row is part of.
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

/// What took the place of a deleted node.
pub(super) fn redirect(node: &NodeId) -> Vec<u8> {
    key(b'M', &[&hash(node.as_str())])
}

/// The name of a deleted node of which that was said.
pub(super) fn moved(node: NodeNumber) -> Vec<u8> {
    of_node(b'm', node)
}

/// A deleted node.
pub(super) fn former(node: &NodeId) -> Vec<u8> {
    key(b'F', &[&hash(node.as_str())])
}

/// The number and the redirect of a deleted node, given the key of its [`former`] row.
pub(super) fn redirect_of_former(former: &[u8]) -> Vec<u8> {
    key(b'M', &[former.get(1..).unwrap_or_default()])
}

/// The name of a node that was deleted without a redirect.
pub(super) fn deleted(at: u64, node: NodeNumber) -> Vec<u8> {
    key(b'f', &[&at.to_be_bytes(), &node.0.to_be_bytes()])
}

/// Everything that a table has of a node; also the key itself where the table has one row a node.
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

/// A part of a node's subscriptions.
pub(super) fn subscriptions(node: NodeNumber, part: u32) -> Vec<u8> {
    key(b's', &[&node.0.to_be_bytes(), &part.to_be_bytes()])
}

/// The part in a key of the table `s`.
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

/// Whether time, or presence, has something to do with a JID's subscriptions at a node.
pub(super) fn watched(node: NodeNumber, jid: &Jid) -> Vec<u8> {
    key(b'l', &[&node.0.to_be_bytes(), &hash(jid.as_str())])
}

/// The node and the hash of the JID in a key of the table `S`.
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

/// Smallest item position after another one.
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

pub(super) fn dead(node: NodeNumber) -> Vec<u8> {
    of_node(b'd', node)
}

/// Some of the subscriptions that a node lost at once.
pub(super) fn revoked(node: NodeNumber, part: u32) -> Vec<u8> {
    key(b'u', &[&node.0.to_be_bytes(), &part.to_be_bytes()])
}

/// Some of the resources that lost an implicit subscription.
pub(super) fn revoked_implicit(node: NodeNumber, row: u32) -> Vec<u8> {
    key(b'R', &[&node.0.to_be_bytes(), &row.to_be_bytes()])
}

/// Where a node's items begin, if there are rows before.
pub(super) fn first_item(node: NodeNumber) -> Vec<u8> {
    of_node(b'p', node)
}

/// An entity refused the service its presence.
pub(super) fn presence_refusal(entity: &str) -> Vec<u8> {
    key(b'r', &[&hash(entity)])
}

/// Everything of the debts of a group.
pub(super) fn debt(debt: u64) -> Vec<u8> {
    key(b'o', &[&debt.to_be_bytes()])
}

pub(super) fn debt_chunk(debt: u64, chunk: u16) -> Vec<u8> {
    key(b'o', &[&debt.to_be_bytes(), &chunk.to_be_bytes()])
}

/// Which debts of a group are paid.
pub(super) fn paid(first: u64) -> Vec<u8> {
    key(b'w', &[&first.to_be_bytes()])
}

/// The number of a node in a key at an offset in bytes.
pub(super) fn node_at(key: &[u8], offset: usize) -> Option<NodeNumber> {
    number_at(key, offset).map(NodeNumber)
}

/// The number in a key at an offset in bytes.
pub(super) fn number_at(key: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(offset..offset + 8)?.try_into().ok()?))
}
