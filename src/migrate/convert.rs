//! Conversion of nodes from other services, with the same rules for each service.

use std::collections::{BTreeMap, BTreeSet};

use jid::{BareJid, Jid};

use crate::{
    migrate::archive::{ArchiveSummary, NodeImporter},
    store::{Store, StoreError},
    xmpp::stanza::{
        forms::{node_config, subscribe_options},
        payload,
    },
};
use gjallar_pubsub::{
    AccessModel, Affiliation, ConfigField, Epoch, EventId, Expire, IdGenerator, Item, ItemId,
    ItemPosition, Limits, MaxItems, Node, NodeConfig, NodeId, Sequence, SubscriptionDetails,
    SubscriptionOptions, SubscriptionState, Timestamp, may_stay,
};

use super::{
    MigrationWarnings,
    source_node::{SourceItem, SourceNode, SourceSubscription},
};

/// Node as it is imported into the store.
pub(super) struct ConvertedNode {
    node: Node,
    sequence: Sequence,
    affiliations: BTreeMap<BareJid, Affiliation>,
    subscriptions: OptionsByJid,
    pending: OptionsByJid,
    items: Vec<Item>,
    now: Timestamp,
}

/// Context of a conversion: the importing service and its limits.
pub(super) struct ConvertContext<'a> {
    /// JID that becomes the creator of nodes without an owner.
    pub(super) service: &'a BareJid,
    /// Limits that apply to a node of this name.
    pub(super) limits: &'a dyn Fn(&NodeId) -> Limits,
    pub(super) fresh: &'a dyn IdGenerator,
    pub(super) now: Timestamp,
}

/// Converts a node; `None` if this service does not allow its name. Parts that are not imported are added to the
/// warnings.
pub(super) fn convert(
    found: SourceNode,
    context: &ConvertContext<'_>,
    warnings: &mut MigrationWarnings,
) -> Option<ConvertedNode> {
    let created = found.created().unwrap_or(context.now);
    let SourceNode { name, config, affiliations, subscriptions, items } = found;
    if config.iter().any(|(var, value)| var == "pubsub#node_type" && value == "collection") {
        warnings.add("a collection", name);
        return None;
    }
    let Ok(id) = NodeId::parse(&name) else {
        warnings.add("a node whose id is empty, too long, or not allowed in XML", name);
        return None;
    };
    let mut warnings = NodeWarnings { node: &name, warnings };
    let config = configured(&config, &mut warnings);
    let affiliations = affiliated(affiliations, &mut warnings);
    let owner = affiliations.iter().find(|(_, affiliation)| **affiliation == Affiliation::Owner);
    let creator = match owner {
        Some((owner, _)) => owner.clone(),
        None => {
            warnings.add("a node without owner: only administrators can change it");
            context.service.clone()
        }
    };
    let epoch = Epoch(context.fresh.next_u64());
    let (subscriptions, pending) =
        subscribed(subscriptions, &config, &affiliations, context.now, &mut warnings);
    let items = items_within_limits(items, &config, &mut warnings);
    let (items, sequence) = assign_sequences(items, &creator, epoch, &mut warnings);
    if !is_kept_here(&items, &config, &(context.limits)(&id)) {
        warnings
            .add("more items or bytes than a node may have: the next publish evicts the oldest");
    }
    let node = Node::new(id, epoch, config, creator, created);
    let now = context.now;
    Some(ConvertedNode { node, sequence, affiliations, subscriptions, pending, items, now })
}

impl ConvertedNode {
    pub(super) fn count(&self, summary: &mut ArchiveSummary) {
        summary.nodes += 1;
        summary.subscriptions += (self.subscriptions.len() + self.pending.len()) as u64;
        summary.items += self.items.len() as u64;
    }

    pub(super) async fn put(self, store: &dyn Store) -> Result<(), StoreError> {
        let Self { node, sequence, affiliations, subscriptions, pending, items, now } = self;
        let version = sequence.0;
        let mut importer = NodeImporter::begin(store, node).await?;
        for (entity, affiliation) in affiliations {
            importer.affiliate(entity, affiliation);
        }
        for item in items {
            importer.item(item).await?;
        }
        for (jid, _) in &subscriptions {
            importer.subscribe(jid.clone(), false, version);
        }
        for (jid, _) in &pending {
            importer.request(jid.clone());
        }
        for (jid, options) in subscriptions.into_iter().chain(pending) {
            if options != SubscriptionOptions::default() {
                importer.agree(
                    jid,
                    vec![SubscriptionDetails::new(None, options, sequence, now)],
                    version,
                );
            }
        }
        importer.finish(sequence, version).await
    }
}

