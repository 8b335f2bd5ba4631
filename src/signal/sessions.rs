//! The `Location` of a join: trickle ICE, ICE restart, leave (RFC 9725 §4.3, §4.4).
//!
//! The session's id is its shard and 120 random bits that only its client was told: holding it is the right
//! to use it, so no token is asked for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::{FRAGMENT, Fragment, InRoom, OfSession};
use crate::control::Patched;
use crate::core::ids::RoomName;
use crate::core::protocol::Code;

/// Trickle candidates, or restart ICE
///
/// `If-Match` is a must: the session's `ETag` to trickle, `*` to restart.
#[utoipa::path(
    patch, path = "/v1/rooms/{room}/sessions/{session}", tag = "join",
    params(
        ("room" = RoomName, Path),
        ("session" = String, Path, description = "As in the join's Location"),
        ("If-Match" = String, Header, description = "The ICE session's ETag, or * for a restart"),
    ),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
    responses(
        (status = 200, body = String, content_type = "application/trickle-ice-sdpfrag",
            description = "ICE was restarted: our fragment",
            headers(("ETag", description = "The new ICE session"))),
        (status = 204, description = "The candidates were taken"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "404 not_found, 412 precondition_failed for an older ICE session, 415, \
            428 precondition_required without If-Match"),
    )
)]
pub async fn patch(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfSession(session): OfSession,
    headers: HeaderMap,
    Fragment(fragment): Fragment,
) -> Result<Response, Problem> {
    let if_match = headers.get(IF_MATCH).and_then(|value| value.to_str().ok()).map(wanted_tag);
    if if_match.is_none() {
        let words = "send `If-Match`: the session's `ETag` to trickle, `*` to restart ICE";
        return Err(Problem::new(Code::PreconditionRequired, words));
    }
    Ok(answer(signal.control.patch_session(&room, session, if_match, fragment).await?))
}

/// Any entity tag is `*`; clients that put it into quotes, as tags are, mean the same.
fn wanted_tag(header: &str) -> String {
    match header.trim() {
        "\"*\"" => "*".to_owned(),
        tag => tag.to_owned(),
    }
}

fn answer(patched: Patched) -> Response {
    match patched {
        Patched::Trickled => StatusCode::NO_CONTENT.into_response(),
        Patched::Restarted { fragment, etag } => {
            ([(CONTENT_TYPE, FRAGMENT.to_owned()), (ETAG, etag)], fragment).into_response()
        }
    }
}

/// Leave
#[utoipa::path(
    delete, path = "/v1/rooms/{room}/sessions/{session}", tag = "join",
    params(
        ("room" = RoomName, Path),
        ("session" = String, Path, description = "As in the join's Location"),
    ),
    responses(
        (status = 200, description = "The session has ended"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json",
            description = "not_found"),
    )
)]
pub async fn leave(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfSession(session): OfSession,
) -> Result<StatusCode, Problem> {
    signal.control.leave(&room, session).await?;
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_ice_session_may_be_named_with_quotes_or_without() {
        assert_eq!(wanted_tag("\"*\""), "*");
        assert_eq!(wanted_tag(" * "), "*");
        assert_eq!(wanted_tag("\"e1\""), "\"e1\"");
    }

    #[test]
    fn a_trickle_has_no_answer_and_a_restart_has_one() {
        assert_eq!(answer(Patched::Trickled).status(), 204);
        let restarted = Patched::Restarted { fragment: "a=ice-ufrag:x\r\n".into(), etag: "\"e2\"".into() };
        let response = answer(restarted);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], FRAGMENT);
        assert_eq!(response.headers()[ETAG], "\"e2\"");
    }
}
