//! What the presence of entities does (§12.3, §12.5).

use std::collections::BTreeSet;

use jid::Jid;

use crate::pubsub::{
    Actor, Context, Node, NodeId, Show, SubscriptionState,
    op::presence::{self, Went},
};

use super::{
    Error, Service,
    decide::{Facts, Need},
};

impl Service {
    /// A resource is available, and shows itself so. If it has just come it is sent the last items of nodes that say so.
    pub async fn available(&self, jid: &Jid, show: Show) {
        if !self.memory.presences.note(jid, show) {
            return;
        }
        let Ok(own) = self.store.subscriptions_of(&jid.to_bare()).await else { return };
        let mut nodes = BTreeSet::new();
        for (node, own) in self.memory.sound(own) {
            let is_told = own.jid.is_bare() || own.jid == *jid;
            if is_told && own.state == SubscriptionState::Subscribed {
                nodes.insert(node);
            }
        }
        for node in nodes.iter().filter(|node| self.memory.presences.matters(node)) {
            // What cannot be read now is not sent.
            let _ = self.send_last(node, jid).await;
        }
    }

    async fn send_last(&self, id: &NodeId, jid: &Jid) -> Result<(), Error> {
        let mut turn = self.settled_turn(id).await?;
        let last = self.last_item(&mut turn).await?;
        let sent = turn.node().map(|node| presence::came(node, jid, last.as_deref()));
        self.tell_at_once(&mut turn, sent.unwrap_or_default());
        Ok(())
    }

    /// A resource is not available any more; with a bare JID none is. Temporary subscriptions end, and items go.
    pub async fn unavailable(&self, jid: &Jid) {
        let went = self.memory.presences.remove(jid);
        let bare = jid.to_bare();
        let (Ok(subscriptions), Ok(affiliations)) =
            (self.store.subscriptions_of(&bare).await, self.store.affiliations_of(&bare).await)
        else {
            return;
        };
        let subscribed = self.memory.sound(subscriptions).into_iter().map(|(node, _)| node);
        let affiliated = self.memory.sound(affiliations).into_iter().map(|(node, _)| node);
        let nodes: BTreeSet<_> = subscribed.chain(affiliated).collect();
        for node in nodes.iter().filter(|node| self.memory.presences.matters(node)) {
            self.went(node, &went).await;
        }
    }

    async fn went(&self, id: &NodeId, went: &Went) {
        // Whoever goes knows what ends with that.
        let actor = Actor { jid: went.jid.clone(), ..self.nobody.clone() };
        let rule = |node: Option<&Node>, facts: &Facts, cx: &Context<'_>| {
            presence::went(node, went, facts.newest.last(), cx)
        };
        // If it cannot be carried out now, what is temporary ends when its subscriber goes again.
        let _ = self.decide(&actor, id, Need::Time, rule, |outcome| outcome).await.await;
    }
}
