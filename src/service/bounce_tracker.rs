//! Counts of bounced notifications by subscription (§12.4).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::Jid;
use tokio::sync::Notify;

use gjallar_pubsub::{Epoch, Limits, Timestamp};

/// Maximum number of subscriptions with counted bounces. When a further subscription exceeds the limit, all counts
/// whose last bounce is older than a certain time are evicted. This time is halfway between the earliest and the latest
/// of all last bounces.
const MAX_COUNTED: usize = 10_000;
/// Weight of a bounce that says that the recipient does not exist; other bounces have the weight 1.
const GONE: u32 = 5;

/// Reason for which a notification bounced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounce {
    /// The recipient does not exist, or no longer exists.
    Gone,
    /// The notification could not be delivered.
    Undelivered,
}

/// Counts of bounces by subscription: by JID and epoch of the node.
#[derive(Debug, Default)]
pub(super) struct BounceTracker {
    table: Mutex<BounceTable>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct BounceTable {
    counts: HashMap<(Jid, Epoch), BounceCount>,
    /// Subscriptions that have to end.
    ending: VecDeque<(Jid, Epoch)>,
}

#[derive(Debug)]
struct BounceCount {
    bounces: u32,
    last: Timestamp,
}

impl BounceTracker {
    /// Records a bounced notification. Further bounces of the same subscription are ignored for
    /// `limits.bounce_interval_seconds`. When the sum of the weights of the recorded bounces reaches
    /// `limits.max_bounces`, the subscription is queued to end.
    pub(super) fn record(
        &self,
        jid: &Jid,
        node: Epoch,
        how: Bounce,
        now: Timestamp,
        limits: &Limits,
    ) {
        let interval = limits.bounce_interval_seconds.saturating_mul(1000);
        let weight = if how == Bounce::Gone { GONE } else { 1 };
        let mut table = self.table();
        let subscription = (jid.clone(), node);
        if table.counts.len() >= MAX_COUNTED && !table.counts.contains_key(&subscription) {
            let newest = table.counts.values().map(|count| count.last).max();
            let oldest = table.counts.values().map(|count| count.last).min();
            let middle = oldest.zip(newest).map(|(a, b)| Timestamp(a.0 + (b.0 - a.0) / 2));
            table.counts.retain(|_, count| Some(count.last) > middle);
        }
        let count = table.counts.entry(subscription.clone());
        let count = count.or_insert(BounceCount { bounces: 0, last: Timestamp(0) });
        if count.bounces > 0 && now < count.last.later_by(interval) {
            return;
        }
        count.bounces = count.bounces.saturating_add(weight);
        count.last = now;
        if limits.max_bounces > 0 && count.bounces >= limits.max_bounces {
            table.counts.remove(&subscription);
            table.ending.push_back(subscription);
            drop(table);
            self.ended.notify_one();
        }
    }

    /// Waits for a subscription that has to end, removes it from the queue and returns it.
    pub(super) async fn ending(&self) -> (Jid, Epoch) {
        loop {
            if let Some(subscription) = self.table().ending.pop_front() {
                return subscription;
            }
            self.ended.notified().await;
        }
    }

    /// Queues a subscription again, after an attempt to end it failed.
    pub(super) fn end_later(&self, jid: Jid, node: Epoch) {
        self.table().ending.push_back((jid, node));
    }

    fn table(&self) -> MutexGuard<'_, BounceTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
