//! A node: its configuration, who stands how to it, who is subscribed, and where its order is at.
//! Items are not part of it: there may be many, and few rules look at them.

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BTreeSet, HashSet},
    iter,
    sync::Arc,
};

use jid::{BareJid, Jid};

use crate::{
    Affiliation, Affiliations, Audience, Change, Changes, ConfigRevision, ConfiguredSubscription,
    Epoch, NodeConfig, NodeId, Recipients, Sequence, SubId, SubscriptionDetails,
    SubscriptionOptions, SubscriptionState, Timestamp, access,
    configured_subscriptions::ConfiguredSubscriptions,
    is_entitled,
    spellings::Spelled,
    subscriber_list::{SubscriberList, order},
};

/// A subscription in the list of all: its JID and its SubID.
pub(super) type SubscriptionEntry<'a> = (&'a Jid, Option<&'a SubId>);

/// The subscriptions of a JID; without a [`ConfiguredSubscription`] it has one.
type OfJid<'a> = (&'a Jid, Option<&'a ConfiguredSubscription>);

/// A node as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Which life of that name this is.
    pub epoch: Epoch,
    /// Sequence of its newest event; 0 before the first.
    pub sequence: Sequence,
    /// The number of its last commit of any kind. Never less than that of any subscription's beginning.
    pub version: u64,
    /// How it behaves.
    pub config: NodeConfig,
    /// Which configuration that is.
    pub revision: ConfigRevision,
    /// Who created it.
    pub creator: BareJid,
    /// When.
    pub created: Timestamp,
    affiliations: Affiliations,
    /// Each with the version at which it began.
    subscribers: SubscriberList,
    /// Those who wait for an owner.
    pending: SubscriberList,
    /// Those of both who have options or SubIDs, and stand only here.
    specials: ConfiguredSubscriptions,
    /// The bare JIDs of subscribed and pending JIDs.
    spelled: Spelled,
}

impl Node {
    /// A node without affiliations and subscriptions, as a store begins to load it. The rules create
    /// nodes with [`op::create`](crate::op::create).
    #[must_use]
    pub fn new(
        id: NodeId,
        epoch: Epoch,
        config: NodeConfig,
        creator: BareJid,
        created: Timestamp,
    ) -> Self {
        Self {
            id,
            epoch,
            sequence: Sequence(0),
            version: 0,
            config,
            revision: ConfigRevision::first(creator.clone()),
            creator,
            created,
            affiliations: Affiliations::default(),
            subscribers: SubscriberList::default(),
            pending: SubscriberList::default(),
            specials: ConfiguredSubscriptions::default(),
            spelled: Spelled::default(),
        }
    }

