//! Removal of subscriptions of full JIDs whose resource no longer exists.
//!
//! Servers silently drop headlines to a missing resource. Therefore each resource with a subscription is pinged a few
//! times within each period of [`Limits::dead_resource_seconds`](gjallar_pubsub::Limits::dead_resource_seconds). With
//! each ping, a second ping is sent to a resource of the same entity that cannot exist. If both replies are the same
//! error, both come from the server, so the resource is missing. Some servers reply to strangers as if no resource
//! existed. Therefore no resource counts as missing at a domain where no resource ever replied.
//!
//! After a reconnection, the same check is made for resources that were available before, but whose entity has not
//! granted the service a presence subscription. It shows which of these resources are still available.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jid::Jid;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

use crate::store::NodeNumber;
use gjallar_pubsub::{
    Actor, Node, PageBound, PageRequest, Timestamp,
    op::unsubscribe_undeliverable::UnsubscribeMissing,
};

use super::{Error, Service, workers::presence_retries::PresenceTask};

/// Maximum number of recorded missing resources, and of resources checked in a round. Further missing resources are not
/// recorded, and further resources are not checked in that round.
const MAX_RESOURCES: usize = 100_000;
/// Maximum number of unanswered checks. Further checks wait. After a reconnection, events wait up to 10 s for the
/// results. The rate limit of queries lets at most 5 000 checks begin in this time.
const MAX_CHECKS: usize = 5000;
/// Maximum number of recorded domains at which a resource has replied to a ping. At further domains no resource counts
/// as missing.
const MAX_DOMAINS: usize = 10_000;
/// Timeout of a check.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of rounds of checks in each period of `limits.dead_resource_seconds`.
const ROUNDS: u64 = 4;
/// Minimum number of checks that have to find a resource missing before its subscriptions end.
const MIN_CHECKS: u32 = 3;
/// Maximum time from the start of the service to the first round.
const FIRST_ROUND: Duration = Duration::from_secs(600);

/// Pending checks of resources, and their results.
#[derive(Debug, Default)]
pub struct Resources {
    table: Mutex<ResourceTable>,
    /// Wakes the checks that wait because too many earlier checks are unanswered.
    ended: Notify,
}

#[derive(Debug, Default)]
struct ResourceTable {
    missing: HashMap<Jid, Missing>,
    checks: HashMap<u64, Check>,
    /// Resources checked in this round.
    checked: HashSet<Jid>,
    /// Domains at which a resource has replied to a ping.
    reached: HashSet<String>,
}

/// Record of a resource that was found missing in each check since the time `since`.
#[derive(Clone, Copy, Debug)]
struct Missing {
    since: Timestamp,
    checks: u32,
}

#[derive(Debug)]
struct Check {
    resource: Jid,
    asked_at: Instant,
    /// The earlier of the replies to the two pings: `true` for the ping to the resource, `false` for the ping to a
    /// resource that cannot exist. The text is the content of the error.
    first: Option<(bool, String)>,
}

/// Reply to a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PingAnswer {
    /// Reply of the type `result`, which an existing resource sends.
    There,
    /// Error that does not show whether the resource exists.
    Other,
    /// Error of a server that is unreachable or busy.
    Unreachable,
    /// Error that a server sends for a missing resource. The text is the content of the error.
    NotThere(String),
}

/// Result of a check of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The resource replied.
    Present(Jid),
    /// The server replied in the same way as for a resource that cannot exist.
    Absent(Jid),
    /// The replies do not show whether the resource exists.
    Unknown(Jid),
    /// The server is unreachable.
    Unreachable(Jid),
}

impl Resources {
    /// Begins a check with the unique number `number`. Waits first while 5000 checks are unanswered.
    pub async fn begin(&self, number: u64, resource: Jid) {
        loop {
            let ended = self.ended.notified();
            let oldest = {
                let mut table = self.table();
                table.checks.retain(|_, check| check.asked_at.elapsed() < ANSWER_TIMEOUT);
                if table.checks.len() < MAX_CHECKS {
                    let check = Check { resource, asked_at: Instant::now(), first: None };
                    table.checks.insert(number, check);
                    return;
                }
                table.checks.values().map(|check| check.asked_at).min()
            };
            let until = oldest.unwrap_or_else(Instant::now) + ANSWER_TIMEOUT;
            let _ = timeout_at(until, ended).await;
        }
    }

