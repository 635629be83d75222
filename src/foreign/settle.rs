//! What of a node comes over: the same decisions for whatever service it was in.

use std::collections::{BTreeMap, BTreeSet};

use jid::{BareJid, Jid};

use crate::{
    archive::{Filling, Summary},
    pubsub::{
        AccessModel, Affiliation, Epoch, Expire, Fresh, Item, ItemId, Limits, MaxItems, Node,
        NodeConfig, NodeId, Options, Place, Setting, Spot, SubscriptionState, Terms, Timestamp,
        may_stay,
    },
    store::{Store, StoreError},
    wire::{
        form::{node_config, subscribe_options},
        name::{affiliation_named, state_named},
        payload,
    },
};

use super::{
    Remarks,
    found::{Found, FoundItem, FoundSubscription},
};

/// A node as it is put into the store.
pub(super) struct Settled {
    node: Node,
    seq: u64,
    affiliations: BTreeMap<BareJid, Affiliation>,
    subscriptions: Vec<(Jid, Options)>,
    pending: Vec<Jid>,
    items: Vec<Item>,
    now: Timestamp,
}

/// What comes over of a node; nothing if it cannot have its name here. What does not is remarked.
pub(super) fn settle(
    found: Found,
    service: &BareJid,
    fresh: &dyn Fresh,
    now: Timestamp,
    remarks: &mut Remarks,
) -> Option<Settled> {
    let Found { name, config, affiliations, subscriptions, items } = found;
    let Ok(id) = NodeId::parse(&name) else {
        remarks.add("a node whose name is empty, too long, or cannot stand in XML", name);
        return None;
    };
    let mut place = Remarked { node: &name, remarks };
    let config = configured(&config, &mut place);
    let affiliations = affiliated(affiliations, &mut place);
    let owner = affiliations.iter().find(|(_, affiliation)| **affiliation == Affiliation::Owner);
    let creator = match owner {
        Some((owner, _)) => owner.clone(),
        None => {
            place.remark("a node that nobody owns: only administrators can change it");
            service.clone()
        }
    };
    let created = items.iter().map(|item| item.created).min().unwrap_or(now);
    let epoch = Epoch(fresh.number());
    let (subscriptions, pending) =
        subscribed(subscriptions, &config, &affiliations, now, &mut place);
    let items = kept(items, &config, &mut place);
    let (items, seq) = placed(items, &creator, epoch, &mut place);
    let node = Node::bare(id, epoch, config, creator, created);
    Some(Settled { node, seq, affiliations, subscriptions, pending, items, now })
}

impl Settled {
    pub(super) fn count(&self, summary: &mut Summary) {
        summary.nodes += 1;
        summary.subscriptions += (self.subscriptions.len() + self.pending.len()) as u64;
        summary.items += self.items.len() as u64;
    }

    pub(super) async fn put(self, store: &dyn Store) -> Result<(), StoreError> {
        let Self { node, seq, affiliations, subscriptions, pending, items, now } = self;
        let mut filling = Filling::begin(store, node).await?;
        for (entity, affiliation) in affiliations {
            filling.affiliate(entity, affiliation);
        }
        for item in items {
            filling.item(item).await?;
        }
        for (jid, options) in subscriptions {
            filling.subscribe(jid.clone(), false, seq);
            if options != Options::default() {
                filling.agree(jid, vec![Terms::new(None, options, seq, now)], seq);
            }
        }
        for jid in pending {
            filling.request(jid);
        }
        filling.finish(seq).await
    }
}

/// The node that is looked at, and what is remarked.
struct Remarked<'a> {
    node: &'a str,
    remarks: &'a mut Remarks,
}

impl Remarked<'_> {
    fn remark(&mut self, what: impl Into<String>) {
        self.remarks.add(what, self.node);
    }

    fn remark_of(&mut self, what: impl Into<String>, which: &str) {
        self.remarks.add(what, format!("{}: {which}", self.node));
    }
}

/// The configuration. Of a field that is not understood the default counts, but who may read and who may publish
/// is then closed.
fn configured(fields: &[(String, String)], place: &mut Remarked<'_>) -> NodeConfig {
    let limits = Limits { max_items: u32::MAX, max_payload_bytes: u32::MAX, ..Limits::default() };
    let mut config = NodeConfig::initial(&limits);
    for (var, value) in fields {
        let with = |settings: &[Setting]| config.clone().with(settings, &limits);
        let set = node_config::setting(var, value)
            .and_then(|setting| with(&setting.into_iter().collect::<Vec<_>>()));
        match set {
            Ok(set) => config = set,
            Err(_) if var == "pubsub#access_model" => {
                place.remark(format!("{var} = {value}: closed to all who are not on the list"));
                let closed = Setting::AccessModel(AccessModel::Whitelist);
                config = with(&[closed]).unwrap_or(config);
            }
            Err(_) => place.remark(format!("{var} = {value}: the default counts")),
        }
    }
    config
}

