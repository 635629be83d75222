//! Whom the owners of a node have in their rosters, where that matters (§4.5).

use std::sync::Arc;

use jid::BareJid;

use crate::pubsub::{Actor, Contacts, Context, Node, Timestamp};

use super::{Rosters, Service};

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

    /// Those of a node's owners together, if its access model looks at them, or may be about to.
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
        let age = 1000 * self.limits.roster_seconds;
        let oldest = Timestamp((self.clock)().0.saturating_sub(age));
        let mut all: Option<Arc<Contacts>> = None;
        let owners: Vec<_> = node.owners().take(MAX_OWNERS).cloned().collect();
        for owner in &owners {
            let Some(contacts) = self.rosters().of(owner, oldest).await else { continue };
            match &mut all {
                None => all = Some(contacts),
                Some(all) => Arc::make_mut(all).extend(&contacts),
            }
        }
        all
    }

    /// What a rule that changes nothing has to know.
    pub(super) fn context_with<'a>(
        &'a self,
        actor: &'a Actor,
        contacts: Option<&'a Contacts>,
    ) -> Context<'a> {
        Context { contacts, ..self.context(actor) }
    }
}
