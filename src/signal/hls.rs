//! A room's programme for ordinary players: HLS (RFC 8216bis), with low latency.
//!
//! Whoever may watch gets the multivariant playlist; the addresses in it have a pass in their path, so that
//! players need send no header. Parts never change and may be kept; playlists may not.

mod pass;

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use metrics::counter;
use serde::{Deserialize, Serialize};

use super::Signal;
use super::auth::{Caller, Read};
use super::error::{Problem, ProblemBody};
use super::extract::{InRoom, OfStream, Params};
use super::member::{may_change, member};
use super::rooms::readable;
use crate::core::ids::RoomName;
use crate::core::participant::Member;
use crate::core::protocol::Code;
use crate::core::stream::Track;
use crate::core::stream::reload::Wish;
use crate::stream::{Live, LiveState};
pub use pass::{Holder, Passes};

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
/// Nothing of a stream is kept here for longer than about that.
const FOR_A_WHILE: &str = "max-age=60, immutable";
const NOT_AT_ALL: &str = "no-store";

/// A room's stream.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct HlsState {
    state: LiveState,
    /// Where players begin: a path on this server.
    url: String,
    /// Milliseconds since the Unix epoch.
    started_at_ms: u64,
}

/// How a player shows that it may watch.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WatchParams {
    /// A token with the room's `subscribe` grant, for players that send no headers.
    token: Option<String>,
}

/// What a player wants of a media playlist (RFC 8216bis §6.2.5).
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReloadParams {
    /// Answer when the playlist has this segment,
    #[serde(rename = "_HLS_msn")]
    number: Option<u64>,
    /// or this part of it.
    #[serde(rename = "_HLS_part")]
    part: Option<u64>,
    /// `YES` or `v2`: leave out what is old.
    #[serde(rename = "_HLS_skip")]
    skip: Option<String>,
}

/// Start streaming a room by HLS
///
/// The room is mixed for it, whatever its mode. Needs the room's `admin` grant.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/hls", tag = "streams",
    params(("room" = RoomName, Path)),
    responses(
        (status = 201, body = HlsState, description = "It begins"),
        (status = 200, body = HlsState, description = "It was streamed already"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found, 409 end_to_end_encrypted"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "unavailable: streaming is off or nothing can be mixed; node_full"),
    )
)]
pub async fn start(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    may_change(&signal, &headers, &room).await?;
    let (live, is_new) = signal.streams.start_hls(&room).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(HlsState::of(&room, &live))).into_response())
}

/// Look at a room's HLS stream
#[utoipa::path(
    get, path = "/v1/rooms/{room}/hls", tag = "streams",
    params(("room" = RoomName, Path), WatchParams),
    responses(
        (status = 200, body = HlsState),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden or room_private, 404 not_found"),
    )
)]
pub async fn show(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(params): Params<WatchParams>,
    headers: HeaderMap,
) -> Result<Json<HlsState>, Problem> {
    may_watch(&signal, &headers, &room, &params).await?;
    let live = live(&signal, &room)?;
    Ok(Json(HlsState::of(&room, &live)))
}

