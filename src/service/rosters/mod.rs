//! TODO.

pub(super) mod access;
pub(super) mod cache;
