//! Section `[limits]` of the configuration.

use serde::{Deserialize, Serialize};

use crate::{service::admission::RateLimits, xmpp::QueueLimits};
use gjallar_pubsub;

use super::{LinkConfig, invalid};
use crate::config::ConfigError;

/// Bytes of a stanza reserved for the elements around the entries of a list: addresses, ids, and the page info.
pub(super) const ENVELOPE_BYTES: usize = 20_000;
/// Maximum of `max_subids`: the subscriptions of a JID at a node must fit into one row of the store.
const MAX_SUBIDS: usize = 8;

/// Limits of the service; see [`gjallar_pubsub::Limits`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct LimitsConfig {
    pub max_jid_requests_per_second: u32,
    pub max_domain_requests_per_second: u32,
    pub max_queued_stanzas_per_jid: usize,
    pub max_queued_bytes_per_jid: usize,
    pub max_queued_bytes: usize,
    pub max_nodes: u64,
    pub max_nodes_per_owner: u64,
    pub max_items: u32,
    pub max_node_bytes: u64,
    pub max_batch: usize,
    pub max_payload_bytes: u32,
    pub max_subscriptions: usize,
    pub max_subscriptions_per_jid: usize,
    pub max_subids: usize,
    pub max_lease_seconds: u64,
    pub require_lease: bool,
    pub roster_seconds: u64,
    pub max_bounces: u32,
    pub bounce_interval_seconds: u64,
    pub dead_resource_seconds: u64,
    pub max_affiliations: usize,
    pub max_reply_bytes: usize,
    pub max_backlog_events: usize,
    pub max_backlog_bytes: usize,
    pub max_backlog_notifications: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let limits = gjallar_pubsub::Limits::default();
        Self {
            max_jid_requests_per_second: 1000,
            max_domain_requests_per_second: 10_000,
            max_queued_stanzas_per_jid: 10_000,
            max_queued_bytes_per_jid: 4 * 1024 * 1024,
            max_queued_bytes: 64 * 1024 * 1024,
            max_nodes: limits.max_nodes,
            max_nodes_per_owner: limits.max_nodes_per_owner,
            max_node_bytes: limits.max_node_bytes,
            max_items: limits.max_items,
            max_batch: limits.max_batch,
            max_payload_bytes: limits.max_payload_bytes,
            max_subscriptions: limits.max_subscriptions,
            max_subscriptions_per_jid: limits.max_subscriptions_per_jid,
            max_subids: limits.max_subids,
            max_lease_seconds: limits.max_lease_seconds,
            require_lease: limits.require_lease,
            roster_seconds: limits.roster_seconds,
            max_bounces: limits.max_bounces,
            bounce_interval_seconds: limits.bounce_interval_seconds,
            dead_resource_seconds: limits.dead_resource_seconds,
            max_affiliations: limits.max_affiliations,
            max_reply_bytes: limits.max_reply_bytes,
            max_backlog_events: limits.max_backlog_events,
            max_backlog_bytes: limits.max_backlog_bytes,
            max_backlog_notifications: limits.max_backlog_notifications,
        }
    }
}

impl LimitsConfig {
    /// Caps `max_reply_bytes` at `max_node_bytes`, and at the number of bytes that list entries may take in a stanza of
    /// `max_stanza_bytes`.
    pub(crate) fn fit_replies(&mut self, max_stanza_bytes: usize) {
        let fits = max_stanza_bytes.saturating_sub(ENVELOPE_BYTES);
        let held = usize::try_from(self.max_node_bytes).unwrap_or(usize::MAX);
        self.max_reply_bytes = self.max_reply_bytes.min(fits).min(held);
    }

