//! Handlers of requests that only read (XEP-0060).

use jid::BareJid;

use crate::{
    service::{Error, Service},
    xmpp::{
        stanza::{reply, request::GetRequest, rsm},
        xml::writer::ElementWriter,
    },
};
use gjallar_pubsub::{
    Actor, Affiliation, NodeId, PageRequest, ResultPage, SubId, Subscription, SubscriptionOptions,
    byte_budget,
    op::{
        public_subscriptions,
        retrieve::{Retrieve, Selection},
        subscription_options::OptionsForm,
    },
};

/// Returns the reply to a request that only reads.
pub(in crate::xmpp) async fn answer(
    service: &Service,
    actor: &Actor,
    question: GetRequest,
) -> Result<ElementWriter, Error> {
    let max_bytes = service.policies().max_reply_bytes(&actor.jid);
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
            // JIDs contain no line breaks, so the keys of two entries differ.
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

/// Returns the public subscribers of `node`, as items of the virtual node that the request names (XEP-0465).
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
    let max_bytes = service.policies().max_reply_bytes(&actor.jid);
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
