//! Committer thread: the only writer of the store, with group commit.
//!
//! A commit is acknowledged once it is on disk. sled's `flush` waits for a sync of sled's log, and `fdatasync_shim.c`
//! replaces this sync by `fdatasync`, so that the data is on disk when it returns.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::Duration,
};

use jid::{BareJid, Jid};
use tokio::{sync::oneshot, time::Instant};

use crate::store::{
    Commit, CommitChain, CommitReceipt, MAX_PENDING_COMMITS, OnCommit, StoreError, Told,
};
use gjallar_pubsub::NodeId;

use super::{
    failed, gc, keys::NodeNumber, open::OpenStore, sled_failed, tree_reader::ReadHandle,
    write_batch::WriteBatch, write_tx::WriteTx,
};

/// Maximum number of commits that share one sync. Larger batches make sled slower.
pub(super) const MAX_GROUP: usize = 64;
/// Maximum time for which the committer waits for a group to become as large as the previous group. The wait pays off
/// because many callers submit the next commit as soon as their previous commit is answered.
const GATHERING: Duration = Duration::from_micros(200);
/// Interval between attempts to reopen the store after a failure.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Request to the committer.
pub(super) enum CommitterRequest {
    Write(WriteRequest),
    /// Request to copy the files of the store, between two groups of commits.
    Copy {
        folder: PathBuf,
        done: ReplySender<()>,
    },
}

/// Write request, with the sender of its result.
pub(super) enum WriteRequest {
    Commit(Commit, PendingCommit),
    Acknowledge { acks: Told, done: ReplySender<()> },
    PresenceRefusals { changes: Vec<(BareJid, bool)>, done: ReplySender<()> },
    RevokeImplicit { node: NodeId, resources: BTreeSet<Jid>, done: ReplySender<()> },
}

type ReplySender<T> = oneshot::Sender<Result<T, StoreError>>;

/// Commit in progress, with its callback. If the value is dropped before the commit ends, the callback gets an error.
pub(super) struct PendingCommit {
    chain: CommitChain,
    then: Option<OnCommit>,
}

impl PendingCommit {
    pub(super) fn new(commit: &Commit, then: OnCommit) -> Self {
        Self { chain: commit.chain.clone(), then: Some(then) }
    }

    pub(super) fn end(mut self, result: Result<CommitReceipt, StoreError>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<CommitReceipt, StoreError>) {
        if let Some(then) = self.then.take() {
            if result.is_err() {
                self.chain.poison();
            }
            then(result);
        }
    }
}

impl Drop for PendingCommit {
    fn drop(&mut self) {
        self.finish(Err(failed("the committer has ended")));
    }
}

/// Caller that waits for the result of a group.
enum CommitWaiter {
    Commit(CommitReceipt, PendingCommit),
    Other(ReplySender<()>),
}

/// For each node, the caller of a commit that ended many subscriptions of the node. The caller waits until the rows of
/// these subscriptions are removed.
type RevocationWaiters = HashMap<NodeNumber, CommitWaiter>;

impl CommitWaiter {
    fn end(self, result: Result<(), StoreError>) {
        match self {
            Self::Commit(committed, pending) => pending.end(result.map(|()| committed)),
            // The send fails only if the caller has stopped waiting.
            Self::Other(done) => drop(done.send(result)),
        }
    }
}

/// Function that reopens the store after a failure.
pub(super) type ReopenFn = Box<dyn Fn() -> Result<OpenStore, StoreError> + Send>;

pub(super) struct Committer {
    opened: OpenStore,
    reader: ReadHandle,
    open: ReopenFn,
}

/// Reason why writing stopped.
enum WriteFault {
    /// The disk is full. Writing resumes after the store is reopened, because reopening shows which commits were
    /// written.
    Full(String),
    /// Writing stops until the process restarts, because the content of the disk is unknown. A failed sync is not
    /// repeated, because the operating system may mark pages as clean that it has not written.
    Unknown(String),
}

