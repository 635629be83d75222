//! Store with injected failures.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use gjallar::store::{
    Commit, MAX_PENDING_COMMITS, NodeNumber, OnCommit, Owed, Partial, Store, StoreError, Told,
};
use gjallar_pubsub::{
    Affiliation, FormerNode, Item, ItemBudget, ItemId, ItemPage, ItemPosition, ItemQuery, ItemRef,
    Node, NodeId, OwnerHash, PageRequest, ResultPage, Subscription, op::discover::NodeSummary,
};
use jid::{BareJid, Jid};
use tokio::sync::{Semaphore, mpsc};

/// Store of which one commit fails; commits wait for a permit of the gate.
pub struct FailingStore {
    inner: Arc<dyn Store>,
    /// Number of the next lookups of an entity's subscriptions that fail.
    pub failing_lists: AtomicUsize,
    commits: mpsc::Sender<(Commit, OnCommit)>,
    /// Number of scans for pending log entries.
    pub scans: AtomicUsize,
    /// Number of nodes read for lists.
    pub listed_nodes: AtomicUsize,
    /// Number of reads of the publishers of items.
    pub read_publishers: AtomicUsize,
}

impl FailingStore {
    /// Creates a store whose commit number `fails_at` (from 1) fails; `commits_all_the_same`
    /// applies its changes anyway.
    pub fn new(inner: Arc<dyn Store>, fails_at: u64, commits_all_the_same: bool) -> Arc<Self> {
        Self::begin(
            inner,
            fails_at..fails_at + 1,
            commits_all_the_same,
            &Arc::new(Semaphore::new(1)),
        )
    }

    /// Creates a store whose commits wait for the gate and do not fail.
    pub fn gated(inner: Arc<dyn Store>, gate: &Arc<Semaphore>) -> Arc<Self> {
        Self::begin(inner, 0..0, false, gate)
    }

    /// Creates a store of which these commits fail, and whose commits wait for the gate.
    pub fn begin(
        inner: Arc<dyn Store>,
        fail: Range<u64>,
        commits_all_the_same: bool,
        gate: &Arc<Semaphore>,
    ) -> Arc<Self> {
        let (commits, mut waiting) = mpsc::channel::<(Commit, OnCommit)>(MAX_PENDING_COMMITS);
        let (store, gate) = (Arc::clone(&inner), Arc::clone(gate));
        tokio::spawn(async move {
            let mut number = 0;
            while let Some((commit, then)) = waiting.recv().await {
                let _open = gate.acquire().await.unwrap();
                number += 1;
                let chain = commit.chain.clone();
                let failed = || Err(StoreError::Failed("the disk is on fire".into()));
                if chain.is_poisoned() {
                    then(failed());
                } else if !fail.contains(&number) {
                    then(store.commit_now(commit).await);
                } else {
                    if commits_all_the_same {
                        store.commit_now(commit).await.unwrap();
                    }
                    chain.poison();
                    then(failed());
                }
            }
        });
        let (failing_lists, scans) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (listed_nodes, read_publishers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { inner, failing_lists, commits, scans, listed_nodes, read_publishers })
    }
}

