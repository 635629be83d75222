//! Queries for a node's items.

use crate::store::{
    StoreError,
    paginate::{MAX_LOOKED_AT, paginate},
};
use gjallar_pubsub::{
    Epoch, Item, ItemBudget, ItemId, ItemOrder, ItemPage, ItemQuery, ItemRef, NodeId, OrderField,
    PageBound, PageRequest, ResultPage, Sequence, Timestamp, byte_budget, written_len,
};

use super::{
    keys::{self, ItemPosition, NodeNumber},
    record::{self, ItemIdRecord, NodeCounters, damaged},
    sled_failed,
    tree_reader::TreeReader,
};

/// Position after all items.
const END: ItemPosition = ItemPosition { sequence: Sequence(u64::MAX), index: 0 };

/// Item positions in ascending order.
type PositionIter = Box<dyn DoubleEndedIterator<Item = Result<ItemPosition, StoreError>>>;

impl TreeReader {
    pub(super) fn list(
        &self,
        id: &NodeId,
        query: &ItemQuery,
        budget: &ItemBudget,
    ) -> Result<Option<ItemPage>, StoreError> {
        self.list_by(id, query, Self::item, budget.fits())
    }

    pub(super) fn page_of_ids(
        &self,
        id: &NodeId,
        page: &PageRequest<ItemRef>,
        entry_bytes: usize,
        max_bytes: usize,
    ) -> Result<Option<ResultPage<(ItemId, ItemPosition)>>, StoreError> {
        let query = ItemQuery::of(page.clone(), ItemOrder::default());
        let fits =
            byte_budget(max_bytes, 0, |item: &Item| entry_bytes + written_len(item.id.as_str()));
        let listed = self.list_by(id, &query, Self::item_without_payload, fits)?;
        Ok(listed.map(|listed| listed.part.map(|item| (item.id.clone(), item.position()))))
    }

