//! What a subscriber wants of its subscription (§6.3, §16.4.2), and which of several subscriptions it is (§6.1.6).

use std::{fmt, sync::Arc};

use crate::{Error, Limits, Payload, Sequence, ShowSet, Timestamp};

/// The longest keyword, in bytes.
const MAX_KEYWORD_BYTES: usize = 64;
/// The shortest time between two digests, in milliseconds.
const MIN_DIGEST_MILLIS: u32 = 1000;
/// The longest: a week.
const MAX_DIGEST_MILLIS: u32 = 604_800_000;
/// How long before a lease ends its subscriber is told so: a day, or a tenth of it if that is less (§12.19).
const MAX_NOTICE_MILLIS: u64 = 86_400_000;

/// The options of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Whether events are sent at all.
    pub deliver: bool,
    /// Whether items come together, some time after they were published.
    pub digest: bool,
    /// The milliseconds between two such digests.
    pub digest_frequency: u32,
    /// When the subscription ends.
    pub expire: Expire,
    /// Whether an event says in its body what its items say, for clients that do not know these (§12.8).
    pub include_body: bool,
    /// Only items come whose text has this in it, in any case; all if it is empty (§12.20).
    pub keyword: String,
    /// In which states of availability events come; with all of them, it is not looked at (§12.3).
    pub show_values: ShowSet,
    /// Whether anyone who sees the node may know of it (XEP-0465). No field of the form.
    pub is_public: bool,
}

/// When a subscription ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expire {
    /// It does not.
    Never,
    /// Then (§12.19).
    At(Timestamp),
    /// When its subscriber is not available any more (§12.5).
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

/// One field of the form of options, understood.
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
    /// These options with some of them changed. A lease longer than the service grants is cut (§12.19).
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

    /// Options that were in force, from an archive.
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

    /// Returns `true` if an item is one of those that are wanted.
    pub(super) fn matches(&self, payload: Option<&Payload>) -> bool {
        self.keyword.is_empty()
            || payload.is_some_and(|payload| {
                payload.text().to_lowercase().contains(&self.keyword.to_lowercase())
            })
    }
}

/// What tells the subscriptions of one JID at a node from each other (§6.1.6).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubId(Arc<str>);

impl SubId {
    /// Takes an identifier.
    #[must_use]
    pub fn new(subid: &str) -> Self {
        Self(subid.into())
    }

    /// The identifier as text.
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

/// One subscription of a JID: which it is, what it wants, and how far that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionDetails {
    /// Which of the JID's, where it can have several.
    pub subid: Option<SubId>,
    /// What it wants.
    pub options: SubscriptionOptions,
    /// When that was said last: a lease begins then.
    pub since: Timestamp,
    /// Whether it was told that its lease ends soon.
    pub expiry_notified: bool,
    /// Sequence of the newest event that a digest included.
    pub digested_to: Sequence,
    /// When the last digest was made.
    pub digested_at: Timestamp,
}

impl SubscriptionDetails {
    /// A new subscription at a node whose newest event has this sequence.
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

    /// The same subscription with these options: so a lease is renewed. What waits for a digest goes on waiting. SPEC: who
    /// turns digests off gets no last one; what waited can be retrieved.
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

    /// When its lease ends.
    pub(super) fn end(&self) -> Option<Timestamp> {
        match self.options.expire {
            Expire::At(end) => Some(end),
            Expire::Never | Expire::Presence => None,
        }
    }

    /// Returns `true` if it depends on the presence of its subscriber.
    pub(super) fn looks_at_presence(&self) -> bool {
        self.options.expire == Expire::Presence || self.options.show_values != ShowSet::ALL
    }

    /// When its subscriber is told that the lease ends.
    pub(super) fn warned_at(&self) -> Option<Timestamp> {
        let end = self.end()?;
        let length = end.0.saturating_sub(self.since.0);
        Some(Timestamp(end.0 - (length / 10).min(MAX_NOTICE_MILLIS)))
    }

    /// When time does something to it next, if nothing else happens.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let warned_at = self.warned_at().filter(|_| !self.expiry_notified);
        warned_at.into_iter().chain(self.end()).min()
    }

    /// Returns `true` if its items come in digests, from a node that keeps them or not.
    pub(super) fn uses_digests(&self, keeps_items: bool) -> bool {
        self.options.deliver && self.options.digest && keeps_items
    }

    /// When the next digest may be made.
    pub(super) fn digest_due(&self) -> Timestamp {
        self.digested_at.later_by(u64::from(self.options.digest_frequency))
    }
}
