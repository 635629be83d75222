//! Recipient lists of the pending notifications of a node. Notifications to equal recipients share a list in memory and
//! in the store, even if they come from different requests.

use std::collections::HashMap;

use gjallar_pubsub::{Audience, LogEntry, Recipients, WeakRecipients};

/// Unused lists are kept while there are fewer lists than this. A list is unused if no pending notification refers to
/// it.
const MIN_LISTS: usize = 64;

/// Weak references to the recipient lists of pending notifications, by the hash of the list.
#[derive(Debug)]
pub(in crate::service) struct SharedLists {
    lists: HashMap<u64, WeakRecipients>,
    /// Number of lists that triggers the next removal of unused lists.
    max: usize,
}

impl Default for SharedLists {
    fn default() -> Self {
        Self { lists: HashMap::new(), max: MIN_LISTS }
    }
}

impl SharedLists {
    /// Replaces the recipient lists of notifications by equal lists of earlier notifications.
    pub(in crate::service) fn share(&mut self, notifications: &mut [LogEntry]) {
        for notification in notifications {
            match &mut notification.audience {
                Audience::Interested(list) | Audience::Listed(list) if list.len() > 1 => {
                    *list = self.shared(list);
                }
                Audience::Explicit(_)
                | Audience::Interested(_)
                | Audience::Listed(_)
                | Audience::Subscribers => {}
            }
        }
    }

    fn shared(&mut self, list: &Recipients) -> Recipients {
        let known = self.lists.get(&list.hash()).and_then(WeakRecipients::upgrade);
        if let Some(equal) = known.filter(|known| known == list) {
            return equal;
        }
        if self.lists.len() >= self.max {
            self.lists.retain(|_, list| list.upgrade().is_some());
            self.max = MIN_LISTS.max(2 * self.lists.len());
        }
        self.lists.insert(list.hash(), list.downgrade());
        list.clone()
    }
}

#[cfg(test)]
mod tests {
    use jid::Jid;

    use super::*;

    fn list(number: usize) -> Recipients {
        ["a", "b"].iter().map(|name| Jid::new(&format!("{name}@{number}.x")).unwrap()).collect()
    }

    #[test]
    fn recipient_lists_are_shared() {
        let mut shared = SharedLists::default();
        let first: Vec<_> = (0..200).map(|number| shared.shared(&list(number))).collect();
        for (number, first) in first.iter().enumerate() {
            assert_eq!(shared.shared(&list(number)).id(), first.id());
        }
        drop(first);
        for number in 1000..9000 {
            shared.shared(&list(number));
        }
        assert!(shared.lists.len() <= 400, "{}", shared.lists.len());
    }
}
