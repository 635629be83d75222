//! Errors that the rules return. A rule is a function that decides a request.
//!
//! An error names a situation, not a stanza condition: for some situations, XEP-0060 prescribes different conditions in
//! different clauses. The table in `xmpp/error.rs` maps errors to stanza errors.

use std::fmt;

use thiserror::Error;

use crate::Limits;

/// Unit of the limit of a configuration field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitUnit {
    /// JIDs.
    Addresses,
    /// Bytes of one text, or the total bytes of all texts.
    Bytes,
    /// Roster groups.
    Groups,
    /// Items of a node.
    Items,
}

impl fmt::Display for LimitUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addresses => "addresses",
            Self::Bytes => "bytes",
            Self::Groups => "groups",
            Self::Items => "items",
        })
    }
}

/// Error of a rule (a function that decides a request). The request has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The request violates the protocol (§7.1, §8.1.3 and others).
    #[error("{0}")]
    BadRequest(&'static str),
    /// A configuration value exceeds its limit (§8.2.5.2).
    #[error("{field}: at most {max} {unit}")]
    BadSetting {
        /// Name of the field in the form.
        field: &'static str,
        /// Limit of the value.
        max: usize,
        /// Unit of the limit.
        unit: LimitUnit,
    },
    /// The items of one request do not fit into one notification.
    #[error("items of one request have at most {max} bytes together")]
    BatchTooBig {
        /// Limit in bytes.
        max: usize,
    },
    /// The form shows an older configuration of the node.
    #[error("the node configuration has changed since this form was requested: request it again")]
    ChangedMeanwhile,
    /// Only owners, publishers and members may subscribe and retrieve items (§6.1.3.4, §6.5.9.8).
    #[error("the entity is not on the whitelist of the node")]
    ClosedNode,
    /// The subscription has no lease, but the service requires one (§6.1.5).
    #[error("the node requires a lease for each subscription: pubsub#expire")]
    ConfigurationRequired,
    /// The item has another publisher (§7.1.2, §7.2.3.1).
    #[error(
        "the item has another publisher: only that publisher and the owners and publishers of the node may change it"
    )]
    ForeignItem,
    /// The submitted form has more fields and values than the service reads.
    #[error("a form has at most {max} fields and values")]
    FormTooLarge {
        /// Maximum number of fields and values.
        max: usize,
    },
    /// The affiliation of the actor does not allow the request (fourteen clauses of XEP-0060).
    #[error("the entity has insufficient privileges")]
    Forbidden,
    /// The node was deleted with a redirect (§6.1.3.11, §8.4.2).
    #[error("the node has moved")]
    Gone {
        /// URI of the node that replaces the deleted one.
        uri: String,
    },
    /// The name of a node or an item is too long.
    #[error("a node or item id has at most {max} bytes")]
    IdTooLong {
        /// Limit in bytes.
        max: usize,
    },
    /// A subscription option has an invalid value or exceeds its limit (§6.3.6.2).
    #[error("{0}")]
    InvalidOptions(String),
    /// The JID has no subscription with this SubID (§6.2.3.5, §6.3.4.5, §6.5.9.2).
    #[error("no subscription has this SubID")]
    InvalidSubId,
    /// The request is about the options of a JID that is not subscribed (§6.3.4.2).
    #[error("not subscribed: there are no subscription options")]
    NoOptions,
    /// The JID to subscribe does not match the actor (§6.1.3.1).
    #[error("the JID does not match the sender")]
    InvalidJid,
    /// The item has no or several payload elements (§7.1.3.6).
    #[error("{0}")]
    InvalidPayload(&'static str),
    /// The node does not accept items (§7.1.3.7).
    #[error("the node does not accept items, only notifications without items")]
    ItemForbidden,
    /// The item does not exist (§7.2.3.2).
    #[error("no such item")]
    ItemNotFound,
    /// The publish or retract request has no item but needs one (§7.1.3.7, §7.2.3.4).
    #[error("an item is required")]
    ItemRequired,
    /// The request has no JID but needs one (§6.3.4.3).
    #[error("a JID is required")]
    JidRequired,
    /// An address in the request is not a JID (RFC 6120 §8.3.3.8).
    #[error("not a JID: {0}")]
    MalformedJid(jid::Error),
    /// The request has more items than the node keeps or the service accepts (§12.11).
    #[error("at most {max} items in one request")]
    MaxItemsExceeded {
        /// Name of the limit.
        limit: &'static str,
        /// Maximum number of items.
        max: usize,
    },
    /// The actor has the maximum number of nodes.
    #[error("the entity has the maximum number of nodes")]
    MaxNodesOfOwnerExceeded,
    /// The service has the maximum number of nodes.
    #[error("the service has the maximum number of nodes")]
    MaxNodesExceeded,
    /// The policy for the new node's name allows no more nodes: their maximum number is reached.
    #[error("the policy for this name has its maximum number of nodes")]
    MaxNodesOfPolicyExceeded,
    /// The name of the new node is reserved after a deletion (§8.4).
    #[error(
        "the node was deleted: for 30 days, or while it has a redirect, only its former owners and administrators may create it again"
    )]
    NameReserved,
    /// The node has the maximum number of items and may not remove an old item (§7.1.3.4).
    #[error("the node is full")]
    NodeFull,
    /// The node to create exists (§8.1.1).
    #[error("the node already exists")]
    NodeExists,
    /// The request names no node but needs one (§7.2.3.3, §8.2.3.3).
    #[error("a node is required")]
    NodeIdRequired,
    /// The service does not choose names of nodes (§8.1.2).
    #[error("a node id is required: the service does not support instant nodes")]
    NoInstantNodes,
    /// The node does not exist (fourteen clauses of XEP-0060).
    #[error("no such node")]
    NodeNotFound,
    /// The service does not accept a value of the request (§8.2.5.2, §8.8.2, §8.9.2).
    #[error("{0}")]
    NotAcceptable(String),
    /// The service does not implement a part of another protocol (XEP-0059 §2.6, XEP-0313 §4.1.5, XEP-0413).
    #[error("not implemented: {0}")]
    NotImplemented(String),
    /// The actor is not in an allowed group of the owner's roster (§6.1.3.3, §6.5.9.7).
    #[error(
        "the entity is not in an allowed group of an owner's roster: pubsub#roster_groups_allowed"
    )]
    NotInRosterGroup,
    /// The JID to unsubscribe is not subscribed (§6.2.3.2).
    #[error("not subscribed")]
    NotSubscribed,
    /// The newest item differs from the item that the publisher expects (XEP-0395 §3.3).
    #[error("another item was published meanwhile")]
    Outdated {
        /// Archive id of the newest item, if there is one.
        newest: Option<String>,
    },
    /// The item has no payload, but the node requires one (§7.1.3.7).
    #[error("a payload is required")]
    PayloadRequired,
    /// The payload exceeds a limit of the node or the service (§7.1.3.5).
    #[error("a payload has at most {max} bytes")]
    PayloadTooBig {
        /// Name of the limit.
        limit: &'static str,
        /// Limit in bytes.
        max: u32,
    },
    /// The subscription is still pending (§6.1.3.7).
    #[error("the subscription is pending: an owner has to approve it")]
    PendingSubscription,
    /// The actor is not subscribed to the presence of the owner (§6.1.3.2, §6.5.9.6).
    #[error("a presence subscription to an owner of the node is required")]
    PresenceRequired,
    /// The node configuration does not match the publish-options (§7.1.5).
    #[error("publish-options do not match the node configuration: {field}")]
    PreconditionNotMet {
        /// Field with a different value.
        field: &'static str,
    },
    /// The query names a publisher, but the node does not show publishers (§12.17, XEP-0313 §4.1.1).
    #[error("the node does not show the publishers of its items: pubsub#itemreply")]
    PublisherHidden,
    /// Retrieving items requires an approved subscription (§6.5.9.3).
    #[error("a subscription is required")]
    SubscriptionRequired,
    /// The JID has several subscriptions and the request has no SubID (§6.2.3.1, §6.3.4.4, §6.5.9.1).
    #[error("a SubID is required: there are several subscriptions")]
    SubIdRequired,
    /// The notifications of this request alone are too many for the backlog, even for an empty one.
    #[error("the notifications of this request exceed the backlog: split the request")]
    TooManyNotifications,
    /// The service or the owner has the maximum number of redirects (§8.4.2).
    #[error(
        "at most 1000000 redirects, and 10000 of one owner: delete the node without a redirect"
    )]
    TooManyRedirects,
    /// The node, or the account of the JID at this node, has the maximum number of subscriptions with options or
    /// SubIDs. Or the JID has the maximum number of subscriptions to the node.
    #[error("the node or the JID has the maximum number of subscriptions with options or SubIDs")]
    TooManySpecial,
    /// The actor has the maximum number of subscriptions (§6.1.3.9).
    #[error("the entity has the maximum number of subscriptions")]
    TooManyOwnSubscriptions,
    /// The node has the maximum number of subscriptions (§6.1.3.9).
    #[error("the node has the maximum number of subscriptions")]
    TooManySubscriptions,
    /// The form has an unknown field that must be understood (§7.1.5).
    #[error("{0}: unknown field")]
    UnknownField(String),
    /// The request has an element in a place where it is not allowed.
    #[error("{0}")]
    UnexpectedChild(String),
    /// The service or the node does not support a feature of XEP-0060 (22 of its clauses).
    #[error("not implemented: {}", .0.name())]
    Unsupported(Feature),
    /// The service does not support the access model (§8.1.2).
    #[error("pubsub#access_model: the service does not support this access model")]
    UnsupportedAccessModel,
}

