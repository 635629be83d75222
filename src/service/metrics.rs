//! Metrics of the service, shown by `gjallar stats` as OpenMetrics text.

use std::{
    fmt::{self, Debug},
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{Service, presence::tracker::Withheld};

/// Counters and gauges of one service, described in `docs/OPERATING.md`.
pub struct Metrics {
    registry: Registry,
    limits: Family<[(&'static str, &'static str); 1], Counter>,
    requests: Family<[(&'static str, &'static str); 2], Counter>,
    /// Notifications withheld because of the presence of their recipients.
    pub(super) withheld: Withheld,
    commits: Histogram,
    syncs: Histogram,
    /// Notifications that the server has acknowledged, as the return of a barrier shows.
    pub notifications: Counter,
    /// Notifications returned as errors.
    pub bounces: Counter,
    /// Nodes read from the store because they were not cached.
    pub(super) node_cache_misses: Counter,
    /// Items evicted because their node exceeded a limit.
    pub evictions: Counter,
    /// Replies truncated for requesters that did not request pages.
    pub(super) truncations: Counter,
    /// Nodes quarantined because of a corrupt record.
    pub quarantined_nodes: Counter,
    backlog_miscounts: Counter,
    /// 1 while the service is connected to the server, otherwise 0.
    pub connected: Gauge,
    link_unconfirmed: Gauge,
    nodes: Gauge,
    backlog_entries: Gauge,
    backlog_bytes: Gauge,
    backlog_notifications: Gauge,
    backlog_age_seconds: Gauge,
    cached_nodes: Gauge,
    rosters: Gauge,
    available: Gauge,
    interested: Gauge,
    memory: Gauge,
    tasks: Gauge,
}

/// Values of the gauges at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GaugeValues {
    pub(super) is_unconfirmed: bool,
    pub(super) nodes: u64,
    pub(super) backlog_entries: usize,
    pub(super) backlog_bytes: usize,
    pub(super) backlog_notifications: usize,
    pub(super) backlog_age_seconds: u64,
    pub(super) cached_nodes: usize,
    pub(super) rosters: usize,
    pub(super) available: usize,
    pub(super) interested: usize,
    pub(super) memory: u64,
    pub(super) tasks: usize,
}

