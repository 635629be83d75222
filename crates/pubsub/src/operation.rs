//! Use case as a type: the node that it concerns, the data that it needs from the store, and the rule that decides it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use jid::{BareJid, Jid};

use crate::{
    Actor, Context, Decision, Error, IdGenerator, Item, ItemId, ItemPosition, Node, NodeId,
    op::{
        configure::Configure,
        delete::RedirectCounts,
        publish::{ExistingItems, Publish},
        retract::Retract,
    },
};

/// Use case that may change a node.
pub trait Operation: Sync {
    /// Reply to the requester.
    type Output: Send + 'static;

    /// Returns the name of the node. A node that is created without a name gets one from `ids`.
    ///
    /// # Errors
    /// If the generated name is not valid, which does not occur in practice.
    fn node(&self, ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error>;

    /// Returns the data that the rule needs. `actor` makes the request.
    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Nothing
    }

    /// Checks the rights that do not depend on prefetched data, so that nothing is read for an actor without rights.
    ///
    /// # Errors
    /// The error with which [`decide`](Self::decide) would refuse the actor.
    fn check_access(&self, _node: &Node, _cx: &Context<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Decides the use case at the node with the name `id`; `node` is `None` if there is no such node.
    ///
    /// # Errors
    /// The errors of the XEP, listed at the rule of each use case.
    fn decide(
        &self,
        id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<Self::Output>, Error>;

    /// Returns the configuration key of a limit because of which only a part of the request was executed.
    fn limit_reached(_reply: &Self::Output) -> Option<&'static str> {
        None
    }
}

/// Data that a rule needs from the store. Only the data for the rule's own use case is read.
#[derive(Clone, Copy, Debug)]
pub enum Prefetch<'a> {
    /// No data.
    Nothing,
    /// Only the roster that gives access.
    Access,
    /// The record of the deleted node with this name, and the number of nodes that the actor's account created.
    Creation,
    /// The numbers of deleted nodes with a redirect: of all, and of those that count toward the limit of the owner.
    Deletion,
    /// The newest item, if the node removes it when its publisher goes offline. If subscriptions are temporary: also the
    /// JIDs of this entity whose subscriptions an owner made.
    Departure(&'a BareJid),
    /// A page of the items of a publisher that went offline.
    OwnItems(OwnItems<'a>),
    /// The JIDs of this entity that an owner subscribed.
    EnrolledOf(&'a BareJid),
    /// The JIDs that an owner subscribed.
    Enrolled,
    /// The publishers of the items to retract.
    Publishers(&'a Retract),
    /// If the node does not exist: the record of the deleted node with this name, and the number of nodes of the
    /// actor's account. If the node exists: the existing items, if the request depends on them when the node is full; the
    /// publishers of replaced items;
    /// the newest item, if the request compares it.
    ExistingItems(&'a Publish),
    /// The newest item, if new subscribers receive it.
    LastItem,
    /// The newest item, if new subscribers receive it, and the roster that will give access once this actor's change is
    /// applied.
    Configuration(&'a Actor, &'a Configure),
    /// Items for timer-driven changes, and cached rosters.
    Timers,
    /// The newest item, if new subscribers receive it, and the number of subscriptions of the actor's account.
    Subscriptions,
}

/// Page of a publisher's items at a node.
#[derive(Clone, Copy, Debug)]
pub struct OwnItems<'a> {
    /// Publisher of the items.
    pub publisher: &'a BareJid,
    /// Position after which the page begins; `None` for the beginning of the node.
    pub after: Option<ItemPosition>,
    /// Maximum number of items.
    pub max: usize,
}

/// Data that was read for a rule; empty where it was not requested.
#[derive(Debug, Default)]
pub struct Prefetched {
    /// Items, as the [`Prefetch`] of the use case describes them.
    pub items: Vec<Item>,
    /// Position after which the publisher may have more items.
    pub more_after: Option<ItemPosition>,
    /// Newest items of the node.
    pub newest: Vec<Item>,
    /// Items that a publish replaces or evicts.
    pub existing_items: ExistingItems,
    /// Publishers of named items.
    pub publishers: BTreeMap<ItemId, BareJid>,
    /// Number of nodes that the actor's account created.
    pub actor_node_count: u64,
    /// Number of subscriptions of the actor's account.
    pub subscriptions: usize,
    /// Numbers of deleted nodes with a redirect.
    pub redirects: RedirectCounts,
    /// JIDs that an owner subscribed.
    pub enrolled: HashSet<Jid>,
    /// `true` if resources are interested in the node by their capabilities, or if notifications for such resources are
    /// pending.
    pub has_interested: bool,
}
