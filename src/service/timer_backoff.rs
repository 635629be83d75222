//! Backoff of timer-driven operations at a node while the backlog of pending events has no room for them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gjallar_pubsub::{NodeId, Timestamp, op::timers::Extent};

/// First interval between attempts. The interval is doubled after each further attempt that fails because the backlog
/// has no room.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum interval between two attempts.
const MAX_INTERVAL: Duration = Duration::from_secs(8);

/// Nodes at which the next attempt to do all due work is delayed.
#[derive(Debug, Default)]
pub(super) struct Delays(Mutex<HashMap<NodeId, Delay>>);

#[derive(Clone, Copy, Debug)]
struct Delay {
    extent: Extent,
    /// Earliest time of the next attempt.
    until: Timestamp,
    interval: Duration,
}

/// Extent of an attempt that does all due work, with limits that are not halved.
const EVERYTHING: Extent = Extent::Everything { halvings: 0 };

impl Delays {
    /// Returns the extent of the next attempt at a node. Until the delay of the node has ended, an attempt ends
    /// subscriptions and does nothing else.
    pub(super) fn extent(&self, node: &NodeId, now: Timestamp) -> Extent {
        match self.delays().get(node) {
            None => EVERYTHING,
            Some(delay) if delay.until <= now => delay.extent,
            Some(_) => Extent::Ends,
        }
    }

    /// Returns the end of a node's delay; `None` if the node is not delayed. Until then, attempts at the node end
    /// subscriptions and do nothing else.
    pub(super) fn until(&self, node: &NodeId) -> Option<Timestamp> {
        self.delays().get(node).map(|delay| delay.until)
    }

    /// Records an attempt that failed because the backlog has no room. Returns `true` if the node was not delayed
    /// before.
    pub(super) fn delay(&self, node: &NodeId, extent: Extent, now: Timestamp) -> bool {
        let mut delays = self.delays();
        let before = delays.get(node).map(|delay| delay.interval);
        let interval = before.map_or(FIRST_INTERVAL, |last| (2 * last).min(MAX_INTERVAL));
        let until = now.later_by(interval.as_millis() as u64);
        delays.insert(node.clone(), Delay { extent: extent.halved(), until, interval });
        before.is_none()
    }

    /// Records a successful attempt, or the deletion of the node. `is_all_done` is `true` if no due work is left at the
    /// node: its delay then ends. Otherwise the next attempt may do twice as much work. Returns `true` if a delay has
    /// ended.
    pub(super) fn end(&self, node: &NodeId, is_all_done: bool) -> bool {
        let mut delays = self.delays();
        if is_all_done {
            return delays.remove(node).is_some();
        }
        if let Some(delay) = delays.get_mut(node) {
            delay.extent = delay.extent.doubled();
            delay.interval = FIRST_INTERVAL;
        }
        false
    }

    fn delays(&self) -> MutexGuard<'_, HashMap<NodeId, Delay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_without_room_back_off_and_are_reported_once() {
        let (delays, node) = (Delays::default(), NodeId::parse("n").unwrap());
        let mut now = Timestamp(0);
        assert_eq!(delays.extent(&node, now), EVERYTHING);
        for attempt in 0..30 {
            let extent = delays.extent(&node, now);
            assert_eq!(delays.delay(&node, extent, now), attempt == 0);
            assert_eq!(delays.extent(&node, now), Extent::Ends);
            let until = delays.until(&node).unwrap();
            assert_eq!(until.0 - now.0, (500 << attempt.min(4)).min(8000));
            assert!(delays.extent(&node, until) == extent.halved());
            now = until;
        }
        assert!(!delays.end(&node, false));
        assert!(delays.end(&node, true));
        assert!(!delays.end(&node, true));
        assert_eq!(delays.extent(&node, now), EVERYTHING);
        assert_eq!(delays.until(&node), None);
    }
}
