//! TODO.

pub(super) mod recipient_lists;
pub(super) mod revocations;
pub(super) mod window;
