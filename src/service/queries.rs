//! Read-only use cases.

use std::{collections::HashMap, sync::Arc};

use jid::BareJid;

use crate::store::NodeNumber;
use gjallar_pubsub::{
    Actor, Affiliation, ArchiveId, Attribution, Configuration, Item, ItemBudget, ItemId, ItemOrder,
    ItemQuery, ItemRef, NodeId, PageBound, PageRequest, ResultPage, Subscription, byte_budget,
    op::{
        affiliations::{self, OwnAffiliations},
        configure,
        discover::{self, MetaData, NodeSummary, TypeFilter},
        public_subscriptions,
        retrieve::{self, Retrieve, Retrieved, Selection},
        subscription_options::{self, GetOptions, OptionsForm},
        subscriptions::{self, OwnSubscriptions},
    },
    written_len,
};

use super::{
    Error, Service,
    node_cache::{LastItem, NodeGuard},
};

/// Maximum number of nodes in one read of the store.
const PAGE: usize = 256;
/// If the service has at most this many nodes, [`Service::nodes`] reads all of them to count those that the actor may
/// see.
const MAX_COUNTED_NODES: u64 = 1_000;

impl Service {
    /// Returns a node's configuration (§8.2.1).
    ///
    /// # Errors
    /// As [`configure::configuration`].
    pub async fn configuration(&self, actor: &Actor, id: &NodeId) -> Result<Configuration, Error> {
        let guard = self.lock_committed(id).await?;
        let found =
            configure::configuration(guard.node(), &self.context(&self.policies(), id, actor));
        self.resolve_redirect(id, found).await
    }

    /// Returns a node's affiliations (§8.9.1).
    ///
    /// # Errors
    /// As [`affiliations::affiliations`].
    pub async fn affiliations(
        &self,
        actor: &Actor,
        id: &NodeId,
    ) -> Result<Vec<(BareJid, Affiliation)>, Error> {
        let guard = self.lock_committed(id).await?;
        let found =
            affiliations::affiliations(guard.node(), &self.context(&self.policies(), id, actor));
        self.resolve_redirect(id, found).await
    }

    /// Returns a page of a node's subscriptions (§8.8.1). `fits` returns `true` if a further subscription fits in the
    /// page.
    ///
    /// # Errors
    /// As [`subscriptions::subscriptions`].
    pub async fn subscriptions(
        &self,
        actor: &Actor,
        id: &NodeId,
        page: &PageRequest<String>,
        fits: impl FnMut(&Subscription) -> bool,
    ) -> Result<ResultPage<Subscription>, Error> {
        let guard = self.lock_committed(id).await?;
        let policies = self.policies();
        let cx = self.context(&policies, id, actor);
        let found = subscriptions::subscriptions(guard.node(), page, fits, &cx);
        self.resolve_redirect(id, found).await
    }

    /// Returns the options of a subscription (§6.3.2).
    ///
    /// # Errors
    /// As [`subscription_options::options`].
    pub async fn options(&self, actor: &Actor, request: &GetOptions) -> Result<OptionsForm, Error> {
        let guard = self.lock_committed(&request.node).await?;
        let found = subscription_options::options(
            guard.node(),
            request,
            &self.context(&self.policies(), &request.node, actor),
        );
        self.resolve_redirect(&request.node, found).await
    }

    /// Returns the default options of subscriptions to a node (§6.4).
    ///
    /// # Errors
    /// As [`subscription_options::default`].
    pub async fn default_options(&self, actor: &Actor, id: &NodeId) -> Result<OptionsForm, Error> {
        let (guard, contacts) = self.lock_committed_with_roster(id).await?;
        let found = subscription_options::default(
            guard.node(),
            &self.context_with(&self.policies(), id, actor, contacts.as_deref()),
        );
        self.resolve_redirect(id, found).await
    }

    /// Returns the public subscribers of a node (XEP-0465).
    ///
    /// # Errors
    /// As [`public_subscriptions::subscribers`].
    pub async fn public_subscribers(
        &self,
        actor: &Actor,
        id: &NodeId,
    ) -> Result<Vec<BareJid>, Error> {
        let (guard, contacts) = self.lock_committed_with_roster(id).await?;
        let found = public_subscriptions::subscribers(
            guard.node(),
            &self.context_with(&self.policies(), id, actor, contacts.as_deref()),
        );
        self.resolve_redirect(id, found).await
    }

