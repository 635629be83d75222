//! HTTP front end for monitoring: `/metrics`, `/healthz` (liveness) and `/readyz` (readiness).

mod bounded_listener;
mod health;
mod metrics;

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tracing::info;

use crate::service::Service;

use self::bounded_listener::BoundedListener;

/// Listens at an address.
///
/// # Errors
/// If the address is in use or not an address of this machine.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    info!(event = "monitoring_started", %address, "serving metrics and health checks");
    Ok(listener)
}

/// Serves requests until dropped.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>) {
    let router = Router::new()
        .route("/metrics", get(metrics::show))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .with_state(service);
    // The server runs until the process ends, and returns no error.
    let _ = axum::serve(BoundedListener::new(listener), router).await;
}
