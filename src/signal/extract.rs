//! Parts of a request, checked on the way in; what does not fit is answered by a [`Problem`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::Signal;
use super::error::Problem;
use crate::core::ids::{Identity, MessageId, RoomName, SessionId};
use crate::core::ledger::InvoiceId;
use crate::core::protocol::{Code, OFFER_BYTES_MAX};
use crate::core::recording::RecordingId;

/// A larger body is refused, unless a route takes more.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Media type of offers and answers (RFC 8866).
pub const SDP: &str = "application/sdp";
/// Media type of trickled candidates and ICE restarts (RFC 8840 §9).
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// The `{room}` of a path.
pub struct InRoom(pub RoomName);

impl<S: Send + Sync> FromRequestParts<S> for InRoom {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(RoomName::parse(&path_part(parts, state, "room").await?)?))
    }
}

/// The `{identity}` of a path.
pub struct OfIdentity(pub Identity);

impl<S: Send + Sync> FromRequestParts<S> for OfIdentity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(Identity::parse(&path_part(parts, state, "identity").await?)?))
    }
}

/// The `{session}` of a path. What is no session id is no session: 404.
pub struct OfSession(pub SessionId);

impl<S: Send + Sync> FromRequestParts<S> for OfSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_part(parts, state, "session").await?;
        SessionId::parse(&text)
            .map(Self)
            .ok_or_else(|| Problem::new(Code::NotFound, "there is no such session"))
    }
}

/// The `{file}` of a path. What is no id is no file: 404.
pub struct OfFile(pub MessageId);

impl<S: Send + Sync> FromRequestParts<S> for OfFile {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = MessageId::parse(&path_part(parts, state, "file").await?);
        id.map(Self).map_err(|_| Problem::new(Code::NotFound, "there is no such file"))
    }
}

/// The `{invoice}` of a path. What is no id is no invoice: 404.
pub struct OfInvoice(pub InvoiceId);

impl<S: Send + Sync> FromRequestParts<S> for OfInvoice {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = InvoiceId::parse(&path_part(parts, state, "invoice").await?);
        id.map(Self).ok_or_else(|| Problem::new(Code::NotFound, "there is no such invoice"))
    }
}

/// The `{restream}` of a path.
pub struct OfRestream(pub String);

impl<S: Send + Sync> FromRequestParts<S> for OfRestream {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_part(parts, state, "restream").await.map(Self)
    }
}

/// The `{player}` of a path.
pub struct OfPlayer(pub String);

impl<S: Send + Sync> FromRequestParts<S> for OfPlayer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_part(parts, state, "player").await.map(Self)
    }
}

/// The `{pass}`, `{track}` and `{file}` of a stream's path.
pub struct OfStream {
    pub pass: String,
    pub track: String,
    pub file: String,
}

impl<S: Send + Sync> FromRequestParts<S> for OfStream {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self {
            pass: path_part(parts, state, "pass").await?,
            track: path_part(parts, state, "track").await?,
            file: path_part(parts, state, "file").await?,
        })
    }
}

/// The `{recording}` of a path. What is no id is no recording: 404.
pub struct OfRecording(pub RecordingId);

impl<S: Send + Sync> FromRequestParts<S> for OfRecording {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = RecordingId::parse(&path_part(parts, state, "recording").await?);
        id.map(Self).ok_or_else(|| Problem::new(Code::NotFound, "there is no such recording"))
    }
}

/// The `{name}` of a path: of a file within something that knows its files' names.
pub struct OfName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for OfName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_part(parts, state, "name").await.map(Self)
    }
}

async fn path_part<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, Problem> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::new(Code::Malformed, "the path is no percent-encoded UTF-8"))?;
    let value = params.iter().find_map(|(key, value)| (key == name).then(|| value.to_owned()));
    value.ok_or_else(|| Problem::new(Code::Internal, "the path lacks a part"))
}

/// The query; unknown keys are passed over.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri).map_err(|error| {
            Problem::new(Code::Malformed, format!("the query does not fit: {}", error.body_text()))
        })?;
        Ok(Self(query.0))
    }
}

