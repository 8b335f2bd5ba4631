//! Pushes of a room's programme to other services.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::{self, InRoom, OfRestream};
use super::member::may_change;
use crate::core::ids::RoomName;
use crate::stream::RestreamState;

/// The body of `POST /v1/rooms/{room}/restreams`.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestreamWish {
    /// `rtmp://host[:port]/app/key`, or `rtmps://…`. The key is shown nowhere.
    url: String,
}

/// Push a room's programme to a service
///
/// By RTMP: H.264 and AAC, with a key frame every two seconds. It is tried again when it ends. Needs the
/// room's `admin` grant.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/restreams", tag = "streams",
    params(("room" = RoomName, Path)),
    request_body = RestreamWish,
    responses(
        (status = 201, body = RestreamState, headers(("Location", description = "The push in this API"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden (also for a private address), \
                404 not_found, 409 end_to_end_encrypted, 413 quota_exceeded"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "unavailable: streaming is off or nothing can be mixed; node_full"),
    )
)]
pub async fn start(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
    extract::Json(wish): extract::Json<RestreamWish>,
) -> Result<Response, Problem> {
    may_change(&signal, &headers, &room).await?;
    let state = signal.streams.push(&room, &wish.url).await?;
    let location = [(LOCATION, format!("/v1/rooms/{room}/restreams/{}", state.id))];
    Ok((StatusCode::CREATED, location, Json(state)).into_response())
}

/// List a room's pushes
///
/// Needs the room's `admin` grant.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/restreams", tag = "streams",
    params(("room" = RoomName, Path)),
    responses(
        (status = 200, body = Vec<RestreamState>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden"),
    )
)]
pub async fn list(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<Json<Vec<RestreamState>>, Problem> {
    may_change(&signal, &headers, &room).await?;
    Ok(Json(signal.streams.pushes(&room)))
}

/// End a push
///
/// Needs the room's `admin` grant.
#[utoipa::path(
    delete, path = "/v1/rooms/{room}/restreams/{restream}", tag = "streams",
    params(("room" = RoomName, Path), ("restream" = String, Path)),
    responses(
        (status = 204, description = "It ended"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn stop(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfRestream(id): OfRestream,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    may_change(&signal, &headers, &room).await?;
    signal.streams.end_push(&room, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
