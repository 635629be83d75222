//! Admission of requests: rate limits of senders and domains, and permits of requests in progress.

mod rate_limit;
pub(super) mod request_permit;

pub use self::rate_limit::RateLimits;
pub(crate) use self::rate_limit::{RateExceeded, RequestLimiter};
