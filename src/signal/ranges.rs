//! Contents in whole or in part (RFC 9110 §14), of files and recordings alike. Whatever they are, they
//! cannot act in the origin that serves them: they go out as attachments, of a type that is not guessed, in
//! a sandbox without scripts.

use std::ops::Range;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::error::Problem;
use crate::core::files::{Part, content_disposition, requested_part};
use crate::core::protocol::Code;

const CSP: &str = "sandbox; default-src 'none'";
/// Its contents hardly change, but it may be deleted: a browser asks each time whether it still is there.
pub const CACHE: &str = "private, no-cache";
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What is served.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    pub size: u64,
    /// With its quotes.
    pub etag: &'a str,
    pub media_type: &'a str,
    /// Under which it is saved.
    pub name: &'a str,
}

/// Answers a `GET` or `HEAD`; `open` gives a range of the contents.
///
/// # Errors
/// Those of `open`.
pub async fn serve(
    method: &Method,
    headers: &HeaderMap,
    served: Served<'_>,
    open: impl AsyncFnOnce(Range<u64>) -> Result<Body, Problem>,
) -> Result<Response, Problem> {
    let etag = served.etag;
    let mut response = if matches(headers, &IF_NONE_MATCH, etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let whole = headers.contains_key(IF_RANGE) && !matches(headers, &IF_RANGE, etag);
        let range = headers.get(RANGE).filter(|_| !whole).and_then(|range| range.to_str().ok());
        part(served, requested_part(range, served.size), method == Method::HEAD, open).await?
    };
    let disposition = HeaderValue::from_str(&content_disposition(served.name));
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(etag).unwrap_or(HeaderValue::from_static("\"\"")));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
    headers.insert(CONTENT_DISPOSITION, disposition.unwrap_or(HeaderValue::from_static("attachment")));
    lock_down(headers);
    Ok(response)
}

async fn part(
    served: Served<'_>,
    part: Part,
    only_head: bool,
    open: impl AsyncFnOnce(Range<u64>) -> Result<Body, Problem>,
) -> Result<Response, Problem> {
    let size = served.size;
    let (status, range) = match part {
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Unsatisfiable => {
            let words = format!("the file has {size} bytes, and the range begins after them");
            let problem = Problem::new(Code::RangeNotSatisfiable, words);
            return Ok(([(CONTENT_RANGE, format!("bytes */{size}"))], problem).into_response());
        }
    };
    let body = if only_head { Body::empty() } else { open(range.clone()).await? };
    let kind = HeaderValue::from_str(served.media_type);
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    headers.insert(CONTENT_LENGTH, (range.end - range.start).into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{size}", range.start, range.end - 1))
    {
        headers.insert(CONTENT_RANGE, value);
    }
    Ok(response)
}

pub fn lock_down(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
}

fn matches(headers: &HeaderMap, name: &HeaderName, etag: &str) -> bool {
    let tags = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|tags| tags.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == etag)
}
