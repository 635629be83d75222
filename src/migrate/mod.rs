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

/// A service that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// ejabberd's mod_pubsub, where it keeps nodes by SQL.
    Ejabberd,
    /// Idavoll, with PostgreSQL.
    Idavoll,
    /// Prosody's mod_pubsub, in files or by SQL.
    Prosody,
}

/// What is to be read.
#[derive(Clone, Debug)]
pub struct MigrationSource {
    /// Whose it is.
    pub kind: SourceKind,
    /// Where: a `postgres://` URL, a file of SQLite, or the folder in which Prosody keeps its data.
    pub source: String,
    /// The service's JID there. Nodes without an owner are created by it here.
    pub service: BareJid,
}

/// Why something cannot be read, or not be put into the store.
#[derive(Debug, Error)]
pub enum MigrationError {
    /// A file cannot be read.
    #[error("failed to read {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The database does not do what it is asked.
    #[error("database error: {0}")]
    Database(String),
    /// That is not what the service keeps.
    #[error("{0}")]
    Source(&'static str),
    /// The database is on another machine, to which only TLS would be safe.
    #[error("{0} is not on this machine: only local databases are read, or those behind a tunnel")]
    NotLocal(String),
    /// Nothing is there of that service.
    #[error("no nodes of {service}; the source has nodes of: {others}")]
    NoNodes {
        /// Of which.
        service: String,
        /// Of which there are.
        others: String,
    },
    /// The store cannot be filled.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl From<StoreError> for MigrationError {
    fn from(error: StoreError) -> Self {
        Self::Archive(error.into())
    }
}

/// How much came over, and what did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// What came over, or would.
    pub summary: ArchiveSummary,
    /// What did not.
    pub remarks: MigrationWarnings,
}

/// What does not come over, or otherwise than it was: each kind once, with how often it is so, and for example where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationWarnings(BTreeMap<String, MigrationWarning>);

/// One kind of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationWarning {
    /// Number of halvings.
    pub times: u64,
    /// The first places, at most three.
    pub places: Vec<String>,
}

impl MigrationWarnings {
    const MAX_PLACES: usize = 3;

    fn add(&mut self, what: impl Into<String>, place: impl Into<String>) {
        let remark = self.0.entry(what.into()).or_default();
        remark.times += 1;
        if remark.places.len() < Self::MAX_PLACES {
            remark.places.push(place.into());
        }
    }

    /// Each, by its text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MigrationWarning)> {
        self.0.iter().map(|(what, remark)| (what.as_str(), remark))
    }
}

/// What a reader of a service does.
#[async_trait(?Send)]
trait SourceReader {
    /// The names of all nodes.
    async fn nodes(
        &mut self,
        remarks: &mut MigrationWarnings,
    ) -> Result<Vec<String>, MigrationError>;

    /// One of them, with all that it has; nothing if it cannot be read, which is remarked.
    async fn node(
        &mut self,
        name: &str,
        remarks: &mut MigrationWarnings,
    ) -> Result<Option<SourceNode>, MigrationError>;
}

/// Reads everything of a service, and puts it into an empty store, if there is one; without one it only says what
/// would come over. Each node is judged by the limits that apply to its name. What is in memory at a time is the names of
/// the nodes, and one node with its items. After an error the store has a part, and is not to be used.
///
/// # Errors
/// [`MigrationError`]. A part that cannot be understood is no error: it is remarked.
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
    let names = reader.nodes(&mut taken.remarks).await?;
    if names.is_empty() {
        return Err(MigrationError::Source("the source has no nodes"));
    }
    let here = convert::ConvertContext { service: &origin.service, limits, fresh, now };
    for (done, name) in (0..).zip(&names) {
        progress(done, names.len() as u64);
        let Some(found) = reader.node(name, &mut taken.remarks).await? else { continue };
        let settled = convert::convert(found, &here, &mut taken.remarks);
        let Some(settled) = settled else { continue };
        settled.count(&mut taken.summary);
        if let Some(store) = into {
            settled.put(store).await?;
        }
    }
    Ok(taken)
}

/// The nodes of one service among these of a host each.
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