impl Committer {
    /// Starts the thread. The thread ends after the sender is dropped, once all earlier requests are done.
    pub(super) fn start(
        opened: OpenStore,
        reader: ReadHandle,
        open: ReopenFn,
    ) -> Result<(mpsc::SyncSender<CommitterRequest>, thread::JoinHandle<()>), StoreError> {
        let (sender, receiver) = mpsc::sync_channel(2 * MAX_PENDING_COMMITS);
        let committer = Self { opened, reader, open };
        let thread = thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.run(receiver))
            .map_err(|error| failed(&error))?;
        Ok((sender, thread))
    }

    fn run(self, mut work: mpsc::Receiver<CommitterRequest>) {
        let Self { mut opened, reader, open } = self;
        let mut revoking = RevocationWaiters::new();
        let mut is_full = false;
        let mut usual = 0;
        while let Ok(first) = next(&mut work, &opened, is_full) {
            let (group, copies) = gather_group(first, &work, usual);
            usual = group.len();
            let shared = reader.lock_shared();
            let is_idle = group.is_empty() && opened.ledger.next_gc_task().is_none();
            let committed =
                if is_idle { Ok(()) } else { commit(&mut opened, group, &mut revoking, &reader) };
            drop(shared);
            reader.count_redirects(opened.ledger.redirects);
            is_full = matches!(committed, Err(WriteFault::Full(_)));
            match committed {
                Ok(()) => {
                    for (folder, done) in copies {
                        let _nobody_reads = reader.lock_exclusive();
                        // The send fails only if the caller has stopped waiting.
                        let _ = done.send(opened.copy_to(&folder));
                    }
                }
                Err(WriteFault::Unknown(reason)) => {
                    drop(opened);
                    while let Ok(work) = work.recv() {
                        refuse(work, &reason);
                    }
                    return;
                }
                Err(WriteFault::Full(reason)) => {
                    // Log positions that callers may still hold are not assigned again.
                    let next_position = opened.ledger.next_position;
                    drop(opened);
                    match reopen(&open, &mut work, &reason) {
                        Some(again) => opened = again,
                        None => return,
                    }
                    opened.ledger.next_position = opened.ledger.next_position.max(next_position);
                    reader.replace(&opened.tree, &opened.ledger);
                }
            }
        }
    }
}

/// Error: the request queue is closed.
struct QueueClosed;

/// Waits for the next request and returns it. If garbage is left to collect and the disk is not full, does not wait,
/// and returns `None` if no request is queued.
fn next(
    work: &mut mpsc::Receiver<CommitterRequest>,
    opened: &OpenStore,
    is_full: bool,
) -> Result<Option<CommitterRequest>, QueueClosed> {
    if opened.ledger.next_gc_task().is_none() || is_full {
        return work.recv().map(Some).map_err(|_| QueueClosed);
    }
    match work.try_recv() {
        Ok(asked) => Ok(Some(asked)),
        Err(mpsc::TryRecvError::Disconnected) if !opened.ledger.is_revoking() => Err(QueueClosed),
        Err(_) => Ok(None),
    }
}

/// Collects the requests of a group. Waits up to [`GATHERING`] for the group to reach the size of the previous group
/// (`usual`).
fn gather_group(
    first: Option<CommitterRequest>,
    work: &mpsc::Receiver<CommitterRequest>,
    usual: usize,
) -> (Vec<WriteRequest>, Vec<(PathBuf, ReplySender<()>)>) {
    let (mut group, mut copies) = (Vec::new(), Vec::new());
    let until = Instant::now() + GATHERING;
    let mut next = first;
    while let Some(asked) = next {
        match asked {
            CommitterRequest::Write(write) => group.push(write),
            CommitterRequest::Copy { folder, done } => copies.push((folder, done)),
        }
        if group.len() >= MAX_GROUP {
            break;
        }
        next = match work.try_recv() {
            Ok(asked) => Some(asked),
            Err(_) if group.len() >= usual => None,
            Err(_) => work.recv_timeout(until.saturating_duration_since(Instant::now())).ok(),
        };
    }
    (group, copies)
}

