//! Recordings and files that are sold by themselves: their price, and what a buyer gets.
//!
//! A buyer gets addresses of minutes, each bound to who bought. Every request by one asks the ledger again,
//! so that what was taken back, or whose time is over, is not served.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::{self, From, InRoom, OfFile, OfRecording};
use super::payments::{Claim, payer};
use super::paywall::{PaymentRequired, required, unpaid};
use super::{files, receipts, recordings};
use crate::billing::Admission;
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::ledger::{Offer, Resource};
use crate::core::recording::RecordingId;
use crate::core::recording::manifest::Manifest;

/// What a recording or file costs.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriceTag {
    /// Absent or null: it is not sold. Without trial, preview and `zero_conf`.
    price: Option<Offer>,
}

/// What somebody may fetch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Bought {
    viewer: Identity,
    /// Access ends then, grace included.
    until_ms: u64,
    files: Vec<BoughtFile>,
    /// Paths of the receipts of what was paid for it, the latest first.
    receipts: Vec<String>,
}

/// One file of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct BoughtFile {
    name: String,
    bytes: u64,
    media_type: String,
    /// Path and query. It needs no header, takes ranges, and ends after some minutes: then ask again.
    url: String,
    expires_at_ms: u64,
}

async fn set_price(
    signal: &Signal,
    headers: &HeaderMap,
    of: Resource,
    offer: Option<Offer>,
) -> Result<Json<PriceTag>, Problem> {
    // As with rooms: by a token alone, since who came first may run the room, not sell what is in it.
    let caller = signal.authority.caller(headers)?;
    let by = signal.authority.may_administer(&caller, &of.room)?;
    signal.billing.set_offer(of.clone(), offer, by).await?;
    Ok(Json(PriceTag { price: signal.billing.offer(of).await? }))
}

/// What there is to fetch: name, bytes, media type and path.
type Found = Vec<(String, u64, String, String)>;

/// Lets a buyer in, or asks for the money. What is not sold any more stays its buyers'.
async fn access(
    signal: &Signal,
    headers: &HeaderMap,
    of: Resource,
    claim: &Claim,
    from: std::net::IpAddr,
    files: Found,
) -> Result<Response, Problem> {
    let payer = payer(signal, headers, &of, claim)?;
    match signal.billing.admit(of.clone(), payer, from).await? {
        Admission::Entitled { viewer, until_ms } => {
            let receipts = receipts::paths(&of, &signal.billing.settled(of.clone(), viewer.clone()).await?);
            let files = files.into_iter().map(|(name, bytes, media_type, path)| {
                let link = signal.links.sold(&path, &viewer, until_ms);
                BoughtFile { name, bytes, media_type, url: link.url, expires_at_ms: link.expires_at_ms }
            });
            let files = files.collect();
            Ok(Json(Bought { viewer, until_ms, files, receipts }).into_response())
        }
        Admission::Pay(challenge) => Ok(required(&challenge)),
        Admission::Preview { .. } => Err(unpaid()),
    }
}

/// See what a recording costs
#[utoipa::path(
    get, path = "/v1/rooms/{room}/recordings/{recording}/price", tag = "payments",
    params(("room" = RoomName, Path), ("recording" = RecordingId, Path)),
    responses((status = 200, body = PriceTag))
)]
pub async fn recording_price(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRecording(id): OfRecording,
) -> Result<Json<PriceTag>, Problem> {
    Ok(Json(PriceTag { price: signal.billing.offer(Resource::recording(&room, &id)).await? }))
}

/// Sell a recording
///
/// All its files, for a period; `null` ends the sale, and who has bought keeps it to the end of its period.
/// Needs a token with the room's `admin` grant.
#[utoipa::path(
    put, path = "/v1/rooms/{room}/recordings/{recording}/price", tag = "payments",
    params(("room" = RoomName, Path), ("recording" = RecordingId, Path)),
    request_body = PriceTag,
    responses(
        (status = 200, body = PriceTag),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found, 409 payout_missing"),
    )
)]
pub async fn set_recording_price(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRecording(id): OfRecording,
    headers: HeaderMap,
    extract::Json(PriceTag { price }): extract::Json<PriceTag>,
) -> Result<Json<PriceTag>, Problem> {
    signal.recordings.show(&room, &id).await?;
    set_price(&signal, &headers, Resource::recording(&room, &id), price).await
}

/// Buy a recording, or get what was bought
///
/// With the claim of an earlier answer, an `L402` token or a token for the room; with none of them an invoice
/// is made for somebody new.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/recordings/{recording}/access", tag = "payments",
    params(("room" = RoomName, Path), ("recording" = RecordingId, Path)),
    request_body = Option<Claim>,
    responses(
        (status = 200, body = Bought),
        (status = 402, body = PaymentRequired, content_type = "application/problem+json",
            description = "payment_required, with an invoice"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found where it is not sold, 429 rate_limited"),
    )
)]
pub async fn recording_access(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRecording(id): OfRecording,
    From(from): From,
    headers: HeaderMap,
    extract::Json(claim): extract::Json<Claim>,
) -> Result<Response, Problem> {
    let manifest = signal.recordings.show(&room, &id).await?;
    let files = manifest.files.iter().map(|file| {
        let media_type = Manifest::media_type(&file.name).to_owned();
        (file.name.clone(), file.bytes, media_type, recordings::path_of_file(&room, &id, &file.name))
    });
    let (of, files) = (Resource::recording(&room, &id), files.collect());
    access(&signal, &headers, of, &claim, from, files).await
}

/// See what a file costs
#[utoipa::path(
    get, path = "/v1/rooms/{room}/files/{file}/price", tag = "payments",
    params(("room" = RoomName, Path), ("file" = MessageId, Path)),
    responses((status = 200, body = PriceTag))
)]
pub async fn file_price(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
) -> Result<Json<PriceTag>, Problem> {
    Ok(Json(PriceTag { price: signal.billing.offer(Resource::file(&room, &id)).await? }))
}

/// Sell a file
///
/// From then on only buyers and the room's admins can fetch it or its thumbnail; `null` ends the sale. Needs
/// a token with the room's `admin` grant.
#[utoipa::path(
    put, path = "/v1/rooms/{room}/files/{file}/price", tag = "payments",
    params(("room" = RoomName, Path), ("file" = MessageId, Path)),
    request_body = PriceTag,
    responses(
        (status = 200, body = PriceTag),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found, 409 payout_missing"),
    )
)]
pub async fn set_file_price(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    headers: HeaderMap,
    extract::Json(PriceTag { price }): extract::Json<PriceTag>,
) -> Result<Json<PriceTag>, Problem> {
    signal.files.kept(&room, &id).await?;
    set_price(&signal, &headers, Resource::file(&room, &id), price).await
}

/// Buy a file, or get what was bought
///
/// As with a recording. Who buys need not be in the room.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/files/{file}/access", tag = "payments",
    params(("room" = RoomName, Path), ("file" = MessageId, Path)),
    request_body = Option<Claim>,
    responses(
        (status = 200, body = Bought),
        (status = 402, body = PaymentRequired, content_type = "application/problem+json",
            description = "payment_required, with an invoice"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found where it is not sold, 410 gone, \
                429 rate_limited"),
    )
)]
pub async fn file_access(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    From(from): From,
    headers: HeaderMap,
    extract::Json(claim): extract::Json<Claim>,
) -> Result<Response, Problem> {
    let file = signal.files.kept(&room, &id).await?.file;
    let found = vec![(file.name.clone(), file.size_bytes, file.media_type.clone(), files::path(&room, &id))];
    access(&signal, &headers, Resource::file(&room, &id), &claim, from, found).await
}
