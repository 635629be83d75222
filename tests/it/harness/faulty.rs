//! A store that fails when it is told to.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use gjallar::{
    pubsub::{
        Affiliation, Changes, Item, ItemId, Node, NodeId, Notification,
        op::{discover::NodeSummary, retrieve::Selection},
    },
    store::{Committed, Cursor, Found, Owed, Store, StoreError, Told},
};
use jid::{BareJid, Jid};
use tokio::sync::Semaphore;

/// Which commit fails, counted from 1, and whether its changes are there all the same.
pub struct Faulty {
    pub inner: Arc<dyn Store>,
    pub commits: AtomicU64,
    pub fails_at: u64,
    pub commits_all_the_same: bool,
    /// Commits wait until there is a permit.
    pub gate: Arc<Semaphore>,
}

impl Faulty {
    /// A store whose commits wait, and do not fail.
    pub fn gated(inner: Arc<dyn Store>, gate: &Arc<Semaphore>) -> Arc<Self> {
        let (commits, gate) = (0.into(), Arc::clone(gate));
        Arc::new(Self { inner, commits, fails_at: 0, commits_all_the_same: false, gate })
    }
}

#[async_trait]
impl Store for Faulty {
    async fn commit(
        &self,
        node: &NodeId,
        changes: &Changes,
        notification: Option<&Notification>,
    ) -> Result<Committed, StoreError> {
        let _open = self.gate.acquire().await.unwrap();
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if number != self.fails_at {
            return self.inner.commit(node, changes, notification).await;
        }
        if self.commits_all_the_same {
            self.inner.commit(node, changes, notification).await?;
        }
        Err(StoreError::Failed("the disk is on fire".into()))
    }

    async fn owed(&self, node: Option<&NodeId>) -> Result<Vec<Owed>, StoreError> {
        self.inner.owed(node).await
    }

    async fn forget(&self, told: Told) -> Result<(), StoreError> {
        self.inner.forget(told).await
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, StoreError> {
        self.inner.node(id).await
    }

    async fn creators(&self) -> Result<HashMap<BareJid, u64>, StoreError> {
        self.inner.creators().await
    }

    async fn nodes(
        &self,
        after: Cursor,
        limit: usize,
    ) -> Result<Found<Vec<(Cursor, NodeSummary)>>, StoreError> {
        self.inner.nodes(after, limit).await
    }

    async fn items(
        &self,
        node: &NodeId,
        selection: &Selection,
        max_bytes: usize,
    ) -> Result<Vec<Item>, StoreError> {
        self.inner.items(node, selection, max_bytes).await
    }

    async fn item_ids(&self, node: &NodeId, max_bytes: usize) -> Result<Vec<ItemId>, StoreError> {
        self.inner.item_ids(node, max_bytes).await
    }

    async fn affiliations_of(
        &self,
        entity: &BareJid,
    ) -> Result<Found<Vec<(NodeId, Affiliation)>>, StoreError> {
        self.inner.affiliations_of(entity).await
    }

    async fn subscriptions_of(
        &self,
        entity: &BareJid,
    ) -> Result<Found<Vec<(NodeId, Jid)>>, StoreError> {
        self.inner.subscriptions_of(entity).await
    }

    async fn enrolled(&self, node: &NodeId) -> Result<HashSet<Jid>, StoreError> {
        self.inner.enrolled(node).await
    }

    async fn count_subscriptions_of(
        &self,
        entity: &BareJid,
        up_to: usize,
    ) -> Result<Found<usize>, StoreError> {
        self.inner.count_subscriptions_of(entity, up_to).await
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check().await
    }

    async fn copy_to(&self, folder: &Path) -> Result<(), StoreError> {
        self.inner.copy_to(folder).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
