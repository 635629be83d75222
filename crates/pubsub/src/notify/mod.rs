//! Notifications: recipients, keyword filters, and notices of changed states.

pub(super) mod fanout;
pub(super) mod keywords;
pub(super) mod state_changes;
