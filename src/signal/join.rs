//! Joins: an SDP offer in, an SDP answer out, and a `Location` by which the session is changed and left.
//!
//! Members come here by `POST …/participants`; WHIP and WHEP use the same [`admit`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Signal;
use super::auth::{Caller, SEAT, random_identity};
use super::error::{Problem, ProblemBody};
use super::extract::{From, InRoom, Offer, Params, SDP};
use super::home;
use super::paywall::{self, PaymentRequired, Verdict};
use crate::control::{JoinRequest, Joined, Role, Sent};
use crate::core::ids::{Identity, NameError, RoomName, SessionId};
use crate::core::protocol::Code;

/// Characters of the name that others see.
const NAME_CHARS_MAX: usize = 64;

/// The query of a join.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct JoinParams {
    /// Who a guest is; absent, one is made up. A token's `sub` stands above it, and this is only what others
    /// see.
    identity: Option<String>,
    /// What others see. A token's `name` stands above it; absent, the `identity` that was asked for.
    name: Option<String>,
    /// The session (32 hex digits, the last part of its `Location`) that this connection continues.
    resume: Option<String>,
    /// Set by nodes in a redirect: true where a room's node sends somebody to another node that is to serve
    /// it, false where another sends it to the room's node, which alone can.
    branch: Option<bool>,
}

/// Who wants in, from where, with what: the request of every join.
pub struct Arrival {
    pub room: RoomName,
    pub from: IpAddr,
    pub headers: HeaderMap,
    pub uri: Uri,
    pub params: JoinParams,
    pub offer: String,
}

impl FromRequest<Arc<Signal>> for Arrival {
    type Rejection = Problem;

    async fn from_request(request: Request, signal: &Arc<Signal>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let InRoom(room) = InRoom::from_request_parts(&mut parts, signal).await?;
        let Params(params) = Params::from_request_parts(&mut parts, signal).await?;
        let From(from) = From::from_request_parts(&mut parts, signal).await?;
        let (headers, uri) = (parts.headers.clone(), parts.uri.clone());
        let Offer(offer) = Offer::from_request(Request::from_parts(parts, body), signal).await?;
        Ok(Self { room, from, headers, uri, params, offer })
    }
}

/// How every join is answered, for the API's description.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only describes: a join answers with a response, or a problem")]
pub enum JoinAnswers {
    #[response(status = 201, description = "SDP answer", content_type = "application/sdp",
        headers(("Location", description = "The session: PATCH and DELETE it"),
                ("ETag", description = "The ICE session, for If-Match"),
                ("Link", description = "STUN and TURN servers, where the node knows some"),
                ("Antiphon-Seat", description = "To show with `resume`, should the room move"),
                ("Antiphon-Nodes", description = "URLs of the cluster's other nodes, by commas")))]
    Welcome(String),
    #[response(status = 307, description = "The room is at another node of the cluster",
        headers(("Location", description = "The same request there")))]
    Elsewhere,
    #[response(
        status = 402,
        content_type = "application/problem+json",
        description = "payment_required, with an invoice",
        headers(("WWW-Authenticate", description = "L402, for programs"))
    )]
    Unpaid(PaymentRequired<'static>),
    #[response(
        status = "4XX",
        content_type = "application/problem+json",
        description = "401 unauthorized, 403 forbidden or room_private, 404 not_found, 409 room_full, \
        413 too_large, 415 unsupported_media_type, 422 bad_offer, 423 room_locked, 429 rate_limited"
    )]
    Refused(ProblemBody<'static>),
    #[response(
        status = 503,
        content_type = "application/problem+json",
        description = "node_full, draining, unavailable"
    )]
    Unavailable(ProblemBody<'static>),
}

/// Join a room
///
/// Sends what the offer offers to send; every `recvonly` m-line is a slot that receives. The room's state and
/// commands ride the data channel `control`.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/participants", tag = "join",
    params(("room" = RoomName, Path), JoinParams),
    request_body(content = String, content_type = "application/sdp", description = "SDP offer"),
    responses(JoinAnswers)
)]
pub async fn join(State(signal): State<Arc<Signal>>, arrival: Arrival) -> Result<Response, Problem> {
    let caller = signal.authority.caller(&arrival.headers);
    admit(&signal, caller, arrival, Role::Member).await
}

/// Lets somebody in, in the role for which it came; asks for a ticket where the room needs one.
pub async fn admit(
    signal: &Signal,
    caller: Result<Caller, Problem>,
    arrival: Arrival,
    role: Role,
) -> Result<Response, Problem> {
    let (room, uri) = (arrival.room.clone(), arrival.uri.clone());
    let resume = arrival.params.resume.as_deref().and_then(SessionId::parse);
    let caller = match paywall::pass(signal, caller, &arrival.headers, &room, arrival.from, resume).await? {
        Verdict::In(caller) => caller,
        Verdict::Pay(answer) => return Ok(*answer),
    };
    let request = join_request(signal, caller, arrival, role)?;
    match signal.control.join(request).await {
        Ok(mut joined) => {
            let seat = joined.seat.take().and_then(|seat| signal.authority.signed_seat(seat));
            let at = if joined.in_branch { signal.control.own_url() } else { String::new() };
            let mut response = welcome(&at, &room, joined);
            if let Some(seat) = seat {
                response.headers_mut().insert(SEAT, seat);
            }
            if let Some(nodes) = home::nodes(signal) {
                response.headers_mut().insert(home::NODES, nodes);
            }
            signal.ice_servers.advertise(response.headers_mut());
            Ok(response)
        }
        Err(turned) => home::turned(turned, &uri),
    }
}

