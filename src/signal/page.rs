//! The web client, embedded in the binary from `web/dist`.
//!
//! `/` and `/r/{room}` are the same page; it reads the room from its own address. Files under `assets/` carry
//! a hash in their names and never change.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Nothing from elsewhere, no inline script, nobody's frame but our own.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
media-src 'self' blob:; font-src 'self'; connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; \
base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

const PERMISSIONS: &str = "camera=(self), microphone=(self), display-capture=(self), autoplay=(self), \
fullscreen=(self), picture-in-picture=(self), screen-wake-lock=(self), geolocation=(), payment=(), usb=()";

/// Shown where the page should be, when the binary was built before the client.
const NOT_BUILT: &str = "The web client is not in this build.\n\n\
Run `make build`, or `npm ci && npm run build` in web/ and build the binary again.\n\
The API works without it: see /v1/openapi.json\n";

#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Client;

/// The page of the client.
pub async fn index(headers: HeaderMap) -> Response {
    let Some(file) = Client::get("index.html") else {
        return (StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT).into_response();
    };
    let etag = format!("\"{}\"", hex(&file.metadata.sha256_hash()));
    let policies = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, CSP),
        (PERMISSIONS_POLICY, PERMISSIONS),
    ];
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.trim_start_matches("W/") == etag) {
        return (StatusCode::NOT_MODIFIED, policies, [(ETAG, etag)]).into_response();
    }
    (policies, [(ETAG, etag)], file.data).into_response()
}

/// A file of the client, if there is one at this path.
pub fn asset(path: &str) -> Option<Response> {
    let name = path.trim_start_matches('/');
    let file = Client::get(name)?;
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [(CONTENT_TYPE, file.metadata.mimetype().to_owned()), (CACHE_CONTROL, cache.to_owned())];
    Some((headers, file.data).into_response())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
