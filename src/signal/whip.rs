//! WHIP publishers (RFC 9725) and WHEP viewers (draft-ietf-wish-whep): a join in a narrower role.
//!
//! The session's `PATCH` and `DELETE` are those of every join, see `sessions`. Other methods are answered
//! 405, as RFC 9725 §4.1 reserves them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::{From, InRoom, Offer, Params};
use super::join::{Arrival, JoinParams, admit};
use crate::control::Role;
use crate::core::ids::{Identity, RoomName};

/// The query of a WHEP viewer, besides that of a join.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhepParams {
    /// Whose tracks to watch; absent, the room's programme.
    participant: Option<String>,
}

/// Publish by WHIP
///
/// For OBS, GStreamer and the like. The bearer token (OBS: the stream key) is a JWT; under `--dev` it may be
/// anything, or absent.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/whip", tag = "join",
    params(("room" = RoomName, Path), JoinParams),
    request_body(content = String, content_type = "application/sdp", description = "SDP offer, sendonly"),
    responses(
        (status = 201, body = String, content_type = "application/sdp", description = "SDP answer",
            headers(("Location", description = "The session: PATCH and DELETE it"),
                    ("ETag", description = "The ICE session, for If-Match"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "As for a join"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "node_full, draining, unavailable"),
    )
)]
pub async fn publish(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(params): Params<JoinParams>,
    From(from): From,
    headers: HeaderMap,
    Offer(offer): Offer,
) -> Result<Response, Problem> {
    let caller = signal.authority.streamer(&headers)?;
    admit(&signal, Arrival { room, caller, from, params, offer }, Role::Publisher).await
}

/// Watch by WHEP
///
/// The room's programme (the active speaker), or one participant's tracks. With several `recvonly` video
/// lines and no `participant`: as many participants as there are lines.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/whep", tag = "join",
    params(("room" = RoomName, Path), WhepParams, JoinParams),
    request_body(content = String, content_type = "application/sdp", description = "SDP offer, recvonly"),
    responses(
        (status = 201, body = String, content_type = "application/sdp", description = "SDP answer",
            headers(("Location", description = "The session: PATCH and DELETE it"),
                    ("ETag", description = "The ICE session, for If-Match"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "As for a join"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "node_full, draining, unavailable"),
    )
)]
pub async fn view(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(whep): Params<WhepParams>,
    Params(params): Params<JoinParams>,
    From(from): From,
    headers: HeaderMap,
    Offer(offer): Offer,
) -> Result<Response, Problem> {
    let caller = signal.authority.streamer(&headers)?;
    let of = whep.participant.as_deref().map(Identity::parse).transpose()?;
    admit(&signal, Arrival { room, caller, from, params, offer }, Role::Viewer { of }).await
}
