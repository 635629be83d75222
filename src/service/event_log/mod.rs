//! The event log: its window in memory, the recipients of its entries, and revocations.

pub(super) mod recipient_lists;
pub(super) mod revocations;
pub(super) mod window;
