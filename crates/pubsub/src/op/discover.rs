//! Discovering nodes and what they are about (§5).

use jid::BareJid;

use crate::{
    AccessModel, Actor, Affiliation, Context, Epoch, Error, Node, NodeConfig, NodeId, PublishModel,
    Timestamp, access,
};

use super::require_node;

/// What this use case stands for in service discovery.
pub const FEATURES: &[&str] = &["meta-data"];

/// How many owners and publishers a node shows. They may be thousands; §8.9.1 has them all.
pub const MAX_SHOWN: usize = 100;

/// What a node is about (§5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaData {
    /// How it behaves under the limits that there are.
    pub config: NodeConfig,
    /// How many items it keeps under these.
    pub max_items: u32,
    /// Who created it.
    pub creator: BareJid,
    /// When.
    pub created: Timestamp,
    /// How many subscriptions it has.
    pub subscribers: usize,
    /// Whether what it keeps outlives the process.
    pub is_durable: bool,
    /// Its owners, at most [`MAX_SHOWN`].
    pub owners: Vec<BareJid>,
    /// Those with the affiliation publisher, at most [`MAX_SHOWN`].
    pub publishers: Vec<BareJid>,
}

/// A node in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// Its name.
    pub node: NodeId,
    /// The epoch of the node.
    pub epoch: Epoch,
    /// Its name for people; may be empty.
    pub title: String,
    /// Who has access.
    pub access_model: AccessModel,
    /// Who may publish.
    pub publish_model: PublishModel,
    /// The namespace of its payloads; may be empty.
    pub r#type: String,
}

/// Nodes of which types a list has (XEP-0462).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeFilter {
    /// These and no others; an empty one is that of nodes without a type.
    Included(Vec<String>),
    /// All but these.
    Excluded(Vec<String>),
}

impl NodeSummary {
    /// The UID of the node in pages of the list (XEP-0059). A later node of the same name has another one.
    #[must_use]
    pub fn uid(&self) -> String {
        format!("{:016x}-{}", self.epoch.0, self.node)
    }

    /// Returns `true` if this node is the edge of a page.
    ///
    /// COMPAT: by XEP-0059 clients repeat the UIDs of a page; some send the name of the first or last node instead.
    #[must_use]
    pub fn is_edge(&self, edge: &str) -> bool {
        self.uid() == edge || self.node.as_str() == edge
    }
}

/// The names of the nodes that the edge of a page may stand for.
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

/// Tells what a node is about.
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

/// Returns `true` if a node stands in the list that an actor gets (§5.2).
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
