//! The one thread that writes: group commit, and the recipe that makes sled 0.34 durable.
//!
//! `flush` of sled 0.34 calls `sync_file_range`, which does not survive a power loss. So after it
//! the file is synced through a handle of our own; only then is anyone answered.

use std::{fs::File, path::Path, thread};

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

pub(super) struct Committer {
    tree: Tree,
    file: File,
    next: Number,
    /// Why nothing more is written: after a failure it is unknown what is on disk.
    broken: Option<String>,
}

impl Committer {
    /// Starts the thread. It ends when the sender is dropped; what was sent by then is done.
    pub(super) fn start(
        tree: Tree,
        directory: &Path,
        next: Number,
    ) -> Result<(mpsc::Sender<Commit>, thread::JoinHandle<()>), StoreError> {
        let file = File::open(directory.join("db")).map_err(|error| failed(&error))?;
        let (sender, receiver) = mpsc::channel(4 * MAX_GROUP);
        let committer = Self { tree, file, next, broken: None };
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
        self.file.sync_data().map_err(|error| error.to_string())
    }
}