    fn list_by(
        &self,
        id: &NodeId,
        query: &ItemQuery,
        read: impl Fn(&Self, NodeNumber, Epoch, ItemPosition) -> Result<Item, StoreError>,
        fits: impl FnMut(&Item) -> bool,
    ) -> Result<Option<ItemPage>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(Some(ItemPage::empty())) };
        let epoch = self.record(number)?.1.to_node(&[])?.epoch;
        let counters = self.get::<NodeCounters>(&keys::counters(number))?.unwrap_or_default();
        let total = usize::try_from(counters.items).unwrap_or(usize::MAX);
        let first = self.first_item(number)?;
        for position in query.filter.only.iter().flatten() {
            if self.created(number, first, *position)?.is_none() {
                return Ok(None);
            }
        }
        let edge = match &query.page.edge {
            PageBound::After(mark) | PageBound::Before(mark) => {
                let found = self.position(number, first, mark, query.order.by)?;
                let Some(position) = found else { return Ok(None) };
                Some(position)
            }
            PageBound::At(_) | PageBound::Last => None,
        };
        let is_long = total > MAX_LOOKED_AT;
        let positions = self.positions(number, first, query, edge, is_long)?;
        let look = |position| self.item_without_payload(number, epoch, position);
        let read = |position| read(self, number, epoch, position);
        paginate(query, total, positions, look, read, fits).map(Some)
    }

    /// Returns the position of `mark`, the item after or before which a page is requested, in the order `by`. Returns
    /// `None` if no item has the name or position in `mark`.
    fn position(
        &self,
        node: NodeNumber,
        first: ItemPosition,
        mark: &ItemRef,
        by: OrderField,
    ) -> Result<Option<ItemPosition>, StoreError> {
        let found = match mark {
            ItemRef::Position(position) => return Ok(Some(*position)),
            ItemRef::Name(id) => {
                let found = self.get::<ItemIdRecord>(&keys::item_name(node, id.as_str()))?;
                found
                    .map(|found| (found.position(), found.created()))
                    .filter(|(position, _)| *position >= first)
            }
            ItemRef::ModifiedAt(position) => {
                self.created(node, first, *position)?.map(|created| (*position, created))
            }
        };
        Ok(found.map(|(position, created)| match by {
            OrderField::Creation => created,
            OrderField::Modification => position,
        }))
    }

    /// Returns the position of the first publication of the item that is now at `position`; `None` if no item is there.
    fn created(
        &self,
        node: NodeNumber,
        first: ItemPosition,
        position: ItemPosition,
    ) -> Result<Option<ItemPosition>, StoreError> {
        if position < first {
            return Ok(None);
        }
        let record = self.get::<record::ItemRecord>(&keys::item(node, position))?;
        Ok(record.map(|record| record.created_at(position)))
    }

    /// Returns the positions of the candidates for a page, in ascending order of the query's sort field.
    fn positions(
        &self,
        node: NodeNumber,
        first: ItemPosition,
        query: &ItemQuery,
        edge: Option<ItemPosition>,
        is_long: bool,
    ) -> Result<PositionIter, StoreError> {
        let (after, before) = query.between(edge);
        let is_between = |position: &ItemPosition| {
            after.is_none_or(|after| *position > after)
                && before.is_none_or(|before| *position < before)
        };
        match (query.order.by, &query.filter.only) {
            (OrderField::Creation, _) => {
                let mut positions = Vec::new();
                for row in self.scan(&keys::of_node(b'x', node)) {
                    let (key, value) = row?;
                    let found: ItemIdRecord = record::decode(&key, &value)?;
                    positions.push((found.created(), found.position()));
                }
                let is_named =
                    |position: &ItemPosition| *position >= first && query.filter.names(*position);
                positions.retain(|(created, position)| is_named(position) && is_between(created));
                positions.sort_unstable();
                Ok(Box::new(positions.into_iter().map(|(_, position)| Ok(position))))
            }
            (OrderField::Modification, Some(only)) => {
                let mut positions: Vec<ItemPosition> =
                    only.iter().copied().filter(is_between).collect();
                positions.sort_unstable();
                positions.dedup();
                Ok(Box::new(positions.into_iter().map(Ok)))
            }
            (OrderField::Modification, None) => {
                let mut from = after.map_or(first, keys::after).max(first);
                let mut until = before.unwrap_or(END);
                if let Some(since) = query.filter.since.filter(|_| is_long) {
                    from = from.max(self.first_of(node, first, |at| at >= since)?);
                }
                if let Some(last) = query.filter.until.filter(|_| is_long) {
                    until = until.min(self.first_of(node, first, |at| at > last)?);
                }
                let (from, until) = (keys::item(node, from), keys::item(node, until.max(from)));
                let position = |row: sled::Result<(sled::IVec, sled::IVec)>| {
                    let (key, _) = row.map_err(|error| sled_failed(&error))?;
                    keys::position(&key).ok_or_else(|| damaged(&key))
                };
                Ok(Box::new(self.tree.range(from..until).map(position)))
            }
        }
    }

    /// Returns the position of the first item for whose publication time `is_late` returns `true`. The binary search
    /// assumes that times ascend with positions, so after the clock was set back it may miss items. It is used only for
    /// nodes with more than [`MAX_LOOKED_AT`] items.
    fn first_of(
        &self,
        node: NodeNumber,
        first: ItemPosition,
        is_late: impl Fn(Timestamp) -> bool,
    ) -> Result<ItemPosition, StoreError> {
        let end = keys::of_node(b'i', node.next());
        let next = |position: ItemPosition| match self
            .tree
            .range(keys::item(node, position)..end.clone())
            .next()
        {
            None => Ok(None),
            Some(row) => {
                let (key, value) = row.map_err(|error| sled_failed(&error))?;
                let position = keys::position(&key).ok_or_else(|| damaged(&key))?;
                let record: record::ItemRecord = record::decode(&key, &value)?;
                Ok::<_, StoreError>(Some((position, record.published())))
            }
        };
        let newest = self.get::<NodeCounters>(&keys::counters(node))?.unwrap_or_default().sequence;
        let (mut low, mut high) = (first.sequence.0, newest.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match next(Sequence(middle).into())? {
                Some((position, at)) if !is_late(at) => {
                    low = position.sequence.0.saturating_add(1);
                }
                _ => high = middle,
            }
        }
        Ok(Sequence(low).into())
    }
}
