//! Numbers of nodes: in total, per creator's account, and per policy that limits the number of its nodes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jid::{AccountKey, BareJid};

use gjallar_pubsub::{Change, Changes, NodeId};

use super::PolicyTable;

/// Numbers of nodes of the service.
#[derive(Debug)]
pub(super) struct NodeCounts(Mutex<NodeCountTable>);

#[derive(Debug)]
struct NodeCountTable {
    total: u64,
    of: HashMap<AccountKey, u64>,
    index: QuotaIndex,
    /// Index that is being built for new policies, which apply once the index is complete; `None` otherwise.
    next: Option<QuotaIndex>,
}

/// Nodes that belong to a policy with a limit on the number of nodes.
#[derive(Debug, Default)]
struct QuotaIndex {
    policies: Arc<PolicyTable>,
    /// Names of the nodes, by the index of their policy ([`PolicyTable::with_quota`]).
    names: HashMap<usize, HashSet<NodeId>>,
    /// Nodes deleted since the rebuild began, which the scan of the store may still return.
    deleted: HashSet<NodeId>,
}

impl NodeCounts {
    pub(super) fn new(creators: HashMap<BareJid, u64>) -> Self {
        let (total, index) = (creators.values().sum(), QuotaIndex::default());
        let mut of = HashMap::new();
        for (creator, nodes) in creators {
            *of.entry(AccountKey::of(&creator)).or_default() += nodes;
        }
        Self(Mutex::new(NodeCountTable { total, of, index, next: None }))
    }

    /// Returns the number of nodes that have the same policy as this node; 0 if the policy does not limit their number.
    pub(super) fn count_for_policy(&self, id: &NodeId) -> u64 {
        let table = self.table();
        let policy = table.index.policies.with_quota(id);
        let names = policy.and_then(|policy| table.index.names.get(&policy));
        names.map_or(0, |names| names.len() as u64)
    }

    /// Begins a rebuild of the index for these policies. The caller then [adds](Self::add_existing) all nodes of the
    /// store.
    pub(super) fn begin_rebuild(&self, policies: Arc<PolicyTable>) {
        self.table().next = Some(QuotaIndex { policies, ..QuotaIndex::default() });
    }

    /// Adds nodes found by the scan of the store, except those deleted meanwhile.
    pub(super) fn add_existing(&self, nodes: impl Iterator<Item = NodeId>) {
        if let Some(index) = &mut self.table().next {
            for node in nodes {
                if !index.deleted.contains(&node) {
                    index.add(&node);
                }
            }
        }
    }

    /// Ends the rebuild after all nodes were added, and applies its result.
    pub(super) fn finish_rebuild(&self) {
        let mut table = self.table();
        if let Some(index) = table.next.take() {
            table.index = QuotaIndex { deleted: HashSet::new(), ..index };
        }
    }

    /// Aborts the rebuild after a failure of the store. The previous policies stay.
    pub(super) fn abort_rebuild(&self) {
        self.table().next = None;
    }

    pub(super) fn total(&self) -> u64 {
        self.table().total
    }

    /// Returns the number of existing nodes that the account of an entity created.
    pub(super) fn count_for_creator(&self, creator: &BareJid) -> u64 {
        let account = AccountKey::of(creator);
        self.table().of.get(&account).copied().unwrap_or_default()
    }

    /// Updates the numbers after changes at a node; `creator` is the creator of the node before the changes.
    pub(super) fn count(&self, id: &NodeId, creator: Option<&BareJid>, changes: &Changes) {
        for change in changes.iter() {
            if let Change::Created(node) = change {
                self.adjust(id, None, Some(&node.creator));
            } else if let Change::Deleted { .. } = change {
                self.adjust(id, creator, None);
            }
        }
    }

    /// Updates the numbers for a node that was created or deleted. `before` and `now` are its creators before and after
    /// the change; `None` if there was or is no node.
    pub(super) fn adjust(&self, id: &NodeId, before: Option<&BareJid>, now: Option<&BareJid>) {
        let [before, now] = [before, now].map(|creator| creator.map(AccountKey::of));
        let mut table = self.table();
        let NodeCountTable { index, next, .. } = &mut *table;
        match now {
            Some(_) => index.add(id),
            None => index.remove(id),
        }
        if let Some(next) = next {
            match now {
                Some(_) => {
                    next.deleted.remove(id);
                    next.add(id);
                }
                None => {
                    next.remove(id);
                    next.deleted.insert(id.clone());
                }
            }
        }
        if let Some(creator) = now {
            table.total += 1;
            *table.of.entry(creator).or_default() += 1;
        }
        if let Some(creator) = before {
            table.total -= 1;
            if let Some(own) = table.of.get_mut(&creator) {
                *own -= 1;
                if *own == 0 {
                    table.of.remove(&creator);
                }
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, NodeCountTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QuotaIndex {
    fn add(&mut self, node: &NodeId) {
        if let Some(policy) = self.policies.with_quota(node) {
            self.names.entry(policy).or_default().insert(node.clone());
        }
    }

    fn remove(&mut self, node: &NodeId) {
        let policy = self.policies.with_quota(node);
        if let Some(names) = policy.and_then(|policy| self.names.get_mut(&policy)) {
            names.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use gjallar_pubsub::Policy;

    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    #[test]
    fn nodes_created_and_deleted_during_the_scan_are_counted_correctly() {
        let owner = BareJid::new("owner@x").unwrap();
        let node_counts = NodeCounts::new(HashMap::from([(owner.clone(), 3)]));
        let few = Policy { max_nodes: Some(9), ..Policy::default() };
        let by_name = vec![("other".into(), Policy::default()), ("*".into(), few)];
        node_counts.begin_rebuild(Arc::new(PolicyTable::new(
            Vec::new(),
            by_name,
            Policy::default(),
        )));
        // During the scan, a node that was not read yet is deleted, one is created, and one that was read is deleted.
        node_counts.add_existing([node("seen")].into_iter());
        node_counts.adjust(&node("seen"), Some(&owner), None);
        node_counts.adjust(&node("came"), None, Some(&owner));
        node_counts.adjust(&node("read"), Some(&owner), None);
        node_counts
            .add_existing([node("read"), node("came"), node("stays"), node("other")].into_iter());
        assert_eq!(node_counts.count_for_policy(&node("any")), 0);
        node_counts.finish_rebuild();
        assert_eq!(node_counts.count_for_policy(&node("any")), 2);
        assert_eq!(node_counts.count_for_policy(&node("other")), 0);
        node_counts.adjust(&node("read"), None, Some(&owner));
        assert_eq!((node_counts.count_for_policy(&node("any")), node_counts.total()), (3, 3));
        // An aborted rebuild changes nothing.
        node_counts.begin_rebuild(Arc::new(PolicyTable::default()));
        node_counts.abort_rebuild();
        node_counts.finish_rebuild();
        assert_eq!(node_counts.count_for_policy(&node("any")), 3);
    }
}
