//! Who may do what: the only authorisation code there is (§4.1, §4.5, §16.4.4).

use jid::BareJid;

use super::{AccessModel, Actor, Affiliation, Item, Node, NodeConfig, PublishModel, Refusal};

/// How a node takes somebody in who wants to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// At once.
    Granted,
    /// When an owner has approved it (§8.6).
    OnApproval,
}

/// Whether the actor may see that the node is there, and what it is about (§5).
///
/// SPEC: the XEP leaves this to the service. Who may neither retrieve nor publish sees nothing.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub fn may_discover(node: &Node, actor: &Actor) -> Result<(), Refusal> {
    let affiliation = node.affiliation_of(&actor.bare());
    if actor.is_administrator || is_visible(node.config.access_model, affiliation) {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    }
}

/// Whether a node shows itself to entities of an affiliation.
#[must_use]
pub(super) fn is_visible(model: AccessModel, affiliation: Affiliation) -> bool {
    match (model, affiliation) {
        (_, Affiliation::Outcast) | (AccessModel::Whitelist, Affiliation::None) => false,
        (AccessModel::Authorize | AccessModel::Open | AccessModel::Whitelist, _) => true,
    }
}

/// Whether the actor may subscribe (§6.1.3).
///
/// # Errors
/// [`Refusal::Forbidden`] for an outcast or publish-only entity, [`Refusal::ClosedNode`] off the list.
pub fn may_subscribe(node: &Node, actor: &Actor) -> Result<Admission, Refusal> {
    if actor.is_administrator {
        return Ok(Admission::Granted);
    }
    admits(&node.config, node.affiliation_of(&actor.bare()))
}

/// Whether the actor may retrieve items: exactly if it may subscribe, or is, where that has to be approved (§4.5,
/// §6.5.9).
///
/// # Errors
/// As [`may_subscribe`]; [`Refusal::SubscriptionRequired`].
pub fn may_retrieve(node: &Node, actor: &Actor) -> Result<(), Refusal> {
    match may_subscribe(node, actor)? {
        Admission::Granted => Ok(()),
        Admission::OnApproval if is_subscribed(node, &actor.bare()) => Ok(()),
        Admission::OnApproval => Err(Refusal::SubscriptionRequired),
    }
}

/// Whether a configuration lets an affiliation subscribe and receive. SPEC: those on the list need no approval
/// (§6.1.4 leaves it to the service).
pub(super) fn admits(config: &NodeConfig, affiliation: Affiliation) -> Result<Admission, Refusal> {
    match (affiliation, config.access_model) {
        (Affiliation::Outcast | Affiliation::PublishOnly, _) => Err(Refusal::Forbidden),
        (_, AccessModel::Open) => Ok(Admission::Granted),
        _ if affiliation.is_listed() => Ok(Admission::Granted),
        (_, AccessModel::Authorize) => Ok(Admission::OnApproval),
        (_, AccessModel::Whitelist) => Err(Refusal::ClosedNode),
    }
}

/// Whether any JID of an entity is subscribed.
fn is_subscribed(node: &Node, entity: &BareJid) -> bool {
    node.subscriptions_of(entity).next().is_some()
}

/// Whether the actor may publish (§7.1.3.1).
///
/// # Errors
/// [`Refusal::Forbidden`].
pub fn may_publish(node: &Node, actor: &Actor) -> Result<(), Refusal> {
    let bare = actor.bare();
    let allowed = match node.affiliation_of(&bare) {
        _ if actor.is_administrator => true,
        Affiliation::Owner | Affiliation::Publisher | Affiliation::PublishOnly => true,
        Affiliation::Outcast => false,
        Affiliation::Member | Affiliation::None => match node.config.publish_model {
            PublishModel::Open => true,
            PublishModel::Publishers => false,
            PublishModel::Subscribers => is_subscribed(node, &bare),
        },
    };
    if allowed { Ok(()) } else { Err(Refusal::Forbidden) }
}

/// Whether the actor may retract an item (§4.1, §7.2).
///
/// SPEC: a publisher may retract any item, as §4.1 allows; everyone but an outcast its own.
pub(super) fn may_retract(node: &Node, actor: &Actor, item: &Item) -> Result<(), Refusal> {
    let bare = actor.bare();
    let allowed = match node.affiliation_of(&bare) {
        _ if actor.is_administrator => true,
        Affiliation::Owner | Affiliation::Publisher => true,
        Affiliation::PublishOnly | Affiliation::Member | Affiliation::None => {
            item.publisher == bare
        }
        Affiliation::Outcast => false,
    };
    if allowed { Ok(()) } else { Err(Refusal::Forbidden) }
}

/// Whether the actor may do what only owners may: configure, purge, delete, and manage affiliations
/// and subscriptions (§8).
///
/// SPEC: §4.1 lets a service allow publishers to purge; §8.5.1 speaks of owners. Owners it is.
///
/// # Errors
/// [`Refusal::Forbidden`].
pub fn may_configure(node: &Node, actor: &Actor) -> Result<(), Refusal> {
    if actor.is_administrator || node.affiliation_of(&actor.bare()) == Affiliation::Owner {
        Ok(())
    } else {
        Err(Refusal::Forbidden)
    }
}

/// Whether the actor speaks for a JID: its own bare JID or one of its resources (§6.1.3.1).
pub(super) fn is_self(actor: &Actor, entity: &BareJid) -> bool {
    actor.bare() == *entity
}
