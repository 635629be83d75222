//! TODO.

pub(super) mod backpressure;
pub(super) mod bounces;
pub(super) mod long_tags;
pub(super) mod ordering;
pub(super) mod stale_resources;
pub(super) mod timers;
pub(super) mod unconfirmed_barriers;
