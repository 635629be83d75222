//! Notifications: their recipients, keyword filters, and the notices of changed states.

pub(super) mod fanout;
pub(super) mod keywords;
pub(super) mod state_changes;
