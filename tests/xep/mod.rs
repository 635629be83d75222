//! Protocols beside XEP-0060, one file for each XEP or RFC.

mod rfc6120_stream;
mod rfc7622_addresses;
mod xep0033_multicast;
mod xep0050_commands;
mod xep0059_rsm;
mod xep0313_mam;
mod xep0356_privilege;
