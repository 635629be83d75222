//! Which items of a node are listed, and in which order (§6.5, XEP-0313 §4, XEP-0413).

use std::sync::Arc;

use jid::Jid;

use crate::{
    ArchiveId, Item, ItemId, ItemPosition, Node, PageBound, PageRequest, ResultPage, Timestamp,
};

/// A list of items: a page of those that a filter admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemQuery {
    /// Which part of the list.
    pub page: PageRequest<ItemRef>,
    /// How the list is ordered.
    pub order: ItemOrder,
    /// What is in the list.
    pub filter: ItemFilter,
}

/// The edge of a page of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemRef {
    /// The item with this id.
    Name(ItemId),
    /// A position in the order of the list. The item that stood there may have been retracted or published again.
    Position(ItemPosition),
    /// The item at this position among the modifications.
    ModifiedAt(ItemPosition),
}

/// Separator of the two positions in the UID of an end of a page.
const OTHER_END: char = '~';

impl ItemRef {
    /// The page that a client asks for at a node: by the UIDs of an earlier page, or by item ids.
    ///
    /// COMPAT: XEP-0059 has clients repeat the UIDs of a page; some take the id of the first or last item instead.
    #[must_use]
    pub fn page(node: &Node, page: &PageRequest<ItemId>, order: ItemOrder) -> PageRequest<Self> {
        let is_older = matches!(page.edge, PageBound::Before(_)) != order.is_descending;
        page.clone().map(|uid| Self::of(node, uid, is_older))
    }

    /// The position of the older or the newer end of a page, from the UID of one of its ends.
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

/// An order of items (XEP-0413).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemOrder {
    /// What it goes by.
    pub by: OrderField,
    /// Whether the newest is the first.
    pub is_descending: bool,
}

/// What an order goes by. No two items are equal in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderField {
    /// When an item of this name was published first.
    Creation,
    /// When it was published, be it again.
    #[default]
    Modification,
}

/// What of a node's items is in a list (XEP-0313 §4.1); all of it if nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemFilter {
    /// Only items after this position.
    pub after: Option<ItemPosition>,
    /// Only items before this position.
    pub before: Option<ItemPosition>,
    /// These, all of which must be there.
    pub only: Option<Vec<ItemPosition>>,
    /// Only items published at this time or later.
    pub since: Option<Timestamp>,
    /// Only items published at this time or earlier.
    pub until: Option<Timestamp>,
    /// Items that this JID published, in every spelling of its domain.
    pub publisher: Option<Jid>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemPage {
    /// What is in it. How many are in the list is known where nothing is filtered.
    pub part: ResultPage<Item>,
    /// Whether the list has no more in the direction of the page.
    pub is_complete: bool,
    /// How far was looked, if that ended it: a page that begins there goes on.
    pub scanned_to: Option<ItemPosition>,
}

impl ItemQuery {
    /// A page of all items.
    #[must_use]
    pub fn of(page: PageRequest<ItemRef>, order: ItemOrder) -> Self {
        Self { page, order, filter: ItemFilter::default() }
    }

    /// Returns `true` if the first that is taken is the newest.
    #[must_use]
    pub fn is_from_newest(&self) -> bool {
        self.page.is_backward() != self.order.is_descending
    }

    /// After which item and before which, by what the order goes by, those stand that the page may have, given what
    /// its edge is there.
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
    /// What of an item it goes by.
    #[must_use]
    pub fn of(self, item: &Item) -> ItemPosition {
        match self {
            Self::Creation => item.created,
            Self::Modification => item.position(),
        }
    }

    /// The UID of an item in pages of this order: its position, which no other item takes later.
    #[must_use]
    pub fn uid(self, item: &Item) -> ArchiveId {
        ArchiveId { epoch: item.event_id.epoch, position: self.of(item) }
    }

    /// The UID of an end of a page that was filled from its last entry: its own and that of the other end, so that both
    /// lead to the same next page.
    ///
    /// COMPAT: Movim asks for older items before the last item of such a page, as if the newest were the first.
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
    /// Returns `true` if everything is in the list.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns `true` if an item is in the list.
    #[must_use]
    pub fn matches(&self, item: &Item) -> bool {
        self.after.is_none_or(|position| item.position() > position)
            && self.before.is_none_or(|position| item.position() < position)
            && self.names(item.position())
            && self.since.is_none_or(|since| item.published >= since)
            && self.until.is_none_or(|until| item.published <= until)
            && self.publisher.as_ref().is_none_or(|jid| item.publisher.is_same(jid))
    }

    /// Returns `true` if an item that stands here may be in the list: if some are named it is one of them.
    #[must_use]
    pub fn names(&self, position: ItemPosition) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&position))
    }
}

impl ItemPage {
    /// Nothing of a list that has nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { part: ResultPage::empty(), is_complete: true, scanned_to: None }
    }

    /// The position after which there may be more of a list that is read from its beginning.
    #[must_use]
    pub fn more_after(&self) -> Option<ItemPosition> {
        let last = self.part.entries.last().map(Item::position);
        self.scanned_to.or(last).filter(|_| !self.is_complete)
    }
}
