//! Discovery of nodes and their metadata (§5).

use jid::BareJid;

use crate::{
    AccessModel, Actor, Affiliation, Context, Epoch, Error, Node, NodeConfig, NodeId, PublishModel,
    Timestamp, access,
};

use super::require_node;

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["meta-data"];

/// Maximum number of owners and of publishers in the metadata of a node. Owners retrieve complete lists by §8.9.1.
pub const MAX_SHOWN: usize = 100;

/// Metadata of a node (§5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaData {
    /// Effective configuration under the current limits.
    pub config: NodeConfig,
    /// Effective maximum number of items.
    pub max_items: u32,
    /// Entity that created the node.
    pub creator: BareJid,
    /// Time of the creation.
    pub created: Timestamp,
    /// Number of subscribed JIDs.
    pub subscribers: usize,
    /// `true` if stored items survive a restart of the service.
    pub is_durable: bool,
    /// Owners, at most [`MAX_SHOWN`].
    pub owners: Vec<BareJid>,
    /// Entities with the affiliation publisher, at most [`MAX_SHOWN`].
    pub publishers: Vec<BareJid>,
}

/// Entry of a list of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// Name of the node.
    pub node: NodeId,
    /// Epoch of the node.
    pub epoch: Epoch,
    /// Title of the node; may be empty.
    pub title: String,
    /// Access model of the node.
    pub access_model: AccessModel,
    /// Publish model of the node.
    pub publish_model: PublishModel,
    /// Type of the node, usually the namespace of its payloads; may be empty.
    pub r#type: String,
}

/// Filter for a list of nodes by their types (XEP-0462).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeFilter {
    /// Only these types; an empty text selects nodes without a type.
    Included(Vec<String>),
    /// All types except these.
    Excluded(Vec<String>),
}

impl NodeSummary {
    /// Returns the UID of the node in pages of the list (XEP-0059). A later node of the same name has another UID.
    #[must_use]
    pub fn uid(&self) -> String {
        format!("{:016x}-{}", self.epoch.0, self.node)
    }

    /// Returns `true` if the edge of a page denotes this node: `edge` is the UID or the name of the node.
    ///
    /// COMPAT: by XEP-0059 clients repeat the UIDs of a page; some send the name of the first or last node instead.
    #[must_use]
    pub fn is_edge(&self, edge: &str) -> bool {
        self.uid() == edge || self.node.as_str() == edge
    }
}

/// Returns the names of the nodes that the edge of a page may denote. The edge may be a UID or a name.
pub fn names_of_edge(edge: &str) -> impl Iterator<Item = NodeId> {
    let of_uid = edge.split_once('-').map(|(_, name)| name);
    of_uid.into_iter().chain([edge]).filter_map(|name| NodeId::parse(name).ok())
}

impl TypeFilter {
    fn admits(&self, r#type: &str) -> bool {
        let has = |types: &[String]| types.iter().any(|other| other == r#type);
        match self {
            Self::Included(types) => has(types),
            Self::Excluded(types) => !has(types),
        }
    }
}

/// Returns the metadata of a node. `is_durable` is `true` if stored items survive a restart of the service.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn meta_data(
    node: Option<&Node>,
    is_durable: bool,
    cx: &Context<'_>,
) -> Result<MetaData, Error> {
    let node = require_node(node)?;
    access::may_discover(node, cx)?;
    Ok(MetaData {
        config: node.config.clone().within(cx.limits()),
        max_items: node.config.max_items.within(cx.limits()),
        creator: node.creator.clone(),
        created: node.created,
        subscribers: node.subscribers_len(),
        is_durable,
        owners: affiliated(node, Affiliation::Owner),
        publishers: affiliated(node, Affiliation::Publisher),
    })
}

fn affiliated(node: &Node, wanted: Affiliation) -> Vec<BareJid> {
    let all = node.affiliations().filter(|(_, affiliation)| *affiliation == wanted);
    all.take(MAX_SHOWN).map(|(entity, _)| entity.clone()).collect()
}

/// Returns `true` if the list of nodes for an actor contains a node (§5.2).
#[must_use]
pub fn is_listed(
    summary: &NodeSummary,
    actor: &Actor,
    affiliation: Affiliation,
    filter: Option<&TypeFilter>,
) -> bool {
    let is_visible = actor.is_administrator
        || access::is_visible(summary.access_model, summary.publish_model, affiliation);
    is_visible && filter.is_none_or(|filter| filter.admits(&summary.r#type))
}
