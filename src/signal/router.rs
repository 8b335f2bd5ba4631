//! Every route in one place, and what wraps them all: limits, CORS, security headers, compression, tracing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, LINK, LOCATION,
    RANGE, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::{DefaultOnFailure, DefaultOnResponse, TraceLayer};
use tracing::{Level, Span};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::SEAT;
use super::error::Problem;
use super::extract::{BODY_BYTES_MAX, FRAGMENT, SDP};
use super::{
    Signal, backdrop, content, files, health, hls, home, ice_servers, join, member, messages, openapi, page,
    participants, payments, play, receipts, recordings, restreams, rooms, sales, sessions, stats, whip,
    wishes,
};
use crate::billing::WISHES;
use crate::core::protocol::{Code, OFFER_BYTES_MAX};
use crate::telemetry::traces::{self, TRACEPARENT};

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// What pages of other origins may send, beside what concerns uploads.
const ALLOWED: [HeaderName; 7] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    IF_MATCH,
    RANGE,
    member::SESSION,
    SEAT,
    HeaderName::from_static(TRACEPARENT),
];
/// What pages of other origins may read of an answer, beside what concerns uploads.
const EXPOSED: [HeaderName; 12] = [
    LOCATION,
    ETAG,
    LINK,
    ALLOW,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
    ACCEPT_POST,
    ACCEPT_PATCH,
    CONTENT_DISPOSITION,
    CONTENT_RANGE,
    home::NODES,
    SEAT,
];

/// A request that takes longer is given up: joins answer in milliseconds, slow bodies are not waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a browser may keep the answer to a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The API: a route exists by being described.
pub fn api() -> OpenApiRouter<Arc<Signal>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(rooms::create, rooms::list))
        .routes(routes!(rooms::show, rooms::change, rooms::close))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(backdrop::put, backdrop::delete))
                .layer(DefaultBodyLimit::max(backdrop::BODY_BYTES_MAX)),
        )
        .merge(
            OpenApiRouter::new()
                .routes(routes!(join::join, participants::list))
                .routes(routes!(whip::publish))
                .routes(routes!(whip::view))
                .layer(DefaultBodyLimit::max(OFFER_BYTES_MAX)),
        )
        .routes(routes!(participants::remove))
        .routes(routes!(participants::mute))
        .routes(routes!(sessions::patch, sessions::leave))
        .routes(routes!(recordings::start, recordings::list))
        .routes(routes!(recordings::show, recordings::delete))
        .routes(routes!(recordings::stop))
        .routes(routes!(recordings::link))
        .routes(routes!(play::start, play::list))
        .routes(routes!(play::change, play::stop))
        .routes(routes!(ice_servers::list))
        .routes(routes!(stats::show))
        .routes(routes!(messages::page))
        .routes(routes!(payments::access))
        .routes(routes!(payments::renew))
        .routes(routes!(payments::show))
        .routes(routes!(payments::follow))
        .routes(routes!(receipts::show))
        .routes(routes!(payments::simulate))
        .routes(routes!(content::recording_price, content::set_recording_price))
        .routes(routes!(content::recording_access))
        .routes(routes!(content::file_price, content::set_file_price))
        .routes(routes!(content::file_access))
        .routes(routes!(sales::payout, sales::set_payout))
        .routes(routes!(sales::set_webhook))
        .routes(routes!(sales::subscribers))
        .routes(routes!(sales::change))
        .routes(routes!(sales::mark))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
}

/// The calls that concern files and recordings: bodies as long as they are, for as long as they take, and as
/// they are.
pub fn streams() -> OpenApiRouter<Arc<Signal>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(files::list, files::create))
        .routes(routes!(files::contents, files::receive, files::cancel))
        .routes(routes!(files::thumbnail))
        .routes(routes!(files::link))
        .routes(routes!(recordings::contents))
        .route("/v1/rooms/{room}/files/{file}", post(files::overridden))
}

