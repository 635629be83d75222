//! Pages of long lists (XEP-0059).

use minidom::Element;

use crate::xmpp::{stanza::ns, xml::writer::ElementWriter};
use gjallar_pubsub::{PageBound, PageRequest, ResultPage, byte_budget, written_len};

/// Maximum number of bytes of a list entry besides its key.
const ENTRY_BYTES: usize = 100;

/// Returns the requested page of a list; `None` if the request has no page.
///
/// # Errors
/// [`BadRequest`](gjallar_pubsub::Error::BadRequest) if a number is invalid, or if the request has more than one of
/// `after`, `before` and `index`.
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

/// Returns the requested page of a list, with the `<set/>` element that describes the page. Returns the whole list if
/// no page is requested. `key` returns the unique key of an entry. The page has at most `max_bytes` bytes.
///
/// # Errors
/// [`ItemNotFound`](gjallar_pubsub::Error::ItemNotFound) if the entry that `after` or `before` names does not exist
/// (XEP-0059 §2.2).
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

/// Returns a predicate for consecutive entries. It returns `true` while the entries fit in a page of `max_bytes` bytes,
/// and always for the first entry.
pub fn fitting<T>(key: impl Fn(&T) -> String, max_bytes: usize) -> impl FnMut(&T) -> bool {
    byte_budget(max_bytes, 1, move |entry| ENTRY_BYTES + written_len(&key(entry)))
}

/// Returns the `<set/>` element that describes a page.
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
