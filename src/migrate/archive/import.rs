//! Import of an archive into a store.

use std::io::BufRead;

use crate::store::{Store, StoreError};
use gjallar_pubsub::{Affiliation, Audience, Epoch, FormerNode, IdGenerator, Node, Sequence};

use super::{
    ArchiveError, ArchiveSummary, FORMAT,
    line::{ArchiveLine, NodeLine},
};
use crate::migrate::node_importer::NodeImporter;

/// Maximum bytes of a line.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Number of presence refusals in one write to the store. A presence refusal records that an entity refused to share
/// its presence with the service.
const MAX_REFUSALS_WRITTEN: usize = 500;

/// Checks that a store is empty.
///
/// # Errors
/// [`ArchiveError::NotEmpty`], or if the store cannot be read.
pub async fn is_empty(store: &dyn Store) -> Result<(), ArchiveError> {
    if store.node_counts().await?.is_empty() && store.poll(None).await?.is_empty() {
        Ok(())
    } else {
        Err(ArchiveError::NotEmpty)
    }
}

/// Epochs of the imported nodes.
#[derive(Clone, Copy)]
pub enum Epochs<'a> {
    /// New epochs, so that no new event gets the id of an event that occurred after the export.
    New(&'a dyn IdGenerator),
    /// Epochs of the archive; safe only if the service did not run after the export.
    Same,
}

/// Imports an archive into an empty store. After an error the store holds a part of the archive and must not be used.
///
/// # Errors
/// [`ArchiveError::NotEmpty`]; [`ArchiveError::Line`] for a line that is invalid or missing.
pub async fn import(
    store: &dyn Store,
    text: &mut impl BufRead,
    epochs: Epochs<'_>,
) -> Result<ArchiveSummary, ArchiveError> {
    is_empty(store).await?;
    let mut lines = ArchiveLines { text, number: 0 };
    match lines.next()? {
        Some(ArchiveLine::Archive { format: FORMAT }) => {}
        Some(ArchiveLine::Archive { format }) => {
            return Err(lines.wrong(format!("format {format}, this version reads {FORMAT}")));
        }
        _ => return Err(lines.wrong("not an archive of this service")),
    }
    let mut summary = ArchiveSummary::default();
    let mut restored: Option<CurrentNode<'_>> = None;
    let mut refusals = Vec::new();
    loop {
        let Some(line) = lines.next()? else {
            return Err(lines.wrong("the archive is cut off: its last line is missing"));
        };
        if let (ArchiveLine::PresenceRefusal { jid }, None) = (&line, &restored) {
            refusals.push((jid.clone(), true));
            continue;
        }
        for some in std::mem::take(&mut refusals).chunks(MAX_REFUSALS_WRITTEN) {
            store.set_presence_refusals(some).await?;
        }
        if let (ArchiveLine::End { lines: expected }, number) = (&line, lines.number) {
            if *expected != number - 1 {
                return Err(
                    lines.wrong(format!("the archive is incomplete: {expected} lines expected"))
                );
            }
            if let Some(restored) = restored.take() {
                restored.finish().await?;
            }
            return Ok(summary);
        }
        if let ArchiveLine::Node(line) = &line {
            if let Some(restored) = restored.take() {
                restored.finish().await?;
            }
            summary.nodes += u64::from(!line.deleted);
            let begun = CurrentNode::begin(store, line, epochs).await;
            restored = Some(begun.map_err(|why| lines.because(why))?);
            continue;
        }
        let Some(restored) = &mut restored else {
            return Err(lines.wrong("no node precedes this line"));
        };
        restored.take(line, &mut summary).await.map_err(|why| lines.because(why))?;
    }
}

struct ArchiveLines<'a, R> {
    text: &'a mut R,
    number: u64,
}

impl<R: BufRead> ArchiveLines<'_, R> {
    fn next(&mut self) -> Result<Option<ArchiveLine>, ArchiveError> {
        self.number += 1;
        let mut line = String::new();
        let mut limited = std::io::Read::take(&mut *self.text, MAX_LINE_BYTES as u64);
        if limited.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if !line.ends_with('\n') {
            return Err(self.wrong("the line is cut or too long"));
        }
        serde_json::from_str(&line).map(Some).map_err(|error| self.wrong(error.to_string()))
    }

    fn wrong(&self, reason: impl Into<String>) -> ArchiveError {
        ArchiveError::Line { number: self.number, reason: reason.into() }
    }

    fn because(&self, why: LineError) -> ArchiveError {
        match why {
            LineError::Form(reason) => self.wrong(reason),
            LineError::Store(error) => error.into(),
        }
    }
}

enum LineError {
    Form(String),
    Store(StoreError),
}

impl From<String> for LineError {
    fn from(reason: String) -> Self {
        Self::Form(reason)
    }
}

