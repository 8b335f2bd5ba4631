//! What another node of the cluster passes on about money, since this one keeps the ledger. Not for clients.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};

use super::Signal;
use super::error::Problem;
use crate::billing::SIGNATURE;

/// Takes a wish, signed by the secret of all nodes, and signs the answer.
pub async fn take(
    State(signal): State<Arc<Signal>>,
    headers: HeaderMap,
    text: String,
) -> Result<Response, Problem> {
    let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (answer, signed) = signal.billing.take_passed(&text, signature).await?;
    let headers =
        [(CONTENT_TYPE, "application/json".to_owned()), (HeaderName::from_static(SIGNATURE), signed)];
    Ok((headers, answer).into_response())
}
