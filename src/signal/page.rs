//! The web client, embedded in the binary from `web/dist`.
//!
//! `/` and `/r/{room}` are the same page; it reads the room from its own address. Files under `assets/` carry
//! a hash in their names and never change.

use std::borrow::Cow;

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// Nothing from elsewhere, no inline script, nobody's frame but our own. Connections alone may leave the
/// origin, as a join is answered 307 with the URL of any node of the cluster, which is not known before: by
/// TLS to anywhere, without it only to nodes on the viewer's own machine. No foreign script runs here that
/// could use it.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
media-src 'self' blob:; font-src 'self'; connect-src 'self' \
https: http://localhost:* http://127.0.0.1:*; worker-src 'self' blob:; manifest-src 'self'; \
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
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    match Client::get("index.html") {
        Some(file) => page(file.data, &file.metadata.sha256_hash(), known),
        None => (StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT).into_response(),
    }
}

/// `known` is the entity tag that the browser holds already.
fn page(html: Cow<'static, [u8]>, hash: &[u8], known: Option<&str>) -> Response {
    let etag = format!("\"{}\"", hex(hash));
    let policies = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, CSP),
        (PERMISSIONS_POLICY, PERMISSIONS),
    ];
    if known.is_some_and(|known| known.trim_start_matches("W/") == etag) {
        return (StatusCode::NOT_MODIFIED, policies, [(ETAG, etag)]).into_response();
    }
    (policies, [(ETAG, etag)], html).into_response()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_may_use_the_camera_and_nothing_from_elsewhere() {
        let response = page(Cow::Borrowed(b"<!doctype html>"), &[0xab, 1], None);
        assert_eq!(response.status(), 200);
        let header = |name| response.headers()[name].to_str().unwrap();
        assert!(header(CONTENT_SECURITY_POLICY).starts_with("default-src 'none'; script-src 'self';"));
        assert!(!header(CONTENT_SECURITY_POLICY).contains("unsafe"));
        let connect =
            header(CONTENT_SECURITY_POLICY).split("; ").find(|rule| rule.starts_with("connect-src"));
        assert_eq!(connect, Some("connect-src 'self' https: http://localhost:* http://127.0.0.1:*"));
        assert!(header(PERMISSIONS_POLICY).contains("display-capture=(self)"));
        assert_eq!(header(ETAG), "\"ab01\"");
        assert_eq!(header(CACHE_CONTROL), "no-cache");
    }

    #[test]
    fn a_page_that_the_browser_holds_is_not_sent_again() {
        for known in ["\"ab01\"", "W/\"ab01\""] {
            assert_eq!(page(Cow::Borrowed(b"x"), &[0xab, 1], Some(known)).status(), 304);
        }
        assert_eq!(page(Cow::Borrowed(b"x"), &[0xab, 1], Some("\"old\"")).status(), 200);
    }

    #[test]
    fn no_path_leads_out_of_the_client() {
        for path in ["/../Cargo.toml", "/..%2fCargo.toml", "//etc/passwd", "/assets/../../Cargo.toml"] {
            assert!(asset(path).is_none(), "{path}");
        }
    }
}
