//! TODO.

pub(super) mod rfc6120_stream;
pub(super) mod rfc7622_addresses;
pub(super) mod xep0033_multicast;
pub(super) mod xep0050_commands;
pub(super) mod xep0059_rsm;
pub(super) mod xep0313_mam;
pub(super) mod xep0356_privilege;
