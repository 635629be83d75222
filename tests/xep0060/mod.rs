//! XEP-0060, one file for each clause.

mod error_cases;
mod examples;
mod s04_1_affiliations;
mod s05_discovery;
mod s06_3_subscription_options;
mod s08_4_deleted_nodes;
mod s08_6_approval;
mod s08_8_invalid_entries;
mod s12_2_implicit_subscriptions;
mod s12_2_roster_contacts;
pub mod s12_3_presence;
mod s16_4_node_config;
mod scripts;
