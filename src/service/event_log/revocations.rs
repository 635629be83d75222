//! Who lost a subscription while events of its node waited.

use std::{collections::HashMap, sync::Arc};

use jid::Jid;

use gjallar_pubsub::LogEntry;

/// Those who must not hear any more of what happened at a node before they lost their subscription: with each
/// the first entry of the outbox that it may hear of again.
#[derive(Clone, Debug, Default)]
pub struct Revocations(Option<Arc<HashMap<Jid, u64>>>);

impl Revocations {
    /// Returns `true` if a recipient has lost the entitlement to the entry with this number.
    #[must_use]
    pub fn has(&self, recipient: &Jid, entry: u64, notification: &LogEntry) -> bool {
        self.0.as_ref().is_some_and(|lost| {
            let mut own = notification.subscriptions_of(recipient);
            own.any(|jid| lost.get(&*jid).is_some_and(|next| entry < *next))
        })
    }

    pub(in crate::service) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |lost| lost.len())
    }

    /// From this entry on they may hear again. Those are forgotten who may hear of all that is left, from
    /// `first` on.
    pub(in crate::service) fn add<'a>(
        &mut self,
        jids: impl Iterator<Item = &'a Jid>,
        next: u64,
        first: u64,
    ) {
        let lost = Arc::make_mut(self.0.get_or_insert_default());
        if lost.len() == lost.capacity() {
            lost.retain(|_, next| *next > first);
        }
        lost.extend(jids.map(|jid| (jid.clone(), next)));
    }
}
