//! The event log: its newest entries in memory (the window), the recipients of its entries, and revocations.

pub(super) mod recipient_lists;
pub(super) mod revocations;
pub(super) mod window;
