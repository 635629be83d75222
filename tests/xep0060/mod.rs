//! XEP-0060, one file for each clause.

mod error_cases;
mod examples;
mod s04_1_affiliations;
mod s05_discovery;
mod s06_1_6_multiple_subscriptions;
pub mod s06_3_subscription_options;
mod s07_1_5_publish_options;
mod s08_2_configure;
mod s08_4_deleted_nodes;
mod s08_6_approval;
mod s08_8_invalid_entries;
mod s09_1_auto_subscribe;
mod s12_14_state_changes;
mod s12_17_itemreply;
mod s12_19_leases;
mod s12_2_implicit_subscriptions;
mod s12_2_roster_contacts;
pub mod s12_3_presence;
mod s12_5_temporary_subscriptions;
mod s16_4_item_expire;
pub mod s16_4_node_config;
mod s16_4_purge_offline;
mod scripts;
