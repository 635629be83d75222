//! Errors of requests.

use thiserror::Error;

use crate::store::StoreError;

/// Error of a request.
#[derive(Debug, Error)]
pub enum Error {
    /// The rule of the operation (in `gjallar_pubsub`) refused the request; nothing has changed.
    #[error(transparent)]
    Refused(#[from] gjallar_pubsub::Error),
    /// The node has a corrupt record; nothing has changed.
    #[error("the node is quarantined")]
    Quarantined,
    /// The backlog is full; nothing has changed, and a later request may succeed.
    #[error("the backlog is full: {limit}")]
    Busy {
        /// Configuration key of the exceeded limit.
        limit: &'static str,
    },
    /// The store failed; the outcome of the request is unknown.
    #[error(transparent)]
    Unknown(StoreError),
}

impl Error {
    /// Returns the metric label of the exceeded limit, if the request exceeds one.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => refusal.limit(),
            Self::Busy { .. } => Some("max_backlog"),
            Self::Quarantined | Self::Unknown(_) => None,
        }
    }

    /// Returns the text for the requester, with the name of the exceeded limit, if the request exceeds one.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.text(),
            Self::Busy { .. } | Self::Quarantined | Self::Unknown(_) => self.to_string(),
        }
    }
}

/// Result of a request.
pub type Outcome<R> = Result<R, Error>;
