//! Contents of files and their thumbnails. Whatever a file is, it cannot act in the origin that serves it: it
//! goes out as an attachment, of a type that is not guessed, in a sandbox without scripts.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;

use super::access::{FileParams, may_fetch};
use super::link::Signature;
use super::tus;
use crate::core::files::{FileState, Part, content_disposition, requested_part, served_type};
use crate::core::ids::{MessageId, RoomName};
use crate::core::protocol::Code;
use crate::signal::Signal;
use crate::signal::error::{Problem, ProblemBody};
use crate::signal::extract::{InRoom, OfFile, Params};

const CSP: &str = "sandbox; default-src 'none'";
/// Its contents never change, but it may be deleted: a browser asks each time whether it still is there.
const CACHE: &str = "private, no-cache";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Fetch a file
///
/// In whole or in part (`Range`). Also by the address that a `link` gives. With `Tus-Resumable`, `HEAD` says
/// how far an upload is.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/files/{file}", tag = "files",
    params(
        ("room" = RoomName, Path), ("file" = MessageId, Path), Signature,
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "It is as the entity tag says"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden or room_private, 404 not_found, 410 gone, \
            416 range_not_satisfiable"),
    )
)]
pub async fn contents(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    Params(signature): Params<Signature>,
    Params(params): Params<FileParams>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if method == Method::HEAD && tus::speaks_of_upload(&headers) {
        return tus::progress(&signal, &room, &id, &headers, params).await;
    }
    if !signal.links.admits(&room, &id, &signature)? {
        may_fetch(&signal, &headers, &room).await?;
    }
    let file = signal.files.kept(&room, &id).await?.file;
    let etag = format!("\"{}\"", file.sha256);
    let mut response = if matches(&headers, &IF_NONE_MATCH, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let whole = headers.contains_key(IF_RANGE) && !matches(&headers, &IF_RANGE, &etag);
        let range = headers.get(RANGE).filter(|_| !whole).and_then(|range| range.to_str().ok());
        part(&signal, &file, requested_part(range, file.size_bytes), method == Method::HEAD).await?
    };
    let disposition = HeaderValue::from_str(&content_disposition(&file.name));
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\"")));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
    headers.insert(CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment")));
    lock_down(headers);
    Ok(response)
}

async fn part(signal: &Signal, file: &FileState, part: Part, only_head: bool) -> Result<Response, Problem> {
    let size = file.size_bytes;
    let (status, range) = match part {
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Unsatisfiable => {
            let words = format!("the file has {size} bytes, and the range begins after them");
            let problem = Problem::new(Code::RangeNotSatisfiable, words);
            return Ok(([(CONTENT_RANGE, format!("bytes */{size}"))], problem).into_response());
        }
    };
    let length = range.end - range.start;
    let body = if only_head {
        Body::empty()
    } else {
        let sent = metrics::counter!("antiphon_files_sent_bytes_total");
        let contents = signal.files.contents(file, range.clone()).await?;
        Body::from_stream(contents.inspect(move |bytes| {
            sent.increment(bytes.as_ref().map_or(0, |bytes: &Bytes| bytes.len() as u64));
        }))
    };
    let kind = HeaderValue::from_str(served_type(&file.media_type));
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{size}", range.start, range.end - 1))
    {
        headers.insert(CONTENT_RANGE, value);
    }
    Ok(response)
}

/// Fetch a small picture of a file
///
/// A JPEG of at most 480 pixels a side, made by the server.
#[utoipa::path(
    get, path = "/v1/rooms/{room}/files/{file}/thumbnail", tag = "files",
    params(
        ("room" = RoomName, Path), ("file" = MessageId, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "image/jpeg"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden or room_private, 404 not_found, 410 gone"),
    )
)]
pub async fn thumbnail(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    may_fetch(&signal, &headers, &room).await?;
    let file = signal.files.kept(&room, &id).await?.file;
    let jpeg = signal.files.thumbnail(&file).await?;
    let kind = [(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, CACHE)];
    let mut response = (kind, jpeg).into_response();
    lock_down(response.headers_mut());
    Ok(response)
}

fn lock_down(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
}

fn matches(headers: &HeaderMap, name: &HeaderName, etag: &str) -> bool {
    let tags = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|tags| tags.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == etag)
}
