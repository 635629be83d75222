//! Protocol of the control socket: requests of one line of JSON, and responses of several lines.

use std::collections::{BTreeMap, btree_map::Entry};

use jid::{BareJid, Jid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::xmpp::stanza::forms::node_config;

/// Request, with the JID on whose behalf it is executed. A request without a JID is executed on behalf of the service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdminCall {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jid: Option<Jid>,
    pub(crate) ask: AdminRequest,
}

/// Line of a response.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AdminResponse {
    /// Entry of a list.
    Line(Value),
    /// Last line, with the result.
    Done(Value),
    /// Last line of a failed request.
    Error(String),
}

/// Result of one check of the self-test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the check.
    pub check: String,
    /// `ok`, `degraded` or `failed`.
    pub verdict: String,
    /// Explanation of the result and, for a problem, the remedy.
    pub text: String,
    /// Response time of the server in milliseconds.
    pub millis: Option<f64>,
}

impl Finding {
    /// Parses a line of a response.
    #[must_use]
    pub fn of(line: Value) -> Option<Self> {
        serde_json::from_value(line).ok()
    }
}

/// Fields of the form `pubsub#node_config`; several values are separated by line ends.
pub type ConfigFields = BTreeMap<String, String>;

/// Collects configuration fields from pairs of a name and a value. The prefix `pubsub#` of a name may be omitted. The
/// name of a list field may occur several times, each time with one value.
///
/// # Errors
/// The text of an error that names the field, if a field with a single value occurs several times.
pub fn config_fields(given: Vec<(String, String)>) -> Result<ConfigFields, String> {
    let mut fields = ConfigFields::new();
    for (name, value) in given {
        let name = if name.contains('#') { name } else { format!("pubsub#{name}") };
        match fields.entry(name) {
            Entry::Vacant(field) => {
                field.insert(value);
            }
            Entry::Occupied(mut field) if node_config::is_list(field.key()) => {
                field.get_mut().extend(["\n", &value]);
            }
            Entry::Occupied(field) => {
                return Err(format!("{}: only one value is accepted", field.key()));
            }
        }
    }
    Ok(fields)
}

/// Request to the service. The response to a request for a list has a line for each entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum AdminRequest {
    /// List the affiliations at a node.
    Affiliations { node: String },
    /// Send a text message to all subscribers of a node.
    Announce { node: String, text: String },
    /// Approve (`allow`) or reject pending subscriptions.
    Authorize { node: String, jids: Vec<Jid>, allow: bool },
    /// Change configuration fields of a node.
    Configure { node: String, fields: ConfigFields },
    /// Create a node; without a name the service chooses one.
    Create { node: Option<String>, fields: ConfigFields },
    /// Delete a node. If there is a URI `redirect`, later requests for the node are redirected to it.
    Delete { node: String, redirect: Option<String> },
    /// List the findings of the self-test.
    Doctor,
    /// Show the affiliations and subscriptions of a JID.
    Entity { jid: BareJid },
    /// Erase the data of an entity.
    Erase { jid: BareJid },
    /// List the metrics with their descriptions.
    Figures,
    /// List the newest items of a node, at most `max`.
    Items { node: String, max: usize },
    /// List all items that an entity published.
    ItemsOf { jid: BareJid },
    /// Show the configuration and the counts of a node.
    Node { node: String },
    /// List the nodes whose names match a pattern.
    Nodes { pattern: String },
    /// Publish an item.
    Publish { node: String, id: Option<String>, payload: String },
    /// Delete all items of a node.
    Purge { node: String },
    /// List the pending subscriptions of a node.
    Requests { node: String },
    /// Retract items. With `notify`, subscribers are notified even if the node is configured not to notify them.
    Retract { node: String, items: Vec<String>, notify: bool },
    /// Retract the items that are older than this many seconds.
    RetractOlder { node: String, seconds: u64 },
    /// Set the affiliation of entities.
    SetAffiliations { node: String, jids: Vec<BareJid>, affiliation: String },
    /// Set the subscription state of JIDs.
    SetSubscriptions { node: String, jids: Vec<Jid>, subscription: String },
    /// Copy the store as of a point between two commits. The copy is deleted when the connection ends.
    Snapshot,
    /// Return the metrics as OpenMetrics text.
    Stats,
    /// List the subscriptions of a node.
    Subscriptions { node: String },
    /// List the activity of the service, with one line per second until the connection ends.
    Top,
}
