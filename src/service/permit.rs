//! The permits of requests: only so many requests are processed at the same time, and one that waits for something
//! outside the process is not one of them.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use tokio::task_local;

task_local! {
    static PERMIT: Arc<dyn RequestPermit>;
}

/// The permit of the request that a task processes.
#[async_trait]
pub trait RequestPermit: Send + Sync {
    /// Gives the permit to another request.
    fn release(&self);
    /// Waits for a permit.
    async fn acquire(&self);
}

/// Processes a request that has a permit. It releases the permit while it waits for something outside the process, so
/// how many requests wait for that is bounded by their queues alone.
pub async fn with_permit<F: Future>(permit: Arc<dyn RequestPermit>, request: F) -> F::Output {
    PERMIT.scope(permit, request).await
}

/// Waits for something outside the process, without the permit of the request. The caller holds no lock meanwhile.
pub(super) async fn without_permit<F: Future>(wait: F) -> F::Output {
    let Ok(permit) = PERMIT.try_with(Arc::clone) else { return wait.await };
    permit.release();
    let output = wait.await;
    permit.acquire().await;
    output
}
