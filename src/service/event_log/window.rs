//! Window of the event log: holds the log entries, in commit order, until the server has confirmed their notifications.
//!
//! An event is one entry, even for a large audience. The transport reads entries in order and acknowledges the
//! notifications that the server has confirmed. Unconfirmed notifications are sent again on the next connection. No
//! notification is sent for a revoked subscription. So a banned entity receives nothing more from its subscription once
//! the owner has received the reply to the ban.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jid::{AccountKey, Jid};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use crate::store::{LogPosition, Owed, Told};
use gjallar_pubsub::{Audience, Epoch, LogEntry, Node, NodeId, Recipients};

use super::revocations::Revocations;
use crate::service::shares::{Load, Shares};

/// Maximum number of log entries in one trim of the store.
const MAX_TRIMMED: usize = 500;
/// Approximate bytes of a revoked subscription in memory.
const REVOCATION_BYTES: usize = 100;

/// Log entry with its recipients.
#[derive(Debug)]
pub struct WindowEntry {
    /// The log entry.
    pub notification: Arc<LogEntry>,
    /// Recipients as of the commit.
    pub recipients: Recipients,
    /// Number of the entry within this process.
    pub number: u64,
    position: Option<LogPosition>,
    bytes: usize,
    /// Account of the node's creator. The entry counts toward the share of the backlog that this account may use.
    /// `None` for a restored entry, which counts toward the total only.
    owner: Option<AccountKey>,
}

impl WindowEntry {
    /// Returns `true` if the entry was read from the store, at the start or after a failed commit. The presence of its
    /// recipients may then be unknown to this process.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.owner.is_none()
    }
}

/// Progress of the delivery: all entries before the entry `number` are delivered to all recipients. The entry `number`
/// is delivered to the first `recipients` of its recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Number of the entry.
    pub number: u64,
    /// Number of recipients, from the first one, to which the notification of this entry was sent.
    pub recipients: usize,
}

/// Reservation of room for one entry, made before a commit.
#[derive(Debug)]
pub(in crate::service) struct Reservation {
    window: Arc<LogWindow>,
    owner: AccountKey,
    bytes: usize,
    recipients: Recipients,
    /// `true` once [`LogWindow::append`] has released the room, so that the drop does not release it again.
    is_released: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_released {
            self.window.queue().release(Some(&self.owner), self.bytes, &self.recipients);
        }
    }
}

/// The newest entries of the event log in memory, with the progress of their delivery.
#[derive(Debug)]
pub struct LogWindow {
    queue: Mutex<Queue>,
    changed: Notify,
    confirmed: Notify,
    key: u64,
    /// `true` if the server is known to confirm none of the stanzas that are sent.
    is_unconfirmed: AtomicBool,
}

#[derive(Debug)]
struct Queue {
    pending: VecDeque<Arc<WindowEntry>>,
    /// Number of the oldest pending entry.
    first: u64,
    shares: Shares,
    /// Number of entries and reservations that use each recipient list, by the id of the list ([`Recipients::id`]).
    audiences: HashMap<usize, usize>,
    /// Number of lists in `audiences` that contain each part, by the id of the part ([`Recipients::parts`]). Lists can
    /// share parts.
    parts: HashMap<usize, usize>,
    /// Pending entries by node.
    nodes: HashMap<Epoch, NodeEntries>,
    /// Nodes whose restored entries for implicit subscriptions (`+notify`) wait until the access of the recipients is
    /// checked against the owner's roster.
    awaiting_rosters: HashSet<NodeId>,
    /// Acknowledged log positions whose entries are not removed from the store yet.
    acknowledged: Told,
    /// Number of acknowledged stanzas.
    acknowledged_stanzas: u64,
    /// Number of acknowledged stanzas whose entries are trimmed.
    trimmed_stanzas: u64,
    /// Number of revocations since the start of the process. Revocations at nodes without pending entries are not
    /// counted.
    losses: u64,
    /// Number of accounting defects: cases in which more room was released than was counted as used.
    miscounts: Counter,
}

/// Pending entries of a node.
#[derive(Debug, Default)]
struct NodeEntries {
    entries: usize,
    /// Numbers of the entries for implicit subscriptions (`+notify`).
    interested: VecDeque<u64>,
    /// Subscriptions revoked while entries of the node were pending.
    revocations: Revocations,
}

