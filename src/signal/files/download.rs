//! Contents of files and their thumbnails. Whatever a file is, it cannot act in the origin that serves it: it
//! goes out as an attachment, of a type that is not guessed, in a sandbox without scripts.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;

use super::access::{FileParams, may_fetch, may_fetch_unsold};
use super::link::{self, Asker, Shown, Signature};
use super::tus;
use crate::core::files::served_type;
use crate::core::ids::{MessageId, RoomName};
use crate::core::ledger::Resource;
use crate::signal::Signal;
use crate::signal::error::{Problem, ProblemBody};
use crate::signal::extract::{InRoom, OfFile, Params};
use crate::signal::paywall::{PaymentRequired, may_fetch_sold, still_bought};
use crate::signal::ranges::{self, Served};

/// Fetch a file
///
/// In whole or in part (`Range`). Also by the address that a `link` gives. With `Tus-Resumable`, `HEAD` says
/// how far an upload is.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/files/{file}", tag = "files",
    params(
        ("room" = RoomName, Path), ("file" = MessageId, Path), Signature,
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "It is as the entity tag says"),
        (status = 402, body = PaymentRequired, content_type = "application/problem+json",
            description = "payment_required: it is sold; with an invoice, and L402 for programs"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden or room_private, 404 not_found, 410 gone, \
            416 range_not_satisfiable"),
    )
)]
pub async fn contents(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    Asker { signature, from }: Asker,
    Params(params): Params<FileParams>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if method == Method::HEAD && tus::speaks_of_upload(&headers) {
        return tus::progress(&signal, &room, &id, &headers, params).await;
    }
    let of = Resource::file(&room, &id);
    let shown = signal.links.admits(&link::path(&room, &id), &signature)?;
    if shown == Shown::Nothing && !signal.billing.is_sold(&of) {
        may_fetch(&signal, &headers, &room).await?;
    }
    let file = signal.files.kept(&room, &id).await?.file;
    match shown {
        Shown::Buyer(viewer) => still_bought(&signal, &of, viewer).await?,
        // Nobody is asked to pay for what is not there.
        Shown::Nothing if signal.billing.is_sold(&of) => {
            if let Some(asked) = may_fetch_sold(&signal, &headers, &of, from).await? {
                return Ok(asked);
            }
        }
        Shown::Nothing | Shown::Anyone => {}
    }
    let etag = format!("\"{}\"", file.sha256);
    let served = Served {
        size: file.size_bytes,
        etag: &etag,
        media_type: served_type(&file.media_type),
        name: &file.name,
    };
    ranges::serve(&method, &headers, served, async |range| {
        let sent = metrics::counter!("antiphon_files_sent_bytes_total");
        let contents = signal.files.contents(&file, range).await?;
        Ok(Body::from_stream(contents.inspect(move |bytes| {
            sent.increment(bytes.as_ref().map_or(0, |bytes: &Bytes| bytes.len() as u64));
        })))
    })
    .await
}

/// Fetch a small picture of a file
///
/// A JPEG of at most 480 pixels a side, made by the server.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/files/{file}/thumbnail", tag = "files",
    params(
        ("room" = RoomName, Path), ("file" = MessageId, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "image/jpeg"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 402 payment_required where it is sold, 403 forbidden or \
                room_private, 404 not_found, 410 gone"),
    )
)]
pub async fn thumbnail(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    may_fetch_unsold(&signal, &headers, &room, &id).await?;
    let file = signal.files.kept(&room, &id).await?.file;
    let jpeg = signal.files.thumbnail(&file).await?;
    let kind = [(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, ranges::CACHE)];
    let mut response = (kind, jpeg).into_response();
    ranges::lock_down(response.headers_mut());
    Ok(response)
}
