//! Import of a node into a store, in batches.

use std::sync::Arc;

use jid::{BareJid, Jid};

use crate::store::{Commit, CommitChain, Store, StoreError};
use gjallar_pubsub::{
    Affiliation, Changes, ConfigRevision, FormerNode, Item, LogEntry, Node, Sequence,
    SubscriptionDetails, import_changes,
};

/// Number of changes in one commit.
const BATCH: usize = 200;

/// Node that is being imported, with the changes that are not committed yet.
pub(crate) struct NodeImporter<'a> {
    store: &'a dyn Store,
    node: Node,
    affiliations: Vec<(BareJid, Affiliation)>,
    /// Subscriptions: JID, `true` if an owner made the subscription, and version of the node at which it began.
    subscriptions: Vec<(Jid, bool, u64)>,
    pending: Vec<Jid>,
    /// Options and SubIDs of subscriptions: JID, options and SubIDs, and version of the node at which the subscription
    /// got them.
    configured: Vec<(Jid, Vec<SubscriptionDetails>, u64)>,
    items: Vec<Item>,
}

impl<'a> NodeImporter<'a> {
    /// Creates a node. `node` has no affiliations, subscriptions or items yet, and no node of its name may exist.
    pub(crate) async fn begin(store: &'a dyn Store, node: Node) -> Result<Self, StoreError> {
        let importer = Self {
            store,
            affiliations: Vec::new(),
            subscriptions: Vec::new(),
            pending: Vec::new(),
            configured: Vec::new(),
            items: Vec::new(),
            node: node.clone(),
        };
        importer.commit(import_changes::created(node), None).await?;
        Ok(importer)
    }

    /// Returns the node, without affiliations, subscriptions and items.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Adds an affiliation.
    pub(crate) fn affiliate(&mut self, entity: BareJid, affiliation: Affiliation) {
        self.affiliations.push((entity, affiliation));
    }

    /// Adds a subscription. `is_enrolled` is `true` if an owner made it, `false` if the subscriber did; `since` is the
    /// version of the node at which it began.
    pub(crate) fn subscribe(&mut self, jid: Jid, is_enrolled: bool, since: u64) {
        self.subscriptions.push((jid, is_enrolled, since));
    }

    /// Adds a subscription that is pending until an owner approves it.
    pub(crate) fn request(&mut self, jid: Jid) {
        self.pending.push(jid);
    }

    /// Sets the options or SubIDs of a subscribed or pending JID. `since` is the version of the node at which the
    /// subscription got them.
    pub(crate) fn agree(&mut self, jid: Jid, details: Vec<SubscriptionDetails>, since: u64) {
        self.configured.push((jid, details, since));
    }

    /// Adds an item. Items must be added in ascending order of their positions in the node.
    pub(crate) async fn item(&mut self, item: Item) -> Result<(), StoreError> {
        self.items.push(item);
        if self.items.len() == BATCH { self.items().await } else { Ok(()) }
    }

    /// Appends a pending log entry for the subscribers added so far.
    pub(crate) async fn event(&mut self, event: LogEntry) -> Result<(), StoreError> {
        self.flush().await?;
        self.commit(import_changes::reached(event.event_id.sequence, 0), Some(event)).await
    }

    /// Sets the revision of the configuration.
    pub(crate) async fn revise(&self, revision: ConfigRevision) -> Result<(), StoreError> {
        self.commit(import_changes::revised(revision), None).await
    }

    /// Completes the node: commits the remaining changes, and sets the node's last sequence number and its version.
    pub(crate) async fn finish(
        mut self,
        sequence: Sequence,
        version: u64,
    ) -> Result<(), StoreError> {
        self.flush().await?;
        self.commit(import_changes::reached(sequence, version), None).await
    }

    /// Commits the remaining changes, sets the node's last sequence number and its version, and deletes the node. The
    /// pending log entries of the node and the record of the deletion (`former`) stay.
    pub(crate) async fn delete(
        mut self,
        sequence: Sequence,
        version: u64,
        former: Option<FormerNode>,
    ) -> Result<(), StoreError> {
        self.flush().await?;
        self.commit(import_changes::deleted(sequence, version, former), None).await
    }

    /// Commits the changes since the last commit. Subscriptions with the same version share a commit.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let affiliations = std::mem::take(&mut self.affiliations);
        for batch in affiliations.chunks(BATCH) {
            self.commit(import_changes::affiliated(batch.to_vec()), None).await?;
        }
        let mut subscriptions = std::mem::take(&mut self.subscriptions);
        subscriptions.sort_by_key(|(.., since)| *since);
        for of_one in subscriptions.chunk_by(|(.., a), (.., b)| a == b) {
            let since = of_one.first().map_or(0, |(.., since)| *since);
            for batch in of_one.chunks(BATCH) {
                let jids = batch.iter().map(|(jid, enrolled, _)| (jid.clone(), *enrolled));
                let jids = jids.collect();
                self.commit(import_changes::subscribed(jids, since), None).await?;
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for batch in pending.chunks(BATCH) {
            self.commit(import_changes::requested(batch.to_vec()), None).await?;
        }
        for (jid, details, since) in std::mem::take(&mut self.configured) {
            self.commit(import_changes::agreed(jid, details, since), None).await?;
        }
        self.items().await
    }

    async fn items(&mut self) -> Result<(), StoreError> {
        let items = std::mem::take(&mut self.items);
        if items.is_empty() {
            Ok(())
        } else {
            self.commit(import_changes::published(items), None).await
        }
    }

    async fn commit(&self, changes: Changes, event: Option<LogEntry>) -> Result<(), StoreError> {
        let commit = Commit {
            node: self.node.id.clone(),
            changes: Arc::new(changes),
            notifications: event.map(Arc::new).into_iter().collect(),
            revoked: Arc::default(),
            chain: CommitChain::default(),
        };
        self.store.commit_now(commit).await?;
        Ok(())
    }
}
