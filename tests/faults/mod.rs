//! TODO.

pub(super) mod abuse;
pub(super) mod commit;
pub(super) mod io;
pub(super) mod kill9;
pub(super) mod malformed_input;
pub(super) mod power_loss;
pub(super) mod sender_load;
