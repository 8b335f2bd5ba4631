//! Requests about rooms of other nodes: sent there by a 307, or where so configured passed on.
//!
//! Any node takes any request, so a plain load balancer in front of all is enough. What is open here is
//! served at once; for the rest the cluster says where it is. Only who has the room judges the request.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::counter;
use tracing::Instrument as _;

use super::Signal;
use super::backdrop;
use super::error::Problem;
use crate::control::{Home, Turned};
use crate::core::ids::RoomName;
use crate::core::protocol::Code;
use crate::telemetry::traces::{self, TRACEPARENT};

/// Names the node that passed a request on; it is not passed on again.
const PASSED_BY: HeaderName = HeaderName::from_static("antiphon-passed-by");
/// Where else a client may come in: URLs of the other nodes, by commas.
pub const NODES: HeaderName = HeaderName::from_static("antiphon-nodes");
/// Of a request that is passed on: as much as any route takes that is not about files. Each route's own limit
/// is the other node's to keep.
const PASSED_BYTES_MAX: usize = backdrop::BODY_BYTES_MAX;
/// For the other node's answer: a join there takes milliseconds.
const PASS_WITHIN: Duration = Duration::from_secs(5);
/// For a connection to it.
const REACH_WITHIN: Duration = Duration::from_secs(1);
/// Of an answer that is passed on.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What other nodes are asked with.
pub fn peers() -> reqwest::Client {
    let client = reqwest::Client::builder().connect_timeout(REACH_WITHIN).build();
    // Without a store of certificates there is none; then what is asked of others fails, one by one.
    client.unwrap_or_default()
}

/// Serves what is about a room of this node, or of none.
pub async fn find(State(signal): State<Arc<Signal>>, request: Request, next: Next) -> Response {
    let may_turn = signal.proxy && !is_of_files(request.uri());
    let is_of_a_room = |_: &RoomName| request.method() != Method::OPTIONS && !is_of_money(request.uri());
    let Some(room) = room_of(request.uri()).filter(is_of_a_room) else {
        let makes_room = request.method() == Method::POST && request.uri().path() == "/v1/rooms";
        return if makes_room && may_turn {
            pass_if_turned(&signal, request, next).await
        } else {
            next.run(request).await
        };
    };
    match signal.control.home(&room).await {
        Ok(Home::Nowhere { .. }) if may_turn => pass_if_turned(&signal, request, next).await,
        Ok(Home::Here | Home::Nowhere { .. }) => next.run(request).await,
        // A branch may serve it here, which the join decides.
        Ok(Home::Elsewhere(_)) if is_join(&request) && signal.control.may_serve(&room) => {
            if may_turn {
                pass_if_turned(&signal, request, next).await
            } else {
                next.run(request).await
            }
        }
        Ok(Home::Elsewhere(url)) if is_of_session(request.uri()) && signal.control.has_branch(&room) => {
            here_or_there(&signal, &url, request, next).await
        }
        Ok(Home::Elsewhere(url)) => send(&signal, &url, request).await,
        // A session of a branch is known here, whatever the registry does.
        Err(_) if is_of_session(request.uri()) && signal.control.has_branch(&room) => next.run(request).await,
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

/// The handler may still find that the room is to be elsewhere, and says so by a 307.
async fn pass_if_turned(signal: &Signal, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, PASSED_BYTES_MAX).await else { return too_large() };
    let again = Request::from_parts(parts.clone(), Body::from(body.clone()));
    let response = next.run(again).await;
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    match location.filter(|_| response.status() == StatusCode::TEMPORARY_REDIRECT) {
        None => response,
        Some(location) => {
            let url = location.to_owned();
            pass(signal, &url, Request::from_parts(parts, Body::from(body))).await
        }
    }
}

/// A session may be one of this node's branch of the room.
async fn here_or_there(signal: &Signal, url: &str, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, PASSED_BYTES_MAX).await else { return too_large() };
    let again = Request::from_parts(parts.clone(), Body::from(body.clone()));
    let response = next.run(again).await;
    if response.status() != StatusCode::NOT_FOUND {
        return response;
    }
    send(signal, url, Request::from_parts(parts, Body::from(body))).await
}

/// What is about files is as long as it is, so it goes by a 307 always.
async fn send(signal: &Signal, url: &str, request: Request) -> Response {
    let to = at(url, request.uri());
    if is_of_files(request.uri()) {
        return moved(&to);
    }
    if !signal.proxy {
        // A connection that is closed before all of a request was read is reset, and the answer may go with
        // it.
        let _ = to_bytes(request.into_body(), PASSED_BYTES_MAX).await;
        return moved(&to);
    }
    pass(signal, &to, request).await
}

async fn pass(signal: &Signal, url: &str, request: Request) -> Response {
    if request.headers().contains_key(PASSED_BY) {
        let words = "the room is moving between nodes: try again in a moment";
        return Problem::new(Code::Unavailable, words).into_response();
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, PASSED_BYTES_MAX).await else { return too_large() };
    counter!("antiphon_placement_requests_total", "sent" => "proxied").increment(1);
    let mut headers = parts.headers;
    strip(&mut headers);
    headers.insert(
        PASSED_BY,
        HeaderValue::from_str(signal.control.node_id()).unwrap_or(HeaderValue::from_static("?")),
    );
    let span = tracing::info_span!("pass on", otel.kind = "client");
    if let Some(named) = traces::of(&span).and_then(|named| HeaderValue::from_str(&named).ok()) {
        headers.insert(TRACEPARENT, named);
    }
    let asked = signal.peers.request(parts.method, url).headers(headers).body(body);
    match answer(asked.timeout(PASS_WITHIN)).instrument(span).await {
        Ok(response) => response,
        Err(_) => {
            let words = "the room's node does not answer: try again in a moment";
            Problem::new(Code::Unavailable, words).into_response()
        }
    }
}

