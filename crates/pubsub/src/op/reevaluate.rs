//! Reevaluation of the access of an entity that was an administrator (§12.13).

use std::borrow::Cow;

use jid::BareJid;

use crate::{
    Actor, Changes, Context, Decision, Error, IdGenerator, Node, NodeId, Operation, Prefetch,
    Prefetched, notify::state_changes::state_change_entries,
};

use super::{reevaluate_access, require_node};

/// Reevaluation of the subscriptions of an entity that is no administrator any more. The output is `true` if a
/// subscription changed.
#[derive(Clone, Copy, Debug)]
pub struct ReevaluateAccess<'a> {
    /// Node.
    pub node: &'a NodeId,
    /// Address of the subscriptions.
    pub entity: &'a BareJid,
}

impl Operation for ReevaluateAccess<'_> {
    type Output = bool;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Access
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        _prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<bool>, Error> {
        reevaluate(node, self.entity, cx)
    }
}

/// Decides the subscriptions of a former administrator: they end if the node does not admit the entity.
///
/// SPEC: at nodes with the access model `authorize` the subscriptions stay: nothing shows that no owner approved them.
///
/// # Errors
/// [`Error::NodeNotFound`].
fn reevaluate(
    node: Option<&Node>,
    entity: &BareJid,
    cx: &Context<'_>,
) -> Result<Decision<bool>, Error> {
    let node = require_node(node)?;
    let mut changes = Changes::none(node);
    reevaluate_access(node, &node.config, entity, node.affiliation_of(entity), &mut changes, cx);
    let has_changed = changes.iter().next().is_some();
    let notifications = state_change_entries(node, &node.config, &mut changes, cx);
    Ok(Decision { reply: has_changed, changes, notifications })
}
