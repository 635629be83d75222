//! How much of each thing the service takes. Reaching a limit is a refusal, never a failure.

/// The service's limits. The defaults are those of `config/gjallar.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes in the service; one more is `max-nodes-exceeded`.
    pub max_nodes: u64,
    /// Nodes that one entity created and that are there; one more is `max-nodes-exceeded`. Administrators
    /// are not held to it.
    pub max_nodes_per_owner: u64,
    /// Items that a node may be configured to keep, and the meaning of `max` (§12.23).
    pub max_items: u32,
    /// Items in one publish or retract request (§12.11).
    pub max_batch: usize,
    /// Bytes of one payload, written as XML (§7.1.3.5).
    pub max_payload_bytes: u32,
    /// Subscriptions at one node (§6.1.3.9).
    pub max_subscriptions: usize,
    /// Subscriptions that one entity made, with all its resources, in the service (§6.1.3.9).
    /// Administrators are not held to it, and whom an owner subscribes is not counted.
    pub max_subscriptions_per_jid: usize,
    /// Subscriptions of one JID at one node; with more than one, each has a SubID (§6.1.6).
    pub max_subids: usize,
    /// The longest lease of a subscription, in seconds (§12.19).
    pub max_lease_seconds: u64,
    /// Whether answers say what tells the content of items (XEP-0395 §3.1), in about two thirds of their bytes.
    pub tells_content: bool,
    /// Whether every subscription that somebody makes needs a lease.
    pub require_lease: bool,
    /// How long what a roster says holds, in seconds; then it is read again.
    pub roster_seconds: u64,
    /// Bounces after which a subscription ends (§12.4); for ever if it is 0.
    pub max_bounces: u32,
    /// Bounces within so many seconds count as one.
    pub bounce_interval_seconds: u64,
    /// How long a resource has to be gone, in seconds, until its subscriptions with its full JID end; they never do if it
    /// is 0.
    pub dead_resource_seconds: u64,
    /// Bytes of items ([`Item::size`](crate::Item::size)) that a node keeps; the oldest go.
    pub max_node_bytes: u64,
    /// Entities with an affiliation at one node.
    pub max_affiliations: usize,
    /// Bytes of items in one request, and of items or nodes in one answer; the newest items that fit are given
    /// (§6.5.4).
    pub max_reply_bytes: usize,
    /// Events that wait until the server takes them; with one more, requests are answered `wait`.
    pub max_backlog_events: usize,
    /// About how many bytes of memory they may take.
    pub max_backlog_bytes: usize,
    /// Maximum number of pending notifications: the recipients of each event, added up.
    pub max_backlog_notifications: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_nodes: 1_000_000,
            max_nodes_per_owner: 10_000,
            max_items: 10_000,
            max_batch: 100,
            max_payload_bytes: 65_536,
            max_subscriptions: 1_000_000,
            max_subscriptions_per_jid: 10_000,
            max_subids: 1,
            max_lease_seconds: 31_536_000,
            tells_content: false,
            require_lease: false,
            roster_seconds: 60,
            max_bounces: 20,
            bounce_interval_seconds: 3600,
            dead_resource_seconds: 0,
            max_node_bytes: 268_435_456,
            max_affiliations: 10_000,
            max_reply_bytes: 500_000,
            max_backlog_events: 100_000,
            max_backlog_bytes: 268_435_456,
            max_backlog_notifications: 100_000_000,
        }
    }
}

impl Limits {
    /// Each limit and its name in the configuration. What is on or off is 1 or 0.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("max_nodes", self.max_nodes),
            ("max_nodes_per_owner", self.max_nodes_per_owner),
            ("max_items", self.max_items.into()),
            ("max_node_bytes", self.max_node_bytes),
            ("max_batch", self.max_batch as u64),
            ("max_payload_bytes", self.max_payload_bytes.into()),
            ("max_subscriptions", self.max_subscriptions as u64),
            ("max_subscriptions_per_jid", self.max_subscriptions_per_jid as u64),
            ("max_subids", self.max_subids as u64),
            ("max_lease_seconds", self.max_lease_seconds),
            ("require_lease", self.require_lease.into()),
            ("roster_seconds", self.roster_seconds),
            ("max_bounces", self.max_bounces.into()),
            ("bounce_interval_seconds", self.bounce_interval_seconds),
            ("dead_resource_seconds", self.dead_resource_seconds),
            ("max_affiliations", self.max_affiliations as u64),
            ("max_reply_bytes", self.max_reply_bytes as u64),
            ("max_backlog_events", self.max_backlog_events as u64),
            ("max_backlog_bytes", self.max_backlog_bytes as u64),
            ("max_backlog_notifications", self.max_backlog_notifications as u64),
        ]
    }
}