impl LogWindow {
    /// Creates an empty window with the limits `max`. Message ids are derived from `key`
    /// ([`Store::key`](crate::store::Store::key)).
    #[must_use]
    pub fn new(max: Load, key: u64) -> Self {
        let queue = Queue {
            pending: VecDeque::new(),
            first: 0,
            shares: Shares::new(max),
            audiences: HashMap::new(),
            parts: HashMap::new(),
            nodes: HashMap::new(),
            awaiting_rosters: HashSet::new(),
            acknowledged: Told::default(),
            acknowledged_stanzas: 0,
            trimmed_stanzas: 0,
            losses: 0,
            miscounts: Counter::default(),
        };
        Self {
            queue: Mutex::new(queue),
            changed: Notify::new(),
            confirmed: Notify::new(),
            key,
            is_unconfirmed: AtomicBool::new(false),
        }
    }

    /// Returns the key from which message ids are derived ([`Store::key`](crate::store::Store::key)).
    #[must_use]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Returns the counter of accounting defects. After a defect, the counted load is lower than the load that the
    /// window holds.
    pub(in crate::service) fn miscounts(&self) -> Counter {
        self.queue().miscounts.clone()
    }

    /// Replaces the limits.
    pub(in crate::service) fn set_limits(&self, max: Load) {
        self.queue().shares.set_limits(max);
    }