/// Where the request comes from: the connection's other end or, where that is a proxy of ours, whom it names.
/// Never logged.
pub struct From(pub IpAddr);

impl FromRequestParts<Arc<Signal>> for From {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, signal: &Arc<Signal>) -> Result<Self, Problem> {
        let ConnectInfo(address) = ConnectInfo::<SocketAddr>::from_request_parts(parts, signal)
            .await
            .map_err(|_| Problem::new(Code::Internal, "the connection has no address"))?;
        Ok(Self(origin(address.ip().to_canonical(), &parts.headers, &signal.trusted_proxies)))
    }
}

/// The last address before our own proxies. Each proxy appends whom it was called by, so what stands further
/// left may be invented.
fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let named = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let mut named: Vec<&str> = named.flat_map(|value| value.split(',')).collect();
    let mut origin = peer;
    while trusted.contains(&origin)
        && let Some(before) = named.pop()
    {
        match before.trim().parse::<IpAddr>() {
            Ok(ip) => origin = ip.to_canonical(),
            Err(_) => break,
        }
    }
    origin
}

/// A body of type [`SDP`].
pub struct Offer(pub String);

impl<S: Send + Sync> FromRequest<S> for Offer {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        text_of_type(request, state, SDP, OFFER_BYTES_MAX).await.map(Self)
    }
}

/// A body of type [`FRAGMENT`].
pub struct Fragment(pub String);

impl<S: Send + Sync> FromRequest<S> for Fragment {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        text_of_type(request, state, FRAGMENT, BODY_BYTES_MAX).await.map(Self)
    }
}

/// A JSON body; an empty one stands for all defaults.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = has_type(request.headers(), "application/json");
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|rejection| unreadable(&rejection, BODY_BYTES_MAX))?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        if !is_json {
            return Err(wrong_type("application/json"));
        }
        // Serde would take an array for a struct, field by field.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(Code::Malformed, "the JSON body is no object"));
        }
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| Problem::new(Code::Malformed, format!("the JSON body does not fit: {error}")))
    }
}

async fn text_of_type<S: Send + Sync>(
    request: Request,
    state: &S,
    accepted: &str,
    bytes_max: usize,
) -> Result<String, Problem> {
    if !has_type(request.headers(), accepted) {
        return Err(wrong_type(accepted));
    }
    let body = Bytes::from_request(request, state).await;
    let body = body.map_err(|rejection| unreadable(&rejection, bytes_max))?;
    String::from_utf8(body.into()).map_err(|_| Problem::new(Code::Malformed, "the body is no UTF-8"))
}

/// Compares the media type alone: case and parameters such as `charset` are free.
fn has_type(headers: &HeaderMap, accepted: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(accepted))
}

fn wrong_type(accepted: &str) -> Problem {
    Problem::new(Code::UnsupportedMediaType, format!("the body's `Content-Type` must be `{accepted}`"))
}

fn unreadable(rejection: &BytesRejection, bytes_max: usize) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(Code::TooLarge, format!("the body is larger than {bytes_max} bytes"))
    } else {
        Problem::new(Code::Malformed, "the body could not be read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_proxies_are_believed() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxies = [ip("127.0.0.1"), ip("10.0.0.2")];
        let from = |peer: &str, forwarded: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", axum::http::HeaderValue::from_static(value));
            }
            origin(ip(peer), &headers, &proxies)
        };
        assert_eq!(from("127.0.0.1", &["203.0.113.9"]), ip("203.0.113.9"));
        assert_eq!(from("127.0.0.1", &["198.51.100.1, 203.0.113.9", "10.0.0.2"]), ip("203.0.113.9"));
        assert_eq!(from("192.0.2.1", &["203.0.113.9"]), ip("192.0.2.1"), "a stranger names whom it likes");
        assert_eq!(from("127.0.0.1", &["203.0.113.9, unknown"]), ip("127.0.0.1"));
        assert_eq!(from("127.0.0.1", &[]), ip("127.0.0.1"));
        assert_eq!(from("127.0.0.1", &["2001:db8::1"]), ip("2001:db8::1"));
    }
}