    /// Returns the metadata of a node (§5.3, §5.4).
    ///
    /// # Errors
    /// As [`discover::meta_data`].
    pub async fn meta_data(&self, actor: &Actor, id: &NodeId) -> Result<MetaData, Error> {
        let (guard, contacts) = self.lock_committed_with_roster(id).await?;
        let found = discover::meta_data(
            guard.node(),
            self.store.is_durable(),
            &self.context_with(&self.policies(), id, actor, contacts.as_deref()),
        );
        self.resolve_redirect(id, found).await
    }

    /// Retrieves items in the requested order (§6.5), as many of the requested items as fit in one reply.
    ///
    /// # Errors
    /// As [`retrieve::retrieve`]; [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) if the item that the request
    /// names in `<after/>` or `<before/>` (XEP-0059) does not exist;
    /// [`NotImplemented`](gjallar_pubsub::Error::NotImplemented) if the items are requested in the order of their
    /// creation and the node has more than 10 000 items.
    pub async fn retrieve(&self, actor: &Actor, request: &Retrieve) -> Result<Retrieved, Error> {
        let (mut guard, contacts) = self.lock_committed_with_roster(&request.node).await?;
        let allowed = retrieve::retrieve(
            guard.node(),
            request,
            &self.context_with(&self.policies(), &request.node, actor, contacts.as_deref()),
        );
        self.resolve_redirect(&request.node, allowed).await?;
        let node = guard.node().ok_or(gjallar_pubsub::Error::NodeNotFound)?;
        let attribution = Attribution::of(node, &node.config);
        let budget = self.reply_budget(actor, attribution.clone());
        let part = self.selected(&mut guard, request, &budget).await?;
        Ok(Retrieved { part, attribution })
    }

    /// Returns the size limit of the items in a reply.
    fn reply_budget(&self, actor: &Actor, attribution: Attribution) -> ItemBudget {
        let policies = self.policies();
        let max_bytes = policies.max_reply_bytes(&actor.jid);
        ItemBudget::rendered(max_bytes, policies.limits().includes_content_ids, attribution)
    }

    /// Returns the items selected by a request, as many as fit in the budget.
    async fn selected(
        &self,
        guard: &mut NodeGuard,
        request: &Retrieve,
        budget: &ItemBudget,
    ) -> Result<ResultPage<Arc<Item>>, Error> {
        let page = match &request.selection {
            Selection::Recent(1) if request.order == ItemOrder::default() => {
                let entries: Vec<_> = self.last_item(guard).await?.into_iter().collect();
                let total = self.item_count(&request.node).await?;
                let index = total.checked_sub(entries.len());
                return Ok(ResultPage { entries, index, total: Some(total) });
            }
            Selection::Ids(ids) => {
                let items = self.store.items(&request.node, ids, budget).await;
                let mut items =
                    items.map_err(|error| self.state.on_store_error(&request.node, error))?;
                items.entries.sort_by_key(|item| request.order.by.of(item));
                if request.order.is_descending {
                    items.entries.reverse();
                }
                return Ok(items.map(Arc::new));
            }
            Selection::Page(page) => {
                let node = guard.node().ok_or(gjallar_pubsub::Error::NodeNotFound)?;
                ItemRef::page(node, page, request.order)
            }
            Selection::Recent(number) if request.order.is_descending => {
                PageRequest::first(*number as usize)
            }
            Selection::Recent(number) => PageRequest::last(*number as usize),
        };
        let listing = ItemQuery::of(page, request.order);
        Ok(self.listed(&request.node, &listing, budget).await?.part.map(Arc::new))
    }

    /// Returns the newest item of a node. If the item is not cached, it is read from the store; then the node must have
    /// no pending commits.
    pub(super) async fn last_item(
        &self,
        guard: &mut NodeGuard,
    ) -> Result<Option<Arc<Item>>, Error> {
        let last = match (guard.last(), guard.node()) {
            (LastItem::None, _) | (LastItem::Unread, None) => None,
            (LastItem::Item(item), _) => Some(item),
            (LastItem::Unread, Some(node)) => {
                let id = node.id.clone();
                let last = self.store.page(&id, &PageRequest::last(1), usize::MAX).await;
                let last = last.map_err(|error| self.state.on_store_error(&id, error))?;
                let last = last.and_then(|mut part| part.entries.pop()).map(Arc::new);
                guard.set_last(last.as_ref());
                last
            }
        };
        Ok(last)
    }

