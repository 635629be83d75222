//! What the committer keeps in mind: the numbers that come next, and what is owed at which node.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::keys::Number;

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) next_node: Number,
    pub(super) next_debt: u64,
    debts: BTreeMap<u64, Number>,
    owing: HashMap<Number, usize>,
    /// Deleted nodes whose subscribers are kept until they were told.
    dead: HashSet<Number>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            next_node: 1,
            next_debt: 1,
            debts: BTreeMap::new(),
            owing: HashMap::new(),
            dead: HashSet::new(),
        }
    }
}

impl Ledger {
    pub(super) fn owe(&mut self, debt: u64, node: Number) {
        self.next_debt = self.next_debt.max(debt + 1);
        self.debts.insert(debt, node);
        *self.owing.entry(node).or_default() += 1;
    }

    pub(super) fn owes_at(&self, node: Number) -> bool {
        self.owing.contains_key(&node)
    }

    pub(super) fn bury(&mut self, node: Number) {
        self.next_node = self.next_node.max(node + 1);
        self.dead.insert(node);
    }

    /// Forgets a debt; gives the node if it is deleted and nothing more is owed there.
    pub(super) fn forget(&mut self, debt: u64) -> Option<Number> {
        let node = self.debts.remove(&debt)?;
        let left = self.owing.get_mut(&node)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.owing.remove(&node);
        self.dead.remove(&node).then_some(node)
    }

    /// Deleted nodes at which nothing is owed.
    pub(super) fn forgotten(&mut self) -> Vec<Number> {
        let forgotten: Vec<_> =
            self.dead.iter().filter(|node| !self.owing.contains_key(node)).copied().collect();
        forgotten.iter().for_each(|node| {
            self.dead.remove(node);
        });
        forgotten
    }
}
