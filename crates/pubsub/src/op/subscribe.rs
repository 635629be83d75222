//! Subscription to nodes (§6.1).

use jid::Jid;

use std::borrow::Cow;

use crate::{
    Actor, Change, Changes, Context, Decision, DeliveryVariant, Error, IdGenerator, Item, LogEntry,
    Node, NodeConfig, NodeId, Operation, Prefetch, Prefetched, SubId, SubscribeAccess,
    SubscriptionDetails, SubscriptionOption, SubscriptionOptions, SubscriptionState, access,
    notify::state_changes::state_change_entries,
};

use super::{
    require_node,
    subscription_options::{OptionsForm, check_offered, has_lease, offers_body, options_change},
};

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["subscribe"];

/// Features that this use case announces in addition if a JID can have several subscriptions to a node.
pub const FEATURES_OF_MANY: &[&str] = &["multi-subscribe"];

/// Request to subscribe to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Name of the node.
    pub node: NodeId,
    /// Recipient of the notifications: the actor's bare JID or one of its full JIDs.
    pub jid: Jid,
    /// Options for the subscription, if the request has an options form (§6.3.7).
    pub settings: Option<Vec<SubscriptionOption>>,
    /// `true` if the subscription is public (XEP-0465).
    pub is_public: bool,
}

impl Operation for Subscribe {
    type Output = SubscribeReply;

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Subscriptions
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<SubscribeReply>, Error> {
        subscribe(node, self, prefetched.items.last(), cx)
    }
}

/// Reply to a subscribe request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeReply {
    /// Name of the node.
    pub node: NodeId,
    /// Subscribed or pending JID.
    pub jid: Jid,
    /// SubID, if the JID can have several subscriptions.
    pub subid: Option<SubId>,
    /// State of the subscription.
    pub state: SubscriptionState,
    /// Resulting options of the subscription, if the request has an options form.
    pub options: Option<OptionsForm>,
}

