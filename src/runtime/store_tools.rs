//! Commands on a whole store: on the store of a service that does not run, or on a copy that the running service makes.

use std::{
    io::{self, BufRead, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{
    admin::{AdminClient, Snapshot},
    migrate::{
        self, MigrationReport, MigrationSource,
        archive::{self, ArchiveError, ArchiveSummary, Epochs},
    },
    store::{SledStore, Store, StoreError},
};
use gjallar_pubsub::NodeId;

use crate::config::{Config, StorePath};

use super::{RandomIds, RunError, now, shown};
use crate::config::invalid;

/// Checks the store of a configuration; returns the problems, one line each.
///
/// # Errors
/// If the store cannot be opened or read.
pub async fn check(config: &Config) -> Result<Vec<String>, RunError> {
    let (store, _snapshot) = existing(config)?;
    let problems = store.check().await;
    store.close().await;
    problems.map_err(|error| failed(config, error))
}

/// Exports the store of a configuration.
///
/// # Errors
/// If the store cannot be opened or read, or the archive cannot be written.
pub async fn export(config: &Config, out: &mut impl Write) -> Result<ArchiveSummary, RunError> {
    let (store, _snapshot) = existing(config)?;
    let summary = archive::export(&store, out).await;
    store.close().await;
    Ok(summary?)
}

/// Imports an archive into the store of a configuration, which must be empty. Each node gets a new epoch, which is a
/// part of its event ids, unless `keeps_epochs` is `true`. If the service ran after the export, kept epochs are unsafe:
/// new events could get ids that clients have already received.
///
/// # Errors
/// If the store cannot be opened or is not empty, or the archive is invalid.
pub async fn import(
    config: &Config,
    text: &mut impl BufRead,
    keeps_epochs: bool,
) -> Result<ArchiveSummary, RunError> {
    let fresh = RandomIds::default();
    let epochs = if keeps_epochs { Epochs::Same } else { Epochs::New(&fresh) };
    fill_atomically(config, async |store| Ok(archive::import(store, text, epochs).await?)).await
}

/// Assigns a new epoch, which is a part of event ids, to every node of the store of a configuration. Returns the number
/// of nodes. No service may have the store open.
///
/// # Errors
/// If the store cannot be opened or written.
pub async fn rebase(config: &Config) -> Result<u64, RunError> {
    let StorePath::Sled(directory) = config.store_path()? else { return Err(keeps_nothing()) };
    let rebased = tokio::task::spawn_blocking(move || {
        refuse_root(&directory)?;
        SledStore::rebase(&directory, &RandomIds::default())
    });
    let rebased = rebased.await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())));
    rebased.map_err(|error| failed(config, error))
}

/// Imports the data of another service into the store of a configuration. The store must be empty. A dry run only
/// reports what would be imported. `progress` is called with the number of completed nodes and the number of all nodes.
///
/// # Errors
/// If a policy is contradictory, the store cannot be opened or is not empty, or the other service's data cannot be
/// read.
pub async fn migrate(
    config: &Config,
    origin: &MigrationSource,
    is_dry_run: bool,
    progress: impl FnMut(u64, u64),
) -> Result<MigrationReport, RunError> {
    let (limits, fresh) = (config.limits_by_name()?, RandomIds::default());
    let limits = |node: &NodeId| limits.for_node(node).limits.clone();
    if is_dry_run {
        return Ok(migrate::migrate(origin, None, &limits, &fresh, now(), progress).await?);
    }
    let fill = async |store: &SledStore| {
        Ok(migrate::migrate(origin, Some(store), &limits, &fresh, now(), progress).await?)
    };
    fill_atomically(config, fill).await
}

/// Fills the store of a configuration, completely or not at all. The store must be empty. The new store is created in a
/// folder inside the old one, and moved into place when it is complete.
async fn fill_atomically<T>(
    config: &Config,
    fill: impl AsyncFnOnce(&SledStore) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let StorePath::Sled(directory) = config.store_path()? else { return Err(keeps_nothing()) };
    refuse_root(&directory).map_err(|error| failed(config, error))?;
    let target = SledStore::open(&directory).map_err(|error| failed(config, error))?;
    let empty = archive::is_empty(&target).await;
    target.close().await;
    drop(target);
    empty?;
    let state = SledStore::state(&directory).map_err(|error| failed(config, error))?;
    let staging = directory.join("importing");
    remove(&staging)?;
    let store = SledStore::open(&staging).map_err(|error| failed(config, error))?;
    let done = fill(&store).await;
    store.close().await;
    drop(store);
    if done.is_ok() {
        SledStore::replace(&directory, &state, &staging).map_err(|error| failed(config, error))?;
    }
    remove(&staging)?;
    done
}

fn remove(folder: &Path) -> Result<(), ArchiveError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Opens the store of a configuration. If a service has it open, opens a copy that the service makes instead. The
/// returned [`Snapshot`] must be kept as long as the copy is in use.
fn existing(config: &Config) -> Result<(SledStore, Option<Snapshot>), RunError> {
    let StorePath::Sled(directory) = config.store_path()? else { return Err(keeps_nothing()) };
    let open =
        |folder: &Path| SledStore::open_existing(folder).map_err(|error| failed(config, error));
    let copied = |service: AdminClient| {
        let snapshot = service.snapshot()?;
        Ok((open(&snapshot.folder)?, Some(snapshot)))
    };
    match refuse_root(&directory) {
        Err(error) => copied(client(config).map_err(|_| failed(config, error))?),
        Ok(()) => match open(&directory) {
            Err(RunError::Store { source: StoreError::Locked, .. }) => copied(client(config)?),
            opened => Ok((opened?, None)),
        },
    }
}

/// Refuses to run as root in another user's folder: the service of that user could not open the created files.
pub(super) fn refuse_root(directory: &Path) -> Result<(), StoreError> {
    let owner = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.uid()).ok();
    match directory.ancestors().find_map(owner) {
        Some(other) if other != 0 && is_root() => Err(StoreError::WrongOwner(other)),
        _ => Ok(()),
    }
}

/// Returns `true` if the effective user of the process is root. The owner of `/proc/self` does not show the effective
/// user: root owns `/proc/self` if the process may not dump core, for example because its user cannot read the binary.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

/// Connects to the service that has the store of a configuration open.
///
/// # Errors
/// If no such service runs.
pub fn client(config: &Config) -> Result<AdminClient, RunError> {
    let path = config.control_path()?.ok_or_else(keeps_nothing)?;
    Ok(AdminClient::connect(&path)?)
}

fn keeps_nothing() -> RunError {
    invalid("store", "a store in memory is not persistent").into()
}

fn failed(config: &Config, source: StoreError) -> RunError {
    let path = config.store_path().map(|path| shown(&path)).unwrap_or_default();
    RunError::Store { path, source }
}
