//! Export of a store to an archive.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use jid::{BareJid, Jid};

use crate::store::{CorruptRecord, Owed, Store, StoreError};
use gjallar_pubsub::{
    Audience, ConfiguredSubscription, Epoch, EventId, FormerNode, ItemBudget, Limits, LogEntry,
    Node, NodeConfig, NodeId, PageBound, PageRequest, Recipients, ResultPage, Sequence, SubId,
    SubscriptionDetails, SubscriptionOptions, Timestamp,
};

use super::{
    ArchiveError, ArchiveSummary, FORMAT,
    line::{ArchiveLine, ItemLine, LogEntryLine, NodeLine},
    subscription_line::ConfiguredSubscriptionLine,
};

/// Placeholder for the creator of a deleted node.
const UNKNOWN_CREATOR: &str = "nobody.invalid";
/// Number of nodes, or of items, in one read.
const PAGE: usize = 100;
/// Maximum bytes of the recipients on one line, including their SubIDs. Escaping in JSON may double these bytes.
const MAX_RECIPIENTS_BYTES: usize = 4 * 1024 * 1024;

/// Writes all data of a store to an archive. The store must not be written to meanwhile. Memory holds one node without
/// its items, a page of items, and all pending log entries at a time.
///
/// # Errors
/// If the store cannot be read, or the archive cannot be written.
pub async fn export(
    store: &dyn Store,
    out: &mut impl Write,
) -> Result<ArchiveSummary, ArchiveError> {
    let mut writer = ArchiveWriter { out, lines: 0, summary: ArchiveSummary::default() };
    writer.line(&ArchiveLine::Archive { format: FORMAT })?;
    let mut refusals = store.presence_refusals().await?;
    refusals.sort();
    for jid in refusals {
        writer.line(&ArchiveLine::PresenceRefusal { jid })?;
    }
    // By epoch, because a deleted node and a new one may share a name.
    let mut pending = BTreeMap::<_, Vec<Owed>>::new();
    for entry in store.poll(None).await? {
        pending.entry(entry.notification.event_id.epoch.0).or_default().push(entry);
    }
    for (epoch, entries) in &pending {
        let Some(entry) = entries.first() else { continue };
        let now = store.node(&entry.notification.node).await?;
        if now.is_none_or(|now| now.epoch.0 != *epoch) {
            writer.deleted(entries)?;
        }
    }
    for (node, former) in store.former_nodes().await? {
        writer.former(node, former)?;
    }
    let mut unread = PageRequest::first(PAGE);
    loop {
        let page = store.nodes(&unread).await?;
        if let Some(CorruptRecord { record, .. }) = page.damaged.into_iter().next() {
            return Err(StoreError::Corrupt(record).into());
        }
        let Some((last, _)) = page.found.last() else { break };
        unread.edge = PageBound::After(*last);
        for (_, summary) in page.found {
            if let Some(node) = store.node(&summary.node).await? {
                let pending = pending.get(&node.epoch.0).map_or(&[][..], Vec::as_slice);
                writer.node(store, &node, pending).await?;
            }
        }
    }
    writer.line(&ArchiveLine::End { lines: writer.lines })?;
    writer.out.flush()?;
    Ok(writer.summary)
}

struct ArchiveWriter<'a, W> {
    out: &'a mut W,
    lines: u64,
    summary: ArchiveSummary,
}