/// Collector of the warnings about one node.
struct NodeWarnings<'a> {
    node: &'a str,
    warnings: &'a mut MigrationWarnings,
}

impl NodeWarnings<'_> {
    fn add(&mut self, what: impl Into<String>) {
        self.warnings.add(what, self.node);
    }

    fn add_with(&mut self, what: impl Into<String>, which: &str) {
        self.warnings.add(what, format!("{}: {}", self.node, shortened(which)));
    }
}

/// Shortens a text for a warning.
fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Affiliations, from the fewest rights to the most.
const RANKS: [Affiliation; 5] = [
    Affiliation::Outcast,
    Affiliation::Member,
    Affiliation::PublishOnly,
    Affiliation::Publisher,
    Affiliation::Owner,
];

/// Returns `true` if the configuration and the limits allow the node to keep all of these items.
fn is_kept_here(items: &[Item], config: &NodeConfig, limits: &Limits) -> bool {
    let most = match config.clone().within(limits).max_items {
        MaxItems::Max => limits.max_items,
        MaxItems::Number(number) => number,
    };
    let bytes: u64 = items.iter().map(|item| item.size() as u64).sum();
    items.len() as u64 <= u64::from(most) && bytes <= limits.max_node_bytes
}

/// Converts the configuration. A field with an unknown value gets its default, with two exceptions: an unknown access
/// model becomes `whitelist`, and an invalid maximum number of items becomes `max`.
fn configured(fields: &[(String, String)], warnings: &mut NodeWarnings<'_>) -> NodeConfig {
    let limits = Limits { max_items: u32::MAX, max_payload_bytes: u32::MAX, ..Limits::default() };
    let mut config = NodeConfig::initial(&limits);
    for (var, value) in fields {
        let with = |settings: &[ConfigField]| config.clone().with(settings, &limits);
        let set = node_config::setting(var, value)
            .and_then(|setting| with(&setting.into_iter().collect::<Vec<_>>()));
        match set {
            Ok(set) => config = set,
            Err(_) if var == "pubsub#access_model" => {
                warnings.add_with("an unknown access model: whitelist is used", value);
                let closed = ConfigField::AccessModel(AccessModel::Whitelist);
                config = with(&[closed]).unwrap_or(config);
            }
            Err(_) if var == "pubsub#max_items" => {
                warnings.add_with("pubsub#max_items is invalid: all items are kept", value);
                config = with(&[ConfigField::MaxItems(MaxItems::Max)]).unwrap_or(config);
            }
            Err(_) => {
                let var = shortened(var);
                warnings
                    .add_with(format!("{var} is unknown or invalid: the default is used"), value);
            }
        }
    }
    config
}

fn affiliated(
    found: Vec<(String, String)>,
    warnings: &mut NodeWarnings<'_>,
) -> BTreeMap<BareJid, Affiliation> {
    let mut affiliations = BTreeMap::new();
    for (jid, name) in found {
        match (Affiliation::parse(&name), BareJid::stamped(&jid)) {
            (Some(Affiliation::None), _) => {}
            (Some(affiliation), Ok(entity)) => {
                let other = affiliations.remove(&entity);
                if other.is_some() {
                    warnings
                        .add_with("an entity with two affiliations: the lower one is used", &jid);
                }
                let lower =
                    RANKS.into_iter().find(|rank| *rank == affiliation || Some(*rank) == other);
                affiliations.insert(entity, lower.unwrap_or(affiliation));
            }
            (None, _) => {
                warnings.add_with(format!("unknown affiliation {}", shortened(&name)), &jid)
            }
            (_, Err(_)) => warnings.add_with("an affiliation without a valid bare JID", &jid),
        }
    }
    affiliations
}

/// JIDs with the options of their subscriptions.
type OptionsByJid = Vec<(Jid, SubscriptionOptions)>;

