//! Outbound half of a connection: replies, fan-out of log entries, barriers, multicast, writer.

pub(super) mod barrier;
pub(super) mod deferred_entries;
pub(super) mod fanout;
pub(super) mod multicast;
pub(super) mod reply_queue;
pub(super) mod reply_scheduler;
pub(super) mod writer;
