//! What follows from presence and capabilities, and is tried again where the store fails.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jid::{BareJid, Jid};
use tokio::{sync::Notify, time::sleep};
use tracing::{info, warn};

use gjallar_pubsub::{NodeId, Timestamp, op::presence_change::UnavailablePresence};

use crate::service::{Error, Service};

/// Tasks that wait for another attempt. Past it they are dropped: the next presence of the entity makes up for them.
const MAX_TASKS: usize = 10_000;
/// The time between two attempts.
pub(in crate::service) const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// One thing that follows from the presence of a resource, or from its capabilities.
#[derive(Clone, Debug)]
pub(in crate::service) enum PresenceTask {
    /// A resource has become available: the nodes are looked for of which it is sent something.
    Arrive { jid: Jid, gone_since: Option<Timestamp> },
    /// It is sent the last item of a node, or what it missed.
    CatchUp { node: NodeId, jid: Jid, gone_since: Option<Timestamp> },
    /// A resource is not available any more: the nodes are looked for at which something ends.
    Depart(UnavailablePresence),
    /// Temporary subscriptions at a node end, and items go.
    End { node: NodeId, went: UnavailablePresence },
    /// The items of a publisher that went offline go from a node.
    RetractOwn { node: NodeId, publisher: BareJid },
    /// A resource is sent the last item of a node that its capabilities name.
    SendLastItem { node: NodeId, jid: Jid },
}

/// The tasks that failed.
#[derive(Debug, Default)]
pub(in crate::service) struct Retries {
    tasks: Mutex<VecDeque<PresenceTask>>,
    came: Notify,
}

impl Retries {
    /// Adds a task that failed; whether there was room.
    fn add(&self, task: PresenceTask) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = tasks.len() < MAX_TASKS;
        if has_room {
            tasks.push_back(task);
        }
        drop(tasks);
        self.came.notify_one();
        has_room
    }

    async fn next(&self) -> PresenceTask {
        loop {
            let task = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(task) = task {
                return task;
            }
            self.came.notified().await;
        }
    }
}

impl Service {
    /// Does what follows from presence; later, if the store or the backlog does not let it now.
    pub(in crate::service) async fn do_or_retry(&self, task: PresenceTask) {
        if let Err(error) = self.follow_presence(&task).await {
            self.retry(task, &error);
        }
    }

    /// A task failed. Nodes that are not there, or closed, have nothing to do with it any more.
    pub(in crate::service) fn retry(&self, task: PresenceTask, error: &Error) {
        let may_succeed_later = matches!(error, Error::Busy { .. } | Error::Unknown(_));
        if may_succeed_later && !self.memory.retries.add(task) {
            self.metrics().count_rejection("presence_retries");
        }
    }

    /// Tries again what failed, as long as it is awaited.
    pub async fn retry_presence(&self) {
        let mut failures = 0_u64;
        loop {
            let task = self.memory.retries.next().await;
            match self.follow_presence(&task).await {
                Err(error @ (Error::Busy { .. } | Error::Unknown(_))) => {
                    if failures == 0 {
                        warn!(
                            event = "presence_update_failed",
                            %error,
                            "failed to process a presence change; will retry"
                        );
                    }
                    failures += 1;
                    self.retry(task, &error);
                    sleep(RETRY_INTERVAL).await;
                }
                Ok(()) if failures > 0 => {
                    info!(
                        event = "presence_updates_resumed",
                        failures, "presence changes are processed again"
                    );
                    failures = 0;
                }
                Ok(()) | Err(Error::Refused(_) | Error::Quarantined) => {}
            }
        }
    }

    async fn follow_presence(&self, task: &PresenceTask) -> Result<(), Error> {
        match task {
            PresenceTask::Arrive { jid, gone_since } => self.arrived(jid, *gone_since).await,
            PresenceTask::CatchUp { node, jid, gone_since } => {
                self.catch_up(node, jid, *gone_since).await.map(|_| ())
            }
            PresenceTask::Depart(went) => self.departed(went).await,
            PresenceTask::End { node, went } => self.end_subscriptions_at(node, went).await,
            PresenceTask::RetractOwn { node, publisher } => self.retract_own(node, publisher).await,
            PresenceTask::SendLastItem { node, jid } => self.send_last_item(node, jid).await,
        }
    }
}
