//! The one thread that writes: group commit. What it answered is on disk: sled's `flush` waits until
//! its log was synced, which `durable.c` makes true.

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

use crate::{
    pubsub::NodeId,
    store::{Chain, Commit, Committed, MAX_UNDERWAY, StoreError, Then, Told},
};

use super::{
    failed, keys::Number, opening::Opened, reader::Reader, rows::Rows, sled_failed, sweep,
    turn::Turn,
};

/// The most commits that share one sync. Larger batches make sled slower.
pub(super) const MAX_GROUP: usize = 64;
/// How long a group waits for as many commits as the last one had: who was answered then may ask again.
const GATHERING: Duration = Duration::from_micros(200);
/// The pause between attempts to open a store again that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// What the committer is asked to do.
pub(super) enum Work {
    Write(Write),
    /// Copy the files, between two groups.
    Copy {
        folder: PathBuf,
        done: Done<()>,
    },
}

/// What it is asked to write, and who waits for it.
pub(super) enum Write {
    Commit(Commit, Pending),
    Forget { told: Told, done: Done<()> },
    PresenceRefusals { changes: Vec<(BareJid, bool)>, done: Done<()> },
    RevokeImplicit { node: NodeId, resources: BTreeSet<Jid>, done: Done<()> },
}

type Done<T> = oneshot::Sender<Result<T, StoreError>>;

/// A commit that is under way. It fails if it is dropped before it ends.
pub(super) struct Pending {
    chain: Chain,
    then: Option<Then>,
}

impl Pending {
    pub(super) fn new(commit: &Commit, then: Then) -> Self {
        Self { chain: commit.chain.clone(), then: Some(then) }
    }

    pub(super) fn end(mut self, result: Result<Committed, StoreError>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<Committed, StoreError>) {
        if let Some(then) = self.then.take() {
            if result.is_err() {
                self.chain.break_off();
            }
            then(result);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.finish(Err(failed("the committer has ended")));
    }
}

/// Who waits for what a group made true.
enum Waiting {
    Commit(Committed, Pending),
    Other(Done<()>),
}

/// Who waits until the last subscription is removed that a node lost.
type Revoking = HashMap<Number, Waiting>;

impl Waiting {
    fn end(self, result: Result<(), StoreError>) {
        match self {
            Self::Commit(committed, pending) => pending.end(result.map(|()| committed)),
            // If nobody waits any more, nobody is told.
            Self::Other(done) => drop(done.send(result)),
        }
    }
}

/// Opens the store again after a failure.
pub(super) type Open = Box<dyn Fn() -> Result<Opened, StoreError> + Send>;

pub(super) struct Committer {
    opened: Opened,
    reader: Reader,
    open: Open,
}

/// Why writing stopped.
enum Fault {
    /// The disk had no room, and nothing that was written is in doubt once the store is opened again.
    Full(String),
    /// What is on the disk is unknown until the process starts again: a failed sync is not repeated,
    /// for the system may call pages clean that it did not write.
    Unknown(String),
}

impl Committer {
    /// Starts the thread. It ends when the sender is dropped; what was sent by then is done.
    pub(super) fn start(
        opened: Opened,
        reader: Reader,
        open: Open,
    ) -> Result<(mpsc::SyncSender<Work>, thread::JoinHandle<()>), StoreError> {
        let (sender, receiver) = mpsc::sync_channel(2 * MAX_UNDERWAY);
        let committer = Self { opened, reader, open };
        let thread = thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer.run(receiver))
            .map_err(|error| failed(&error))?;
        Ok((sender, thread))
    }

    fn run(self, mut work: mpsc::Receiver<Work>) {
        let Self { mut opened, reader, open } = self;
        let mut revoking = Revoking::new();
        let mut is_full = false;
        let mut usual = 0;
        while let Ok(first) = next(&mut work, &opened, is_full) {
            let (group, copies) = gather(first, &work, usual);
            usual = group.len();
            let shared = reader.reading();
            let is_idle = group.is_empty() && opened.ledger.remains().is_none();
            let committed =
                if is_idle { Ok(()) } else { commit(&mut opened, group, &mut revoking, &reader) };
            drop(shared);
            reader.count_redirects(opened.ledger.redirects);
            is_full = matches!(committed, Err(Fault::Full(_)));
            match committed {
                Ok(()) => {
                    for (folder, done) in copies {
                        let _nobody_reads = reader.pause();
                        // If nobody waits any more, nobody is told.
                        let _ = done.send(opened.copy_to(&folder));
                    }
                }
                Err(Fault::Unknown(reason)) => {
                    drop(opened);
                    while let Ok(work) = work.recv() {
                        refuse(work, &reason);
                    }
                    return;
                }
                Err(Fault::Full(reason)) => {
                    // Numbers that somebody may still have in mind are not given again.
                    let next_debt = opened.ledger.next_debt;
                    drop(opened);
                    match open_again(&open, &mut work, &reason) {
                        Some(again) => opened = again,
                        None => return,
                    }
                    opened.ledger.next_debt = opened.ledger.next_debt.max(next_debt);
                    reader.replace(&opened.tree, &opened.ledger);
                }
            }
        }
    }
}

/// Nobody asks for anything any more.
struct Ended;

