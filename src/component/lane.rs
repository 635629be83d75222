//! Worker lanes: the stanzas of one sender in order (RFC 6120 §10.1), those of different senders side
//! by side. Lanes are bounded.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use minidom::Element;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinHandle,
};

use super::dispatch::Dispatch;

/// How many senders can be served at the same time.
const LANES: usize = 64;
/// Stanzas that may wait in a lane.
const MAX_WAITING: usize = 256;

/// The lanes. The default has none, and takes no stanza.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Vec<(mpsc::Sender<Element>, JoinHandle<()>)>,
}

impl Lanes {
    /// Starts the workers.
    #[must_use]
    pub fn start(dispatch: &Arc<Dispatch>) -> Self {
        let lane = |_| {
            let (sender, mut waiting) = mpsc::channel::<Element>(MAX_WAITING);
            let dispatch = Arc::clone(dispatch);
            let worker = tokio::spawn(async move {
                while let Some(stanza) = waiting.recv().await {
                    dispatch.handle(&stanza).await;
                }
            });
            (sender, worker)
        };
        Self { lanes: (0..LANES).map(lane).collect() }
    }

    /// Puts a stanza into its sender's lane.
    ///
    /// # Errors
    /// The stanza, if the lane is full.
    pub fn submit(&self, stanza: Element) -> Result<(), Element> {
        let mut hasher = DefaultHasher::new();
        let from = stanza.attr("from").unwrap_or_default();
        from.split_once('/').map_or(from, |(bare, _)| bare).hash(&mut hasher);
        #[allow(clippy::cast_possible_truncation)] // any bits of the hash do
        let lane = hasher.finish() as usize % LANES;
        let Some((sender, _)) = self.lanes.get(lane) else { return Err(stanza) };
        sender.try_send(stanza).map_err(|error| match error {
            TrySendError::Full(stanza) | TrySendError::Closed(stanza) => stanza,
        })
    }

    /// Takes no more stanzas, and waits until those that wait are dealt with.
    pub async fn finish(self) {
        for (sender, worker) in self.lanes {
            drop(sender);
            // A worker that panicked has nothing more to do.
            let _ = worker.await;
        }
    }
}
