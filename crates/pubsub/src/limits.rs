//! Limits of the service. A request that exceeds a limit is refused with a defined error.

/// Limits of the service or of a policy. The defaults are those of `config/gjallar.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of nodes in the service; a request past it is refused with `max-nodes-exceeded`.
    pub max_nodes: u64,
    /// Maximum number of existing nodes that one entity created; a request past it is refused with
    /// `max-nodes-exceeded`. Does not apply to administrators.
    pub max_nodes_per_owner: u64,
    /// Maximum number of items that a node may be configured to keep; also the meaning of the value `max` of
    /// `pubsub#max_items` (§12.23).
    pub max_items: u32,
    /// Maximum number of items in one publish or retract request (§12.11).
    pub max_batch: usize,
    /// Maximum bytes of one payload in XML (§7.1.3.5).
    pub max_payload_bytes: u32,
    /// Maximum number of subscriptions to one node (§6.1.3.9).
    pub max_subscriptions: usize,
    /// Maximum number of subscriptions in the service that one entity made with all its resources (§6.1.3.9).
    /// Subscriptions that an owner made are not counted. Does not apply to administrators.
    pub max_subscriptions_per_jid: usize,
    /// Maximum number of subscriptions of one JID to one node; if it is above 1, each has a SubID (§6.1.6).
    pub max_subids: usize,
    /// Maximum length of a lease, in seconds (§12.19).
    pub max_lease_seconds: u64,
    /// `true` if replies with items include content identifiers (XEP-0395 §3.1), which may take some two thirds of the
    /// bytes of a reply.
    pub includes_content_ids: bool,
    /// `true` if every subscription that an entity makes for itself needs a lease.
    pub require_lease: bool,
    /// Time for which a roster is cached, in seconds.
    pub roster_seconds: u64,
    /// Number of bounces after which a subscription ends (§12.4); 0 if subscriptions do not end.
    pub max_bounces: u32,
    /// Time in seconds within which several bounces count as one.
    pub bounce_interval_seconds: u64,
    /// Time in seconds after which the subscriptions of a full JID end if its resource does not exist any more; 0 if
    /// they do not end.
    pub dead_resource_seconds: u64,
    /// Maximum bytes of items ([`Item::size`](crate::Item::size)) that a node keeps; the oldest items are evicted.
    pub max_node_bytes: u64,
    /// Maximum number of entities with an affiliation at one node.
    pub max_affiliations: usize,
    /// Maximum bytes of items in one request, and of items or nodes in one reply. A reply has the newest items that fit
    /// (§6.5.4).
    pub max_reply_bytes: usize,
    /// Maximum number of events in the backlog: events that the server has not confirmed yet. When the backlog is full,
    /// requests are refused with an error of type `wait`.
    pub max_backlog_events: usize,
    /// Maximum approximate bytes of the backlog in memory.
    pub max_backlog_bytes: usize,
    /// Maximum number of pending notifications in the backlog: the sum of the recipients of all events.
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
            includes_content_ids: false,
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
    /// Returns the limits with their names in the configuration. Flags are 1 or 0.
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
