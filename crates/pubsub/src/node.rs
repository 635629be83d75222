//! Node as the rules see it: configuration, affiliations, subscriptions, and the sequence and version of its last
//! commit. Items are not part of [`Node`], because a node may have many items and few rules need them.

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

/// Entry of the list of all subscriptions: JID and SubID.
pub(super) type SubscriptionEntry<'a> = (&'a Jid, Option<&'a SubId>);

/// Subscriptions of one JID: a single plain subscription if there is no [`ConfiguredSubscription`].
type OfJid<'a> = (&'a Jid, Option<&'a ConfiguredSubscription>);

/// Node as the rules see it, without its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name of the node.
    pub id: NodeId,
    /// Epoch of the node: the incarnation of its name.
    pub epoch: Epoch,
    /// Sequence of the newest event; 0 before the first.
    pub sequence: Sequence,
    /// Number of the last commit of any kind; never less than the version at which a subscription began.
    pub version: u64,
    /// Configuration of the node.
    pub config: NodeConfig,
    /// Revision of the configuration.
    pub revision: ConfigRevision,
    /// Entity that created the node.
    pub creator: BareJid,
    /// Time of the creation.
    pub created: Timestamp,
    affiliations: Affiliations,
    /// Subscriptions without options and SubIDs (plain subscriptions), each with the version at which it began.
    subscribers: SubscriberList,
    /// Plain subscriptions that wait for the approval of an owner.
    pending: SubscriberList,
    /// Subscribed and pending JIDs with options or SubIDs. Such JIDs are neither in `subscribers` nor in `pending`.
    configured: ConfiguredSubscriptions,
    /// Bare addresses of subscribed and pending JIDs whose domain has several spellings (A-labels or U-labels).
    spelled: Spelled,
}

