//! What viewers of a room that costs money do: ask for an invoice, follow it, and get their token.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;

use super::Signal;
use super::auth::{Caller, GUEST};
use super::error::{Problem, ProblemBody};
use super::extract::{self, From, InRoom, OfInvoice};
use super::paywall::{PaymentRequired, l402, required};
use super::receipts;
use crate::billing::{Admission, Challenge, Payer};
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{InvoiceView, Msat, Progress, Rail, Resource};
use crate::core::protocol::Code;
use crate::token::{RoomGrant, Token};

/// A ticket is for minutes; it is given anew for as long as there is access. Seconds.
const TICKET_SECONDS: u64 = 5 * 60;
/// A follower hears something at least so often, so that proxies keep the line.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Who asks, by what it was given with its invoice. Holders of a token send neither.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Claim {
    #[schema(value_type = Option<String>)]
    viewer: Option<String>,
    claim: Option<String>,
}

/// A ticket.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Ticket {
    /// A JWT for this room, for some minutes and never past the paid time.
    token: String,
    #[schema(value_type = u64)]
    token_expires_at_ms: u64,
    /// Access ends then, grace included.
    until_ms: u64,
    viewer: Identity,
    /// Paths of the receipts of what was paid here, the latest first.
    receipts: Vec<String>,
}

/// An invoice as it is followed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Followed {
    #[serde(flatten)]
    invoice: InvoiceView,
    /// What one QR code holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
}

impl std::convert::From<InvoiceView> for Followed {
    fn from(invoice: InvoiceView) -> Self {
        Self { uri: invoice.uri(), invoice }
    }
}

/// Who a request proves to be: by a claim, an L402 token or a token for the room; else somebody new.
pub fn payer(signal: &Signal, headers: &HeaderMap, of: &Resource, claim: &Claim) -> Result<Payer, Problem> {
    if let (Some(viewer), Some(secret)) = (&claim.viewer, &claim.claim) {
        let viewer = Identity::parse(viewer)?;
        if signal.billing.is_claim(of, &viewer, secret) {
            return Ok(Payer::Known(viewer));
        }
        return Err(Problem::new(Code::Unauthorized, "the claim is not this viewer's, or not for this"));
    }
    if let Some(token) = l402(headers) {
        return Ok(Payer::L402(token));
    }
    match signal.authority.caller(headers) {
        Ok(Caller::Holder(token)) if token.room.covers(&of.room) => Ok(Payer::Known(token.identity)),
        Ok(Caller::Holder(_)) => Err(Problem::new(Code::Forbidden, "the token is for another room")),
        Err(problem) if headers.contains_key(AUTHORIZATION) => Err(problem),
        Ok(Caller::Guest) | Err(_) => Ok(Payer::Guest),
    }
}

/// Get a token for what was paid
///
/// Of a viewer who has paid, is on trial or was given access. Ask again before it expires.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/access", tag = "payments",
    params(("room" = RoomName, Path)),
    request_body = Option<Claim>,
    responses(
        (status = 200, body = Ticket),
        (status = 402, body = PaymentRequired, content_type = "application/problem+json",
            description = "payment_required, with an invoice for this viewer"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 404 not_found where nothing is sold, 429 rate_limited"),
    )
)]
pub async fn access(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    From(from): From,
    headers: HeaderMap,
    extract::Json(claim): extract::Json<Claim>,
) -> Result<Response, Problem> {
    let payer = payer(&signal, &headers, &room.clone().into(), &claim)?;
    if matches!(payer, Payer::Guest) {
        let words =
            "show `viewer` and `claim`, or a token for this room; a join makes an invoice for who is new";
        return Err(Problem::new(Code::Unauthorized, words));
    }
    Ok(match signal.billing.admit(room.clone(), payer, from).await? {
        Admission::Entitled { viewer, until_ms } | Admission::Preview { viewer, until_ms, .. } => {
            let invoices = signal.billing.settled(room.clone(), viewer.clone()).await?;
            let receipts = receipts::paths(&room.clone().into(), &invoices);
            Json(Ticket { receipts, ..ticket(&signal, &room, viewer, until_ms)? }).into_response()
        }
        Admission::Pay(challenge) => required(&challenge),
    })
}

fn ticket(signal: &Signal, room: &RoomName, viewer: Identity, until_ms: u64) -> Result<Ticket, Problem> {
    let until_s = until_ms / 1_000;
    let expires_at_s = until_s.min(jsonwebtoken::get_current_timestamp() + TICKET_SECONDS);
    let grant = RoomGrant { admin: false, ..RoomGrant::owner(room) };
    debug_assert_eq!(grant.grant(), GUEST, "a price changes who may come in, not what they may do inside");
    let token = Token { identity: viewer.clone(), name: None, room: grant };
    let token = signal.authority.sign(token, expires_at_s)?;
    let token_expires_at_ms = expires_at_s * 1_000;
    Ok(Ticket { token, token_expires_at_ms, until_ms, viewer, receipts: Vec::new() })
}