    /// Processes a reply to one of the two pings of a check: to the ping of the resource itself (`is_own`), or to the ping
    /// of an invented resource of the same entity.
    /// Returns the result of the check once it is known.
    #[must_use]
    pub fn answered(
        &self,
        number: u64,
        from: &Jid,
        is_own: bool,
        answer: PingAnswer,
    ) -> Option<CheckResult> {
        let mut table = self.table();
        let check = table.checks.get_mut(&number)?;
        if check.resource.to_bare() != from.to_bare() || (check.resource == *from) != is_own {
            return None;
        }
        let content = match answer {
            PingAnswer::NotThere(content) => content,
            answer => {
                let resource = self.end(&mut table, number)?;
                return Some(match answer {
                    PingAnswer::There if is_own => {
                        table.found(&resource);
                        CheckResult::Present(resource)
                    }
                    PingAnswer::Unreachable => CheckResult::Unreachable(resource),
                    _ => CheckResult::Unknown(resource),
                });
            }
        };
        match check.first.take() {
            Some((first_is_own, first)) if first_is_own != is_own => {
                let resource = self.end(&mut table, number)?;
                if first != content {
                    table.found(&resource);
                    return Some(CheckResult::Present(resource));
                }
                Some(match table.reached.contains(resource.domain().as_str()) {
                    true => CheckResult::Absent(resource),
                    false => CheckResult::Unknown(resource),
                })
            }
            _ => {
                check.first = Some((is_own, content));
                None
            }
        }
    }

    /// Removes a completed check. Returns its resource.
    fn end(&self, table: &mut ResourceTable, number: u64) -> Option<Jid> {
        self.ended.notify_waiters();
        Some(table.checks.remove(&number)?.resource)
    }

    /// Records that a resource has sent something, so it is not missing.
    pub fn is_there(&self, jid: &Jid) {
        let mut table = self.table();
        if !table.missing.is_empty() {
            table.missing.remove(jid);
        }
    }

    /// Records that a resource was found missing. Returns `true` if at least [`MIN_CHECKS`] checks over at least
    /// `seconds` found the resource missing.
    fn found_missing(&self, jid: &Jid, now: Timestamp, seconds: u64) -> bool {
        let mut table = self.table();
        if table.missing.len() >= MAX_RESOURCES && !table.missing.contains_key(jid) {
            return false;
        }
        let missing = table.missing.entry(jid.clone()).or_insert(Missing { since: now, checks: 0 });
        missing.checks = missing.checks.saturating_add(1);
        missing.checks >= MIN_CHECKS && now >= missing.since.later_by(seconds.saturating_mul(1000))
    }

    /// Returns `true` at the first call in this round for a resource. The caller then has to check the resource.
    /// Returns `false` at later calls, and for resources above [`MAX_RESOURCES`].
    fn needs_check(&self, jid: &Jid) -> bool {
        let mut table = self.table();
        table.checked.len() < MAX_RESOURCES && table.checked.insert(jid.clone())
    }

    fn table(&self) -> MutexGuard<'_, ResourceTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResourceTable {
    /// Records that a resource replied to a ping.
    fn found(&mut self, resource: &Jid) {
        self.missing.remove(resource);
        if self.reached.len() < MAX_DOMAINS {
            self.reached.insert(resource.domain().as_str().to_owned());
        }
    }
}

