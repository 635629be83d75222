//! Subscription options (§6.3), and their defaults (§6.4).

use jid::Jid;

use std::borrow::Cow;

use crate::{
    Actor, Change, Changes, Context, Decision, Error, Expire, IdGenerator, Node, NodeConfig,
    NodeId, Operation, Prefetched, SubId, SubscriptionDetails, SubscriptionOption,
    SubscriptionOptions, SubscriptionState, access,
};

use super::require_node;

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] =
    &["leased-subscription", "retrieve-default-sub", "subscription-options"];

/// Request for the options of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetOptions {
    /// Name of the node.
    pub node: NodeId,
    /// JID of the subscription.
    pub jid: Jid,
    /// SubID, if the JID has several subscriptions.
    pub subid: Option<SubId>,
}

/// Request to set the options of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetOptions {
    /// The subscription.
    pub of: GetOptions,
    /// Options to change; empty if the form was cancelled.
    pub settings: Vec<SubscriptionOption>,
}

impl Operation for SetOptions {
    type Output = ();

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.of.node))
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        _prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<()>, Error> {
        set_options(node, self, cx)
    }
}

/// Options of a subscription as a form shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionsForm {
    /// Present options.
    pub options: SubscriptionOptions,
    /// `true` if the form offers [`SubscriptionOptions::include_body`].
    pub offers_body: bool,
}

/// Returns the options of a subscription (§6.3.2).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`], [`Error::NoOptions`], [`Error::SubIdRequired`],
/// [`Error::InvalidSubId`].
pub fn options(
    node: Option<&Node>,
    request: &GetOptions,
    cx: &Context<'_>,
) -> Result<OptionsForm, Error> {
    let node = require_node(node)?;
    let (_, details) = configurable(node, request, cx.actor)?;
    let at = find(&details, request.subid.as_ref())?;
    let details = details.get(at).ok_or(Error::InvalidSubId)?;
    Ok(OptionsForm { options: details.options.clone(), offers_body: offers_body(&node.config) })
}

/// Returns the default options of subscriptions to a node (§6.4).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`].
pub fn default(node: Option<&Node>, cx: &Context<'_>) -> Result<OptionsForm, Error> {
    let node = require_node(node)?;
    access::may_discover(node, cx)?;
    Ok(OptionsForm {
        options: SubscriptionOptions::default(),
        offers_body: offers_body(&node.config),
    })
}

/// Decides a request to set the options of a subscription (§6.3.5), which also renews a lease (§12.19).
///
/// # Errors
/// As [`options`]; [`Error::InvalidOptions`], [`Error::TooManySpecial`].
pub fn set_options(
    node: Option<&Node>,
    request: &SetOptions,
    cx: &Context<'_>,
) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    let (jid, mut details) = configurable(node, &request.of, cx.actor)?;
    let at = find(&details, request.of.subid.as_ref())?;
    let mut changes = Changes::none(node);
    if let Some(details) = details.get_mut(at) {
        check_offered(node, &request.settings)?;
        let options = details.options.clone().with(&request.settings, cx.limits(), cx.now)?;
        if !has_lease(&options, cx) {
            return Err(Error::InvalidOptions("pubsub#expire: a lease is required".into()));
        }
        if options == details.options {
            return Ok(Decision::without_entries((), changes));
        }
        *details = details.renewed(options, node.sequence, cx.now);
    }
    changes.push(options_change(node, jid, details)?);
    Ok(Decision::without_entries((), changes))
}

/// Returns the JID whose subscriptions a request concerns, and these subscriptions, active or pending. The JID may
/// differ from the JID of the request in the spelling of its domain (A-labels or U-labels). Fails if the actor may not
/// configure these subscriptions.
fn configurable(
    node: &Node,
    of: &GetOptions,
    actor: &Actor,
) -> Result<(Jid, Vec<SubscriptionDetails>), Error> {
    if !access::is_self(actor, &of.jid.to_bare()) && !actor.is_administrator {
        return Err(Error::Forbidden);
    }
    let jid = node.known_subscription(&of.jid);
    if node.state_of(&jid) == SubscriptionState::None {
        return Err(Error::NoOptions);
    }
    let details = node.details_of(&jid).into_owned();
    Ok((jid, details))
}

/// Returns the index of the subscription that a request denotes. SPEC: a SubID is ignored if the subscription has none
/// (§6.2.3.5).
pub(super) fn find(details: &[SubscriptionDetails], subid: Option<&SubId>) -> Result<usize, Error> {
    match (details, subid) {
        ([_], None) => Ok(0),
        ([only], Some(_)) if only.subid.is_none() => Ok(0),
        (_, None) => Err(Error::SubIdRequired),
        (all, Some(subid)) => {
            let found = all.iter().position(|details| details.subid.as_ref() == Some(subid));
            found.ok_or(Error::InvalidSubId)
        }
    }
}

/// Returns `true` if the options have a lease or need none. SPEC: the only option that the service may require of a
/// subscription is a lease.
pub(super) fn has_lease(options: &SubscriptionOptions, cx: &Context<'_>) -> bool {
    !cx.limits().require_lease || options.expire != Expire::Never
}

/// Namespace of payloads with text that a notification can repeat in its message body.
pub const ATOM: &str = "http://www.w3.org/2005/Atom";

/// Returns `true` if a node can have items with text that a notification can repeat in its message body (§12.8).
///
/// SPEC: the service is to offer `include_body` only where it knows the payloads. It offers `include_body` at nodes
/// without `pubsub#type`, and at nodes whose type is the Atom namespace.
#[must_use]
pub fn offers_body(config: &NodeConfig) -> bool {
    config.r#type.is_empty() || config.r#type == ATOM
}

/// Checks that the node offers the options that a request sets.
pub(super) fn check_offered(node: &Node, settings: &[SubscriptionOption]) -> Result<(), Error> {
    let is_offered = |setting: &SubscriptionOption| {
        *setting != SubscriptionOption::IncludeBody(true) || offers_body(&node.config)
    };
    match settings.iter().all(is_offered) {
        true => Ok(()),
        false => {
            let text = "pubsub#include_body: not available for payloads of this type";
            Err(Error::InvalidOptions(text.into()))
        }
    }
}

/// Maximum number of JIDs with options or SubIDs at one node. For each event, the service evaluates the options of all
/// these JIDs.
const MAX_SPECIAL: usize = 100_000;
/// Maximum number of JIDs of one account with options or SubIDs at one node.
const MAX_OWN_SPECIAL: usize = 100;

/// Returns the change that sets the subscriptions of a JID.
///
/// # Errors
/// [`Error::TooManySpecial`].
pub(super) fn options_change(
    node: &Node,
    jid: Jid,
    details: Vec<SubscriptionDetails>,
) -> Result<Change, Error> {
    if node.configured_subscription(&jid).is_none() {
        let own = node.specials_of_account(&jid.to_bare());
        if node.specials_len() >= MAX_SPECIAL || own >= MAX_OWN_SPECIAL {
            return Err(Error::TooManySpecial);
        }
    }
    Ok(Change::SubscriptionOptionsSet(jid, details.into()))
}
