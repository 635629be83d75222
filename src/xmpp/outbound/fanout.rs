//! Fan-out of log entries to a connection: one message for each recipient, or one for many by multicast (XEP-0033).

use std::{mem, ops::Range};

use tracing::error;

use crate::{
    service::{Availability, Cursor, WindowEntry},
    xmpp::{
        stanza::notification::{MessageTemplate, To, headers, render},
        xml::padding::fits_relayed,
    },
};
use gjallar_pubsub::{Audience, DeliveryVariant, LogEntry, Recipients, written_len};

use super::{
    multicast::{MulticastRoute, MulticastService, RecipientRoute},
    writer::{OutboundWriter, SendProgress, WRITE_BYTES},
};

/// Maximum number of bytes of a JID in a stanza. A JID has three parts of up to 1 023 bytes each (RFC 7622), and two
/// separators. Each byte is escaped by up to six bytes.
const MAX_JID_BYTES: usize = 6 * (3 * 1023 + 2);
/// Number of bytes that are reserved for the markup around the address of a recipient. The same number is reserved for
/// the markup around all recipients of a multicast stanza.
const ADDRESS_BYTES: usize = 64;
/// Maximum number of skipped recipients and entries in one run of the fan-out.
const MAX_SKIPPED: usize = 10_000;
/// Maximum number of notifications that are sent but not acknowledged by a barrier. A crash repeats these
/// notifications.
const MAX_UNACKNOWLEDGED: u64 = 10_000;
/// Part of [`MAX_UNACKNOWLEDGED`] that is reserved for the first deferred entry: no later notification is acknowledged
/// before this entry is sent.
const RESERVED_FOR_DEFERRED: u64 = 1000;
/// Maximum number of cached recipient addresses.
const MAX_ADDRESSES: usize = 16_384;
/// Approximate maximum number of bytes of the cached recipient addresses.
const MAX_ADDRESSES_BYTES: usize = 1024 * 1024;

/// Log entry that is being sent.
#[derive(Debug)]
pub(in crate::xmpp) struct CurrentEntry {
    number: u64,
    rendered: MessageTemplate,
    /// [Headline](LogEntry::as_headline) that is sent instead of the notification to recipients that may be
    /// unavailable.
    headline: Option<MessageTemplate>,
    /// `true` if the message exceeds the limit of other servers.
    is_too_large_to_relay: bool,
}

/// Cache of the recipient addresses of one audience. Consecutive events of a node often have the same audience.
#[derive(Debug, Default)]
pub(in crate::xmpp) struct AddressCache {
    of: Option<Recipients>,
    text: String,
    /// Range of each recipient's address in `text`; empty if not cached.
    ranges: Vec<Range<usize>>,
}

impl AddressCache {
    /// Returns the [address](MessageTemplate::write_address) of the recipient `jid`, which has the index `index` in its
    /// audience.
    fn address(
        &mut self,
        rendered: &MessageTemplate,
        audience: &Recipients,
        index: usize,
        jid: &str,
    ) -> &str {
        let is_cached = rendered.has_common_addresses() && index < MAX_ADDRESSES;
        let is_same = self.of.as_ref().is_some_and(|of| of.id() == audience.id());
        if !is_cached || !is_same || self.text.len() > MAX_ADDRESSES_BYTES {
            self.text.clear();
            self.ranges.clear();
            self.of = is_cached.then(|| audience.clone());
        }
        let index = if is_cached { index } else { 0 };
        if self.ranges.len() <= index {
            self.ranges.resize(index + 1, 0..0);
        }
        let begin = self.text.len();
        match self.ranges.get_mut(index) {
            Some(range) if range.start == range.end => {
                rendered.write_address(jid, &mut self.text);
                *range = begin..self.text.len();
            }
            _ => {}
        }
        self.ranges.get(index).and_then(|range| self.text.get(range.clone())).unwrap_or_default()
    }
}

/// Remaining limits of one run of the fan-out.
struct FanoutBudget {
    notifications: u64,
    /// Maximum number of notifications, counted from the start of the process. The run ends at this number, because a
    /// barrier has to follow.
    until: u64,
    skips: usize,
    /// Length in bytes up to which the buffer is filled.
    end: usize,
}

