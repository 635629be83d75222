//! Opening of a store, with checks that its files are complete, belong to the manifest, and have the newest commits.

use std::{
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sled::Tree;

use crate::store::StoreError;

use super::{
    flush_watchdog::FlushWatchdog,
    gc, keys,
    ledger::Ledger,
    manifest::Manifest,
    record::{self, StoreHeader},
    recovery, sled_failed, upgrade,
    write_batch::WriteBatch,
};

/// Number of attempts to take sled's own lock once the manifest is locked. Several attempts may be necessary, because
/// sled's threads may keep the file locked for a moment after a store is closed.
const ATTEMPTS: u32 = 2_500;
/// Interval between attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Open store.
pub(super) struct OpenStore {
    pub(super) directory: PathBuf,
    pub(super) tree: Tree,
    pub(super) marker: Manifest,
    pub(super) total: StoreHeader,
    pub(super) ledger: Ledger,
    pub(super) waker: FlushWatchdog,
}

impl OpenStore {
    /// Opens the store in a folder, which is created if it does not exist, and checks its index. `cache_bytes` is the
    /// size of sled's page cache.
    pub(super) fn open(directory: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let open = AssertUnwindSafe(|| Self::open_files(directory, cache_bytes));
        let panicked = |_| StoreError::Corrupt("damaged files: sled cannot open them".into());
        std::panic::catch_unwind(open).map_err(panicked)?
    }

    fn open_files(directory: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let marker = Manifest::open(directory)?;
        // sled's flush thread would sync too, and lose an error that the operating system reports only once.
        let config =
            sled::Config::new().path(directory).cache_capacity(cache_bytes).flush_every_ms(None);
        let tree: Tree = (*open_sled(&config)?).clone();
        let (total, ledger) = match marker.commit {
            0 if tree.is_empty() => (StoreHeader::default(), Ledger::default()),
            _ => recovery::check(&tree)?,
        };
        let waker = FlushWatchdog::new(&tree).map_err(|error| super::failed(&error))?;
        let mut opened = Self { directory: directory.into(), tree, marker, total, ledger, waker };
        if opened.total == StoreHeader::default() {
            opened.begin()?;
        }
        if opened.total.store != opened.marker.store {
            return Err(StoreError::Corrupt("the file `db` belongs to another store".into()));
        }
        if opened.total.commit < opened.marker.commit {
            return Err(StoreError::Corrupt("the newest commits are missing".into()));
        }
        upgrade::convert_nodes(&mut opened)?;
        // Subscriptions that nodes lost are removed before a node is read.
        while opened.ledger.is_revoking() {
            opened.write(|rows, ledger| gc::collect_garbage(rows, ledger).map(|_| ()))?;
        }
        Ok(opened)
    }

    /// Syncs the files of the store and copies them to a folder. The caller ensures that nothing is written meanwhile.
    pub(super) fn copy_to(&self, folder: &Path) -> Result<(), StoreError> {
        let waiting = self.waker.waiting();
        self.tree.flush().map_err(|error| sled_failed(&error))?;
        drop(waiting);
        let copy = || {
            for entry in std::fs::read_dir(&self.directory)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
                }
            }
            Ok(())
        };
        copy().map_err(|error: std::io::Error| super::failed(&error))
    }

    /// Writes the first records of a new store.
    fn begin(&mut self) -> Result<(), StoreError> {
        self.total.store = self.marker.store;
        let version = record::encode(keys::VERSION, &record::VERSION)?;
        self.tree.insert(keys::VERSION, version).map_err(|error| sled_failed(&error))?;
        self.write(|_, _| Ok(()))?;
        self.marker.commit = self.total.commit;
        self.marker.ready(&self.directory).map_err(|error| super::failed(&error))
    }

    pub(super) fn write(
        &mut self,
        change: impl FnOnce(&mut WriteBatch<'_>, &mut Ledger) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = WriteBatch::new(&self.tree);
        change(&mut rows, &mut self.ledger)?;
        let (batch, total) = rows.finish(&self.total)?;
        let _waiting = self.waker.waiting();
        self.tree.apply_batch(batch).map_err(|error| sled_failed(&error))?;
        self.tree.flush().map_err(|error| sled_failed(&error))?;
        self.total = total;
        Ok(())
    }
}

/// Returns a number that no other store has.
pub(super) fn new_store_id() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

fn open_sled(config: &sled::Config) -> Result<sled::Db, StoreError> {
    for _ in 1..ATTEMPTS {
        match config.open() {
            Err(error) if is_locked(&error) => thread::sleep(RETRY_INTERVAL),
            opened => return opened.map_err(|error| sled_failed(&error)),
        }
    }
    Err(StoreError::Locked)
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}
