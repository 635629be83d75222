//! Handlers of inbound stanzas, one file for each protocol.

pub(super) mod adhoc;
pub(super) mod caps;
pub(super) mod disco;
pub(super) mod mam;
pub(super) mod ping;
pub(super) mod presence;
pub(super) mod privileged_entity;
pub(super) mod pubsub;
pub(super) mod resource_pings;
pub(super) mod version;
