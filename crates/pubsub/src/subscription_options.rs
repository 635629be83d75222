//! Options of a subscription (§6.3, §16.4.2), and SubIDs (§6.1.6).

use std::{fmt, sync::Arc};

use crate::{Error, Limits, Payload, Sequence, ShowSet, Timestamp};

/// Maximum bytes of a keyword.
const MAX_KEYWORD_BYTES: usize = 64;
/// Minimum interval between two digests, in milliseconds.
const MIN_DIGEST_MILLIS: u32 = 1000;
/// Maximum interval between two digests, in milliseconds: a week.
const MAX_DIGEST_MILLIS: u32 = 604_800_000;
/// Maximum time between the lease notice and the end of a lease (§12.19), in milliseconds: a day. For a lease shorter
/// than ten days, this time is a tenth of the lease.
const MAX_NOTICE_MILLIS: u64 = 86_400_000;

/// Options of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// `true` if notifications are sent at all.
    pub deliver: bool,
    /// `true` if items are sent in digests, some time after they were published.
    pub digest: bool,
    /// Minimum interval between two digests, in milliseconds.
    pub digest_frequency: u32,
    /// End of the subscription.
    pub expire: Expire,
    /// `true` if notifications repeat the text of their items in the message body (§12.8), for clients that do not
    /// support the payload.
    pub include_body: bool,
    /// Text that an item has to contain, ignoring case; empty to receive all items (§12.20).
    pub keyword: String,
    /// States of availability in which notifications are sent; with [`ShowSet::ALL`] availability is not checked
    /// (§12.3).
    pub show_values: ShowSet,
    /// `true` if the subscription is visible to all entities that may discover the node (XEP-0465). Not a field of the
    /// form.
    pub is_public: bool,
}

/// Event that ends a subscription without a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expire {
    /// The subscription does not end by itself.
    Never,
    /// The lease ends at this time (§12.19).
    At(Timestamp),
    /// The subscription ends when its subscriber becomes unavailable (§12.5).
    Presence,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            deliver: true,
            digest: false,
            digest_frequency: 86_400_000,
            expire: Expire::Never,
            include_body: false,
            keyword: String::new(),
            show_values: ShowSet::ALL,
            is_public: false,
        }
    }
}

/// Parsed field of the form of subscription options.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SubscriptionOption {
    Deliver(bool),
    Digest(bool),
    DigestFrequency(u32),
    Expire(Expire),
    IncludeBody(bool),
    Keyword(String),
    ShowValues(ShowSet),
}

impl SubscriptionOptions {
    /// Returns the options with some fields changed. A lease longer than the service grants is shortened (§12.19).
    ///
    /// # Errors
    /// [`Error::InvalidOptions`] for a value past a limit, and for a lease that is over.
    pub(super) fn with(
        mut self,
        settings: &[SubscriptionOption],
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let last = now.later_by(limits.max_lease_seconds.saturating_mul(1000));
        for setting in settings {
            match setting {
                SubscriptionOption::DigestFrequency(millis)
                    if !(MIN_DIGEST_MILLIS..=MAX_DIGEST_MILLIS).contains(millis) =>
                {
                    return Err(Error::InvalidOptions(format!(
                        "pubsub#digest_frequency: from {MIN_DIGEST_MILLIS} to {MAX_DIGEST_MILLIS} milliseconds"
                    )));
                }
                SubscriptionOption::Expire(Expire::At(end)) if *end <= now => {
                    return Err(Error::InvalidOptions("pubsub#expire: the time has passed".into()));
                }
                SubscriptionOption::Expire(Expire::At(end)) => {
                    self.expire = Expire::At(*end.min(&last))
                }
                SubscriptionOption::Keyword(keyword) if keyword.len() > MAX_KEYWORD_BYTES => {
                    return Err(Error::InvalidOptions(format!(
                        "x-gjallar#keyword: at most {MAX_KEYWORD_BYTES} bytes"
                    )));
                }
                setting => self.set(setting.clone()),
            }
        }
        Ok(self)
    }

    /// Returns options from an archive. Their values are not checked, because they were in effect before.
    #[must_use]
    pub fn restored(settings: Vec<SubscriptionOption>) -> Self {
        let mut options = Self::default();
        settings.into_iter().for_each(|setting| options.set(setting));
        options
    }

