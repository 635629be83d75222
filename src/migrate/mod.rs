//! Migration: archives, and the import of nodes from other services.
//!
//! A reader for each service describes its nodes in the terms of XEP-0060 (`source_node`), and `convert` decides which
//! parts are imported. The source is never written to. Parts that are not imported are reported.

pub mod archive;
mod convert;
mod database;
mod ejabberd;
mod idavoll;
pub(super) mod node_importer;
mod prosody;
mod source_node;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jid::BareJid;
use thiserror::Error;

use self::archive::{ArchiveError, ArchiveSummary};
use crate::store::{Store, StoreError};
use gjallar_pubsub::{IdGenerator, Limits, NodeId, Timestamp};

use self::{database::Database, source_node::SourceNode};

/// Service to import from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// ejabberd's mod_pubsub with SQL storage.
    Ejabberd,
    /// Idavoll with PostgreSQL.
    Idavoll,
    /// Prosody's mod_pubsub with file or SQL storage.
    Prosody,
}

/// Source of a migration.
#[derive(Clone, Debug)]
pub struct MigrationSource {
    /// Software of the service.
    pub kind: SourceKind,
    /// Location: a `postgres://` URL, an SQLite file, or Prosody's data folder.
    pub source: String,
    /// JID of the service in the source. Nodes without an owner get it as their creator.
    pub service: BareJid,
}

/// Error of a migration.
#[derive(Debug, Error)]
pub enum MigrationError {
    /// A file cannot be read.
    #[error("failed to read {path}")]
    File {
        /// Path of the file.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The database reported an error.
    #[error("database error: {0}")]
    Database(String),
    /// The source cannot be used: it does not belong to a service of this kind, has no nodes, or has an unsupported
    /// URL. The text is the reason.
    #[error("{0}")]
    Source(&'static str),
    /// The database is on another machine. A connection to it would need TLS, which the reader does not support.
    #[error("{0} is not on this machine: only local databases are read, or those behind a tunnel")]
    NotLocal(String),
    /// The source has no nodes of the service.
    #[error("no nodes of {service}; the source has nodes of: {others}")]
    NoNodes {
        /// JID of the service.
        service: String,
        /// Services that have nodes in the source.
        others: String,
    },
    /// The import into the store failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl From<StoreError> for MigrationError {
    fn from(error: StoreError) -> Self {
        Self::Archive(error.into())
    }
}

/// Report of a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// Numbers of imported objects; in a dry run, of objects that would be imported.
    pub summary: ArchiveSummary,
    /// Warnings about parts that are not imported, or are changed by the import.
    pub warnings: MigrationWarnings,
}

/// Warnings about parts that are not imported, or are changed by the import. Each text occurs once, with the number of
/// occurrences and examples of places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationWarnings(BTreeMap<String, MigrationWarning>);

/// Occurrences of one warning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationWarning {
    /// Number of occurrences.
    pub times: u64,
    /// First places, at most three.
    pub places: Vec<String>,
}

impl MigrationWarnings {
    const MAX_PLACES: usize = 3;

    fn add(&mut self, what: impl Into<String>, place: impl Into<String>) {
        let warning = self.0.entry(what.into()).or_default();
        warning.times += 1;
        if warning.places.len() < Self::MAX_PLACES {
            warning.places.push(place.into());
        }
    }

    /// Iterates over the warnings with their texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MigrationWarning)> {
        self.0.iter().map(|(what, warning)| (what.as_str(), warning))
    }
}

/// Reader for the nodes of one kind of service.
#[async_trait(?Send)]
trait SourceReader {
    /// Lists the names of all nodes, the oldest node first.
    async fn nodes(
        &mut self,
        warnings: &mut MigrationWarnings,
    ) -> Result<Vec<String>, MigrationError>;

    /// Reads one node with its items; `None` if the node cannot be read, which adds a warning.
    async fn node(
        &mut self,
        name: &str,
        warnings: &mut MigrationWarnings,
    ) -> Result<Option<SourceNode>, MigrationError>;
}

/// Reads all nodes of a service and imports them into an empty store. Without a store, only reports what would be
/// imported. The limits that apply to the name of a node decide which parts of the node are imported. Memory holds the
/// names of all nodes, and one node with its items at a time. After an error the store holds a part of the data and must
/// not be used.
///
/// # Errors
/// [`MigrationError`]. A part that cannot be read adds a warning instead of an error.
pub async fn migrate(
    origin: &MigrationSource,
    into: Option<&dyn Store>,
    limits: &dyn Fn(&NodeId) -> Limits,
    fresh: &dyn IdGenerator,
    now: Timestamp,
    mut progress: impl FnMut(u64, u64),
) -> Result<MigrationReport, MigrationError> {
    if let Some(store) = into {
        archive::is_empty(store).await?;
    }
    let mut reader = open(origin).await?;
    let mut taken = MigrationReport::default();
    let names = reader.nodes(&mut taken.warnings).await?;
    if names.is_empty() {
        return Err(MigrationError::Source("the source has no nodes"));
    }
    let context = convert::ConvertContext { service: &origin.service, limits, fresh, now };
    for (done, name) in (0..).zip(&names) {
        progress(done, names.len() as u64);
        let Some(found) = reader.node(name, &mut taken.warnings).await? else { continue };
        let converted = convert::convert(found, &context, &mut taken.warnings);
        let Some(converted) = converted else { continue };
        converted.count(&mut taken.summary);
        if let Some(store) = into {
            converted.put(store).await?;
        }
    }
    Ok(taken)
}

/// Returns the names of the nodes of one service, from pairs of service and node name.
fn nodes_of(service: &str, nodes: Vec<(String, String)>) -> Result<Vec<String>, MigrationError> {
    let (own, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|(host, _)| host == service);
    if own.is_empty() && !others.is_empty() {
        let others: BTreeSet<String> = others.into_iter().map(|(host, _)| host).collect();
        let others = others.into_iter().collect::<Vec<_>>().join(", ");
        return Err(MigrationError::NoNodes { service: service.to_owned(), others });
    }
    Ok(own.into_iter().map(|(_, node)| node).collect())
}

async fn open(origin: &MigrationSource) -> Result<Box<dyn SourceReader>, MigrationError> {
    let MigrationSource { kind, source, service } = origin;
    let service = service.to_string();
    Ok(match kind {
        SourceKind::Ejabberd => {
            Box::new(ejabberd::EjabberdReader::new(Database::open(source).await?, service))
        }
        SourceKind::Idavoll => Box::new(idavoll::IdavollReader::new(Database::open(source).await?)),
        SourceKind::Prosody if std::path::Path::new(source).is_dir() => {
            Box::new(prosody::ProsodyFileReader::new(source.into(), &service))
        }
        SourceKind::Prosody => {
            Box::new(prosody::ProsodySqlReader::new(Database::open(source).await?, service))
        }
    })
}