fn join_request(
    signal: &Signal,
    caller: Caller,
    arrival: Arrival,
    role: Role,
) -> Result<JoinRequest, Problem> {
    let Arrival { room, from, headers, params, offer, .. } = arrival;
    let grant = signal.authority.grant(&caller, &room)?;
    let missing = match role {
        Role::Publisher if !grant.publish => Some("publish"),
        Role::Viewer { .. } if !grant.subscribe => Some("subscribe"),
        _ => None,
    };
    if let Some(missing) = missing {
        return Err(Problem::new(Code::Forbidden, format!("the token lacks the `{missing}` grant")));
    }
    let has_token = matches!(caller, Caller::Holder(_));
    let (identity, name) = introduce(caller, params.identity, params.name)?;
    let resume = params.resume.map(|text| {
        SessionId::parse(&text)
            .ok_or_else(|| Problem::new(Code::Malformed, "`resume` is no session: it has 32 hex digits"))
    });
    Ok(JoinRequest {
        room,
        identity,
        name,
        grant,
        role,
        offer,
        resume: resume.transpose()?,
        seat: signal.authority.seat(&headers),
        has_token,
        may_create: signal.authority.admits_guests() || grant.publish || grant.admin,
        sent: params.branch.map(|to_branch| if to_branch { Sent::ToBranch } else { Sent::ToHome }),
        from,
    })
}

/// Who the caller is, and what others see. A token's identity is never another's; the name may be chosen.
pub fn introduce(
    caller: Caller,
    chosen: Option<String>,
    name: Option<String>,
) -> Result<(Identity, String), Problem> {
    let (identity, name) = match caller {
        Caller::Holder(token) => (token.identity, token.name.or(name).or(chosen)),
        Caller::Guest => (guest_identity(chosen.as_deref())?, name),
    };
    let name = display_name(name, &identity)?;
    Ok((identity, name))
}

fn guest_identity(chosen: Option<&str>) -> Result<Identity, NameError> {
    chosen.map_or_else(|| Ok(random_identity("guest")), Identity::parse)
}

fn display_name(chosen: Option<String>, identity: &Identity) -> Result<String, Problem> {
    let chosen = chosen.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let name = chosen.unwrap_or_else(|| identity.as_str().to_owned());
    if name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        let words = format!("a name has up to {NAME_CHARS_MAX} characters and no control characters");
        return Err(Problem::new(Code::Malformed, words));
    }
    Ok(name)
}

/// 201 as RFC 9725 §4.2 wants it. `at` is this node's URL where another would be asked for the room.
fn welcome(at: &str, room: &RoomName, joined: Joined) -> Response {
    let location = format!("{at}/v1/rooms/{room}/sessions/{}", joined.session.reveal());
    let headers = [(CONTENT_TYPE, SDP.to_owned()), (LOCATION, location), (ETAG, joined.etag)];
    (StatusCode::CREATED, headers, joined.answer).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{RoomGrant, Token};

    #[test]
    fn an_answer_names_its_session_and_its_ice_session() {
        let room = RoomName::parse("abc").unwrap();
        let (answer, etag) = ("v=0\r\n".into(), "\"e1\"".into());
        let joined = Joined { session: SessionId(7), answer, etag, seat: None, in_branch: false };
        let response = welcome("", &room, joined);
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/sdp");
        assert_eq!(response.headers()[ETAG], "\"e1\"");
        assert_eq!(response.headers()[LOCATION], "/v1/rooms/abc/sessions/00000000000000000000000000000007");
    }

    #[test]
    fn a_name_is_trimmed_bounded_and_never_empty() {
        let ann = Identity::parse("ann").unwrap();
        assert_eq!(display_name(Some("  Ann B. ".into()), &ann).unwrap(), "Ann B.");
        assert_eq!(display_name(Some("  ".into()), &ann).unwrap(), "ann");
        assert_eq!(display_name(None, &ann).unwrap(), "ann");
        assert!(display_name(Some("x".repeat(65)), &ann).is_err());
        assert!(display_name(Some("a\u{7}b".into()), &ann).is_err());
    }

    #[test]
    fn an_owner_keeps_the_identity_of_its_token_under_the_name_that_was_typed() {
        let room = RoomGrant::owner(&RoomName::parse("abc").unwrap());
        let owner = |name: Option<&str>| {
            let identity = Identity::parse("owner-7kq2mv").unwrap();
            Caller::Holder(Token { identity, name: name.map(str::to_owned), room: room.clone() })
        };
        let shown = |caller, identity: Option<&str>, name: Option<&str>| {
            let (who, shown) =
                introduce(caller, identity.map(str::to_owned), name.map(str::to_owned)).unwrap();
            (who.as_str().to_owned(), shown)
        };
        let named = |name: &str| ("owner-7kq2mv".to_owned(), name.to_owned());
        assert_eq!(shown(owner(None), Some("ann"), Some("Ann B.")), named("Ann B."));
        assert_eq!(shown(owner(None), Some("Ann"), None), named("Ann"));
        assert_eq!(shown(owner(None), None, None), named("owner-7kq2mv"));
        assert_eq!(shown(owner(Some("The chair")), Some("Ann"), Some("Ann B.")), named("The chair"));
        assert_eq!(shown(Caller::Guest, Some("ann"), Some("Ann")), ("ann".to_owned(), "Ann".to_owned()));
    }

    #[test]
    fn a_guest_without_a_name_gets_one_of_its_own() {
        let first = guest_identity(None).unwrap();
        assert!(first.as_str().starts_with("guest-"));
        assert_ne!(first, guest_identity(None).unwrap());
        assert!(guest_identity(Some("")).is_err());
    }
}
