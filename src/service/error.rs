//! Why a request was not granted.

use thiserror::Error;

use crate::store::StoreError;

/// Why a request was not granted.
#[derive(Debug, Error)]
pub enum Error {
    /// The rules say no; nothing has changed.
    #[error(transparent)]
    Refused(#[from] gjallar_pubsub::Error),
    /// What is stored of the node is damaged; nothing has changed.
    #[error("the node is quarantined")]
    Quarantined,
    /// Too much is waiting; nothing has changed, and later it may be granted.
    #[error("the backlog is full: {limit}")]
    Busy {
        /// The configuration key of the exceeded limit.
        limit: &'static str,
    },
    /// The store failed: what became of the request is unknown.
    #[error(transparent)]
    Unknown(StoreError),
}

impl Error {
    /// The name under which the limit that the request exceeds is counted, if it exceeds one.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => refusal.limit(),
            Self::Busy { .. } => Some("max_backlog"),
            Self::Quarantined | Self::Unknown(_) => None,
        }
    }
}

/// What became of a request.
pub type Outcome<R> = Result<R, Error>;
