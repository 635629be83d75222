//! Selection of a page of a node's items, shared by all back ends.

use gjallar_pubsub::{Item, ItemPage, ItemPosition, ItemQuery, PageBound, ResultPage};

use super::StoreError;

/// Maximum number of items of a node for which the RSM `index` of a page after or before an item is computed.
const MAX_COUNTED: usize = 10_000;
/// Maximum number of items examined for one filtered page.
pub(super) const MAX_LOOKED_AT: usize = 2000;

/// Selects a page of the items of a node with `total` items. `positions` has the positions of the candidates, in
/// ascending order. If the page is requested after or before an item, `positions` has only the positions on the
/// requested side of this item. `look` reads an item for the filter, with or without its payload. `read` reads an item
/// that the page returns.
pub(super) fn paginate(
    query: &ItemQuery,
    total: usize,
    positions: impl DoubleEndedIterator<Item = Result<ItemPosition, StoreError>>,
    look: impl Fn(ItemPosition) -> Result<Item, StoreError>,
    read: impl Fn(ItemPosition) -> Result<Item, StoreError>,
    mut fits: impl FnMut(&Item) -> bool,
) -> Result<ItemPage, StoreError> {
    let (page, filter) = (&query.page, &query.filter);
    let is_filtered = !filter.is_none();
    let skipped = if let PageBound::At(index) = page.edge { index } else { 0 };
    let (mut forward, mut backward);
    let mut positions: &mut dyn Iterator<Item = _> = if query.is_from_newest() {
        backward = positions.rev().skip(skipped);
        &mut backward
    } else {
        forward = positions.skip(skipped);
        &mut forward
    };
    let (mut entries, mut last) = (Vec::new(), None);
    let (mut is_complete, mut looked_up_to) = (true, None);
    let mut passed = 0;
    for (looked_at, position) in (&mut positions).enumerate() {
        let position = position?;
        passed = looked_at + 1;
        if is_filtered && looked_at == MAX_LOOKED_AT {
            (is_complete, looked_up_to) = (false, last);
            break;
        }
        let is_full = entries.len() == page.max;
        if is_full && !is_filtered {
            is_complete = false;
            break;
        }
        last = Some(position);
        if is_filtered && !filter.matches(&look(position)?) {
            continue;
        }
        let item = read(position)?;
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
    // Counts the items on the page's side of its edge.
    let mut side =
        || (&mut positions).try_fold(passed, |count, position| position.map(|_| count + 1));
    let index = match (&page.edge, total) {
        (_, None) => None,
        (PageBound::At(index), Some(total)) => Some((*index).min(total)),
        (PageBound::Last, Some(total)) => total.checked_sub(entries.len()),
        (PageBound::After(_) | PageBound::Before(_), Some(total)) if total > MAX_COUNTED => None,
        (PageBound::After(_), Some(total)) => total.checked_sub(side()?),
        (PageBound::Before(_), Some(_)) => side()?.checked_sub(entries.len()),
    };
    Ok(ItemPage {
        part: ResultPage { entries, index, total },
        is_complete,
        scanned_to: looked_up_to,
    })
}
