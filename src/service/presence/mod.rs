//! Presence of entities: the tracker, and the effects of changes.

pub(super) mod events;
pub(super) mod tracker;
