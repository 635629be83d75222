//! Notifications that come back: how often, from whom, of which node (§12.4).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jid::Jid;
use tokio::sync::Notify;

use gjallar_pubsub::{Epoch, Limits, Timestamp};

/// Subscriptions of which bounces are counted; with one more, those are forgotten that came longest ago.
const MAX_COUNTED: usize = 10_000;
/// What a bounce counts that says that there is nobody.
const GONE: u32 = 5;

/// How a notification came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounce {
    /// Its recipient does not exist, or not any more.
    Gone,
    /// It could not be delivered.
    Undelivered,
}

/// The bounces of subscriptions: of a JID, in one life of a node.
#[derive(Debug, Default)]
pub(super) struct BounceTracker {
    known: Mutex<BounceTable>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct BounceTable {
    counts: HashMap<(Jid, Epoch), BounceCount>,
    /// Those that shall end.
    ending: VecDeque<(Jid, Epoch)>,
}

#[derive(Debug)]
struct BounceCount {
    bounces: u32,
    last: Timestamp,
}

impl BounceTracker {
    /// A notification of a node came back from a JID.
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
        let mut known = self.known();
        let subscription = (jid.clone(), node);
        if known.counts.len() >= MAX_COUNTED && !known.counts.contains_key(&subscription) {
            let newest = known.counts.values().map(|count| count.last).max();
            let oldest = known.counts.values().map(|count| count.last).min();
            let middle = oldest.zip(newest).map(|(a, b)| Timestamp(a.0 + (b.0 - a.0) / 2));
            known.counts.retain(|_, count| Some(count.last) > middle);
        }
        let count = known.counts.entry(subscription.clone());
        let count = count.or_insert(BounceCount { bounces: 0, last: Timestamp(0) });
        if count.bounces > 0 && now < count.last.later_by(interval) {
            return;
        }
        count.bounces = count.bounces.saturating_add(weight);
        count.last = now;
        if limits.max_bounces > 0 && count.bounces >= limits.max_bounces {
            known.counts.remove(&subscription);
            known.ending.push_back(subscription);
            drop(known);
            self.ended.notify_one();
        }
    }

    /// Waits for a subscription that shall end.
    pub(super) async fn ending(&self) -> (Jid, Epoch) {
        loop {
            if let Some(subscription) = self.known().ending.pop_front() {
                return subscription;
            }
            self.ended.notified().await;
        }
    }

    /// A subscription that shall end could not be ended.
    pub(super) fn end_later(&self, jid: Jid, node: Epoch) {
        self.known().ending.push_back((jid, node));
    }

    fn known(&self) -> MutexGuard<'_, BounceTable> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
