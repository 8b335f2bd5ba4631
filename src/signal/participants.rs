//! The people of a room: list, remove, mute.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::Signal;
use super::auth::Read;
use super::error::{Problem, ProblemBody};
use super::extract::{self, InRoom, OfIdentity, Params};
use super::rooms::readable;
use crate::core::ids::{Identity, RoomName};
use crate::core::protocol::{Code, ParticipantState, Source};

/// Who mutes where nobody showed a token (`--dev`).
const NOBODY: &str = "owner";

/// The body of a mute.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MuteWish {
    /// Absent: all of its audio.
    source: Option<Source>,
}

/// The query of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// With `true`, nobody is in a room that does not exist: for a page that asks before the first join, and
    /// whose browser would report a 404 as an error.
    #[serde(default)]
    or_empty: bool,
}

/// List participants
#[utoipa::path(
    get, path = "/v1/rooms/{room}/participants", tag = "participants",
    params(("room" = RoomName, Path), ListParams),
    responses(
        (status = 200, body = Vec<ParticipantState>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden or room_private, 404 not_found"),
    )
)]
pub async fn list(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(params): Params<ListParams>,
    headers: HeaderMap,
) -> Result<Json<Vec<ParticipantState>>, Problem> {
    readable(&signal, &headers, &room, Read::State).await?;
    match signal.control.participants(&room).await {
        Err(refusal) if params.or_empty && refusal.code == Code::NotFound => Ok(Json(Vec::new())),
        listed => Ok(Json(listed?)),
    }
}

/// Remove a participant
///
/// Needs the room's `admin` grant.
#[utoipa::path(
    delete, path = "/v1/rooms/{room}/participants/{identity}", tag = "participants",
    params(("room" = RoomName, Path), ("identity" = Identity, Path)),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn remove(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfIdentity(identity): OfIdentity,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let caller = signal.authority.caller(&headers)?;
    let by = match signal.authority.may_administer(&caller, &room)? {
        Some(by) => by,
        None => Identity::parse(NOBODY)?,
    };
    signal.control.remove_participant(&room, &identity, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mute a participant
///
/// It may unmute itself. Needs the room's `admin` grant.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/participants/{identity}/mute", tag = "participants",
    params(("room" = RoomName, Path), ("identity" = Identity, Path)),
    request_body = Option<MuteWish>,
    responses(
        (status = 204, description = "It is muted"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn mute(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfIdentity(identity): OfIdentity,
    headers: HeaderMap,
    extract::Json(wish): extract::Json<MuteWish>,
) -> Result<StatusCode, Problem> {
    let caller = signal.authority.caller(&headers)?;
    let by = match signal.authority.may_administer(&caller, &room)? {
        Some(by) => by,
        None => Identity::parse(NOBODY)?,
    };
    signal.control.mute_participant(&room, &identity, wish.source, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}
