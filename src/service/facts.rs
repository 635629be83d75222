//! What a rule has to know from the store before it decides.

use crate::pubsub::{
    Actor, Item, ItemId, Node, NodeId, Page, Part,
    op::{
        expire,
        publish::{self, NewItem, Publish, There},
    },
};

use super::{
    Error, Service,
    nodes::{Last, Turn},
};

/// What a rule has to know from the store.
pub(super) enum Need<'a> {
    Nothing,
    /// Whether somebody has access.
    Access,
    Items(Vec<ItemId>),
    /// What is there, if the node may be full, for items to come; and the newest item, if it is compared.
    Room(&'a Publish),
    /// The newest item, if new subscribers get it.
    LastItem,
    /// That, and rosters, for the access model may become one that looks at them.
    Configuration,
    /// Its oldest items, and its newest, as far as time has to do with them.
    Time,
    /// The newest item, and how many subscriptions the actor has, who wants one more.
    Subscriptions,
}

/// What it is told.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) items: Vec<Item>,
    pub(super) newest: Vec<Item>,
    pub(super) there: There,
    pub(super) subscriptions: usize,
}

impl Service {
    /// What a rule needs to know of a node that is there.
    pub(super) async fn facts(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        need: &Need<'_>,
    ) -> Result<Facts, Error> {
        let Some(node) = turn.node() else { return Ok(Facts::default()) };
        match need {
            Need::Nothing | Need::Access => Ok(Facts::default()),
            Need::Room(request) => {
                let mut facts = Facts::default();
                if publish::looks_at_items(&node.config) {
                    let id = node.id.clone();
                    turn.settled().await;
                    facts.there = self.there(&id, &request.items).await?;
                }
                if request.compared.is_some() {
                    turn.settled().await;
                    facts.there.newest = self.last_item(turn).await?.map(|item| (*item).clone());
                }
                Ok(facts)
            }
            Need::Items(ids) => {
                turn.settled().await;
                let items = self.store.items(&node.id, ids, usize::MAX).await;
                let items = items.map_err(|error| self.memory.failed_at(&node.id, error))?.entries;
                Ok(Facts { items, ..Facts::default() })
            }
            Need::LastItem | Need::Configuration => {
                let items = self.item_for_new_subscribers(turn).await?;
                Ok(Facts { items, ..Facts::default() })
            }
            Need::Time => {
                let expires = node.config.item_expire.millis().is_some();
                let needs_newest = expire::makes_digests(node) || node.config.purge_offline;
                let id = node.id.clone();
                turn.settled().await;
                let page = async |page: Page<ItemId>, is_needed: bool| {
                    let page = Page { max: if is_needed { page.max } else { 0 }, ..page };
                    let part =
                        self.store.page(&id, &page, self.policies().limits().max_reply_bytes).await;
                    let part = part.map_err(|error| self.memory.failed_at(&id, error))?;
                    Ok::<_, Error>(part.map(|part| part.entries).unwrap_or_default())
                };
                let items = page(Page::first(expire::MAX_EXPIRED + 1), expires).await?;
                let newest = page(Page::last(expire::MAX_DIGESTED), needs_newest).await?;
                Ok(Facts { items, newest, ..Facts::default() })
            }
            Need::Subscriptions => {
                let max = self.policies().limits().max_subscriptions_per_jid;
                let own = self.store.count_subscriptions_of(&actor.bare(), max).await;
                let subscriptions = self.memory.sound(own.map_err(Error::Failed)?);
                let items = self.item_for_new_subscribers(turn).await?;
                Ok(Facts { items, subscriptions, ..Facts::default() })
            }
        }
    }

    /// What a node has that may be full.
    async fn there(&self, id: &NodeId, new: &[NewItem]) -> Result<There, Error> {
        let failed = |error| self.memory.failed_at(id, error);
        let new = new.get(..self.policies().limits().max_batch).unwrap_or(new);
        let named: Vec<_> = new.iter().filter_map(|item| item.id.clone()).collect();
        let there = self.store.items(id, &named, usize::MAX).await.map_err(failed)?;
        let page = Page::first(2 * new.len());
        let oldest = self.store.page_of_ids(id, &page, 0, usize::MAX).await.map_err(failed)?;
        let oldest = oldest.unwrap_or_else(Part::empty);
        Ok(There {
            newest: None,
            replaced: there.entries.into_iter().map(|item| item.id).collect(),
            total: oldest.total.unwrap_or_default(),
            oldest: oldest.entries.into_iter().map(|(id, _)| id).collect(),
        })
    }

    async fn item_for_new_subscribers(&self, turn: &mut Turn) -> Result<Vec<Item>, Error> {
        let sends = |node: &Node| node.config.send_last_published_item.is_on_sub();
        if !turn.node().is_some_and(sends) {
            return Ok(Vec::new());
        }
        if matches!(turn.last(), Last::Unread) {
            turn.settled().await;
        }
        let last = self.last_item(turn).await?;
        Ok(last.iter().map(|item| (**item).clone()).collect())
    }
}