/// Converts subscriptions; returns the subscriptions in effect, and the pending subscriptions.
fn subscribed(
    mut found: Vec<SourceSubscription>,
    config: &NodeConfig,
    affiliations: &BTreeMap<BareJid, Affiliation>,
    now: Timestamp,
    warnings: &mut NodeWarnings<'_>,
) -> (OptionsByJid, OptionsByJid) {
    let (mut subscriptions, mut pending) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    // Of several subscriptions of a JID the one with the most rights counts.
    found.sort_by_key(|found| match found.state.as_str() {
        "subscribed" => 0,
        "pending" => 1,
        _ => 2,
    });
    for SourceSubscription { jid: text, state, options } in found {
        let Ok(jid) = Jid::stamped(&text) else {
            warnings.add_with("a subscription with an invalid JID", &text);
            continue;
        };
        let affiliation = affiliations.get(&jid.to_bare()).copied().unwrap_or(Affiliation::None);
        let options = agreed(&options, warnings);
        let state = SubscriptionState::parse(&state);
        if seen.contains(&jid) {
            warnings.add_with("another subscription of the same JID", &text);
        } else if !may_stay(config, affiliation) {
            warnings.add_with("a subscription of an entity that has no access to the node", &text);
        } else if matches!(options.expire, Expire::At(end) if end <= now) {
            warnings.add_with("a subscription whose lease is over", &text);
        } else if state == Some(SubscriptionState::Subscribed) {
            seen.insert(jid.clone());
            subscriptions.push((jid, options));
        } else if state == Some(SubscriptionState::Pending)
            && config.access_model == AccessModel::Authorize
        {
            seen.insert(jid.clone());
            pending.push((jid, options));
        } else {
            warnings.add_with("a subscription with missing data", &text);
        }
    }
    (subscriptions, pending)
}

fn agreed(fields: &[(String, String)], warnings: &mut NodeWarnings<'_>) -> SubscriptionOptions {
    let mut settings = Vec::new();
    for (var, value) in fields {
        match subscribe_options::setting(var, value) {
            Ok(setting) => settings.push(setting),
            Err(_) => warnings
                .add_with(format!("unsupported subscription option {}", shortened(var)), value),
        }
    }
    SubscriptionOptions::restored(settings)
}

/// Returns the items that a node with this configuration keeps.
fn items_within_limits(
    mut items: Vec<SourceItem>,
    config: &NodeConfig,
    warnings: &mut NodeWarnings<'_>,
) -> Vec<SourceItem> {
    items.sort_by_key(|item| item.modified);
    let mut newer = BTreeSet::new();
    let mut is_newest = |item: &SourceItem| newer.insert(item.id.clone());
    let newest: Vec<_> = items.iter().rev().map(&mut is_newest).collect();
    let mut newest = newest.into_iter().rev();
    for item in items.extract_if(.., |_| newest.next() == Some(false)) {
        warnings.add_with("an item replaced by a newer one with the same id", &item.id);
    }
    let most = match (config.persist_items, config.max_items) {
        (false, _) => 0,
        (true, MaxItems::Max) => usize::MAX,
        (true, MaxItems::Number(number)) => usize::try_from(number).unwrap_or(usize::MAX),
    };
    for item in items.drain(..items.len().saturating_sub(most)) {
        warnings.add_with("an item beyond pubsub#max_items", &item.id);
    }
    items
}

/// Assigns sequence numbers to the items: each creation and each modification of an item takes the next number, in
/// order of time. Also returns the last number.
fn assign_sequences(
    found: Vec<SourceItem>,
    creator: &BareJid,
    epoch: Epoch,
    warnings: &mut NodeWarnings<'_>,
) -> (Vec<Item>, Sequence) {
    let mut times: Vec<(Timestamp, usize)> = Vec::new();
    for (nth, item) in found.iter().enumerate() {
        times.push((item.created.min(item.modified), nth));
        if item.created < item.modified {
            times.push((item.modified, nth));
        }
    }
    times.sort();
    let mut positions: BTreeMap<usize, (ItemPosition, Sequence)> = BTreeMap::new();
    for (sequence, (_, nth)) in (1..).map(Sequence).zip(&times) {
        positions.entry(*nth).or_insert_with(|| (sequence.into(), sequence)).1 = sequence;
    }
    let mut items = Vec::new();
    for (nth, item) in found.into_iter().enumerate() {
        let Some((created, sequence)) = positions.get(&nth).copied() else { continue };
        let Ok(id) = ItemId::parse(&item.id) else {
            warnings
                .add_with("an item whose id is empty, too long, or not allowed in XML", &item.id);
            continue;
        };
        let Ok(payload) = item.payload.as_deref().map(payload::of_item).transpose() else {
            let what = "an item whose payload is not a single XML element with at most 64 levels";
            warnings.add_with(what, &item.id);
            continue;
        };
        let publisher = item.publisher.as_deref().map(Jid::stamped);
        let publisher = match publisher {
            Some(Ok(jid)) => jid.to_bare(),
            Some(Err(_)) | None => {
                warnings.add_with(
                    "an item without a known publisher: the creator of the node is recorded as its publisher",
                    &item.id,
                );
                creator.clone()
            }
        };
        let event_id = EventId { epoch, sequence };
        let published = item.modified;
        items.push(Item { id, event_id, index: 0, created, publisher, published, payload });
    }
    items.sort_by_key(Item::position);
    (items, Sequence(times.len() as u64))
}

#[cfg(test)]
mod tests;
