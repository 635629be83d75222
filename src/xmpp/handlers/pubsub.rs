//! What is answered to those who ask and change nothing.

use jid::{BareJid, Jid};
use minidom::Element;

use crate::{
    service::{Error, Service},
    xmpp::{
        handlers::adhoc::AdHocCommands,
        stanza::{
            disco, ns, reply,
            request::{self, GetRequest},
            rsm,
        },
        xml::writer::ElementWriter,
    },
};
use gjallar_pubsub::{
    Actor, Affiliation, ItemId, NodeId, PageRequest, ResultPage, SubId, Subscription,
    SubscriptionOptions, byte_budget,
    op::{
        public_subscriptions,
        retrieve::{Retrieve, Selection},
        subscription_options::OptionsForm,
    },
};

/// Answers a question of XEP-0060.
pub(in crate::xmpp) async fn answer(
    service: &Service,
    actor: &Actor,
    question: GetRequest,
) -> Result<ElementWriter, Error> {
    let max_bytes = service.policies().limits().max_reply_bytes;
    Ok(match question {
        GetRequest::Affiliations(node, page) => {
            let entries = service.affiliations(actor, &node).await?;
            let by = |(entity, _): &(BareJid, Affiliation)| entity.to_string();
            let (entries, set) = rsm::part_of(entries, page.as_ref(), by, max_bytes)?;
            let entries = entries.iter().map(|(entity, one)| (entity.as_str(), *one));
            reply::affiliations(&node, entries).children(set)
        }
        GetRequest::Configuration(node) => {
            let config = service.configuration(actor, &node).await?;
            reply::configuration(&node, &config, service.offered_groups(actor).as_deref())
        }
        GetRequest::Default => {
            let initial = service.policies().default_policy().initial();
            reply::default(&initial, service.offered_groups(actor).as_deref())
        }
        GetRequest::DefaultOptions(Some(node)) => {
            let offered = service.default_options(actor, &node).await?;
            reply::default_options(Some(&node), &offered)
        }
        GetRequest::DefaultOptions(None) => {
            let offered =
                OptionsForm { options: SubscriptionOptions::default(), offers_body: true };
            reply::default_options(None, &offered)
        }
        GetRequest::Options(of) => reply::options(&of, &service.options(actor, &of).await?),
        GetRequest::OwnAffiliations(request, page) => {
            let own = service.own_affiliations(actor, &request).await?;
            let by = |(node, _): &(NodeId, Affiliation)| node.to_string();
            let (own, set) = rsm::part_of(own, page.as_ref(), by, max_bytes)?;
            reply::own_affiliations(request.node.as_ref(), &own).children(set)
        }
        GetRequest::OwnSubscriptions(request, page) => {
            let own = service.own_subscriptions(actor, &request).await?;
            // No JID has a line break, so no two entries are told by the same.
            let by = |(node, own): &(NodeId, Subscription)| {
                let subid = own.subid.as_ref().map_or("", SubId::as_str);
                format!("{}\n{subid}\n{node}", own.jid)
            };
            let (own, set) = rsm::part_of(own, page.as_ref(), by, max_bytes)?;
            reply::own_subscriptions(request.node.as_ref(), &own).children(set)
        }
        GetRequest::Retrieve(request) => retrieve(service, actor, &request).await?,
        GetRequest::Subscriptions(node, page) => {
            let part = match &page {
                Some(page) => {
                    let fits = rsm::fitting(Subscription::uid, max_bytes);
                    service.subscriptions(actor, &node, page, fits).await?
                }
                None => {
                    let all = PageRequest::first(usize::MAX);
                    service.subscriptions(actor, &node, &all, |_| true).await?
                }
            };
            let set = page.map(|_| rsm::set(&part, Subscription::uid));
            let all = part.entries.iter();
            let all = all.map(|own| (own.jid.as_str(), own.subid.as_ref(), own.state));
            reply::subscriptions(&node, all).children(set)
        }
    })
}

async fn retrieve(
    service: &Service,
    actor: &Actor,
    request: &Retrieve,
) -> Result<ElementWriter, Error> {
    if let Some(node) = public_subscriptions::subscribed_node(&request.node) {
        return public_subscribers(service, actor, &node, request).await;
    }
    let items = service.retrieve(actor, request).await?;
    if is_cut(&items.part, &request.selection) {
        service.note_truncation(actor, Some(&request.node));
    }
    Ok(reply::items(request, &items, service.policies().limits()))
}