    /// Reserves room for a log entry with these recipients, in the share of `owner`, the account of the node's creator.
    ///
    /// # Errors
    /// Returns the configuration key of the limit that leaves no room for the entry, for example
    /// `limits.max_backlog_bytes`.
    pub(in crate::service) fn reserve(
        self: &Arc<Self>,
        owner: &AccountKey,
        notification: &LogEntry,
        recipients: &Recipients,
    ) -> Result<Reservation, &'static str> {
        let mut queue = self.queue();
        let bytes = notification.size();
        queue.shares.check(owner, queue.load(bytes, recipients))?;
        queue.take(Some(owner), bytes, recipients);
        let (owner, recipients) = (owner.clone(), recipients.clone());
        Ok(Reservation { window: Arc::clone(self), owner, bytes, recipients, is_released: false })
    }

    /// Returns an empty window with the same limits.
    pub(in crate::service) fn empty_copy(&self) -> Arc<Self> {
        Arc::new(Self::new(self.queue().shares.max(), self.key))
    }

    /// Appends an entry and releases its reservation. The recipients may differ from those for which the room was
    /// reserved.
    pub(in crate::service) fn append(
        &self,
        mut reservation: Reservation,
        notification: Arc<LogEntry>,
        recipients: Recipients,
        position: Option<LogPosition>,
    ) {
        let mut queue = self.queue();
        queue.push(notification, recipients, position, Some(reservation.owner.clone()));
        // Under one lock, so that no count includes both the entry and its reservation.
        queue.release(Some(&reservation.owner), reservation.bytes, &reservation.recipients);
        reservation.is_released = true;
        drop(queue);
        self.changed.notify_one();
    }

    /// Returns the log positions that are pending or not trimmed yet.
    pub(in crate::service) fn known(&self) -> HashSet<LogPosition> {
        let queue = self.queue();
        let pending = queue.pending.iter().filter_map(|entry| entry.position);
        pending.chain(queue.acknowledged.debts.iter().copied()).collect()
    }

    /// Appends entries read from the store, except entries whose position is in `known`: the result of
    /// [`known`](Self::known) from before the read.
    pub(in crate::service) fn restore(&self, owed: Vec<Owed>, known: &HashSet<LogPosition>) {
        let mut queue = self.queue();
        for Owed { debt: position, notification, recipients } in owed {
            if !known.contains(&position) {
                queue.push(Arc::new(notification), recipients, Some(position), None);
            }
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// Revokes all pending notifications that the node with the epoch `node` has for these entities.
    pub(in crate::service) fn revoke<'a>(
        &self,
        node: Epoch,
        entities: impl Iterator<Item = &'a Jid>,
    ) {
        let mut entities = entities.peekable();
        if entities.peek().is_none() {
            return;
        }
        let mut queue = self.queue();
        let (next, first) = (queue.next(), queue.first);
        if let Some(NodeEntries { revocations, .. }) = queue.nodes.get_mut(&node) {
            let before = revocations.len();
            revocations.add(entities, next, first);
            let now = revocations.len();
            queue.losses += 1;
            queue.reduce(None, Load::of_bytes(before * REVOCATION_BYTES));
            queue.shares.add(None, Load::of_bytes(now * REVOCATION_BYTES));
        }
    }

    /// Revokes a node's pending notifications to recipients that have neither an explicit nor an implicit subscription.
    pub(in crate::service) fn retain_subscribed(&self, node: &Node) {
        let mut audiences = HashMap::new();
        for entry in &self.queue().pending {
            let LogEntry { event_id, audience, .. } = &*entry.notification;
            if event_id.epoch == node.epoch
                && matches!(audience, Audience::Subscribers | Audience::Listed(_))
            {
                audiences.insert(entry.recipients.id(), entry.recipients.clone());
            }
        }
        let all = audiences.values().flat_map(|audience| audience.iter());
        let is_subscribed =
            |jid: &Jid| node.is_subscribed(jid) || node.is_subscribed(&jid.to_bare());
        let gone: Vec<_> = all.filter(|jid| !is_subscribed(jid)).collect();
        self.revoke(node.epoch, gone.into_iter());
        let interested = self.caps_recipients(node.epoch);
        let interested: HashSet<_> = interested.iter().flat_map(Recipients::iter).collect();
        let gone = interested.into_iter().filter(|jid| node.revokes_implicit(jid));
        self.revoke(node.epoch, gone);
    }

    /// Returns the recipient lists of a node's pending notifications for implicit subscriptions (`+notify`). Each list
    /// occurs once.
    pub(in crate::service) fn caps_recipients(&self, node: Epoch) -> Vec<Recipients> {
        let queue = self.queue();
        let mut known = HashSet::new();
        let lists =
            queue.implicit_recipients(node).filter(|recipients| known.insert(recipients.id()));
        lists.cloned().collect()
    }

    /// Returns `true` if a node has pending notifications for implicit subscriptions (`+notify`).
    pub(in crate::service) fn has_interested(&self, node: Epoch) -> bool {
        self.queue().implicit_recipients(node).any(|recipients| !recipients.is_empty())
    }

    /// Defers restored entries for implicit subscriptions (`+notify`) until the access of their recipients is checked
    /// against the roster of the node's owner. Returns the nodes of these entries.
    pub(in crate::service) fn await_rosters(&self) -> Vec<NodeId> {
        let mut queue = self.queue();
        let pending = queue.pending.iter().map(|entry| &entry.notification);
        let interested = pending.filter(|entry| matches!(entry.audience, Audience::Interested(_)));
        let nodes: HashSet<_> = interested.map(|notification| notification.node.clone()).collect();
        queue.awaiting_rosters.clone_from(&nodes);
        nodes.into_iter().collect()
    }

    /// Records that access to a node was checked against its owner's roster, or that the node needs no roster.
    pub(in crate::service) fn note_rosters(&self, node: &NodeId) {
        if self.queue().awaiting_rosters.remove(node) {
            self.changed.notify_one();
        }
    }

    /// Returns `true` if the recipients of an entry depend on a roster against which their access is not checked yet.
    #[must_use]
    pub fn awaits_rosters(&self, entry: &WindowEntry) -> bool {
        let LogEntry { node, audience, .. } = &*entry.notification;
        matches!(audience, Audience::Interested(_)) && self.queue().awaiting_rosters.contains(node)
    }

    /// Returns the recipient lists of pending presence-based notifications, in sending order.
    pub(in crate::service) fn recipients_by_presence(&self) -> Vec<Recipients> {
        let queue = self.queue();
        let mut known = HashSet::new();
        let needs_presence = |notification: &LogEntry| {
            let LogEntry { audience, variant: view, .. } = notification;
            view.shows.is_some() && !matches!(audience, Audience::Interested(_))
        };
        let some = queue.pending.iter().filter(|entry| needs_presence(&entry.notification));
        let some = some.filter(|entry| known.insert(entry.recipients.id()));
        some.map(|entry| entry.recipients.clone()).collect()
    }

    /// Returns the revocations at the node of an entry. Returns an empty value if the entry has an explicit list of
    /// recipients, because revocations do not apply to such an entry.
    #[must_use]
    pub fn lost(&self, entry: &WindowEntry) -> Revocations {
        if let Audience::Explicit(_) = entry.notification.audience {
            return Revocations::default();
        }
        let queue = self.queue();
        let node = queue.nodes.get(&entry.notification.event_id.epoch);
        node.map(|node| node.revocations.clone()).unwrap_or_default()
    }

    /// Returns the number of revocations since the start of the process. Revocations at nodes without pending entries
    /// are not counted.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.queue().losses
    }

    /// Returns the entry with a number, if it is still pending.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Arc<WindowEntry>> {
        self.queue().get(number).cloned()
    }

    /// Returns the number of pending entries, and the approximate bytes of the pending entries and the reservations.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let queue = self.queue();
        (queue.pending.len(), queue.shares.all().bytes)
    }

    /// Returns the number of recipients of the pending entries and of the reservations.
    #[must_use]
    pub fn notifications(&self) -> usize {
        self.queue().shares.all().notifications
    }

    /// Returns the time of the oldest pending event, in milliseconds since 1970.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.queue().pending.front().map(|entry| entry.notification.occurred_at.0)
    }

    /// Returns the number of the next entry.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.queue().next()
    }

    /// Acknowledges all notifications up to a position; `stanzas` is the number of stanzas sent up to this position
    /// since the start.
    pub fn acknowledge(&self, position: Cursor, stanzas: u64) {
        let mut queue = self.queue();
        while queue.first < position.number
            && let Some(entry) = queue.pending.pop_front()
        {
            queue.first += 1;
            queue.release_entry(&entry);
            queue.acknowledged.debts.extend(entry.position);
        }
        queue.acknowledged.partly = queue.partial(position).into_iter().collect();
        queue.acknowledged_stanzas = stanzas;
        drop(queue);
        self.confirmed.notify_one();
    }

    /// Acknowledges all notifications before the cursor `end`. The caller makes sure that this process sends nothing
    /// more. An entry with a cursor in `deferred` is acknowledged only for the recipients before this cursor. The
    /// window keeps the acknowledged entries.
    pub fn confirm_finally(&self, end: Cursor, mut deferred: Vec<Cursor>, stanzas: u64) {
        let mut queue = self.queue();
        let numbers: HashSet<_> = deferred.iter().map(|position| position.number).collect();
        let sent = queue.pending.iter().take_while(|entry| entry.number < end.number);
        let complete = sent.filter(|entry| !numbers.contains(&entry.number));
        let debts: Vec<_> = complete.filter_map(|entry| entry.position).collect();
        queue.acknowledged.debts.extend(debts);
        deferred.push(end);
        deferred.sort_by_key(|position| Reverse(position.recipients));
        queue.acknowledged.partly =
            deferred.into_iter().filter_map(|part| queue.partial(part)).collect();
        queue.acknowledged_stanzas = stanzas;
    }

    /// Records that the server confirms the stanzas that are sent (`true`), or that it confirms none of them (`false`).
    pub fn note_confirmation(&self, is_confirmed: bool) {
        self.is_unconfirmed.store(!is_confirmed, Ordering::Relaxed);
    }

    /// Returns `false` if the server is known to confirm none of the stanzas that are sent, otherwise `true`.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        !self.is_unconfirmed.load(Ordering::Relaxed)
    }

    /// Waits until there are acknowledged entries that are not trimmed yet.
    pub(in crate::service) async fn confirmed(&self) {
        while self.acknowledged().is_none() {
            self.confirmed.notified().await;
        }
    }

    /// Returns the acknowledged positions that are not trimmed yet, at most the first 500. Also returns the number of
    /// stanzas since the start of the process that cannot be sent again after a crash, once these positions are
    /// trimmed. Returns `None` if there is nothing to trim.
    pub(in crate::service) fn acknowledged(&self) -> Option<(Told, u64)> {
        let queue = self.queue();
        if let Some(first) = queue.acknowledged.debts.get(..MAX_TRIMMED) {
            let acknowledged = Told { debts: first.to_vec(), partly: Vec::new() };
            return Some((acknowledged, queue.trimmed_stanzas));
        }
        (queue.acknowledged_stanzas > queue.trimmed_stanzas || !queue.acknowledged.debts.is_empty())
            .then(|| (queue.acknowledged.clone(), queue.acknowledged_stanzas))
    }

    /// Records that the first `debts` acknowledged positions are trimmed from the store, so that the first `stanzas`
    /// stanzas since the start cannot be sent again after a crash. Returns how many of these stanzas could have been
    /// sent again before the call.
    pub fn forgotten(&self, debts: usize, stanzas: u64) -> u64 {
        let mut queue = self.queue();
        queue.acknowledged.debts.drain(..debts);
        let newly_trimmed = stanzas.saturating_sub(queue.trimmed_stanzas);
        queue.trimmed_stanzas += newly_trimmed;
        drop(queue);
        self.changed.notify_one();
        newly_trimmed
    }

    /// Returns how many of the first `sent` stanzas would be sent again after a crash.
    #[must_use]
    pub fn repeatable(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.queue().trimmed_stanzas)
    }

    /// Waits until entries may have become available for sending.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn next(&self) -> u64 {
        self.first + self.pending.len() as u64
    }

    fn get(&self, number: u64) -> Option<&Arc<WindowEntry>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.pending.get(index)
    }

    /// Returns the log position of a partly delivered entry, and the last recipient to which its notification was sent.
    fn partial(&self, position: Cursor) -> Option<(LogPosition, Jid)> {
        let entry = self.get(position.number)?;
        let last = position.recipients.checked_sub(1)?;
        entry.position.zip(entry.recipients.iter_from(last).next().cloned())
    }

    /// Returns the recipient list of each pending entry for implicit subscriptions (`+notify`) to a node.
    fn implicit_recipients(&self, node: Epoch) -> impl Iterator<Item = &Recipients> {
        let numbers = self.nodes.get(&node).into_iter().flat_map(|node| &node.interested);
        numbers.filter_map(|number| Some(&self.get(*number)?.recipients))
    }

    /// Returns the load of an entry or a reservation. Its bytes do not include parts of the recipient list that are in
    /// memory already. Its number of notifications always includes all recipients.
    fn load(&self, bytes: usize, recipients: &Recipients) -> Load {
        let is_new = |(part, _): &(usize, usize)| !self.parts.contains_key(part);
        let audience = match self.audiences.contains_key(&recipients.id()) {
            true => 0,
            false => {
                let parts = recipients.parts().filter(is_new);
                let parts: usize = parts.map(|(_, bytes)| bytes).sum();
                parts + recipients.subids_size()
            }
        };
        Load { entries: 1, bytes: bytes + audience, notifications: recipients.len() }
    }

    /// Adds the load of an entry to the total load, and to the share of the account `owner`.
    fn take(&mut self, owner: Option<&AccountKey>, bytes: usize, recipients: &Recipients) {
        let load = self.load(bytes, recipients);
        self.shares.add(owner, load);
        let entries = self.audiences.entry(recipients.id()).or_default();
        *entries += 1;
        if *entries == 1 {
            for (part, _) in recipients.parts() {
                *self.parts.entry(part).or_default() += 1;
            }
        }
    }

    /// Removes the load of an entry from the total load, and from the share of the account `owner`. The bytes of its
    /// recipient list are removed only if no other entry has that list.
    fn release(&mut self, owner: Option<&AccountKey>, bytes: usize, recipients: &Recipients) {
        let mut load = Load { entries: 1, bytes, notifications: recipients.len() };
        let audience = recipients.id();
        if let Some(shared) = self.audiences.get_mut(&audience) {
            *shared = shared.saturating_sub(1);
            if *shared == 0 {
                self.audiences.remove(&audience);
                load.bytes += recipients.subids_size();
                for (part, bytes) in recipients.parts() {
                    if let Some(lists) = self.parts.get_mut(&part) {
                        *lists = lists.saturating_sub(1);
                        if *lists == 0 {
                            self.parts.remove(&part);
                            load.bytes += bytes;
                        }
                    }
                }
            }
        }
        self.reduce(owner, load);
    }

    /// Reduces the load of an owner. A reduction by more than was added is a defect, which is counted in `miscounts`.
    /// The counted load is then too low rather than too high, so the defect does not keep new entries out.
    fn reduce(&mut self, owner: Option<&AccountKey>, load: Load) {
        let was_there = self.shares.remove(owner, load);
        debug_assert!(was_there, "{load:?} of {owner:?} was not counted");
        if !was_there {
            self.miscounts.inc();
        }
    }

    /// Releases the load of an entry that is no longer pending.
    fn release_entry(&mut self, entry: &WindowEntry) {
        self.release(entry.owner.as_ref(), entry.bytes, &entry.recipients);
        let epoch = entry.notification.event_id.epoch;
        if let Some(node) = self.nodes.get_mut(&epoch) {
            node.entries = node.entries.saturating_sub(1);
            if node.interested.front() == Some(&entry.number) {
                node.interested.pop_front();
            }
            if node.entries == 0 {
                let bytes = node.revocations.len() * REVOCATION_BYTES;
                self.nodes.remove(&epoch);
                self.reduce(None, Load::of_bytes(bytes));
            }
        }
    }

    fn push(
        &mut self,
        notification: Arc<LogEntry>,
        recipients: Recipients,
        position: Option<LogPosition>,
        owner: Option<AccountKey>,
    ) {
        let bytes = notification.size();
        self.take(owner.as_ref(), bytes, &recipients);
        let number = self.next();
        let node = self.nodes.entry(notification.event_id.epoch).or_default();
        node.entries += 1;
        if let Audience::Interested(_) = notification.audience {
            node.interested.push_back(number);
        }
        let entry = WindowEntry { notification, recipients, number, position, bytes, owner };
        self.pending.push_back(Arc::new(entry));
    }
}