fn affiliated(
    found: Vec<(String, String)>,
    place: &mut Remarked<'_>,
) -> BTreeMap<BareJid, Affiliation> {
    let mut affiliations = BTreeMap::new();
    for (jid, name) in found {
        match (BareJid::new(&jid), affiliation_named(&name)) {
            (Ok(_), Some(Affiliation::None)) => {}
            (Ok(entity), Some(affiliation)) => {
                if affiliations.insert(entity, affiliation).is_some() {
                    place.remark_of("an entity with two affiliations: the last counts", &jid);
                }
            }
            (Ok(_), None) => place.remark_of(format!("the affiliation {name}"), &jid),
            (Err(_), _) => place.remark_of("an affiliation of what is no bare JID", &jid),
        }
    }
    affiliations
}

/// Who is subscribed, and who waits for that.
fn subscribed(
    found: Vec<FoundSubscription>,
    config: &NodeConfig,
    affiliations: &BTreeMap<BareJid, Affiliation>,
    now: Timestamp,
    place: &mut Remarked<'_>,
) -> (Vec<(Jid, Options)>, Vec<Jid>) {
    let (mut subscriptions, mut pending) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for FoundSubscription { jid: text, state, options } in found {
        let Ok(jid) = Jid::new(&text) else {
            place.remark_of("a subscription of what is no JID", &text);
            continue;
        };
        let affiliation = affiliations.get(&jid.to_bare()).copied().unwrap_or(Affiliation::None);
        let options = agreed(&options, place);
        let state = state_named(&state);
        if !seen.insert(jid.to_string()) {
            place.remark_of("a further subscription of the same JID", &text);
        } else if !may_stay(config, affiliation) {
            place.remark_of("a subscription of somebody whom the node does not admit", &text);
        } else if matches!(options.expire, Expire::At(end) if end <= now) {
            place.remark_of("a subscription whose lease is over", &text);
        } else if state == Some(SubscriptionState::Subscribed) {
            subscriptions.push((jid, options));
        } else if state == Some(SubscriptionState::Pending)
            && config.access_model == AccessModel::Authorize
        {
            pending.push(jid);
        } else {
            place.remark_of("a subscription that is not complete", &text);
        }
    }
    (subscriptions, pending)
}

fn agreed(fields: &[(String, String)], place: &mut Remarked<'_>) -> Options {
    let mut settings = Vec::new();
    for (var, value) in fields {
        match subscribe_options::setting(var, value) {
            Ok(setting) => settings.push(setting),
            Err(_) => place.remark(format!("the subscription option {var} = {value}")),
        }
    }
    Options::restored(settings)
}

/// The items that a node of this configuration keeps.
fn kept(
    mut items: Vec<FoundItem>,
    config: &NodeConfig,
    place: &mut Remarked<'_>,
) -> Vec<FoundItem> {
    items.sort_by_key(|item| item.modified);
    let most = match (config.persist_items, config.max_items) {
        (false, _) => 0,
        (true, MaxItems::Max) => usize::MAX,
        (true, MaxItems::Number(number)) => usize::try_from(number).unwrap_or(usize::MAX),
    };
    for item in items.drain(..items.len().saturating_sub(most)) {
        place.remark_of("an item more than the node is configured to keep", &item.id);
    }
    items
}

/// Gives each item its place in the node's order: creations and modifications take one each, as they happened.
/// The other result is the place of the last.
fn placed(
    found: Vec<FoundItem>,
    creator: &BareJid,
    epoch: Epoch,
    place: &mut Remarked<'_>,
) -> (Vec<Item>, u64) {
    let mut moments: Vec<(Timestamp, usize)> = Vec::new();
    for (nth, item) in found.iter().enumerate() {
        moments.push((item.created.min(item.modified), nth));
        if item.created < item.modified {
            moments.push((item.modified, nth));
        }
    }
    moments.sort();
    let mut spots: BTreeMap<usize, (Spot, u64)> = BTreeMap::new();
    for (seq, (_, nth)) in (1..).zip(&moments) {
        spots.entry(*nth).or_insert(((seq, 0), seq)).1 = seq;
    }
    let mut items = Vec::new();
    for (nth, item) in found.into_iter().enumerate() {
        let Some((created, seq)) = spots.get(&nth).copied() else { continue };
        let Ok(id) = ItemId::parse(&item.id) else {
            place.remark_of(
                "an item whose name is empty, too long, or cannot stand in XML",
                &item.id,
            );
            continue;
        };
        let Ok(payload) = item.payload.as_deref().map(payload::parse).transpose() else {
            let what = "an item whose payload is not one element with a namespace";
            place.remark_of(what, &item.id);
            continue;
        };
        let publisher = item.publisher.as_deref().map(Jid::new);
        let publisher = match publisher {
            Some(Ok(jid)) => jid.to_bare(),
            Some(Err(_)) | None => {
                place.remark_of("an item of an unknown publisher: it is the creator's", &item.id);
                creator.clone()
            }
        };
        let place = Place { epoch, seq };
        let published = item.modified;
        items.push(Item { id, place, index: 0, created, publisher, published, payload });
    }
    items.sort_by_key(Item::spot);
    (items, moments.len() as u64)
}

#[cfg(test)]
mod tests;
