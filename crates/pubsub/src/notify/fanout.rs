//! Fan-out of the events of one decision to the subscribers of a node. Recipient lists of subscriptions with options or
//! SubIDs are built once per decision. The log entries of the decision share the lists, so that a batch of items needs
//! the memory of one list.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jid::Jid;

use super::keywords::Keywords;
use crate::{
    Audience, ConfiguredSubscription, Context, DeliveryVariant, Error, Event, EventId, LogEntry,
    Node, NodeConfig, Payload, Recipients, SubId, SubscriptionOptions, Timestamp,
    event::MAX_LISTED,
};

/// Key of a recipient list.
#[derive(PartialEq, Eq, Hash)]
enum Selection {
    /// Kind of event; for JIDs without a keyword.
    Kind(EventClass),
    /// Kind of event, and a flag for each keyword ([`Keywords::in_texts`]); for JIDs with a keyword.
    Keywords(EventClass, Vec<bool>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum EventClass {
    Published,
    PublishedNothing,
    Retracted,
    Other,
}

/// Builds the log entries of one decision.
pub(crate) struct Fanout<'a> {
    node: &'a Node,
    config: &'a NodeConfig,
    now: Timestamp,
    /// Subscribers with options or SubIDs, but without a keyword.
    without_keyword: Vec<(&'a Jid, &'a ConfiguredSubscription)>,
    /// Subscribers with a keyword.
    with_keyword: Vec<(&'a Jid, &'a ConfiguredSubscription)>,
    /// Keywords, prepared when the first item is searched.
    keywords: Option<Keywords<'a>>,
    /// Recipients that were grouped for earlier events of the decision.
    built: HashMap<Selection, Vec<(DeliveryVariant, Recipients)>>,
    /// Distinct recipient lists so far.
    lists: Vec<Recipients>,
    /// Number of events so far.
    events: usize,
    /// Approximate bytes of `lists`.
    bytes: usize,
    /// Maximum of `bytes` if the decision has several events.
    max_bytes: usize,
}

impl<'a> Fanout<'a> {
    /// Creates the fan-out for a node that has this configuration after the decision.
    pub(crate) fn new(node: &'a Node, config: &'a NodeConfig, cx: &Context<'_>) -> Self {
        let all = node.configured_subscriptions().filter(|(_, configured)| !configured.is_pending);
        let has_keyword = |configured: &ConfiguredSubscription| {
            configured.details.iter().any(|details| !details.options.keyword.is_empty())
        };
        let (with_keyword, without_keyword): (Vec<_>, Vec<_>) =
            all.partition(|(_, configured)| has_keyword(configured));
        Self {
            node,
            config,
            now: cx.now,
            without_keyword,
            with_keyword,
            keywords: None,
            built: HashMap::new(),
            lists: Vec::new(),
            events: 0,
            bytes: 0,
            // Half of the backlog is more than the share of one creator.
            max_bytes: cx.limits().max_backlog_bytes / 2,
        }
    }

    /// Returns the log entries of an event: one for subscribers without options and SubIDs, and one for each group of
    /// other subscribers with the same delivery variant. Returns none if the node delivers no notifications. `at` has
    /// the event id and the version of the node; audiences are resolved as of this version.
    ///
    /// # Errors
    /// [`Error::TooManyNotifications`] if the decision has several events, and their recipient lists take more than
    /// half of `max_backlog_bytes`.
    pub(crate) fn notify(
        &mut self,
        at: (EventId, u64),
        event: Event,
    ) -> Result<Vec<LogEntry>, Error> {
        let audience = Audience::Subscribers;
        let plain = LogEntry::new(self.node, self.config, at, event, audience, self.now);
        let Some(plain) = plain else { return Ok(Vec::new()) };
        let kind = EventClass::of(&plain.event);
        let matching = self.keywords_in(&plain.event);
        let mut lists = self.lists(Selection::Kind(kind), &plain.event, &[]);
        if !self.with_keyword.is_empty() {
            lists.extend(self.lists(
                Selection::Keywords(kind, matching.clone()),
                &plain.event,
                &matching,
            ));
        }
        self.events += 1;
        if self.events > 1 && self.bytes > self.max_bytes {
            return Err(Error::TooManyNotifications);
        }
        let listed = |(variant, recipients): (DeliveryVariant, Recipients)| {
            let audience = Audience::Listed(recipients);
            LogEntry { audience, variant, ..plain.clone() }
        };
        let listed: Vec<_> = lists.into_iter().map(listed).collect();
        Ok([plain].into_iter().chain(listed).collect())
    }

