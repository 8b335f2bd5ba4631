//! Live figures of a room.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;

use super::Signal;
use super::auth::Read;
use super::error::{Problem, ProblemBody};
use super::extract::InRoom;
use super::rooms::readable;
use crate::core::ids::RoomName;
use crate::core::stats::RoomStats;

/// See what each participant sends and gets
#[utoipa::path(
    get, path = "/v1/rooms/{room}/stats", tag = "rooms",
    params(("room" = RoomName, Path)),
    responses(
        (status = 200, body = RoomStats),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden or room_private, 404 not_found"),
    )
)]
pub async fn show(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<Json<RoomStats>, Problem> {
    readable(&signal, &headers, &room, Read::State).await?;
    Ok(Json(signal.control.stats(&room).await?))
}
