//! What the presence of entities does (§12.3, §12.5).

use std::collections::BTreeSet;

use jid::Jid;

use crate::pubsub::{
    Actor, Context, Listing, Node, NodeId, Order, Page, Show, SubscriptionState, Timestamp,
    op::presence::{self, Went},
};

use super::{
    Error, Service,
    facts::{Facts, Need},
};

/// The most nodes of which a resource that has come is sent something, and about how many events it is sent.
const MAX_NODES: usize = 1000;
const MAX_SENT: usize = 1000;

impl Service {
    /// A resource is available, and shows itself so. If it has just come it is sent the last items of nodes that say so,
    /// or what it missed, if it says how many seconds it was away.
    pub async fn available(&self, jid: &Jid, show: Show, away: Option<u64>) {
        if !self.memory.presences.note(jid, show) {
            return;
        }
        let Ok(own) = self.store.subscriptions_of(&jid.to_bare()).await else { return };
        let now = (self.clock)();
        let gone_since =
            away.map(|away| Timestamp(now.0.saturating_sub(away.saturating_mul(1000))));
        let mut nodes = BTreeSet::new();
        for (node, own) in self.memory.sound(own) {
            let is_told = own.jid.is_bare() || own.jid == *jid;
            if is_told && own.state == SubscriptionState::Subscribed {
                nodes.insert(node);
            }
        }
        let mut sent = 0;
        for node in nodes.iter().take(MAX_NODES) {
            // What cannot be read now is not sent.
            sent += self.came(node, jid, gone_since).await.unwrap_or_default();
            if sent >= MAX_SENT {
                break;
            }
        }
    }

    /// Says how many events the resource is sent.
    async fn came(
        &self,
        id: &NodeId,
        jid: &Jid,
        gone_since: Option<Timestamp>,
    ) -> Result<usize, Error> {
        let mut turn = self.settled_turn(id).await?;
        let newest = match gone_since {
            None => {
                self.last_item(&mut turn).await?.map(|item| (*item).clone()).into_iter().collect()
            }
            Some(_) => {
                let listing = Listing::of(Page::last(presence::MAX_MISSED), Order::default());
                self.listed(id, &listing).await?.part.entries
            }
        };
        let sent =
            turn.node().map(|node| presence::came(node, jid, gone_since, &newest, &*self.fresh));
        let sent = sent.unwrap_or_default();
        let number = sent.len();
        self.tell_at_once(&mut turn, sent);
        Ok(number)
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
        let mut nodes: BTreeSet<_> = subscribed.chain(affiliated).collect();
        if went.is_last {
            nodes.extend(self.memory.presences.published_at(&bare));
        }
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
