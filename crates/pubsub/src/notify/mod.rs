//! TODO.

pub(super) mod fanout;
pub(super) mod keywords;
pub(super) mod state_changes;