/// Stop streaming a room by HLS
///
/// Players get to its end. Needs the room's `admin` grant.
#[utoipa::path(
    delete, path = "/v1/rooms/{room}/hls", tag = "streams",
    params(("room" = RoomName, Path)),
    responses(
        (status = 204, description = "It ended"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden, 404 not_found"),
    )
)]
pub async fn stop(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    may_change(&signal, &headers, &room).await?;
    signal.streams.stop_hls(&room).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Play a room's HLS stream
///
/// The multivariant playlist, once there is something to play. The addresses in it hold for half a day, for
/// whoever has them.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/hls/index.m3u8", tag = "streams",
    params(("room" = RoomName, Path), WatchParams,
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant")),
    responses(
        (status = 200, body = String, content_type = "application/vnd.apple.mpegurl"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden or room_private, 404 not_found"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "unavailable: nothing came yet"),
    )
)]
pub async fn multivariant(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    Params(params): Params<WatchParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let holder = may_watch(&signal, &headers, &room, &params).await?;
    let live = live(&signal, &room)?;
    let place = format!("{}/", signal.passes.issue(&room, &holder));
    let text = live.multivariant(&place).await?;
    counter!("antiphon_hls_requests_total", "kind" => "multivariant").increment(1);
    Ok(served(PLAYLIST, NOT_AT_ALL, Bytes::from(text)))
}

/// Fetch a playlist, segment or part of a stream
///
/// By the addresses that the multivariant playlist gives. A playlist waits for the part that `_HLS_msn` and
/// `_HLS_part` name, and a part that comes next waits for itself, up to nine seconds.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/hls/{pass}/{track}/{file}", tag = "streams",
    params(
        ("room" = RoomName, Path), ("pass" = String, Path),
        ("track" = String, Path, description = "`high`, `low` or `sound`"),
        ("file" = String, Path), ReloadParams,
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "400 malformed, 402 payment_required, 403 forbidden, 404 not_found, 410 gone"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "unavailable: it did not come in time"),
    )
)]
pub async fn file(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfStream { pass, track, file }: OfStream,
    Params(reload): Params<ReloadParams>,
) -> Result<Response, Problem> {
    let holder = signal.passes.check(&room, &pass)?;
    still_paid(&signal, &room, holder).await?;
    let live = live(&signal, &room)?;
    let nothing = || Problem::new(Code::NotFound, "the stream has nothing of this name");
    let track = Track::parse(&track).ok_or_else(nothing)?;
    let kind = if track == Track::Sound { "audio/mp4" } else { "video/mp4" };
    let requested = Requested::parse(&file).ok_or_else(nothing)?;
    // What a stream before this one had under another name is gone with it.
    if requested.stream().is_some_and(|stream| stream != live.id()) {
        return Err(Problem::new(Code::Gone, "this is of a stream that ended"));
    }
    counter!("antiphon_hls_requests_total", "kind" => requested.kind()).increment(1);
    let (kind, cache, body) = match requested {
        Requested::Playlist => {
            let is_delta = reload.skip.as_deref().is_some_and(|skip| ["YES", "v2"].contains(&skip));
            let wish = Wish { number: reload.number, part: reload.part };
            (PLAYLIST, NOT_AT_ALL, live.playlist(track, wish, is_delta).await?)
        }
        Requested::Init { era, .. } => (kind, FOR_A_WHILE, live.init(track, era)?),
        Requested::Part { number, index, .. } => (kind, FOR_A_WHILE, live.part(track, number, index).await?),
        Requested::Segment { number, .. } => {
            return Ok(served_whole(kind, live.segment(track, number)?));
        }
    };
    Ok(served(kind, cache, body))
}

/// What the last part of an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requested<'a> {
    Playlist,
    Init { stream: &'a str, era: u32 },
    Part { stream: &'a str, number: u64, index: usize },
    Segment { stream: &'a str, number: u64 },
}

impl<'a> Requested<'a> {
    fn parse(file: &'a str) -> Option<Self> {
        if file == "index.m3u8" {
            return Some(Self::Playlist);
        }
        let (name, is_init) = match file.strip_suffix(".mp4") {
            Some(name) => (name, true),
            None => (file.strip_suffix(".m4s")?, false),
        };
        let mut words = name.split('-');
        let requested = match (words.next()?, words.next()?, words.next()) {
            (stream, "init", Some(era)) if is_init => Self::Init { stream, era: era.parse().ok()? },
            (stream, number, Some(index)) if !is_init => {
                Self::Part { stream, number: number.parse().ok()?, index: index.parse().ok()? }
            }
            (stream, number, None) if !is_init => Self::Segment { stream, number: number.parse().ok()? },
            _ => return None,
        };
        words.next().is_none().then_some(requested)
    }

    fn stream(self) -> Option<&'a str> {
        match self {
            Self::Playlist => None,
            Self::Init { stream, .. } | Self::Part { stream, .. } | Self::Segment { stream, .. } => {
                Some(stream)
            }
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Playlist => "playlist",
            Self::Init { .. } => "init",
            Self::Part { .. } => "part",
            Self::Segment { .. } => "segment",
        }
    }
}

impl HlsState {
    fn of(room: &RoomName, live: &Live) -> Self {
        let url = format!("/v1/rooms/{room}/hls/index.m3u8");
        Self { state: live.state(), url, started_at_ms: live.started_at_ms() }
    }
}

fn live(signal: &Signal, room: &RoomName) -> Result<Arc<Live>, Problem> {
    signal.streams.hls(room).ok_or_else(|| Problem::new(Code::NotFound, "the room is not streamed"))
}

fn served(kind: &'static str, cache: &'static str, body: Bytes) -> Response {
    counter!("antiphon_hls_sent_bytes_total").increment(body.len() as u64);
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, cache)], body).into_response()
}