/// Result of sending an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The notification is sent to all recipients.
    Complete,
    /// The budget is used up.
    Partial,
    /// The entry waits for the presence of the next recipient, or for a roster on which a recipient's access depends.
    Deferred,
}

/// Recipients of one multicast stanza.
#[derive(Default)]
struct MulticastBatch {
    addresses: String,
    len: usize,
    last: String,
    /// Headers for the recipient. A batch with headers has only one recipient.
    headers: String,
}

impl OutboundWriter {
    /// Appends notifications of the event log to a buffer until it is full. Returns the progress that is reached when
    /// the buffer is sent.
    pub(in crate::xmpp) fn fill_buffer(
        &mut self,
        route: &MulticastRoute,
        buffer: &mut String,
    ) -> SendProgress {
        let mut sent = self.sent;
        self.awaits_presence = false;
        self.has_skipped_many = false;
        if self.route.is_paused() {
            return sent;
        }
        let multicast = match route {
            MulticastRoute::Unknown => return sent,
            MulticastRoute::Direct => None,
            MulticastRoute::Through(multicast) => Some(multicast.as_ref()),
        };
        let mut budget = FanoutBudget {
            notifications: 0,
            until: sent.notifications + self.spacing.notifications(multicast.is_some()),
            skips: MAX_SKIPPED,
            // Replies come first, and notifications take as many bytes as they do.
            end: WRITE_BYTES.max(2 * buffer.len()),
        };
        let mut has_room = self.send_deferred(multicast, buffer, &mut sent, &mut budget);
        while has_room
            && budget.skips > 0
            && !self.is_ending()
            && let Some(entry) = self.window.get(sent.position.number)
        {
            let node = &entry.notification.node;
            budget.notifications = self.sendable(sent, budget.until);
            let progress = match self.deferred.has(node) {
                true => Progress::Deferred,
                false => self.write_entry(&entry, multicast, buffer, &mut sent, &mut budget),
            };
            has_room = match progress {
                Progress::Complete => true,
                Progress::Partial => false,
                Progress::Deferred => self.deferred.add(node, sent),
            };
            if has_room {
                sent.position = Cursor { number: sent.position.number + 1, recipients: 0 };
                budget.skips = budget.skips.saturating_sub(1);
            }
        }
        self.has_skipped_many = budget.skips == 0;
        sent
    }

    /// Sends the deferred entries that no longer have to wait. Returns `false` if the budget is used up.
    fn send_deferred(
        &mut self,
        multicast: Option<&MulticastService>,
        buffer: &mut String,
        sent: &mut SendProgress,
        budget: &mut FanoutBudget,
    ) -> bool {
        let mut has_room = !self.is_ending();
        if !has_room || self.deferred.is_empty() {
            return has_room;
        }
        let before = sent.notifications;
        for mut deferred in mem::take(&mut self.deferred).entries() {
            let Some(entry) = self.window.get(deferred.position.number) else { continue };
            let node = &entry.notification.node;
            let mut progress = Progress::Deferred;
            if has_room && !self.deferred.has(node) {
                budget.notifications = self.sendable(*sent, budget.until);
                let mut entry_progress = SendProgress { position: deferred.position, ..*sent };
                progress = self.write_entry(&entry, multicast, buffer, &mut entry_progress, budget);
                sent.notifications = entry_progress.notifications;
                deferred.position = entry_progress.position;
                has_room = progress != Progress::Partial;
            }
            if progress != Progress::Complete {
                // Notifications of earlier entries and of this entry.
                deferred.notifications += sent.notifications - before;
                self.deferred.add(node, deferred);
            }
        }
        has_room
    }

    /// Returns the number of notifications that may be sent now. The total since the start of the process may not
    /// exceed `until`, because a barrier has to follow at that number. The number of notifications that a crash may
    /// repeat is limited too ([`MAX_UNACKNOWLEDGED`]).
    fn sendable(&self, sent: SendProgress, until: u64) -> u64 {
        let is_first = self.deferred.is_empty();
        let reserved = if is_first { 0 } else { RESERVED_FOR_DEFERRED };
        let repeatable = MAX_UNACKNOWLEDGED - reserved;
        let sendable = repeatable.saturating_sub(self.window.repeatable(sent.notifications));
        sendable.min(until.saturating_sub(sent.notifications))
    }

