//! Discovering nodes and what they are about (§5).

use jid::BareJid;

use crate::pubsub::{
    AccessModel, Actor, Affiliation, Context, Node, NodeConfig, NodeId, Refusal, Timestamp, access,
};

use super::existing;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["meta-data"];

/// What a node is about (§5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaData {
    /// How it behaves.
    pub config: NodeConfig,
    /// Who created it.
    pub creator: BareJid,
    /// When.
    pub created: Timestamp,
    /// How many subscriptions it has.
    pub subscribers: usize,
    /// Its owners.
    pub owners: Vec<BareJid>,
}

/// A node in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// Its name.
    pub node: NodeId,
    /// Its name for people; may be empty.
    pub title: String,
    /// Who has access.
    pub access_model: AccessModel,
}

/// Tells what a node is about.
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`].
pub fn meta_data(node: Option<&Node>, cx: &Context<'_>) -> Result<MetaData, Refusal> {
    let node = existing(node)?;
    access::may_discover(node, cx.actor)?;
    Ok(MetaData {
        config: node.config.clone(),
        creator: node.creator.clone(),
        created: node.created,
        subscribers: node.subscribers_len(),
        owners: node.owners().cloned().collect(),
    })
}

/// Whether a node stands in the list that an actor gets (§5.2).
#[must_use]
pub fn is_listed(summary: &NodeSummary, actor: &Actor, affiliation: Affiliation) -> bool {
    actor.is_administrator || access::is_visible(summary.access_model, affiliation)
}
