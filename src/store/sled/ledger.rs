//! What the committer keeps in mind: the numbers that come next, and what is owed at which node.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::keys::{Number, Spot};

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) next_node: Number,
    pub(super) next_debt: u64,
    debts: BTreeMap<u64, Number>,
    owing: HashMap<Number, usize>,
    /// Deleted nodes whose subscribers are kept until they were told.
    dead: HashSet<Number>,
    /// Nodes that lost many subscriptions at once, and rows of these are left.
    revoking: BTreeSet<Number>,
    /// Where a node's items begin, and rows of others are left before.
    first_items: BTreeMap<Number, Spot>,
    /// Deleted nodes at which nothing is owed, and rows are left.
    graves: BTreeSet<Number>,
}

/// What has to be removed by and by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Remains {
    /// Subscriptions that a node lost at once.
    Subscriptions(Number),
    /// A node's items before a position and index.
    Items(Number, Spot),
    /// All of a node but items.
    Node(Number),
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            next_node: 1,
            next_debt: 1,
            debts: BTreeMap::new(),
            owing: HashMap::new(),
            dead: HashSet::new(),
            revoking: BTreeSet::new(),
            first_items: BTreeMap::new(),
            graves: BTreeSet::new(),
        }
    }
}

impl Ledger {
    pub(super) fn owe(&mut self, debt: u64, node: Number) {
        self.next_debt = self.next_debt.max(debt + 1);
        self.debts.insert(debt, node);
        *self.owing.entry(node).or_default() += 1;
    }

    /// A node is deleted. What it owes is known.
    pub(super) fn bury(&mut self, node: Number) {
        if self.owing.contains_key(&node) {
            self.dead.insert(node);
        } else {
            self.graves.insert(node);
        }
    }

    /// A node lost many subscriptions at once.
    pub(super) fn revoke(&mut self, node: Number) {
        self.revoking.insert(node);
    }

    /// Whether rows are left of subscriptions that a node lost.
    pub(super) fn revokes_at(&self, node: Number) -> bool {
        self.revoking.contains(&node)
    }

    /// Whether rows are left of subscriptions that some node lost.
    pub(super) fn revokes(&self) -> bool {
        !self.revoking.is_empty()
    }

    /// A node's items begin at a position and index.
    pub(super) fn begin_items(&mut self, node: Number, first: Spot) {
        self.first_items.insert(node, first);
    }

    /// Forgets a debt. A deleted node whose last it was has nothing more to stay for.
    pub(super) fn forget(&mut self, debt: u64) {
        let Some(node) = self.debts.remove(&debt) else { return };
        let Some(left) = self.owing.get_mut(&node) else { return };
        *left -= 1;
        if *left == 0 {
            self.owing.remove(&node);
            if self.dead.remove(&node) {
                self.graves.insert(node);
            }
        }
    }

    /// What has to be removed next: what somebody waits for; items before the node that counts them.
    pub(super) fn remains(&self) -> Option<Remains> {
        let subscriptions = self.revoking.first().map(|node| Remains::Subscriptions(*node));
        let items = self.first_items.first_key_value();
        let items = items.map(|(node, first)| Remains::Items(*node, *first));
        let node = self.graves.first().map(|node| Remains::Node(*node));
        subscriptions.or(items).or(node)
    }

    /// Nothing of them is left, or it cannot be removed.
    pub(super) fn leave(&mut self, remains: Remains) {
        match remains {
            Remains::Subscriptions(node) => drop(self.revoking.remove(&node)),
            Remains::Items(node, _) => drop(self.first_items.remove(&node)),
            Remains::Node(node) => drop(self.graves.remove(&node)),
        }
    }
}
