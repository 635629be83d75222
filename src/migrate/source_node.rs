//! Node of another service, in the terms of XEP-0060, as text.

use gjallar_pubsub::Timestamp;

use super::MigrationWarnings;

/// Node with its affiliations, subscriptions and items.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SourceNode {
    pub(super) name: String,
    /// Fields of the form `pubsub#node_config`; several values of a field are separated by line ends.
    pub(super) config: Vec<(String, String)>,
    /// Entities and their affiliations.
    pub(super) affiliations: Vec<(String, String)>,
    pub(super) subscriptions: Vec<SourceSubscription>,
    /// Items in the order of their publication, as far as it is known.
    pub(super) items: Vec<SourceItem>,
}

impl SourceNode {
    /// Returns the time of the oldest item. The import uses this time as the creation of the node.
    pub(super) fn created(&self) -> Option<Timestamp> {
        self.items.iter().map(|item| item.created).min()
    }

    /// Adds an item. `None` is an unreadable item, and adds a warning instead.
    pub(super) fn take(&mut self, item: Option<SourceItem>, warnings: &mut MigrationWarnings) {
        match item {
            Some(item) => self.items.push(item),
            None => warnings.add("an item that cannot be read", &self.name),
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SourceSubscription {
    pub(super) jid: String,
    pub(super) state: String,
    /// Fields of the form `pubsub#subscribe_options`.
    pub(super) options: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceItem {
    pub(super) id: String,
    pub(super) publisher: Option<String>,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    /// Payload as XML.
    pub(super) payload: Option<String>,
}

/// Returns fields from names and values.
pub(super) fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(var, value)| ((*var).to_owned(), (*value).to_owned())).collect()
}
