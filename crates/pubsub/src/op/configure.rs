//! Configuration of nodes (§8.2), and the default configuration (§8.3).

use jid::BareJid;

use std::borrow::Cow;

use crate::{
    AccessModel, Actor, Change, Changes, ConfigField, ConfigRevision, Configuration, Context,
    Decision, Error, Event, IdGenerator, Item, LogEntry, Node, NodeConfig, NodeId, Operation,
    Policy, Prefetch, Prefetched, SeenConfig, access,
    notify::{fanout::Fanout, state_changes::state_change_entries},
};

use super::{reevaluate_all, require_node, subscribe};

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["config-node", "config-node-max", "retrieve-default"];

/// Request to configure a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configure {
    /// Name of the node.
    pub node: NodeId,
    /// Fields to change; empty if the form was cancelled (§8.2.4).
    pub settings: Vec<ConfigField>,
    /// Revision of the configuration that the requester has seen, if the form contains it.
    pub seen: Option<SeenConfig>,
}

impl Operation for Configure {
    type Output = bool;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn prefetch<'a>(&'a self, actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Configuration(actor, self)
    }

    fn check_access(&self, node: &Node, cx: &Context<'_>) -> Result<(), Error> {
        access::may_configure(node, cx.actor)
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<bool>, Error> {
        configure(node, self, prefetched.items.last(), cx)
    }
}

/// Removal of an entity from the configuration of a node.
#[derive(Clone, Copy, Debug)]
pub struct RemoveEntity<'a> {
    /// Node.
    pub node: &'a NodeId,
    /// Entity.
    pub entity: &'a BareJid,
}

impl Operation for RemoveEntity<'_> {
    type Output = ();

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(self.node))
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        _prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<()>, Error> {
        remove_entity(node, self.entity, cx)
    }
}

/// Returns the effective configuration of a node under the current limits, for an entity that may change it (§8.2.1).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn configuration(node: Option<&Node>, cx: &Context<'_>) -> Result<Configuration, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let seen = SeenConfig { epoch: node.epoch, number: node.revision.number };
    Ok(Configuration { config: node.config.clone().within(cx.limits()), seen })
}

/// Returns two results for a configure request of the entity `by`. The first is `true` if access depends on a roster
/// before or after the request. The second is the owner whose roster gives access after the request.
#[must_use]
pub fn roster_after<'a>(
    node: &'a Node,
    request: &Configure,
    policy: &Policy,
    by: &'a BareJid,
) -> (bool, Option<&'a BareJid>) {
    let settings = &request.settings;
    let config = policy.configured(&node.config, settings);
    let config = config.unwrap_or_else(|_| node.config.clone());
    let models = [node.config.access_model, config.access_model];
    let owner = roster_chooser(node, &config, settings, by).or_else(|| node.roster_owner());
    (models.into_iter().any(AccessModel::reads_rosters), owner)
}

/// Returns the requester if it is an owner and chooses with these fields that its roster gives access. Setting a new
/// access model that depends on rosters is such a choice. So is a change of the allowed groups under such a model.
/// While no owner's roster gives access, fields that repeat the present access model or groups are a choice too.
///
/// Exception: a node from store layout 9 may have several owners of whom none has made such a choice. At this node,
/// repeated fields are a choice only if the request has no other fields. Other fields show that the client submitted
/// the whole form for another purpose, and a choice would end the subscriptions of the other owners' contacts.
fn roster_chooser<'a>(
    node: &Node,
    config: &NodeConfig,
    settings: &[ConfigField],
    by: &'a BareJid,
) -> Option<&'a BareJid> {
    let is_named = |setting: &ConfigField| {
        matches!(setting, ConfigField::AccessModel(_) | ConfigField::RosterGroupsAllowed(_))
    };
    let is_vacant = || match node.revision.roster_owner {
        Some(_) => node.roster_owner().is_none() && settings.iter().any(is_named),
        None => !settings.is_empty() && settings.iter().all(is_named),
    };
    let is_chosen =
        config.access_model.reads_rosters() && (has_other_access(node, config) || is_vacant());
    Some(by).filter(|by| is_chosen && node.is_owner(by))
}