impl Service {
    /// Returns the checks of resources.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.state.resources
    }

    /// Returns the time until the next round of checks; `None` if checks are disabled.
    #[must_use]
    pub fn next_round(&self, is_first: bool) -> Option<Duration> {
        let seconds = self.policies().limits().dead_resource_seconds;
        let interval = Duration::from_millis(seconds.saturating_mul(1000) / ROUNDS);
        (seconds > 0).then_some(if is_first { interval.min(FIRST_ROUND) } else { interval })
    }

    /// Returns the resources to check at the first node after the node number `after`, and the number of that node.
    /// Returns `None` after the last node.
    pub async fn resources_of_next(
        &self,
        after: Option<NodeNumber>,
    ) -> Option<(Vec<Jid>, NodeNumber)> {
        if after.is_none() {
            self.resources().table().checked.clear();
        }
        let edge = after.map_or(PageBound::At(0), PageBound::After);
        let found = match self.store.nodes(&PageRequest { max: 1, edge }).await {
            Ok(found) => found,
            Err(error) => {
                warn!(
                    event = "resource_checks_failed",
                    %error,
                    "failed to read the subscribed resources; will check them in the next round"
                );
                return None;
            }
        };
        let (cursor, summary) = self.state.quarantine_damaged(found).pop()?;
        let Ok(guard) = self.lock_node(&summary.node).await else {
            return Some((Vec::new(), cursor));
        };
        let subscribers = guard.node().into_iter().flat_map(Node::subscribers);
        let resources =
            subscribers.filter(|jid| !jid.is_bare() && !self.presence_tracker().is_available(jid));
        let resources =
            resources.filter(|jid| self.resources().needs_check(jid)).cloned().collect();
        Some((resources, cursor))
    }

    /// Processes the result of a check.
    pub async fn checked(&self, result: &CheckResult) {
        let presences = &self.state.presences;
        match result {
            CheckResult::Present(jid) if presences.confirm(jid) => {
                self.do_or_retry(PresenceTask::Arrive { jid: jid.clone(), gone_since: None }).await;
            }
            CheckResult::Present(_) => {}
            CheckResult::Absent(jid) => {
                presences.deny(jid);
                self.found_missing(jid).await;
            }
            CheckResult::Unknown(jid) => presences.leave_open(jid),
            CheckResult::Unreachable(jid) => presences.query_failed(jid),
        }
    }

    /// Handles a missing resource: ends its subscriptions after enough checks.
    async fn found_missing(&self, jid: &Jid) {
        let seconds = self.policies().limits().dead_resource_seconds;
        if seconds == 0 || !self.resources().found_missing(jid, (self.clock)(), seconds) {
            return;
        }
        // A failure is retried in the next round.
        let entity = jid.to_bare();
        let Ok(own) = self.store.subscriptions_of(&entity).await else { return };
        let own = self.state.quarantine_damaged(own).into_iter().filter(|(_, own)| own.jid == *jid);
        let nodes: HashSet<_> = own.map(|(node, _)| node).collect();
        let actor = Actor { jid: jid.clone(), ..self.timer_actor.clone() };
        let (mut subscriptions, mut failures) = (0, 0);
        for node in &nodes {
            let operation = UnsubscribeMissing { node, entity: &entity, jid };
            match self.execute(&actor, &operation).await {
                Ok(()) => subscriptions += 1,
                Err(Error::Busy { .. } | Error::Unknown(_)) => failures += 1,
                Err(Error::Refused(_) | Error::Quarantined) => {}
            }
        }
        if failures == 0 {
            self.resources().is_there(jid);
        }
        if subscriptions > 0 {
            info!(
                event = "dead_resource_unsubscribed",
                subscriptions, "removed the subscriptions of a dead resource"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn checks_wait_while_too_many_are_unanswered() {
        let resources = Resources::default();
        let resource = |number| Jid::new(&format!("{number}@x/r")).unwrap();
        let begin = |number| resources.begin(number, resource(number));
        let max = MAX_CHECKS as u64;
        for number in 0..max {
            assert!(begin(number).now_or_never().is_some());
        }
        let mut next = pin!(begin(max));
        assert!(next.as_mut().now_or_never().is_none());
        let result = resources.answered(0, &resource(0), true, PingAnswer::There);
        assert_eq!(result, Some(CheckResult::Present(resource(0))));
        assert!(next.now_or_never().is_some());
        // Unanswered checks end too.
        let mut next = pin!(begin(max + 1));
        assert!(next.as_mut().now_or_never().is_none());
        advance(ANSWER_TIMEOUT).await;
        assert!(next.now_or_never().is_some());
        let result = resources.answered(max + 1, &resource(max + 1), true, PingAnswer::There);
        assert_eq!(result, Some(CheckResult::Present(resource(max + 1))));
    }
}