impl<W: Write> ArchiveWriter<'_, W> {
    fn line(&mut self, line: &ArchiveLine) -> Result<(), ArchiveError> {
        serde_json::to_writer(&mut self.out, line).map_err(std::io::Error::from)?;
        self.out.write_all(b"\n")?;
        self.lines += 1;
        Ok(())
    }

    async fn node(
        &mut self,
        store: &dyn Store,
        node: &Node,
        pending: &[Owed],
    ) -> Result<(), ArchiveError> {
        self.summary.nodes += 1;
        self.line(&ArchiveLine::Node(NodeLine::of(node)))?;
        for (jid, affiliation) in node.affiliations() {
            let affiliation = affiliation.as_str().to_owned();
            self.line(&ArchiveLine::Affiliation { jid: jid.clone(), affiliation })?;
        }
        let enrolled = store.owner_subscribed(&node.id).await?;
        for (jid, since) in node.subscriptions() {
            let configured = node.configured_subscription(jid).map(ConfiguredSubscriptionLine::of);
            self.subscription(jid, since, enrolled.contains(jid), configured)?;
        }
        for jid in node.pending() {
            self.summary.subscriptions += 1;
            let configured = node.configured_subscription(jid).map(ConfiguredSubscriptionLine::of);
            let (jid, since) = (jid.clone(), node.version);
            let (enrolled, pending) = (false, true);
            self.line(&ArchiveLine::Subscription { jid, since, enrolled, pending, configured })?;
        }
        let all = PageRequest::first(usize::MAX);
        let ids = store.page_of_ids(&node.id, &all, 0, usize::MAX).await?;
        let ids = ids.unwrap_or_else(ResultPage::empty).map(|(id, _)| id);
        for page in ids.entries.chunks(PAGE) {
            let items = store.items(&node.id, page, &ItemBudget::stored(usize::MAX)).await?;
            for item in &items.entries {
                self.summary.items += 1;
                self.line(&ArchiveLine::Item(ItemLine::of(item)))?;
            }
        }
        self.events(pending)
    }

    /// Writes a deleted node with its pending log entries and their audience.
    fn deleted(&mut self, pending: &[Owed]) -> Result<(), ArchiveError> {
        let (Some(first), Some(last)) = (pending.first(), pending.last()) else { return Ok(()) };
        let mut recipients = pending.iter().flat_map(|entry| entry.recipients.iter());
        let Some(creator) = recipients.next().map(Jid::to_bare) else { return Ok(()) };
        let EventId { epoch, sequence } = last.notification.event_id;
        let config = NodeConfig::initial(&Limits::default());
        let mut node = Node::new(
            first.notification.node.clone(),
            epoch,
            config,
            creator,
            first.notification.occurred_at,
        );
        node.sequence = sequence;
        node.version = sequence.0;
        self.line(&ArchiveLine::Node(NodeLine { deleted: true, ..NodeLine::of(&node) }))?;
        // A subscription began before an entry of its audience; a listed one had options or a SubID by then.
        let mut subscribers = BTreeMap::<&Jid, (u64, Option<u64>)>::new();
        for Owed { notification, recipients, .. } in pending {
            let is_plain = match notification.audience {
                Audience::Subscribers => true,
                Audience::Listed(_) => false,
                Audience::Explicit(_) | Audience::Interested(_) => continue,
            };
            for jid in recipients.iter() {
                let (since, plain_until) = subscribers.entry(jid).or_insert((u64::MAX, None));
                *since = (*since).min(notification.as_of.saturating_sub(1));
                if is_plain {
                    *plain_until = Some(notification.as_of);
                }
            }
        }
        for (jid, (since, plain_until)) in subscribers {
            let details = SubscriptionDetails::new(
                None,
                SubscriptionOptions::default(),
                Sequence(0),
                Timestamp(0),
            );
            let configured = ConfiguredSubscription {
                since,
                options_since: plain_until.unwrap_or_default(),
                is_pending: false,
                details: [details].into(),
            };
            self.subscription(
                jid,
                since,
                false,
                Some(ConfiguredSubscriptionLine::of(&configured)),
            )?;
        }
        self.events(pending)
    }

    /// Writes the record of a deleted node without pending log entries.
    fn former(&mut self, node: NodeId, former: FormerNode) -> Result<(), ArchiveError> {
        let config = NodeConfig::initial(&Limits::default());
        let nobody = BareJid::new(UNKNOWN_CREATOR)
            .map_err(|_| StoreError::Failed(UNKNOWN_CREATOR.into()))?;
        let node = Node::new(node, Epoch(0), config, nobody, Timestamp(0));
        self.line(&ArchiveLine::Node(NodeLine::former(&node, former)))
    }

    fn subscription(
        &mut self,
        jid: &Jid,
        since: u64,
        enrolled: bool,
        configured: Option<ConfiguredSubscriptionLine>,
    ) -> Result<(), ArchiveError> {
        self.summary.subscriptions += 1;
        let jid = jid.clone();
        self.line(&ArchiveLine::Subscription { jid, since, enrolled, pending: false, configured })
    }

    fn events(&mut self, pending: &[Owed]) -> Result<(), ArchiveError> {
        for entry in pending {
            let parts = parts(entry);
            self.summary.events += u64::from(!parts.is_empty());
            for part in parts {
                self.line(&ArchiveLine::Event(Box::new(LogEntryLine::of(&part))))?;
            }
        }
        Ok(())
    }
}

/// Splits a log entry into entries with lines that are short enough for an import. Resources that have lost their
/// implicit subscription since the event are removed from the recipients, because an archive cannot record this loss.
fn parts(pending: &Owed) -> Vec<LogEntry> {
    let Owed { notification, recipients, .. } = pending;
    let to = |audience| LogEntry { audience, ..notification.clone() };
    match &notification.audience {
        Audience::Explicit(all) => split(all).into_iter().map(Audience::Explicit).map(to).collect(),
        Audience::Interested(_) => {
            split(recipients).into_iter().map(Audience::Interested).map(to).collect()
        }
        Audience::Listed(all) => split(all).into_iter().map(Audience::Listed).map(to).collect(),
        Audience::Subscribers => vec![notification.clone()],
    }
}

fn split(recipients: &Recipients) -> Vec<Recipients> {
    let (mut parts, mut bytes) = (Vec::<Vec<(Jid, Arc<[SubId]>)>>::new(), usize::MAX);
    for (jid, subids) in recipients.iter_with_subids() {
        let more = jid.as_str().len() + subids.iter().map(|id| id.as_str().len()).sum::<usize>();
        bytes = bytes.saturating_add(more);
        if bytes > MAX_RECIPIENTS_BYTES {
            parts.push(Vec::new());
            bytes = more;
        }
        if let Some(part) = parts.last_mut() {
            part.push((jid.clone(), subids.into()));
        }
    }
    parts.into_iter().map(Recipients::with_subids).collect()
}
