//! TODO.

pub(super) mod control;
pub(super) mod doctor;
pub(super) mod lifecycle;
pub(super) mod limits;
pub(super) mod policies;
pub(super) mod tls;
