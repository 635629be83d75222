//! Recipient lists of the pending notifications of a node. Notifications to equal recipients share a list in memory and in
//! the store, whichever requests they belong to.

use std::collections::VecDeque;

use crate::pubsub::{Audience, Notification, Recipients, WeakRecipients};

/// Maximum number of lists of a node that are compared; the oldest are forgotten.
const MAX_LISTS: usize = 64;

/// The latest lists, as long as a notification has them.
#[derive(Debug, Default)]
pub(super) struct SharedLists(VecDeque<WeakRecipients>);

impl SharedLists {
    /// Replaces the lists of notifications by equal ones.
    pub(super) fn share(&mut self, notifications: &mut [Notification]) {
        for notification in notifications {
            match &mut notification.audience {
                Audience::Interested(list) | Audience::Listed(list) if list.len() > 1 => {
                    *list = self.shared(list);
                }
                Audience::Entities(_)
                | Audience::Interested(_)
                | Audience::Listed(_)
                | Audience::Subscribers => {}
            }
        }
    }

    fn shared(&mut self, list: &Recipients) -> Recipients {
        let known = self.0.iter().filter_map(WeakRecipients::upgrade);
        if let Some(equal) = known.rev().find(|other| other.id() == list.id() || other == list) {
            return equal;
        }
        self.0.retain(|other| other.upgrade().is_some());
        if self.0.len() >= MAX_LISTS {
            self.0.pop_front();
        }
        self.0.push_back(list.downgrade());
        list.clone()
    }
}
