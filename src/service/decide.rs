//! The one path of change: decide, commit, apply, tell; disk before memory, and in the node's turn.

use std::sync::Arc;

use tracing::error;

use crate::{
    pubsub::{
        Actor, Audience, Context, Decision, Item, Node, NodeId, Refusal, SendLastPublishedItem,
        op::retrieve::Selection,
    },
    store::{Damage, Found, StoreError},
};

use super::{Error, Outcome, Service, nodes::Turn};

/// What a rule has to know from the store.
pub(super) enum Need {
    Nothing,
    Items(Selection),
    /// Of someone who wants one more.
    Subscriptions,
}

/// What it is told.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) items: Vec<Item>,
    pub(super) subscriptions: usize,
}

impl Service {
    pub(super) fn context<'a>(&'a self, actor: &'a Actor) -> Context<'a> {
        Context {
            actor,
            limits: &self.limits,
            now: (self.clock)(),
            fresh: &*self.fresh,
            nodes: self.census.total(),
            own_nodes: self.census.of(&actor.bare()),
            own_subscriptions: 0,
        }
    }

    /// Waits for a node's turn. After a failure of the store, what it owes there all the same is told.
    pub(super) async fn turn(&self, id: &NodeId) -> Result<Turn, Error> {
        if self.nodes.is_closed(id) {
            return Err(Error::Closed);
        }
        let (mut turn, before) =
            self.nodes.turn(id, &*self.store).await.map_err(|error| self.failed_at(id, error))?;
        if let Some(before) = before {
            let known = self.outbox.known();
            match self.store.owed(Some(id)).await {
                Ok(owed) => {
                    self.outbox.restore(owed, &known);
                    if let Some(node) = turn.node() {
                        self.outbox.keep(node);
                    }
                    let creator = turn.node().map(|node| &node.creator);
                    self.census.correct(before.0.as_ref(), creator);
                }
                Err(error) => {
                    turn.doubt(before);
                    return Err(self.failed_at(id, error));
                }
            }
        }
        Ok(turn)
    }

    /// A failure at a node. Where a record is damaged the node is closed: nobody is shown less than was
    /// stored, or adds to it.
    pub(super) fn failed_at(&self, id: &NodeId, error: StoreError) -> Error {
        let StoreError::Damaged(record) = &error else { return Error::Failed(error) };
        self.close_node(id, record);
        Error::Closed
    }

    /// What was found at many nodes. Those of which something is damaged are closed.
    pub(super) fn sound<T>(&self, Found { found, damaged }: Found<T>) -> T {
        for Damage { node, record } in damaged {
            match node {
                Some(node) => self.close_node(&node, &record),
                None if self.nodes.note(&record) => {
                    error!(record, "a record is damaged, and its node cannot be read");
                }
                None => {}
            }
        }
        found
    }

    fn close_node(&self, id: &NodeId, record: &str) {
        if self.nodes.close(id) {
            error!(node = %id, record, "a record is damaged: its node is closed");
            self.metrics.closed_nodes.inc();
        }
    }

    /// What a rule needs to know of a node that is there.
    async fn facts(&self, actor: &Actor, node: &Node, need: &Need) -> Result<Facts, Error> {
        let items = async |selection| {
            let items = self.store.items(&node.id, selection, usize::MAX).await;
            items.map_err(|error| self.failed_at(&node.id, error))
        };
        Ok(match need {
            Need::Nothing => Facts::default(),
            Need::Items(selection) => Facts { items: items(selection).await?, ..Facts::default() },
            Need::Subscriptions => {
                let sends_last =
                    node.config.send_last_published_item == SendLastPublishedItem::OnSub;
                let last = Selection::Recent(u32::from(sends_last));
                let max = self.limits.max_subscriptions_per_jid;
                let own = self.store.count_subscriptions_of(&actor.bare(), max).await;
                let subscriptions = self.sound(own.map_err(Error::Failed)?);
                Facts { items: items(&last).await?, subscriptions }
            }
        })
    }

    /// The one path of change: the node's turn, facts, rule, room, commit, answer, notification.
    pub(super) async fn decide<R, A>(
        &self,
        actor: &Actor,
        id: &NodeId,
        need: Need,
        rule: impl FnOnce(Option<&Node>, &Facts, &Context<'_>) -> Result<Decision<R>, Refusal>,
        respond: impl FnOnce(Outcome<R>) -> A,
    ) -> A {
        let mut turn = match self.turn(id).await {
            Ok(turn) => turn,
            Err(error) => return respond(Err(error)),
        };
        let facts = match turn.node() {
            Some(node) => self.facts(actor, node, &need).await,
            None => Ok(Facts::default()),
        };
        let facts = match facts {
            Ok(_) if self.nodes.is_closed(id) => return respond(Err(Error::Closed)),
            Ok(facts) => facts,
            Err(error) => return respond(Err(error)),
        };
        let Decision { reply, changes, notification } =
            match rule(turn.node(), &facts, &self.context(actor)) {
                Ok(decision) => decision,
                Err(refusal) => return respond(Err(refusal.into())),
            };
        // Those who were subscribed hear of a deletion; after it nobody is.
        let before = notification.as_ref().map(|_| turn.recipients()).unwrap_or_default();
        let notification =
            notification.filter(|n| matches!(n.audience, Audience::One(_)) || !before.is_empty());
        let creator = turn.node().map(|node| node.creator.clone());
        // What nobody is told of needs no room: who has to go can be sent away while others wait.
        let told = match notification {
            None => None,
            Some(notification) => {
                let audience = match &notification.audience {
                    Audience::One(jid) => Arc::from([jid.clone()]),
                    Audience::Subscribers => Arc::clone(&before),
                };
                let reserve = |owner| self.outbox.reserve(owner, &notification, &audience);
                match creator.as_ref().and_then(reserve) {
                    Some(room) => Some((notification, room)),
                    None => return respond(Err(Error::Busy)),
                }
            }
        };
        let notification = told.as_ref().map(|(notification, _)| notification);
        let mut debt = None;
        if !changes.is_none(turn.node()) {
            let epoch = turn.node().map(|node| node.epoch);
            match turn.commit(id, &changes, notification, &*self.store).await {
                Ok(committed) => {
                    debt = committed.debt;
                    self.metrics.evictions.inc_by(committed.evicted);
                }
                Err(error) => {
                    self.nodes.doubt(id);
                    if let (StoreError::Damaged(_), Some(epoch)) = (&error, epoch) {
                        // Whether they have lost their subscriptions will not be known any more.
                        self.outbox.leave_out(epoch, changes.unsubscribed());
                    }
                    return respond(Err(self.failed_at(id, error)));
                }
            }
            self.census.count(creator.as_ref(), &changes);
            if let Some(epoch) = epoch {
                self.outbox.leave_out(epoch, changes.unsubscribed());
            }
        }
        let answered = respond(Ok(reply));
        if let Some((notification, room)) = told {
            let recipients = match &notification.audience {
                Audience::One(jid) => Arc::from([jid.clone()]),
                Audience::Subscribers if turn.node().is_some() => turn.recipients(),
                Audience::Subscribers => before,
            };
            self.outbox.tell(room, notification, recipients, debt);
        }
        answered
    }
}