    fn set(&mut self, setting: SubscriptionOption) {
        match setting {
            SubscriptionOption::Deliver(deliver) => self.deliver = deliver,
            SubscriptionOption::Digest(digest) => self.digest = digest,
            SubscriptionOption::DigestFrequency(millis) => self.digest_frequency = millis,
            SubscriptionOption::Expire(end) => self.expire = end,
            SubscriptionOption::IncludeBody(include_body) => self.include_body = include_body,
            SubscriptionOption::Keyword(keyword) => self.keyword = keyword,
            SubscriptionOption::ShowValues(shows) => self.show_values = shows,
        }
    }

    /// Returns `true` if an item with this payload contains the keyword, or if there is no keyword.
    pub(super) fn matches(&self, payload: Option<&Payload>) -> bool {
        self.keyword.is_empty()
            || payload.is_some_and(|payload| {
                payload.text().to_lowercase().contains(&self.keyword.to_lowercase())
            })
    }
}

/// Identifier that distinguishes the subscriptions of one JID to a node (§6.1.6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubId(Arc<str>);

impl SubId {
    /// Creates an identifier from a text.
    #[must_use]
    pub fn new(subid: &str) -> Self {
        Self(subid.into())
    }

    /// Returns the identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One subscription of a JID: SubID, options, and the progress of its lease and digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionDetails {
    /// SubID, if the JID can have several subscriptions.
    pub subid: Option<SubId>,
    /// Options of the subscription.
    pub options: SubscriptionOptions,
    /// Time when the options were last set; a lease begins then.
    pub since: Timestamp,
    /// `true` if the subscriber was sent the lease notice.
    pub expiry_notified: bool,
    /// Sequence of the newest event of the node at the time of the last digest. Before the first digest, at the time
    /// when the subscription began or its options were set. The next digest includes only later events.
    pub digested_to: Sequence,
    /// Time of the last digest that had items. Before the first such digest: the time when the options were set.
    pub digested_at: Timestamp,
}

impl SubscriptionDetails {
    /// Creates a subscription that begins now. `sequence` is the sequence of the newest event of the node.
    #[must_use]
    pub fn new(
        subid: Option<SubId>,
        options: SubscriptionOptions,
        sequence: Sequence,
        now: Timestamp,
    ) -> Self {
        Self {
            subid,
            options,
            since: now,
            expiry_notified: false,
            digested_to: sequence,
            digested_at: now,
        }
    }

    /// Returns the subscription with new options, which renews its lease. Items that wait for a digest keep waiting for
    /// the next digest, unless the new options turn digests off.
    /// SPEC: a subscriber that turns digests off gets no last digest; it can retrieve the items that waited.
    pub(super) fn renewed(
        &self,
        options: SubscriptionOptions,
        sequence: Sequence,
        now: Timestamp,
    ) -> Self {
        let renewed = Self::new(self.subid.clone(), options, sequence, now);
        if self.uses_digests(true) && renewed.uses_digests(true) {
            let Self { digested_to: digested, digested_at, .. } = *self;
            return Self { digested_to: digested, digested_at, ..renewed };
        }
        renewed
    }

    /// Returns the end of the lease; `None` if the subscription has no lease.
    pub(super) fn end(&self) -> Option<Timestamp> {
        match self.options.expire {
            Expire::At(end) => Some(end),
            Expire::Never | Expire::Presence => None,
        }
    }

    /// Returns `true` if the subscription depends on the presence of its subscriber.
    pub(super) fn depends_on_presence(&self) -> bool {
        self.options.expire == Expire::Presence || self.options.show_values != ShowSet::ALL
    }

    /// Returns the time when the subscriber is notified that the lease will end.
    pub(super) fn lease_notice_at(&self) -> Option<Timestamp> {
        let end = self.end()?;
        let length = end.0.saturating_sub(self.since.0);
        Some(Timestamp(end.0 - (length / 10).min(MAX_NOTICE_MILLIS)))
    }

    /// Returns the time of the next lease notice or end of the lease.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let lease_notice_at = self.lease_notice_at().filter(|_| !self.expiry_notified);
        lease_notice_at.into_iter().chain(self.end()).min()
    }

    /// Returns `true` if items are sent to the subscription in digests. `keeps_items` is `true` if the node keeps
    /// items, which digests need.
    pub(super) fn uses_digests(&self, keeps_items: bool) -> bool {
        self.options.deliver && self.options.digest && keeps_items
    }

    /// Returns the earliest time of the next digest.
    pub(super) fn digest_due(&self) -> Timestamp {
        self.digested_at.later_by(u64::from(self.options.digest_frequency))
    }
}
