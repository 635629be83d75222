//! TODO.

pub(super) mod events;
pub(super) mod tracker;
