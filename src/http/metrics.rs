//! Metrics of the service in the format of OpenMetrics.

use std::sync::Arc;

use axum::{extract::State, http::header::CONTENT_TYPE, response::IntoResponse};

use crate::service::Service;

/// Content type of OpenMetrics 1.0 §3.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn show(State(service): State<Arc<Service>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], service.stats())
}
