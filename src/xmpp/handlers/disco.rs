//! Service discovery (XEP-0030).

use jid::Jid;
use minidom::Element;

use crate::{
    service::{Error, Service},
    xmpp::{
        handlers::adhoc::AdHocCommands,
        stanza::{disco, ns, request, rsm},
        xml::writer::ElementWriter,
    },
};
use gjallar_pubsub::{Actor, ItemId, PageRequest, ResultPage};

/// Returns the identities and features of the service, a node or a command (XEP-0030 §3).
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

/// Returns the nodes of the service, the items of a node, or the list of commands (XEP-0030 §4).
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
    // Without a page the newest items are more useful than the oldest.
    let page = if is_paged { page } else { PageRequest::last(usize::MAX) };
    let ids = match service.item_ids(actor, &node, &page, disco::entry_bytes(jid)).await {
        // A node without persistence has no items to discover.
        Err(Error::Refused(gjallar_pubsub::Error::Unsupported(_))) => ResultPage::empty(),
        ids => ids?,
    };
    if !is_paged && !ids.is_whole() {
        service.note_truncation(actor, Some(&node));
    }
    Ok(disco::node_items(jid, &name, &ids, is_paged))
}