/// Retries until the store opens, and rejects requests meanwhile. Returns `None` if the queue is closed.
fn reopen(
    open: &ReopenFn,
    work: &mut mpsc::Receiver<CommitterRequest>,
    reason: &str,
) -> Option<OpenStore> {
    loop {
        if let Ok(opened) = open() {
            return Some(opened);
        }
        loop {
            match work.try_recv() {
                Ok(work) => refuse(work, reason),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return None,
            }
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

fn refuse(work: CommitterRequest, reason: &str) {
    match work {
        CommitterRequest::Write(WriteRequest::Commit(_, pending)) => {
            pending.end(Err(failed(reason)))
        }
        CommitterRequest::Write(
            WriteRequest::Acknowledge { done, .. }
            | WriteRequest::PresenceRefusals { done, .. }
            | WriteRequest::RevokeImplicit { done, .. },
        )
        | CommitterRequest::Copy { done, .. } => {
            drop(done.send(Err(failed(reason))));
        }
    }
}

/// Commits a group with one sync. A request that cannot be encoded fails alone. If the group fails, reads fail until
/// the store is reopened.
fn commit(
    opened: &mut OpenStore,
    group: Vec<WriteRequest>,
    revoking: &mut RevocationWaiters,
    reader: &ReadHandle,
) -> Result<(), WriteFault> {
    let mut waiting = Vec::with_capacity(group.len());
    let mut not_revoked = None;
    let written = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut rows = WriteBatch::new(&opened.tree);
        for write in group {
            let mut tx = WriteTx::new(&mut rows, &mut opened.ledger);
            let (result, done) = match write {
                WriteRequest::Commit(Commit { chain, .. }, pending) if chain.is_poisoned() => (
                    Err(failed("an earlier commit failed")),
                    CommitWaiter::Commit(CommitReceipt::default(), pending),
                ),
                WriteRequest::Commit(commit, pending) => {
                    let Commit { node, changes, notifications, revoked, .. } = commit;
                    let changed = tx.apply(&node, &changes, &notifications, &revoked);
                    let result = changed.as_ref().map(|(_, at)| *at).map_err(Clone::clone);
                    (result, CommitWaiter::Commit(changed.unwrap_or_default().0, pending))
                }
                WriteRequest::Acknowledge { acks, done } => {
                    (tx.acknowledge(&acks).map(|()| None), CommitWaiter::Other(done))
                }
                WriteRequest::PresenceRefusals { changes, done } => {
                    let set = tx.set_presence_refusals(&changes);
                    (set.map(|()| None), CommitWaiter::Other(done))
                }
                WriteRequest::RevokeImplicit { node, resources, done } => {
                    let revoked = tx.revoke_implicit_at(&node, &resources);
                    (revoked.map(|()| None), CommitWaiter::Other(done))
                }
            };
            rows.end_commit(result.is_ok());
            match result {
                Ok(None) => waiting.push(done),
                Ok(Some(node)) => drop(revoking.insert(node, done)),
                Err(error) => done.end(Err(error)),
            }
        }
        let unreadable = |error: StoreError| WriteFault::Unknown(error.to_string());
        WriteTx::new(&mut rows, &mut opened.ledger).append_log_row().map_err(unreadable)?;
        rows.end_commit(true);
        not_revoked = gc::collect_garbage(&mut rows, &mut opened.ledger).map_err(unreadable)?;
        let (batch, total) = rows.finish(&opened.total).map_err(unreadable)?;
        let began = Instant::now();
        let _waiting = opened.waker.waiting();
        opened.tree.apply_batch(batch).map_err(|error| WriteFault::of(&error))?;
        opened.tree.flush().map_err(|error| WriteFault::of(&error))?;
        opened.total = total;
        opened.marker.committed(total.commit).map_err(|error| WriteFault::of_io(&error))?;
        if let Some(CommitWaiter::Commit(committed, _)) = waiting.first_mut() {
            committed.sync = Some(began.elapsed());
        }
        Ok(())
    }));
    let written = written
        .unwrap_or_else(|_| Err(WriteFault::Unknown("the store's software panicked".into())));
    let result = match &written {
        Ok(()) => Ok(()),
        Err(WriteFault::Full(reason) | WriteFault::Unknown(reason)) => {
            // Close before the callers are answered: the tree may contain rows that are not on disk.
            reader.close(reason);
            Err(failed(reason))
        }
    };
    waiting.into_iter().for_each(|done| done.end(result.clone()));
    if let Some((node, error)) = not_revoked
        && let Some(done) = revoking.remove(&node)
    {
        done.end(Err(error));
    }
    let is_over = |node: &NodeNumber| result.is_err() || !opened.ledger.is_revoking_at(*node);
    for (_, done) in revoking.extract_if(|node, _| is_over(node)) {
        done.end(result.clone());
    }
    written
}

impl WriteFault {
    fn of(error: &sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::of_io(error),
            error => Self::Unknown(sled_failed(error).to_string()),
        }
    }

    fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full(error.to_string())
            }
            _ => Self::Unknown(error.to_string()),
        }
    }
}
