//! Stanzas of the service's own that are awaited one by one, for `gjallar doctor`.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use minidom::Element;
use tokio::sync::oneshot;

use crate::xmpp::stanza::envelope::Envelope;

/// The beginning of the id of each of these stanzas.
const PREFIX: &str = "doctor-";
/// The most stanzas that are awaited at the same time. More are not answered.
const MAX_AWAITED: usize = 100;

/// What came back.
#[derive(Debug)]
pub(super) enum ProbeReply {
    Stanza(Element),
    /// A stanza past a limit.
    TooLarge,
}

/// The stanzas that are awaited, by their ids.
#[derive(Debug, Default)]
pub(super) struct Probes {
    awaited: Mutex<HashMap<String, Awaited>>,
}

#[derive(Debug)]
struct Awaited {
    /// The addresses from which it may come.
    from: Vec<String>,
    reply: oneshot::Sender<ProbeReply>,
}

impl Probes {
    /// Awaits what comes back from one of these addresses with an id that is made of this number.
    pub(super) fn expect(
        &self,
        number: u64,
        from: Vec<String>,
    ) -> (String, oneshot::Receiver<ProbeReply>) {
        let id = format!("{PREFIX}{number:016x}");
        let (reply, awaited) = oneshot::channel();
        let mut all = self.awaited();
        all.retain(|_, awaited| !awaited.reply.is_closed());
        if all.len() < MAX_AWAITED {
            all.insert(id.clone(), Awaited { from, reply });
        }
        (id, awaited)
    }

    /// Returns `true` if a stanza was awaited.
    pub(super) fn take(&self, stanza: &Element) -> bool {
        let is_awaited = stanza.attr("id").is_some_and(|id| id.starts_with(PREFIX));
        is_awaited && self.resolve(&Envelope::of(stanza), || ProbeReply::Stanza(stanza.clone()))
    }

    /// Returns `true` if a stanza past a limit was awaited.
    pub(super) fn take_refused(&self, header: &Envelope) -> bool {
        self.resolve(header, || ProbeReply::TooLarge)
    }

    /// Nothing more comes: the connection ended.
    pub(super) fn clear(&self) {
        self.awaited().clear();
    }

    fn resolve(&self, header: &Envelope, reply: impl FnOnce() -> ProbeReply) -> bool {
        let (Some(id), Some(from)) = (&header.id, &header.from) else { return false };
        let mut all = self.awaited();
        if !all.get(id).is_some_and(|awaited| awaited.from.contains(from)) {
            return false;
        }
        if let Some(awaited) = all.remove(id) {
            // Whoever awaited it may have gone.
            let _ = awaited.reply.send(reply());
        }
        true
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<String, Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
