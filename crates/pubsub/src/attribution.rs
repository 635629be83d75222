//! Attribution of items: the JID that a node shows as their publisher (§12.17).

use jid::BareJid;

use crate::{Item, ItemReply, Node, NodeConfig};

/// Value of the `publisher` attribute of a node's items, in notifications and in every form of retrieval (§7.1.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// Items have no attribute `publisher`.
    Hidden,
    /// Every item shows this owner of the node.
    Owner(BareJid),
    /// Each item shows its publisher.
    Publisher,
}

impl Attribution {
    /// Returns the attribution of a node with this configuration. If `pubsub#itemreply` is `owner`, items show the
    /// [responsible owner](Node::responsible_owner) as publisher; without a responsible owner, they have no publisher.
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

    /// Returns the JID that an item shows as its publisher; `None` if it shows none.
    #[must_use]
    pub fn publisher_of<'a>(&'a self, item: &'a Item) -> Option<&'a BareJid> {
        match self {
            Self::Hidden => None,
            Self::Owner(owner) => Some(owner),
            Self::Publisher => Some(&item.publisher),
        }
    }
}
