//! Queries for items of a node: filter, order and page (§6.5, XEP-0313 §4, XEP-0413).

use std::sync::Arc;

use jid::Jid;

use crate::{
    ArchiveId, Item, ItemId, ItemPosition, Node, PageBound, PageRequest, ResultPage, Timestamp,
};

/// Query for a page of the items that a filter admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemQuery {
    /// Requested page of the list.
    pub page: PageRequest<ItemRef>,
    /// Order of the list.
    pub order: ItemOrder,
    /// Filter of the list.
    pub filter: ItemFilter,
}

/// Boundary of a requested page: the item or position to which `<after/>` or `<before/>` (XEP-0059) refers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemRef {
    /// The item with this id.
    Name(ItemId),
    /// A position in the order of the list. The item that had this position may have been retracted or published again.
    Position(ItemPosition),
    /// The item at this position in the order of modification.
    ModifiedAt(ItemPosition),
}

/// Separator of the UIDs of both ends of a page ([`OrderField::uid_of_end`]).
const OTHER_END: char = '~';

impl ItemRef {
    /// Converts the page request of a client. The edge of the requested page is a UID from an earlier page, or an item
    /// id.
    ///
    /// COMPAT: XEP-0059 requires that clients send the UID from the `<first/>` or `<last/>` of an earlier page. Some
    /// clients send the id of the first or last item instead.
    #[must_use]
    pub fn page(node: &Node, page: &PageRequest<ItemId>, order: ItemOrder) -> PageRequest<Self> {
        let is_older = matches!(page.edge, PageBound::Before(_)) != order.is_descending;
        page.clone().map(|uid| Self::of(node, uid, is_older))
    }

    /// Returns the edge for a UID that a client sends back from an earlier page. A UID may contain the positions of
    /// both ends of that page ([`OrderField::uid_of_end`]). The edge is the older of the two if `is_older` is `true`,
    /// otherwise the newer. A text that is not a UID of this node is an item id.
    fn of(node: &Node, uid: ItemId, is_older: bool) -> Self {
        let ends = uid.as_str().split(OTHER_END).map(ArchiveId::parse);
        let positions = ends.map(|end| {
            end.filter(|end| end.epoch == node.epoch && end.position.sequence <= node.sequence)
                .map(|end| end.position)
        });
        let positions: Option<Vec<ItemPosition>> = positions.collect();
        let positions = positions.unwrap_or_default().into_iter();
        let position = if is_older { positions.min() } else { positions.max() };
        position.map_or(Self::Name(uid), Self::Position)
    }
}

/// Order of items (XEP-0413).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemOrder {
    /// Field by which items are ordered.
    pub by: OrderField,
    /// `true` if the newest item is the first.
    pub is_descending: bool,
}

/// Field by which items are ordered. No two items have the same value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderField {
    /// Position at which an item of this name was first published.
    Creation,
    /// Position at which the item was last published.
    #[default]
    Modification,
}

/// Filter for the items of a node (XEP-0313 §4.1). The default admits all items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemFilter {
    /// Only items after this position.
    pub after: Option<ItemPosition>,
    /// Only items before this position.
    pub before: Option<ItemPosition>,
    /// Only the items at these positions. Each position must have an item.
    pub only: Option<Vec<ItemPosition>>,
    /// Only items published at this time or later.
    pub since: Option<Timestamp>,
    /// Only items published at this time or earlier.
    pub until: Option<Timestamp>,
    /// Only items that this JID published, in every spelling of its domain.
    pub publisher: Option<Jid>,
}

/// Page of a list of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemPage {
    /// Items of the page. The number of items in the whole list is known only if the query has no filter.
    pub part: ResultPage<Item>,
    /// `true` if the list has no further items in the direction in which the client pages.
    pub is_complete: bool,
    /// Position where the search stopped before the page was full; a page that begins there continues the list.
    pub scanned_to: Option<ItemPosition>,
}

