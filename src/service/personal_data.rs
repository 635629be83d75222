//! Personal data of an entity (GDPR): listing of its items, and erasure.

use std::fmt;

use jid::{BareJid, Jid};

use crate::store::NodeNumber;
use gjallar_pubsub::{
    Actor, Affiliation, Item, ItemFilter, ItemPage, ItemPosition, ItemRef, NodeId, PageBound,
    PageRequest, Sequence, Subscription, SubscriptionOptions, SubscriptionState,
    op::{
        affiliations::SetAffiliations, configure::RemoveEntity, delete::Delete,
        subscription_options::GetOptions, subscriptions::SetSubscriptions,
    },
};

use super::{Error, Memberships, Service};

/// Maximum number of nodes in one read of the store.
const PAGE: usize = 256;

/// Numbers of nodes, affiliations, subscriptions and items that were erased with the data of an entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasureReport {
    /// Nodes without another owner, which were deleted with the entity.
    pub nodes: usize,
    /// Affiliations at nodes that were not deleted with the entity.
    pub affiliations: usize,
    /// Subscriptions and subscription requests at nodes that were not deleted with the entity.
    pub subscriptions: usize,
    /// Items that the entity published at nodes that were not deleted with the entity.
    pub items: usize,
}

/// Position in the list of an entity's items over all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageToken {
    node: NodeNumber,
    /// Position of the last listed item of the node; `None` if the node has no more items of the entity.
    position: Option<ItemPosition>,
}

/// Item published by an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnItem {
    /// Node of the item.
    pub node: NodeId,
    /// The item.
    pub item: Item,
    /// Position at which the listing continues after the item.
    pub reached: PageToken,
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ItemPosition { sequence, index } = self.position.unwrap_or_default();
        write!(f, "{}-{sequence}-{index}", self.node.0)
    }
}

impl PageToken {
    /// Position before all items: node numbers begin at 1.
    pub const START: Self = Self { node: NodeNumber(0), position: None };

    /// Parses the format of [`fmt::Display`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (node, position) = text.split_once('-')?;
        let (sequence, index) = position.split_once('-')?;
        let sequence = Sequence(sequence.parse().ok()?);
        let position = ItemPosition { sequence, index: index.parse().ok()? };
        // No item has the sequence 0.
        Some(Self {
            node: NodeNumber(node.parse().ok()?),
            position: Some(position).filter(|position| position.sequence > Sequence(0)),
        })
    }
}

