//! Every way in which the rules say no.
//!
//! A refusal names a situation, not a stanza condition: XEP-0060 renders some situations differently
//! in different clauses. How each looks on the wire is one table, `xmpp/error.rs`.

use thiserror::Error;

use crate::Limits;

/// Why a request is not granted. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// A request that is not what the protocol says (§7.1, §8.1.3 and others).
    #[error("{0}")]
    BadRequest(&'static str),
    /// A configuration value past its limit (§8.2.5.2).
    #[error("{field}: at most {max}")]
    BadSetting {
        /// The field's name in the form.
        field: &'static str,
        /// The limit.
        max: usize,
    },
    /// The items of one request do not fit into one event.
    #[error("items of one request have at most {max} bytes together")]
    BatchTooBig {
        /// The limit in bytes.
        max: usize,
    },
    /// A form that shows another configuration than the node has by now.
    #[error("the node configuration has changed since this form was requested: request it again")]
    ChangedMeanwhile,
    /// Subscribing or retrieving where only listed entities may (§6.1.3.4, §6.5.9.8).
    #[error("the entity is not on the whitelist of the node")]
    ClosedNode,
    /// A subscription without a lease where each needs one (§6.1.5).
    #[error("the node requires a lease for each subscription: pubsub#expire")]
    ConfigurationRequired,
    /// Overwriting or retracting an item of another publisher (§7.1.2, §7.2.3.1).
    #[error(
        "the item has another publisher: only that publisher and the owners and publishers of the node may change it"
    )]
    ForeignItem,
    /// A submitted form with more fields and values than the service reads.
    #[error("a form has at most {max} fields and values")]
    FormTooLarge {
        /// The limit.
        max: usize,
    },
    /// The actor's standing does not allow it (fourteen clauses).
    #[error("the entity has insufficient privileges")]
    Forbidden,
    /// The node was deleted, and something took its place (§6.1.3.11, §8.4.2).
    #[error("the node has moved")]
    Gone {
        /// Its URI.
        uri: String,
    },
    /// The name of a node or an item is too long.
    #[error("a node or item id has at most {max} bytes")]
    IdTooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// A subscription option past its limit, or with a value that it cannot have (§6.3.6.2).
    #[error("{0}")]
    InvalidOptions(String),
    /// A SubID that no subscription of the JID has (§6.2.3.5, §6.3.4.5, §6.5.9.2).
    #[error("no subscription has this SubID")]
    InvalidSubId,
    /// Subscription options of a JID that is not subscribed (§6.3.4.2).
    #[error("not subscribed: there are no subscription options")]
    NoOptions,
    /// The JID to subscribe is not the actor's (§6.1.3.1).
    #[error("the JID does not match the sender")]
    InvalidJid,
    /// Not exactly one payload element (§7.1.3.6).
    #[error("{0}")]
    InvalidPayload(&'static str),
    /// An item where the node takes none (§7.1.3.7).
    #[error("the node does not accept items, only notifications without items")]
    ItemForbidden,
    /// No such item (§7.2.3.2).
    #[error("no such item")]
    ItemNotFound,
    /// A publish or retract request without the item that it needs (§7.1.3.7, §7.2.3.4).
    #[error("an item is required")]
    ItemRequired,
    /// No JID where one is needed (§6.3.4.3).
    #[error("a JID is required")]
    JidRequired,
    /// An address in a request that is not one (RFC 6120 §8.3.3.8).
    #[error("not a JID: {0}")]
    MalformedJid(jid::Error),
    /// More items in one request than the node keeps or the service takes (§12.11).
    #[error("at most {max} items in one request")]
    MaxItemsExceeded {
        /// The name of the limit.
        limit: &'static str,
        /// The limit.
        max: usize,
    },
    /// The actor has as many nodes as the service takes of one.
    #[error("the entity has the maximum number of nodes")]
    MaxNodesOfOwnerExceeded,
    /// The service has as many nodes as it takes.
    #[error("the service has the maximum number of nodes")]
    MaxNodesExceeded,
    /// Creating a node whose name is reserved after a deletion (§8.4).
    #[error(
        "the node was deleted: for 30 days, or while it has a redirect, only its former owners and administrators may create it again"
    )]
    NameReserved,
    /// A node that keeps no more items, and shall not drop one (§7.1.3.4).
    #[error("the node is full")]
    NodeFull,
    /// Creating a node that is there (§8.1.1).
    #[error("the node already exists")]
    NodeExists,
    /// A request at a node that does not say which (§7.2.3.3, §8.2.3.3).
    #[error("a node is required")]
    NodeIdRequired,
    /// The service does not choose names (§8.1.2).
    #[error("a node id is required: the service does not support instant nodes")]
    NoInstantNodes,
    /// No such node (fourteen clauses).
    #[error("no such node")]
    NodeNotFound,
    /// A request that cannot be carried out as it is (§8.2.5.2, §8.8.2, §8.9.2).
    #[error("{0}")]
    NotAcceptable(String),
    /// A part of another protocol that the service does not have (XEP-0059 §2.6, XEP-0313 §4.1.5, XEP-0413).
    #[error("not implemented: {0}")]
    NotImplemented(String),
    /// Subscribing or retrieving without being in the right group of an owner's roster (§6.1.3.3, §6.5.9.7).
    #[error(
        "the entity is not in an allowed group of an owner's roster: pubsub#roster_groups_allowed"
    )]
    NotInRosterGroup,
    /// Unsubscribing who is not subscribed (§6.2.3.2).
    #[error("not subscribed")]
    NotSubscribed,
    /// The newest item is not the one that the publisher knows (XEP-0395 §3.3).
    #[error("another item was published meanwhile")]
    Outdated {
        /// What the newest is called in the archive, if there is any.
        newest: Option<String>,
    },
    /// An item without payload at a node that needs one (§7.1.3.7).
    #[error("a payload is required")]
    PayloadRequired,
    /// A payload past a limit of the node or the service (§7.1.3.5).
    #[error("a payload has at most {max} bytes")]
    PayloadTooBig {
        /// The name of the limit.
        limit: &'static str,
        /// The limit in bytes.
        max: u32,
    },
    /// Subscribing again while an owner has not approved it (§6.1.3.7).
    #[error("the subscription is pending: an owner has to approve it")]
    PendingSubscription,
    /// Subscribing or retrieving without a subscription to the presence of an owner (§6.1.3.2, §6.5.9.6).
    #[error("a presence subscription to an owner of the node is required")]
    PresenceRequired,
    /// A node that is not configured as a publisher wants it (§7.1.5).
    #[error("publish-options do not match the node configuration: {field}")]
    PreconditionNotMet {
        /// The field that has another value.
        field: &'static str,
    },
    /// Asking for the items of a publisher at a node that does not show publishers (§12.17, XEP-0313 §4.1.1).
    #[error("the node does not show the publishers of its items: pubsub#itemreply")]
    PublisherHidden,
    /// Retrieving without a subscription where that has to be approved (§6.5.9.3).
    #[error("a subscription is required")]
    SubscriptionRequired,
    /// A JID with several subscriptions, and it is not said which of them is meant (§6.2.3.1, §6.3.4.4, §6.5.9.1).
    #[error("a SubID is required: there are several subscriptions")]
    SubIdRequired,
    /// The notifications of one request exceed the backlog.
    #[error("the notifications of this request exceed the backlog: split the request")]
    TooManyNotifications,
    /// Deleting a node with a redirect when the number of redirects, in total or of one owner, is at its limit
    /// (§8.4.2).
    #[error(
        "at most 1000000 redirects, and 10000 of one owner: delete the node without a redirect"
    )]
    TooManyRedirects,
    /// More subscriptions with options or SubIDs than the node takes, or more of one JID.
    #[error("the node or the JID has the maximum number of subscriptions with options or SubIDs")]
    TooManySpecial,
    /// The actor has as many subscriptions as the service takes of one (§6.1.3.9).
    #[error("the entity has the maximum number of subscriptions")]
    TooManyOwnSubscriptions,
    /// The node has as many subscriptions as it takes (§6.1.3.9).
    #[error("the node has the maximum number of subscriptions")]
    TooManySubscriptions,
    /// A field of a form that has to be understood, and is not (§7.1.5).
    #[error("{0}: unknown field")]
    UnknownField(String),
    /// An element that has no place where it stands.
    #[error("{0}")]
    UnexpectedChild(String),
    /// A part of XEP-0060 that the service does not have (22 clauses).
    #[error("not implemented: {}", .0.name())]
    Unsupported(Feature),
    /// An access model that the service does not have (§8.1.2).
    #[error("pubsub#access_model: the service does not support this access model")]
    UnsupportedAccessModel,
}

