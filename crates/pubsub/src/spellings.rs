//! Lookup of addresses of internationalised domains in every spelling of the domain.

use std::{collections::BTreeMap, sync::Arc};

use jid::{BareJid, Jid};

/// Addresses with domains that have several spellings. The key is the [decoded](BareJid::decoded) address. Each address
/// has the number of times that it was added. Converting a domain takes a hundred times as long as a lookup, so domains
/// are converted when an address is added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spelled(Arc<BTreeMap<String, BTreeMap<BareJid, usize>>>);

impl Spelled {
    /// Adds an address, if its domain has several spellings. An address that is added repeatedly has to be removed as
    /// often.
    pub(super) fn add(&mut self, address: &BareJid) {
        if address.other_spellings().next().is_none() {
            return;
        }
        let all = Arc::make_mut(&mut self.0);
        let of_entity = all.entry(address.decoded().into_owned()).or_default();
        *of_entity.entry(address.clone()).or_default() += 1;
    }

    /// Undoes one addition of an address.
    pub(super) fn remove(&mut self, address: &BareJid) {
        let decoded = address.decoded();
        if !self.0.get(&*decoded).is_some_and(|of_entity| of_entity.contains_key(address)) {
            return;
        }
        let all = Arc::make_mut(&mut self.0);
        let Some(of_entity) = all.get_mut(&*decoded) else { return };
        if let Some(times) = of_entity.get_mut(address) {
            *times -= 1;
            if *times == 0 {
                of_entity.remove(address);
            }
        }
        if of_entity.is_empty() {
            all.remove(&*decoded);
        }
    }

    /// Returns the added addresses that are another spelling of this address, those with U-labels first.
    pub(super) fn others<'a>(&'a self, address: &BareJid) -> impl Iterator<Item = &'a BareJid> {
        let of_entity = match self.0.is_empty() {
            true => None,
            false => self.0.get(&*address.decoded()),
        };
        let all = of_entity.into_iter().flat_map(|of_entity| of_entity.keys().rev());
        let address = address.clone();
        all.filter(move |other| **other != address)
    }

    /// Returns a full JID and its bare JID, and both JIDs in each other spelling of the domain in which the address was
    /// added.
    pub(super) fn own_jids(&self, resource: &Jid) -> impl Iterator<Item = Jid> {
        let bare = resource.to_bare();
        let others = self.others(&bare).cloned().collect::<Vec<_>>().into_iter();
        let with_resource = |bare: &BareJid| {
            let resource = resource.resource()?;
            Jid::new(&format!("{bare}/{resource}")).ok()
        };
        let jids = move |bare: BareJid| {
            let full = with_resource(&bare);
            [Jid::from(bare)].into_iter().chain(full)
        };
        [resource.clone(), Jid::from(bare)].into_iter().chain(others.flat_map(jids))
    }
}
