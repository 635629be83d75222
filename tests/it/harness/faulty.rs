//! A store that fails when it is told to.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use gjallar::{
    pubsub::{
        Affiliation, Changes, Item, ItemId, Node, NodeId, Notification,
        op::{discover::NodeSummary, retrieve::Selection},
    },
    store::{Cursor, Debt, Owed, Store, StoreError, Told},
};
use jid::{BareJid, Jid};

/// Which commit fails, counted from 1, and whether its changes are there all the same.
pub struct Faulty {
    pub inner: Arc<dyn Store>,
    pub commits: AtomicU64,
    pub fails_at: u64,
    pub commits_all_the_same: bool,
}

#[async_trait]
impl Store for Faulty {
    async fn commit(
        &self,
        node: &NodeId,
        changes: &Changes,
        notification: Option<&Notification>,
    ) -> Result<Option<Debt>, StoreError> {
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

    async fn count(&self) -> Result<u64, StoreError> {
        self.inner.count().await
    }

    async fn nodes(
        &self,
        after: Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, NodeSummary)>, StoreError> {
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
    ) -> Result<Vec<(NodeId, Affiliation)>, StoreError> {
        self.inner.affiliations_of(entity).await
    }

    async fn subscriptions_of(&self, entity: &BareJid) -> Result<Vec<(NodeId, Jid)>, StoreError> {
        self.inner.subscriptions_of(entity).await
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