/// What players fetch: as it is, since parts cannot be made smaller and thousands ask for a playlist at once.
pub fn played() -> OpenApiRouter<Arc<Signal>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(hls::start, hls::show, hls::stop))
        .routes(routes!(hls::multivariant))
        .routes(routes!(hls::file))
        .routes(routes!(restreams::start, restreams::list))
        .routes(routes!(restreams::stop))
}

/// All that is described.
pub fn described() -> OpenApi {
    let mut document = api().into_openapi();
    document.merge(streams().into_openapi());
    document.merge(played().into_openapi());
    document
}

/// The whole service.
pub fn router(signal: Arc<Signal>) -> Router {
    let document = Arc::new(described());
    let cors = cors(&signal.cors_origins);
    let not_allowed = async || Problem::method_not_allowed();
    let streams = Router::from(streams())
        .method_not_allowed_fallback(not_allowed)
        .with_state(Arc::clone(&signal))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&signal), home::find))
        .layer(cors.clone())
        .layer(middleware::from_fn_with_state(Arc::clone(&signal), files::speak));
    let played = Router::from(played())
        .method_not_allowed_fallback(not_allowed)
        .with_state(Arc::clone(&signal))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&signal), home::find))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
        .layer(cors.clone());
    Router::from(api())
        .route("/v1/openapi.json", get(move || async move { axum::Json(document.as_ref().clone()) }))
        .route(WISHES, post(wishes::take))
        .route("/", get(page::index))
        .route("/r/{room}", get(page::index))
        .route("/r/{room}/recordings/{recording}", get(page::index))
        .route("/r/{room}/files/{file}", get(page::index))
        .fallback(no_such_path)
        .method_not_allowed_fallback(not_allowed)
        .with_state(Arc::clone(&signal))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(signal, home::find))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT))
        .layer(cors)
        .layer(middleware::from_fn(advertise))
        .layer(CompressionLayer::new())
        .merge(streams)
        .merge(played)
        .layer(header(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(REFERRER_POLICY, "no-referrer"))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_response(DefaultOnResponse::new().level(Level::DEBUG))
                // A refusal such as 503 is an answer; what is our fault is logged where it happens.
                .on_failure(DefaultOnFailure::new().level(Level::DEBUG)),
        )
}

/// The route's pattern and no more: paths hold sessions, queries hold names, headers hold tokens.
fn span(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    let method = request.method();
    let name = format_args!("{method} {route}");
    let span = tracing::info_span!("http", otel.name = %name, otel.kind = "server", method = %method, route);
    let named = request.headers().get(TRACEPARENT).and_then(|named| named.to_str().ok());
    traces::go_on(&span, named);
    span
}

fn header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// Pages elsewhere may call the API. It takes no cookies, so a page gains nothing that it does not hold
/// itself.
fn cors(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .allow_headers([&ALLOWED[..], &files::TUS_HEADERS].concat())
        .expose_headers([&EXPOSED[..], &files::TUS_HEADERS].concat())
        .max_age(PREFLIGHT_AGE)
}

/// Says in the answer to `OPTIONS` which bodies are taken (RFC 9725 §4.1, RFC 5789 §3.1).
async fn advertise(request: Request, next: Next) -> Response {
    let accepts = match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        _ if request.method() != Method::OPTIONS => None,
        Some("/v1/rooms/{room}/participants" | "/v1/rooms/{room}/whip" | "/v1/rooms/{room}/whep") => {
            Some((ACCEPT_POST, SDP))
        }
        Some("/v1/rooms/{room}/sessions/{session}") => Some((ACCEPT_PATCH, FRAGMENT)),
        _ => None,
    };
    let mut response = next.run(request).await;
    if let Some((name, value)) = accepts {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn no_such_path(method: Method, uri: Uri) -> Response {
    let is_read = method == Method::GET || method == Method::HEAD;
    if is_read
        && !uri.path().starts_with("/v1/")
        && let Some(asset) = page::asset(uri.path())
    {
        return asset;
    }
    Problem::new(Code::NotFound, "there is nothing at this path; /v1/openapi.json lists what there is")
        .into_response()
}
