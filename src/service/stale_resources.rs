//! Subscriptions of full JIDs whose resource is gone: such resources are looked for, and their subscriptions end.
//!
//! Servers drop headlines to a resource that is not there without a word. So each resource with a subscription is pinged
//! a few times in [`Limits::dead_resource_seconds`](crate::Limits), and beside it one of the same entity that
//! cannot be there. Where both answers are the same error, the server gave them, and not the resource. Some servers answer
//! strangers as if nobody was there: nobody is taken for gone at a domain of which no resource ever answered.
//!
//! After a reconnection the same check shows whether resources are available that sent their presence without sharing
//! it.

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
use tracing::info;

use crate::store::NodeNumber;
use gjallar_pubsub::{
    Actor, Context, Node, PageBound, PageRequest, Timestamp, op::unsubscribe_undeliverable,
};

use super::{
    Error, Service,
    prefetch::{PrefetchRequest, Prefetched},
    workers::presence_retries::PresenceTask,
};

/// Resources that were found gone, and those that were checked in a round. More are not looked at.
const MAX_RESOURCES: usize = 100_000;
/// Maximum number of unanswered checks, and the timeout of each; further checks wait. After a reconnection events wait ten seconds for
/// answers, in which at most 5 000 checks begin.
const MAX_CHECKS: usize = 5000;
/// Domains of which it is known that pings reach their resources.
const MAX_DOMAINS: usize = 10_000;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Rounds in the time after which a resource counts as dead, and how often it has to be found gone.
const ROUNDS: u64 = 4;
const MIN_CHECKS: u32 = 3;
/// When the first round begins, at the latest, after the service has begun.
const FIRST_ROUND: Duration = Duration::from_secs(600);

/// The resources that are checked.
#[derive(Debug, Default)]
pub struct Resources {
    table: Mutex<ResourceTable>,
    /// Wakes those that wait for the end of a check.
    ended: Notify,
}

#[derive(Debug, Default)]
struct ResourceTable {
    gone: HashMap<Jid, Gone>,
    checks: HashMap<u64, Check>,
    /// Those that were checked in this round.
    checked: HashSet<Jid>,
    /// The domains of which a resource has answered.
    reached: HashSet<String>,
}

/// A resource that was found gone each time since.
#[derive(Clone, Copy, Debug)]
struct Gone {
    since: Timestamp,
    checks: u32,
}

#[derive(Debug)]
struct Check {
    resource: Jid,
    asked_at: Instant,
    /// The answer that has come: whether it is that of the resource, and what is in it.
    first: Option<(bool, String)>,
}

/// The answer to a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PingAnswer {
    /// It comes from a resource that is there.
    There,
    /// An error that does not say whether it is.
    Other,
    /// An error of a server that is unreachable or busy.
    Unreachable,
    /// An error that a server gives where a resource is not there, with all that is in it.
    NotThere(String),
}

/// The result of a check of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The resource answered.
    Present(Jid),
    /// Its server answered as for a resource that does not exist.
    Absent(Jid),
    /// The answers do not show whether the resource exists.
    Unknown(Jid),
    /// The server could not be reached.
    Unreachable(Jid),
}

impl Resources {
    /// Waits until few enough checks are unanswered. Then a check begins, with a number that no other has.
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

    /// Processes an answer to a check: of the resource itself, or of the absent one. Returns the result of the check
    /// when it is known.
    #[must_use]
    pub fn answered(
        &self,
        number: u64,
        from: &Jid,
        of_it: bool,
        answer: PingAnswer,
    ) -> Option<CheckResult> {
        let mut table = self.table();
        let check = table.checks.get_mut(&number)?;
        if check.resource.to_bare() != from.to_bare() || (check.resource == *from) != of_it {
            return None;
        }
        let content = match answer {
            PingAnswer::NotThere(content) => content,
            answer => {
                let resource = self.end(&mut table, number)?;
                return Some(match answer {
                    PingAnswer::There if of_it => {
                        table.found(&resource);
                        CheckResult::Present(resource)
                    }
                    PingAnswer::Unreachable => CheckResult::Unreachable(resource),
                    _ => CheckResult::Unknown(resource),
                });
            }
        };
        match check.first.take() {
            Some((first_of_it, first)) if first_of_it != of_it => {
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
                check.first = Some((of_it, content));
                None
            }
        }
    }

    /// Removes a check, which has a result. Returns its resource.
    fn end(&self, table: &mut ResourceTable, number: u64) -> Option<Jid> {
        self.ended.notify_waiters();
        Some(table.checks.remove(&number)?.resource)
    }

    /// A resource has sent something.
    pub fn is_there(&self, jid: &Jid) {
        let mut table = self.table();
        if !table.gone.is_empty() {
            table.gone.remove(jid);
        }
    }

