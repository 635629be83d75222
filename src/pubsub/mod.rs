//! The rules of XEP-0060, as pure functions from values to values.
//!
//! Nothing in this folder awaits, locks, logs, reads a clock or rolls a die: time and fresh ids are
//! arguments ([`Context`]). Each use case has a file of its own under [`op`]; it takes the node as it
//! stands and the request, and returns a [`Decision`] or a [`Error`].
//!
//! The only way to change state is a [`Change`], and only this folder makes them ([`Changes`]).

mod access;
mod actor;
mod affiliation;
mod attribution;
mod budget;
mod change;
mod config;
mod contacts;
mod event;
mod fanout;
pub mod feature;
mod former;
mod id;
mod item;
mod keywords;
mod limits;
mod listing;
mod node;
mod notices;
pub mod op;
mod options;
mod page;
mod policy;
mod presence;
mod refusal;
pub mod restore;
mod revision;
mod setting;
mod special;
mod spelled;
mod subscribers;
mod subscription;

#[cfg(test)]
mod tests;

pub use access::{
    SubscribeAccess, may_configure, may_discover, may_publish, may_retrieve, may_stay,
    may_subscribe, may_subscribe_implicitly,
};
pub use actor::{Actor, Context, IdGenerator, Timestamp, administers};
pub use affiliation::{Affiliation, Affiliations};
pub use attribution::Attribution;
pub use budget::ItemBudget;
pub use change::{Change, Changes, Decision};
pub use config::{
    AccessModel, ItemExpire, ItemReply, MaxItems, NodeConfig, NotificationType, PublishModel,
    PublishNodeFull, SendLastPublishedItem,
};
pub use contacts::{Roster, RosterItem};
pub use event::{Audience, DeliveryVariant, Event, EventItem, LogEntry, is_entitled};
pub use former::{FormerNode, OwnerHash};
pub use id::{ArchiveId, Epoch, EventId, ItemId, NodeId, is_xml};
pub use item::{Item, ItemPosition, Payload, SHORT_TAG, written_len};
pub use limits::Limits;
pub use listing::{ItemFilter, ItemOrder, ItemPage, ItemQuery, ItemRef, OrderField};
pub use node::Node;
pub use options::{Expire, SubId, SubscriptionDetails, SubscriptionOption, SubscriptionOptions};
pub use page::{PageBound, PageRequest, ResultPage, byte_budget};
pub use policy::{AffiliationNotices, Creators, Policy};
pub use presence::{Show, ShowSet};
pub use refusal::{Error, Feature};
pub use revision::{ConfigRevision, Configuration, SeenConfig};
pub use setting::ConfigField;
pub use special::ConfiguredSubscription;
pub use subscribers::{Recipients, WeakRecipients};
pub use subscription::{Subscription, SubscriptionState};