#[async_trait]
impl Store for FailingStore {
    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }

    fn key(&self) -> u64 {
        self.inner.key()
    }

    fn commit(&self, commit: Commit, then: OnCommit) {
        self.commits.try_send((commit, then)).ok().unwrap();
    }

    async fn poll(&self, nodes: Option<&[NodeId]>) -> Result<Vec<Owed>, StoreError> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.inner.poll(nodes).await
    }

    async fn acknowledge(&self, acknowledged: Told) -> Result<(), StoreError> {
        self.inner.acknowledge(acknowledged).await
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        self.inner.node(id).await
    }

    async fn node_counts(&self) -> Result<HashMap<BareJid, u64>, StoreError> {
        self.inner.node_counts().await
    }

    async fn nodes_with_timers(&self) -> Result<Vec<NodeId>, StoreError> {
        self.inner.nodes_with_timers().await
    }

    async fn nodes(
        &self,
        page: &PageRequest<NodeNumber>,
    ) -> Result<Partial<Vec<(NodeNumber, NodeSummary)>>, StoreError> {
        let page = self.inner.nodes(page).await?;
        self.listed_nodes.fetch_add(page.found.len(), Ordering::Relaxed);
        Ok(page)
    }

    async fn summary(
        &self,
        node: &NodeId,
    ) -> Result<Option<(NodeNumber, NodeSummary)>, StoreError> {
        self.inner.summary(node).await
    }

    async fn former(&self, node: &NodeId) -> Result<Option<FormerNode>, StoreError> {
        self.inner.former(node).await
    }

    async fn former_nodes(&self) -> Result<Vec<(NodeId, FormerNode)>, StoreError> {
        self.inner.former_nodes().await
    }

    async fn redirects_len(&self) -> Result<usize, StoreError> {
        self.inner.redirects_len().await
    }

    async fn redirects_of(&self, owner: &OwnerHash) -> Result<usize, StoreError> {
        self.inner.redirects_of(owner).await
    }

    async fn items(
        &self,
        node: &NodeId,
        ids: &[ItemId],
        budget: &ItemBudget,
    ) -> Result<ResultPage<Item>, StoreError> {
        self.inner.items(node, ids, budget).await
    }

    async fn publishers(
        &self,
        node: &NodeId,
        ids: &[ItemId],
    ) -> Result<BTreeMap<ItemId, BareJid>, StoreError> {
        self.read_publishers.fetch_add(1, Ordering::Relaxed);
        self.inner.publishers(node, ids).await
    }

    async fn list(
        &self,
        node: &NodeId,
        listing: &ItemQuery,
        budget: &ItemBudget,
    ) -> Result<Option<ItemPage>, StoreError> {
        self.inner.list(node, listing, budget).await
    }

    async fn page_of_ids(
        &self,
        node: &NodeId,
        page: &PageRequest<ItemRef>,
        entry_bytes: usize,
        max_bytes: usize,
    ) -> Result<Option<ResultPage<(ItemId, ItemPosition)>>, StoreError> {
        self.inner.page_of_ids(node, page, entry_bytes, max_bytes).await
    }

    async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Affiliation)>>, StoreError> {
        self.inner.affiliations_of(entity).await
    }

    async fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Partial<Vec<(NodeId, Subscription)>>, StoreError> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.failing_lists.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Err(StoreError::Failed("the disk is on fire".into()));
        }
        self.inner.subscriptions_of(entity).await
    }

    async fn owner_subscribed(&self, node: &NodeId) -> Result<HashSet<Jid>, StoreError> {
        self.inner.owner_subscribed(node).await
    }

    async fn enrolled_among(
        &self,
        node: &NodeId,
        subscribers: &[Jid],
    ) -> Result<HashSet<Jid>, StoreError> {
        self.inner.enrolled_among(node, subscribers).await
    }

    async fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<Partial<usize>, StoreError> {
        self.inner.count_subscriptions_of(entity, up_to).await
    }

    async fn revoke_implicit(
        &self,
        node: &NodeId,
        resources: BTreeSet<Jid>,
    ) -> Result<(), StoreError> {
        self.inner.revoke_implicit(node, resources).await
    }

    async fn subscribed_aliases(&self) -> Result<BTreeSet<BareJid>, StoreError> {
        self.inner.subscribed_aliases().await
    }

    async fn presence_refusals(&self) -> Result<Vec<BareJid>, StoreError> {
        self.inner.presence_refusals().await
    }

    async fn set_presence_refusals(&self, changes: &[(BareJid, bool)]) -> Result<(), StoreError> {
        self.inner.set_presence_refusals(changes).await
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check().await
    }

    async fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError> {
        self.inner.snapshot_to(folder).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
