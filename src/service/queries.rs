//! What the service shows without changing anything.

use std::{collections::HashMap, sync::Arc};

use jid::{BareJid, Jid};

use crate::{
    pubsub::{
        Actor, Affiliation, Item, ItemId, NodeConfig, NodeId,
        op::{
            affiliations::{self, OwnAffiliations},
            configure,
            discover::{self, MetaData, NodeSummary},
            retrieve::{self, Retrieve, Selection},
            subscriptions::{self, OwnSubscriptions},
        },
        written_len,
    },
    store::Cursor,
};

use super::{
    Error, Service,
    nodes::{Last, Turn},
};

/// Nodes that are read at once for a list.
const PAGE: usize = 256;

impl Service {
    /// Shows a node's configuration (§8.2.1).
    ///
    /// # Errors
    /// As [`configure::configuration`].
    pub async fn configuration(&self, actor: &Actor, id: &NodeId) -> Result<NodeConfig, Error> {
        let turn = self.settled_turn(id).await?;
        Ok(configure::configuration(turn.node(), &self.context(actor))?)
    }

    /// Shows a node's affiliations (§8.9.1).
    ///
    /// # Errors
    /// As [`affiliations::affiliations`].
    pub async fn affiliations(
        &self,
        actor: &Actor,
        id: &NodeId,
    ) -> Result<Vec<(BareJid, Affiliation)>, Error> {
        let turn = self.settled_turn(id).await?;
        Ok(affiliations::affiliations(turn.node(), &self.context(actor))?)
    }

    /// Shows a node's subscriptions (§8.8.1).
    ///
    /// # Errors
    /// As [`subscriptions::subscriptions`].
    pub async fn subscriptions(&self, actor: &Actor, id: &NodeId) -> Result<Vec<Jid>, Error> {
        let turn = self.settled_turn(id).await?;
        Ok(subscriptions::subscriptions(turn.node(), &self.context(actor))?)
    }

    /// Tells what a node is about (§5.3, §5.4).
    ///
    /// # Errors
    /// As [`discover::meta_data`].
    pub async fn meta_data(&self, actor: &Actor, id: &NodeId) -> Result<MetaData, Error> {
        let turn = self.settled_turn(id).await?;
        Ok(discover::meta_data(turn.node(), &self.context(actor))?)
    }

    /// Retrieves items, oldest first (§6.5): the newest that fit in one answer.
    ///
    /// # Errors
    /// As [`retrieve::retrieve`].
    pub async fn retrieve(
        &self,
        actor: &Actor,
        request: &Retrieve,
    ) -> Result<Vec<Arc<Item>>, Error> {
        let mut turn = self.settled_turn(&request.node).await?;
        retrieve::retrieve(turn.node(), request, &self.context(actor))?;
        if request.selection == Selection::Recent(1) {
            return Ok(self.last_item(&mut turn).await?.into_iter().collect());
        }
        let max_bytes = self.limits.max_reply_bytes;
        let items = self.store.items(&request.node, &request.selection, max_bytes).await;
        let items = items.map_err(|error| self.memory.failed_at(&request.node, error))?;
        Ok(items.into_iter().map(Arc::new).collect())
    }

    /// The newest item of a node of which all is settled.
    pub(super) async fn last_item(&self, turn: &mut Turn) -> Result<Option<Arc<Item>>, Error> {
        let last = match (turn.last(), turn.node()) {
            (Last::None, _) | (Last::Unread, None) => None,
            (Last::Item(item), _) => Some(item),
            (Last::Unread, Some(node)) => {
                let id = node.id.clone();
                let items = self.store.items(&id, &Selection::Recent(1), usize::MAX).await;
                let items = items.map_err(|error| self.memory.failed_at(&id, error))?;
                let last = items.into_iter().next_back().map(Arc::new);
                turn.set_last(last.as_ref());
                last
            }
        };
        Ok(last)
    }

    /// The names of a node's items, oldest first: the newest that fit in one answer (§5.5).
    ///
    /// # Errors
    /// As [`retrieve::retrieve`].
    pub async fn item_ids(&self, actor: &Actor, id: &NodeId) -> Result<Vec<ItemId>, Error> {
        let turn = self.settled_turn(id).await?;
        let request = Retrieve { node: id.clone(), selection: Selection::Recent(u32::MAX) };
        retrieve::retrieve(turn.node(), &request, &self.context(actor))?;
        let ids = self.store.item_ids(id, self.limits.max_reply_bytes).await;
        ids.map_err(|error| self.memory.failed_at(id, error))
    }

    /// The nodes that an actor may see (§5.2), in the order of their creation, as many as fit in one
    /// answer; none that are closed.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn nodes(&self, actor: &Actor) -> Result<Vec<NodeSummary>, Error> {
        let own = self.store.affiliations_of(&actor.bare()).await.map_err(Error::Failed)?;
        let own: HashMap<_, _> = self.memory.sound(own).into_iter().collect();
        let (mut listed, mut bytes, mut cursor) = (Vec::new(), 0, Cursor::default());
        loop {
            let page = self.store.nodes(cursor, PAGE).await.map_err(Error::Failed)?;
            let page = self.memory.sound(page);
            let Some((last, _)) = page.last() else { return Ok(listed) };
            cursor = *last;
            for (_, summary) in page {
                if self.memory.nodes.is_closed(&summary.node) {
                    continue;
                }
                let affiliation = own.get(&summary.node).copied().unwrap_or(Affiliation::None);
                if !discover::is_listed(&summary, actor, affiliation) {
                    continue;
                }
                bytes += 100 + written_len(summary.node.as_str()) + written_len(&summary.title);
                if bytes > self.limits.max_reply_bytes {
                    return Ok(listed);
                }
                listed.push(summary);
            }
        }
    }

    /// The actor's own affiliations (§5.7).
    ///
    /// # Errors
    /// If the store fails.
    pub async fn own_affiliations(
        &self,
        actor: &Actor,
        request: &OwnAffiliations,
    ) -> Result<Vec<(NodeId, Affiliation)>, Error> {
        let own = self.store.affiliations_of(&actor.bare()).await.map_err(Error::Failed)?;
        let own = self.memory.sound(own);
        self.at(request.node.as_ref(), own)
    }

    /// The actor's own subscriptions (§5.6): those of its bare JID and of all its resources.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn own_subscriptions(
        &self,
        actor: &Actor,
        request: &OwnSubscriptions,
    ) -> Result<Vec<(NodeId, Jid)>, Error> {
        let own = self.store.subscriptions_of(&actor.bare()).await.map_err(Error::Failed)?;
        let own = self.memory.sound(own);
        self.at(request.node.as_ref(), own)
    }

    /// The entries of a list that are at a node, or all.
    fn at<T>(
        &self,
        node: Option<&NodeId>,
        mut entries: Vec<(NodeId, T)>,
    ) -> Result<Vec<(NodeId, T)>, Error> {
        if node.is_some_and(|node| self.memory.nodes.is_closed(node)) {
            return Err(Error::Closed);
        }
        entries.retain(|(other, _)| node.is_none_or(|node| node == other));
        Ok(entries)
    }
}
