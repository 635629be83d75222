//! Lists of a node's items.

use crate::{
    pubsub::{Edge, Listed, Listing, Mark, NodeId, OrderField},
    store::{StoreError, walk::walk},
};

use super::{
    keys::{self, Number, Spot},
    reader::View,
    record::{self, Counters, damaged},
    sled_failed,
};

/// Spots in ascending order.
type Spots = Box<dyn DoubleEndedIterator<Item = Result<Spot, StoreError>>>;

impl View {
    pub(super) fn list(
        &self,
        id: &NodeId,
        listing: &Listing,
        max_bytes: usize,
    ) -> Result<Option<Listed>, StoreError> {
        let Some(number) = self.number(id)? else { return Ok(Some(Listed::empty())) };
        let epoch = self.record(number)?.1.to_node(&[])?.epoch;
        let counters = self.get::<Counters>(&keys::counters(number))?.unwrap_or_default();
        let total = usize::try_from(counters.items).unwrap_or(usize::MAX);
        let first = self.first_item(number)?;
        for spot in listing.filter.named() {
            if self.created(number, first, spot)?.is_none() {
                return Ok(None);
            }
        }
        let edge = match &listing.page.edge {
            Edge::After(mark) | Edge::Before(mark) => {
                let found = self.find(number, first, mark)?;
                let Some((spot, created)) = found else { return Ok(None) };
                Some(match listing.order.by {
                    OrderField::Creation => created,
                    OrderField::Modification => spot,
                })
            }
            Edge::At(_) | Edge::Last => None,
        };
        let spots = self.spots(number, first, listing, edge)?;
        let read = |spot| self.item(number, epoch, spot);
        walk(listing, total, spots, read, max_bytes).map(Some)
    }

    /// Where an item stands, and where it was published first, if it is there.
    fn find(
        &self,
        node: Number,
        first: Spot,
        mark: &Mark,
    ) -> Result<Option<(Spot, Spot)>, StoreError> {
        match mark {
            Mark::Name(id) => {
                let found = self.get::<(Spot, Spot)>(&keys::item_name(node, id.as_str()))?;
                Ok(found.filter(|(spot, _)| *spot >= first))
            }
            Mark::Spot(spot) => {
                Ok(self.created(node, first, *spot)?.map(|created| (*spot, created)))
            }
        }
    }

    /// Where the item of a spot was published first, if it is there.
    fn created(&self, node: Number, first: Spot, spot: Spot) -> Result<Option<Spot>, StoreError> {
        if spot < first {
            return Ok(None);
        }
        let record = self.get::<record::ItemRecord>(&keys::item(node, spot))?;
        Ok(record.map(|record| record.created_at(spot)))
    }

    /// The items that the page may have.
    fn spots(
        &self,
        node: Number,
        first: Spot,
        listing: &Listing,
        edge: Option<Spot>,
    ) -> Result<Spots, StoreError> {
        let (after, before) = listing.between(edge);
        let is_between = |spot: &Spot| {
            after.is_none_or(|after| *spot > after) && before.is_none_or(|before| *spot < before)
        };
        match (listing.order.by, &listing.filter.only) {
            (OrderField::Creation, _) => {
                let mut spots = Vec::new();
                for row in self.scan(&keys::of_node(b'x', node)) {
                    let (key, value) = row?;
                    let (spot, created) = record::decode::<(Spot, Spot)>(&key, &value)?;
                    spots.push((created, spot));
                }
                spots.retain(|(created, spot)| *spot >= first && is_between(created));
                spots.sort_unstable();
                Ok(Box::new(spots.into_iter().map(|(_, spot)| Ok(spot))))
            }
            (OrderField::Modification, Some(only)) => {
                let mut spots: Vec<Spot> = only.iter().copied().filter(is_between).collect();
                spots.sort_unstable();
                spots.dedup();
                Ok(Box::new(spots.into_iter().map(Ok)))
            }
            (OrderField::Modification, None) => {
                let from = keys::item(node, after.map_or(first, keys::after).max(first));
                let until = before.map(|before| keys::item(node, before));
                let until =
                    until.unwrap_or_else(|| keys::of_node(b'i', node + 1)).max(from.clone());
                let spot = |row: sled::Result<(sled::IVec, sled::IVec)>| {
                    let (key, _) = row.map_err(|error| sled_failed(&error))?;
                    keys::spot(&key).ok_or_else(|| damaged(&key))
                };
                Ok(Box::new(self.tree.range(from..until).map(spot)))
            }
        }
    }
}
