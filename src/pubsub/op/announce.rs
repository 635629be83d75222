//! Saying something to all subscribers of a node, in words: not an item, and nothing that the node keeps.

use crate::pubsub::{
    Audience, Changes, Context, Decision, Event, Node, NodeId, Notification, Recipients, Refusal,
    access, is_xml,
};

use super::existing;

/// Asks that subscribers be told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Those of which node.
    pub node: NodeId,
    /// What. It may have as many bytes as a payload.
    pub text: String,
}

/// Decides a request to announce something. All are told, whatever the node delivers and whatever their options say. The
/// reply is how many they are.
///
/// # Errors
/// [`Refusal::NodeNotFound`], [`Refusal::Forbidden`]; [`Refusal::BadRequest`] for no text, or one that is no XML;
/// [`Refusal::PayloadTooBig`].
pub fn announce(
    node: Option<&Node>,
    request: &Announce,
    cx: &Context<'_>,
) -> Result<Decision<usize>, Refusal> {
    let node = existing(node)?;
    access::may_configure(node, cx.actor)?;
    if request.text.trim().is_empty() || !is_xml(&request.text) {
        return Err(Refusal::BadRequest("a text is required"));
    }
    if request.text.len() > cx.limits().max_payload_bytes as usize {
        return Err(Refusal::PayloadTooBig { max: cx.limits().max_payload_bytes });
    }
    let mut changes = Changes::none(node);
    let special = node.specials().filter(|(_, special)| !special.is_pending);
    let special = Recipients::sorted(special.map(|(jid, _)| jid.clone()).collect());
    let event = Event::Announced(request.text.clone());
    let told = Notification::notice(node, &mut changes, event, Audience::Subscribers, cx.now);
    let mut notifications = vec![told.clone()];
    if !special.is_empty() {
        notifications.push(Notification { audience: Audience::Listed(special), ..told });
    }
    Ok(Decision { reply: node.subscribers_len(), changes, notifications })
}
