//! Alive, ready, and the figures for Prometheus. Open to all: they name no room and no person.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::Signal;
use super::error::{Problem, ProblemBody};
use crate::core::protocol::Code;

/// Alive
#[utoipa::path(
    get, path = "/healthz", tag = "node",
    responses((status = 200, body = String, content_type = "text/plain", description = "The process answers"))
)]
pub async fn alive() -> &'static str {
    "ok\n"
}

/// Ready for new rooms
#[utoipa::path(
    get, path = "/readyz", tag = "node",
    responses(
        (status = 200, body = String, content_type = "text/plain", description = "New rooms are welcome"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "draining; unavailable while the event log or the cluster's registry cannot be used"),
    )
)]
pub async fn ready(State(signal): State<Arc<Signal>>) -> Result<&'static str, Problem> {
    if signal.control.is_ready() {
        return Ok("ready\n");
    }
    Err(if signal.control.is_open_to_all() {
        let words = "the event log or the registry of rooms cannot be used now: no new rooms";
        Problem::new(Code::Unavailable, words)
    } else {
        Problem::new(Code::Draining, "the node is draining: no new rooms")
    })
}

/// Figures for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "node",
    responses((status = 200, body = String, content_type = "text/plain",
        description = "Prometheus text format"))
)]
pub async fn metrics(State(signal): State<Arc<Signal>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], crate::telemetry::render(&signal.metrics))
}
