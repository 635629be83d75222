//! TODO.

pub(super) mod error_cases;
pub(super) mod examples;
pub(super) mod s04_1_affiliations;
pub(super) mod s06_3_subscription_options;
pub(super) mod s08_4_deleted_nodes;
pub(super) mod s08_6_approval;
pub(super) mod s12_2_implicit_subscriptions;
pub(super) mod s12_2_roster_contacts;
pub(super) mod s12_3_presence;
pub(super) mod s16_4_node_config;
pub(super) mod scripts;
