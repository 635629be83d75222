//! Deletion of nodes (§8.4).

use jid::Jid;

use std::borrow::Cow;

use crate::{
    Actor, Audience, Change, Changes, Context, Decision, Error, Event, FormerNode, IdGenerator,
    LogEntry, Node, NodeConfig, NodeId, Operation, Prefetch, Prefetched, Recipients, access,
    event::MAX_LISTED, notify::fanout::Fanout,
};

use super::require_node;

/// Features that this use case announces in service discovery.
pub const FEATURES: &[&str] = &["delete-nodes"];

/// Request to delete a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Name of the node.
    pub node: NodeId,
    /// URI of the replacement of the node, usually another node. The event for subscribers and the errors of later
    /// requests contain the URI (§8.4.2).
    pub redirect: Option<String>,
}

impl Operation for Delete {
    type Output = ();

    fn node(&self, _ids: &dyn IdGenerator) -> Result<Cow<'_, NodeId>, Error> {
        Ok(Cow::Borrowed(&self.node))
    }

    fn prefetch<'a>(&'a self, _actor: &'a Actor) -> Prefetch<'a> {
        Prefetch::Deletion
    }

    fn decide(
        &self,
        _id: &NodeId,
        node: Option<&Node>,
        prefetched: &Prefetched,
        cx: &Context<'_>,
    ) -> Result<Decision<()>, Error> {
        delete(node, self, prefetched.redirects, cx)
    }
}

/// Maximum number of deleted nodes with a redirect.
pub const MAX_REDIRECTS: usize = 1_000_000;
/// Maximum number of deleted nodes with a redirect that are counted against one owner ([share](FormerNode::share)).
/// Does not apply to deletions by an administrator.
pub const MAX_OWN_REDIRECTS: usize = 10_000;

/// Numbers of deleted nodes with a redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedirectCounts {
    /// Number of all deleted nodes with a redirect.
    pub all: usize,
    /// Number of deleted nodes with a redirect that are already counted against the owner against whom this deletion
    /// will be counted ([share](FormerNode::share)).
    pub own: usize,
}

/// Maximum bytes of the URI of a redirect.
const MAX_URI_BYTES: usize = 2048;

/// Decides a delete request. `redirects` counts the deleted nodes with a redirect: all of them, and those of the owner.
/// The audience of the event are the subscribers, including pending ones. Later requests for the node return the
/// redirect ([`Error::Gone`]). Without a redirect, the name is reserved ([`FormerNode`]), unless the node is
/// [unused](Node::is_unused).
///
/// # Errors
/// [`Error::NodeNotFound`], [`Error::Forbidden`], [`Error::TooManyRedirects`]; [`Error::BadRequest`] if the redirect is
/// not an absolute URI of at most 2 048 bytes, or points to the node itself.
pub fn delete(
    node: Option<&Node>,
    request: &Delete,
    redirects: RedirectCounts,
    cx: &Context<'_>,
) -> Result<Decision<()>, Error> {
    let node = require_node(node)?;
    access::may_configure(node, cx.actor)?;
    if let Some(uri) = &request.redirect {
        check_uri(uri)?;
        if cx.service.is_some_and(|service| is_uri_of(uri, service, &node.id)) {
            return Err(Error::BadRequest("the redirect points to the deleted node itself"));
        }
        let has_enough = redirects.own >= MAX_OWN_REDIRECTS && !cx.actor.is_administrator;
        if has_enough || redirects.all >= MAX_REDIRECTS {
            return Err(Error::TooManyRedirects);
        }
    }
    let mut changes = Changes::none(node);
    let leaves_record = request.redirect.is_some() || !node.is_unused();
    let former = leaves_record.then(|| FormerNode::of(node, request.redirect.clone(), cx));
    changes.push(Change::Deleted(former.map(Box::new)));
    let event = Event::Deleted { redirect: request.redirect.clone() };
    let mut notifications = Vec::new();
    if node.config.notify_delete {
        let pending = Recipients::sorted(node.pending().cloned().collect());
        for some in pending.chunks(MAX_LISTED) {
            let (event, to_pending) = (event.clone(), Audience::Explicit(some));
            let notice = LogEntry::for_entities(node, &mut changes, event, to_pending, cx.now);
            notifications.push(notice);
        }
        let at = (changes.next_event_id(node.epoch), changes.version());
        // A node that delivers no notifications still announces its deletion, which ends the subscriptions (§8.4.2).
        let config = NodeConfig { deliver_notifications: true, ..node.config.clone() };
        notifications.extend(Fanout::new(node, &config, cx).notify(at, event)?);
    }
    Ok(Decision { reply: (), changes, notifications })
}

/// Checks that a redirect is an absolute URI of any scheme. §8.4.2: "Typically this is an XMPP URI or IRI …, but it can
/// be an HTTP URI or any other scheme."
fn check_uri(uri: &str) -> Result<(), Error> {
    if uri.len() > MAX_URI_BYTES {
        return Err(Error::BadRequest("the redirect URI has more than 2048 bytes"));
    }
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    let is_text = |c: char| !c.is_whitespace() && !c.is_control() && !"<>\"{}|\\^`".contains(c);
    match uri.split_once(':') {
        Some((scheme, rest))
            if is_scheme(scheme) && !rest.is_empty() && rest.chars().all(is_text) =>
        {
            Ok(())
        }
        _ => Err(Error::BadRequest(
            "the redirect must be an absolute URI, such as xmpp:pubsub.example.org?;node=other",
        )),
    }
}

/// Returns `true` if a URI names a node of a service: `xmpp:pubsub.example.org?;node=NAME` (RFC 5122, XEP-0060 §12.22).
fn is_uri_of(uri: &str, service: &Jid, node: &NodeId) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // An authority names the account that sends the request, not the service.
    let path = match path.strip_prefix("//") {
        Some(authority) => authority.split_once('/').map_or("", |(_, path)| path),
        None => path,
    };
    let is_service = |path: &String| Jid::prepare(path).is_ok_and(|jid| jid == *service);
    let named = query.split(';').find_map(|pair| pair.strip_prefix("node="));
    scheme.eq_ignore_ascii_case("xmpp")
        && decoded(path).as_ref().is_some_and(is_service)
        && named.and_then(decoded).is_some_and(|name| name == node.as_str())
}

/// Decodes a percent-encoded part of a URI (RFC 3986 §2.1); `None` if it is not UTF-8.
fn decoded(part: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(part.len()), part.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
