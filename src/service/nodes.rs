//! Hot nodes: those in memory, loaded on demand, bounded. A node's lock is its turn: who holds it is
//! the only one who decides, commits and tells there.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use jid::{BareJid, Jid};
use tokio::sync::{Mutex as TurnMutex, Notify, OwnedMutexGuard};

use crate::{
    pubsub::{Change, Changes, Node, NodeId, Notification},
    store::{Committed, Store, StoreError},
};

/// The nodes that are in memory.
#[derive(Debug)]
pub(super) struct Nodes {
    max: usize,
    cells: Mutex<HashMap<NodeId, Arc<TurnMutex<Cell>>>>,
    /// Those of which something is damaged, until the process ends.
    closed: Mutex<HashSet<NodeId>>,
    /// Those whose last commit failed, and that nobody has looked at since.
    in_doubt: Mutex<VecDeque<NodeId>>,
    doubts: Notify,
    /// Damaged records of which nobody knows the node.
    of_no_node: Mutex<HashSet<String>>,
}

/// What is known of a node.
#[derive(Debug)]
enum Cell {
    /// Nothing: it has to be read.
    Unread,
    /// Nothing, for a commit failed: it has to be read, and may have changed without being told. Whose it
    /// was before, if it was there.
    InDoubt(Option<BareJid>),
    /// There is no such node.
    Absent,
    There(Box<Hot>),
}

#[derive(Debug)]
struct Hot {
    node: Node,
    /// Everyone subscribed; made when first needed after a change.
    recipients: Option<Arc<[Jid]>>,
}

/// Whose a node was before a commit of which nobody knows whether it happened.
#[derive(Debug)]
pub(super) struct Before(pub(super) Option<BareJid>);

/// A node's turn.
#[derive(Debug)]
pub(super) struct Turn {
    cell: OwnedMutexGuard<Cell>,
}

impl Nodes {
    /// Keeps at most `max` nodes that nobody is working at.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            cells: Mutex::default(),
            closed: Mutex::default(),
            in_doubt: Mutex::default(),
            doubts: Notify::new(),
            of_no_node: Mutex::default(),
        }
    }

    /// Closes a node; whether it was not closed before.
    pub(super) fn close(&self, id: &NodeId) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
    }

    /// What became of a node's last commit is not known.
    pub(super) fn doubt(&self, id: &NodeId) {
        let mut nodes = self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if !nodes.contains(id) {
            nodes.push_back(id.clone());
        }
        drop(nodes);
        self.doubts.notify_one();
    }

    /// Waits for a node that is in doubt, or was.
    pub(super) async fn in_doubt(&self) -> NodeId {
        loop {
            let first = self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(id) = first {
                return id;
            }
            self.doubts.notified().await;
        }
    }

    /// Notes a record; whether it was not noted before.
    pub(super) fn note(&self, record: &str) -> bool {
        let mut noted = self.of_no_node.lock().unwrap_or_else(PoisonError::into_inner);
        noted.insert(record.to_owned())
    }

    pub(super) fn is_closed(&self, id: &NodeId) -> bool {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Waits for a node's turn, and reads the node if it is not in memory. If that was because a commit
    /// failed, whose it was before is given too.
    pub(super) async fn turn(
        &self,
        id: &NodeId,
        store: &dyn Store,
    ) -> Result<(Turn, Option<Before>), StoreError> {
        let mut cell = self.cell(id).lock_owned().await;
        let before = match &*cell {
            Cell::InDoubt(creator) => Some(Before(creator.clone())),
            Cell::Unread | Cell::Absent | Cell::There(_) => None,
        };
        if matches!(*cell, Cell::Unread | Cell::InDoubt(_)) {
            *cell = match store.node(id).await? {
                Some(node) => Cell::There(Box::new(Hot { node, recipients: None })),
                None => Cell::Absent,
            };
        }
        Ok((Turn { cell }, before))
    }

    fn cell(&self, id: &NodeId) -> Arc<TurnMutex<Cell>> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(id) {
            return Arc::clone(cell);
        }
        if cells.len() >= self.max {
            let idle = cells.iter().find(|(_, cell)| {
                Arc::strong_count(cell) == 1
                    && cell.try_lock().is_ok_and(|cell| !matches!(*cell, Cell::InDoubt(_)))
            });
            if let Some(idle) = idle.map(|(id, _)| id.clone()) {
                cells.remove(&idle);
            }
        }
        let cell = Arc::new(TurnMutex::new(Cell::Unread));
        cells.insert(id.clone(), Arc::clone(&cell));
        cell
    }
}

impl Turn {
    /// The node, if there is one.
    pub(super) fn node(&self) -> Option<&Node> {
        match &*self.cell {
            Cell::There(hot) => Some(&hot.node),
            Cell::Unread | Cell::InDoubt(_) | Cell::Absent => None,
        }
    }

    /// Commits changes, and then makes them true in memory: disk before memory. While the store works
    /// the cell is in doubt, so after a failure the truth is read again.
    ///
    /// Not to be dropped before it is done: the next turn could read what this one has not written.
    pub(super) async fn commit(
        &mut self,
        id: &NodeId,
        changes: &Changes,
        notification: Option<&Notification>,
        store: &dyn Store,
    ) -> Result<Committed, StoreError> {
        let creator = self.node().map(|node| node.creator.clone());
        let before = std::mem::replace(&mut *self.cell, Cell::InDoubt(creator));
        let committed = store.commit(id, changes, notification).await?;
        *self.cell = before.with(changes);
        Ok(committed)
    }

    /// What is known of the node may not be all that happened there.
    pub(super) fn doubt(&mut self, before: Before) {
        *self.cell = Cell::InDoubt(before.0);
    }

    /// Everyone who is subscribed.
    pub(super) fn recipients(&mut self) -> Arc<[Jid]> {
        match &mut *self.cell {
            Cell::There(hot) => {
                let Hot { node, recipients } = &mut **hot;
                Arc::clone(recipients.get_or_insert_with(|| node.subscribers().cloned().collect()))
            }
            Cell::Unread | Cell::InDoubt(_) | Cell::Absent => Arc::default(),
        }
    }
}

impl Cell {
    fn with(self, changes: &Changes) -> Self {
        let mut hot = match self {
            Self::There(hot) => hot,
            Self::Unread | Self::InDoubt(_) | Self::Absent => match changes.iter().next() {
                Some(Change::Created(node)) => {
                    Box::new(Hot { node: (**node).clone(), recipients: None })
                }
                _ => return Self::Absent,
            },
        };
        if changes.iter().any(|change| matches!(change, Change::Deleted)) {
            return Self::Absent;
        }
        let other_audience = |change: &Change| {
            matches!(change, Change::Subscribed(_) | Change::Enrolled(_) | Change::Unsubscribed(_))
        };
        if changes.iter().any(other_audience) {
            hot.recipients = None;
        }
        hot.node.apply(changes);
        Self::There(hot)
    }
}
