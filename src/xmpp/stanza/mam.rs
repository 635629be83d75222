//! Archives (XEP-0313, XEP-0442): queries and results.

use chrono::{DateTime, FixedOffset};
use jid::Jid;
use minidom::Element;
use xmpp_parsers::data_forms::{DataFormType, FieldType};

use crate::xmpp::{
    stanza::{
        forms,
        notification::{self, date_time},
        ns, order_by, request, rsm,
    },
    xml::writer::ElementWriter,
};
use gjallar_pubsub::{
    ArchiveId, Attribution, Event, EventItem, Item, NodeConfig, NodeId, PageRequest, ResultPage,
    Timestamp, op::mam::QueryArchive,
};

/// Maximum length of a `queryid` in bytes. Each result repeats the `queryid`.
const MAX_QUERYID_BYTES: usize = 256;

/// Archive query, and the format of its results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MamRequest {
    /// Query in the form that the rules (crate `gjallar_pubsub`) take.
    pub query: QueryArchive,
    /// Identifier that each result repeats (XEP-0313 §4.2).
    pub queryid: Option<String>,
    /// `true` if the page is sent in reverse order (XEP-0313 §4.3.4).
    pub is_flipped: bool,
}

/// Parses a query.
///
/// # Errors
/// [`NodeIdRequired`](gjallar_pubsub::Error::NodeIdRequired), [`BadRequest`](gjallar_pubsub::Error::BadRequest),
/// [`FormTooLarge`](gjallar_pubsub::Error::FormTooLarge), [`IdTooLong`](gjallar_pubsub::Error::IdTooLong);
/// [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) for an id that no archive can have;
/// [`NotImplemented`](gjallar_pubsub::Error::NotImplemented) for an unknown field (XEP-0313 §4.1.5).
pub fn submitted(query: &Element) -> Result<MamRequest, gjallar_pubsub::Error> {
    let page = rsm::page(query)?.unwrap_or_else(|| PageRequest::first(usize::MAX));
    let page =
        page.and_then(|id| ArchiveId::parse(&id)).ok_or(gjallar_pubsub::Error::ItemNotFound)?;
    let mut asked = QueryArchive::all(request::node(query)?, page);
    asked.order = order_by::order(query)?;
    if let Some(form) = query.get_child("x", ns::DATA_FORMS) {
        filter(form, &mut asked)?;
    }
    let queryid = query.attr("queryid").map(str::to_owned);
    if queryid.as_ref().is_some_and(|id| id.len() > MAX_QUERYID_BYTES) {
        return Err(gjallar_pubsub::Error::IdTooLong { max: MAX_QUERYID_BYTES });
    }
    Ok(MamRequest { query: asked, queryid, is_flipped: query.has_child("flip-page", ns::MAM) })
}

fn filter(form: &Element, query: &mut QueryArchive) -> Result<(), gjallar_pubsub::Error> {
    if form.attr("type") != Some("submit") {
        return Err(gjallar_pubsub::Error::BadRequest("the form must have the type submit"));
    }
    let id = |text: &str| ArchiveId::parse(text).ok_or(gjallar_pubsub::Error::ItemNotFound);
    for (var, values) in forms::fields(form)? {
        match (var, values.as_slice()) {
            ("FORM_TYPE", [form_type]) if form_type == ns::MAM => {}
            ("FORM_TYPE", _) => {
                return Err(gjallar_pubsub::Error::BadRequest(
                    "FORM_TYPE: urn:xmpp:mam:2 is expected here",
                ));
            }
            ("after-id" | "before-id" | "end" | "ids" | "start" | "with", []) => {}
            ("ids", ids) => {
                query.only = Some(ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?);
            }
            ("after-id", [text]) => query.after = Some(id(text)?),
            ("before-id", [text]) => query.before = Some(id(text)?),
            ("start", [time]) => query.since = Some(since(time)?),
            ("end", [time]) => query.until = Some(until(time)?),
            ("with", [jid]) => {
                query.with = Some(Jid::prepare(jid).map_err(gjallar_pubsub::Error::MalformedJid)?)
            }
            ("after-id" | "before-id" | "end" | "start" | "with", _) => {
                return Err(gjallar_pubsub::Error::BadRequest("a query field must have one value"));
            }
            // The XEP has a rule for unknown fields of this form (XEP-0313 §4.1.5).
            _ => {
                let name = forms::shortened(var);
                return Err(gjallar_pubsub::Error::NotImplemented(format!("the field {name}")));
            }
        }
    }
    Ok(())
}

