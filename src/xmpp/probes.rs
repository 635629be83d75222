//! Queries of `gjallar doctor`, whose replies are awaited individually.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use minidom::Element;
use tokio::sync::oneshot;

use crate::xmpp::stanza::envelope::Envelope;

/// Prefix of the ids of the queries of `gjallar doctor`.
const PREFIX: &str = "doctor-";
/// Maximum number of awaited replies. At the maximum, a further query ends immediately without a reply.
const MAX_AWAITED: usize = 100;

/// Reply to a query.
#[derive(Debug)]
pub(super) enum ProbeReply {
    Stanza(Element),
    /// The reply exceeds a limit for stanzas, so its content is unknown.
    TooLarge,
}

/// Awaited replies, by the ids of their queries.
#[derive(Debug, Default)]
pub(super) struct Probes {
    awaited: Mutex<HashMap<String, Awaited>>,
}

#[derive(Debug)]
struct Awaited {
    /// Addresses from which the reply is accepted.
    from: Vec<String>,
    reply: oneshot::Sender<ProbeReply>,
}

impl Probes {
    /// Registers a query whose reply is accepted from the addresses `from`. Returns the id of the query, which contains
    /// `number`, and the receiver of the reply.
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

    /// Passes a stanza to the query that awaits it. Returns `true` if there is such a query.
    pub(super) fn take(&self, stanza: &Element) -> bool {
        let is_awaited = stanza.attr("id").is_some_and(|id| id.starts_with(PREFIX));
        is_awaited && self.resolve(&Envelope::of(stanza), || ProbeReply::Stanza(stanza.clone()))
    }

    /// Handles a stanza that exceeds a limit. If a query awaits the stanza, the query ends with
    /// [`ProbeReply::TooLarge`], and the function returns `true`.
    pub(super) fn take_refused(&self, header: &Envelope) -> bool {
        self.resolve(header, || ProbeReply::TooLarge)
    }

    /// Drops all awaited replies at the end of the connection.
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
            // The receiver may be dropped already.
            let _ = awaited.reply.send(reply());
        }
        true
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<String, Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
