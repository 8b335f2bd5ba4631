//! Requests through the real router. No loop is behind its control handle, so what passes all checks of this
//! shell is answered 503 `unavailable`, and everything else by the check that refused it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Server, Signal, router};
use crate::billing::Billing;
use crate::config::{Config, Secret};
use crate::control::Control;
use crate::core::ids::{Identity, RoomName};
use crate::core::protocol::OFFER_BYTES_MAX;
use crate::events::memory::MemoryLog;
use crate::events::writer::EventWriter;
use crate::files::{Files, Store};
use crate::record::Recordings;
use crate::token::{Keys, RoomGrant, Token};

const SESSION: &str = "/v1/rooms/abc/sessions/00000000000000000000000000000007";
const SDP: (&str, &str) = ("content-type", "application/sdp");
/// One that parses, as the control loop is asked only then.
const OFFER: &str = include_str!("../../tests/fuzz/offer.sdp");
const FRAGMENT: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");
const JSON: (&str, &str) = ("content-type", "application/json");

pub fn signal(config: &Config) -> Signal {
    let control = Control::unplugged();
    let files = files(config, &control);
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    Signal::new(config, control, (files, recordings(config)), Billing::unplugged(), metrics)
}

/// In a folder that is not there.
fn recordings(config: &Config) -> Recordings {
    let folder = tempfile::tempdir().expect("a temporary directory").path().join("recordings");
    Recordings::new(config, "antiphon".into(), folder, None)
}

/// Files in memory, staged in a directory that is made for the first.
fn files(config: &Config, control: &Control) -> Files {
    let store = Store::new(Arc::new(object_store::memory::InMemory::new()));
    let log = EventWriter::spawn(Box::new(MemoryLog::default())).expect("a thread");
    let staging = tempfile::tempdir().expect("a temporary directory").path().join("uploads");
    Files::new(config.files.clone(), store, staging, None, control.clone(), log)
}

fn config(dev: bool, guests: bool) -> Config {
    let mut config = Config { dev, ..Config::default() };
    config.auth.guests = guests;
    config.auth.keys.insert("k1".into(), Secret::new("0123456789abcdef0123456789abcdef"));
    config
}

fn service(config: &Config) -> Router {
    let from = SocketAddr::from(([192, 0, 2, 1], 5000));
    router::router(Arc::new(signal(config))).layer(MockConnectInfo(from))
}

/// A bearer header for this room with all but what `change` takes away.
fn bearer(room: &str, change: impl FnOnce(&mut RoomGrant)) -> String {
    let mut grant = RoomGrant::owner(&RoomName::parse("abc").unwrap());
    room.clone_into(&mut grant.room);
    change(&mut grant);
    let token = Token { identity: Identity::parse("ann").unwrap(), name: None, room: grant };
    let expires_at_s = jsonwebtoken::get_current_timestamp() + 60;
    format!("Bearer {}", Keys::new(&config(false, false).auth.keys).sign(token, expires_at_s).unwrap())
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The status and, of a problem, its code.
    fn verdict(&self) -> (u16, String) {
        let json = self.json();
        if self.status.is_client_error() || self.status.is_server_error() {
            assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
            assert_eq!(json["status"], self.status.as_u16());
            assert!(!json["detail"].as_str().unwrap_or_default().is_empty());
        }
        (self.status.as_u16(), json["code"].as_str().unwrap_or_default().to_owned())
    }
}

