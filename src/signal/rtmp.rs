//! RTMP for encoders that have no WHIP: `rtmp://HOST/ROOM`, and a token as the stream key.
//!
//! What a token may do here is what it may do at `whip`, by the same code. What is pushed is read by a
//! process of its own (`feed`); this end takes RTMP apart and no more. An encoder that is refused is told so
//! by a code; few show it, so the log says why, too.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use metrics::counter;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{ServerSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Signal;
use super::auth::Caller;
use super::error::Problem;
use super::join::introduce;
use super::paywall::{self, Verdict};
use crate::control::Turned;
use crate::core::flv::{self, Tag};
use crate::core::ids::RoomName;
use crate::core::protocol::Code;
use crate::feed::{LiveFeed, LiveRequest};

/// Connections at a time, published or not. Full: more wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// Whoever connects has said by then what it is for.
const PUBLISH_WITHIN: Duration = Duration::from_secs(10);
/// And in so many bytes: the handshake and a few commands.
const UNPUBLISHED_BYTES_MAX: usize = 64 << 10;
/// An encoder that sends nothing for so long is gone.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// One that takes no answers for so long, too.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// RTMP's largest message, and something for chunks of others between: more without a message is nonsense.
const MESSAGE_BYTES_MAX: usize = 17 << 20;
const READ_BYTES: usize = 64 << 10;
/// After an error of the listening socket, such as too many open files.
const ACCEPT_AFTER: Duration = Duration::from_millis(200);
/// A longer stream key is no token.
const KEY_BYTES_MAX: usize = 8 * 1024;

/// Takes connections for ever.
pub async fn serve(listener: TcpListener, signal: Arc<Signal>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let signal = Arc::clone(&signal);
                tokio::spawn(async move {
                    let result = take(stream, address, signal).await;
                    counter!("antiphon_rtmp_connections_total", "result" => result).increment(1);
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an RTMP connection cannot be taken");
                tokio::time::sleep(ACCEPT_AFTER).await;
            }
        }
    }
}

/// One encoder, until it goes. Says what became of it.
async fn take(stream: TcpStream, address: SocketAddr, signal: Arc<Signal>) -> &'static str {
    let from = address.ip().to_canonical();
    let mut encoder = Encoder { stream, signal, from, feed: None, app: String::new(), tag: Vec::new() };
    match encoder.serve(Instant::now() + PUBLISH_WITHIN).await {
        Ended::Refused => "refused",
        _ if encoder.feed.is_some() => "published",
        Ended::Finished => "published",
        Ended::Broken => "broken",
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It said that it publishes no more.
    Finished,
    Refused,
    /// It is no RTMP, or was cut; or its seat or its process is gone, which is told where it happened.
    Broken,
}

/// The other end, and its one publication.
struct Encoder {
    stream: TcpStream,
    signal: Arc<Signal>,
    from: IpAddr,
    feed: Option<LiveFeed>,
    app: String,
    tag: Vec<u8>,
}

impl Encoder {
    async fn serve(&mut self, publish_by: Instant) -> Ended {
        let ended = async {
            let mut bytes = self.shake_hands(publish_by).await?;
            let config = ServerSessionConfig::new();
            let (mut session, mut results) = ServerSession::new(config).map_err(|_| Ended::Broken)?;
            // Bytes since anything came of them.
            let mut waiting = 0;
            loop {
                results.extend(session.handle_input(&bytes).map_err(|_| Ended::Broken)?);
                waiting = if results.is_empty() { waiting + bytes.len() } else { 0 };
                let bytes_max = if self.feed.is_some() { MESSAGE_BYTES_MAX } else { UNPUBLISHED_BYTES_MAX };
                if waiting > bytes_max {
                    return Err(Ended::Broken);
                }
                while !results.is_empty() {
                    for result in std::mem::take(&mut results) {
                        results.extend(self.handle(&mut session, result).await?);
                    }
                }
                let by = if self.feed.is_some() { Instant::now() + SILENT_FOR } else { publish_by };
                bytes = self.read(by).await?;
            }
        };
        let Err::<std::convert::Infallible, _>(ended) = ended.await;
        ended
    }

