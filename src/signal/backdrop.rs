//! The picture behind the tiles of a room's mix.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::InRoom;
use super::member::may_change;
use crate::control::Wish;
use crate::core::ids::RoomName;
use crate::core::mix::backdrop::{BYTES_MAX, Backdrop};
use crate::core::protocol::Code;

/// A little more than a picture may have, so that the refusal can say so.
pub const BODY_BYTES_MAX: usize = BYTES_MAX + 1;

/// Puts the picture there that the room had at another node.
pub(super) async fn resume(signal: &Signal, room: &RoomName) {
    let resumed = async {
        let backdrop = Backdrop::parse(&signal.files.backdrop(room).await?)?;
        signal.control.set_backdrop(room, Some(backdrop)).await
    };
    if let Err(refusal) = resumed.await {
        tracing::warn!(room = %room, %refusal, "the picture behind a mix did not come along");
        signal.control.wish(room, Wish::Backdrop(false));
    }
}

/// Put a picture behind the tiles of the mix
///
/// A PNG or JPEG of at most 1 MiB, shown over the room's `background`. Needs the room's `admin` grant,
/// in a token or in the room by the session.
#[utoipa::path(
    put, path = "/v1/rooms/{room}/backdrop", tag = "rooms",
    params(
        ("room" = RoomName, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    request_body(content(
        (Vec<u8> = "image/png"),
        (Vec<u8> = "image/jpeg"),
    )),
    responses(
        (status = 204, description = "It is there"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found, 413 too_large, \
                415 unsupported_media_type"),
    )
)]
pub async fn put(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    may_change(&signal, &headers, &room).await?;
    let words = format!("a background has at most {BYTES_MAX} bytes: make it smaller");
    let body = body.map_err(|_| Problem::new(Code::TooLarge, words))?;
    let backdrop = Backdrop::parse(&body)?;
    signal.control.room(&room).await?;
    signal.files.keep_backdrop(&room, body).await?;
    signal.control.set_backdrop(&room, Some(backdrop)).await?;
    signal.control.wish(&room, Wish::Backdrop(true));
    Ok(StatusCode::NO_CONTENT)
}

/// Take the picture behind the mix away
///
/// Needs the room's `admin` grant, in a token or in the room by the session.
#[utoipa::path(
    delete, path = "/v1/rooms/{room}/backdrop", tag = "rooms",
    params(
        ("room" = RoomName, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 204, description = "There is none any more"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn delete(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    may_change(&signal, &headers, &room).await?;
    signal.control.set_backdrop(&room, None).await?;
    signal.control.wish(&room, Wish::Backdrop(false));
    Ok(StatusCode::NO_CONTENT)
}
