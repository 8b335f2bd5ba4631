//! Relays for people whose network lets no media through: which there are, and what lets a client in.
//!
//! A name holds until a moment that it says itself, and its password is a keyed hash of it
//! (draft-uberti-behave-turn-rest-00, what coturn calls `use-auth-secret`): the relay checks it without
//! asking us. The name says nothing of who has it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY};
use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LINK};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Signal;
use super::error::{Problem, ProblemBody};
use super::extract::InRoom;
use crate::config::Turn;
use crate::core::ids::RoomName;

/// One entry of a browser's `RTCConfiguration.iceServers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct IceServer {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// What a client puts into its `RTCConfiguration` before it joins.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct IceServerList {
    ice_servers: Vec<IceServer>,
}

/// The servers that this node knows of.
pub struct IceServers {
    stun: Vec<String>,
    turn: Vec<String>,
    key: Option<hmac::Key>,
    ttl: Duration,
}

impl IceServers {
    pub fn new(config: &Turn) -> Self {
        let (turn, stun) = config.urls.iter().cloned().partition(|url| url.starts_with("turn"));
        let key = config.secret.as_ref().map(|secret| secret.reveal().as_bytes());
        Self {
            stun,
            turn,
            key: key.map(|bytes| hmac::Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, bytes)),
            ttl: Duration::from_secs(config.ttl_seconds),
        }
    }

    /// For one client, from `now` on. `nonce` sets its name apart from others'.
    fn offered(&self, now: SystemTime, nonce: u64) -> Vec<IceServer> {
        let mut offered = Vec::new();
        if !self.stun.is_empty() {
            offered.push(IceServer { urls: self.stun.clone(), username: None, credential: None });
        }
        if let Some(key) = self.key.as_ref().filter(|_| !self.turn.is_empty()) {
            let until = (now + self.ttl).duration_since(UNIX_EPOCH).unwrap_or_default();
            let username = format!("{}:{nonce:016x}", until.as_secs());
            let credential = STANDARD.encode(hmac::sign(key, username.as_bytes()));
            offered.push(IceServer {
                urls: self.turn.clone(),
                username: Some(username),
                credential: Some(credential),
            });
        }
        offered
    }

    /// Names them in the answer to a join, as RFC 9725 §4.6 wants it.
    pub fn advertise(&self, headers: &mut HeaderMap) {
        for server in self.offered(SystemTime::now(), rand::random()) {
            for url in &server.urls {
                let mut link = format!("<{url}>; rel=\"ice-server\"");
                if let (Some(username), Some(credential)) = (&server.username, &server.credential) {
                    link += &format!("; username=\"{username}\"; credential=\"{credential}\"");
                    link += "; credential-type=\"password\"";
                }
                if let Ok(mut link) = HeaderValue::try_from(link) {
                    link.set_sensitive(true);
                    headers.append(LINK, link);
                }
            }
        }
    }
}

/// Relays for a join
///
/// What to put into `RTCConfiguration` before the offer is made: STUN and TURN servers, with names and passwords
/// that hold for hours. An empty list where the node has none. The same stand in `Link` headers of the join's
/// answer (RFC 9725 §4.6).
#[utoipa::path(
    get, path = "/v1/rooms/{room}/ice-servers", tag = "join",
    params(("room" = RoomName, Path)),
    responses(
        (status = 200, body = IceServerList),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 403 forbidden"),
    )
)]
pub async fn list(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = signal.authority.caller(&headers)?;
    signal.authority.grant(&caller, &room)?;
    let ice_servers = signal.ice_servers.offered(SystemTime::now(), rand::random());
    Ok(([(CACHE_CONTROL, "no-store")], Json(IceServerList { ice_servers })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn servers() -> IceServers {
        IceServers::new(&Turn {
            urls: ["stun:s.example.org", "turn:t.example.org:3478?transport=udp", "turns:t.example.org"]
                .map(String::from)
                .to_vec(),
            secret: Some(Secret::new("north")),
            ttl_seconds: 3_600,
        })
    }

    #[test]
    fn a_relay_can_check_the_password_by_itself() {
        let [stun, turn] = &servers().offered(UNIX_EPOCH + Duration::from_secs(1_000), 7)[..] else {
            panic!("one entry each")
        };
        assert_eq!((stun.urls.len(), &stun.username), (1, &None));
        assert_eq!(turn.urls.len(), 2);
        assert_eq!(turn.username.as_deref(), Some("4600:0000000000000007"));
        // printf %s 4600:0000000000000007 | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(turn.credential.as_deref(), Some("8IxhWHnZTVqn8PTV4bpuv/dmIpA="));
    }

    #[test]
    fn an_answer_links_each_server_and_keeps_the_password_out_of_logs() {
        let mut headers = HeaderMap::new();
        servers().advertise(&mut headers);
        let links: Vec<_> = headers.get_all(LINK).iter().collect();
        assert_eq!(links.len(), 3);
        assert_eq!(links[0], "<stun:s.example.org>; rel=\"ice-server\"");
        let turn = links[1].to_str().expect("text");
        assert!(turn.starts_with("<turn:t.example.org:3478?transport=udp>; rel=\"ice-server\"; username=\""));
        assert!(turn.ends_with("; credential-type=\"password\""));
        assert!(!format!("{headers:?}").contains("credential"));
    }

    #[test]
    fn none_are_told_where_none_are_known() {
        let mut headers = HeaderMap::new();
        let none = IceServers::new(&Turn::default());
        none.advertise(&mut headers);
        assert!(headers.is_empty() && none.offered(UNIX_EPOCH, 0).is_empty());
    }
}