/// Returns `true` if the access model or the allowed roster groups differ from those of the node.
fn has_other_access(node: &Node, config: &NodeConfig) -> bool {
    config.access_model != node.config.access_model
        || config.roster_groups_allowed != node.config.roster_groups_allowed
}

/// Decides a configure request. Pending subscribers that need no approval under the new configuration are subscribed
/// and sent the newest item (`last`).
///
/// Items past a lowered `max_items`, and all items if the node no longer keeps items, are evicted without an event. The
/// reply is `true` if anything changes.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`], [`Error::BadSetting`], [`Error::UnsupportedAccessModel`];
/// [`Error::ChangedMeanwhile`] if another entity changed the configuration since the requester saw it. This check is
/// skipped if the revision in the form belongs to another node, or to an earlier node of this name.
pub fn configure(
    node: Option<&Node>,
    request: &Configure,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Result<Decision<bool>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let by = cx.actor.bare();
    let seen = request.seen.filter(|seen| seen.epoch == node.epoch);
    let config = cx.policy.configured(&node.config, &request.settings)?;
    let chooser = roster_chooser(node, &config, &request.settings, &by);
    let mut changes = Changes::none(node);
    if config == node.config && chooser.is_none() {
        return Ok(Decision::without_entries(false, changes));
    }
    if seen.is_some_and(|seen| !node.revision.is_known(&by, seen.number)) {
        return Err(Error::ChangedMeanwhile);
    }
    if chooser.is_some() || config.access_model != node.config.access_model {
        config.check_model(cx)?;
    }
    let mut revision = node.revision.next(&by, node.is_owner(&by));
    if let Some(chooser) = chooser {
        revision.roster_owner = Some(chooser.clone());
    }
    config.check_size(&node.id, &node.creator, &revision)?;
    let retention = config.eviction(cx.limits());
    if retention != node.config.eviction(cx.limits()) {
        changes.push(retention);
    }
    if chooser.is_some() || has_other_access(node, &config) {
        reevaluate_all(node, &config, &mut changes, cx);
    }
    let mut notifications = state_change_entries(node, &config, &mut changes, cx);
    notifications.extend(subscribe::last_items(node, &config, last, &changes, cx.ids));
    notifications.extend(apply(node, &config, revision, &mut changes, cx)?);
    Ok(Decision { reply: true, changes, notifications })
}

/// Adds the changes that give a node another configuration. Returns the notifications for its subscribers; none if
/// `pubsub#notify_config` is false.
fn apply(
    node: &Node,
    config: &NodeConfig,
    revision: ConfigRevision,
    changes: &mut Changes,
    cx: &Context<'_>,
) -> Result<Vec<LogEntry>, Error> {
    let at = (changes.next_event_id(node.epoch), changes.version());
    changes.push(Change::Configured(Box::new(config.clone())));
    changes.push(Change::Revised(revision));
    if !config.notify_config {
        return Ok(Vec::new());
    }
    let shown = config.deliver_payloads.then(|| Box::new(config.clone()));
    let entries = Fanout::new(node, config, cx).notify(at, Event::Configured(shown))?;
    Ok(entries.into_iter().collect())
}

/// Returns the decision that removes an entity, in every spelling of its domain, from the contacts of a node and from
/// the revision of the node's configuration. After that, the roster of the entity gives no access, even if the entity
/// is still an owner.
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`]; [`Error::TooManyNotifications`].
pub fn remove_entity(
    node: Option<&Node>,
    entity: &BareJid,
    cx: &Context<'_>,
) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    let mut changes = Changes::none(node);
    let mut config = node.config.clone();
    config.contact.retain(|contact| !contact.to_bare().is_same(entity));
    if config != node.config {
        let by = cx.actor.bare();
        let revision = node.revision.next(&by, node.is_owner(&by)).without(entity, &node.creator);
        let notifications = apply(node, &config, revision, &mut changes, cx)?;
        return Ok(Decision { reply: (), changes, notifications });
    }
    let revision = node.revision.clone().without(entity, &node.creator);
    if revision != node.revision {
        changes.push(Change::Revised(revision));
    }
    Ok(Decision::without_entries((), changes))
}
