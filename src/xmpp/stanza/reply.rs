//! Content of successful replies.

use std::sync::Arc;

use jid::{BareJid, Jid};
use xmpp_parsers::data_forms::DataFormType;

use crate::xmpp::{
    stanza::{
        forms::{self, node_config, subscribe_options},
        ns, rsm,
    },
    xml::writer::ElementWriter,
};
use gjallar_pubsub::{
    Affiliation, Configuration, Item, Limits, NodeConfig, NodeId, ResultPage, SubId, Subscription,
    SubscriptionState,
    op::{
        affiliations::SetAffiliationsReply,
        create::CreateReply,
        publish::PublishReply,
        retrieve::{Retrieve, Retrieved, Selection},
        subscribe::SubscribeReply,
        subscription_options::{GetOptions, OptionsForm},
        subscriptions::SetSubscriptionsReply,
        unsubscribe::Unsubscribe,
    },
    written_len,
};

fn pubsub(content: ElementWriter) -> ElementWriter {
    ElementWriter::ns("pubsub", ns::PUBSUB).child(content)
}

fn owner(content: ElementWriter) -> ElementWriter {
    ElementWriter::ns("pubsub", ns::PUBSUB_OWNER).child(content)
}

/// Returns the reply to a create request (§8.1.2). The reply names the node even if the request named it, as with most
/// services.
#[must_use]
pub fn created(created: &CreateReply) -> ElementWriter {
    pubsub(ElementWriter::new("create").attr("node", created.node.as_str()))
}

/// Returns the reply to a publish request (§7.1.2).
#[must_use]
pub fn published(published: &PublishReply) -> ElementWriter {
    let items = published.items.iter().map(|id| ElementWriter::new("item").attr("id", id.as_str()));
    pubsub(ElementWriter::new("publish").attr("node", published.node.as_str()).children(items))
}

/// Returns the reply to a subscribe request (§6.1.2).
#[must_use]
pub fn subscribed(subscribed: &SubscribeReply) -> ElementWriter {
    let SubscribeReply { node, jid, subid, state, options } = subscribed;
    let options = options.as_ref().map(|offered| {
        ElementWriter::new("options").child(subscribe_options::form(DataFormType::Result_, offered))
    });
    pubsub(subscription(node, jid, subid.as_ref(), *state)).children(options)
}

/// Returns the options of a subscription (§6.3.2).
#[must_use]
pub fn options(of: &GetOptions, offered: &OptionsForm) -> ElementWriter {
    let options = ElementWriter::new("options")
        .attr("node", of.node.as_str())
        .attr("jid", of.jid.as_str())
        .attr_if("subid", of.subid.as_ref().map(SubId::as_str));
    pubsub(options.child(subscribe_options::form(DataFormType::Form, offered)))
}

/// Returns the default options (§6.4.2).
#[must_use]
pub fn default_options(node: Option<&NodeId>, offered: &OptionsForm) -> ElementWriter {
    let default = ElementWriter::new("default").attr_if("node", node.map(NodeId::as_str));
    pubsub(default.child(subscribe_options::form(DataFormType::Form, offered)))
}

/// Returns the reply to an unsubscribe request (§6.2.2).
#[must_use]
pub fn unsubscribed(unsubscribed: &Unsubscribe) -> ElementWriter {
    let Unsubscribe { node, jid, subid } = unsubscribed;
    pubsub(subscription(node, jid, subid.as_ref(), SubscriptionState::None))
}

fn subscription(
    node: &NodeId,
    jid: &Jid,
    subid: Option<&SubId>,
    state: SubscriptionState,
) -> ElementWriter {
    ElementWriter::new("subscription")
        .attr("node", node.as_str())
        .attr("jid", jid.as_str())
        .attr_if("subid", subid.map(SubId::as_str))
        .attr("subscription", state.as_str())
}

/// Returns the content versions of items (XEP-0395 §3.1). SPEC: text and example of XEP-0395 differ in the names of the
/// entries; the names here are those of the text.
fn content_versions(items: &[Arc<Item>]) -> Option<ElementWriter> {
    let map = ElementWriter::ns("cap-v-map", ns::CAP);
    let entry = |map: ElementWriter, item: &Arc<Item>| {
        map.with("cap-v-map-entry", |entry| {
            let value = item.archive_id().to_string();
            entry.attr("item-id", item.id.as_str()).attr("cap-value", &value)
        })
    };
    (!items.is_empty()).then(|| items.iter().fold(map, entry))
}

/// Returns the items of a node (§6.5.2).
#[must_use]
pub fn items(request: &Retrieve, found: &Retrieved, limits: &Limits) -> ElementWriter {
    let Retrieved { part, attribution } = found;
    let rendered = part.entries.iter().map(|item| {
        ElementWriter::new("item")
            .attr("id", item.id.as_str())
            .attr_if("publisher", attribution.publisher_of(item).map(|jid| jid.as_str()))
            .children(item.payload.as_ref().map(|payload| payload.xml()))
    });
    // If items are left out, the requester can continue from the described page (§6.5.4).
    let is_noted = matches!(request.selection, Selection::Page(_)) || !part.is_whole();
    let is_backward = match &request.selection {
        Selection::Page(page) => page.is_backward(),
        Selection::Ids(_) | Selection::Recent(_) => true,
    };
    let by = request.order.by;
    let uid = |item: &Arc<Item>| match is_backward {
        true => by.uid_of_end(item, &part.entries),
        false => by.uid(item).to_string(),
    };
    let set = is_noted.then(|| rsm::set(part, uid));
    let items = ElementWriter::new("items").attr("node", request.node.as_str()).children(rendered);
    let content = if limits.includes_content_ids { content_versions(&part.entries) } else { None };
    pubsub(items.children(content)).children(set)
}