    /// Returns the number of items of a node.
    pub(super) async fn item_count(&self, id: &NodeId) -> Result<usize, Error> {
        let none = self.store.page_of_ids(id, &PageRequest::first(0), 0, 0).await;
        let none = none.map_err(|error| self.state.on_store_error(id, error))?;
        Ok(none.and_then(|none| none.total).unwrap_or_default())
    }

    /// Returns a page of the ids of a node's items, oldest first (§5.5), each with the archive id that is its UID in
    /// pages. The page fits in one reply; `entry_bytes` is the size of an entry without its id.
    ///
    /// # Errors
    /// As [`Service::retrieve`].
    pub async fn item_ids(
        &self,
        actor: &Actor,
        id: &NodeId,
        page: &PageRequest<ItemId>,
        entry_bytes: usize,
    ) -> Result<ResultPage<(ItemId, ArchiveId)>, Error> {
        let (guard, contacts) = self.lock_committed_with_roster(id).await?;
        let allowed = retrieve::list(
            guard.node(),
            &self.context_with(&self.policies(), id, actor, contacts.as_deref()),
        );
        self.resolve_redirect(id, allowed).await?;
        let node = guard.node().ok_or(gjallar_pubsub::Error::NodeNotFound)?;
        let page = ItemRef::page(node, page, ItemOrder::default());
        let max_bytes = self.policies().max_reply_bytes(&actor.jid);
        let ids = self.store.page_of_ids(id, &page, entry_bytes, max_bytes).await;
        let ids = ids.map_err(|error| self.state.on_store_error(id, error))?;
        let ids = ids.ok_or(gjallar_pubsub::Error::ItemNotFound)?;
        Ok(ids.map(|(id, position)| (id, ArchiveId { epoch: node.epoch, position })))
    }

    /// Returns a page of the nodes that an actor may see (§5.2), in the order of their creation. The page has only
    /// nodes of the types of `filter`, and no quarantined nodes. The page fits in one reply; `entry_bytes` is the size
    /// of an entry without name and title. If the service has more than `MAX_COUNTED_NODES` nodes, the result states
    /// the total only if the list was read from one end to the other. This is also the case if no entries are
    /// requested.
    ///
    /// # Errors
    /// [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) if the node that the request names in `<after/>` or
    /// `<before/>` (XEP-0059) does not exist; an error of the store.
    pub async fn nodes(
        &self,
        actor: &Actor,
        page: &PageRequest<String>,
        filter: Option<&TypeFilter>,
        entry_bytes: usize,
    ) -> Result<ResultPage<NodeSummary>, Error> {
        let own = self.affiliations_of(&actor.bare()).await.map_err(Error::Unknown)?;
        // The affiliation of the actor's own address is inserted last, so it takes precedence.
        let own: HashMap<_, _> = own.into_iter().rev().collect();
        let is_listed = |summary: &NodeSummary| {
            let affiliation = own.get(&summary.node).copied().unwrap_or(Affiliation::None);
            !self.state.nodes.is_quarantined(&summary.node)
                && discover::is_listed(summary, actor, affiliation, filter)
        };
        let size = |node: &NodeSummary| {
            entry_bytes + written_len(node.node.as_str()) + written_len(&node.title)
        };
        let mut fits = byte_budget(self.policies().max_reply_bytes(&actor.jid), 0, size);
        let edge = match &page.edge {
            PageBound::After(edge) => PageBound::After(self.cursor(edge, is_listed).await?),
            PageBound::Before(edge) => PageBound::Before(self.cursor(edge, is_listed).await?),
            PageBound::At(index) => PageBound::At(*index),
            PageBound::Last => PageBound::Last,
        };
        let page = PageRequest { max: page.max, edge };
        if self.state.node_counts.total() <= MAX_COUNTED_NODES {
            let mut listed = Vec::new();
            let mut unread = PageRequest::first(PAGE);
            loop {
                let found = self.store.nodes(&unread).await.map_err(Error::Unknown)?;
                let found = self.state.quarantine_damaged(found);
                let Some((last, _)) = found.last() else { break };
                unread.edge = PageBound::After(*last);
                listed.extend(found.into_iter().filter(|(_, node)| is_listed(node)));
            }
            let part = page.of(listed, |(cursor, _)| *cursor, |(_, node)| fits(node));
            return Ok(part.ok_or(gjallar_pubsub::Error::ItemNotFound)?.map(|(_, node)| node));
        }
        let (edge, skipped) = match &page.edge {
            PageBound::At(index) => (PageBound::At(0), *index),
            edge => (edge.clone(), 0),
        };
        let begins_at_an_end = matches!(edge, PageBound::At(_) | PageBound::Last);
        // One more node shows whether the list continues. If nodes are skipped, many are read at once.
        let needed = if skipped == 0 { page.max.saturating_add(1) } else { PAGE };
        let mut unread = PageRequest { max: needed.clamp(2, PAGE), edge };
        let (mut entries, mut passed, mut is_cut) = (Vec::new(), 0, false);
        while !is_cut {
            let found = self.store.nodes(&unread).await.map_err(Error::Unknown)?;
            let mut found = self.state.quarantine_damaged(found);
            if page.is_backward() {
                found.reverse();
            }
            let Some((last, _)) = found.last() else { break };
            unread.edge =
                if page.is_backward() { PageBound::Before(*last) } else { PageBound::After(*last) };
            unread.max = PAGE;
            for (_, node) in found.into_iter().filter(|(_, node)| is_listed(node)) {
                if passed < skipped || page.max == 0 {
                    passed += 1;
                    continue;
                }
                is_cut = entries.len() >= page.max || !fits(&node);
                if is_cut {
                    break;
                }
                entries.push(node);
            }
        }
        if page.is_backward() {
            entries.reverse();
        }
        let total = (begins_at_an_end && !is_cut).then_some(passed + entries.len());
        let index = match page.edge {
            PageBound::At(_) => Some(passed),
            PageBound::Last => total.map(|total| total - entries.len()),
            PageBound::After(_) | PageBound::Before(_) => None,
        };
        Ok(ResultPage { entries, index, total })
    }

