//! Authorization (§4.1, §4.5, §16.4.4). No other module decides access.

use jid::BareJid;

use crate::{
    AccessModel, Actor, Affiliation, Context, Error, Feature, Node, NodeConfig, PublishModel,
    RosterItem, administers,
};

/// Result of a check that an entity may subscribe: the way in which the node admits the subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeAccess {
    /// The subscription begins without approval.
    Granted,
    /// An owner has to approve the subscription (§8.6).
    OnApproval,
}

/// Checks that the actor may discover the node and its metadata (§5).
///
/// SPEC: the XEP leaves it to the service which entities may discover a node. An entity discovers a node from which it may
/// retrieve items, to which it may publish, or to which it may ask to subscribe. Therefore nodes with the access model
/// `authorize` are shown to all entities except outcasts.
///
/// # Errors
/// [`Error::Forbidden`].
pub fn may_discover(node: &Node, cx: &Context<'_>) -> Result<(), Error> {
    let affiliation = node.affiliation_of(&cx.actor.bare());
    let is_visible = cx.actor.is_administrator
        || is_visible(node.config.access_model, node.config.publish_model, affiliation)
        || may_publish(node, cx.actor).is_ok()
        || (affiliation != Affiliation::Outcast
            && node.config.access_model.reads_rosters()
            && may_subscribe(node, cx).is_ok());
    if is_visible { Ok(()) } else { Err(Error::Forbidden) }
}

/// Returns `true` if lists of nodes show a node to entities with this affiliation. SPEC: if the access model depends on
/// rosters and the publish model is not open, lists show the node only to entities with an affiliation. To decide for
/// other entities, the service would have to read the roster of each node's owner.
#[must_use]
pub(super) fn is_visible(
    model: AccessModel,
    publish_model: PublishModel,
    affiliation: Affiliation,
) -> bool {
    match (model, affiliation) {
        (_, Affiliation::Outcast) => false,
        _ if publish_model == PublishModel::Open => true,
        (AccessModel::Authorize | AccessModel::Open, _) => true,
        (AccessModel::Presence | AccessModel::Roster | AccessModel::Whitelist, affiliation) => {
            affiliation != Affiliation::None
        }
    }
}

/// Checks that the actor may subscribe (§6.1.3). If access depends on the roster of the node's owner, and the roster
/// cannot be read, entities that are already subscribed keep their access.
///
/// # Errors
/// [`Error::Forbidden`] for an outcast or publish-only entity, [`Error::ClosedNode`] for an entity that is not on the
/// whitelist, [`Error::PresenceRequired`], [`Error::NotInRosterGroup`].
pub fn may_subscribe(node: &Node, cx: &Context<'_>) -> Result<SubscribeAccess, Error> {
    if cx.actor.is_administrator {
        return Ok(SubscribeAccess::Granted);
    }
    let bare = cx.actor.bare();
    let affiliation = node.affiliation_of(&bare);
    let is_undecided = cx.owner_roster.is_none() && is_up_to_rosters(&node.config, affiliation);
    if is_undecided && is_subscribed(node, &bare) {
        return Ok(SubscribeAccess::Granted);
    }
    admits(&node.config, affiliation, contact(cx, &bare))
}

/// Returns the entry of an entity in the roster of the node's owner.
pub(super) fn contact<'a>(cx: &Context<'a>, entity: &BareJid) -> Option<&'a RosterItem> {
    cx.owner_roster.and_then(|contacts| contacts.get(entity))
}

/// Checks that the actor may retrieve items (§6.5.9): it may subscribe without approval, or it is subscribed to a node
/// where subscriptions need approval (§4.5).
///
/// # Errors
/// As [`may_subscribe`]; [`Error::SubscriptionRequired`].
pub fn may_retrieve(node: &Node, cx: &Context<'_>) -> Result<(), Error> {
    match may_subscribe(node, cx)? {
        SubscribeAccess::Granted => Ok(()),
        SubscribeAccess::OnApproval if is_subscribed(node, &cx.actor.bare()) => Ok(()),
        SubscribeAccess::OnApproval => Err(Error::SubscriptionRequired),
    }
}

/// Checks that an entity with this affiliation, and with this entry in the roster of the node's owner, may subscribe
/// and be notified. SPEC: owners, publishers and members need no approval (§6.1.4 leaves it to the service).
pub(super) fn admits(
    config: &NodeConfig,
    affiliation: Affiliation,
    contact: Option<&RosterItem>,
) -> Result<SubscribeAccess, Error> {
    let is_in_group = |contact: &RosterItem| {
        contact.groups.iter().any(|group| config.roster_groups_allowed.contains(group))
    };
    match (affiliation, config.access_model) {
        (Affiliation::Outcast | Affiliation::PublishOnly, _) => Err(Error::Forbidden),
        (_, AccessModel::Open) => Ok(SubscribeAccess::Granted),
        _ if affiliation.is_listed() => Ok(SubscribeAccess::Granted),
        (_, AccessModel::Authorize) => Ok(SubscribeAccess::OnApproval),
        (_, AccessModel::Presence) => match contact.is_some_and(|contact| contact.has_presence) {
            true => Ok(SubscribeAccess::Granted),
            false => Err(Error::PresenceRequired),
        },
        (_, AccessModel::Roster) => match contact.is_some_and(is_in_group) {
            true => Ok(SubscribeAccess::Granted),
            false => Err(Error::NotInRosterGroup),
        },
        (_, AccessModel::Whitelist) => Err(Error::ClosedNode),
    }
}

