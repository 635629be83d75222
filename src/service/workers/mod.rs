//! Workers: loops that run beside requests until their future is dropped, one file each.

mod log_trimming;
mod node_reload;
pub(super) mod presence_retries;
mod timers;
mod undeliverable;

use std::time::Duration;

/// Pause between attempts of a failed operation.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
