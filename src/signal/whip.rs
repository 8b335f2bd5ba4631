//! WHIP publishers (RFC 9725) and WHEP viewers (draft-ietf-wish-whep): a join in a narrower role.
//!
//! The session's `PATCH` and `DELETE` are those of every join, see `sessions`. Other methods are answered
//! 405, as RFC 9725 §4.1 reserves them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::Signal;
use super::error::Problem;
use super::extract::Params;
use super::join::{Arrival, JoinAnswers, JoinParams, admit};
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
    responses(JoinAnswers)
)]
pub async fn publish(State(signal): State<Arc<Signal>>, arrival: Arrival) -> Result<Response, Problem> {
    let caller = signal.authority.streamer(&arrival.headers);
    admit(&signal, caller, arrival, Role::Publisher).await
}

/// Watch by WHEP
///
/// The room's programme (the active speaker), or one participant's tracks. With several `recvonly` video
/// lines and no `participant`: as many participants as there are lines.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/whep", tag = "join",
    params(("room" = RoomName, Path), WhepParams, JoinParams),
    request_body(content = String, content_type = "application/sdp", description = "SDP offer, recvonly"),
    responses(JoinAnswers)
)]
pub async fn view(
    State(signal): State<Arc<Signal>>,
    Params(whep): Params<WhepParams>,
    arrival: Arrival,
) -> Result<Response, Problem> {
    let caller = signal.authority.streamer(&arrival.headers);
    let of = whep.participant.as_deref().map(Identity::parse).transpose()?;
    admit(&signal, caller, arrival, Role::Viewer { of }).await
}
