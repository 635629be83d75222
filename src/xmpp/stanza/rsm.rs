//! Parts of long lists (XEP-0059).

use minidom::Element;

use crate::xmpp::{stanza::ns, xml::writer::ElementWriter};
use gjallar_pubsub::{PageBound, PageRequest, ResultPage, byte_budget, written_len};

/// The most bytes of an entry of a list beside what it is told by.
const ENTRY_BYTES: usize = 100;

/// Which part of a list is asked for; nothing if that is not said.
///
/// # Errors
/// [`BadRequest`](gjallar_pubsub::Error::BadRequest).
pub fn page(parent: &Element) -> Result<Option<PageRequest<String>>, gjallar_pubsub::Error> {
    let Some(set) = parent.get_child("set", ns::RSM) else { return Ok(None) };
    let text = |name| set.get_child(name, ns::RSM).map(Element::text);
    let number = |name| {
        let number = text(name).map(|text| text.trim().parse::<u32>()).transpose();
        number.map_err(|_| gjallar_pubsub::Error::BadRequest("max and index must be numbers"))
    };
    let max = number("max")?.map_or(usize::MAX, |max| max as usize);
    let edge = match (text("after"), text("before"), number("index")?) {
        (None, None, index) => PageBound::At(index.unwrap_or_default() as usize),
        (Some(entry), None, None) => PageBound::After(entry),
        (None, Some(entry), None) if entry.is_empty() => PageBound::Last,
        (None, Some(entry), None) => PageBound::Before(entry),
        _ => {
            return Err(gjallar_pubsub::Error::BadRequest(
                "only one of after, before and index is allowed",
            ));
        }
    };
    Ok(Some(PageRequest { max, edge }))
}

/// A page of a list, if one is asked for, and what says which it is. An entry has what it is told by once.
///
/// # Errors
/// [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) if its edge is not there (XEP-0059 §2.2).
pub fn part_of<T>(
    list: Vec<T>,
    page: Option<&PageRequest<String>>,
    key: impl Fn(&T) -> String,
    max_bytes: usize,
) -> Result<(Vec<T>, Option<ElementWriter>), gjallar_pubsub::Error> {
    let Some(page) = page else { return Ok((list, None)) };
    let fits = fitting(&key, max_bytes);
    let part = page.of(list, &key, fits).ok_or(gjallar_pubsub::Error::ItemNotFound)?;
    let set = set(&part, key);
    Ok((part.entries, Some(set)))
}

/// Returns `true` if one entry after the other fits into a page of so many bytes; the first does.
pub fn fitting<T>(key: impl Fn(&T) -> String, max_bytes: usize) -> impl FnMut(&T) -> bool {
    byte_budget(max_bytes, 1, move |entry| ENTRY_BYTES + written_len(&key(entry)))
}

/// Says which part of a list this is.
#[must_use]
pub fn set<T>(part: &ResultPage<T>, key: impl Fn(&T) -> String) -> ElementWriter {
    let index = part.index.map(|index| index.to_string());
    let first = part.entries.first().map(|entry| {
        ElementWriter::new("first").attr_if("index", index.as_deref()).text(&key(entry))
    });
    let last = part.entries.last().map(|entry| ElementWriter::new("last").text(&key(entry)));
    let count = part.total.map(|total| ElementWriter::new("count").text(&total.to_string()));
    ElementWriter::ns("set", ns::RSM).children(first).children(last).children(count)
}