/// Ask for an invoice, also before the paid time ends
///
/// A renewal that is paid early goes on at the old end. The invoice that waits is answered again. Who shows
/// neither claim nor token is somebody new, such as who looks in and wants to stay.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/invoices", tag = "payments",
    params(("room" = RoomName, Path)),
    request_body = Option<Claim>,
    responses(
        (status = 201, body = Challenge),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 404 not_found where nothing is sold, 409 payout_missing, 429 rate_limited"),
    )
)]
pub async fn renew(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    From(from): From,
    headers: HeaderMap,
    extract::Json(claim): extract::Json<Claim>,
) -> Result<Response, Problem> {
    let payer = payer(&signal, &headers, &room.clone().into(), &claim)?;
    match signal.billing.renew(room, payer, from).await? {
        Admission::Pay(challenge) => Ok((StatusCode::CREATED, Json(*challenge)).into_response()),
        _ => Err(Problem::new(Code::Internal, "a renewal was not answered by an invoice")),
    }
}

/// Look at an invoice
///
/// Its id cannot be guessed, so whoever has it may look.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/invoices/{invoice}", tag = "payments",
    params(("room" = RoomName, Path), ("invoice" = String, Path)),
    responses(
        (status = 200, body = Followed),
        (status = 404, body = ProblemBody, content_type = "application/problem+json",
            description = "not_found"),
    )
)]
pub async fn show(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfInvoice(invoice): OfInvoice,
) -> Result<Json<Followed>, Problem> {
    let (view, _) = signal.billing.invoice(room, invoice).await?;
    Ok(Json(view.into()))
}

/// Follow an invoice
///
/// Server-sent events: the invoice as it stands, at once and whenever it changes, until it is settled.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/invoices/{invoice}/events", tag = "payments",
    params(("room" = RoomName, Path), ("invoice" = String, Path)),
    responses(
        (status = 200, body = Followed, content_type = "text/event-stream"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json",
            description = "not_found"),
    )
)]
pub async fn follow(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfInvoice(invoice): OfInvoice,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    // Listening first: nothing is missed between the look and the wait.
    let changes = signal.billing.changes();
    let (first, viewer) = signal.billing.invoice(room.clone(), invoice.clone()).await?;
    let start = (signal, Some(first), changes);
    let events = stream::unfold(start, move |(signal, next, mut changes)| {
        let (room, invoice, viewer) = (room.clone(), invoice.clone(), viewer.clone());
        async move {
            if let Some(view) = next {
                let event = Event::default().event("invoice").json_data(Followed::from(view));
                return Some((Ok(event.ok()?), (signal, None, changes)));
            }
            loop {
                match changes.recv().await {
                    Ok(changed) if changed.room != room || changed.viewer != viewer => {}
                    // Who lagged looks anew.
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return None,
                }
            }
            let (view, _) = signal.billing.invoice(room, invoice).await.ok()?;
            let event = Event::default().event("invoice").json_data(Followed::from(view));
            Some((Ok(event.ok()?), (signal, None, changes)))
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// A pretended payment.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pretence {
    rail: Rail,
    /// Absent, what remains.
    sats: Option<u64>,
    /// On-chain: blocks that have it; `null` for a payment that was replaced.
    #[schema(value_type = Option<u32>)]
    confirmations: Option<u32>,
}

impl Default for Pretence {
    fn default() -> Self {
        Self { rail: Rail::Lightning, sats: None, confirmations: Some(1) }
    }
}

/// Pretend to pay
///
/// Under `--dev` without wallets alone, where no money is real: whoever asks is said to have paid.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/invoices/{invoice}/simulate", tag = "payments",
    params(("room" = RoomName, Path), ("invoice" = String, Path)),
    request_body = Option<Pretence>,
    responses(
        (status = 204, description = "It is told to the ledger as a wallet would"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "403 forbidden where money is real, 404 not_found"),
    )
)]
pub async fn simulate(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfInvoice(invoice): OfInvoice,
    extract::Json(Pretence { rail, sats, confirmations }): extract::Json<Pretence>,
) -> Result<StatusCode, Problem> {
    let (view, _) = signal.billing.invoice(room.clone(), invoice.clone()).await?;
    let sum = Msat::from_sats(sats.unwrap_or(view.remaining_sat.max(1)));
    let progress = match (rail, confirmations) {
        (Rail::Lightning, _) => Progress::Settled,
        (Rail::Onchain, Some(blocks)) => Progress::Confirmations(blocks),
        (Rail::Onchain, None) => Progress::Replaced,
    };
    signal.billing.simulate(room, invoice, rail, sum, progress).await?;
    Ok(StatusCode::NO_CONTENT)
}
