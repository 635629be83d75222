//! TODO.

pub(super) mod archive;
pub(super) mod concurrency;
pub(super) mod contract;
pub(super) mod event_log;
pub(super) mod gc;
pub(super) mod model;
pub(super) mod upgrade;