/// Returns the configuration of a node as a form (§8.2.2).
#[must_use]
pub fn configuration(
    node: &NodeId,
    shown: &Configuration,
    offered_groups: Option<&[String]>,
) -> ElementWriter {
    let form = forms::render(&node_config::form_of(shown, offered_groups));
    owner(ElementWriter::new("configure").attr("node", node.as_str()).child(form))
}

/// Returns the default configuration as a form (§8.3.2).
#[must_use]
pub fn default(config: &NodeConfig, offered_groups: Option<&[String]>) -> ElementWriter {
    let form = node_config::form(config, offered_groups);
    owner(ElementWriter::new("default").child(form))
}

/// Returns the affiliations of a node (§8.9.1).
#[must_use]
pub fn affiliations<'a>(
    node: &NodeId,
    entries: impl IntoIterator<Item = (&'a str, Affiliation)>,
) -> ElementWriter {
    let entries = entries.into_iter().map(|(entity, affiliation)| {
        ElementWriter::new("affiliation")
            .attr("jid", entity)
            .attr("affiliation", affiliation.as_str())
    });
    owner(ElementWriter::new("affiliations").attr("node", node.as_str()).children(entries))
}

/// Returns the affiliations that could not be set (§8.9.2.4).
#[must_use]
pub fn affiliations_failed(set: &SetAffiliationsReply) -> ElementWriter {
    affiliations(
        &set.node,
        set.failed.iter().map(|(jid, affiliation)| (jid.as_str(), *affiliation)),
    )
}

/// Returns the subscriptions of a node (§8.8.1).
#[must_use]
pub fn subscriptions<'a>(
    node: &NodeId,
    entries: impl IntoIterator<Item = (&'a str, Option<&'a SubId>, SubscriptionState)>,
) -> ElementWriter {
    let entries = entries.into_iter().map(|(jid, subid, state)| {
        ElementWriter::new("subscription")
            .attr("jid", jid)
            .attr_if("subid", subid.map(SubId::as_str))
            .attr("subscription", state.as_str())
    });
    owner(ElementWriter::new("subscriptions").attr("node", node.as_str()).children(entries))
}

/// Returns the subscriptions that could not be set (§8.8.2.4).
#[must_use]
pub fn subscriptions_failed(set: &SetSubscriptionsReply) -> ElementWriter {
    let failed = set.failed.iter();
    subscriptions(
        &set.node,
        failed.map(|(jid, subid, state)| (jid.as_str(), subid.as_ref(), *state)),
    )
}

/// Returns the requester's affiliations (§5.7.2).
#[must_use]
pub fn own_affiliations(node: Option<&NodeId>, entries: &[(NodeId, Affiliation)]) -> ElementWriter {
    let entries = entries.iter().map(|(node, affiliation)| {
        ElementWriter::new("affiliation")
            .attr("node", node.as_str())
            .attr("affiliation", affiliation.as_str())
    });
    let list = ElementWriter::new("affiliations").attr_if("node", node.map(NodeId::as_str));
    pubsub(list.children(entries))
}

/// Returns the requester's subscriptions (§5.6.2).
#[must_use]
pub fn own_subscriptions(
    node: Option<&NodeId>,
    entries: &[(NodeId, Subscription)],
) -> ElementWriter {
    let entry = |(node, own): &(NodeId, Subscription)| {
        subscription(node, &own.jid, own.subid.as_ref(), own.state)
    };
    let list = ElementWriter::new("subscriptions").attr_if("node", node.map(NodeId::as_str));
    pubsub(list.children(entries.iter().map(entry)))
}

/// Returns an upper bound of the number of bytes of an entry of [`public_subscribers`]. The entry contains the JID
/// twice.
#[must_use]
pub fn public_subscriber_len(jid: &BareJid) -> usize {
    let empty = "<item id=''><subscriber xmlns='' jid=''/></item>".len() + ns::PPS.len();
    empty + 2 * written_len(jid.as_str())
}

/// Returns the public subscribers of a node as items (XEP-0465 §4.4).
#[must_use]
pub fn public_subscribers(request: &Retrieve, part: &ResultPage<BareJid>) -> ElementWriter {
    let items = part.entries.iter().map(|jid| {
        let subscriber = ElementWriter::ns("subscriber", ns::PPS).attr("jid", jid.as_str());
        ElementWriter::new("item").attr("id", jid.as_str()).child(subscriber)
    });
    let is_noted = !matches!(request.selection, Selection::Ids(_)) || !part.is_whole();
    let set = is_noted.then(|| rsm::set(part, ToString::to_string));
    pubsub(ElementWriter::new("items").attr("node", request.node.as_str()).children(items))
        .children(set)
}