    /// Returns the progress up to which all notifications are sent. This is the progress of the first deferred entry.
    /// If no entry is deferred, it is the writer's progress `sent`.
    pub(in crate::xmpp) fn complete(&self, sent: SendProgress) -> SendProgress {
        self.deferred.first().unwrap_or(sent)
    }

    /// Appends the messages of an entry, beginning with the recipient at the position `sent`.
    fn write_entry(
        &mut self,
        entry: &WindowEntry,
        multicast: Option<&MulticastService>,
        buffer: &mut String,
        sent: &mut SendProgress,
        budget: &mut FanoutBudget,
    ) -> Progress {
        if self.window.awaits_rosters(entry) && self.presences.is_waiting() {
            self.awaits_presence = true;
            return Progress::Deferred;
        }
        let revoked = self.window.lost(entry);
        let LogEntry { audience, variant: DeliveryVariant { shows, .. }, .. } =
            &*entry.notification;
        let is_subscriber = !matches!(audience, Audience::Interested(_));
        // Implicit subscriptions are not stored. Their resources were available when the event was committed.
        let was_available = !is_subscriber && entry.is_restored();
        let mut current_entry =
            self.current_entry.take().filter(|current_entry| current_entry.number == entry.number);
        let (mut batch, mut headlines) = (MulticastBatch::default(), MulticastBatch::default());
        let mut exceeded = None;
        let mut progress = Progress::Complete;
        for recipient in entry.recipients.iter_from(sent.position.recipients) {
            let batched = batch.addresses.len() + headlines.addresses.len();
            if buffer.len() + batched >= budget.end
                || budget.notifications == 0
                || budget.skips == 0
            {
                progress = Progress::Partial;
                break;
            }
            let headers = headers(entry.recipients.subids(sent.position.recipients));
            sent.position.recipients += 1;
            let reach =
                multicast.map_or(RecipientRoute::Past, |multicast| multicast.reach(recipient));
            if revoked.has(recipient, entry.number, &entry.notification)
                || reach == RecipientRoute::Not
            {
                budget.skips -= 1;
                continue;
            }
            let availability = match shows {
                None => Availability::Available,
                Some(_) if was_available && self.presences.is_unheard(recipient) => {
                    Availability::Assumed
                }
                Some(shows) => self.presences.availability(recipient, *shows, is_subscriber),
            };
            if availability == Availability::Unknown {
                sent.position.recipients -= 1;
                self.awaits_presence = true;
                progress = Progress::Deferred;
                break;
            }
            if availability == Availability::Unavailable {
                budget.skips -= 1;
                continue;
            }
            let current_entry = current_entry.get_or_insert_with(|| self.render_entry(entry));
            let is_assumed = availability == Availability::Assumed;
            let headline = current_entry.headline.as_ref().filter(|_| is_assumed);
            let rendered = headline.unwrap_or(&current_entry.rendered);
            let bytes = rendered.len()
                + headers.len()
                + multicast.map_or(0, |multicast| ADDRESS_BYTES + multicast.jid.len());
            let names_recipient = rendered.is_personal();
            let is_personal = names_recipient || !headers.is_empty();
            let times = 1 + usize::from(names_recipient);
            let exceeds_own = bytes + times * MAX_JID_BYTES > self.max_stanza_bytes
                && bytes + times * written_len(recipient.as_str()) > self.max_stanza_bytes;
            let exceeds_other = current_entry.is_too_large_to_relay
                && self.relay_limit.applies_to(recipient.domain().as_str());
            if exceeds_own || exceeds_other {
                // The limits keep nearly all events below this size. A server would end the stream at a larger stanza,
                // the own server on each connection.
                exceeded = Some(match exceeds_own {
                    true => self.max_stanza_bytes,
                    false => self.relay_limit.max_stanza_bytes,
                });
                budget.skips -= 1;
                continue;
            }
            match multicast.filter(|_| reach == RecipientRoute::Through) {
                None => {
                    let (jid, index) = (recipient.as_str(), sent.position.recipients - 1);
                    let audience = &entry.recipients;
                    let address = self.addresses.address(rendered, audience, index, jid);
                    rendered.write_to(To { jid, address, headers: &headers }, buffer);
                }
                Some(multicast) => {
                    let batch = if headline.is_some() { &mut headlines } else { &mut batch };
                    let next = ADDRESS_BYTES + written_len(recipient.as_str());
                    if batch.len == multicast.max_recipients
                        || (batch.len > 0 && (is_personal || batch.is_personal()))
                        || bytes + batch.addresses.len() + next > self.max_stanza_bytes
                    {
                        self.flush_batch(batch, rendered, multicast, buffer);
                    }
                    rendered.write_recipient(
                        multicast.format,
                        recipient.as_str(),
                        &mut batch.addresses,
                    );
                    batch.add(recipient.as_str(), headers);
                }
            }
            sent.notifications += 1;
            budget.notifications -= 1;
        }
        if let (Some(multicast), Some(current_entry)) = (multicast, &current_entry) {
            self.flush_batch(&mut batch, &current_entry.rendered, multicast, buffer);
            if let Some(headline) = &current_entry.headline {
                self.flush_batch(&mut headlines, headline, multicast, buffer);
            }
        }
        if let Some(max_stanza_bytes) = exceeded {
            error!(
                event = "event_too_large",
                node = entry.notification.node.as_str(),
                max_stanza_bytes,
                "event is too large for some recipients; not sent to them"
            );
        }
        if progress != Progress::Complete {
            self.current_entry = current_entry;
        }
        progress
    }

