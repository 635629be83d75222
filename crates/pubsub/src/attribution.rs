//! The JID that a node shows as the publisher of its items (§12.17).

use jid::BareJid;

use crate::{Item, ItemReply, Node, NodeConfig};

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
    /// The attribution of a node with this configuration. With `owner` items show the
    /// [responsible](Node::responsible_owner) owner, and no publisher if there is none.
    #[must_use]
    pub fn of(node: &Node, config: &NodeConfig) -> Self {
        match config.itemreply {
            ItemReply::None => Self::Hidden,
            ItemReply::Publisher => Self::Publisher,
            ItemReply::Owner => {
                // A node that is about to be created has no affiliations yet.
                let is_new = node.affiliations_len() == 0;
                let owner = node.responsible_owner().or_else(|| is_new.then_some(&node.creator));
                owner.cloned().map_or(Self::Hidden, Self::Owner)
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
