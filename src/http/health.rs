//! Health of the service: liveness and readiness.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::IntoResponse};

use crate::service::Service;

/// Replies 200 while the process runs.
pub(super) async fn live() -> &'static str {
    "alive\n"
}

/// Replies 200 while the service is connected and the server returns the pings that the service sends to itself to
/// confirm the delivery of notifications. Otherwise replies 503.
pub(super) async fn ready(State(service): State<Arc<Service>>) -> impl IntoResponse {
    match (service.metrics().connected.get(), service.log_window().is_confirmed()) {
        (1, true) => (StatusCode::OK, "ready\n"),
        (1, _) => (StatusCode::SERVICE_UNAVAILABLE, "the server returns no pings of the service\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not connected to the server\n"),
    }
}
