//! Rules of XEP-0060 as pure functions.
//!
//! No function of this crate awaits, locks, logs, reads a clock or generates random numbers: the time and fresh ids are
//! arguments ([`Context`]). Each use case has a file of its own under [`op`]: its rule takes the node as it is now, and
//! the request, and returns a [`Decision`] or an [`Error`].
//!
//! Every modification of a node is a [`Change`]. Only the rules create lists of changes ([`Changes`]).

mod access;
mod affiliation;
mod attribution;
mod change;
mod config;
mod config_field;
mod config_revision;
mod configured_subscriptions;
mod context;
mod deleted_nodes;
mod error;
mod event;
pub mod features;
mod ids;
pub mod import_changes;
mod item;
mod item_budget;
mod item_query;
mod limits;
mod node;
pub mod op;
mod operation;
mod policy;
mod result_set;
mod roster;
mod show;
mod spellings;
mod subscriber_list;
mod subscription;
mod subscription_options;

mod notify;
#[cfg(test)]
mod tests;

pub use access::{
    SubscribeAccess, may_configure, may_discover, may_publish, may_retrieve, may_stay,
    may_subscribe, may_subscribe_implicitly,
};
pub use affiliation::{Affiliation, Affiliations};
pub use attribution::Attribution;
pub use change::{Change, Changes, Decision};
pub use config::{
    AccessModel, ItemExpire, ItemReply, MaxItems, NodeConfig, NotificationType, PublishModel,
    PublishNodeFull, SendLastPublishedItem,
};
pub use config_field::ConfigField;
pub use config_revision::{ConfigRevision, Configuration, SeenConfig};
pub use configured_subscriptions::ConfiguredSubscription;
pub use context::{Actor, Context, IdGenerator, Timestamp, administers};
pub use deleted_nodes::{FormerNode, OwnerHash};
pub use error::{Error, Feature, LimitUnit};
pub use event::{Audience, DeliveryVariant, Event, EventItem, LogEntry, is_entitled};
pub use ids::{ArchiveId, Epoch, EventId, ItemId, NodeId, Sequence, is_xml};
pub use item::{Item, ItemPosition, Payload, SHORT_TAG, relayed_len, written_len};
pub use item_budget::ItemBudget;
pub use item_query::{ItemFilter, ItemOrder, ItemPage, ItemQuery, ItemRef, OrderField};
pub use limits::Limits;
pub use node::Node;
pub use operation::{Operation, OwnItems, Prefetch, Prefetched};
pub use policy::{AffiliationNotices, Creators, Policy};
pub use result_set::{PageBound, PageRequest, ResultPage, byte_budget};
pub use roster::{Roster, RosterItem};
pub use show::{Show, ShowSet};
pub use subscriber_list::{Recipients, WeakRecipients};
pub use subscription::{Subscription, SubscriptionState};
pub use subscription_options::{
    Expire, SubId, SubscriptionDetails, SubscriptionOption, SubscriptionOptions,
};
