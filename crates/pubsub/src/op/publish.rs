//! Publication of items (§7.1).

use std::borrow::Cow;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jid::BareJid;

use crate::{
    Actor, Attribution, Change, Changes, ConfigField, Context, Decision, Error, Event, EventItem,
    FormerNode, IdGenerator, Item, ItemId, Node, NodeConfig, NodeId, Operation, Payload, Prefetch,
    Prefetched, PublishNodeFull, access, notify::fanout::Fanout,
};

use super::{create, retract::retractions};

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &[
    "auto-create",
    "item-ids",
    "last-published",
    "multi-items",
    "persistent-items",
    "publish",
    "publish-node-full",
    "publish-options",
];

/// Request to publish items, all or none (§12.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Name of the node.
    pub node: NodeId,
    /// New items; empty for an event without an item (§4.3).
    pub items: Vec<NewItem>,
    /// Publish-options: preconditions, and the configuration of a node that is created (§7.1.5).
    pub options: Vec<ConfigField>,
    /// Expected archive id of the newest item; nothing is published if the newest item has another id, or if there is
    /// no item (XEP-0395 §3.2).
    pub expected_newest: Option<String>,
}

impl Operation for Publish {
    type Output = PublishReply;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::ExistingItems(self)
    }

    fn check_access(&self, node: &Node, cx: &Context<'_>) -> Result<(), Error> {
        access::may_publish(node, cx.actor)
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<PublishReply>, Error> {
        publish(node, self, &prefetched.existing_items, cx)
    }
}

/// Item to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewItem {
    /// Name of the item; `None` if the service is to choose one (§7.1.2).
    pub id: Option<ItemId>,
    /// Payload of the item.
    pub payload: Option<Payload>,
}

/// Reply to a publish request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishReply {
    /// Name of the node.
    pub node: NodeId,
    /// Names of the published items, in the order of the request.
    pub items: Vec<ItemId>,
}

/// Decides a publish request. A new item replaces an existing item of the same name, and becomes the newest item. The
/// oldest items past `max_items`, or past the service's limit of bytes, are evicted without an event.
///
/// A missing node is created in the same commit if the actor may create nodes (§7.1.4). SPEC: an actor that may not
/// create the node gets `item-not-found`, as does every actor if the configuration of the service does not allow
/// automatic creation. If a deleted node left a redirect, no node of its name is created automatically. While the name
/// of a deleted node is reserved (`FormerNode`), only entities that may reuse the name create a node automatically.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`], [`Error::ForeignItem`], [`Error::PreconditionNotMet`],
/// [`Error::Outdated`], [`Error::TooManyNotifications`]; the errors of §7.1.3; and, if the node is missing, those of
/// [`create`](super::create::create).
pub fn publish(
    node: Option<&Node>,
    request: &Publish,
    existing: &ExistingItems,
    cx: &Context<'_>,
) -> Result<Decision<PublishReply>, Error> {
    let Some(node) = node else {
        let is_free = |former: &FormerNode| former.redirect.is_none() && former.may_have_name(cx);
        if !cx.policy.may_create(cx.actor)
            || !cx.policy.auto_create
            || !existing.former.as_ref().is_none_or(is_free)
        {
            return Err(Error::NodeNotFound);
        }
        check_compared(request, None)?;
        let (node, changes) = create::creation(request.node.clone(), &request.options, false, cx)?;
        check_options(&node, request, cx)?;
        return publish_at(&node, changes, request, &ExistingItems::default(), cx);
    };
    access::may_publish(node, cx.actor)?;
    for publisher in existing.replaced.values() {
        access::may_change_item(node, cx.actor, publisher)?;
    }
    check_options(node, request, cx)?;
    if request.expected_newest.is_some() {
        // The error would disclose the newest item to entities that may not retrieve it.
        access::may_retrieve(node, cx).map_err(|_| Error::Forbidden)?;
    }
    check_compared(request, existing.newest.as_ref())?;
    publish_at(node, Changes::none(node), request, existing, cx)
}

