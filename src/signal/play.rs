//! Files that are played in a room: begun, paused, sought in, ended. For the room's owner and admins alone.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::{self, InRoom, OfPlayer};
use super::home;
use super::member::may_change;
use crate::core::ids::RoomName;
use crate::feed::{PlayWish, PlayerChange, PlayerState};

/// Play a file to the room
///
/// A file of sound or video that is kept in the room becomes a participant with a screen and its sound. What
/// browsers decode goes on as it is, all else is coded anew. It leaves by itself at the end. Needs the room's
/// `admin` grant.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/play", tag = "play",
    params(
        ("room" = RoomName, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    request_body = PlayWish,
    responses(
        (status = 201, body = PlayerState, headers(("Location", description = "The player in this API"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found, \
                409 end_to_end_encrypted, 410 gone, 413 quota_exceeded, 415 unsupported_media_type"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json",
            description = "503 unavailable: nothing is played here; node_full; 507 storage_full"),
    )
)]
pub async fn start(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    uri: Uri,
    headers: HeaderMap,
    extract::Json(wish): extract::Json<PlayWish>,
) -> Result<Response, Problem> {
    may_change(&signal, &headers, &room).await?;
    match signal.feeds.play(&room, wish).await {
        Ok(state) => {
            let location = [(LOCATION, format!("/v1/rooms/{room}/play/{}", state.id))];
            Ok((StatusCode::CREATED, location, Json(state)).into_response())
        }
        Err(turned) => home::turned(turned, &uri),
    }
}

/// List what is played in a room
///
/// Needs the room's `admin` grant.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/play", tag = "play",
    params(
        ("room" = RoomName, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = Vec<PlayerState>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden"),
    )
)]
pub async fn list(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<Json<Vec<PlayerState>>, Problem> {
    may_change(&signal, &headers, &room).await?;
    Ok(Json(signal.feeds.players(&room)))
}

/// Pause a player, let it go on, or seek
///
/// Answered when it is done. Needs the room's `admin` grant.
#[utoipa::path(
    patch, path = "/v1/rooms/{room}/play/{player}", tag = "play",
    params(
        ("room" = RoomName, Path), ("player" = String, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    request_body = PlayerChange,
    responses(
        (status = 200, body = PlayerState),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, also for a place beyond the end, 401 unauthorized, 403 forbidden, \
                404 not_found"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "unavailable: it does not answer"),
    )
)]
pub async fn change(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfPlayer(id): OfPlayer,
    headers: HeaderMap,
    extract::Json(change): extract::Json<PlayerChange>,
) -> Result<Json<PlayerState>, Problem> {
    may_change(&signal, &headers, &room).await?;
    Ok(Json(signal.feeds.change(&room, &id, change).await?))
}

/// End a player
///
/// Needs the room's `admin` grant.
#[utoipa::path(
    delete, path = "/v1/rooms/{room}/play/{player}", tag = "play",
    params(
        ("room" = RoomName, Path), ("player" = String, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 204, description = "It left"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn stop(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfPlayer(id): OfPlayer,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    may_change(&signal, &headers, &room).await?;
    signal.feeds.stop(&room, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