    /// A resource was found gone. Whether that was so all the time, for so long and so often that it is dead.
    fn found_gone(&self, jid: &Jid, now: Timestamp, seconds: u64) -> bool {
        let mut table = self.table();
        if table.gone.len() >= MAX_RESOURCES && !table.gone.contains_key(jid) {
            return false;
        }
        let gone = table.gone.entry(jid.clone()).or_insert(Gone { since: now, checks: 0 });
        gone.checks = gone.checks.saturating_add(1);
        gone.checks >= MIN_CHECKS && now >= gone.since.later_by(seconds.saturating_mul(1000))
    }

    /// Returns `true` if a resource has to be checked in this round, which is said once.
    fn takes_turn(&self, jid: &Jid) -> bool {
        let mut table = self.table();
        table.checked.len() < MAX_RESOURCES && table.checked.insert(jid.clone())
    }

    fn table(&self) -> MutexGuard<'_, ResourceTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResourceTable {
    /// A resource has answered a ping.
    fn found(&mut self, resource: &Jid) {
        self.gone.remove(resource);
        if self.reached.len() < MAX_DOMAINS {
            self.reached.insert(resource.domain().as_str().to_owned());
        }
    }
}

impl Service {
    /// The resources that are checked.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.memory.resources
    }

    /// How long it is until the next round of checks; nothing if there are none.
    #[must_use]
    pub fn next_round(&self, is_first: bool) -> Option<Duration> {
        let seconds = self.policies().limits().dead_resource_seconds;
        let interval = Duration::from_millis(seconds.saturating_mul(1000) / ROUNDS);
        (seconds > 0).then_some(if is_first { interval.min(FIRST_ROUND) } else { interval })
    }

    /// The resources to check of the node that comes next, and where to go on; nothing after the last one.
    pub async fn resources_of_next(
        &self,
        after: Option<NodeNumber>,
    ) -> Option<(Vec<Jid>, NodeNumber)> {
        if after.is_none() {
            self.resources().table().checked.clear();
        }
        let edge = after.map_or(PageBound::At(0), PageBound::After);
        // What cannot be read now is read in the next round.
        let found = self.store.nodes(&PageRequest { max: 1, edge }).await.ok()?;
        let (cursor, summary) = self.memory.quarantine_damaged(found).pop()?;
        let Ok(turn) = self.lock_node(&summary.node).await else {
            return Some((Vec::new(), cursor));
        };
        let subscribers = turn.node().into_iter().flat_map(Node::subscribers);
        let resources =
            subscribers.filter(|jid| !jid.is_bare() && !self.presence_tracker().is_available(jid));
        let resources = resources.filter(|jid| self.resources().takes_turn(jid)).cloned().collect();
        Some((resources, cursor))
    }

    /// Processes the result of a check.
    pub async fn checked(&self, result: &CheckResult) {
        let presences = &self.memory.presences;
        match result {
            CheckResult::Present(jid) if presences.confirm(jid) => {
                self.do_or_retry(PresenceTask::Arrive { jid: jid.clone(), gone_since: None }).await;
            }
            CheckResult::Present(_) => {}
            CheckResult::Absent(jid) => {
                presences.deny(jid);
                self.found_gone(jid).await;
            }
            CheckResult::Unknown(jid) => presences.leave_open(jid),
            CheckResult::Unreachable(jid) => presences.query_failed(jid),
        }
    }

    /// A resource was found gone: its subscriptions end if that was so often enough.
    async fn found_gone(&self, jid: &Jid) {
        let seconds = self.policies().limits().dead_resource_seconds;
        if seconds == 0 || !self.resources().found_gone(jid, (self.clock)(), seconds) {
            return;
        }
        // Where that fails it is tried again in the next round.
        let entity = jid.to_bare();
        let Ok(own) = self.store.subscriptions_of(&entity).await else { return };
        let own =
            self.memory.quarantine_damaged(own).into_iter().filter(|(_, own)| own.jid == *jid);
        let nodes: HashSet<_> = own.map(|(node, _)| node).collect();
        let actor = Actor { jid: jid.clone(), ..self.timer_actor.clone() };
        let (mut subscriptions, mut failures) = (0, 0);
        for node in &nodes {
            let rule = |node: Option<&Node>, facts: &Prefetched, cx: &Context<'_>| {
                match facts.enrolled.contains(jid) {
                    // The end of such a subscription would show an owner that the resource is absent.
                    true => Err(gjallar_pubsub::Error::NotSubscribed),
                    false => unsubscribe_undeliverable::gone(node, jid, cx),
                }
            };
            let need = PrefetchRequest::EnrolledOf(&entity);
            let outcome = self.execute(&actor, node, need, rule, |outcome| outcome);
            match outcome.await.await {
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
        // Those that are not answered end as well.
        let mut next = pin!(begin(max + 1));
        assert!(next.as_mut().now_or_never().is_none());
        advance(ANSWER_TIMEOUT).await;
        assert!(next.now_or_never().is_some());
        let result = resources.answered(max + 1, &resource(max + 1), true, PingAnswer::There);
        assert_eq!(result, Some(CheckResult::Present(resource(max + 1))));
    }
}
