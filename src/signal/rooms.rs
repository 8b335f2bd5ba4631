//! Rooms: make, list, look at, change, close.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{HOST, LOCATION};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Signal;
use super::auth::{Caller, Read};
use super::error::{Problem, ProblemBody};
use super::extract::{self, InRoom};
use super::home;
use super::member::may_change;
use super::paywall::may_look_inside;
use crate::control::NewRoom;
use crate::core::ids::RoomName;
use crate::core::ledger::Offer;
use crate::core::protocol::{Access, Code, Mode, RoomChange, RoomState};
use crate::core::recording::ConsentRule;
use crate::core::stats::RoomSummary;
use crate::token::EVERY_ROOM;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The body of `POST /v1/rooms`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RoomWish {
    /// Absent: a unique, sayable one is generated.
    #[schema(value_type = Option<String>, min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    name: Option<String>,
    mode: Mode,
    access: Access,
    /// New people wait until an admin admits them.
    lobby: bool,
    /// Its people encrypt what they send with keys of their own, such as by encoded transforms: the server
    /// forwards it, and refuses to mix. The web client does not do so.
    e2ee: bool,
    /// Absent: the node's limit.
    participants_max: Option<u32>,
    /// Whether people are asked before they are recorded. Absent: as the node has it.
    recording_consent: Option<ConsentRule>,
}

/// A change of a room's settings; absent fields stay.
#[derive(Debug, utoipa::ToSchema)]
pub struct RoomPatch {
    #[schema(inline)]
    change: RoomChange,
    /// What the room costs from now on; `null` makes it free.
    price: Option<Option<Offer>>,
}

impl RoomPatch {
    /// The price stands beside the fields of [`RoomChange`], which refuses what it does not know.
    fn read(mut fields: serde_json::Map<String, serde_json::Value>) -> Result<Self, Problem> {
        let unfit = |error: serde_json::Error| {
            Problem::new(Code::Malformed, format!("the JSON body does not fit: {error}"))
        };
        let price = fields.remove("price").map(serde_json::from_value).transpose().map_err(unfit)?;
        let change = serde_json::from_value(serde_json::Value::Object(fields)).map_err(unfit)?;
        Ok(Self { change, price })
    }
}

/// A room, and what it costs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Priced<T> {
    #[serde(flatten)]
    room: T,
    /// Absent, it is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Offer>,
}

/// A room that was made.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct MadeRoom {
    name: RoomName,
    /// The link to share.
    url: String,
    /// A JWT with every grant in this room, for 24 hours.
    owner_token: String,
}

/// Make a room
///
/// With a token: it needs the `admin` grant for this name, or for `*`. Without: where guests are admitted.
#[utoipa::path(
    post, path = "/v1/rooms", tag = "rooms",
    request_body = Option<RoomWish>,
    responses(
        (status = 201, body = MadeRoom, headers(("Location", description = "The room in this API"))),
        (status = 307, description = "To be made at another node of the cluster"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 409 room_exists or end_to_end_encrypted"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "node_full, draining, unavailable"),
    )
)]
pub async fn create(
    State(signal): State<Arc<Signal>>,
    uri: Uri,
    headers: HeaderMap,
    extract::Json(wish): extract::Json<RoomWish>,
) -> Result<Response, Problem> {
    let name = wish.name.as_deref().map(RoomName::parse).transpose()?;
    let caller = signal.authority.caller(&headers)?;
    signal.authority.may_create(&caller, name.as_ref())?;
    let RoomWish { mode, access, lobby, e2ee, participants_max, recording_consent, .. } = wish;
    let new = NewRoom {
        name,
        mode,
        access,
        lobby,
        e2ee,
        participants_max,
        recording_consent,
        first_is_admin: false,
    };
    let name = match signal.control.create_room(new).await {
        Ok(room) => room.name,
        Err(turned) => return home::turned(turned, &uri),
    };
    let made = MadeRoom {
        url: format!("{}/r/{name}", base_url(&signal, &uri, &headers)),
        owner_token: signal.authority.owner_token(&name)?,
        name,
    };
    let location = [(LOCATION, format!("/v1/rooms/{}", made.name))];
    Ok((StatusCode::CREATED, location, Json(made)).into_response())
}

/// List the rooms of this node
///
/// Needs the `admin` grant for `*`; under `--dev` nothing.
#[utoipa::path(
    get, path = "/v1/rooms", tag = "rooms",
    responses(
        (status = 200, body = Vec<RoomSummary>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden"),
    )
)]
pub async fn list(
    State(signal): State<Arc<Signal>>,
    headers: HeaderMap,
) -> Result<Json<Vec<RoomSummary>>, Problem> {
    match signal.authority.caller(&headers)? {
        Caller::Guest if signal.authority.is_dev() => (),
        Caller::Guest => return Err(Problem::new(Code::Unauthorized, "a token is needed to list rooms")),
        Caller::Holder(token) if token.room.room == EVERY_ROOM && token.room.admin => (),
        Caller::Holder(_) => {
            return Err(Problem::new(Code::Forbidden, "listing rooms needs the `admin` grant for `*`"));
        }
    }
    Ok(Json(signal.control.rooms().await?))
}

