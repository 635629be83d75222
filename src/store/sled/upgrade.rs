//! Upgrade of a store of layout 9. Node records are rewritten when the store is opened. Each other record is rewritten
//! when it next changes.

use sled::Tree;
use tracing::warn;

use crate::store::StoreError;

use super::{
    keys,
    open::OpenStore,
    record::{self, NodeRecord, damaged},
    sled_failed,
    tree_reader::affiliations,
    write_batch::WriteBatch,
};

/// Number of nodes rewritten with one sync.
const BATCH: usize = 200;

/// Rewrites the nodes of layout 9, which have no [configuration revision](gjallar_pubsub::ConfigRevision). Each node
/// gets the revision that [`inherited_revision`](gjallar_pubsub::Node::inherited_revision) returns.
pub(super) fn convert_nodes(opened: &mut OpenStore) -> Result<(), StoreError> {
    let tree = opened.tree.clone();
    let version = tree.get(keys::VERSION).map_err(|error| sled_failed(&error))?;
    let version = version.map(|value| record::decode::<u8>(keys::VERSION, &value)).transpose()?;
    if version == Some(record::VERSION) {
        return Ok(());
    }
    let mut nodes = Vec::new();
    for row in tree.scan_prefix(b"n") {
        let (key, value) = row.map_err(|error| sled_failed(&error))?;
        if record::content_of(&key, &value)?.0 != record::VERSION {
            nodes.push(key);
        }
    }
    for batch in nodes.chunks(BATCH) {
        opened.write(|rows, _| {
            for key in batch {
                match convert(&tree, rows, key) {
                    // Only the node of the damaged record is quarantined.
                    Ok(()) | Err(StoreError::Corrupt(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            rows.end_commit(true);
            Ok(())
        })?;
    }
    opened.write(|rows, _| {
        rows.put(keys::VERSION, &record::VERSION)?;
        rows.end_commit(true);
        Ok(())
    })
}

fn convert(tree: &Tree, rows: &mut WriteBatch<'_>, key: &[u8]) -> Result<(), StoreError> {
    let mut record = rows.get::<NodeRecord>(key)?.ok_or_else(|| damaged(key))?;
    let mut node = record.to_node(key)?;
    for affiliation in affiliations(tree, keys::node_at(key, 1).ok_or_else(|| damaged(key))?) {
        let (entity, affiliation) = affiliation?;
        node.load_affiliation(entity, affiliation);
    }
    node.revision = node.inherited_revision();
    if node.config.access_model.reads_rosters() && node.revision.roster_owner.is_none() {
        warn!(
            event = "no_roster_owner",
            node = node.id.as_str(),
            "no owner's roster gives access to the node; contacts of its owners have no access"
        );
    }
    record.set_revision(&node.revision);
    rows.put(key, &record)
}