/// Returns `true` if an entity with this affiliation may subscribe without the approval of an owner (§12.2).
pub(super) fn is_eligible(
    config: &NodeConfig,
    entity: &BareJid,
    affiliation: Affiliation,
    cx: &Context<'_>,
) -> bool {
    administers(cx.administrators, entity)
        || (takes_subscriptions(config, affiliation)
            && admits(config, affiliation, contact(cx, entity)) == Ok(SubscribeAccess::Granted))
}

/// Returns `true` if a node accepts new subscriptions of entities with this affiliation (`pubsub#subscribe`). Owners
/// and publishers may always subscribe (§12.12).
pub(super) fn takes_subscriptions(config: &NodeConfig, affiliation: Affiliation) -> bool {
    config.subscribe || matches!(affiliation, Affiliation::Owner | Affiliation::Publisher)
}

/// Returns `true` if a subscriber with this affiliation may remain subscribed, as far as this can be decided without a
/// roster. The result is also `true` if only a roster can decide.
#[must_use]
pub fn may_stay(config: &NodeConfig, affiliation: Affiliation) -> bool {
    is_up_to_rosters(config, affiliation) || admits(config, affiliation, None).is_ok()
}

/// Returns `true` if an entity with this affiliation may have an implicit subscription (§12.2), as far as this can be
/// decided without a roster. The result is also `true` if only a roster can decide. So the entity does not lose its
/// pending notifications for lack of a roster.
#[must_use]
pub fn may_subscribe_implicitly(config: &NodeConfig, affiliation: Affiliation) -> bool {
    let is_admitted = || admits(config, affiliation, None) == Ok(SubscribeAccess::Granted);
    takes_subscriptions(config, affiliation)
        && (is_up_to_rosters(config, affiliation) || is_admitted())
}

/// Returns `true` if only a roster can decide on the access of an entity with this affiliation.
pub(super) fn needs_roster(
    config: &NodeConfig,
    entity: &BareJid,
    affiliation: Affiliation,
    cx: &Context<'_>,
) -> bool {
    is_up_to_rosters(config, affiliation)
        && takes_subscriptions(config, affiliation)
        && !administers(cx.administrators, entity)
}

/// Returns `true` if access of an entity with this affiliation depends on a roster.
pub(super) fn is_up_to_rosters(config: &NodeConfig, affiliation: Affiliation) -> bool {
    affiliation == Affiliation::None && config.access_model.reads_rosters()
}

/// Returns `true` if any JID of an entity is subscribed.
fn is_subscribed(node: &Node, entity: &BareJid) -> bool {
    node.subscriptions_of(entity).next().is_some()
}

/// Checks that the actor may publish (§7.1.3.1).
///
/// # Errors
/// [`Error::Forbidden`].
pub fn may_publish(node: &Node, actor: &Actor) -> Result<(), Error> {
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
    if allowed { Ok(()) } else { Err(Error::Forbidden) }
}

/// Checks that the node accepts new subscriptions of the actor (`pubsub#subscribe`). Owners and publishers may always
/// subscribe (§12.12).
///
/// # Errors
/// [`Error::Unsupported`].
pub(super) fn may_begin_subscription(node: &Node, actor: &Actor) -> Result<(), Error> {
    let affiliation = node.affiliation_of(&actor.bare());
    match actor.is_administrator || takes_subscriptions(&node.config, affiliation) {
        true => Ok(()),
        false => Err(Error::Unsupported(Feature::Subscribe)),
    }
}

/// Returns `true` if the actor may overwrite and retract the items of all publishers (§4.1).
pub(super) fn may_change_all_items(node: &Node, actor: &Actor) -> bool {
    actor.is_administrator || may_all_be_changed_by(node, &actor.bare())
}

/// Returns `true` if the affiliation of an entity lets it overwrite and retract the items of all publishers (§4.1).
pub(super) fn may_all_be_changed_by(node: &Node, entity: &BareJid) -> bool {
    matches!(node.affiliation_of(entity), Affiliation::Owner | Affiliation::Publisher)
}

/// Checks that the actor may overwrite or retract an item of this publisher (§4.1, §7.1.2, §7.2).
///
/// SPEC: an entity with the affiliation publisher may retract any item, as §4.1 allows. An entity whose right to
/// publish comes from the publish model, or from the affiliation publish-only, may overwrite and retract only its own
/// items: §7.1.2 speaks of an item that "the publisher previously published".
///
/// # Errors
/// [`Error::ForeignItem`].
pub(super) fn may_change_item(
    node: &Node,
    actor: &Actor,
    publisher: &BareJid,
) -> Result<(), Error> {
    match may_change_all_items(node, actor) || actor.bare() == *publisher {
        true => Ok(()),
        false => Err(Error::ForeignItem),
    }
}

/// Checks that the actor may administer the node: configure, purge and delete it, and manage affiliations and
/// subscriptions (§8).
///
/// SPEC: §4.1 lets a service allow publishers to purge, and §8.5.1 speaks of owners. In this service, only owners and
/// administrators may purge.
///
/// # Errors
/// [`Error::Forbidden`].
pub fn may_configure(node: &Node, actor: &Actor) -> Result<(), Error> {
    if actor.is_administrator || node.is_owner(&actor.bare()) {
        Ok(())
    } else {
        Err(Error::Forbidden)
    }
}

/// Returns `true` if an entity is the actor itself: the bare JIDs are the same (§6.1.3.1).
pub(super) fn is_self(actor: &Actor, entity: &BareJid) -> bool {
    actor.bare() == *entity
}