    /// What came after the handshake.
    async fn shake_hands(&mut self, by: Instant) -> Result<Vec<u8>, Ended> {
        let mut handshake = Handshake::new(PeerType::Server);
        loop {
            let bytes = self.read(by).await?;
            match handshake.process_bytes(&bytes).map_err(|_| Ended::Broken)? {
                HandshakeProcessResult::InProgress { response_bytes } => self.write(&response_bytes).await?,
                HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                    self.write(&response_bytes).await?;
                    return Ok(remaining_bytes);
                }
            }
        }
    }

    async fn read(&mut self, by: Instant) -> Result<Vec<u8>, Ended> {
        let mut bytes = vec![0; READ_BYTES];
        let read = tokio::time::timeout_at(by.into(), self.stream.read(&mut bytes)).await;
        match read {
            Ok(Ok(length @ 1..)) => bytes.truncate(length),
            Ok(Ok(_) | Err(_)) | Err(_) => return Err(Ended::Broken),
        }
        Ok(bytes)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let written = timeout(WRITE_WITHIN, self.stream.write_all(bytes)).await;
        written.ok().and_then(Result::ok).ok_or(Ended::Broken)
    }

    /// Does what a message asks for; gives what the library makes of the answer.
    async fn handle(
        &mut self,
        session: &mut ServerSession,
        result: ServerSessionResult,
    ) -> Result<Vec<ServerSessionResult>, Ended> {
        let event = match result {
            ServerSessionResult::OutboundResponse(packet) => {
                self.write(&packet.bytes).await?;
                return Ok(Vec::new());
            }
            ServerSessionResult::RaisedEvent(event) => event,
            ServerSessionResult::UnhandleableMessageReceived(_) => return Ok(Vec::new()),
        };
        let answered = match event {
            ServerSessionEvent::ConnectionRequested { request_id, app_name } => {
                self.app = app_name;
                session.accept_request(request_id)
            }
            ServerSessionEvent::ReleaseStreamRequested { request_id, .. } => {
                session.accept_request(request_id)
            }
            ServerSessionEvent::PublishStreamRequested { request_id, stream_key, .. } => {
                if let Err(problem) = self.publish(&stream_key).await {
                    return self.refuse(session, request_id, &problem).await;
                }
                session.accept_request(request_id)
            }
            ServerSessionEvent::VideoDataReceived { data, timestamp, .. } => {
                self.pass_on(Tag::Picture, timestamp.value, &data).await?;
                return Ok(Vec::new());
            }
            ServerSessionEvent::AudioDataReceived { data, timestamp, .. } => {
                self.pass_on(Tag::Sound, timestamp.value, &data).await?;
                return Ok(Vec::new());
            }
            ServerSessionEvent::PublishStreamFinished { .. } => return Err(Ended::Finished),
            ServerSessionEvent::PlayStreamRequested { request_id, .. } => {
                let problem = Problem::new(Code::Forbidden, "nothing is played here by RTMP");
                return self.refuse(session, request_id, &problem).await;
            }
            _ => return Ok(Vec::new()),
        };
        answered.map_err(|_| Ended::Broken)
    }

    async fn refuse(
        &mut self,
        session: &mut ServerSession,
        request: u32,
        problem: &Problem,
    ) -> Result<Vec<ServerSessionResult>, Ended> {
        tracing::info!(code = problem.code, reason = problem.detail, "an RTMP stream was refused");
        let answers = session.reject_request(request, "NetStream.Publish.BadName", &problem.detail);
        for answer in answers.unwrap_or_default() {
            if let ServerSessionResult::OutboundResponse(packet) = answer {
                self.write(&packet.bytes).await?;
            }
        }
        Err(Ended::Refused)
    }

    async fn publish(&mut self, key: &str) -> Result<(), Problem> {
        if self.feed.is_some() {
            return Err(Problem::new(Code::Forbidden, "a connection publishes one stream"));
        }
        let mut feed = self.open(key).await?;
        let begun = feed.write(&flv::HEADER).await;
        begun.map_err(|_| Problem::new(Code::Unavailable, "the stream's process ended at its start"))?;
        self.feed = Some(feed);
        Ok(())
    }

    async fn open(&self, key: &str) -> Result<LiveFeed, Problem> {
        let room = room_of(&self.app)?;
        let (headers, name) = credentials(key.split('?').next().unwrap_or_default())?;
        let signal = &self.signal;
        let caller = signal.authority.streamer(&headers);
        let caller = match paywall::pass(signal, caller, &headers, &room, self.from, None).await? {
            Verdict::In(caller) => caller,
            Verdict::Pay(_) => {
                let words = "this room costs money: publish with a ticket";
                return Err(Problem::new(Code::PaymentRequired, words));
            }
        };
        let grant = signal.authority.grant(&caller, &room)?;
        if !grant.publish {
            return Err(Problem::new(Code::Forbidden, "the token lacks the `publish` grant"));
        }
        let has_token = matches!(caller, Caller::Holder(_));
        let (identity, name) = introduce(caller, name, None)?;
        // Whoever may publish in it may open it.
        let request =
            LiveRequest { room, identity, name, grant, has_token, may_create: true, from: self.from };
        signal.feeds.open_live(request).await.map_err(|turned| match turned {
            Turned::Away(refusal) => refusal.into(),
            Turned::Elsewhere(_) | Turned::ToBranch(_) => Problem::new(
                Code::Unavailable,
                "the room is at another node, where RTMP cannot be sent on to",
            ),
        })
    }

    async fn pass_on(&mut self, tag: Tag, at_ms: u32, data: &[u8]) -> Result<(), Ended> {
        let Some(feed) = &mut self.feed else { return Ok(()) };
        if !flv::write_tag(tag, at_ms, data, &mut self.tag) {
            return Err(Ended::Broken);
        }
        feed.write(&self.tag).await.map_err(|_| Ended::Broken)
    }
}

