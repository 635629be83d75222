//! The publish-subscribe service. [`Service::execute`] and [`Service::submit`] run the operations, and are the only path
//! by which state changes: decision, commit, reply, notifications. Changes are visible once they are durable, in commit
//! order.

mod admin_queries;
pub mod admission;
mod aliases;
mod audit;
mod bounce_tracker;
mod bulk_retract;
mod caps;
mod domain_quota;
mod entity_lookup;
mod error;
mod event_log;
mod execute;
mod former_administrators;
mod implicit;
mod mam;
mod metrics;
mod name_pattern;
mod node_cache;
mod node_counts;
mod pending_commits;
mod personal_data;
mod policy_table;
mod prefetch;
mod presence;
mod queries;
mod rosters;
mod service_state;
mod shares;
mod stale_resources;
mod submit_handle;
mod timer_backoff;
mod timer_queue;
mod truncated_replies;
mod workers;

pub use admin_queries::{ManagedNodes, Memberships};
pub use admission::request_permit::{RequestPermit, with_permit};
pub use audit::{AuditChange, AuditRecord, Auditor};
pub use bounce_tracker::Bounce;
pub use caps::{CapsInterests, MAX_INTERESTS};
pub use error::{Error, Outcome};
pub use event_log::revocations::Revocations;
pub use event_log::window::{Cursor, LogWindow, WindowEntry};
pub use mam::ArchivePage;
pub use metrics::Metrics;
pub use name_pattern::NamePattern;
pub use personal_data::{ErasureReport, OwnItem, PageToken};
pub use policy_table::{PolicyTable, RelayLimit};
pub use presence::tracker::{Availability, PresenceRequest, PresenceTracker, PresenceUpdate};
pub use rosters::cache::RosterCache;
pub use shares::Load;
pub use stale_resources::{CheckResult, PingAnswer, Resources};
pub use submit_handle::SubmitHandle;
pub use workers::task_set::TaskSet;

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, RwLock},
};

use jid::Jid;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::store::{MAX_PENDING_COMMITS, Store, StoreError};
use gjallar_pubsub::{Actor, IdGenerator, Limits, Policy, Timestamp};

use self::{
    aliases::Aliases, bounce_tracker::BounceTracker, node_cache::NodeCache,
    node_counts::NodeCounts, service_state::ServiceState, timer_backoff::Delays,
    timer_queue::TimerQueue, truncated_replies::TruncationLog, workers::presence_retries::Retries,
};

/// Maximum number of cached nodes, apart from nodes in use.
const MAX_CACHED_NODES: usize = 100_000;

/// JID of the actor of timer-driven operations.
const TIMER_ACTOR: &str = "nobody.invalid";

/// Source of the current time.
pub type Clock = dyn Fn() -> Timestamp + Send + Sync;

/// Publish-subscribe service: nodes in a store, and the window of the event log.
pub struct Service {
    store: Arc<dyn Store>,
    state: Arc<ServiceState>,
    /// Permits for pending commits; further decisions wait for a permit.
    commit_permits: Arc<Semaphore>,
    policies: RwLock<Arc<PolicyTable>>,
    auditor: Arc<Auditor>,
    ids: Arc<dyn IdGenerator>,
    clock: Arc<Clock>,
    timer_actor: Actor,
}

impl Service {
    /// Opens the service on a store, with the default policy for all nodes and without administrators until
    /// [`set_policies`](Self::set_policies) is called.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn open(
        store: Arc<dyn Store>,
        limits: Limits,
        ids: Arc<dyn IdGenerator>,
        clock: Arc<Clock>,
    ) -> Result<Self, StoreError> {
        let node_counts = NodeCounts::new(store.node_counts().await?);
        let log_window = Arc::new(LogWindow::new(Load::max(&limits), store.key()));
        let metrics = Metrics::new(log_window.miscounts());
        let nodes = NodeCache::new(MAX_CACHED_NODES, metrics.node_cache_misses.clone());
        log_window.restore(store.poll(None).await?, &HashSet::new());
        let deadlines = TimerQueue::default();
        let presences = Arc::new(PresenceTracker::counting(metrics.withheld.clone()));
        presences.load_refusals(store.presence_refusals().await?);
        for node in store.nodes_with_timers().await? {
            deadlines.add(&node, Timestamp(0));
            presences.begin_at(&node);
        }
        for node in log_window.await_rosters() {
            deadlines.add(&node, Timestamp(0));
        }
        for recipients in log_window.recipients_by_presence() {
            presences.expect_all(recipients.iter().map(Jid::to_bare));
        }
        let aliases = Aliases::default();
        store.subscribed_aliases().await?.into_iter().for_each(|address| aliases.add(address));
        let (bounces, rosters) = (BounceTracker::default(), RosterCache::default());
        let interests = CapsInterests::default();
        let state = ServiceState {
            nodes,
            log_window,
            aliases,
            bounces,
            node_counts,
            deadlines,
            delays: Delays::default(),
            presences,
            rosters,
            interests,
            retries: Retries::default(),
            resources: Resources::default(),
            metrics,
            truncations: TruncationLog::default(),
        };
        let timer_actor =
            Jid::new(TIMER_ACTOR).map_err(|_| StoreError::Failed(TIMER_ACTOR.into()))?;
        let timer_actor = Actor { jid: timer_actor, is_administrator: true };
        let commit_permits = Arc::new(Semaphore::new(MAX_PENDING_COMMITS));
        let default_policy = Policy { limits, ..Policy::default() };
        let policies =
            RwLock::new(Arc::new(PolicyTable::new(Vec::new(), Vec::new(), default_policy)));
        let state = Arc::new(state);
        let auditor: Arc<Auditor> = Arc::new(|_: &AuditRecord| ());
        Ok(Self { store, state, commit_permits, policies, auditor, ids, clock, timer_actor })
    }

    /// Sets the auditor, which receives the changes made by owners and administrators.
    #[must_use]
    pub fn with_auditor(self, auditor: Arc<Auditor>) -> Self {
        Self { auditor, ..self }
    }

    /// Returns the window of the event log.
    #[must_use]
    pub fn log_window(&self) -> &Arc<LogWindow> {
        &self.state.log_window
    }

    /// Returns the number of nodes.
    #[must_use]
    pub fn node_count(&self) -> u64 {
        self.state.node_counts.total()
    }

    /// Returns the presence tracker.
    #[must_use]
    pub fn presence_tracker(&self) -> &Arc<PresenceTracker> {
        &self.state.presences
    }

    /// Copies the store, as of a point between two commits, into an existing folder.
    ///
    /// # Errors
    /// If the store has no files, or they cannot be copied.
    pub async fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError> {
        self.store.snapshot_to(folder).await
    }

    /// Returns a number that no other call returned, for identifiers on the wire.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        self.ids.next_u64()
    }

    /// Trims the event log, saves pending refusals of presence and closes the store. Later requests fail.
    pub async fn close(&self) {
        while self.state.log_window.acknowledged().is_some() {
            if let Err(error) = self.trim_once().await {
                warn!(
                    event = "log_not_trimmed_at_stop",
                    %error,
                    "failed to trim the event log; will repeat notifications"
                );
                break;
            }
        }
        // The presence of entities with an unsaved refusal is requested once more after the next start.
        while !self.state.presences.unwritten_refusals().is_empty()
            && self.write_refusals().await.is_ok()
        {}
        self.store.close().await;
    }
}