impl Service {
    /// Lists existing items published by an entity, beginning at the position `reached`: as many items as fit in one
    /// reply. For administrators only. Also returns the position at which the listing continues, if there may be more
    /// items.
    ///
    /// # Errors
    /// [`Forbidden`](gjallar_pubsub::Error::Forbidden) for other actors; an error of the store.
    pub async fn items_published_by(
        &self,
        actor: &Actor,
        entity: &BareJid,
        reached: Option<PageToken>,
    ) -> Result<(Vec<OwnItem>, Option<PageToken>), Error> {
        if !actor.is_administrator {
            return Err(gjallar_pubsub::Error::Forbidden.into());
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut nodes = PageRequest::first(PAGE);
        if let Some(PageToken { node, position: Some(position) }) = reached
            && let Some(name) = self.node_at(node).await?
        {
            let mut listing = self.item_query(&published_by(entity));
            listing.page.edge = PageBound::After(ItemRef::Position(position));
            let listed = self.list_items(&name, &listing).await?;
            let position = listed.more_after();
            bytes = add(&mut items, node, &name, listed);
            if position.is_some() {
                return Ok((items, Some(PageToken { node, position })));
            }
        }
        if let Some(PageToken { node, .. }) = reached {
            nodes.edge = PageBound::After(node);
        }
        loop {
            let found = self.store.nodes(&nodes).await.map_err(Error::Unknown)?;
            let found = self.state.quarantine_damaged(found);
            let Some((last, _)) = found.last() else { return Ok((items, None)) };
            nodes.edge = PageBound::After(*last);
            for (node, summary) in found {
                let listed =
                    self.list_items(&summary.node, &self.item_query(&published_by(entity))).await?;
                let position = listed.more_after();
                bytes += add(&mut items, node, &summary.node, listed);
                if position.is_some() || bytes >= self.policies().limits().max_reply_bytes {
                    return Ok((items, Some(PageToken { node, position })));
                }
            }
        }
    }

    /// Returns the node with a node number, if it exists.
    async fn node_at(&self, cursor: NodeNumber) -> Result<Option<NodeId>, Error> {
        let before =
            self.store.nodes(&PageRequest { max: 1, edge: PageBound::Before(cursor) }).await;
        let before = self.state.quarantine_damaged(before.map_err(Error::Unknown)?);
        let edge = before.last().map_or(PageBound::At(0), |(before, _)| PageBound::After(*before));
        let found =
            self.store.nodes(&PageRequest { max: 1, edge }).await.map_err(Error::Unknown)?;
        let found =
            self.state.quarantine_damaged(found).into_iter().find(|(found, _)| *found == cursor);
        Ok(found.map(|(_, summary)| summary.node))
    }

    /// Erases the data of an entity, in every spelling of its domain. Deletes the nodes that have no other owner. At
    /// all other nodes, removes the affiliations, subscriptions and items of the entity. Removes the entity from the
    /// configuration of nodes where it had an affiliation or items. Forgets its refusal to share its presence.
    /// Notifications that were sent are not recalled. Nodes with other owners still name the entity as their creator.
    ///
    /// # Errors
    /// [`Forbidden`](gjallar_pubsub::Error::Forbidden) for actors who are not administrators; an error of the store,
    /// after which part of the data may be erased. The next call erases the rest.
    pub async fn erase(&self, actor: &Actor, entity: &BareJid) -> Result<ErasureReport, Error> {
        let Memberships { affiliations, subscriptions, .. } =
            self.memberships(actor, entity).await?;
        let mut erased = ErasureReport::default();
        let mut deleted = Vec::new();
        for (node, affiliation) in affiliations {
            if affiliation == Affiliation::Owner && self.is_last_owner(actor, &node, entity).await?
            {
                let request = Delete { node: node.clone(), redirect: None };
                ignore_missing(self.execute(actor, &request).await)?;
                erased.nodes += 1;
                deleted.push(node);
            } else {
                // The next call finds the node by the affiliation, which therefore ends last.
                self.remove_from_configuration(actor, &node, entity).await?;
                let entries = vec![(entity.clone(), Affiliation::None)];
                let request = SetAffiliations { node, entries, invalid: Vec::new() };
                let set = self.execute(actor, &request).await;
                ignore_missing(set.map(drop))?;
                erased.affiliations += 1;
            }
        }
        for (node, own) in subscriptions.into_iter().filter(|(node, _)| !deleted.contains(node)) {
            let entries = vec![(own.jid, own.subid, Some(SubscriptionState::None))];
            let request = SetSubscriptions { node, entries, invalid: Vec::new() };
            let set = self.execute(actor, &request).await;
            ignore_missing(set.map(drop))?;
            erased.subscriptions += 1;
        }
        let mut reached = None;
        loop {
            let (items, further) = self.items_published_by(actor, entity, reached).await?;
            let mut nodes: Vec<_> = items.into_iter().map(|own| own.node).collect();
            nodes.dedup();
            for node in nodes {
                self.remove_from_configuration(actor, &node, entity).await?;
                erased.items += self.retract_all(actor, &node, &published_by(entity)).await?;
            }
            reached = further;
            if reached.is_none() {
                break;
            }
        }
        entity.spellings().for_each(|address| self.state.presences.forget(&address));
        Ok(erased)
    }

    async fn remove_from_configuration(
        &self,
        actor: &Actor,
        node: &NodeId,
        entity: &BareJid,
    ) -> Result<(), Error> {
        ignore_missing(self.execute(actor, &RemoveEntity { node, entity }).await)
    }

    /// Returns the options of a subscription of an entity; `None` if the subscription ended meanwhile.
    ///
    /// # Errors
    /// As [`Service::options`].
    pub async fn options_of(
        &self,
        actor: &Actor,
        node: &NodeId,
        own: &Subscription,
    ) -> Result<Option<SubscriptionOptions>, Error> {
        let (node, jid, subid) = (node.clone(), own.jid.clone(), own.subid.clone());
        match self.options(actor, &GetOptions { node, jid, subid }).await {
            Ok(form) => Ok(Some(form.options)),
            Err(Error::Refused(
                gjallar_pubsub::Error::NodeNotFound
                | gjallar_pubsub::Error::Gone { .. }
                | gjallar_pubsub::Error::NoOptions
                | gjallar_pubsub::Error::SubIdRequired
                | gjallar_pubsub::Error::InvalidSubId,
            )) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn is_last_owner(
        &self,
        actor: &Actor,
        node: &NodeId,
        entity: &BareJid,
    ) -> Result<bool, Error> {
        match self.affiliations(actor, node).await {
            Ok(all) => Ok(!all.iter().any(|(e, a)| *a == Affiliation::Owner && !e.is_same(entity))),
            Err(Error::Refused(
                gjallar_pubsub::Error::NodeNotFound | gjallar_pubsub::Error::Gone { .. },
            )) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Returns the filter for items published by an entity.
fn published_by(entity: &BareJid) -> ItemFilter {
    ItemFilter { publisher: Some(Jid::from(entity.clone())), ..ItemFilter::default() }
}

/// Adds the listed items of a node. Returns their approximate bytes.
fn add(items: &mut Vec<OwnItem>, at: NodeNumber, node: &NodeId, listed: ItemPage) -> usize {
    let own = |item: Item| {
        let reached = PageToken { node: at, position: Some(item.position()) };
        OwnItem { node: node.clone(), item, reached }
    };
    let bytes = listed.part.entries.iter().map(Item::size).sum();
    items.extend(listed.part.entries.into_iter().map(own));
    bytes
}

/// Treats a node that was deleted meanwhile as erased.
fn ignore_missing(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Refused(
            gjallar_pubsub::Error::NodeNotFound | gjallar_pubsub::Error::Gone { .. },
        )) => Ok(()),
        outcome => outcome,
    }
}
