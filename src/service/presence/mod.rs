//! Presence: the entities whose presence matters, and the events that a change of presence causes.

pub(super) mod events;
pub(super) mod tracker;
