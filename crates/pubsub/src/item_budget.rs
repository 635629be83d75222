//! Size limit of lists of items.

use std::mem;

use crate::{Attribution, Item, Payload, written_len};

/// Maximum bytes of a list of items, and the way in which the size of an item is computed.
#[derive(Clone, Debug)]
pub struct ItemBudget {
    max_bytes: usize,
    rendering: Option<Rendering>,
}

/// Parts of an item that a reply contains, such as the publisher.
#[derive(Clone, Debug)]
struct Rendering {
    attribution: Attribution,
    includes_content_ids: bool,
}

impl ItemBudget {
    /// Creates a budget that counts the stored size of an item ([`Item::size`]).
    #[must_use]
    pub fn stored(max_bytes: usize) -> Self {
        Self { max_bytes, rendering: None }
    }

    /// Creates a budget that counts the size of an item as rendered in a reply (§6.5.2) at a node with this
    /// attribution. `includes_content_ids` is `true` if replies identify the content of each item (XEP-0395 §3.1).
    #[must_use]
    pub fn rendered(
        max_bytes: usize,
        includes_content_ids: bool,
        attribution: Attribution,
    ) -> Self {
        Self { max_bytes, rendering: Some(Rendering { attribution, includes_content_ids }) }
    }

    /// Returns a predicate that accepts items while they fit into the budget. The spaces that their longest tag may
    /// need ([`Payload::longest_tag`]) have to fit too. It always accepts the first item.
    pub fn fits(&self) -> impl FnMut(&Item) -> bool {
        let (mut bytes, mut longest_tag, mut is_first) = (0_usize, 0, true);
        move |item| {
            bytes = bytes.saturating_add(self.size_of(item));
            longest_tag = item.longest_tag().max(longest_tag);
            mem::take(&mut is_first) || bytes.saturating_add(longest_tag) <= self.max_bytes
        }
    }

    fn size_of(&self, item: &Item) -> usize {
        self.rendering.as_ref().map_or_else(|| item.size(), |rendering| rendering.size_of(item))
    }
}

impl Rendering {
    /// Returns the maximum rendered size of an item in a relayed stanza.
    fn size_of(&self, item: &Item) -> usize {
        let id = written_len(item.id.as_str());
        let publisher = self.attribution.publisher_of(item);
        let publisher =
            publisher.map_or(0, |jid| " publisher=''".len() + written_len(jid.as_str()));
        let payload = item.payload.as_ref().map_or(0, Payload::relayed_len);
        "<item id=''></item>".len() + id + publisher + payload + self.size_of_content(item, id)
    }

    /// Returns the size of the element `<cap-v-map-entry/>` that identifies the content of an item in a reply (XEP-0395
    /// §3.1); 0 if replies do not contain it.
    fn size_of_content(&self, item: &Item, id: usize) -> usize {
        if !self.includes_content_ids {
            return 0;
        }
        let value = item.archive_id().to_string().len();
        "<cap-v-map-entry item-id='' cap-value=''/>".len() + id + value
    }
}