impl Error {
    /// Returns the error for a request with more items than the service accepts in one request.
    pub(super) fn batch_too_long(limits: &Limits) -> Self {
        Self::MaxItemsExceeded { limit: "max_batch", max: limits.max_batch }
    }

    /// Returns the limit that the request exceeds, if any: its key in the configuration, or its name in
    /// `docs/CONFIGURATION.md`.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::BadSetting { field, .. } => Some(field),
            Self::BatchTooBig { .. } => Some("max_reply_bytes"),
            Self::FormTooLarge { .. } => Some("form_fields"),
            Self::IdTooLong { .. } => Some("name_bytes"),
            Self::MaxItemsExceeded { limit, .. } | Self::PayloadTooBig { limit, .. } => Some(limit),
            Self::MaxNodesExceeded | Self::MaxNodesOfPolicyExceeded => Some("max_nodes"),
            Self::MaxNodesOfOwnerExceeded => Some("max_nodes_per_owner"),
            Self::TooManyNotifications => Some("max_backlog"),
            Self::TooManyRedirects => Some("redirects"),
            Self::TooManySpecial => Some("special_subscriptions"),
            Self::TooManyOwnSubscriptions => Some("max_subscriptions_per_jid"),
            Self::TooManySubscriptions => Some("max_subscriptions"),
            _ => None,
        }
    }

    /// Returns the text for the requester. It begins with the name of the exceeded limit or invalid field, if there is
    /// one.
    #[must_use]
    pub fn text(&self) -> String {
        match self.limit() {
            // Texts of fields contain the name already.
            Some(limit) if !matches!(self, Self::BadSetting { .. }) => format!("{limit}: {self}"),
            _ => self.to_string(),
        }
    }
}

/// Feature that an error names (`unsupported` in `pubsub#errors`). The service does not implement the feature, or the
/// configuration of the node disables it (such as `pubsub#persist_items`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Feature {
    Collections,
    PersistentItems,
    Subscribe,
}

impl Feature {
    /// Returns the name of the feature in the registry (§16.3).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Collections => "collections",
            Self::PersistentItems => "persistent-items",
            Self::Subscribe => "subscribe",
        }
    }
}
