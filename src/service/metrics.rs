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
        metrics.registry.register("limit_reached", "Requests past a limit", metrics.limits.clone());
        for (name, help, counter) in metrics.counters() {
            metrics.registry.register(name, help, counter);
        }
        for (name, help, gauge) in metrics.gauges() {
            metrics.registry.register(name, help, gauge);
        }
        metrics
    }
}

impl Metrics {
    fn counters(&self) -> [(&'static str, &'static str, Counter); 4] {
        [
            ("notifications", "Notifications that the server has", self.notifications.clone()),
            ("bounces", "Notifications that came back as errors", self.bounces.clone()),
            ("items_evicted", "Items past a node's limits", self.evictions.clone()),
            ("nodes_closed", "Nodes closed for a damaged record", self.closed_nodes.clone()),
        ]
    }

    fn gauges(&self) -> [(&'static str, &'static str, Gauge); 5] {
        let backlog = "Events that the server does not have yet";
        [
            ("connected", "Whether there is a connection to the server", self.connected.clone()),
            ("nodes", "Nodes in the service", self.nodes.clone()),
            ("backlog_events", backlog, self.backlog_events.clone()),
            ("backlog_bytes", "About how many bytes they take", self.backlog_bytes.clone()),
            ("tasks", "Tasks of the runtime", self.tasks.clone()),
        ]
    }

    /// A request was refused at a limit of this name.
    pub fn limit_reached(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    fn measure(&self, measured: Measured) {
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.nodes.set(i64::try_from(measured.nodes).unwrap_or(i64::MAX));
        self.backlog_events.set(number(measured.backlog_events));
        self.backlog_bytes.set(number(measured.backlog_bytes));
        self.tasks.set(number(measured.tasks));
    }

    /// Everything, as OpenMetrics text.
    fn text(&self) -> String {
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
        self.measured().text()
    }

    /// What is counted: names, what they mean, and numbers.
    #[must_use]
    pub fn figures(&self) -> Vec<(&'static str, &'static str, u64)> {
        let metrics = self.measured();
        let gauges = metrics.gauges().into_iter();
        let gauges = gauges.map(|(name, help, gauge)| (name, help, gauge.get().unsigned_abs()));
        let counters = metrics.counters().into_iter();
        gauges.chain(counters.map(|(name, help, counter)| (name, help, counter.get()))).collect()
    }

    fn measured(&self) -> &Metrics {
        let (backlog_events, backlog_bytes) = self.memory.outbox.size();
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let nodes = self.memory.census.total();
        let metrics = &self.memory.metrics;
        metrics.measure(Measured { nodes, backlog_events, backlog_bytes, tasks });
        metrics
    }
}
