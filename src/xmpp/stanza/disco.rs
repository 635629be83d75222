//! Service discovery (XEP-0030): identities, features and items of the service, its nodes and its commands.

use jid::Jid;
use minidom::Element;

use crate::xmpp::{
    stanza::{
        forms::{self, meta_data},
        ns, rsm,
    },
    xml::writer::ElementWriter,
};
use gjallar_pubsub::{
    ArchiveId, ItemId, Policy, ResultPage, features,
    op::discover::{MetaData, NodeSummary, TypeFilter},
    written_len,
};

/// Returns the identity of the service, and its implemented features (§5.1).
#[must_use]
pub fn service_info(policy: &Policy) -> ElementWriter {
    let mut features: Vec<String> =
        features::implemented(policy).map(|name| format!("{}#{name}", ns::PUBSUB)).collect();
    let others = [
        ns::CAPS,
        ns::COMMANDS,
        ns::DATA_FORMS,
        ns::DISCO_INFO,
        ns::DISCO_ITEMS,
        ns::MAM,
        ns::MAM_EXTENDED,
        ns::ORDER_BY,
        ns::PING,
        ns::PPS,
        ns::PUBSUB,
        ns::PUBSUB_CACHING,
        ns::PUBSUB_FILTER,
        ns::RSM,
        ns::SHIM,
        ns::STANZA_ID,
        ns::VERSION,
    ];
    features.extend(others.map(str::to_owned));
    features.extend([ns::MAM, ns::PUBSUB].map(|ordered| format!("{}@{ordered}", ns::ORDER_BY)));
    features.extend(policy.limits.includes_content_ids.then(|| ns::CAP.to_owned()));
    features.sort_unstable();
    info(None)
        .child(identity("pubsub", "service", Some("gjallar")))
        .children(features.iter().map(|name| feature_tag(name)))
}

/// Returns identity, features and meta-data of a node (§5.3, §5.4).
#[must_use]
pub fn node_info(node: &str, data: &MetaData) -> ElementWriter {
    let title = Some(data.config.title.as_str()).filter(|title| !title.is_empty());
    let archive: &[&str] =
        if data.config.persist_items { &[ns::MAM, ns::MAM_EXTENDED] } else { &[] };
    info(Some(node))
        .child(identity("pubsub", "leaf", title))
        .child(feature_tag(ns::PUBSUB))
        .children(archive.iter().map(|name| feature_tag(name)))
        .child(meta_data::form(data))
}

/// Returns the identity of the list of commands (XEP-0050 §3.2).
#[must_use]
pub fn commands_info() -> ElementWriter {
    info(Some(ns::COMMANDS))
        .child(identity("automation", "command-list", Some("Commands")))
        .child(feature_tag(ns::COMMANDS))
}

/// Returns the headers that notifications may have (XEP-0131, Header Support).
#[must_use]
pub fn headers_info() -> ElementWriter {
    info(Some(ns::SHIM))
        .child(feature_tag(ns::SHIM))
        .child(feature_tag(&format!("{}#SubID", ns::SHIM)))
}

/// Returns the identity of a command (XEP-0050 §3.3).
#[must_use]
pub fn command_info(node: &str, name: &str) -> ElementWriter {
    info(Some(node))
        .child(identity("automation", "command-node", Some(name)))
        .child(feature_tag(ns::COMMANDS))
        .child(feature_tag(ns::DATA_FORMS))
}