impl Node {
    /// Creates a node without affiliations and subscriptions, for a store that loads a node. Rules create nodes with
    /// [`op::create`](crate::op::create).
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
            configured: ConfiguredSubscriptions::default(),
            spelled: Spelled::default(),
        }
    }

    /// Returns `true` if nothing has changed since the creation of the node, so nobody can depend on the node yet. The
    /// affiliations and subscriptions are checked too, because nodes from an import or from a store of layout 9 may
    /// have some at version 0.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        let has_others = self.affiliations().any(|(entity, _)| *entity != self.creator)
            || self.subscribers.len() > 0
            || self.pending.len() > 0;
        self.sequence == Sequence(0) && self.version == 1 && !has_others
    }

    /// Returns the affiliation of an entity. The affiliation of an address also applies to the other spellings of its
    /// domain. The affiliation `outcast` applies to all addresses with the same [fold](BareJid::fold). An address with
    /// an affiliation of its own keeps that.
    #[must_use]
    pub fn affiliation_of(&self, entity: &BareJid) -> Affiliation {
        self.affiliations.of(entity)
    }

    /// Returns the affiliation of exactly this address.
    #[must_use]
    pub fn affiliation_of_address(&self, address: &BareJid) -> Affiliation {
        self.affiliations.of_address(address)
    }

    /// Returns all affiliations except `none`.
    pub fn affiliations(&self) -> impl Iterator<Item = (&BareJid, Affiliation)> {
        self.affiliations.iter()
    }

    /// Returns the affiliations for lookups.
    pub(super) fn all_affiliations(&self) -> &Affiliations {
        &self.affiliations
    }

    /// Returns the affiliations as they are after these changes.
    pub(super) fn affiliations_after(&self, changes: &Changes) -> Cow<'_, Affiliations> {
        let mut after = Cow::Borrowed(&self.affiliations);
        for change in changes.iter() {
            if let Change::AffiliationSet(entity, affiliation) = change {
                after.to_mut().set(entity.clone(), *affiliation);
            }
        }
        after
    }

    /// Returns the number of affiliations.
    #[must_use]
    pub fn affiliations_len(&self) -> usize {
        self.affiliations.len()
    }

    /// Returns the owners of the node.
    pub fn owners(&self) -> impl Iterator<Item = &BareJid> {
        self.affiliations().filter(|(_, a)| *a == Affiliation::Owner).map(|(entity, _)| entity)
    }

    /// Returns the owner that items show as their publisher if `pubsub#itemreply` is `owner` (§12.17): the creator as
    /// long as it is an owner, otherwise the [last owner](ConfigRevision::last_owner) that changed the configuration,
    /// as long as that entity is still an owner.
    ///
    /// SPEC: §12.17 speaks of the owner. An entity that others made an owner has not agreed to be shown as a publisher.
    #[must_use]
    pub fn responsible_owner(&self) -> Option<&BareJid> {
        let candidates = [&self.creator, &self.revision.last_owner];
        candidates.into_iter().find(|entity| self.is_owner(entity))
    }

    /// Returns the owner whose roster gives access (§4.5): the owner that last set an access model or groups by which
    /// its own roster gives access. `None` if that entity is no longer an owner.
    ///
    /// SPEC: §4.5 speaks of one owner. The rosters of other owners are not read, because these owners have not agreed.
    /// Otherwise an owner could set the access model or the groups, and learn from the effect who is in another owner's
    /// roster.
    #[must_use]
    pub fn roster_owner(&self) -> Option<&BareJid> {
        self.revision.roster_chooser().filter(|entity| self.is_owner(entity))
    }

    /// Returns the initial configuration revision that a node from store layout 9 gets, because that layout stored no
    /// revisions. In that layout the rosters of all owners gave access. The revision names the creator as the roster
    /// owner. If the creator is no longer an owner, or has no roster because it is not a user (such as the service
    /// itself), the revision names the only owner that is a user. In this case, the revision has no roster owner if
    /// several owners are users, or if the only such owner has an address that does not fit into the node's row.
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

    /// Returns the subscribed JIDs.
    pub fn subscribers(&self) -> impl Iterator<Item = &Jid> {
        self.subscriptions().map(|(jid, _)| jid)
    }

    /// Returns the subscribed JIDs, each with the version at which its subscription began.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&Jid, u64)> {
        let configured = self.configured.iter().filter(|(_, configured)| !configured.is_pending);
        self.subscribers.iter().chain(configured.map(|(jid, configured)| (jid, configured.since)))
    }

    /// Returns the number of subscribed JIDs.
    #[must_use]
    pub fn subscribers_len(&self) -> usize {
        self.subscribers.len() + self.configured.len() - self.configured.pending_len()
    }

    /// Returns the number of subscriptions, counting each SubID.
    #[must_use]
    pub(super) fn listed_len(&self) -> usize {
        self.subscribers.len() + self.configured.subscriptions_len()
    }

    /// Returns all subscriptions ordered by JID, beginning with those of `first` if it is given.
    pub(super) fn listed_from<'a>(
        &'a self,
        first: Option<&'a Jid>,
    ) -> impl Iterator<Item = SubscriptionEntry<'a>> {
        let plain = self.subscribers.iter_from(first).map(|jid| (jid, None));
        let configured =
            self.configured.iter_from(first).map(|(jid, configured)| (jid, Some(configured)));
        merged(plain, configured, Ordering::Less).flat_map(listed)
    }

    /// Returns all subscriptions in reverse order of JIDs, beginning with those of `last` if it is given.
    pub(super) fn listed_back<'a>(
        &'a self,
        last: Option<&'a Jid>,
    ) -> impl Iterator<Item = SubscriptionEntry<'a>> {
        let plain = self.subscribers.iter_back(last).map(|jid| (jid, None));
        let configured =
            self.configured.iter_back(last).map(|(jid, configured)| (jid, Some(configured)));
        merged(plain, configured, Ordering::Greater).flat_map(|of_jid| listed(of_jid).rev())
    }

    /// Returns `true` if exactly this JID is subscribed.
    #[must_use]
    pub fn is_subscribed(&self, jid: &Jid) -> bool {
        self.subscribers.contains(jid)
            || self.configured.get(jid).is_some_and(|configured| !configured.is_pending)
    }

    /// Returns the state of the subscription of exactly this JID.
    #[must_use]
    pub fn state_of(&self, jid: &Jid) -> SubscriptionState {
        if self.is_subscribed(jid) {
            SubscriptionState::Subscribed
        } else if self.pending.contains(jid) || self.configured.get(jid).is_some() {
            SubscriptionState::Pending
        } else {
            SubscriptionState::None
        }
    }

    /// Returns the JIDs whose subscriptions wait for the approval of an owner.
    pub fn pending(&self) -> impl Iterator<Item = &Jid> {
        let configured = self.configured.iter().filter(|(_, configured)| configured.is_pending);
        self.pending.iter().map(|(jid, _)| jid).chain(configured.map(|(jid, _)| jid))
    }

    /// Returns the number of JIDs with pending subscriptions.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len() + self.configured.pending_len()
    }

    /// Returns the JIDs of an entity with pending subscriptions, in every spelling of its domain.
    pub fn pending_of<'a>(&'a self, entity: &'a BareJid) -> impl Iterator<Item = &'a Jid> {
        let others = entity.other_spellings();
        let others = others.flat_map(|other| self.pending_of_address(&other).collect::<Vec<_>>());
        self.pending_of_address(entity).chain(others)
    }

    /// Returns the JIDs of exactly this address, bare and full, with pending subscriptions.
    pub fn pending_of_address<'a>(&'a self, address: &BareJid) -> impl Iterator<Item = &'a Jid> {
        let configured =
            self.configured.of(address).filter(|(_, configured)| configured.is_pending);
        self.pending.of(address).chain(configured.map(|(jid, _)| jid))
    }

    /// Returns the subscribed JIDs of an entity, bare and full, in every spelling of its domain.
    pub fn subscriptions_of<'a>(&'a self, entity: &'a BareJid) -> impl Iterator<Item = &'a Jid> {
        let others = entity.other_spellings();
        let others =
            others.flat_map(|other| self.subscriptions_of_address(&other).collect::<Vec<_>>());
        self.subscriptions_of_address(entity).chain(others)
    }

    /// Returns the JIDs with which a resource may be subscribed: its full and its bare JID, as given and in the other
    /// domain spellings that subscriptions of the entity at this node use. A resource has no implicit subscription if
    /// one of these JIDs is subscribed.
    pub(super) fn own_jids(&self, resource: &Jid) -> impl Iterator<Item = Jid> {
        self.spelled.own_jids(resource)
    }

    /// Returns the subscribed JIDs of exactly this address, bare and full.
    pub fn subscriptions_of_address<'a>(
        &'a self,
        address: &BareJid,
    ) -> impl Iterator<Item = &'a Jid> {
        let configured =
            self.configured.of(address).filter(|(_, configured)| !configured.is_pending);
        self.subscribers.of(address).chain(configured.map(|(jid, _)| jid))
    }

    fn is_affiliated(&self, address: &BareJid) -> bool {
        self.affiliation_of_address(address) != Affiliation::None
    }

    /// Returns the addresses that have one of these folds and no affiliation. Candidates are the folds themselves and
    /// the bare addresses of subscribed and pending JIDs.
    pub(super) fn unaffiliated_with_folds(&self, folds: &HashSet<String>) -> BTreeSet<BareJid> {
        if folds.is_empty() {
            return BTreeSet::new();
        }
        let is_folded = |jid: &&Jid| !jid.as_str().is_ascii() || jid.as_str().contains("xn--");
        let others = self.subscribers().chain(self.pending()).filter(is_folded).map(Jid::to_bare);
        let others = others.filter(|address| folds.contains(&*address.fold()));
        let folds = folds.iter().filter_map(|fold| BareJid::new(fold).ok());
        let has_affiliation =
            |address: &BareJid| address.spellings().any(|other| self.is_affiliated(&other));
        folds.chain(others).filter(|address| !has_affiliation(address)).collect()
    }

    /// Returns the spellings of an address (with A-labels or U-labels) that the node uses for the entity. If spellings
    /// have an affiliation, the result is all of these. Otherwise it is one spelling with a subscription. Without such
    /// a spelling, it is the address as given.
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

    /// Returns the subscribed or pending JIDs that a JID in a request denotes. If spellings of the JID have a
    /// subscription, the result is all of these. Otherwise it is one spelling that the node [uses](Self::known) for the
    /// entity. Without such a spelling, it is the JID as given. Never empty.
    #[must_use]
    pub fn known_subscriptions(&self, jid: &Jid) -> Vec<Jid> {
        let spellings = || [jid.clone()].into_iter().chain(jid.other_spellings());
        let has_subscription = |jid: &Jid| self.state_of(jid) != SubscriptionState::None;
        let known: Vec<_> = spellings().filter(has_subscription).collect();
        if !known.is_empty() {
            return known;
        }
        let of_entity = self.known(&jid.to_bare());
        let is_known = |jid: &Jid| of_entity.contains(&jid.to_bare());
        vec![spellings().find(is_known).unwrap_or_else(|| jid.clone())]
    }

    /// Returns the first of [`known_subscriptions`](Self::known_subscriptions).
    #[must_use]
    pub fn known_subscription(&self, jid: &Jid) -> Jid {
        self.known_subscriptions(jid).into_iter().next().unwrap_or_else(|| jid.clone())
    }

    /// Returns the subscriptions of a JID that have options or SubIDs; `None` if the JID has a plain subscription or
    /// none.
    #[must_use]
    pub fn configured_subscription(&self, jid: &Jid) -> Option<&ConfiguredSubscription> {
        self.configured.get(jid)
    }

    /// Returns the JIDs that have options or SubIDs, with their subscriptions.
    pub fn configured_subscriptions(
        &self,
    ) -> impl Iterator<Item = (&Jid, &ConfiguredSubscription)> {
        self.configured.iter()
    }

    /// Returns the number of JIDs of an entity's account that have options or SubIDs.
    pub(super) fn specials_of_account(&self, entity: &BareJid) -> usize {
        self.configured.len_of_account(entity)
    }

    /// Returns the number of JIDs that have options or SubIDs.
    #[must_use]
    pub fn specials_len(&self) -> usize {
        self.configured.len()
    }

    /// Returns the subscriptions of a subscribed or pending JID; for a plain subscription, a single one with the
    /// default options.
    #[must_use]
    pub fn details_of(&self, jid: &Jid) -> Cow<'_, [SubscriptionDetails]> {
        match self.configured.get(jid) {
            Some(configured) => Cow::Borrowed(&*configured.details),
            None => Cow::Owned(vec![SubscriptionDetails::new(
                None,
                SubscriptionOptions::default(),
                self.sequence,
                Timestamp(0),
            )]),
        }
    }

    /// Returns the JIDs that are subscribed without options and SubIDs, as recipients.
    #[must_use]
    pub fn recipients(&self) -> Recipients {
        self.subscribers.recipients()
    }

    /// Returns the recipients of a log entry, without JIDs whose subscription has ended. Explicit lists, and lists of
    /// resources with an implicit subscription, are returned unchanged, because the caller built them for the node as
    /// it is now.
    #[must_use]
    pub fn recipients_of(&self, audience: &Audience, as_of: u64) -> Recipients {
        match audience {
            Audience::Explicit(list) | Audience::Interested(list) => list.clone(),
            Audience::Listed(listed) => listed.filter(|jid| {
                self.since(jid).is_some_and(|since| is_entitled(since, u64::MAX, as_of))
            }),
            Audience::Subscribers => {
                let all = self.subscribers.iter();
                let entitled = all.filter(|(_, since)| is_entitled(*since, u64::MAX, as_of));
                entitled.map(|(jid, _)| jid.clone()).collect()
            }
        }
    }

    /// Returns `true` if a resource may have an implicit subscription (§12.2), as far as this can be decided without
    /// rosters.
    fn allows_implicit(&self, jid: &Jid) -> bool {
        access::may_subscribe_implicitly(&self.config, self.affiliation_of(&jid.to_bare()))
    }

    /// Returns `true` if a resource may no longer have an implicit subscription and has no explicit one. Rosters are
    /// not checked.
    #[must_use]
    pub fn revokes_implicit(&self, jid: &Jid) -> bool {
        !self.allows_implicit(jid) && !self.own_jids(jid).any(|own| self.is_subscribed(&own))
    }

    /// Returns the version at which the subscription of exactly this JID began.
    fn since(&self, jid: &Jid) -> Option<u64> {
        let configured = self.configured.get(jid).filter(|configured| !configured.is_pending);
        configured.map(|configured| configured.since).or_else(|| self.subscribers.since(jid))
    }

    /// Applies the changes of a commit. Changes of items have no effect, because items are not part of [`Node`].
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
                    self.count_spelling(jid);
                    self.pending.remove(jid);
                    match self.configured.remove(jid) {
                        Some(configured) => {
                            let configured =
                                configured.begun(changes.sequence(), changes.version());
                            self.configured.insert(jid.clone(), configured);
                        }
                        None => self.subscribers.insert(jid.clone(), changes.version()),
                    }
                }
                Change::SubscriptionOptionsSet(jid, details) => {
                    self.set_details(jid, details.clone(), changes.version())
                }
                Change::Unsubscribed(jid) => {
                    if self.state_of(jid) != SubscriptionState::None {
                        self.spelled.remove(&jid.to_bare());
                    }
                    self.pending.remove(jid);
                    self.subscribers.remove(jid);
                    self.configured.remove(jid);
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

    /// Counts the spelling of a JID before it becomes subscribed or pending.
    fn count_spelling(&mut self, jid: &Jid) {
        if self.state_of(jid) == SubscriptionState::None {
            self.spelled.add(&jid.to_bare());
        }
    }

    fn set_details(&mut self, jid: &Jid, details: Arc<[SubscriptionDetails]>, version: u64) {
        self.count_spelling(jid);
        let configured = match self.configured.remove(jid) {
            Some(configured) => ConfiguredSubscription { details, ..configured },
            None => {
                let is_pending = self.pending.remove(jid).is_some();
                let since = self.subscribers.remove(jid).unwrap_or_default();
                ConfiguredSubscription { since, options_since: version, is_pending, details }
            }
        };
        self.configured.insert(jid.clone(), configured);
    }

    /// Adds an affiliation while a store loads the node.
    pub fn load_affiliation(&mut self, entity: BareJid, affiliation: Affiliation) {
        self.affiliations.set(entity, affiliation);
    }

    /// Adds a subscription while a store loads the node.
    pub fn load_subscription(&mut self, jid: Jid, since: u64) {
        self.count_spelling(&jid);
        self.subscribers.insert(jid, since);
    }

    /// Adds a pending subscription while a store loads the node.
    pub fn load_pending(&mut self, jid: Jid) {
        self.count_spelling(&jid);
        self.pending.insert(jid, 0);
    }

    /// Adds subscriptions with options or SubIDs while a store loads the node.
    pub fn load_configured(&mut self, jid: Jid, configured: ConfiguredSubscription) {
        self.count_spelling(&jid);
        self.configured.insert(jid, configured);
    }
}

/// Merges two lists that are sorted by JID: in ascending order if `direction` is [`Ordering::Less`], otherwise in
/// descending order.
fn merged<'a>(
    left: impl Iterator<Item = OfJid<'a>>,
    right: impl Iterator<Item = OfJid<'a>>,
    direction: Ordering,
) -> impl Iterator<Item = OfJid<'a>> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some((first, _)), Some((second, _))) if order(first, second) != direction => right.next(),
        (None, _) => right.next(),
        (Some(_), _) => left.next(),
    })
}

fn listed((jid, configured): OfJid<'_>) -> impl DoubleEndedIterator<Item = SubscriptionEntry<'_>> {
    let plain = configured.is_none().then_some((jid, None));
    let details = configured.into_iter().flat_map(|configured| configured.details.iter());
    plain.into_iter().chain(details.map(move |details| (jid, details.subid.as_ref())))
}