    /// Validates the limits against each other and against the maximum stanza sizes.
    pub(crate) fn check(&self, link: &LinkConfig) -> Result<(), ConfigError> {
        let max_stanza_bytes = link.max_stanza_bytes;
        let (key, smallest) = match link.max_remote_stanza_bytes < max_stanza_bytes {
            true => ("link.max_remote_stanza_bytes", link.max_remote_stanza_bytes),
            false => ("link.max_stanza_bytes", max_stanza_bytes),
        };
        // A stanza also holds the elements around payloads and items, and the white space after a payload that is a
        // single tag.
        let max = smallest.saturating_sub(ENVELOPE_BYTES) / 2;
        if self.max_payload_bytes as usize > max {
            let reason = format!("at most {max}: ({key} - {ENVELOPE_BYTES}) / 2");
            return Err(invalid("limits.max_payload_bytes", reason));
        }
        if self.max_reply_bytes.saturating_add(ENVELOPE_BYTES) > max_stanza_bytes {
            let max = max_stanza_bytes.saturating_sub(ENVELOPE_BYTES);
            let reason = format!("at most {max}: link.max_stanza_bytes less {ENVELOPE_BYTES}");
            return Err(invalid("limits.max_reply_bytes", reason));
        }
        if self.max_node_bytes < self.max_reply_bytes as u64 {
            return Err(invalid("limits.max_node_bytes", "at least limits.max_reply_bytes"));
        }
        if self.max_queued_stanzas_per_jid == 0 {
            return Err(invalid("limits.max_queued_stanzas_per_jid", "at least 1"));
        }
        if self.max_queued_bytes_per_jid < max_stanza_bytes {
            let least = "at least link.max_stanza_bytes";
            return Err(invalid("limits.max_queued_bytes_per_jid", least));
        }
        if self.max_queued_bytes / 2 < self.max_queued_bytes_per_jid {
            let least = "at least twice limits.max_queued_bytes_per_jid";
            return Err(invalid("limits.max_queued_bytes", least));
        }
        if !(1..=MAX_SUBIDS).contains(&self.max_subids) {
            return Err(invalid("limits.max_subids", "from 1 to 8"));
        }
        Ok(())
    }

    /// Returns the limits that the crate `gjallar_pubsub` applies.
    #[must_use]
    pub fn to_pubsub_limits(&self) -> gjallar_pubsub::Limits {
        let Self {
            max_jid_requests_per_second: _,
            max_domain_requests_per_second: _,
            max_queued_stanzas_per_jid: _,
            max_queued_bytes_per_jid: _,
            max_queued_bytes: _,
            max_nodes,
            max_nodes_per_owner,
            max_items,
            max_node_bytes,
            max_batch,
            max_payload_bytes,
            max_subscriptions,
            max_subscriptions_per_jid,
            max_subids,
            max_lease_seconds,
            require_lease,
            roster_seconds,
            max_bounces,
            bounce_interval_seconds,
            dead_resource_seconds,
            max_affiliations,
            max_reply_bytes,
            max_backlog_events,
            max_backlog_bytes,
            max_backlog_notifications,
        } = *self;
        gjallar_pubsub::Limits {
            max_nodes,
            max_nodes_per_owner,
            max_items,
            max_node_bytes,
            max_batch,
            max_payload_bytes,
            max_subscriptions,
            max_subscriptions_per_jid,
            max_subids,
            max_lease_seconds,
            require_lease,
            includes_content_ids: false,
            roster_seconds,
            max_bounces,
            bounce_interval_seconds,
            dead_resource_seconds,
            max_affiliations,
            max_reply_bytes,
            max_backlog_events,
            max_backlog_bytes,
            max_backlog_notifications,
        }
    }

    /// Returns the limits on requests per second.
    #[must_use]
    pub fn rates(&self) -> RateLimits {
        RateLimits {
            per_jid: self.max_jid_requests_per_second,
            per_domain: self.max_domain_requests_per_second,
        }
    }

    /// Returns the limits on queued requests.
    #[must_use]
    pub fn queues(&self) -> QueueLimits {
        QueueLimits {
            max_stanzas_per_jid: self.max_queued_stanzas_per_jid,
            max_bytes_per_jid: self.max_queued_bytes_per_jid,
            max_bytes: self.max_queued_bytes,
        }
    }
}