impl ItemQuery {
    /// Returns a query for a page of all items.
    #[must_use]
    pub fn of(page: PageRequest<ItemRef>, order: ItemOrder) -> Self {
        Self { page, order, filter: ItemFilter::default() }
    }

    /// Returns `true` if the page is filled from the newest item.
    #[must_use]
    pub fn is_from_newest(&self) -> bool {
        self.page.is_backward() != self.order.is_descending
    }

    /// Returns two positions `(after, before)`; all items of the page are between them. `edge` is the position of the
    /// page's edge. All positions are those of [`OrderField::of`]. If the order is [`OrderField::Modification`], the
    /// positions `after` and `before` of the filter narrow the range too.
    #[must_use]
    pub fn between(
        &self,
        edge: Option<ItemPosition>,
    ) -> (Option<ItemPosition>, Option<ItemPosition>) {
        let begins = matches!(self.page.edge, PageBound::After(_)) != self.order.is_descending;
        let (after, before) = if begins { (edge, None) } else { (None, edge) };
        match self.order.by {
            OrderField::Creation => (after, before),
            OrderField::Modification => {
                let before = before.into_iter().chain(self.filter.before).min();
                (after.max(self.filter.after), before)
            }
        }
    }
}

impl OrderField {
    /// Returns the position of an item in this order.
    #[must_use]
    pub fn of(self, item: &Item) -> ItemPosition {
        match self {
            Self::Creation => item.created,
            Self::Modification => item.position(),
        }
    }

    /// Returns the UID of an item in pages of this order: the item's position, which no later item gets.
    #[must_use]
    pub fn uid(self, item: &Item) -> ArchiveId {
        ArchiveId { epoch: item.event_id.epoch, position: self.of(item) }
    }

    /// Returns the UID of the first or last item of a page that was filled backwards, as for `<before/>`. The format is
    /// `UID~OTHER`: the UID of this item, and the UID of the item at the opposite end of the page. So a client gets the
    /// same next page whether it sends the UID of the first or of the last item. On a page of one item, the format is
    /// `UID`.
    ///
    /// COMPAT: to get older items, Movim sends the UID of the last item in `<before/>`, although the last item is the
    /// newest.
    #[must_use]
    pub fn uid_of_end(self, end: &Item, page: &[Arc<Item>]) -> String {
        let own = self.uid(end);
        let mut ends = page.first().into_iter().chain(page.last()).map(|item| self.uid(item));
        match ends.find(|uid| *uid != own) {
            Some(other) => format!("{own}{OTHER_END}{other}"),
            None => own.to_string(),
        }
    }
}

impl ItemFilter {
    /// Returns `true` if the filter admits all items.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns `true` if the filter admits an item.
    #[must_use]
    pub fn matches(&self, item: &Item) -> bool {
        self.after.is_none_or(|position| item.position() > position)
            && self.before.is_none_or(|position| item.position() < position)
            && self.names(item.position())
            && self.since.is_none_or(|since| item.published >= since)
            && self.until.is_none_or(|until| item.published <= until)
            && self.publisher.as_ref().is_none_or(|jid| item.publisher.is_same(jid))
    }

    /// Returns `true` if the filter admits an item at this position: it lists no positions, or this one.
    #[must_use]
    pub fn names(&self, position: ItemPosition) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&position))
    }
}

impl ItemPage {
    /// Returns the page of an empty list.
    #[must_use]
    pub fn empty() -> Self {
        Self { part: ResultPage::empty(), is_complete: true, scanned_to: None }
    }

    /// Returns the position after which the next page begins, for a list that is read from its beginning. `None` if the
    /// list is complete.
    #[must_use]
    pub fn more_after(&self) -> Option<ItemPosition> {
        let last = self.part.entries.last().map(Item::position);
        self.scanned_to.or(last).filter(|_| !self.is_complete)
    }
}
