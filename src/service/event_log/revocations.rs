//! Revocations of subscriptions while events of the node are pending.

use std::{collections::HashMap, sync::Arc};

use jid::Jid;

use gjallar_pubsub::LogEntry;

/// Entities that lost their subscription to a node. Each has the number of the first log entry that it may receive if
/// it subscribes again.
#[derive(Clone, Debug, Default)]
pub struct Revocations(Option<Arc<HashMap<Jid, u64>>>);

impl Revocations {
    /// Returns `true` if a recipient must not receive the log entry with this number, because its subscription was
    /// revoked.
    #[must_use]
    pub fn has(&self, recipient: &Jid, entry: u64, notification: &LogEntry) -> bool {
        self.0.as_ref().is_some_and(|revoked| {
            let mut own = notification.subscriptions_of(recipient);
            own.any(|jid| revoked.get(&*jid).is_some_and(|next| entry < *next))
        })
    }

    pub(in crate::service) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |revoked| revoked.len())
    }

    /// Records that these entities must not receive the node's log entries before the number `next`. `first` is the
    /// number of the oldest pending entry. Revocations that concern no pending entry are removed from time to time.
    pub(in crate::service) fn add<'a>(
        &mut self,
        jids: impl Iterator<Item = &'a Jid>,
        next: u64,
        first: u64,
    ) {
        let revoked = Arc::make_mut(self.0.get_or_insert_default());
        if revoked.len() == revoked.capacity() {
            revoked.retain(|_, next| *next > first);
        }
        revoked.extend(jids.map(|jid| (jid.clone(), next)));
    }
}
