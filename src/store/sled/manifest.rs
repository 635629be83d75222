//! Manifest `gjallar.store`: identity of the store in a folder, and the number of a recent commit.
//!
//! The file is beside sled's files, so that a missing, foreign or truncated `db` is detected. After each commit is on
//! disk, its number is written to the manifest, without a sync of the manifest. So the store must have at least the
//! commit with this number.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    os::unix::fs::FileExt,
    path::Path,
};

use crate::store::StoreError;

use super::{failed, record};

const NAME: &str = "gjallar.store";
/// Content of the manifest of version 1, which had no fields.
const OF_VERSION_1: &str = "gjallar keeps its store here\n";
/// Files and folders created by sled.
const OF_SLED: [&str; 3] = ["db", "conf", "blobs"];

/// Manifest of an open store.
#[derive(Debug)]
pub(super) struct Manifest {
    file: File,
    pub(super) store: u64,
    /// Number of a commit that is on disk; later commits may be on disk too.
    pub(super) commit: u64,
}

impl Manifest {
    /// Opens the manifest in a folder; creates one in an empty folder.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed(&error))?;
        match OpenOptions::new().read(true).write(true).open(directory.join(NAME)) {
            Ok(file) => Self::read(file, directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(directory),
            Err(error) => Err(failed(&error)),
        }
    }

    fn read(file: File, directory: &Path) -> Result<Self, StoreError> {
        lock(&file)?;
        let text = io::read_to_string(&file).map_err(|error| failed(&error))?;
        if text == OF_VERSION_1 {
            return Err(StoreError::Version { found: 1, expected: record::VERSION });
        }
        if text.is_empty() && !OF_SLED.iter().any(|name| directory.join(name).exists()) {
            return Self::begin(file, directory);
        }
        let damaged = || StoreError::Corrupt(format!("damaged file: {NAME}"));
        let (content, sum) = text.trim_end().rsplit_once(' ').ok_or_else(damaged)?;
        let fields: Vec<_> = content.split(' ').collect();
        let ["gjallar-store", version, store, state, commit] = fields[..] else {
            return Err(damaged());
        };
        if format!("{:08x}", crc32c::crc32c(content.as_bytes())) != sum {
            return Err(damaged());
        }
        let found = version.parse().map_err(|_| damaged())?;
        if !(record::OLDEST_VERSION..=record::VERSION).contains(&found) {
            return Err(StoreError::Version { found, expected: record::VERSION });
        }
        let store = u64::from_str_radix(store, 16).map_err(|_| damaged())?;
        let commit = commit.parse().map_err(|_| damaged())?;
        if state != "ready" {
            // The creation was interrupted before the store had content.
            remove_remains(directory).map_err(|error| failed(&error))?;
        } else if let Some(missing) = ["db", "conf"].iter().find(|n| !directory.join(n).exists()) {
            return Err(StoreError::Corrupt(format!("the file {missing} is missing")));
        }
        let marker = Self { file, store, commit };
        if found != record::VERSION {
            // The manifest gets the new layout version before the first record of this layout, which binaries of the
            // previous layout cannot read.
            let rewritten = marker.write(state).and_then(|()| marker.file.sync_all());
            rewritten.map_err(|error| failed(&error))?;
        }
        Ok(marker)
    }

    fn make(directory: &Path) -> Result<Self, StoreError> {
        if let Some(foreign) = OF_SLED.iter().find(|name| directory.join(name).exists()) {
            return Err(StoreError::Corrupt(format!(
                "not a store of this service: the folder has a file {foreign}, but no {NAME}"
            )));
        }
        let file = File::create_new(directory.join(NAME)).map_err(|error| failed(&error))?;
        lock(&file)?;
        Self::begin(file, directory)
    }

    fn begin(file: File, directory: &Path) -> Result<Self, StoreError> {
        let marker = Self { file, store: super::open::new_store_id(), commit: 0 };
        let write = || {
            marker.write("begun")?;
            marker.file.sync_all()?;
            sync(directory)
        };
        write().map_err(|error| failed(&error))?;
        Ok(marker)
    }

    /// Records that sled's files exist and are synced.
    pub(super) fn ready(&self, directory: &Path) -> io::Result<()> {
        File::open(directory.join("conf"))?.sync_all()?;
        File::open(directory.join("db"))?.sync_all()?;
        sync(directory)?;
        self.write("ready")?;
        self.file.sync_all()
    }

    /// Records that a commit is on disk.
    pub(super) fn committed(&mut self, commit: u64) -> io::Result<()> {
        self.commit = commit;
        self.write("ready")
    }

    fn write(&self, state: &str) -> io::Result<()> {
        let (version, store, commit) = (record::VERSION, self.store, self.commit);
        let content = format!("gjallar-store {version} {store:016x} {state} {commit:020}");
        let sum = crc32c::crc32c(content.as_bytes());
        self.file.write_all_at(format!("{content} {sum:08x}\n").as_bytes(), 0)
    }
}

impl Drop for Manifest {
    /// Unlocks explicitly: closing the file does not release the lock while a child process has the file open, between
    /// fork and exec.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Locks the store for this process, before its content is read.
fn lock(file: &File) -> Result<(), StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

/// Returns `true` if a folder contains a store.
pub(super) fn is_in(directory: &Path) -> bool {
    directory.join(NAME).exists()
}

/// Returns the text of the manifest in a folder.
pub(super) fn text(directory: &Path) -> io::Result<String> {
    std::fs::read_to_string(directory.join(NAME))
}

/// Replaces the store in `directory` by the store in the folder `by`, if the manifest of the replaced store still has
/// the text `was`. If the replacement is interrupted, `directory` contains a store that is empty when it is opened, as
/// after an interrupted creation.
pub(super) fn replace(directory: &Path, was: &str, by: &Path) -> Result<(), StoreError> {
    let opened = OpenOptions::new().read(true).write(true).open(directory.join(NAME));
    let file = opened.map_err(|error| failed(&error))?;
    lock(&file)?;
    let replace = || -> io::Result<bool> {
        if io::read_to_string(&file)? != was {
            return Ok(false);
        }
        let old = Manifest { file, store: super::open::new_store_id(), commit: 0 };
        old.write("begun")?;
        old.file.sync_all()?;
        remove_remains(directory)?;
        for entry in std::fs::read_dir(by)? {
            let name = entry?.file_name();
            if name != NAME {
                std::fs::rename(by.join(&name), directory.join(&name))?;
            }
        }
        sync(directory)?;
        std::fs::rename(by.join(NAME), directory.join(NAME))?;
        sync(directory)?;
        Ok(true)
    };
    match replace() {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed("somebody else wrote to the store meanwhile")),
        Err(error) => Err(failed(&error)),
    }
}

/// Removes the remains of an interrupted creation: sled's files and folders.
fn remove_remains(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if !OF_SLED.contains(&&*name) && !name.starts_with("snap.") {
            continue;
        }
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Syncs the entries of a folder, and its own entry in the parent folder.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    match directory.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_store_is_unlocked_although_a_child_process_has_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Manifest::open(folder.path()).unwrap();
        let of_child = marker.file.try_clone().unwrap();
        assert!(matches!(Manifest::open(folder.path()), Err(StoreError::Locked)));
        drop(marker);
        Manifest::open(folder.path()).unwrap();
        drop(of_child);
    }
}
