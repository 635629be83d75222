//! Quota of each domain in a bounded table of JIDs.

use std::collections::HashMap;

use jid::with_u_labels;

/// Number of entries of a bounded table, in total and per domain.
///
/// A domain can acquire an entry while it has fewer entries than are free in the table. So one domain can take half of
/// the table, a second domain half of the rest, and so on. No domain can exclude all other domains.
#[derive(Debug)]
pub(super) struct DomainQuota {
    max: usize,
    taken: usize,
    of: HashMap<String, usize>,
}

impl DomainQuota {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: 0, of: HashMap::new() }
    }

    /// Acquires an entry for a JID of a domain. Returns `false` if the quota is used up.
    pub(super) fn try_acquire(&mut self, domain: &str) -> bool {
        let own = self.of.get(&*with_u_labels(domain)).copied().unwrap_or_default();
        let may = own < self.max.saturating_sub(self.taken);
        if may {
            self.acquire_over_quota(domain);
        }
        may
    }

    pub(super) fn acquire_over_quota(&mut self, domain: &str) {
        self.taken += 1;
        *self.of.entry(with_u_labels(domain).into_owned()).or_default() += 1;
    }

    /// Releases an entry of a JID of a domain.
    pub(super) fn release(&mut self, domain: &str) {
        self.taken = self.taken.saturating_sub(1);
        let domain = with_u_labels(domain);
        if let Some(own) = self.of.get_mut(&*domain) {
            *own -= 1;
            if *own == 0 {
                self.of.remove(&*domain);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_cannot_use_the_whole_quota() {
        let mut domains = DomainQuota::new(100);
        let take = |domains: &mut DomainQuota, domain| {
            (0..100).filter(|_| domains.try_acquire(domain)).count()
        };
        assert_eq!(take(&mut domains, "a"), 50);
        assert_eq!(take(&mut domains, "b"), 25);
        assert_eq!(take(&mut domains, "a"), 0);
        (0..50).for_each(|_| domains.release("a"));
        assert_eq!(take(&mut domains, "c"), 38);
        domains.clear();
        assert_eq!(take(&mut domains, "bücher.example"), 50);
        assert_eq!(take(&mut domains, "xn--bcher-kva.example"), 0);
        domains.clear();
        assert_eq!(take(&mut domains, "b"), 50);
    }
}
