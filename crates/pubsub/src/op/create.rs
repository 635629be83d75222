//! Creating a node (§8.1).

use std::borrow::Cow;

use crate::{
    Actor, Affiliation, Change, Changes, ConfigField, ConfigRevision, Context, Decision, Epoch,
    Error, FormerNode, IdGenerator, Node, NodeId, Operation, Prefetch, Prefetched,
};

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["create-and-configure", "create-nodes", "instant-nodes"];

/// Request to create a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Name of the node; `None` for an instant node, whose name the service chooses (§8.1.2).
    pub node: Option<NodeId>,
    /// Fields that differ from the default configuration (§8.1.3).
    pub settings: Vec<ConfigField>,
}

impl Operation for Create {
    type Output = CreateReply;

    fn node(&self, ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        match &self.node {
            Some(node) => Ok(Cow::Borrowed(node)),
            None => NodeId::parse(&ids.next_id()).map(Cow::Owned),
        }
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Creation
    }

    fn decide(
        &self,
        id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<CreateReply>, Error> {
        let former = prefetched.existing_items.former.as_ref();
        create(node, id.clone(), self, former, cx)
    }
}

/// Reply to a create request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateReply {
    /// Name of the node.
    pub node: NodeId,
}

/// Decides a create request for this name. `former` is the record of a deleted node of this name.
///
/// # Errors
/// [`Error::Forbidden`], [`Error::NoInstantNodes`], [`Error::NodeExists`], [`Error::NameReserved`],
/// [`Error::MaxNodesExceeded`], [`Error::MaxNodesOfPolicyExceeded`], [`Error::MaxNodesOfOwnerExceeded`],
/// [`Error::BadSetting`]; [`Error::NotAcceptable`] for a name that no new node can have.
pub fn create(
    node: Option<&Node>,
    name: NodeId,
    request: &Create,
    former: Option<&FormerNode>,
    cx: &Context<'_>,
) -> Result<Decision<CreateReply>, Error> {
    if !cx.policy.may_create(cx.actor) {
        return Err(Error::Forbidden);
    }
    if request.node.is_none() && !cx.policy.instant_nodes {
        return Err(Error::NoInstantNodes);
    }
    if node.is_some() {
        return Err(Error::NodeExists);
    }
    if former.is_some_and(|former| !former.may_have_name(cx)) {
        return Err(Error::NameReserved);
    }
    let is_reserved = former.is_some_and(|former| !former.is_over(cx.now));
    let (_, changes) = creation(name.clone(), &request.settings, is_reserved, cx)?;
    Ok(Decision::without_entries(CreateReply { node: name }, changes))
}

/// Names that service discovery, commands and headers use; a node of such a name could not be discovered.
const RESERVED: &[&str] = &[
    "http://jabber.org/protocol/commands",
    "http://jabber.org/protocol/pubsub#get-pending",
    "http://jabber.org/protocol/shim",
];
/// Prefix of the names of the service's own commands.
const COMMANDS: &str = "urn:gjallar:command:";

/// Checks that a name does not look like another name and is not reserved (§4.6.2, §5.3).
///
/// SPEC: §4.6.2 requires that names are prepared by Resourceprep. The successor of Resourceprep is OpaqueString (RFC
/// 8265). A new name that OpaqueString would change is refused. Names are never changed, so existing nodes with such
/// names stay reachable. OpaqueString keeps compatibility characters, so a name with a ligature is valid and differs
/// from the same name with separate letters.
fn check_name(name: &NodeId) -> Result<(), Error> {
    let name = name.as_str();
    if RESERVED.contains(&name) || name.starts_with(COMMANDS) {
        return Err(Error::NotAcceptable("the name of the node is reserved".into()));
    }
    if name.trim().is_empty() {
        return Err(Error::NotAcceptable("the name of the node is blank".into()));
    }
    if !jid::is_opaque_string(name) {
        let reason = "the name of the node does not conform to OpaqueString (RFC 8265): no control \
                      characters, only ASCII spaces, normalization form C";
        return Err(Error::NotAcceptable(reason.into()));
    }
    Ok(())
}

/// Returns a new node of the actor with this name and these fields, and the changes that create it. `is_reserved` is
/// `true` if the name is still reserved because an earlier node of this name was deleted. In this case the node begins
/// at version 1, as if there had been a commit. So the node is not [unused](Node::is_unused), and its deletion reserves
/// the name again.
pub(super) fn creation(
    name: NodeId,
    settings: &[ConfigField],
    is_reserved: bool,
    cx: &Context<'_>,
) -> Result<(Node, Changes), Error> {
    check_name(&name)?;
    if cx.node_count >= cx.limits().max_nodes {
        return Err(Error::MaxNodesExceeded);
    }
    if cx.policy.max_nodes.is_some_and(|most| cx.policy_node_count >= most) {
        return Err(Error::MaxNodesOfPolicyExceeded);
    }
    if cx.actor_node_count >= cx.limits().max_nodes_per_owner && !cx.actor.is_administrator {
        return Err(Error::MaxNodesOfOwnerExceeded);
    }
    let config = cx.policy.configured(&cx.policy.initial(), settings)?;
    config.check_model(cx)?;
    let creator = cx.actor.bare();
    config.check_size(&name, &creator, &ConfigRevision::first(creator.clone()))?;
    let epoch = Epoch(cx.ids.next_u64());
    let mut node = Node::new(name, epoch, config, creator.clone(), cx.now);
    node.version = u64::from(is_reserved);
    let mut changes = Changes::creation(node.clone());
    changes.push(Change::AffiliationSet(creator, Affiliation::Owner));
    Ok((node, changes))
}