/// Checks the publish-options against the configuration of the node (§7.1.5), even if the request itself creates the
/// node. An option with a number above the limits for the node is an unmet precondition.
fn check_options(node: &Node, request: &Publish, cx: &Context<'_>) -> Result<(), Error> {
    // Each option is compared separately: of two values for one field, one is not met.
    let unmet = request.options.iter().find(|wanted| !node.config.meets(wanted, cx.limits()));
    match unmet {
        Some(unmet) => Err(Error::PreconditionNotMet { field: unmet.field() }),
        None => Ok(()),
    }
}

/// Checks that the newest item is the expected one. SPEC: XEP-0395 leaves it to the service how the content of an item
/// is identified. Here the archive id of the item is the identifier. So the identifier changes even if the same content
/// is published again.
fn check_compared(request: &Publish, newest: Option<&Item>) -> Result<(), Error> {
    let newest = newest.map(|item| item.archive_id().to_string());
    match &request.expected_newest {
        Some(compared) if newest.as_ref() != Some(compared) => Err(Error::Outdated { newest }),
        _ => Ok(()),
    }
}

/// Existing items, or the record of a deleted node, on which a publish request depends.
#[derive(Clone, Debug, Default)]
pub struct ExistingItems {
    /// Record of the deleted node of this name, if the node does not exist.
    pub former: Option<FormerNode>,
    /// Newest item, if the request has an [expected newest item](Publish::expected_newest).
    pub newest: Option<Item>,
    /// Existing items that the request overwrites, each with its publisher. Filled only if the node [may be
    /// full](needs_existing_items) or the actor [may overwrite only its own items](looks_at_publishers).
    pub replaced: BTreeMap<ItemId, BareJid>,
    /// Number of items at the node.
    pub total: usize,
    /// Oldest items of the node: at most twice as many as the request publishes, because the request may overwrite some
    /// of them.
    pub oldest: Vec<ItemId>,
}

/// Returns `true` if a publish request depends on the existing items of the node. This is the case if the node, when it
/// is full, rejects new items or retracts its oldest items.
#[must_use]
pub fn needs_existing_items(config: &NodeConfig) -> bool {
    config.persist_items && config.publish_node_full != PublishNodeFull::DiscardOldest
}

/// Returns `true` if a publish request depends on the publishers of the items that it would overwrite.
#[must_use]
pub fn looks_at_publishers(node: &Node, actor: &Actor) -> bool {
    node.config.persist_items && !access::may_change_all_items(node, actor)
}