impl From<StoreError> for LineError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Node to which the lines that are being read belong.
struct CurrentNode<'a> {
    importer: NodeImporter<'a>,
    /// Node with the owners read so far. Set only if the archive has no revision of the node's configuration. In this
    /// case the import derives the revision from the owners.
    inheriting: Option<Node>,
    sequence: Sequence,
    version: u64,
    is_deleted: bool,
    former: Option<FormerNode>,
}

impl<'a> CurrentNode<'a> {
    async fn begin(
        store: &'a dyn Store,
        line: &NodeLine,
        epochs: Epochs<'_>,
    ) -> Result<Self, LineError> {
        let mut node = line.to_node()?;
        if line.version() == u64::MAX || line.sequence == u64::MAX {
            return Err(LineError::Form("the version or sequence is too large".into()));
        }
        if let Epochs::New(fresh) = epochs {
            node.epoch = Epoch(fresh.next_u64());
        }
        if store.node(&node.id).await?.is_some() {
            return Err(LineError::Form("the archive has two nodes of this name".into()));
        }
        Ok(Self {
            inheriting: line.inherits_revision().then(|| node.clone()),
            importer: NodeImporter::begin(store, node).await?,
            sequence: Sequence(line.sequence),
            version: line.version(),
            is_deleted: line.deleted,
            former: line.to_former()?,
        })
    }

    async fn take(
        &mut self,
        line: ArchiveLine,
        summary: &mut ArchiveSummary,
    ) -> Result<(), LineError> {
        match line {
            ArchiveLine::Affiliation { jid, affiliation } => {
                let named = Affiliation::parse(&affiliation).ok_or(affiliation)?;
                if let (Some(node), Affiliation::Owner) = (&mut self.inheriting, named) {
                    node.load_affiliation(jid.clone(), named);
                }
                self.importer.affiliate(jid, named);
            }
            ArchiveLine::Subscription { jid, since, enrolled, pending, configured } => {
                summary.subscriptions += u64::from(!self.is_deleted);
                self.check("since", since, self.last_version())?;
                if let Some(configured) = configured {
                    self.check("special.since", configured.since, self.last_version())?;
                    self.importer.agree(jid.clone(), configured.to_details()?, configured.since);
                }
                match pending {
                    true => self.importer.request(jid),
                    false => self.importer.subscribe(jid, enrolled, since),
                }
            }
            ArchiveLine::Item(item) => {
                summary.items += 1;
                let item = item.into_item(self.importer.node().epoch)?;
                self.check("seq", item.event_id.sequence.0, self.last_sequence())?;
                self.importer.item(item).await?;
            }
            ArchiveLine::Event(event) => {
                summary.events += 1;
                let event = event.into_notification(self.importer.node())?;
                self.check("seq", event.event_id.sequence.0, self.last_sequence())?;
                // A repeated item is for subscriptions up to the commit that sends it. A list of layout 9 is for all
                // listed subscribers, whenever they subscribed.
                let is_unbounded =
                    event.as_of == u64::MAX && matches!(event.audience, Audience::Listed(_));
                if !is_unbounded {
                    self.check("as_of", event.as_of, self.last_version().saturating_add(1))?;
                }
                self.importer.event(event).await?;
            }
            ArchiveLine::Archive { .. }
            | ArchiveLine::Node(_)
            | ArchiveLine::PresenceRefusal { .. }
            | ArchiveLine::End { .. } => {
                return Err(LineError::Form("this line must not be within a node".into()));
            }
        }
        Ok(())
    }

    /// Returns the version of the node. For a deleted node, returns the largest valid version, because the archive has
    /// only the pending log entries of such a node.
    fn last_version(&self) -> u64 {
        if self.is_deleted { u64::MAX - 1 } else { self.version }
    }

    /// Returns the last sequence number of the node. For a deleted node, returns the largest valid number, because the
    /// archive has only the pending log entries of such a node.
    fn last_sequence(&self) -> u64 {
        if self.is_deleted { u64::MAX - 1 } else { self.sequence.0 }
    }

    /// Rejects a `number` above `last`, which is the version or the last sequence number of the node. Otherwise a later
    /// commit or event would get the same number. `what` names the number in the error.
    fn check(&self, what: &str, number: u64, last: u64) -> Result<(), LineError> {
        match number <= last {
            true => Ok(()),
            false => Err(LineError::Form(format!(
                "{what} is {number}, but may be at most {last} at this node"
            ))),
        }
    }

    async fn finish(self) -> Result<(), StoreError> {
        if let Some(node) = self.inheriting {
            self.importer.revise(node.inherited_revision()).await?;
        }
        match self.is_deleted {
            true => self.importer.delete(self.sequence, self.version, self.former).await,
            false => self.importer.finish(self.sequence, self.version).await,
        }
    }
}