/// Returns the requested filter by node types, if there is one (XEP-0462).
///
/// # Errors
/// [`BadRequest`](gjallar_pubsub::Error::BadRequest) if the form is missing, is of another type, or both includes and
/// excludes types; [`FormTooLarge`](gjallar_pubsub::Error::FormTooLarge).
pub fn filter(query: &Element) -> Result<Option<TypeFilter>, gjallar_pubsub::Error> {
    let Some(filter) = query.get_child("filter", ns::PUBSUB_FILTER) else { return Ok(None) };
    let form = filter.get_child("x", ns::DATA_FORMS);
    let form = form.ok_or(gjallar_pubsub::Error::BadRequest("a form is required"))?;
    let (mut included, mut excluded) = (None, None);
    for (var, values) in forms::fields(form)? {
        match (var, values.as_slice()) {
            ("FORM_TYPE", [form_type]) if form_type == ns::PUBSUB_FILTER => {}
            ("FORM_TYPE", _) => {
                let text = "FORM_TYPE: urn:xmpp:pubsub-filter:0 is expected here";
                return Err(gjallar_pubsub::Error::BadRequest(text));
            }
            ("included-types", _) => included = Some(values),
            ("excluded-types", _) => excluded = Some(values),
            _ => {}
        }
    }
    match (included, excluded) {
        (Some(_), Some(_)) => Err(gjallar_pubsub::Error::BadRequest(
            "included-types and excluded-types cannot be combined",
        )),
        (Some(types), None) => Ok(Some(TypeFilter::Included(types))),
        (None, Some(types)) => Ok(Some(TypeFilter::Excluded(types))),
        (None, None) => Ok(None),
    }
}

/// Returns the nodes of the service (§5.2). A description of the page (XEP-0059) is added if a page was requested
/// (`is_paged`), or if the list is truncated.
#[must_use]
pub fn nodes(service: &Jid, part: &ResultPage<NodeSummary>, is_paged: bool) -> ElementWriter {
    let set = is_noted(part, is_paged).then(|| rsm::set(part, NodeSummary::uid));
    let nodes = part.entries.iter().map(|summary| {
        let title = Some(summary.title.as_str()).filter(|title| !title.is_empty());
        ElementWriter::new("item")
            .attr("jid", service.as_str())
            .attr("node", summary.node.as_str())
            .attr_if("name", title)
    });
    items(None).children(nodes).children(set)
}

/// Returns the items of a node (§5.5), with a description of the page as in [`nodes`].
#[must_use]
pub fn node_items(
    service: &Jid,
    node: &str,
    part: &ResultPage<(ItemId, ArchiveId)>,
    is_paged: bool,
) -> ElementWriter {
    let set = is_noted(part, is_paged).then(|| rsm::set(part, |(_, uid)| uid.to_string()));
    let item = |(id, _): &(ItemId, ArchiveId)| {
        ElementWriter::new("item").attr("jid", service.as_str()).attr("name", id.as_str())
    };
    items(Some(node)).children(part.entries.iter().map(item)).children(set)
}

/// Returns the number of bytes of an entry of [`nodes`] or [`node_items`], without names and titles.
#[must_use]
pub fn entry_bytes(service: &Jid) -> usize {
    "<item jid='' node='' name=''/>".len() + written_len(service.as_str())
}

fn is_noted<T>(part: &ResultPage<T>, is_paged: bool) -> bool {
    is_paged || !part.is_whole()
}

/// Returns the list of commands (XEP-0050 §3.2).
pub fn commands<'a>(
    service: &Jid,
    commands: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> ElementWriter {
    items(Some(ns::COMMANDS)).children(commands.into_iter().map(|(node, name)| {
        ElementWriter::new("item")
            .attr("jid", service.as_str())
            .attr("node", node)
            .attr("name", name)
    }))
}

fn info(node: Option<&str>) -> ElementWriter {
    ElementWriter::ns("query", ns::DISCO_INFO).attr_if("node", node)
}

fn items(node: Option<&str>) -> ElementWriter {
    ElementWriter::ns("query", ns::DISCO_ITEMS).attr_if("node", node)
}

fn identity(category: &str, kind: &str, name: Option<&str>) -> ElementWriter {
    ElementWriter::new("identity")
        .attr("category", category)
        .attr("type", kind)
        .attr_if("name", name)
}

fn feature_tag(name: &str) -> ElementWriter {
    ElementWriter::new("feature").attr("var", name)
}
