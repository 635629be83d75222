//! Protocols other than XEP-0060, one file for each XEP or RFC.

mod rfc6120_stream;
mod rfc7622_addresses;
mod xep0033_multicast;
mod xep0050_commands;
mod xep0059_rsm;
mod xep0312_missed_items;
mod xep0313_mam;
mod xep0356_privilege;
mod xep0460_caching_hints;
mod xep0465_public_subscriptions;
mod xep0485_server_information;