/// Waits for what is asked, unless something is left to be removed meanwhile, and there is room for that.
fn next(
    work: &mut mpsc::Receiver<Work>,
    opened: &Opened,
    is_full: bool,
) -> Result<Option<Work>, Ended> {
    if opened.ledger.remains().is_none() || is_full {
        return work.recv().map(Some).map_err(|_| Ended);
    }
    match work.try_recv() {
        Ok(asked) => Ok(Some(asked)),
        Err(mpsc::TryRecvError::Disconnected) if !opened.ledger.revokes() => Err(Ended),
        Err(_) => Ok(None),
    }
}

/// Takes what is asked, and waits a moment if that is less than usual.
fn gather(
    first: Option<Work>,
    work: &mpsc::Receiver<Work>,
    usual: usize,
) -> (Vec<Write>, Vec<(PathBuf, Done<()>)>) {
    let (mut group, mut copies) = (Vec::new(), Vec::new());
    let until = Instant::now() + GATHERING;
    let mut next = first;
    while let Some(asked) = next {
        match asked {
            Work::Write(write) => group.push(write),
            Work::Copy { folder, done } => copies.push((folder, done)),
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

/// Tries until the store opens, and refuses what is asked meanwhile; nothing if it is closed.
fn open_again(open: &Open, work: &mut mpsc::Receiver<Work>, reason: &str) -> Option<Opened> {
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
        thread::sleep(PAUSE);
    }
}

fn refuse(work: Work, reason: &str) {
    match work {
        Work::Write(Write::Commit(_, pending)) => pending.end(Err(failed(reason))),
        Work::Write(
            Write::Forget { done, .. }
            | Write::PresenceRefusals { done, .. }
            | Write::RevokeImplicit { done, .. },
        )
        | Work::Copy { done, .. } => {
            drop(done.send(Err(failed(reason))));
        }
    }
}

/// Commits a group with one sync. What cannot be written at all fails alone. If the group fails nothing is
/// read any more.
fn commit(
    opened: &mut Opened,
    group: Vec<Write>,
    revoking: &mut Revoking,
    reader: &Reader,
) -> Result<(), Fault> {
    let mut waiting = Vec::with_capacity(group.len());
    let mut not_revoked = None;
    let written = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut rows = Rows::new(&opened.tree);
        for write in group {
            let mut turn = Turn::new(&mut rows, &mut opened.ledger);
            let (result, done) = match write {
                Write::Commit(Commit { chain, .. }, pending) if chain.is_broken() => (
                    Err(failed("a commit before it failed")),
                    Waiting::Commit(Committed::default(), pending),
                ),
                Write::Commit(commit, pending) => {
                    let Commit { node, changes, notifications, revoked, .. } = commit;
                    let changed = turn.change(&node, &changes, &notifications, &revoked);
                    let result = changed.as_ref().map(|(_, at)| *at).map_err(Clone::clone);
                    (result, Waiting::Commit(changed.unwrap_or_default().0, pending))
                }
                Write::Forget { told, done } => {
                    (turn.forget(&told).map(|()| None), Waiting::Other(done))
                }
                Write::PresenceRefusals { changes, done } => {
                    let set = turn.set_presence_refusals(&changes);
                    (set.map(|()| None), Waiting::Other(done))
                }
                Write::RevokeImplicit { node, resources, done } => {
                    let revoked = turn.revoke_implicit_at(&node, &resources);
                    (revoked.map(|()| None), Waiting::Other(done))
                }
            };
            rows.end_commit(result.is_ok());
            match result {
                Ok(None) => waiting.push(done),
                Ok(Some(node)) => drop(revoking.insert(node, done)),
                Err(error) => done.end(Err(error)),
            }
        }
        let unreadable = |error: StoreError| Fault::Unknown(error.to_string());
        Turn::new(&mut rows, &mut opened.ledger).write_debts().map_err(unreadable)?;
        rows.end_commit(true);
        not_revoked = sweep::sweep(&mut rows, &mut opened.ledger).map_err(unreadable)?;
        let (batch, total) = rows.finish(&opened.total).map_err(unreadable)?;
        let began = Instant::now();
        let _waiting = opened.waker.waiting();
        opened.tree.apply_batch(batch).map_err(|error| Fault::of(&error))?;
        opened.tree.flush().map_err(|error| Fault::of(&error))?;
        opened.total = total;
        opened.marker.committed(total.commit).map_err(|error| Fault::of_io(&error))?;
        if let Some(Waiting::Commit(committed, _)) = waiting.first_mut() {
            committed.sync = Some(began.elapsed());
        }
        Ok(())
    }));
    let written =
        written.unwrap_or_else(|_| Err(Fault::Unknown("the store's software panicked".into())));
    let result = match &written {
        Ok(()) => Ok(()),
        Err(Fault::Full(reason) | Fault::Unknown(reason)) => {
            // Before anyone is answered, and asks for what the tree has and the disk does not.
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
    let is_over = |node: &Number| result.is_err() || !opened.ledger.revokes_at(*node);
    for (_, done) in revoking.extract_if(|node, _| is_over(node)) {
        done.end(result.clone());
    }
    written
}

impl Fault {
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
