//! Delivery of notifications: order, backpressure, barriers, bounces, timers.

mod backpressure;
mod bounces;
mod long_tags;
mod ordering;
mod stale_resources;
mod timers;
mod unconfirmed_barriers;
