//! Faults: kills, loss of power, failed writes, malformed input, abuse, load.

mod abuse;
mod commit;
mod io;
mod kill9;
mod malformed_input;
mod power_loss;
mod sender_load;