    /// Returns the recipients of an event, grouped by delivery variant. `matching` has a flag for each keyword
    /// ([`Keywords::in_texts`]).
    fn lists(
        &mut self,
        selection: Selection,
        event: &Event,
        matching: &[bool],
    ) -> Vec<(DeliveryVariant, Recipients)> {
        if let Some(built) = self.built.get(&selection) {
            return built.clone();
        }
        let all = match &selection {
            Selection::Kind(_) => &self.without_keyword,
            Selection::Keywords(..) => &self.with_keyword,
        };
        let is_wanted = |options: &SubscriptionOptions| {
            let keywords = self.keywords.as_ref();
            options.keyword.is_empty()
                || keywords.is_some_and(|keywords| keywords.is_in(&options.keyword, matching))
        };
        let mut variants = BTreeMap::<_, Vec<(&Jid, Arc<[SubId]>)>>::new();
        for &(jid, configured) in all {
            if let Some(mut variant) =
                DeliveryVariant::of(event, self.config, &configured.details, is_wanted)
            {
                let subids = std::mem::take(&mut variant.subids).into();
                variants.entry(variant).or_default().push((jid, subids));
            }
        }
        let mut built = Vec::with_capacity(variants.len());
        for (variant, entities) in variants {
            for chunk in entities.chunks(MAX_LISTED) {
                built.push((variant.clone(), Self::list(&mut self.lists, &mut self.bytes, chunk)));
            }
        }
        self.built.insert(selection, built.clone());
        built
    }

    /// Returns a list of these entities, shared with an equal list if one exists.
    fn list(
        lists: &mut Vec<Recipients>,
        bytes: &mut usize,
        entities: &[(&Jid, Arc<[SubId]>)],
    ) -> Recipients {
        let is_equal = |list: &&Recipients| {
            let mut pairs = list.iter_with_subids().zip(entities);
            list.len() == entities.len()
                && pairs.all(|((jid, subids), other)| jid == other.0 && *subids == *other.1)
        };
        if let Some(list) = lists.iter().find(is_equal) {
            return list.clone();
        }
        let entities = entities.iter().map(|(jid, subids)| ((*jid).clone(), Arc::clone(subids)));
        let list = Recipients::with_subids(entities.collect());
        *bytes += list.size();
        lists.push(list.clone());
        list
    }

    /// Returns a flag for each keyword: `true` if an item of the event contains the keyword. Empty if no item or no
    /// keyword has to be searched.
    fn keywords_in(&mut self, event: &Event) -> Vec<bool> {
        let Event::Published(items) = event else { return Vec::new() };
        if items.is_empty() || self.with_keyword.is_empty() {
            return Vec::new();
        }
        let keywords = self.keywords.get_or_insert_with(|| {
            let details =
                self.with_keyword.iter().flat_map(|(_, configured)| configured.details.iter());
            Keywords::new(details.map(|details| details.options.keyword.as_str()))
        });
        keywords.in_texts(items.iter().filter_map(|item| item.payload.as_ref()).map(Payload::text))
    }
}

impl EventClass {
    fn of(event: &Event) -> Self {
        match event {
            Event::Published(items) if items.is_empty() => Self::PublishedNothing,
            Event::Published(_) => Self::Published,
            Event::Retracted(_) => Self::Retracted,
            Event::AffiliationChanged(_)
            | Event::Announced(_)
            | Event::Configured(_)
            | Event::Deleted { .. }
            | Event::Purged
            | Event::ApprovalRequested(_)
            | Event::Subscription { .. } => Self::Other,
        }
    }
}
