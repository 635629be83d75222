//! Queries for the management of nodes: by administrators for all nodes, by owners for their own.

use jid::{BareJid, Jid};
use tokio::task::yield_now;

use crate::store::NodeNumber;
use gjallar_pubsub::{
    Actor, Affiliation, Epoch, NodeId, PageBound, PageRequest, Sequence, Subscription,
    op::{
        affiliations::OwnAffiliations,
        authorize,
        discover::{self, NodeSummary},
    },
};

use super::{Error, NamePattern, Service};

/// Maximum number of nodes in one read of the store.
const PAGE: usize = 256;
/// Number of an owner's nodes that are compared with the name pattern before other tasks run.
const MATCHED: usize = 64;

/// Request for a list of nodes that the actor manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedNodes {
    /// Pattern of the names of the nodes.
    pub pattern: NamePattern,
    /// UID (XEP-0059) of an existing node; the list begins after this node.
    pub after: Option<String>,
    /// Maximum number of nodes.
    pub max: usize,
}

/// Affiliations and subscriptions of an entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memberships {
    /// Affiliations of the entity.
    pub affiliations: Vec<(NodeId, Affiliation)>,
    /// Subscriptions, including pending ones, of all JIDs of the entity.
    pub subscriptions: Vec<(NodeId, Subscription)>,
    /// `true` if the entity refused to share its presence with the service.
    pub refuses_presence: bool,
}

impl Service {
    /// Lists nodes that an actor manages and whose names match the pattern. An administrator gets all nodes, in the
    /// order of their creation. An owner gets its own nodes, in the order of their names. Also returns `true` if more
    /// nodes follow.
    ///
    /// # Errors
    /// [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) if the node after which the list begins does not exist; an
    /// error of the store.
    pub async fn managed_nodes(
        &self,
        actor: &Actor,
        request: &ManagedNodes,
    ) -> Result<(Vec<NodeSummary>, bool), Error> {
        let mut nodes = match actor.is_administrator {
            true => self.all_nodes(request).await?,
            false => self.owned_nodes(actor, request).await?,
        };
        let has_more = nodes.len() > request.max;
        nodes.truncate(request.max);
        Ok((nodes, has_more))
    }

    /// Lists the nodes of the service that match the pattern. Returns at most one node more than requested, which shows
    /// that more nodes follow.
    async fn all_nodes(&self, request: &ManagedNodes) -> Result<Vec<NodeSummary>, Error> {
        let mut unread: PageRequest<NodeNumber> = PageRequest::first(PAGE);
        if let Some(after) = &request.after {
            unread.edge = PageBound::After(self.cursor(after, |_| true).await?);
        }
        let mut nodes = Vec::new();
        loop {
            let found = self.store.nodes(&unread).await.map_err(Error::Unknown)?;
            let found = self.state.quarantine_damaged(found);
            let Some((last, _)) = found.last() else { return Ok(nodes) };
            unread.edge = PageBound::After(*last);
            for (_, node) in found {
                if request.pattern.matches(node.node.as_str()) {
                    nodes.push(node);
                }
                if nodes.len() > request.max {
                    return Ok(nodes);
                }
            }
            yield_now().await;
        }
    }

    async fn owned_nodes(
        &self,
        actor: &Actor,
        request: &ManagedNodes,
    ) -> Result<Vec<NodeSummary>, Error> {
        let own = self.own_affiliations(actor, &OwnAffiliations { node: None }).await?;
        let mut own: Vec<_> = own
            .into_iter()
            .filter(|(_, affiliation)| *affiliation == Affiliation::Owner)
            .map(|(node, _)| node)
            .collect();
        if let Some(after) = &request.after {
            let mut names = discover::names_of_edge(after);
            let at = names.find_map(|name| own.iter().position(|node| *node == name));
            own.drain(..=at.ok_or(gjallar_pubsub::Error::ItemNotFound)?);
        }
        let mut nodes = Vec::new();
        for some in own.chunks(MATCHED) {
            for node in some.iter().filter(|node| request.pattern.matches(node.as_str())) {
                let found = self.store.summary(node).await;
                let found = found.map_err(|error| self.state.on_store_error(node, error))?;
                nodes.extend(found.map(|(_, summary)| summary));
                if nodes.len() > request.max {
                    return Ok(nodes);
                }
            }
            yield_now().await;
        }
        Ok(nodes)
    }

    /// Returns the cached nodes, each with its epoch and the sequence of its newest event.
    pub async fn node_sequences(&self) -> Vec<(NodeId, Epoch, Sequence)> {
        self.state.nodes.node_sequences().await
    }

    /// Returns `true` if an actor is an owner of any node.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn owns_a_node(&self, actor: &Actor) -> Result<bool, Error> {
        let own = self.own_affiliations(actor, &OwnAffiliations { node: None }).await?;
        Ok(own.iter().any(|(_, affiliation)| *affiliation == Affiliation::Owner))
    }

    /// Returns the pending subscription requests of a node (§8.7).
    ///
    /// # Errors
    /// As [`authorize::requests`].
    pub async fn requests(&self, actor: &Actor, id: &NodeId) -> Result<Vec<Jid>, Error> {
        let guard = self.lock_committed(id).await?;
        let found = authorize::requests(guard.node(), &self.context(&self.policies(), id, actor));
        self.resolve_redirect(id, found).await
    }

    /// Returns the affiliations and subscriptions of an entity, also those of other spellings of its domain. For
    /// administrators only.
    ///
    /// # Errors
    /// [`Forbidden`](gjallar_pubsub::Error::Forbidden) for other actors; an error of the store.
    pub async fn memberships(&self, actor: &Actor, entity: &BareJid) -> Result<Memberships, Error> {
        if !actor.is_administrator {
            return Err(gjallar_pubsub::Error::Forbidden.into());
        }
        let affiliations = self.affiliations_of(entity).await.map_err(Error::Unknown)?;
        let subscriptions = self.subscriptions_of(entity).await.map_err(Error::Unknown)?;
        let refuses = |address: BareJid| self.state.presences.has_refused(&address);
        let refuses_presence = entity.spellings().any(refuses);
        Ok(Memberships { affiliations, subscriptions, refuses_presence })
    }
}