fn served_whole(kind: &'static str, parts: Vec<Bytes>) -> Response {
    let length: usize = parts.iter().map(Bytes::len).sum();
    counter!("antiphon_hls_sent_bytes_total").increment(length as u64);
    let parts = stream::iter(parts.into_iter().map(Ok::<_, std::convert::Infallible>));
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, FOR_A_WHILE)];
    let mut response = (headers, Body::from_stream(parts)).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// May this request watch the room's stream, and as whom? The one place that says so.
///
/// # Errors
/// 401, 402 or 403.
async fn may_watch(
    signal: &Signal,
    headers: &HeaderMap,
    room: &RoomName,
    params: &WatchParams,
) -> Result<Holder, Problem> {
    let of = |identity, is_admin| match signal.billing.is_priced(room) {
        true if is_admin => Holder::Owner,
        true => Holder::Viewer(identity),
        false => Holder::Anyone,
    };
    if let Some(Member { identity, grant, .. }) = member(signal, headers, room).await? {
        if !grant.subscribe {
            let words = "your grant does not cover watching this room";
            return Err(Problem::new(Code::Forbidden, words));
        }
        let holder = of(identity, grant.admin);
        // Who looks at the room for free does not get its stream with it.
        still_paid(signal, room, holder.clone()).await?;
        return Ok(holder);
    }
    let shown = params.token.as_ref().map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
    let shown = shown.transpose().map_err(|_| Problem::invalid_token("`token` is no token"))?;
    let shown = shown.map(|value| HeaderMap::from_iter([(AUTHORIZATION, value)]));
    let headers = shown.as_ref().unwrap_or(headers);
    readable(signal, headers, room, Read::State).await?;
    Ok(match signal.authority.caller(headers)? {
        Caller::Holder(token) => of(token.identity, token.room.admin),
        Caller::Guest => Holder::Anyone,
    })
}

/// Of a room that costs money only who has paid goes on watching.
///
/// # Errors
/// 402.
async fn still_paid(signal: &Signal, room: &RoomName, holder: Holder) -> Result<(), Problem> {
    let is_paid = match holder {
        _ if !signal.billing.is_priced(room) => true,
        Holder::Owner => true,
        Holder::Viewer(identity) => signal.billing.is_entitled(room.clone(), identity).await?,
        Holder::Anyone => false,
    };
    let words = "this room costs money: join it to get an invoice";
    if is_paid { Ok(()) } else { Err(Problem::new(Code::PaymentRequired, words)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_strictly() {
        let parse = Requested::parse;
        let stream = "19a";
        assert_eq!(parse("index.m3u8"), Some(Requested::Playlist));
        assert_eq!(parse("19a-init-2.mp4"), Some(Requested::Init { stream, era: 2 }));
        assert_eq!(parse("19a-7-0.m4s"), Some(Requested::Part { stream, number: 7, index: 0 }));
        assert_eq!(parse("19a-7.m4s"), Some(Requested::Segment { stream, number: 7 }));
        for bad in
            ["", "x", "19a.m4s", "19a-init-2.m4s", "19a-7.mp4", "19a-7-0-1.m4s", "19a--1.m4s", "19a-x.m4s"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
