//! From text to a store.

use std::{io::BufRead, sync::Arc};

use jid::{BareJid, Jid};

use crate::{
    pubsub::{Affiliation, Changes, Item, Node, Notification, Terms, restore},
    store::{Chain, Commit, Store},
    wire::name::affiliation_named,
};

use super::{
    ArchiveError, FORMAT, Summary,
    line::{Line, NodeLine},
};

/// Changes that are committed at once.
const BATCH: usize = 200;
/// The longest line, in bytes.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Whether a store can be filled.
///
/// # Errors
/// [`ArchiveError::NotEmpty`], or if it cannot be read.
pub async fn is_empty(store: &dyn Store) -> Result<(), ArchiveError> {
    if store.creators().await?.is_empty() && store.owed(None).await?.is_empty() {
        Ok(())
    } else {
        Err(ArchiveError::NotEmpty)
    }
}

/// Fills an empty store. After an error the store has a part of the text, and is not to be used.
///
/// # Errors
/// [`ArchiveError::NotEmpty`]; [`ArchiveError::Line`] for a line that is not understood, or is missing.
pub async fn import(store: &dyn Store, text: &mut impl BufRead) -> Result<Summary, ArchiveError> {
    is_empty(store).await?;
    let mut lines = Lines { text, number: 0 };
    match lines.next()? {
        Some(Line::Archive { format: FORMAT }) => {}
        Some(Line::Archive { format }) => {
            return Err(lines.wrong(format!("format {format}, this binary reads {FORMAT}")));
        }
        _ => return Err(lines.wrong("not an archive of this service")),
    }
    let mut summary = Summary::default();
    let mut filling: Option<Filling<'_>> = None;
    loop {
        let Some(line) = lines.next()? else { return Err(lines.wrong("the end is missing")) };
        if let (Line::End { lines: expected }, number) = (&line, lines.number) {
            if *expected != number - 1 {
                return Err(lines.wrong(format!("{expected} lines were written")));
            }
            if let Some(filling) = filling.take() {
                filling.finish().await?;
            }
            return Ok(summary);
        }
        if let Line::Node(line) = &line {
            if let Some(filling) = filling.take() {
                filling.finish().await?;
            }
            summary.nodes += u64::from(!line.deleted);
            filling = Some(Filling::begin(store, line).await.map_err(|why| lines.because(why))?);
            continue;
        }
        let Some(filling) = &mut filling else { return Err(lines.wrong("no node before it")) };
        filling.take(line, &mut summary).await.map_err(|why| lines.because(why))?;
    }
}

struct Lines<'a, R> {
    text: &'a mut R,
    number: u64,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> Result<Option<Line>, ArchiveError> {
        self.number += 1;
        let mut line = String::new();
        let mut limited = std::io::Read::take(&mut *self.text, MAX_LINE_BYTES as u64);
        if limited.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if !line.ends_with('\n') {
            return Err(self.wrong("it is cut, or too long"));
        }
        serde_json::from_str(&line).map(Some).map_err(|error| self.wrong(error.to_string()))
    }

    fn wrong(&self, reason: impl Into<String>) -> ArchiveError {
        ArchiveError::Line { number: self.number, reason: reason.into() }
    }

    fn because(&self, why: Why) -> ArchiveError {
        match why {
            Why::Form(reason) => self.wrong(reason),
            Why::Store(error) => error,
        }
    }
}

enum Why {
    Form(String),
    Store(ArchiveError),
}

impl From<String> for Why {
    fn from(reason: String) -> Self {
        Self::Form(reason)
    }
}

impl From<ArchiveError> for Why {
    fn from(error: ArchiveError) -> Self {
        Self::Store(error)
    }
}

/// A node that is being put back, and what is not committed yet.
struct Filling<'a> {
    store: &'a dyn Store,
    node: Node,
    seq: u64,
    is_deleted: bool,
    redirect: Option<String>,
    affiliations: Vec<(BareJid, Affiliation)>,
    /// Who, whether an owner made it, and since when.
    subscriptions: Vec<(Jid, bool, u64)>,
    pending: Vec<Jid>,
    /// Who has options or SubIDs, and after which position.
    specials: Vec<(Jid, Vec<Terms>, u64)>,
    items: Vec<Item>,
}

