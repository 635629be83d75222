//! The JID that a node shows as the publisher of its items (§12.17).

use jid::BareJid;

use super::{Affiliation, Item, ItemReply, Node, NodeConfig};

/// The `publisher` attribute of a node's items, in events and in every form of retrieval (§7.1.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// No item has one.
    Hidden,
    /// Every item has the JID of this owner of the node.
    Owner(BareJid),
    /// Each item has the JID of its publisher.
    Publisher,
}

impl Attribution {
    /// The attribution of a node with this configuration. Of several owners it is the creator, as long as that is one.
    #[must_use]
    pub fn of(node: &Node, config: &NodeConfig) -> Self {
        match config.itemreply {
            ItemReply::None => Self::Hidden,
            ItemReply::Publisher => Self::Publisher,
            ItemReply::Owner => {
                let is_owner = node.affiliation_of(&node.creator) == Affiliation::Owner;
                // A node that is about to be created has no affiliations yet.
                let other = node.owners().next().filter(|_| !is_owner);
                Self::Owner(other.unwrap_or(&node.creator).clone())
            }
        }
    }

    /// The JID that an item shows.
    #[must_use]
    pub fn publisher_of<'a>(&'a self, item: &'a Item) -> Option<&'a BareJid> {
        match self {
            Self::Hidden => None,
            Self::Owner(owner) => Some(owner),
            Self::Publisher => Some(&item.publisher),
        }
    }
}