/// Shows the public subscribers of a node as the items of another one (XEP-0465).
async fn public_subscribers(
    service: &Service,
    actor: &Actor,
    node: &NodeId,
    request: &Retrieve,
) -> Result<ElementWriter, Error> {
    let mut public = service.public_subscribers(actor, node).await?;
    let page = match &request.selection {
        Selection::Page(page) => page.clone(),
        Selection::Recent(number) => PageRequest::last(*number as usize),
        Selection::Ids(ids) => {
            public.retain(|jid| ids.iter().any(|id| id.as_str() == jid.as_str()));
            PageRequest::last(usize::MAX)
        }
    };
    let page = page.map(|id| id.to_string());
    let max_bytes = service.policies().limits().max_reply_bytes;
    let fits = byte_budget(max_bytes, 1, reply::public_subscriber_len);
    let part =
        page.of(public, ToString::to_string, fits).ok_or(gjallar_pubsub::Error::ItemNotFound)?;
    if is_cut(&part, &request.selection) {
        service.note_truncation(actor, Some(node));
    }
    Ok(reply::public_subscribers(request, &part))
}

/// Returns `true` if a reply is truncated although no page was requested.
fn is_cut<T>(part: &ResultPage<T>, selection: &Selection) -> bool {
    let wanted = match selection {
        Selection::Ids(_) => usize::MAX,
        Selection::Page(_) => 0,
        Selection::Recent(number) => *number as usize,
    };
    part.entries.len() < wanted && !part.is_whole()
}

/// Says what the service, a node or a command is (XEP-0030 §3).
pub(in crate::xmpp) async fn info(
    service: &Service,
    commands: &AdHocCommands,
    actor: &Actor,
    node: Option<&str>,
) -> Result<ElementWriter, Error> {
    let name = match node {
        None | Some("") => return Ok(disco::service_info(service.policies().default_policy())),
        Some(ns::COMMANDS) => return Ok(disco::commands_info()),
        Some(ns::SHIM) => return Ok(disco::headers_info()),
        Some(name) => name,
    };
    if let Some(command) = commands.name(actor, name).await? {
        return Ok(disco::command_info(name, command));
    }
    let data = service.meta_data(actor, &request::node_named(name)?).await?;
    Ok(disco::node_info(name, &data))
}

/// Says what is in the service, or in a node (XEP-0030 §4).
pub(in crate::xmpp) async fn items(
    service: &Service,
    commands: &AdHocCommands,
    jid: &Jid,
    actor: &Actor,
    query: Element,
) -> Result<ElementWriter, Error> {
    let page = rsm::page(&query)?;
    let is_paged = page.is_some();
    let page = page.unwrap_or_else(|| PageRequest::first(usize::MAX));
    let name = match query.attr("node") {
        None | Some("") => {
            let filter = disco::filter(&query)?;
            let nodes =
                service.nodes(actor, &page, filter.as_ref(), disco::entry_bytes(jid)).await?;
            if !is_paged && !nodes.is_whole() {
                service.note_truncation(actor, None);
            }
            return Ok(disco::nodes(jid, &nodes, is_paged));
        }
        Some(ns::COMMANDS) => return Ok(disco::commands(jid, commands.of(actor).await?)),
        Some(name) => name.to_owned(),
    };
    drop(query);
    let node = request::node_named(&name)?;
    let page =
        page.and_then(|id| ItemId::parse(&id).ok()).ok_or(gjallar_pubsub::Error::ItemNotFound)?;
    // Without a page the newest are more useful than the oldest.
    let page = if is_paged { page } else { PageRequest::last(usize::MAX) };
    let ids = match service.item_ids(actor, &node, &page, disco::entry_bytes(jid)).await {
        // A node that keeps no items has none to discover.
        Err(Error::Refused(gjallar_pubsub::Error::Unsupported(_))) => ResultPage::empty(),
        ids => ids?,
    };
    if !is_paged && !ids.is_whole() {
        service.note_truncation(actor, Some(&node));
    }
    Ok(disco::node_items(jid, &name, &ids, is_paged))
}
