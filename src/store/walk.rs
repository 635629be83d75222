//! Going through a node's items until a page is full: the same for every back end.

use crate::pubsub::{Edge, Item, Listed, Listing, Part, Spot, within};

use super::StoreError;

/// So many items are looked at for one page that a filter makes.
pub(super) const MAX_LOOKED_AT: usize = 2000;

/// Takes a page from these items, in ascending order, which a node with `total` items has at the right side of the
/// page's edge. What is looked at need not have its payload.
pub(super) fn walk(
    listing: &Listing,
    total: usize,
    spots: impl DoubleEndedIterator<Item = Result<Spot, StoreError>>,
    look: impl Fn(Spot) -> Result<Item, StoreError>,
    read: impl Fn(Spot) -> Result<Item, StoreError>,
    max_bytes: usize,
) -> Result<Listed, StoreError> {
    let (page, filter) = (&listing.page, &listing.filter);
    let is_filtered = !filter.is_none();
    let skipped = if let Edge::At(index) = page.edge { index } else { 0 };
    let (mut forward, mut backward);
    let spots: &mut dyn Iterator<Item = _> = if listing.is_from_newest() {
        backward = spots.rev().skip(skipped);
        &mut backward
    } else {
        forward = spots.skip(skipped);
        &mut forward
    };
    let mut fits = within(max_bytes, 1, Item::size);
    let (mut entries, mut last) = (Vec::new(), None);
    let (mut is_complete, mut looked_up_to) = (true, None);
    for (looked_at, spot) in spots.enumerate() {
        let spot = spot?;
        if is_filtered && looked_at == MAX_LOOKED_AT {
            (is_complete, looked_up_to) = (false, last);
            break;
        }
        let is_full = entries.len() == page.max;
        if is_full && !is_filtered {
            is_complete = false;
            break;
        }
        last = Some(spot);
        if is_filtered && !filter.admits(&look(spot)?) {
            continue;
        }
        let item = read(spot)?;
        if is_full || !fits(&item) {
            is_complete = false;
            break;
        }
        entries.push(item);
    }
    if page.is_backward() {
        entries.reverse();
    }
    let total = (!is_filtered).then_some(total);
    let index = total.and_then(|total| match page.edge {
        Edge::At(index) => Some(index.min(total)),
        Edge::Last => total.checked_sub(entries.len()),
        Edge::After(_) | Edge::Before(_) => None,
    });
    Ok(Listed { part: Part { entries, index, total }, is_complete, looked_up_to })
}