    fn render_entry(&self, entry: &WindowEntry) -> CurrentEntry {
        let is_late = entry.number < self.delayed_before;
        let rendered = |notification: &LogEntry| {
            render(notification, is_late, &self.service, self.window.key())
        };
        let headline = entry.notification.as_headline();
        let message = rendered(&entry.notification);
        CurrentEntry {
            number: entry.number,
            is_too_large_to_relay: !self.fits_relayed(&message),
            rendered: message,
            headline: headline.as_ref().map(rendered),
        }
    }

    /// Returns `true` if other servers accept a message, whoever its recipient is.
    fn fits_relayed(&self, message: &MessageTemplate) -> bool {
        let max_bytes = self.relay_limit.max_stanza_bytes.saturating_sub(MAX_JID_BYTES);
        // Most messages are small, and need not be written for this.
        if message.len() <= max_bytes / 7 {
            return true;
        }
        let mut text = String::with_capacity(message.len());
        message.write_to(To { jid: "", address: "", headers: "" }, &mut text);
        fits_relayed(&text, max_bytes)
    }

    /// Appends one message for a batch, and empties the batch. A single recipient gets a direct message, unless the
    /// multicast service may still have an earlier stanza for the recipient.
    fn flush_batch(
        &mut self,
        batch: &mut MulticastBatch,
        rendered: &MessageTemplate,
        multicast: &MulticastService,
        buffer: &mut String,
    ) {
        let MulticastBatch { addresses, len, last: jid, headers } = mem::take(batch);
        let last = |address| To { jid: &jid, address, headers: &headers };
        match len {
            0 => {}
            1 if !self.may_be_in_multicast() => {
                let mut address = String::new();
                rendered.write_address(&jid, &mut address);
                rendered.write_to(last(&address), buffer);
            }
            _ => {
                rendered.write_by(&multicast.jid, (multicast.format, &addresses), last(""), buffer);
                self.multicast_until = self.last_barrier + 1;
            }
        }
    }
}

impl MulticastBatch {
    fn is_personal(&self) -> bool {
        !self.headers.is_empty()
    }

    fn add(&mut self, recipient: &str, headers: String) {
        self.len += 1;
        self.last.clear();
        self.last.push_str(recipient);
        self.headers = headers;
    }
}
