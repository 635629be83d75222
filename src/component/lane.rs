//! Worker lanes: the stanzas of one sender in order (RFC 6120 §10.1), those of different senders side
//! by side. Lanes are bounded.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use minidom::Element;
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, error::TrySendError},
    },
    task::JoinHandle,
};
use tracing::error;

use crate::wire::stanza::{Header, StanzaError};

use super::dispatch::Dispatch;

/// How many senders can be served at the same time.
const LANES: usize = 64;
/// Stanzas that may wait in a lane.
const MAX_WAITING: usize = 256;
/// Bytes of stanzas that may wait in all lanes. As trees they take several times as much.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// The lanes. The default has none, and takes no stanza.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<(mpsc::Sender<Waiting>, JoinHandle<()>)>,
    room: Arc<Semaphore>,
}

/// A stanza, and the room that it takes while it waits.
type Waiting = (Element, OwnedSemaphorePermit);

impl Default for Lanes {
    fn default() -> Self {
        Self { lanes: Vec::new(), room: Arc::new(Semaphore::new(0)) }
    }
}

impl Lanes {
    /// Starts the workers.
    #[must_use]
    pub(super) fn start(dispatch: &Arc<Dispatch>) -> Self {
        let lane = |_| {
            let (sender, mut waiting) = mpsc::channel::<Waiting>(MAX_WAITING);
            let dispatch = Arc::clone(dispatch);
            let worker = tokio::spawn(async move {
                while let Some((stanza, _room)) = waiting.recv().await {
                    handle(&dispatch, stanza).await;
                }
            });
            (sender, worker)
        };
        let room = Arc::new(Semaphore::new(MAX_WAITING_BYTES));
        Self { lanes: (0..LANES).map(lane).collect(), room }
    }

    /// Puts a stanza, which had so many bytes, into its sender's lane.
    ///
    /// # Errors
    /// The stanza, if the lane or all room is full.
    pub(super) fn submit(&self, stanza: Element, bytes: usize) -> Result<(), Element> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else {
            return Err(stanza);
        };
        let mut hasher = DefaultHasher::new();
        let from = stanza.attr("from").unwrap_or_default();
        from.split_once('/').map_or(from, |(bare, _)| bare).hash(&mut hasher);
        #[allow(clippy::cast_possible_truncation)] // any bits of the hash do
        let lane = hasher.finish() as usize % LANES;
        let Some((sender, _)) = self.lanes.get(lane) else { return Err(stanza) };
        sender.try_send((stanza, room)).map_err(|error| match error {
            TrySendError::Full((stanza, _)) | TrySendError::Closed((stanza, _)) => stanza,
        })
    }

    /// Takes no more stanzas, and waits until those that wait are dealt with.
    pub(super) async fn finish(self) {
        for (sender, worker) in self.lanes {
            drop(sender);
            // A worker ends when its lane is empty.
            let _ = worker.await;
        }
    }
}

/// Deals with a stanza in a task of its own: should a defect make it panic, its sender is answered
/// and the lane lives on.
async fn handle(dispatch: &Arc<Dispatch>, stanza: Element) {
    let header = Header::of(&stanza);
    let worker = Arc::clone(dispatch);
    let handled = tokio::spawn(async move { worker.handle(&stanza).await });
    if let Err(defect) = handled.await {
        error!(%defect, "a stanza made its handler panic");
        dispatch.refuse(&header, &StanzaError::new("wait", "internal-server-error"));
    }
}