impl Error {
    /// More items in one request than the service takes.
    pub(super) fn batch_too_long(limits: &Limits) -> Self {
        Self::MaxItemsExceeded { limit: "max_batch", max: limits.max_batch }
    }

    /// The limit that the request is past, if it is one: its key in the configuration, or the name that
    /// `docs/CONFIGURATION.md` gives it.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::BadSetting { field, .. } => Some(field),
            Self::BatchTooBig { .. } => Some("max_reply_bytes"),
            Self::FormTooLarge { .. } => Some("form_fields"),
            Self::IdTooLong { .. } => Some("name_bytes"),
            Self::MaxItemsExceeded { limit, .. } | Self::PayloadTooBig { limit, .. } => Some(limit),
            Self::MaxNodesExceeded => Some("max_nodes"),
            Self::MaxNodesOfOwnerExceeded => Some("max_nodes_per_owner"),
            Self::TooManyNotifications => Some("max_backlog"),
            Self::TooManyRedirects => Some("redirects"),
            Self::TooManySpecial => Some("special_subscriptions"),
            Self::TooManyOwnSubscriptions => Some("max_subscriptions_per_jid"),
            Self::TooManySubscriptions => Some("max_subscriptions"),
            _ => None,
        }
    }
}

/// A feature that an error names (`unsupported` in `pubsub#errors`). Those that are implemented are
/// named where a node lacks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Feature {
    Collections,
    PersistentItems,
    Subscribe,
}

impl Feature {
    /// Its name in the registry (§16.3).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Collections => "collections",
            Self::PersistentItems => "persistent-items",
            Self::Subscribe => "subscribe",
        }
    }
}
