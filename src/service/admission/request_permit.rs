//! Permits that bound the number of requests processed concurrently. A request releases its permit while it waits for
//! an event outside the process, such as the arrival of a roster.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use tokio::task_local;

task_local! {
    static PERMIT: Arc<dyn RequestPermit>;
}

/// Permit of the request that a task processes.
#[async_trait]
pub trait RequestPermit: Send + Sync {
    /// Releases the permit.
    fn release(&self);
    /// Acquires a permit.
    async fn acquire(&self);
}

/// Runs a request that holds a permit. At most one request of each sender queue (the stanzas of one sender) waits
/// without a permit.
pub async fn with_permit<F: Future>(permit: Arc<dyn RequestPermit>, request: F) -> F::Output {
    PERMIT.scope(permit, request).await
}

/// Awaits an event outside the process, or the end of a long operation, without holding the permit. The caller must not
/// hold a lock.
pub(in crate::service) async fn without_permit<F: Future>(wait: F) -> F::Output {
    let Ok(permit) = PERMIT.try_with(Arc::clone) else { return wait.await };
    permit.release();
    let output = wait.await;
    permit.acquire().await;
    output
}