async fn ask(
    service: &Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = service.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn verdict(service: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    ask(service, method, path, headers, OFFER).await.verdict()
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// `METHOD path` of all that is described.
fn described() -> BTreeSet<String> {
    let document = serde_json::to_value(router::described()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}

#[test]
fn the_document_has_every_call_of_the_contract() {
    let calls = [
        "GET /healthz",
        "GET /metrics",
        "GET /readyz",
        "GET /v1/rooms",
        "POST /v1/rooms",
        "GET /v1/rooms/{room}",
        "PATCH /v1/rooms/{room}",
        "DELETE /v1/rooms/{room}",
        "GET /v1/rooms/{room}/play",
        "POST /v1/rooms/{room}/play",
        "PATCH /v1/rooms/{room}/play/{player}",
        "DELETE /v1/rooms/{room}/play/{player}",
        "PUT /v1/rooms/{room}/backdrop",
        "DELETE /v1/rooms/{room}/backdrop",
        "GET /v1/rooms/{room}/files",
        "POST /v1/rooms/{room}/files",
        "GET /v1/rooms/{room}/files/{file}",
        "PATCH /v1/rooms/{room}/files/{file}",
        "DELETE /v1/rooms/{room}/files/{file}",
        "POST /v1/rooms/{room}/files/{file}/link",
        "GET /v1/rooms/{room}/files/{file}/thumbnail",
        "GET /v1/rooms/{room}/files/{file}/price",
        "PUT /v1/rooms/{room}/files/{file}/price",
        "POST /v1/rooms/{room}/files/{file}/access",
        "GET /v1/rooms/{room}/recordings/{recording}/price",
        "PUT /v1/rooms/{room}/recordings/{recording}/price",
        "POST /v1/rooms/{room}/recordings/{recording}/access",
        "POST /v1/rooms/{room}/access",
        "GET /v1/rooms/{room}/ice-servers",
        "POST /v1/rooms/{room}/invoices",
        "GET /v1/rooms/{room}/invoices/{invoice}",
        "GET /v1/rooms/{room}/invoices/{invoice}/events",
        "GET /v1/rooms/{room}/invoices/{invoice}/receipt",
        "POST /v1/rooms/{room}/invoices/{invoice}/mark",
        "POST /v1/rooms/{room}/invoices/{invoice}/simulate",
        "GET /v1/rooms/{room}/hls",
        "POST /v1/rooms/{room}/hls",
        "DELETE /v1/rooms/{room}/hls",
        "GET /v1/rooms/{room}/hls/index.m3u8",
        "GET /v1/rooms/{room}/hls/{pass}/{track}/{file}",
        "GET /v1/rooms/{room}/restreams",
        "POST /v1/rooms/{room}/restreams",
        "DELETE /v1/rooms/{room}/restreams/{restream}",
        "GET /v1/rooms/{room}/messages",
        "GET /v1/rooms/{room}/participants",
        "POST /v1/rooms/{room}/participants",
        "DELETE /v1/rooms/{room}/participants/{identity}",
        "POST /v1/rooms/{room}/participants/{identity}/mute",
        "GET /v1/rooms/{room}/recordings",
        "POST /v1/rooms/{room}/recordings",
        "GET /v1/rooms/{room}/recordings/{recording}",
        "DELETE /v1/rooms/{room}/recordings/{recording}",
        "POST /v1/rooms/{room}/recordings/{recording}/stop",
        "GET /v1/rooms/{room}/recordings/{recording}/files/{name}",
        "POST /v1/rooms/{room}/recordings/{recording}/files/{name}/link",
        "PATCH /v1/rooms/{room}/sessions/{session}",
        "DELETE /v1/rooms/{room}/sessions/{session}",
        "GET /v1/rooms/{room}/payout",
        "PUT /v1/rooms/{room}/payout",
        "GET /v1/rooms/{room}/stats",
        "GET /v1/rooms/{room}/subscribers",
        "POST /v1/rooms/{room}/subscribers/{identity}",
        "PUT /v1/rooms/{room}/webhook",
        "POST /v1/rooms/{room}/whep",
        "POST /v1/rooms/{room}/whip",
    ];
    assert_eq!(described(), calls.map(str::to_owned).into());
}

#[tokio::test]
async fn the_router_takes_what_is_described_and_nothing_else() {
    let service = service(&config(true, true));
    let described = described();
    let paths: BTreeSet<&str> = described.iter().filter_map(|call| Some(call.split_once(' ')?.1)).collect();
    for path in paths {
        let real = path
            .replace("{room}", "abc")
            .replace("{identity}", "ann")
            .replace("{file}", "f1")
            .replace("{invoice}", "00000000000000000000000000000007")
            .replace("{recording}", "r1")
            .replace("{name}", "mix.mp4")
            .replace("{session}", "00000000000000000000000000000007");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = ask(&service, method, &real, &[], "").await;
            let is_described = described.contains(&format!("{method} {path}"));
            assert_eq!(answer.status != 405, is_described, "{method} {path}: {}", answer.status);
            // A file that is not there is not found, but its path is.
            assert!(answer.status != 404 || answer.verdict().1 == "not_found", "{method} {path}");
            if !is_described {
                assert_eq!(answer.verdict(), is(405, "method_not_allowed"));
                assert!(!answer.headers[ALLOW].is_empty());
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_served_with_its_schemas() {
    let answer = ask(&service(&config(true, true)), "GET", "/v1/openapi.json", &[], "").await;
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in
        ["RoomSummary", "RoomWish", "MadeRoom", "ParticipantState", "MessagePage", "RoomStats", "ProblemBody"]
    {
        assert!(schemas.contains_key(name), "{name}");
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[tokio::test]
async fn recordings_are_for_a_rooms_admins_alone() {
    let config = config(false, true);
    let service = service(&config);
    let token = |admin| {
        let room = RoomGrant { admin, ..RoomGrant::owner(&RoomName::parse("abc").unwrap()) };
        let token = Token { identity: Identity::parse("ann").unwrap(), name: None, room };
        let expires_at_s = jsonwebtoken::get_current_timestamp() + 60;
        format!("Bearer {}", Keys::new(&config.auth.keys).sign(token, expires_at_s).unwrap())
    };
    let (member, admin) = (token(false), token(true));
    for (method, path) in [
        ("GET", "/v1/rooms/abc/recordings"),
        ("POST", "/v1/rooms/abc/recordings"),
        ("GET", "/v1/rooms/abc/recordings/r1"),
        ("DELETE", "/v1/rooms/abc/recordings/r1"),
        ("POST", "/v1/rooms/abc/recordings/r1/stop"),
        ("GET", "/v1/rooms/abc/recordings/r1/files/mix.mp4"),
        ("POST", "/v1/rooms/abc/recordings/r1/files/mix.mp4/link"),
    ] {
        let unknown = ask(&service, method, path, &[], "").await.verdict();
        assert_eq!(unknown, is(401, "unauthorized"), "{method} {path}");
        let shown = [("authorization", member.as_str())];
        let refused = ask(&service, method, path, &shown, "").await.verdict();
        assert_eq!(refused, is(403, "forbidden"), "{method} {path}");
    }
    let shown = [("authorization", admin.as_str())];
    let listed = ask(&service, "GET", "/v1/rooms/abc/recordings", &shown, "").await;
    assert_eq!((listed.status.as_u16(), listed.json()), (200, json!({ "recordings": [] })));
    for path in ["r1", "..%2f..", "r1/files/..%2f..%2frecording.json"] {
        let path = format!("/v1/rooms/abc/recordings/{path}");
        assert_eq!(verdict(&service, "GET", &path, &shown).await, is(404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let service = service(&config(true, true));
    for path in ["/v1/nothing", "/v1/rooms/abc/nothing", "/v2/rooms", "/nothing.js"] {
        assert_eq!(verdict(&service, "GET", path, &[]).await, is(404, "not_found"), "{path}");
    }
    assert_eq!(verdict(&service, "POST", "/", &[]).await, is(405, "method_not_allowed"));
}

#[tokio::test]
async fn names_in_paths_and_queries_are_checked() {
    let service = service(&config(true, true));
    for path in ["/v1/rooms/ab", "/v1/rooms/a%20b%20c", "/v1/rooms/%ff%fe%fd", "/v1/rooms/..%2f..%2fetc"] {
        assert_eq!(verdict(&service, "GET", path, &[]).await, is(400, "malformed"), "{path}");
    }
    let answer = ask(&service, "GET", "/v1/rooms/ab", &[], "").await;
    assert!(answer.json()["detail"].as_str().unwrap().contains("3 to 64 characters"));
    let removed = verdict(&service, "DELETE", "/v1/rooms/abc/participants/%07", &[]).await;
    assert_eq!(removed, is(400, "malformed"));
    assert_eq!(verdict(&service, "DELETE", "/v1/rooms/abc/sessions/7", &[]).await, is(404, "not_found"));
    for query in ["identity=%07", "identity=", "resume=xyz", "identity=a&name=%00"] {
        let path = format!("/v1/rooms/abc/participants?{query}");
        assert_eq!(verdict(&service, "POST", &path, &[SDP]).await, is(400, "malformed"), "{query}");
    }
    let path = "/v1/rooms/abc/whep?participant=%07";
    assert_eq!(verdict(&service, "POST", path, &[SDP]).await, is(400, "malformed"));
    for query in ["after=1&before=2", "limit=0", "limit=x", "after=-1"] {
        let path = format!("/v1/rooms/abc/messages?{query}");
        assert_eq!(verdict(&service, "GET", &path, &[]).await, is(400, "malformed"), "{query}");
    }
}

#[tokio::test]
async fn a_join_is_an_sdp_offer_of_bounded_size() {
    let service = service(&config(true, true));
    for path in ["/v1/rooms/abc/participants", "/v1/rooms/abc/whip", "/v1/rooms/abc/whep"] {
        assert_eq!(verdict(&service, "POST", path, &[]).await, is(415, "unsupported_media_type"));
        assert_eq!(verdict(&service, "POST", path, &[JSON]).await, is(415, "unsupported_media_type"));
        let large = ask(&service, "POST", path, &[SDP], "x".repeat(OFFER_BYTES_MAX + 1)).await;
        assert_eq!(large.verdict(), is(413, "too_large"));
        let binary = ask(&service, "POST", path, &[SDP], vec![0xff, 0xfe]).await;
        assert_eq!(binary.verdict(), is(400, "malformed"));
        let fits =
            ask(&service, "POST", path, &[("content-type", "Application/SDP; charset=utf-8")], OFFER).await;
        assert_eq!(fits.verdict(), is(503, "unavailable"));
        assert!(fits.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn without_guests_a_join_needs_a_token_of_that_room() {
    let service = service(&config(false, false));
    let path = "/v1/rooms/abc/participants";
    let answer = ask(&service, "POST", path, &[SDP], OFFER).await;
    assert_eq!(answer.verdict(), is(401, "unauthorized"));
    assert_eq!(answer.headers[WWW_AUTHENTICATE], "Bearer realm=\"antiphon\"");
    let other = bearer("other", |_| ());
    let answer = verdict(&service, "POST", path, &[SDP, ("authorization", &other)]).await;
    assert_eq!(answer, is(403, "forbidden"));
    for room in ["abc", "*"] {
        let good = bearer(room, |_| ());
        let answer = verdict(&service, "POST", path, &[SDP, ("authorization", &good)]).await;
        assert_eq!(answer, is(503, "unavailable"));
    }
    for bad in ["Bearer nonsense", "Basic YTpi", &format!("Bearer {}", "x".repeat(20_000))] {
        let answer = ask(&service, "POST", path, &[SDP, ("authorization", bad)], OFFER).await;
        assert_eq!(answer.verdict(), is(401, "unauthorized"));
        assert!(answer.headers[WWW_AUTHENTICATE].to_str().unwrap().contains("invalid_token"));
    }
}

#[tokio::test]
async fn a_role_needs_its_grant() {
    let service = service(&config(false, false));
    let mute = bearer("abc", |grant| grant.publish = false);
    let blind = bearer("abc", |grant| grant.subscribe = false);
    for (path, token, expected) in [
        ("/v1/rooms/abc/whip", &mute, is(403, "forbidden")),
        ("/v1/rooms/abc/whep", &mute, is(503, "unavailable")),
        ("/v1/rooms/abc/whip", &blind, is(503, "unavailable")),
        ("/v1/rooms/abc/whep", &blind, is(403, "forbidden")),
    ] {
        let answer = verdict(&service, "POST", path, &[SDP, ("authorization", token)]).await;
        assert_eq!(answer, expected, "{path}");
    }
}

#[tokio::test]
async fn in_dev_a_stream_key_may_be_anything_but_a_shown_token_counts_elsewhere() {
    let service = service(&config(true, true));
    let key = ("authorization", "Bearer my-stream-key");
    for path in ["/v1/rooms/abc/whip", "/v1/rooms/abc/whep"] {
        assert_eq!(verdict(&service, "POST", path, &[SDP, key]).await, is(503, "unavailable"));
    }
    let join = verdict(&service, "POST", "/v1/rooms/abc/participants", &[SDP, key]).await;
    assert_eq!(join, is(401, "unauthorized"));
}

#[tokio::test]
async fn rooms_are_ruled_by_their_admins_and_in_dev_by_anyone() {
    let calls = [
        ("PATCH", "/v1/rooms/abc"),
        ("DELETE", "/v1/rooms/abc"),
        ("DELETE", "/v1/rooms/abc/participants/ann"),
        ("POST", "/v1/rooms/abc/participants/ann/mute"),
    ];
    let (open, dev) = (service(&config(false, true)), service(&config(true, true)));
    let (admin, member) = (bearer("abc", |_| ()), bearer("abc", |grant| grant.admin = false));
    for (method, path) in calls {
        for (service, token, expected) in [
            (&open, None, is(401, "unauthorized")),
            (&open, Some(&member), is(403, "forbidden")),
            (&open, Some(&admin), is(503, "unavailable")),
            (&dev, None, is(503, "unavailable")),
            (&dev, Some(&member), is(403, "forbidden")),
        ] {
            let headers: Vec<_> = token.map(|token| ("authorization", token.as_str())).into_iter().collect();
            let answer = ask(service, method, path, &headers, "").await;
            assert_eq!(answer.verdict(), expected, "{method} {path}");
        }
    }
    // Whoever is in the room shows the session; what it may do is the room's to say.
    let session = ("antiphon-session", "00000000000000000000000000000007");
    for call in
        [("PATCH", "/v1/rooms/abc"), ("DELETE", "/v1/rooms/abc"), ("DELETE", "/v1/rooms/abc/backdrop")]
    {
        assert_eq!(ask(&open, call.0, call.1, &[session], "").await.verdict(), is(503, "unavailable"));
        let nonsense = ask(&open, call.0, call.1, &[("antiphon-session", "x")], "").await;
        assert_eq!(nonsense.verdict(), is(400, "malformed"));
    }
    assert_eq!(ask(&open, "GET", "/v1/rooms", &[], "").await.verdict(), is(401, "unauthorized"));
    assert_eq!(ask(&dev, "GET", "/v1/rooms", &[], "").await.verdict(), is(503, "unavailable"));
}

#[tokio::test]
async fn a_room_is_made_by_guests_where_they_are_admitted_else_by_a_token() {
    let closed = service(&config(false, false));
    let wish = json!({"name": "abc"}).to_string();
    let create = async |service: &Router, token: Option<&str>, body: &str| {
        let mut headers = vec![JSON];
        headers.extend(token.map(|token| ("authorization", token)));
        ask(service, "POST", "/v1/rooms", &headers, body.to_owned()).await.verdict()
    };
    assert_eq!(create(&closed, None, &wish).await, is(401, "unauthorized"));
    assert_eq!(create(&closed, Some(&bearer("abc", |_| ())), &wish).await, is(503, "unavailable"));
    assert_eq!(create(&closed, Some(&bearer("abc", |_| ())), "").await, is(403, "forbidden"));
    assert_eq!(create(&closed, Some(&bearer("*", |_| ())), "").await, is(503, "unavailable"));
    let open = service(&config(false, true));
    assert_eq!(create(&open, None, "").await, is(503, "unavailable"));
    for bad in ["{", "[]", r#"{"nam": "abc"}"#, r#"{"mode": "x"}"#, r#"{"name": "a b"}"#, r#"{"lobby": 1}"#] {
        assert_eq!(create(&open, None, bad).await, is(400, "malformed"), "{bad}");
    }
    let form = ask(&open, "POST", "/v1/rooms", &[("content-type", "text/plain")], "{}").await;
    assert_eq!(form.verdict(), is(415, "unsupported_media_type"));
}

#[tokio::test]
async fn a_patch_of_a_session_needs_its_type_and_if_match() {
    let service = service(&config(false, false));
    let answer = verdict(&service, "PATCH", SESSION, &[FRAGMENT]).await;
    assert_eq!(answer, is(428, "precondition_required"));
    let answer = verdict(&service, "PATCH", SESSION, &[SDP, ("if-match", "*")]).await;
    assert_eq!(answer, is(415, "unsupported_media_type"));
    for tag in ["*", "\"e1\""] {
        let answer = verdict(&service, "PATCH", SESSION, &[FRAGMENT, ("if-match", tag)]).await;
        assert_eq!(answer, is(503, "unavailable"), "the session is the capability: no token is asked for");
    }
    assert_eq!(verdict(&service, "DELETE", SESSION, &[]).await, is(503, "unavailable"));
}

#[tokio::test]
async fn pages_elsewhere_may_publish_by_whip() {
    let service = service(&config(true, true));
    let preflight = [
        ("origin", "https://studio.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let answer = ask(&service, "OPTIONS", "/v1/rooms/abc/whip", &preflight, "").await;
    assert!(answer.status.is_success());
    assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    let allowed = answer.headers[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().to_lowercase();
    assert!(["authorization", "content-type", "if-match"].iter().all(|name| allowed.contains(name)));
    let methods = answer.headers[ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap();
    assert!(["POST", "PATCH", "DELETE"].iter().all(|name| methods.contains(name)));
    assert_eq!(answer.headers["accept-post"], "application/sdp");
    let answer = ask(&service, "OPTIONS", SESSION, &preflight, "").await;
    assert_eq!(answer.headers["accept-patch"], "application/trickle-ice-sdpfrag");
    // A refusal is readable from elsewhere too.
    let answer = ask(&service, "POST", "/v1/rooms/abc/whip", &[SDP, preflight[0]], OFFER).await;
    assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    let exposed = answer.headers[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().to_lowercase();
    assert!(["location", "etag", "link"].iter().all(|name| exposed.contains(name)));
}

#[tokio::test]
async fn only_listed_origins_are_let_in_when_there_is_a_list() {
    let mut config = config(true, true);
    config.http.cors_origins = vec!["https://studio.example".into()];
    let service = service(&config);
    let allowed = async |origin: &str| {
        let answer = ask(&service, "GET", "/healthz", &[("origin", origin)], "").await;
        answer.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
    };
    assert_eq!(allowed("https://studio.example").await.unwrap(), "https://studio.example");
    assert_eq!(allowed("https://evil.example").await, None);
}

#[tokio::test]
async fn health_tells_alive_from_ready() {
    let service = service(&config(true, true));
    let alive = ask(&service, "GET", "/healthz", &[], "").await;
    assert_eq!((alive.status.as_u16(), alive.body.as_slice()), (200, b"ok\n".as_slice()));
    assert_eq!(alive.headers["x-content-type-options"], "nosniff");
    assert_eq!(alive.headers["referrer-policy"], "no-referrer");
    assert_eq!(verdict(&service, "GET", "/readyz", &[]).await, is(503, "draining"));
    let metrics = ask(&service, "GET", "/metrics", &[], "").await;
    assert!(metrics.headers[CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
}

#[tokio::test]
async fn a_real_port_serves_until_it_is_told_to_stop() {
    let mut config = config(true, true);
    config.http.listen = ([127, 0, 0, 1], 0).into();
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let control = Control::unplugged();
    let files = files(&config, &control);
    let kept = (files, recordings(&config));
    let server = Server::bind(&config, control, kept, Billing::unplugged(), metrics).unwrap();
    let url = format!("http://{}", server.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let client = reqwest::Client::new();
    let answer = client.get(format!("{url}/healthz")).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok\n");
    let join =
        client.post(format!("{url}/v1/rooms/abc/whip")).header(CONTENT_TYPE, "application/sdp").body(OFFER);
    assert_eq!(join.send().await.unwrap().status(), 503, "the peer's address is known, and no loop runs");
    drop(stop);
    running.await.unwrap().unwrap();
    assert!(reqwest::get(format!("{url}/healthz")).await.is_err(), "nobody listens any more");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(true, true);
    config.http.listen = taken.local_addr().unwrap();
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let control = Control::unplugged();
    let files = files(&config, &control);
    let error = Server::bind(&config, control, (files, recordings(&config)), Billing::unplugged(), metrics)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains(&config.http.listen.to_string()) && error.contains("http.listen"), "{error}");
}

#[tokio::test]
async fn streams_are_started_by_admins_and_watched_by_those_who_may() {
    let service = service(&config(false, false));
    let verdict = async |method: &str, path: &str, token: &str, body: &'static str| {
        let headers = [("authorization", token), JSON];
        let headers = if token.is_empty() { &headers[1..] } else { &headers[..] };
        ask(&service, method, &format!("/v1/rooms/abc/{path}"), headers, body).await.verdict()
    };
    let (owner, guest) = (bearer("abc", |_| ()), bearer("abc", |grant| grant.admin = false));
    let blind = bearer("abc", |grant| (grant.subscribe, grant.admin) = (false, false));
    let url = r#"{"url": "rtmp://203.0.113.1/app/key"}"#;
    for (method, path, body) in
        [("POST", "hls", ""), ("DELETE", "hls", ""), ("GET", "restreams", ""), ("POST", "restreams", url)]
    {
        assert_eq!(verdict(method, path, "", body).await, (401, "unauthorized".into()), "{method} {path}");
        assert_eq!(verdict(method, path, &guest, body).await, (403, "forbidden".into()), "{method} {path}");
    }
    assert_eq!(verdict("POST", "hls", &owner, "").await, (503, "unavailable".into()));
    assert_eq!(verdict("DELETE", "hls", &owner, "").await, (404, "not_found".into()));
    assert_eq!(verdict("DELETE", "restreams/7", &owner, "").await, (404, "not_found".into()));
    assert_eq!(verdict("POST", "restreams", &owner, url).await, (403, "forbidden".into()));
    assert_eq!(verdict("POST", "restreams", &owner, "{}").await, (400, "malformed".into()));
    let inside = r#"{"url": "rtmp://localhost/app/key"}"#;
    assert_eq!(verdict("POST", "restreams", &owner, inside).await, (403, "forbidden".into()));
    let playlist = "hls/index.m3u8";
    assert_eq!(verdict("GET", playlist, "", "").await, (401, "unauthorized".into()));
    assert_eq!(verdict("GET", playlist, &blind, "").await, (403, "forbidden".into()));
    assert_eq!(verdict("GET", playlist, &guest, "").await, (404, "not_found".into()));
    let with = |token: &str| format!("{playlist}?token={}", token.trim_start_matches("Bearer "));
    assert_eq!(verdict("GET", &with(&guest), "", "").await, (404, "not_found".into()));
    assert_eq!(verdict("GET", &with(&blind), "", "").await, (403, "forbidden".into()));
    assert_eq!(verdict("GET", &with("a.b.c"), "", "").await, (401, "unauthorized".into()));
    let forged = "hls/ffff-00000000000000000000000000000000/high/index.m3u8";
    assert_eq!(verdict("GET", forged, &owner, "").await, (403, "forbidden".into()));
}
