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
use crate::core::rtmp::{Chunks, Message, RtmpFault};
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
/// Of one connection, all in all: the library remembers each stream that one makes.
const COMMANDS_MAX: u32 = 1_000;
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

/// A server's side of RTMP. The library that knows it gets whole messages alone, each in one chunk and looked at
/// before: others can make it panic.
struct Session {
    chunks: Chunks,
    inner: ServerSession,
    commands: u32,
    whole: Vec<u8>,
}

impl Session {
    /// With what is to be said first.
    fn begin() -> Result<(Self, Vec<ServerSessionResult>), Ended> {
        let (mut inner, mut results) =
            ServerSession::new(ServerSessionConfig::new()).map_err(|_| Ended::Broken)?;
        let mut whole = Vec::new();
        Message::in_one_chunk().write(&mut whole);
        results.extend(inner.handle_input(&whole).map_err(|_| Ended::Broken)?);
        Ok((Self { chunks: Chunks::default(), inner, commands: 0, whole }, results))
    }

    /// What comes of the next message; `None` where there is none yet.
    fn next(&mut self) -> Result<Option<Vec<ServerSessionResult>>, Ended> {
        let broken = |fault: RtmpFault| {
            tracing::debug!(%fault, "an RTMP connection is broken");
            Ended::Broken
        };
        let Some(message) = self.chunks.poll().map_err(broken)? else { return Ok(None) };
        self.commands += u32::from(message.is_command());
        if self.commands > COMMANDS_MAX {
            return Err(Ended::Broken);
        }
        self.whole.clear();
        message.write(&mut self.whole);
        self.inner.handle_input(&self.whole).map(Some).map_err(|_| Ended::Broken)
    }
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
            let (mut session, mut results) = Session::begin()?;
            // Bytes before it publishes, and then since anything came of them.
            let mut waiting = 0;
            loop {
                waiting += bytes.len();
                session.chunks.push(&bytes);
                loop {
                    while !results.is_empty() {
                        for result in std::mem::take(&mut results) {
                            results.extend(self.handle(&mut session.inner, result).await?);
                        }
                    }
                    match session.next()? {
                        Some(more) => results = more,
                        None => break,
                    }
                    waiting = if self.feed.is_some() { 0 } else { waiting };
                }
                let bytes_max = if self.feed.is_some() { MESSAGE_BYTES_MAX } else { UNPUBLISHED_BYTES_MAX };
                if waiting > bytes_max {
                    return Err(Ended::Broken);
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
            Turned::Elsewhere(_) | Turned::ToBranch(_) | Turned::ToHome(_) => Problem::new(
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
    use proptest::prelude::*;
    use rml_rtmp::chunk_io::ChunkSerializer;
    use rml_rtmp::messages::MessagePayload;

    use super::*;

    const NOTHING: &[u8] = &[5];
    const NUMBER: &[u8] = b"\0\x3f\xf0\0\0\0\0\0\0";

    fn text(text: &str) -> Vec<u8> {
        [&[2], &(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn object(name: &str, value: &str) -> Vec<u8> {
        [&[3], &text(name)[1..], &text(value), &[0, 0, 9]].concat()
    }

    fn payload(type_id: u8, data: &[u8]) -> MessagePayload {
        let mut payload = MessagePayload::new();
        (payload.type_id, payload.message_stream_id, payload.data) = (type_id, 1, data.to_vec().into());
        payload
    }

    /// What an encoder says until it publishes, and of its stream, as the library writes it.
    fn said() -> Vec<u8> {
        let command = |name: &str, more: &[u8]| payload(20, &[&text(name), NUMBER, more].concat());
        let metadata = [text("@setDataFrame"), text("onMetaData"), object("encoder", "b")].concat();
        let messages = [
            payload(5, &5_000_u32.to_be_bytes()),
            command("connect", &object("app", "live/studio")),
            command("createStream", NOTHING),
            command("publish", &[NOTHING, &text("key"), &text("live")].concat()),
            payload(18, &metadata),
            payload(9, &[0x17; 300]),
            payload(8, &[0xaf; 20]),
            command("closeStream", &[NOTHING, NUMBER].concat()),
        ];
        let mut serializer = ChunkSerializer::new();
        let written =
            messages.iter().flat_map(|payload| serializer.serialize(payload, false, false).unwrap().bytes);
        written.collect()
    }

    /// Names of what came of bytes; the connection ends where they are no RTMP.
    fn heard(bytes: &[u8]) -> Vec<String> {
        let (mut session, _) = Session::begin().unwrap();
        let mut heard = Vec::new();
        session.chunks.push(bytes);
        while let Ok(Some(results)) = session.next() {
            for result in results {
                let ServerSessionResult::RaisedEvent(event) = result else { continue };
                let words = format!("{event:?}");
                heard.push(words.split(' ').next().unwrap_or_default().to_owned());
                if let ServerSessionEvent::ConnectionRequested { request_id, .. }
                | ServerSessionEvent::PublishStreamRequested { request_id, .. } = event
                {
                    // Where it cannot be accepted the connection ends.
                    let Ok(_) = session.inner.accept_request(request_id) else { return heard };
                }
            }
        }
        heard
    }

    #[test]
    fn an_encoder_is_understood() {
        let heard = heard(&said());
        assert_eq!(
            heard,
            [
                "ConnectionRequested",
                "PublishStreamRequested",
                "StreamMetadataChanged",
                "VideoDataReceived",
                "AudioDataReceived",
                "PublishStreamFinished"
            ]
        );
    }

    /// Without [`Chunks`] the library panics on the first three of these, which says when they are no longer
    /// needed, and overflows its stack on the last.
    #[test]
    fn what_the_library_cannot_bear_ends_the_connection() {
        let message = |id: u8, length: usize, kind: u8, body: &[u8]| {
            let length = (length as u32).to_be_bytes();
            [&[id, 0, 0, 0], &length[1..], &[kind, 0, 0, 0, 0], body].concat()
        };
        let between = [message(4, 200, 9, &[0; 128]), message(6, 20, 9, &[0; 20])].concat();
        let torn = [message(4, 200, 9, &[0; 128]), message(4, 20, 9, &[0; 20])].concat();
        let bare = message(3, 4, 20, b"\x02\0\x01x");
        let mut deep = message(2, 4, 1, &[0, 0xff, 0xff, 0xff]);
        deep.extend(message(3, 240_000, 20, &[3, 0, 1, b'a'].repeat(60_000)));
        for bytes in [&between, &torn, &bare] {
            let trusting = std::panic::catch_unwind(|| {
                let (mut session, _) = ServerSession::new(ServerSessionConfig::new()).unwrap();
                session.handle_input(bytes).is_ok()
            });
            assert!(trusting.is_err());
        }
        for bytes in [between, torn, bare, deep] {
            heard(&bytes);
        }
    }

    #[test]
    fn a_connection_that_commands_without_end_is_ended() {
        let payload = payload(20, &[&text("createStream"), NUMBER, NOTHING].concat());
        let mut serializer = ChunkSerializer::new();
        let (mut session, _) = Session::begin().unwrap();
        let mut ended = None;
        for number in 0..2 * COMMANDS_MAX {
            session.chunks.push(&serializer.serialize(&payload, false, false).unwrap().bytes);
            if session.next().is_err() {
                ended = Some(number);
                break;
            }
        }
        assert_eq!(ended, Some(COMMANDS_MAX));
    }

    proptest! {
        #[test]
        fn whatever_comes_does_no_harm(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            cut in any::<prop::sample::Index>(),
            more in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut bytes = said();
            let at = cut.index(bytes.len());
            bytes.splice(at..at, more);
            for (index, value) in changes {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            heard(&bytes);
        }

        #[test]
        fn no_handshake_does_harm(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_600), 1..5)
        ) {
            let mut handshake = Handshake::new(PeerType::Server);
            for (number, mut piece) in pieces.into_iter().enumerate() {
                if number == 0 {
                    piece.insert(0, 3);
                }
                if !matches!(handshake.process_bytes(&piece), Ok(HandshakeProcessResult::InProgress { .. })) {
                    break;
                }
            }
        }
    }

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
