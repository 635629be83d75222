//! Metrics and health by HTTP, for this machine: what counts is `/metrics`, whether the process is alive `/healthz`, and
//! whether it serves `/readyz`.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tracing::info;

use crate::service::Service;

/// OpenMetrics 1.0 §3.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens at an address.
///
/// # Errors
/// If that is taken.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    info!(address = %listener.local_addr()?, "metrics and health");
    Ok(listener)
}

/// Answers for a service, as long as it is awaited.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(service);
    // It ends with the process.
    let _ = axum::serve(listener, router).await;
}

async fn metrics(State(service): State<Arc<Service>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], service.stats())
}

async fn ready(State(service): State<Arc<Service>>) -> impl IntoResponse {
    match (service.metrics().connected.get(), service.log_window().is_confirmed()) {
        (1, true) => (StatusCode::OK, "ready\n"),
        (1, _) => (StatusCode::SERVICE_UNAVAILABLE, "the server confirms nothing that is sent\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not connected to the server\n"),
    }
}