    /// Returns the node number of the node that `edge` denotes (the `<after/>` or `<before/>` of a page request). The
    /// list of nodes is in the order of these numbers.
    ///
    /// # Errors
    /// [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) if `edge` denotes no node that satisfies `is_listed`; an
    /// error of the store.
    pub(super) async fn cursor(
        &self,
        edge: &str,
        is_listed: impl Fn(&NodeSummary) -> bool,
    ) -> Result<NodeNumber, Error> {
        for node in discover::names_of_edge(edge) {
            let found = self.store.summary(&node).await;
            let found = found.map_err(|error| self.state.on_store_error(&node, error))?;
            if let Some((cursor, summary)) = found
                && summary.is_edge(edge)
                && is_listed(&summary)
            {
                return Ok(cursor);
            }
        }
        Err(gjallar_pubsub::Error::ItemNotFound.into())
    }

    /// Returns the actor's own affiliations (§5.7).
    ///
    /// # Errors
    /// If the store fails.
    pub async fn own_affiliations(
        &self,
        actor: &Actor,
        request: &OwnAffiliations,
    ) -> Result<Vec<(NodeId, Affiliation)>, Error> {
        let own = self.affiliations_of(&actor.bare()).await.map_err(Error::Unknown)?;
        self.at(request.node.as_ref(), own)
    }

    /// Returns the actor's own subscriptions, including pending ones (§5.6): the subscriptions of its bare JID and of
    /// all its resources.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn own_subscriptions(
        &self,
        actor: &Actor,
        request: &OwnSubscriptions,
    ) -> Result<Vec<(NodeId, Subscription)>, Error> {
        let own = self.subscriptions_of(&actor.bare()).await.map_err(Error::Unknown)?;
        self.at(request.node.as_ref(), own)
    }

    /// Returns the rows of a list that are about `node`, or all rows if `node` is `None`. The rows are sorted by the
    /// names of the nodes, so a node that is deleted and created again keeps its position.
    fn at<T>(
        &self,
        node: Option<&NodeId>,
        mut entries: Vec<(NodeId, T)>,
    ) -> Result<Vec<(NodeId, T)>, Error> {
        if node.is_some_and(|node| self.state.nodes.is_quarantined(node)) {
            return Err(Error::Quarantined);
        }
        entries.retain(|(other, _)| node.is_none_or(|node| node == other));
        entries.sort_by(|(node, _), (other, _)| node.cmp(other));
        Ok(entries)
    }
}
