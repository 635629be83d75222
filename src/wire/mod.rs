//! Stanzas to values and back. Pure: nothing here knows a socket, a store or a clock.

pub mod body;
pub mod disco;
pub mod form;
mod kind;
pub mod mam;
pub mod multicast;
pub mod name;
pub mod notification;
pub(crate) mod ns;
pub mod order;
pub mod padding;
pub mod payload;
pub mod refusal;
pub mod reply;
pub mod request;
pub mod rsm;
pub mod stanza;
pub mod xml;