/// `ROOM`, or whatever before it, such as `live/ROOM`.
fn room_of(app: &str) -> Result<RoomName, Problem> {
    let path = app.split('?').next().unwrap_or_default();
    let name = path.trim_matches('/').rsplit('/').next().unwrap_or_default();
    Ok(RoomName::parse(name)?)
}

/// A stream key as a request to `whip` would show it: a token, or a guest's name.
fn credentials(key: &str) -> Result<(HeaderMap, Option<String>), Problem> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Problem::new(Code::Malformed, "the stream key is longer than any token"));
    }
    let mut headers = HeaderMap::new();
    let is_token = key.bytes().filter(|byte| *byte == b'.').count() == 2;
    if !is_token {
        let name = Some(key.to_owned()).filter(|key| !key.is_empty());
        return Ok((headers, name));
    }
    let value = HeaderValue::from_str(&format!("Bearer {key}"));
    headers.insert(
        AUTHORIZATION,
        value.map_err(|_| Problem::new(Code::Malformed, "the stream key is no token"))?,
    );
    Ok((headers, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_ends_in_the_room() {
        for app in ["studio", "live/studio", "/live/studio/", "studio?a=b/c"] {
            assert_eq!(room_of(app).unwrap().as_str(), "studio", "{app}");
        }
        for app in ["", "/", "a b", "live/../x"] {
            assert!(room_of(app).is_err(), "{app}");
        }
    }

    #[test]
    fn a_stream_key_is_a_token_or_a_name() {
        let (headers, name) = credentials("a.b.c").unwrap();
        assert_eq!((headers[AUTHORIZATION].to_str().unwrap(), name), ("Bearer a.b.c", None));
        let (headers, name) = credentials("obs").unwrap();
        assert_eq!((headers.is_empty(), name.as_deref()), (true, Some("obs")));
        assert_eq!(credentials("").unwrap().1, None);
        assert!(credentials("a.b.\n").is_err() && credentials(&"k".repeat(9_000)).is_err());
    }
}