impl<'a> Filling<'a> {
    async fn begin(store: &'a dyn Store, line: &NodeLine) -> Result<Self, Why> {
        let node = line.to_node()?;
        if store.node(&node.id).await.map_err(ArchiveError::from)?.is_some() {
            return Err(Why::Form("there is a node of this name before".into()));
        }
        let filling = Self {
            store,
            seq: line.seq,
            is_deleted: line.deleted,
            redirect: line.redirect.clone(),
            affiliations: Vec::new(),
            subscriptions: Vec::new(),
            pending: Vec::new(),
            specials: Vec::new(),
            items: Vec::new(),
            node: node.clone(),
        };
        filling.commit(restore::created(node), None).await?;
        Ok(filling)
    }

    async fn take(&mut self, line: Line, summary: &mut Summary) -> Result<(), Why> {
        match line {
            Line::Affiliation { jid, affiliation } => {
                let named = affiliation_named(&affiliation).ok_or_else(|| affiliation.clone())?;
                self.affiliations.push((jid, named));
            }
            Line::Subscription { jid, since, enrolled, pending, special } => {
                summary.subscriptions += u64::from(!self.is_deleted);
                if let Some(special) = special {
                    self.specials.push((jid.clone(), special.to_terms()?, special.since));
                }
                match pending {
                    true => self.pending.push(jid),
                    false => self.subscriptions.push((jid, enrolled, since)),
                }
            }
            Line::Item(item) => {
                summary.items += 1;
                self.items.push(item.into_item(self.node.epoch)?);
                if self.items.len() == BATCH {
                    self.items().await?;
                }
            }
            Line::Event(event) => {
                summary.events += 1;
                self.flush().await?;
                let event = event.into_notification(&self.node)?;
                self.commit(restore::reached(event.place.seq), Some(event)).await?;
            }
            Line::Archive { .. } | Line::Node(_) | Line::End { .. } => {
                return Err(Why::Form("not in the middle of a node".into()));
            }
        }
        Ok(())
    }

    /// Commits what came since the last commit. Subscriptions of one position go together.
    async fn flush(&mut self) -> Result<(), ArchiveError> {
        let affiliations = std::mem::take(&mut self.affiliations);
        for batch in affiliations.chunks(BATCH) {
            self.commit(restore::affiliated(batch.to_vec()), None).await?;
        }
        let mut subscriptions = std::mem::take(&mut self.subscriptions);
        subscriptions.sort_by_key(|(.., since)| *since);
        for of_one in subscriptions.chunk_by(|(.., a), (.., b)| a == b) {
            let since = of_one.first().map_or(0, |(.., since)| *since);
            for batch in of_one.chunks(BATCH) {
                let jids = batch.iter().map(|(jid, enrolled, _)| (jid.clone(), *enrolled));
                let jids = jids.collect();
                self.commit(restore::subscribed(jids, since), None).await?;
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for batch in pending.chunks(BATCH) {
            self.commit(restore::requested(batch.to_vec()), None).await?;
        }
        for (jid, terms, since) in std::mem::take(&mut self.specials) {
            self.commit(restore::agreed(jid, terms, since), None).await?;
        }
        self.items().await
    }

    async fn items(&mut self) -> Result<(), ArchiveError> {
        let items = std::mem::take(&mut self.items);
        if items.is_empty() { Ok(()) } else { self.commit(restore::published(items), None).await }
    }

    async fn finish(mut self) -> Result<(), ArchiveError> {
        self.flush().await?;
        let last = match self.is_deleted {
            true => restore::deleted(self.seq, self.redirect.take()),
            false => restore::reached(self.seq),
        };
        self.commit(last, None).await
    }

    async fn commit(
        &self,
        changes: Changes,
        event: Option<Notification>,
    ) -> Result<(), ArchiveError> {
        let commit = Commit {
            node: self.node.id.clone(),
            changes: Arc::new(changes),
            notifications: event.map(Arc::new).into_iter().collect(),
            chain: Chain::default(),
        };
        self.store.commit_now(commit).await?;
        Ok(())
    }
}