async fn answer(asked: reqwest::RequestBuilder) -> Result<Response, reqwest::Error> {
    let answer = asked.send().await?;
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    strip(&mut headers);
    let bytes = answer.bytes().await?;
    if bytes.len() > ANSWER_BYTES_MAX {
        return Ok(too_large());
    }
    let mut response = (status, bytes).into_response();
    *response.headers_mut() = headers;
    Ok(response)
}

/// Drops what holds for one connection alone (RFC 9110 §7.6.1).
fn strip(headers: &mut HeaderMap) {
    for name in [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

fn too_large() -> Response {
    let words = format!("the body is larger than {PASSED_BYTES_MAX} bytes");
    Problem::new(Code::TooLarge, words).into_response()
}

/// The room in a path such as `/v1/rooms/{room}/whip`.
fn room_of(uri: &Uri) -> Option<RoomName> {
    let rest = uri.path().strip_prefix("/v1/rooms/")?;
    RoomName::parse(rest.split('/').next()?).ok()
}

/// Somebody wants in.
fn is_join(request: &Request) -> bool {
    let mut parts = request.uri().path().split('/').skip(4);
    let is_one = parts.next().is_some_and(|part| ["participants", "whip", "whep"].contains(&part));
    is_one && parts.next().is_none() && request.method() == Method::POST
}

fn is_of_session(uri: &Uri) -> bool {
    uri.path().split('/').nth(4) == Some("sessions")
}

/// What any node answers, from the facts that all read; what changes them it passes on by itself.
fn is_of_money(uri: &Uri) -> bool {
    let part = uri.path().split('/').nth(4).unwrap_or_default();
    ["access", "invoices", "payout", "subscribers", "webhook"].contains(&part)
}

/// Of a room, or of its recordings.
fn is_of_files(uri: &Uri) -> bool {
    let mut parts = uri.path().split('/').skip(4);
    match parts.next() {
        Some("files") => true,
        Some("recordings") => parts.nth(1) == Some("files") && parts.nth(1).is_none(),
        _ => false,
    }
}

/// The same path and query at another node.
fn at(url: &str, uri: &Uri) -> String {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{url}{path}")
}

/// The same at another node, which is told whether it is to serve by a branch.
fn at_branch(url: &str, uri: &Uri, is_branch: bool) -> String {
    // Whoever was sent on before is sent once more, and the later word counts.
    let query = uri.query().unwrap_or_default();
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("branch=")).collect();
    let rest = rest.join("&");
    let joint = if rest.is_empty() { "" } else { "&" };
    format!("{url}{}?{rest}{joint}branch={is_branch}", uri.path())
}

/// What a handler answers that was turned away.
pub fn turned(turned: Turned, uri: &Uri) -> Result<Response, Problem> {
    match turned {
        Turned::Away(refusal) => Err(refusal.into()),
        Turned::Elsewhere(url) => Ok(moved(&at(&url, uri))),
        Turned::ToBranch(url) => Ok(moved(&at_branch(&url, uri, true))),
        Turned::ToHome(url) => Ok(moved(&at_branch(&url, uri, false))),
    }
}

/// 307 keeps method and body. It holds for this once: rooms move.
fn moved(to: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(to) else {
        return Problem::new(Code::Internal, "the room's node has no address").into_response();
    };
    counter!("antiphon_placement_requests_total", "sent" => "redirected").increment(1);
    let headers = [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
}

/// Where else to come in, should this node go: for the answer to a join.
pub fn nodes(signal: &Signal) -> Option<HeaderValue> {
    let urls = signal.control.other_nodes();
    (!urls.is_empty()).then(|| HeaderValue::from_str(&urls.join(", ")).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_stands_in_the_path() {
        let room = |path: &'static str| room_of(&Uri::from_static(path)).map(|room| room.to_string());
        assert_eq!(room("/v1/rooms/abc/whip?identity=x").as_deref(), Some("abc"));
        assert_eq!(room("/v1/rooms/abc").as_deref(), Some("abc"));
        assert_eq!(room("/v1/rooms"), None);
        assert_eq!(room("/r/abc"), None);
        assert_eq!(room("/v1/rooms/a%20b/whip"), None);
    }

    #[test]
    fn whoever_is_sent_on_is_told_whereto_once() {
        let sent = |path: &'static str, is_branch| at_branch("https://b", &Uri::from_static(path), is_branch);
        assert_eq!(sent("/v1/rooms/abc/whep", true), "https://b/v1/rooms/abc/whep?branch=true");
        let again = sent("/v1/rooms/abc/whip?branch=true&identity=x", false);
        assert_eq!(again, "https://b/v1/rooms/abc/whip?identity=x&branch=false");
    }

    #[test]
    fn method_body_path_and_query_go_along() {
        let response = moved(&at("https://b.example.org", &Uri::from_static("/v1/rooms/abc/whip?a=b%20c")));
        assert_eq!(response.status(), 307);
        assert_eq!(response.headers()[LOCATION], "https://b.example.org/v1/rooms/abc/whip?a=b%20c");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }
}