    /// Returns `true` if nothing has changed since the creation, so that no publisher can rely on the node. Imported nodes,
    /// and those of a store of layout 9, may begin at version 0 with affiliations and subscriptions.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        let has_others = self.affiliations().any(|(entity, _)| *entity != self.creator)
            || self.subscribers.len() > 0
            || self.pending.len() > 0;
        self.sequence == Sequence(0) && self.version == 1 && !has_others
    }

    /// The affiliation of an entity. The affiliation of an address also holds for the other spellings of its domain,
    /// and that of an outcast for all addresses with the same [fold](BareJid::fold), unless these have their own.
    #[must_use]
    pub fn affiliation_of(&self, entity: &BareJid) -> Affiliation {
        self.affiliations.of(entity)
    }

    /// The affiliation of exactly this address.
    #[must_use]
    pub fn affiliation_of_address(&self, address: &BareJid) -> Affiliation {
        self.affiliations.of_address(address)
    }

    /// Every affiliation but `none`.
    pub fn affiliations(&self) -> impl Iterator<Item = (&BareJid, Affiliation)> {
        self.affiliations.iter()
    }

    /// The affiliations, for lookups.
    pub(super) fn all_affiliations(&self) -> &Affiliations {
        &self.affiliations
    }

    /// The affiliations after changes.
    pub(super) fn affiliations_after(&self, changes: &Changes) -> Cow<'_, Affiliations> {
        let mut after = Cow::Borrowed(&self.affiliations);
        for change in changes.iter() {
            if let Change::AffiliationSet(entity, affiliation) = change {
                after.to_mut().set(entity.clone(), *affiliation);
            }
        }
        after
    }

    /// How many affiliations there are.
    #[must_use]
    pub fn affiliations_len(&self) -> usize {
        self.affiliations.len()
    }

    /// The owners.
    pub fn owners(&self) -> impl Iterator<Item = &BareJid> {
        self.affiliations().filter(|(_, a)| *a == Affiliation::Owner).map(|(entity, _)| entity)
    }

    /// The owner whose JID items show with `pubsub#itemreply=owner` (§12.17): the creator, as long as it is an owner; then
    /// the owner who changed the configuration last, as long as it is one.
    ///
    /// SPEC: §12.17 speaks of the owner. An entity that others made an owner has not agreed to be shown as a publisher.
    #[must_use]
    pub fn responsible_owner(&self) -> Option<&BareJid> {
        let candidates = [&self.creator, &self.revision.last_owner];
        candidates.into_iter().find(|entity| self.is_owner(entity))
    }

    /// The owner whose roster gives access (§4.5): the one who last chose that, as long as it is an owner.
    ///
    /// SPEC: §4.5 speaks of the owner. Other owners have not agreed to have their rosters read, and one owner could find
    /// out the contacts of another if its choice of the access model or the groups applied to the other's roster.
    #[must_use]
    pub fn roster_owner(&self) -> Option<&BareJid> {
        self.revision.roster_chooser().filter(|entity| self.is_owner(entity))
    }

    /// The revision of a node of layout 9, which has none and in which the rosters of all owners gave access. If the
    /// creator is no longer an owner, or has no roster because it is no user, such as the service itself, the only owner
    /// that is a user replaces it. No owner is chosen if there are several, or if the address of the only one does not fit
    /// into the node's row.
    #[must_use]
    pub fn inherited_revision(&self) -> ConfigRevision {
        let first = ConfigRevision::first(self.creator.clone());
        let is_user = |entity: &BareJid| entity.node().is_some();
        let mut users = self.owners().filter(|owner| is_user(owner));
        let (Some(owner), other) = (users.next(), users.next()) else { return first };
        if self.is_owner(&self.creator) && is_user(&self.creator) {
            return first;
        }
        let of_owner = ConfigRevision::first(owner.clone());
        let fits = self.config.check_size(&self.id, &self.creator, &of_owner).is_ok();
        match other.is_none() && fits {
            true => of_owner,
            false => ConfigRevision { roster_owner: None, ..first },
        }
    }

    /// Returns `true` if an entity is an owner.
    #[must_use]
    pub fn is_owner(&self, entity: &BareJid) -> bool {
        self.affiliation_of(entity) == Affiliation::Owner
    }

    /// Every subscriber.
    pub fn subscribers(&self) -> impl Iterator<Item = &Jid> {
        self.subscriptions().map(|(jid, _)| jid)
    }

    /// Every subscriber, and the version at which its subscription began.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&Jid, u64)> {
        let special = self.specials.iter().filter(|(_, special)| !special.is_pending);
        self.subscribers.iter().chain(special.map(|(jid, special)| (jid, special.since)))
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscribers_len(&self) -> usize {
        self.subscribers.len() + self.specials.len() - self.specials.pending_len()
    }

    /// The number of subscriptions, counting each SubID.
    #[must_use]
    pub(super) fn listed_len(&self) -> usize {
        self.subscribers.len() + self.specials.subscriptions_len()
    }

    /// All subscriptions by JID and SubID, in the order of JIDs, from those of a JID on if one is given.
    pub(super) fn listed_from<'a>(
        &'a self,
        first: Option<&'a Jid>,
    ) -> impl Iterator<Item = SubscriptionEntry<'a>> {
        let plain = self.subscribers.iter_from(first).map(|jid| (jid, None));
        let special = self.specials.iter_from(first).map(|(jid, special)| (jid, Some(special)));
        merged(plain, special, Ordering::Less).flat_map(listed)
    }

    /// The same in reverse order, from those of a JID back.
    pub(super) fn listed_back<'a>(
        &'a self,
        last: Option<&'a Jid>,
    ) -> impl Iterator<Item = SubscriptionEntry<'a>> {
        let plain = self.subscribers.iter_back(last).map(|jid| (jid, None));
        let special = self.specials.iter_back(last).map(|(jid, special)| (jid, Some(special)));
        merged(plain, special, Ordering::Greater).flat_map(|of_jid| listed(of_jid).rev())
    }

    /// Returns `true` if exactly this JID is subscribed.
    #[must_use]
    pub fn is_subscribed(&self, jid: &Jid) -> bool {
        self.subscribers.contains(jid)
            || self.specials.get(jid).is_some_and(|special| !special.is_pending)
    }

    /// How exactly this JID is subscribed.
    #[must_use]
    pub fn state_of(&self, jid: &Jid) -> SubscriptionState {
        if self.is_subscribed(jid) {
            SubscriptionState::Subscribed
        } else if self.pending.contains(jid) || self.specials.get(jid).is_some() {
            SubscriptionState::Pending
        } else {
            SubscriptionState::None
        }
    }

    /// Those who wait for an owner to approve their subscription.
    pub fn pending(&self) -> impl Iterator<Item = &Jid> {
        let special = self.specials.iter().filter(|(_, special)| special.is_pending);
        self.pending.iter().map(|(jid, _)| jid).chain(special.map(|(jid, _)| jid))
    }

    /// How many they are.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len() + self.specials.pending_len()
    }

    /// The pending subscriptions of an entity, in every spelling of its domain.
    pub fn pending_of<'a>(&'a self, entity: &'a BareJid) -> impl Iterator<Item = &'a Jid> {
        let others = entity.other_spellings();
        let others = others.flat_map(|other| self.pending_of_address(&other).collect::<Vec<_>>());
        self.pending_of_address(entity).chain(others)
    }

    /// The pending subscriptions of exactly this address, and of its resources.
    pub fn pending_of_address<'a>(&'a self, address: &BareJid) -> impl Iterator<Item = &'a Jid> {
        let special = self.specials.of(address).filter(|(_, special)| special.is_pending);
        self.pending.of(address).chain(special.map(|(jid, _)| jid))
    }

    /// The subscriptions of an entity, in every spelling of its domain: its bare JID, and its resources.
    pub fn subscriptions_of<'a>(&'a self, entity: &'a BareJid) -> impl Iterator<Item = &'a Jid> {
        let others = entity.other_spellings();
        let others =
            others.flat_map(|other| self.subscriptions_of_address(&other).collect::<Vec<_>>());
        self.subscriptions_of_address(entity).chain(others)
    }

    /// The JIDs with which a resource may be subscribed: its own and its bare one, in the spellings of the domain that
    /// subscriptions have. If one of them is subscribed, the resource has no implicit subscription.
    pub(super) fn own_jids(&self, resource: &Jid) -> impl Iterator<Item = Jid> {
        self.spelled.own_jids(resource)
    }

    /// The subscriptions of exactly this address, and of its resources.
    pub fn subscriptions_of_address<'a>(
        &'a self,
        address: &BareJid,
    ) -> impl Iterator<Item = &'a Jid> {
        let special = self.specials.of(address).filter(|(_, special)| !special.is_pending);
        self.subscribers.of(address).chain(special.map(|(jid, _)| jid))
    }

    fn is_affiliated(&self, address: &BareJid) -> bool {
        self.affiliation_of_address(address) != Affiliation::None
    }

    /// The subscribed and pending addresses without an affiliation that have one of these folds.
    pub(super) fn alike(&self, folds: &HashSet<String>) -> BTreeSet<BareJid> {
        if folds.is_empty() {
            return BTreeSet::new();
        }
        let is_folded = |jid: &&Jid| !jid.as_str().is_ascii() || jid.as_str().contains("xn--");
        let others = self.subscribers().chain(self.pending()).filter(is_folded).map(Jid::to_bare);
        let others = others.filter(|address| folds.contains(&*address.fold()));
        let folds = folds.iter().filter_map(|fold| BareJid::new(fold).ok());
        let has_own = |address: &BareJid| address.spellings().any(|one| self.is_affiliated(&one));
        folds.chain(others).filter(|address| !has_own(address)).collect()
    }

    /// The addresses by which the node knows an entity that a request names: its spellings with an affiliation,
    /// otherwise one with a subscription, otherwise the address in the request.
    #[must_use]
    pub fn known(&self, entity: &BareJid) -> Vec<BareJid> {
        let has_subscription = |address: &BareJid| {
            let mut own = self.subscriptions_of_address(address);
            own.next().is_some() || self.pending_of_address(address).next().is_some()
        };
        let is_affiliated = |address: &BareJid| self.is_affiliated(address);
        let known: Vec<_> = entity.spellings().filter(is_affiliated).collect();
        match known.is_empty() {
            true => {
                vec![entity.spellings().find(has_subscription).unwrap_or_else(|| entity.clone())]
            }
            false => known,
        }
    }

    /// The subscribed or pending JIDs that a request names: the spellings of the JID with a subscription, otherwise the
    /// one by which the node knows the entity. At least one.
    #[must_use]
    pub fn known_subscriptions(&self, jid: &Jid) -> Vec<Jid> {
        let spellings = || [jid.clone()].into_iter().chain(jid.other_spellings());
        let is_there = |jid: &Jid| self.state_of(jid) != SubscriptionState::None;
        let known: Vec<_> = spellings().filter(is_there).collect();
        if !known.is_empty() {
            return known;
        }
        let of_entity = self.known(&jid.to_bare());
        let is_known = |jid: &Jid| of_entity.contains(&jid.to_bare());
        vec![spellings().find(is_known).unwrap_or_else(|| jid.clone())]
    }

    /// The first of the JIDs that a request names.
    #[must_use]
    pub fn known_subscription(&self, jid: &Jid) -> Jid {
        self.known_subscriptions(jid).into_iter().next().unwrap_or_else(|| jid.clone())
    }

    /// What is kept of a JID with options or SubIDs.
    #[must_use]
    pub fn special(&self, jid: &Jid) -> Option<&ConfiguredSubscription> {
        self.specials.get(jid)
    }

    /// The JIDs that have options or SubIDs.
    pub fn specials(&self) -> impl Iterator<Item = (&Jid, &ConfiguredSubscription)> {
        self.specials.iter()
    }

    /// The number of JIDs of an entity's account that have options or SubIDs.
    pub(super) fn specials_of_account(&self, entity: &BareJid) -> usize {
        self.specials.len_of_account(entity)
    }

    /// How many they are.
    #[must_use]
    pub fn specials_len(&self) -> usize {
        self.specials.len()
    }

    /// What was agreed with a JID that is subscribed, or waits for that; one of the default terms if nothing was.
    #[must_use]
    pub fn terms_of(&self, jid: &Jid) -> Cow<'_, [SubscriptionDetails]> {
        match self.specials.get(jid) {
            Some(special) => Cow::Borrowed(&*special.terms),
            None => Cow::Owned(vec![SubscriptionDetails::new(
                None,
                SubscriptionOptions::default(),
                self.sequence,
                Timestamp(0),
            )]),
        }
    }

    /// Everyone who is subscribed now, but for those with options or SubIDs.
    #[must_use]
    pub fn recipients(&self) -> Recipients {
        self.subscribers.recipients()
    }

    /// The recipients of an entry by the present state of the node: ended subscriptions receive nothing. Lists of
    /// entities, and of resources with an implicit subscription, were made for the node as it is now.
    #[must_use]
    pub fn recipients_of(&self, audience: &Audience, as_of: u64) -> Recipients {
        match audience {
            Audience::Explicit(list) | Audience::Interested(list) => list.clone(),
            Audience::Listed(listed) => listed.filter(|jid| {
                self.began(jid).is_some_and(|began| is_entitled(began, u64::MAX, as_of))
            }),
            Audience::Subscribers => {
                let all = self.subscribers.iter();
                let entitled = all.filter(|(_, began)| is_entitled(*began, u64::MAX, as_of));
                entitled.map(|(jid, _)| jid.clone()).collect()
            }
        }
    }

    /// Returns `true` if a resource may have an implicit subscription, judged without rosters (§12.2).
    fn allows_implicit(&self, jid: &Jid) -> bool {
        access::may_subscribe_implicitly(&self.config, self.affiliation_of(&jid.to_bare()))
    }

    /// Returns `true` if a resource has lost its implicit subscription and has no explicit one.
    #[must_use]
    pub fn revokes_implicit(&self, jid: &Jid) -> bool {
        !self.allows_implicit(jid) && !self.own_jids(jid).any(|own| self.is_subscribed(&own))
    }

    /// The version at which the subscription of exactly this JID began.
    fn began(&self, jid: &Jid) -> Option<u64> {
        let special = self.specials.get(jid).filter(|special| !special.is_pending);
        special.map(|special| special.since).or_else(|| self.subscribers.began(jid))
    }

    /// Makes what was decided, and is stored, true here. Changes of items leave no trace in a node.
    pub fn apply(&mut self, changes: &Changes) {
        for change in changes.iter() {
            match change {
                Change::Created(node) => *self = (**node).clone(),
                Change::Configured(config) => self.config = (**config).clone(),
                Change::Revised(revision) => self.revision = revision.clone(),
                Change::AffiliationSet(entity, affiliation) => {
                    self.affiliations.set(entity.clone(), *affiliation);
                }
                Change::SubscriptionRequested(jid) => self.load_pending(jid.clone()),
                Change::Subscribed(jid) | Change::SubscribedByOwner(jid) => {
                    self.note(jid);
                    self.pending.remove(jid);
                    match self.specials.remove(jid) {
                        Some(special) => {
                            let special = special.begun(changes.sequence(), changes.version());
                            self.specials.insert(jid.clone(), special);
                        }
                        None => self.subscribers.insert(jid.clone(), changes.version()),
                    }
                }
                Change::SubscriptionOptionsSet(jid, terms) => {
                    self.agree(jid, terms.clone(), changes.version())
                }
                Change::Unsubscribed(jid) => {
                    if self.state_of(jid) != SubscriptionState::None {
                        self.spelled.remove(&jid.to_bare());
                    }
                    self.pending.remove(jid);
                    self.subscribers.remove(jid);
                    self.specials.remove(jid);
                }
                Change::Deleted { .. }
                | Change::Published(_)
                | Change::Retracted(_)
                | Change::ItemsEvicted { .. }
                | Change::Purged => {}
            }
        }
        self.sequence = changes.sequence();
        self.version = changes.version();
    }

    /// Keeps the spellings for a JID that is going to be subscribed or pending.
    fn note(&mut self, jid: &Jid) {
        if self.state_of(jid) == SubscriptionState::None {
            self.spelled.add(&jid.to_bare());
        }
    }

    fn agree(&mut self, jid: &Jid, terms: Arc<[SubscriptionDetails]>, version: u64) {
        self.note(jid);
        let special = match self.specials.remove(jid) {
            Some(special) => ConfiguredSubscription { terms, ..special },
            None => {
                let is_pending = self.pending.remove(jid).is_some();
                let since = self.subscribers.remove(jid).unwrap_or_default();
                ConfiguredSubscription { since, special_since: version, is_pending, terms }
            }
        };
        self.specials.insert(jid.clone(), special);
    }

    /// Adds an affiliation while a store loads the node.
    pub fn load_affiliation(&mut self, entity: BareJid, affiliation: Affiliation) {
        self.affiliations.set(entity, affiliation);
    }

    /// Adds a subscription while a store loads the node.
    pub fn load_subscription(&mut self, jid: Jid, since: u64) {
        self.note(&jid);
        self.subscribers.insert(jid, since);
    }

    /// Adds one that waits for an owner.
    pub fn load_pending(&mut self, jid: Jid) {
        self.note(&jid);
        self.pending.insert(jid, 0);
    }

    /// Adds subscriptions with options or SubIDs.
    pub fn load_special(&mut self, jid: Jid, special: ConfiguredSubscription) {
        self.note(&jid);
        self.specials.insert(jid, special);
    }
}

/// Two lists as one in which JIDs are in this order.
fn merged<'a>(
    one: impl Iterator<Item = OfJid<'a>>,
    other: impl Iterator<Item = OfJid<'a>>,
    direction: Ordering,
) -> impl Iterator<Item = OfJid<'a>> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some((first, _)), Some((second, _))) if order(first, second) != direction => other.next(),
        (None, _) => other.next(),
        (Some(_), _) => one.next(),
    })
}

fn listed((jid, special): OfJid<'_>) -> impl DoubleEndedIterator<Item = SubscriptionEntry<'_>> {
    let plain = special.is_none().then_some((jid, None));
    let terms = special.into_iter().flat_map(|special| special.terms.iter());
    plain.into_iter().chain(terms.map(move |terms| (jid, terms.subid.as_ref())))
}