/// Decides a publish request at a node that exists, or that `changes` create.
fn publish_at(
    node: &Node,
    mut changes: Changes,
    request: &Publish,
    existing: &ExistingItems,
    cx: &Context<'_>,
) -> Result<Decision<PublishReply>, Error> {
    let config = &node.config;
    check_number(request.items.len(), config, cx)?;
    let mut items = Vec::with_capacity(request.items.len());
    for new in &request.items {
        check_payload(new.payload.as_ref(), config, cx)?;
        let id = match &new.id {
            Some(id) => id.clone(),
            None => ItemId::parse(&cx.ids.next_id())?,
        };
        let event_id = changes.next_event_id(node.epoch);
        items.push(Arc::new(Item {
            id,
            event_id,
            index: 0,
            created: event_id.sequence.into(),
            publisher: cx.actor.bare(),
            published: cx.now,
            payload: new.payload.clone(),
        }));
    }
    if items.iter().map(|item| item.size()).sum::<usize>() > cx.limits().max_reply_bytes {
        return Err(Error::BatchTooBig { max: cx.limits().max_reply_bytes });
    }
    if items.iter().map(|item| &item.id).collect::<BTreeSet<_>>().len() < items.len() {
        return Err(Error::BadRequest("two items have the same id"));
    }

    let evicted = if needs_existing_items(config) {
        evicted(&items, existing, config, cx)?
    } else {
        Vec::new()
    };
    if config.persist_items {
        items.iter().for_each(|item| changes.push(Change::Published(Arc::clone(item))));
        changes.push(config.eviction(cx.limits()));
    }
    let as_of = changes.version();
    let attribution = Attribution::of(node, config);
    let mut fanout = Fanout::new(node, config, cx);
    let mut notifications = Vec::new();
    for item in &items {
        let event = Event::Published(vec![EventItem::of(item, config, &attribution)]);
        let at = (item.event_id, as_of);
        notifications.extend(fanout.notify(at, event)?);
    }
    if items.is_empty() {
        let at = (changes.next_event_id(node.epoch), as_of);
        let event = Event::Published(Vec::new());
        notifications.extend(fanout.notify(at, event)?);
    }
    changes.prepend_retractions(&evicted);
    let of_evicted = retractions(node, &evicted, config.notify_retract, &mut changes, &mut fanout);
    notifications.extend(of_evicted?);
    let items = items.iter().map(|item| item.id.clone()).collect();
    let reply = PublishReply { node: node.id.clone(), items };
    Ok(Decision { reply, changes, notifications })
}

/// Returns the items that a node retracts to make room for new ones, or an error if the node is full and refuses new
/// items.
fn evicted(
    new: &[Arc<Item>],
    existing: &ExistingItems,
    config: &NodeConfig,
    cx: &Context<'_>,
) -> Result<Vec<ItemId>, Error> {
    let keep = config.max_items.within(cx.limits()) as usize;
    let number = (existing.total + new.len() - existing.replaced.len()).saturating_sub(keep);
    match config.publish_node_full {
        _ if number == 0 || keep == 0 => Ok(Vec::new()),
        PublishNodeFull::DiscardOldest => Ok(Vec::new()),
        PublishNodeFull::Reject => Err(Error::NodeFull),
        PublishNodeFull::RetractOldest => {
            let stays = |id: &&ItemId| !existing.replaced.contains_key(*id);
            Ok(existing.oldest.iter().filter(stays).take(number).cloned().collect())
        }
    }
}

/// Checks the number of items in one request (§7.1.3.7, §12.11).
fn check_number(number: usize, config: &NodeConfig, cx: &Context<'_>) -> Result<(), Error> {
    let takes_items = config.persist_items || config.deliver_payloads;
    let kept = config.max_items.within(cx.limits()) as usize;
    match number {
        0 if takes_items => Err(Error::ItemRequired),
        0 => Ok(()),
        _ if !takes_items => Err(Error::ItemForbidden),
        n if n > cx.limits().max_batch => Err(Error::batch_too_long(cx.limits())),
        // A node that keeps no items may still notify subscribers of each.
        n if config.persist_items && kept > 0 && n > kept => {
            Err(Error::MaxItemsExceeded { limit: "pubsub#max_items", max: kept })
        }
        _ => Ok(()),
    }
}

/// Checks that the node accepts this payload (§7.1.3.5, §7.1.3.7). Every namespace is allowed: `pubsub#type` only
/// describes the data (§16.4.4).
fn check_payload(
    payload: Option<&Payload>,
    config: &NodeConfig,
    cx: &Context<'_>,
) -> Result<(), Error> {
    let Some(payload) = payload else {
        return if config.deliver_payloads { Err(Error::PayloadRequired) } else { Ok(()) };
    };
    let (of_node, of_service) = (config.max_payload_size, cx.limits().max_payload_bytes);
    let (limit, max) = match of_node < of_service {
        true => ("pubsub#max_payload_size", of_node),
        false => ("max_payload_bytes", of_service),
    };
    if payload.xml().len() > max as usize {
        return Err(Error::PayloadTooBig { limit, max });
    }
    Ok(())
}
