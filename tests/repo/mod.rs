//! TODO.

pub(super) mod architecture;
pub(super) mod conformance;
