//! What is counted for operators, shown by `gjallar stats` as OpenMetrics text.

use std::fmt::{self, Debug};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Service;

/// The counters and gauges of one service. `docs/OPERATING.md` explains each.
pub struct Metrics {
    registry: Registry,
    limits: Family<[(&'static str, &'static str); 1], Counter>,
    /// Notifications that the server has, as its barriers say.
    pub notifications: Counter,
    /// Notifications that came back as errors.
    pub bounces: Counter,
    /// Items that went because a node kept too many, or too many bytes.
    pub evictions: Counter,
    /// Nodes that were closed because a record was found damaged.
    pub closed_nodes: Counter,
    /// Whether there is a connection to the server: 1 or 0.
    pub connected: Gauge,
    nodes: Gauge,
    backlog_events: Gauge,
    backlog_bytes: Gauge,
    tasks: Gauge,
}

/// What the gauges show at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub(super) nodes: u64,
    pub(super) backlog_events: usize,
    pub(super) backlog_bytes: usize,
    pub(super) tasks: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("gjallar"),
            limits: Family::default(),
            notifications: Counter::default(),
            bounces: Counter::default(),
            evictions: Counter::default(),
            closed_nodes: Counter::default(),
            connected: Gauge::default(),
            nodes: Gauge::default(),
            backlog_events: Gauge::default(),
            backlog_bytes: Gauge::default(),
            tasks: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("limit_reached", "Requests past a limit", metrics.limits.clone());
        for (name, help, counter) in [
            ("notifications", "Notifications that the server has", &metrics.notifications),
            ("bounces", "Notifications that came back as errors", &metrics.bounces),
            ("items_evicted", "Items past a node's limits", &metrics.evictions),
            ("nodes_closed", "Nodes closed for a damaged record", &metrics.closed_nodes),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            ("connected", "Whether there is a connection to the server", &metrics.connected),
            ("nodes", "Nodes in the service", &metrics.nodes),
            ("backlog_events", "Events that the server does not have yet", &metrics.backlog_events),
            ("backlog_bytes", "About how many bytes they take", &metrics.backlog_bytes),
            ("tasks", "Tasks of the runtime", &metrics.tasks),
        ] {
            registry.register(name, help, gauge.clone());
        }
        metrics
    }
}

impl Metrics {
    /// A request was refused at a limit of this name.
    pub fn limit_reached(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// Everything, as OpenMetrics text.
    pub(super) fn text(&self, measured: Measured) -> String {
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.nodes.set(i64::try_from(measured.nodes).unwrap_or(i64::MAX));
        self.backlog_events.set(number(measured.backlog_events));
        self.backlog_bytes.set(number(measured.backlog_bytes));
        self.tasks.set(number(measured.tasks));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Service {
    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.memory.metrics
    }

    /// What is counted, as OpenMetrics text.
    #[must_use]
    pub fn stats(&self) -> String {
        let (backlog_events, backlog_bytes) = self.memory.outbox.size();
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let nodes = self.memory.census.total();
        self.memory.metrics.text(Measured { nodes, backlog_events, backlog_bytes, tasks })
    }
}
