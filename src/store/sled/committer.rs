//! The one thread that writes: group commit, and the recipe that makes sled 0.34 durable.
//!
//! `flush` of sled 0.34 calls `sync_file_range`, which does not survive a power loss. So after it
//! the file is synced through a handle of our own; only then is anyone answered.

use std::{io, thread};

use sled::{Batch, Tree};
use tokio::sync::{mpsc, oneshot};

use crate::{
    pubsub::{Changes, NodeId},
    store::StoreError,
};

use super::{failed, keys::Number, turn::Turn};

/// The most commits that share one sync. Larger batches make sled slower.
const MAX_GROUP: usize = 64;

/// A commit and who waits for it.
pub(super) struct Commit {
    pub(super) node: NodeId,
    pub(super) changes: Changes,
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
}

/// Makes what was flushed survive a power loss.
pub(super) type Sync = Box<dyn Fn() -> io::Result<()> + Send>;

pub(super) struct Committer {
    tree: Tree,
    sync: Sync,
    next: Number,
    /// Why nothing more is written: after a failure it is unknown what is on disk.
    broken: Option<String>,
}

impl Committer {
    /// Starts the thread. It ends when the sender is dropped; what was sent by then is done.
    pub(super) fn start(
        tree: Tree,
        sync: Sync,
        next: Number,
    ) -> Result<(mpsc::Sender<Commit>, thread::JoinHandle<()>), StoreError> {
        let (sender, receiver) = mpsc::channel(4 * MAX_GROUP);
        let committer = Self { tree, sync, next, broken: None };
        let thread = thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.run(receiver))
            .map_err(|error| failed(&error))?;
        Ok((sender, thread))
    }

    fn run(mut self, mut commits: mpsc::Receiver<Commit>) {
        while let Some(first) = commits.blocking_recv() {
            let mut group = vec![first];
            while group.len() < MAX_GROUP
                && let Ok(commit) = commits.try_recv()
            {
                group.push(commit);
            }
            self.commit(group);
        }
    }

    /// Commits a group with one sync. One that cannot be written at all fails alone.
    fn commit(&mut self, group: Vec<Commit>) {
        let mut batch = Batch::default();
        let mut waiting = Vec::with_capacity(group.len());
        for Commit { node, changes, done } in group {
            let mut turn = Turn::new(&self.tree);
            let written = match &self.broken {
                Some(reason) => Err(failed(reason)),
                None => turn.change(&node, &changes, &mut self.next),
            };
            match written {
                Ok(()) => {
                    turn.write_to(&mut batch);
                    waiting.push(done);
                }
                Err(error) => drop(done.send(Err(error))),
            }
        }
        if waiting.is_empty() {
            return;
        }
        let result = self.make_durable(batch);
        if let Err(error) = &result {
            self.broken = Some(error.clone());
        }
        for done in waiting {
            drop(done.send(result.clone().map_err(|error| failed(&error))));
        }
    }

    fn make_durable(&self, batch: Batch) -> Result<(), String> {
        self.tree.apply_batch(batch).map_err(|error| error.to_string())?;
        self.tree.flush().map_err(|error| error.to_string())?;
        (self.sync)().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::pubsub::{
        Actor, Context, Fresh, Limits, Timestamp,
        op::create::{Create, create},
    };

    struct One;

    impl Fresh for One {
        fn number(&self) -> u64 {
            1
        }
    }

    fn creation(name: &str) -> (NodeId, Changes) {
        let jid = jid::Jid::new("a@b").unwrap();
        let actor = Actor { jid, is_administrator: false, may_create: true };
        let limits = Limits::default();
        let cx =
            Context { actor: &actor, limits: &limits, now: Timestamp(0), fresh: &One, nodes: 0 };
        let node = NodeId::parse(name).unwrap();
        let request = Create { node: None, settings: Vec::new() };
        (node.clone(), create(None, node, &request, &cx).unwrap().changes)
    }

    /// Commits, and says whether it succeeded and how often the file had been synced by then.
    fn commit(sender: &mpsc::Sender<Commit>, syncs: &AtomicU64, name: &str) -> (bool, u64) {
        let (node, changes) = creation(name);
        let (done, result) = oneshot::channel();
        assert!(sender.blocking_send(Commit { node, changes, done }).is_ok());
        let succeeded = result.blocking_recv().unwrap().is_ok();
        (succeeded, syncs.load(Ordering::SeqCst))
    }

    /// A committer whose sync fails the n-th time.
    fn committer(fails_at: u64) -> (mpsc::Sender<Commit>, Arc<AtomicU64>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let db = ::sled::open(folder.path()).unwrap();
        let syncs = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&syncs);
        let sync: Sync = Box::new(move || match count.fetch_add(1, Ordering::SeqCst) + 1 {
            number if number == fails_at => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        });
        let (sender, _) = Committer::start((*db).clone(), sync, 1).unwrap();
        (sender, syncs, folder)
    }

    #[test]
    fn nobody_is_answered_before_the_file_is_synced() {
        let (sender, syncs, _folder) = committer(0);
        assert_eq!(commit(&sender, &syncs, "a"), (true, 1));
        assert_eq!(commit(&sender, &syncs, "b"), (true, 2));
    }

    #[test]
    fn after_a_failed_sync_nothing_more_is_taken() {
        let (sender, syncs, _folder) = committer(2);
        assert_eq!(commit(&sender, &syncs, "a"), (true, 1));
        assert_eq!(commit(&sender, &syncs, "b"), (false, 2));
        assert_eq!(commit(&sender, &syncs, "c"), (false, 2));
    }
}