/// Decides a subscribe request, given the newest item.
///
/// If the JID is subscribed already, the reply repeats the state of the subscription (§6.1.2), and the last item is not
/// sent. Exception: if the service allows several subscriptions of a JID to a node, the request adds a subscription
/// (§6.1.6). If the access model requires approval, the owners are asked (§8.6).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::InvalidJid`], [`Error::Forbidden`], [`Error::ClosedNode`],
/// [`Error::PendingSubscription`], [`Error::Unsupported`], [`Error::TooManySubscriptions`],
/// [`Error::TooManyOwnSubscriptions`], [`Error::TooManySpecial`], [`Error::InvalidOptions`],
/// [`Error::ConfigurationRequired`].
pub fn subscribe(
    node: Option<&Node>,
    request: &Subscribe,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Result<Decision<SubscribeReply>, Error> {
    let node = require_node(node)?;
    let jid = &request.jid;
    if !access::is_self(cx.actor, &jid.to_bare()) {
        return Err(Error::InvalidJid);
    }
    let admission = access::may_subscribe(node, cx)?;
    let known = node.known_subscription(jid);
    match node.state_of(&known) {
        SubscriptionState::Subscribed => return resubscribe(node, request, &known, last, cx),
        SubscriptionState::Pending => return Err(Error::PendingSubscription),
        SubscriptionState::None => {}
    }
    access::may_begin_subscription(node, cx.actor)?;
    if node.subscribers_len() + node.pending_len() >= cx.limits().max_subscriptions {
        return Err(Error::TooManySubscriptions);
    }
    let has_enough = cx.actor_subscription_count >= cx.limits().max_subscriptions_per_jid;
    if has_enough && !cx.actor.is_administrator {
        return Err(Error::TooManyOwnSubscriptions);
    }
    let details = new_details(node, request, cx)?;
    if !has_lease(&details.options, cx) {
        return Err(Error::ConfigurationRequired);
    }
    let mut changes = Changes::none(node);
    let state = match admission {
        SubscribeAccess::Granted => {
            changes.push(Change::Subscribed(jid.clone()));
            SubscriptionState::Subscribed
        }
        SubscribeAccess::OnApproval => {
            changes.push(Change::SubscriptionRequested(jid.clone()));
            SubscriptionState::Pending
        }
    };
    if !is_plain(&details) {
        changes.push(options_change(node, jid.clone(), vec![details.clone()])?);
    }
    let mut notifications = state_change_entries(node, &node.config, &mut changes, cx);
    if admission == SubscribeAccess::Granted {
        let at = (changes.version() + 1, cx.ids.next_u64());
        notifications.extend(last_item(node, &node.config, last, (jid, &details), at));
    }
    Ok(Decision { reply: reply(node, request, &details, state), changes, notifications })
}

fn is_plain(details: &SubscriptionDetails) -> bool {
    details.subid.is_none() && details.options == SubscriptionOptions::default()
}

/// Decides a subscribe request for a JID that is subscribed already. Adds a subscription if the service allows several
/// subscriptions of a JID to a node. Otherwise sets the options, if the request has an options form. If the subscribed
/// JID (`known`) has another spelling of the domain (A-labels or U-labels) than the JID of the request, the
/// subscription moves to the JID of the request.
///
/// SPEC: an owner may have subscribed the entity with a spelling of the domain that the entity's server does not
/// recognize. The request has the spelling that the server recognizes.
fn resubscribe(
    node: &Node,
    request: &Subscribe,
    known: &Jid,
    last: Option<&Item>,
    cx: &Context<'_>,
) -> Result<Decision<SubscribeReply>, Error> {
    let mut all = node.details_of(known).into_owned();
    let mut changes = Changes::none(node);
    let is_moved = *known != request.jid;
    let adds_subscription = cx.limits().max_subids > 1;
    if adds_subscription {
        access::may_begin_subscription(node, cx.actor)?;
    }
    if adds_subscription && all.len() >= cx.limits().max_subids {
        return Err(Error::TooManySpecial);
    }
    let mut details = new_details(node, request, cx)?;
    if (adds_subscription || request.settings.is_some()) && !has_lease(&details.options, cx) {
        return Err(Error::ConfigurationRequired);
    }
    if adds_subscription {
        all.push(details.clone());
    } else if let Some(first) = all.first_mut() {
        let options = match request.settings {
            Some(_) => details.options,
            None => SubscriptionOptions { is_public: request.is_public, ..first.options.clone() },
        };
        details = first.renewed(options, node.sequence, cx.now);
        if details.options == first.options && !is_moved {
            let reply = reply(node, request, first, SubscriptionState::Subscribed);
            return Ok(Decision::without_entries(reply, changes));
        }
        *first = details.clone();
    }
    if is_moved {
        changes.push(Change::Unsubscribed(known.clone()));
        changes.push(Change::Subscribed(request.jid.clone()));
    }
    let is_new = |other: &&SubscriptionDetails| is_moved || adds_subscription && **other == details;
    let new_subscriptions: Vec<_> = all.iter().filter(is_new).cloned().collect();
    if !is_moved || !all.iter().all(is_plain) {
        changes.push(options_change(node, request.jid.clone(), all)?);
    }
    let mut notifications = match is_moved {
        true => state_change_entries(node, &node.config, &mut changes, cx),
        false => Vec::new(),
    };
    for details in &new_subscriptions {
        let at = (changes.version() + 1, cx.ids.next_u64());
        notifications.extend(last_item(node, &node.config, last, (&request.jid, details), at));
    }
    let reply = reply(node, request, &details, SubscriptionState::Subscribed);
    Ok(Decision { reply, changes, notifications })
}

fn new_details(
    node: &Node,
    request: &Subscribe,
    cx: &Context<'_>,
) -> Result<SubscriptionDetails, Error> {
    let settings = request.settings.as_deref().unwrap_or_default();
    check_offered(node, settings)?;
    let options =
        SubscriptionOptions { is_public: request.is_public, ..SubscriptionOptions::default() };
    let options = options.with(settings, cx.limits(), cx.now)?;
    let subid = (cx.limits().max_subids > 1).then(|| SubId::new(&cx.ids.next_id()));
    Ok(SubscriptionDetails::new(subid, options, node.sequence, cx.now))
}

fn reply(
    node: &Node,
    request: &Subscribe,
    details: &SubscriptionDetails,
    state: SubscriptionState,
) -> SubscribeReply {
    SubscribeReply {
        node: node.id.clone(),
        jid: request.jid.clone(),
        subid: details.subid.clone(),
        state,
        options: request.settings.as_ref().map(|_| OptionsForm {
            options: details.options.clone(),
            offers_body: offers_body(&node.config),
        }),
    }
}

/// Returns entries that send the last item to each pending subscription that becomes active by `changes`: an owner
/// approves the subscription, or the node no longer requires approval (§12.2). Returns none if `config`, the
/// configuration after the changes, does not send the last item to new subscribers. The subscriber may be unavailable
/// by now. So the item is sent only if the presence of the subscriber matches the `show-values` of the subscription.
/// SPEC: a JID that an owner subscribes does not receive the last item.
pub(super) fn last_items(
    node: &Node,
    config: &NodeConfig,
    last: Option<&Item>,
    changes: &Changes,
    ids: &dyn IdGenerator,
) -> Vec<LogEntry> {
    let is_sent = config.send_last_published_item.is_on_sub() && !changes.drop_all_items();
    let last = last.filter(|_| is_sent);
    let sent = changes.iter().flat_map(|change| match change {
        Change::Subscribed(jid) => {
            let details = node.details_of(jid);
            let item = |details| {
                let (last, at) = (last?, (changes.version() + 1, ids.next_u64()));
                LogEntry::of_item(node, config, last, (jid, details), at)
            };
            details.iter().filter_map(item).collect()
        }
        _ => Vec::new(),
    });
    sent.collect()
}

/// Returns the entry that sends the last item to a new subscription of a JID (§6.1.7). `at` has the fields
/// [`as_of`](LogEntry::as_of) and [`nonce`](LogEntry::nonce) of the entry. Availability is not checked: an entity that
/// subscribes or sends presence is available.
pub(super) fn last_item(
    node: &Node,
    config: &NodeConfig,
    last: Option<&Item>,
    subscriber: (&Jid, &SubscriptionDetails),
    at: (u64, u64),
) -> Option<LogEntry> {
    let last = last.filter(|_| config.send_last_published_item.is_on_sub())?;
    let sent = LogEntry::of_item(node, config, last, subscriber, at)?;
    Some(LogEntry { variant: DeliveryVariant { shows: None, ..sent.variant }, ..sent })
}
