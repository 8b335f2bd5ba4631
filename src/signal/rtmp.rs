//! RTMP for encoders that have no WHIP: `rtmp://HOST/ROOM`, and a token as the stream key.
//!
//! What a token may do here is what it may do at `whip`, by the same code. What is pushed is read by a process
//! of its own (`feed`); this end takes RTMP apart and no more. RTMP has no words for a refusal that encoders
//! show: the connection is closed, and the log says why.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use metrics::counter;
use scuffle_rtmp::ServerSession;
use scuffle_rtmp::command_messages::UnknownCommand;
use scuffle_rtmp::messages::UnknownMessage;
use scuffle_rtmp::session::server::{ServerSessionError, SessionData, SessionHandler};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Signal;
use super::error::Problem;
use super::join::introduce;
use super::paywall::{self, Verdict};
use crate::control::Turned;
use crate::core::flv::{self, Tag};
use crate::core::ids::RoomName;
use crate::core::protocol::Code;
use crate::feed::{LiveFeed, LiveRequest};

/// Connections at a time, of which those that are over the node's streams are refused in words of the log.
/// Full: more wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// Whoever connects has said by then what it is for.
const PUBLISH_WITHIN: Duration = Duration::from_secs(10);
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
    let has_published = Arc::new(AtomicBool::new(false));
    let handler = Publication {
        signal,
        from: address.ip().to_canonical(),
        feed: None,
        has_published: Arc::clone(&has_published),
        tag: Vec::new(),
    };
    let run = ServerSession::new(NoEnd(stream), handler).run();
    let in_time = async {
        tokio::time::sleep(PUBLISH_WITHIN).await;
        if has_published.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = run => ended.map(drop).map_err(|error| error.to_string()),
        () = in_time => Err("it did not publish in time".to_owned()),
    };
    match (has_published.load(Ordering::Relaxed), ended) {
        (true, _) => "published",
        (false, Ok(())) => "broken",
        (false, Err(error)) => {
            tracing::debug!(error, "an RTMP connection came to nothing");
            if error == REFUSED.to_string() { "refused" } else { "broken" }
        }
    }
}

/// What the session is ended with. The library knows no refusal of a handler's; this one it never makes
/// itself before a `play`, which is refused as well.
const REFUSED: ServerSessionError = ServerSessionError::PlayNotSupported;

/// An encoder's one publication.
struct Publication {
    signal: Arc<Signal>,
    from: IpAddr,
    feed: Option<LiveFeed>,
    has_published: Arc<AtomicBool>,
    tag: Vec<u8>,
}

impl Publication {
    async fn open(&self, app: &str, key: &str) -> Result<LiveFeed, Problem> {
        let room = room_of(app)?;
        let key = key.split('?').next().unwrap_or_default();
        let (headers, name) = credentials(key)?;
        let signal = &self.signal;
        let caller = signal.authority.streamer(&headers);
        let caller = match paywall::pass(signal, caller, &headers, &room, self.from, None).await? {
            Verdict::In(caller) => caller,
            Verdict::Pay(_) => {
                return Err(Problem::new(
                    Code::PaymentRequired,
                    "this room costs money: publish with a ticket",
                ));
            }
        };
        let grant = signal.authority.grant(&caller, &room)?;
        if !grant.publish {
            return Err(Problem::new(Code::Forbidden, "the token lacks the `publish` grant"));
        }
        let has_token = matches!(caller, super::auth::Caller::Holder(_));
        let (identity, name) = introduce(caller, name, None)?;
        let may_create = signal.authority.admits_guests() || grant.publish || grant.admin;
        let from = self.from;
        let request = LiveRequest { room, identity, name, grant, has_token, may_create, from };
        signal.feeds.open_live(request).await.map_err(|turned| match turned {
            Turned::Away(refusal) => refusal.into(),
            Turned::Elsewhere(_) => Problem::new(
                Code::Unavailable,
                "the room is at another node, where RTMP cannot be sent on to",
            ),
        })
    }
}

impl SessionHandler for Publication {
    async fn on_publish(&mut self, _: u32, app: &str, key: &str) -> Result<(), ServerSessionError> {
        if self.feed.is_some() {
            return Err(REFUSED);
        }
        match self.open(app, key).await {
            Ok(mut feed) => {
                self.has_published.store(true, Ordering::Relaxed);
                feed.write(&flv::HEADER).await.map_err(|_| REFUSED)?;
                self.feed = Some(feed);
                Ok(())
            }
            Err(problem) => {
                tracing::info!(code = problem.code, reason = problem.detail, "an RTMP stream was refused");
                Err(REFUSED)
            }
        }
    }

    async fn on_unpublish(&mut self, _: u32) -> Result<(), ServerSessionError> {
        self.feed = None;
        Ok(())
    }

    async fn on_unknown_message(&mut self, _: u32, _: UnknownMessage) -> Result<(), ServerSessionError> {
        Ok(())
    }

    async fn on_unknown_command(&mut self, _: u32, _: UnknownCommand<'_>) -> Result<(), ServerSessionError> {
        Ok(())
    }

    async fn on_data(&mut self, _: u32, data: SessionData) -> Result<(), ServerSessionError> {
        let Some(feed) = &mut self.feed else { return Ok(()) };
        let (tag, at_ms, data) = match data {
            SessionData::Video { timestamp, data } => (Tag::Picture, timestamp, data),
            SessionData::Audio { timestamp, data } => (Tag::Sound, timestamp, data),
            SessionData::Amf0 { timestamp, data } => (Tag::Script, timestamp, data),
        };
        if !flv::write_tag(tag, at_ms, &data, &mut self.tag) {
            return Err(REFUSED);
        }
        // Its seat or its process is gone, which is told where it happened.
        feed.write(&self.tag).await.map_err(|_| REFUSED)
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

/// A stream that fails where another would end: the library reads on for ever from one that ends within the
/// handshake.
struct NoEnd(TcpStream);

impl AsyncRead for NoEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        let has_ended = buffer.filled().len() == before && buffer.remaining() > 0;
        Poll::Ready(if has_ended { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
    }
}

impl AsyncWrite for NoEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_ends_in_the_room() {
        for app in ["studio", "live/studio", "/live/studio/", "studio?a=b/c"] {
            assert_eq!(room_of(app).unwrap().as_str(), "studio", "{app}");
        }
        for app in ["", "live/", "a b", "live/../x"] {
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
