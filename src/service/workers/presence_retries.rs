//! Worker that retries failed tasks that follow from a change of presence or capabilities.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use jid::{BareJid, Jid};
use tokio::{sync::Notify, time::sleep};
use tracing::{info, warn};

use gjallar_pubsub::{NodeId, Timestamp, op::presence_change::UnavailablePresence};

use crate::service::{Error, Service};

use super::{RETRY_INTERVAL, failure_streak::FailureStreak};

/// Maximum number of tasks that wait for a retry. Further tasks are dropped. The next presence of the entity makes up
/// for a dropped task.
const MAX_TASKS: usize = 10_000;

/// Task that follows from a change of the presence or the capabilities of a resource.
#[derive(Clone, Debug)]
pub(in crate::service) enum PresenceTask {
    /// Finds the nodes to which a resource that came online is subscribed, and does `CatchUp` for each.
    Arrive { jid: Jid, gone_since: Option<Timestamp> },
    /// Sends a resource the last item of a node. If `gone_since` is given, sends the events of the node since this time
    /// instead.
    CatchUp { node: NodeId, jid: Jid, gone_since: Option<Timestamp> },
    /// Finds the nodes at which the departure of an entity has an effect, and does `End` for each, and `RetractOwn`
    /// where needed.
    Depart(UnavailablePresence),
    /// Ends temporary subscriptions at a node, and removes items that depend on the presence.
    End { node: NodeId, departure: UnavailablePresence },
    /// Retracts the items that a publisher has at a node, because the publisher went offline.
    RetractOwn { node: NodeId, publisher: BareJid },
    /// Sends the last item of a node to a resource whose capabilities contain `+notify` for the node.
    SendLastItem { node: NodeId, jid: Jid },
}

/// Queue of failed tasks.
#[derive(Debug, Default)]
pub(in crate::service) struct Retries {
    tasks: Mutex<VecDeque<PresenceTask>>,
    added: Notify,
}

impl Retries {
    /// Adds a failed task. Returns `false` if the queue is full.
    fn add(&self, task: PresenceTask) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = tasks.len() < MAX_TASKS;
        if has_room {
            tasks.push_back(task);
        }
        drop(tasks);
        self.added.notify_one();
        has_room
    }

    async fn next(&self) -> PresenceTask {
        loop {
            let task = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(task) = task {
                return task;
            }
            self.added.notified().await;
        }
    }
}

impl Service {
    /// Runs a task; queues it for a retry if the store fails or the backlog is full.
    pub(in crate::service) async fn do_or_retry(&self, task: PresenceTask) {
        if let Err(error) = self.follow_presence(&task).await {
            self.retry(task, &error);
        }
    }

    /// Queues a failed task for a retry. Tasks of missing or quarantined nodes are dropped.
    pub(in crate::service) fn retry(&self, task: PresenceTask, error: &Error) {
        let may_succeed_later = matches!(error, Error::Busy { .. } | Error::Unknown(_));
        if may_succeed_later && !self.state.retries.add(task) {
            self.metrics().count_rejection("presence_retries");
        }
    }

    /// Retries failed tasks until the future is dropped.
    pub async fn retry_presence(&self) {
        let mut streak = FailureStreak::default();
        loop {
            let task = self.state.retries.next().await;
            match self.follow_presence(&task).await {
                Err(error @ (Error::Busy { .. } | Error::Unknown(_))) => {
                    if streak.count() {
                        warn!(
                            event = "presence_update_failed",
                            %error,
                            "failed to process a presence change; will retry"
                        );
                    }
                    self.retry(task, &error);
                    // The backlog may have room again at any time.
                    match error {
                        Error::Busy { .. } => sleep(RETRY_INTERVAL).await,
                        _ => streak.pause().await,
                    }
                }
                Ok(()) => {
                    let failures = streak.end();
                    if failures > 0 {
                        info!(
                            event = "presence_updates_resumed",
                            failures, "processing of presence changes has resumed"
                        );
                    }
                }
                Err(Error::Refused(_) | Error::Quarantined) => {}
            }
        }
    }

    async fn follow_presence(&self, task: &PresenceTask) -> Result<(), Error> {
        match task {
            PresenceTask::Arrive { jid, gone_since } => self.arrived(jid, *gone_since).await,
            PresenceTask::CatchUp { node, jid, gone_since } => {
                self.catch_up(node, jid, *gone_since).await.map(|_| ())
            }
            PresenceTask::Depart(departure) => self.departed(departure).await,
            PresenceTask::End { node, departure } => {
                self.end_subscriptions_at(node, departure).await
            }
            PresenceTask::RetractOwn { node, publisher } => self.retract_own(node, publisher).await,
            PresenceTask::SendLastItem { node, jid } => self.send_last_item(node, jid).await,
        }
    }
}