impl Metrics {
    /// Creates the metrics. `backlog_miscounts` counts the errors found in the accounting of the log window's load.
    pub(super) fn new(backlog_miscounts: Counter) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            limits: Family::default(),
            requests: Family::default(),
            withheld: Family::default(),
            commits: latencies(),
            syncs: latencies(),
            notifications: Counter::default(),
            bounces: Counter::default(),
            node_cache_misses: Counter::default(),
            evictions: Counter::default(),
            truncations: Counter::default(),
            quarantined_nodes: Counter::default(),
            backlog_miscounts,
            connected: Gauge::default(),
            link_unconfirmed: Gauge::default(),
            nodes: Gauge::default(),
            backlog_entries: Gauge::default(),
            backlog_bytes: Gauge::default(),
            backlog_notifications: Gauge::default(),
            backlog_age_seconds: Gauge::default(),
            cached_nodes: Gauge::default(),
            rosters: Gauge::default(),
            available: Gauge::default(),
            interested: Gauge::default(),
            memory: Gauge::default(),
            tasks: Gauge::default(),
        };
        metrics.registry.register(
            "gjallar_limit_rejections",
            "Requests rejected at a limit",
            metrics.limits.clone(),
        );
        let registry = &mut metrics.registry;
        registry.register(
            "gjallar_requests",
            "Requests by operation and result",
            metrics.requests.clone(),
        );
        let help = "Notifications not sent because of the presence of their recipients";
        registry.register("gjallar_notifications_withheld", help, metrics.withheld.clone());
        for (name, help, histogram) in [
            ("commit_duration", "Time from a decision until it is durable", &metrics.commits),
            ("store_sync_duration", "Duration of a sync of the store", &metrics.syncs),
        ] {
            registry.register_with_unit(registered(name), help, Unit::Seconds, histogram.clone());
        }
        for (name, help, counter) in metrics.counters() {
            metrics.registry.register(registered(name), help, counter);
        }
        for (name, help, gauge) in metrics.gauges() {
            metrics.registry.register(registered(name), help, gauge);
        }
        metrics
    }

    fn counters(&self) -> [(&'static str, &'static str, Counter); 7] {
        [
            (
                "notifications_acknowledged",
                "Notifications acknowledged by the server",
                self.notifications.clone(),
            ),
            ("notification_bounces", "Notifications returned as errors", self.bounces.clone()),
            ("node_cache_misses", "Nodes read from the store", self.node_cache_misses.clone()),
            (
                "items_evicted",
                "Items evicted past the limits of their node",
                self.evictions.clone(),
            ),
            (
                "replies_truncated",
                "Replies truncated for requesters that did not request pages",
                self.truncations.clone(),
            ),
            (
                "nodes_quarantined",
                "Nodes quarantined for a corrupt record",
                self.quarantined_nodes.clone(),
            ),
            (
                "log_backlog_miscounts",
                "Defects in the accounting of the backlog",
                self.backlog_miscounts.clone(),
            ),
        ]
    }

    fn gauges(&self) -> [(&'static str, &'static str, Gauge); 13] {
        let backlog = "Log entries that the server has not acknowledged";
        [
            ("link_up", "1 while the service is connected to the server", self.connected.clone()),
            (
                "link_unconfirmed",
                "1 while the server acknowledges nothing",
                self.link_unconfirmed.clone(),
            ),
            ("nodes", "Nodes of the service", self.nodes.clone()),
            ("log_backlog_entries", backlog, self.backlog_entries.clone()),
            ("log_backlog_bytes", "Approximate memory of the backlog", self.backlog_bytes.clone()),
            (
                "log_backlog_notifications",
                "Notifications of the backlog",
                self.backlog_notifications.clone(),
            ),
            (
                "log_backlog_age_seconds",
                "Age of the oldest entry of the backlog",
                self.backlog_age_seconds.clone(),
            ),
            ("cached_nodes", "Nodes in memory", self.cached_nodes.clone()),
            ("cached_rosters", "Rosters in memory", self.rosters.clone()),
            ("available_entities", "Entities known to be available", self.available.clone()),
            ("caps_resources", "Resources with known capabilities", self.interested.clone()),
            (
                "process_resident_memory_bytes",
                "Resident memory of the process",
                self.memory.clone(),
            ),
            ("runtime_tasks", "Tasks of the runtime", self.tasks.clone()),
        ]
    }

    /// Counts a request that was rejected at this limit.
    pub fn count_rejection(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// Counts a request by its result: `granted`, or the condition of its error.
    pub fn count_request(&self, operation: &'static str, result: &'static str) {
        self.requests.get_or_create(&[("operation", operation), ("result", result)]).inc();
    }

    /// Observes the duration of a commit and, for the first commit of each sync to disk, the duration of the sync.
    pub(super) fn committed(&self, took: Duration, sync: Option<Duration>) {
        self.commits.observe(took.as_secs_f64());
        sync.into_iter().for_each(|sync| self.syncs.observe(sync.as_secs_f64()));
    }

    fn measure(&self, measured: GaugeValues) {
        let long = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.link_unconfirmed.set(i64::from(measured.is_unconfirmed));
        self.nodes.set(long(measured.nodes));
        self.backlog_age_seconds.set(long(measured.backlog_age_seconds));
        self.cached_nodes.set(number(measured.cached_nodes));
        self.rosters.set(number(measured.rosters));
        self.available.set(number(measured.available));
        self.interested.set(number(measured.interested));
        self.memory.set(long(measured.memory));
        self.backlog_entries.set(number(measured.backlog_entries));
        self.backlog_bytes.set(number(measured.backlog_bytes));
        self.backlog_notifications.set(number(measured.backlog_notifications));
        self.tasks.set(number(measured.tasks));
    }

    /// Returns all metrics as OpenMetrics text, with the gauges as last measured.
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
    /// Returns the metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.state.metrics
    }

    /// Returns all metrics as OpenMetrics text, with current gauges.
    #[must_use]
    pub fn stats(&self) -> String {
        self.measured().text()
    }

    /// Returns names, help texts and values of gauges and counters.
    #[must_use]
    pub fn values(&self) -> Vec<(&'static str, &'static str, u64)> {
        let metrics = self.measured();
        let gauges = metrics.gauges().into_iter();
        let gauges = gauges.map(|(name, help, gauge)| (name, help, gauge.get().unsigned_abs()));
        let counters = metrics.counters().into_iter();
        gauges.chain(counters.map(|(name, help, counter)| (name, help, counter.get()))).collect()
    }

    fn measured(&self) -> &Metrics {
        let (backlog_entries, backlog_bytes) = self.state.log_window.size();
        let (oldest, now) = (self.state.log_window.oldest(), (self.clock)().0);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let nodes = self.node_count();
        let metrics = &self.state.metrics;
        metrics.measure(GaugeValues {
            is_unconfirmed: !self.state.log_window.is_confirmed(),
            nodes,
            backlog_entries,
            backlog_bytes,
            backlog_notifications: self.state.log_window.notifications(),
            backlog_age_seconds: oldest.map_or(0, |at| now.saturating_sub(at) / 1000),
            cached_nodes: self.state.nodes.len(),
            rosters: self.state.rosters.len(),
            available: self.state.presences.len(),
            interested: self.state.interests.len(),
            memory: resident_bytes(),
            tasks,
        });
        metrics
    }
}

/// Returns the registered name of a metric; process metrics have standard names without the prefix `gjallar_`.
fn registered(name: &str) -> String {
    if name.starts_with("process_") { name.to_owned() } else { format!("gjallar_{name}") }
}

/// Returns a histogram with buckets from 0.1 ms to 3.3 s.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 16))
}

/// Returns the resident memory of the process in bytes; 0 if unknown.
fn resident_bytes() -> u64 {
    resident_bytes_of(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// Returns the resident memory in bytes from the text of `/proc/PID/status`, which states KiB, not memory pages.
fn resident_bytes_of(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_does_not_depend_on_the_page_size() {
        let status = "Name:\tgjallar\nVmHWM:\t  90000 kB\nVmRSS:\t   65536 kB\nThreads:\t9\n";
        assert_eq!(resident_bytes_of(status), 64 * 1024 * 1024);
        assert_eq!(resident_bytes_of("Name:\tgjallar\n"), 0);
        assert!(resident_bytes() > 0);
    }
}
