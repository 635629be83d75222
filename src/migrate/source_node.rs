//! What a node was in another service, in the terms of XEP-0060, as text.

use gjallar_pubsub::Timestamp;

use super::MigrationWarnings;

/// A node with all that it has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SourceNode {
    pub(super) name: String,
    /// Fields of the form `pubsub#node_config`, of several values each in a line.
    pub(super) config: Vec<(String, String)>,
    /// Who is what.
    pub(super) affiliations: Vec<(String, String)>,
    pub(super) subscriptions: Vec<SourceSubscription>,
    /// The items in the order in which they were published, as far as that is known.
    pub(super) items: Vec<SourceItem>,
}

impl SourceNode {
    /// Adds an item, if it could be read.
    pub(super) fn take(&mut self, item: Option<SourceItem>, remarks: &mut MigrationWarnings) {
        match item {
            Some(item) => self.items.push(item),
            None => remarks.add("an item that cannot be read", &self.name),
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
    /// The payload as XML.
    pub(super) payload: Option<String>,
}

/// The names and values of fields.
pub(super) fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(var, value)| ((*var).to_owned(), (*value).to_owned())).collect()
}
