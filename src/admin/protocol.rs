//! What is asked over the socket, and what is answered: a line of JSON, and lines of JSON.

use std::collections::{BTreeMap, btree_map::Entry};

use jid::{BareJid, Jid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::xmpp::stanza::forms::node_config;

/// A request, and in whose name it is made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdminCall {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jid: Option<Jid>,
    pub(crate) ask: AdminRequest,
}

/// A line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AdminResponse {
    /// One of many.
    Line(Value),
    /// The last.
    Done(Value),
    /// The last: it was not done.
    Error(String),
}

/// What was tried, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// A name for it.
    pub check: String,
    /// `ok`, `degraded` or `failed`.
    pub verdict: String,
    /// What that means, and what to change.
    pub text: String,
    /// How long the server took to answer, in milliseconds.
    pub millis: Option<f64>,
}

impl Finding {
    /// Reads one from a line of an answer.
    #[must_use]
    pub fn of(line: Value) -> Option<Self> {
        serde_json::from_value(line).ok()
    }
}

/// Fields of the form `pubsub#node_config` and their values; of several values each in a line.
pub type ConfigFields = BTreeMap<String, String>;

/// Collects fields that are given one by one. Their names may lack `pubsub#`. A repeated list field adds a value.
///
/// # Errors
/// The text of an error that names a repeated field with a single value.
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

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum AdminRequest {
    /// Who is what at a node; in lines.
    Affiliations { node: String },
    /// Something is said to all subscribers of a node.
    Announce { node: String, text: String },
    /// Subscriptions that wait are approved, or refused.
    Authorize { node: String, jids: Vec<Jid>, allow: bool },
    /// A node is configured.
    Configure { node: String, fields: ConfigFields },
    /// A node is created; without a name the service chooses one.
    Create { node: Option<String>, fields: ConfigFields },
    /// A node is deleted; perhaps another one took its place.
    Delete { node: String, redirect: Option<String> },
    /// What the service relies on is tried; in lines.
    Doctor,
    /// What an entity is in the service.
    Entity { jid: BareJid },
    /// What there is of an entity is erased.
    Erase { jid: BareJid },
    /// Numbers by name, with what they mean; in lines.
    Figures,
    /// The newest items of a node; in lines.
    Items { node: String, max: usize },
    /// All items that an entity published; in lines.
    ItemsOf { jid: BareJid },
    /// All about a node.
    Node { node: String },
    /// The nodes whose names look like this; in lines.
    Nodes { pattern: String },
    /// An item is published.
    Publish { node: String, id: Option<String>, payload: String },
    /// All items of a node are removed.
    Purge { node: String },
    /// Who waits to be subscribed; in lines.
    Requests { node: String },
    /// Items are retracted.
    Retract { node: String, items: Vec<String>, notify: bool },
    /// Items are retracted that are older than so many seconds.
    RetractOlder { node: String, seconds: u64 },
    /// Affiliations are set.
    SetAffiliations { node: String, jids: Vec<BareJid>, affiliation: String },
    /// Subscriptions are set.
    SetSubscriptions { node: String, jids: Vec<Jid>, subscription: String },
    /// A copy of the store as it is between two commits. It is there until the connection ends.
    Snapshot,
    /// What is counted, as OpenMetrics text.
    Stats,
    /// Who is subscribed; in lines.
    Subscriptions { node: String },
    /// What the service does, once in a second; in lines, until the connection ends.
    Top,
}