/// Returns the earliest item time that matches the field `start` of a query. Item times are rounded down to
/// milliseconds. Therefore a start within a millisecond is rounded up to the next millisecond.
fn since(text: &str) -> Result<Timestamp, gjallar_pubsub::Error> {
    let time = time(text)?;
    let is_within = time.timestamp_subsec_nanos() % 1_000_000 > 0;
    Ok(Timestamp(millis(&time) + u64::from(is_within)))
}

fn until(text: &str) -> Result<Timestamp, gjallar_pubsub::Error> {
    time(text).map(|time| Timestamp(millis(&time)))
}

fn millis(time: &DateTime<FixedOffset>) -> u64 {
    time.timestamp_millis().try_into().unwrap_or_default()
}

/// Parses a time (XEP-0082).
fn time(text: &str) -> Result<DateTime<FixedOffset>, gjallar_pubsub::Error> {
    DateTime::parse_from_rfc3339(forms::collapsed(text))
        .map_err(|_| gjallar_pubsub::Error::BadRequest("not a date and time of XEP-0082"))
}

/// Origin and requester of the results of a query.
#[derive(Clone, Copy, Debug)]
pub struct MamResultContext<'a> {
    /// JID of the service.
    pub service: &'a str,
    /// Address of the requester.
    pub to: &'a str,
    /// Identifier that each result repeats.
    pub queryid: Option<&'a str>,
    /// Node of the archive.
    pub node: &'a NodeId,
    /// Configuration of the node.
    pub config: &'a NodeConfig,
    /// Rule that decides which publishers are shown.
    pub attribution: &'a Attribution,
}

/// Returns an item as the notification of its publication (XEP-0442 §3).
#[must_use]
pub fn result(source: &MamResultContext<'_>, item: &Item) -> ElementWriter {
    let event = Event::Published(vec![EventItem::of(item, source.config, source.attribution)]);
    let message = ElementWriter::ns("message", ns::CLIENT)
        .attr("from", source.service)
        .attr("type", notification::kind(source.config.notification_type))
        .children(notification::content(source.node, &event, &[]));
    forwarded(source, item, Some(message))
}

/// Returns an item without its content (XEP-0313 §3.2). Used if the content is larger than a stanza may be.
#[must_use]
pub fn placeholder(source: &MamResultContext<'_>, item: &Item) -> ElementWriter {
    forwarded(source, item, None)
}

fn forwarded(
    source: &MamResultContext<'_>,
    item: &Item,
    message: Option<ElementWriter>,
) -> ElementWriter {
    let delay = ElementWriter::ns("delay", ns::DELAY).attr("stamp", &date_time(item.published));
    let forwarded = ElementWriter::ns("forwarded", ns::FORWARD).child(delay).children(message);
    let result = ElementWriter::ns("result", ns::MAM)
        .attr_if("queryid", source.queryid)
        .attr("id", &item.archive_id().to_string())
        .child(forwarded);
    ElementWriter::new("message").attr("from", source.service).attr("to", source.to).child(result)
}

/// Returns the element `<fin/>`, which ends the results (XEP-0313 §4).
#[must_use]
pub fn fin(ids: &ResultPage<ArchiveId>, is_complete: bool) -> ElementWriter {
    ElementWriter::ns("fin", ns::MAM)
        .attr_if("complete", is_complete.then_some("true"))
        .child(rsm::set(ids, ToString::to_string))
}

/// Returns the first and the last item of an archive, if there are items (XEP-0313 §5).
#[must_use]
pub fn metadata(ends: Option<&(Item, Item)>) -> ElementWriter {
    let end = |name, item: &Item| {
        ElementWriter::new(name)
            .attr("id", &item.archive_id().to_string())
            .attr("timestamp", &date_time(item.published))
    };
    let ends = ends.map(|(first, last)| [end("start", first), end("end", last)]);
    ElementWriter::ns("metadata", ns::MAM).children(ends.into_iter().flatten())
}

/// Returns the form of archive queries (XEP-0313 §4.1.5).
#[must_use]
pub fn form() -> ElementWriter {
    let fields = [
        ("with", FieldType::JidSingle, "JID of the publisher"),
        ("start", FieldType::TextSingle, "Earliest time of publication"),
        ("end", FieldType::TextSingle, "Latest time of publication"),
        ("after-id", FieldType::TextSingle, "Archive id of the last item before the results"),
        ("before-id", FieldType::TextSingle, "Archive id of the first item after the results"),
        ("ids", FieldType::ListMulti, "Archive ids of the results"),
    ];
    let fields = fields.map(|(var, kind, label)| forms::field(var, kind, label, "")).into();
    let form = forms::form_of_type(DataFormType::Form, ns::MAM, fields);
    ElementWriter::ns("query", ns::MAM).child(forms::render(&form))
}