/// Look at a room
#[utoipa::path(
    get, path = "/v1/rooms/{room}", tag = "rooms",
    params(("room" = RoomName, Path)),
    responses(
        (status = 200, body = Priced<RoomSummary>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden or room_private, 404 not_found"),
    )
)]
pub async fn show(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<Json<Priced<RoomSummary>>, Problem> {
    visible(&signal, &headers, &room, Read::State).await?;
    let summary = signal.control.room(&room).await?;
    let price = signal.billing.offer(room.clone()).await?;
    Ok(Json(Priced { room: summary, price }))
}

/// Change a room
///
/// What is absent stays. Needs the room's `admin` grant, in a token or in the room by the session.
#[utoipa::path(
    patch, path = "/v1/rooms/{room}", tag = "rooms",
    params(
        ("room" = RoomName, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    request_body = RoomPatch,
    responses(
        (status = 200, body = Priced<RoomState>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 401 unauthorized, 403 forbidden, 404 not_found, \
                409 end_to_end_encrypted"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "unavailable: this mode cannot be had now"),
    )
)]
pub async fn change(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
    extract::Json(patch): extract::Json<serde_json::Map<String, serde_json::Value>>,
) -> Result<Json<Priced<RoomState>>, Problem> {
    may_change(&signal, &headers, &room).await?;
    let RoomPatch { change, price } = RoomPatch::read(patch)?;
    // What a room costs is said by a token alone: who came first may run the room, not sell it.
    let seller = match price {
        Some(_) => signal.authority.may_administer(&signal.authority.caller(&headers)?, &room)?,
        None => None,
    };
    let state = signal.control.change_room(&room, change).await?;
    if let Some(price) = price {
        signal.billing.set_offer(room.clone(), price, seller).await?;
    }
    let price = signal.billing.offer(room.clone()).await?;
    Ok(Json(Priced { room: state, price }))
}

/// Close a room
///
/// Everyone in it leaves; its history stays. Needs the room's `admin` grant, in a token or in the room by the
/// session.
#[utoipa::path(
    delete, path = "/v1/rooms/{room}", tag = "rooms",
    params(
        ("room" = RoomName, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 204, description = "The room is closed"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn close(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    may_change(&signal, &headers, &room).await?;
    signal.control.close_room(&room).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// May this request read what is in the room? As [`visible`], and of a room that costs money only who has
/// paid.
pub async fn readable(
    signal: &Signal,
    headers: &HeaderMap,
    room: &RoomName,
    what: Read,
) -> Result<(), Problem> {
    visible(signal, headers, room, what).await?;
    may_look_inside(signal, &signal.authority.caller(headers)?, room).await
}

/// May this request read about the room? Guests read of open rooms alone; a room that is not open now has no
/// rule of its own.
async fn visible(signal: &Signal, headers: &HeaderMap, room: &RoomName, what: Read) -> Result<(), Problem> {
    let caller = signal.authority.caller(headers)?;
    signal.authority.may_read(&caller, room, what)?;
    if caller != Caller::Guest || signal.authority.is_dev() {
        return Ok(());
    }
    match signal.control.room(room).await {
        Ok(summary) if summary.state.access == Access::Private => {
            Err(Problem::new(Code::RoomPrivate, "the room is private: a token for it is needed"))
        }
        Ok(_) => Ok(()),
        Err(refusal) if refusal.code == Code::NotFound => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Where people reach this node: as configured, else as this very request did.
fn base_url(signal: &Signal, uri: &Uri, headers: &HeaderMap) -> String {
    if let Some(url) = &signal.public_url {
        return url.clone();
    }
    let forwarded = headers.get(X_FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    let scheme = match forwarded {
        Some("https") => "https",
        Some("http") => "http",
        _ if signal.tls => "https",
        _ => "http",
    };
    // HTTP/2 names the host in its `:authority`, HTTP/1.1 in `Host`.
    let host = uri.authority().map(|authority| authority.as_str());
    let host =
        host.or_else(|| headers.get(HOST).and_then(|value| value.to_str().ok())).unwrap_or("localhost");
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    format!("{scheme}://{}", if plain { host } else { "localhost" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::signal::tests::signal;

    fn url(config: &Config, headers: &[(HeaderName, &str)]) -> String {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        base_url(&signal(config), &Uri::from_static("/v1/rooms"), &headers)
    }

    #[test]
    fn the_link_is_as_configured_else_as_the_request_came() {
        let mut config = Config::default();
        let host = (HOST, "meet.example.org:7880");
        assert_eq!(url(&config, std::slice::from_ref(&host)), "http://meet.example.org:7880");
        assert_eq!(
            url(&config, &[host.clone(), (X_FORWARDED_PROTO, "https")]),
            "https://meet.example.org:7880"
        );
        assert_eq!(url(&config, &[(HOST, "a/<script>")]), "http://localhost");
        config.http.public_url = Some("https://rooms.example.org/".into());
        assert_eq!(url(&config, &[host]), "https://rooms.example.org");
    }
}
