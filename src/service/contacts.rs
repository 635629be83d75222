//! Whom the owners of a node have in their rosters, where that matters (§4.5).

use std::sync::Arc;

use jid::BareJid;

use crate::pubsub::{Actor, Contacts, Context, Node, NodeId, Timestamp};

use super::{Policies, Rosters, Service, facts::Need};

/// Owners of a node whose rosters are read.
const MAX_OWNERS: usize = 10;

impl Service {
    /// The rosters that may be read.
    #[must_use]
    pub fn rosters(&self) -> &Rosters {
        &self.memory.rosters
    }

    /// Whether some may.
    #[must_use]
    pub fn reads_rosters(&self) -> bool {
        self.rosters().are_granted()
    }

    /// A roster that was asked for has come; nothing if it cannot be read.
    pub fn roster_came(&self, owner: &BareJid, contacts: Option<Contacts>) {
        self.rosters().answer(owner, contacts, (self.clock)());
    }

    /// What a decision has to know of them. Publishing has nothing to do with them, and does not wait for them.
    pub(super) async fn contacts_for(
        &self,
        node: Option<&Node>,
        need: &Need<'_>,
    ) -> Option<Arc<Contacts>> {
        match need {
            Need::Room(_) => None,
            need => self.contacts(node, matches!(need, Need::Configuration)).await,
        }
    }

    /// Those of a node's owners together, if they can be read and its access model looks at them, or may be about to.
    pub(super) async fn contacts(
        &self,
        node: Option<&Node>,
        may_change: bool,
    ) -> Option<Arc<Contacts>> {
        let node = node?;
        let is_needed = node.config.access_model.reads_rosters()
            || (may_change && self.rosters().are_granted());
        if !is_needed {
            return None;
        }
        let now = (self.clock)();
        let oldest = Timestamp(
            now.0.saturating_sub(self.policies().limits().roster_seconds.saturating_mul(1000)),
        );
        let owners: Vec<_> = node.owners().take(MAX_OWNERS).cloned().collect();
        let mut all = self.rosters().of(&owners, oldest, now).await?.into_iter();
        let first = all.next()?;
        Some(all.fold(first, |mut together, contacts| {
            Arc::make_mut(&mut together).extend(&contacts);
            together
        }))
    }

    /// What a rule that changes nothing has to know.
    pub(super) fn context_with<'a>(
        &'a self,
        policies: &'a Policies,
        id: &NodeId,
        actor: &'a Actor,
        contacts: Option<&'a Contacts>,
    ) -> Context<'a> {
        Context { contacts, ..self.context(policies, id, actor) }
    }
}
