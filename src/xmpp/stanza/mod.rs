//! Conversion between stanzas and values, without I/O, storage or clock.

pub mod atom_body;
pub mod disco;
pub mod envelope;
pub mod forms;
pub mod mam;
pub mod multicast;
pub mod notification;
pub(crate) mod ns;
pub mod order_by;
pub mod payload;
pub mod reply;
pub mod request;
pub mod rsm;
