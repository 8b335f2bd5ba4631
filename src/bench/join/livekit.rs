//! LiveKit's signalling: protobuf over a WebSocket (`/rtc`, protocol 15), with a token for each client.
//!
//! A publisher offers its own connection and may not subscribe, so that there is no second one to wait for.
//! A viewer is subscribed to all of its room by the server, which offers, again whenever something is added.
//! The server's candidates come one by one; those that come before its description wait for it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost::Message as _;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{ANSWER_WITHIN, ApiKey, Join, Line, Role};
use messages::{
    AddTrack, Candidate, Description, Leave, Ping, Request, Response, SignalRequest, SignalResponse,
};

mod messages;

/// A token outlives any run.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// As LiveKit's own clients do; it takes a client for gone after 15 s.
const PING_EVERY: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Joins, stays, and leaves when the run is over.
pub(super) async fn join(base: &Url, key: &ApiKey, join: &Join, line: &Line) -> Result<(), String> {
    let url = address(base, &token(key, join)?)?;
    let opened = timeout(ANSWER_WITHIN, tokio_tungstenite::connect_async(url.as_str())).await;
    let (socket, _) = opened.map_err(|_| "LiveKit does not answer")?.map_err(|error| error.to_string())?;
    let mut session = Session { socket, described: false, early: Vec::new() };
    let done = tokio::select! {
        done = session.stay(join, line) => done,
        () = line.over() => Ok(()),
    };
    let left = session.send(Request::Leave(Leave {})).await;
    done.and(left)
}

struct Session {
    socket: Socket,
    /// The client has the server's description, so it can take candidates.
    described: bool,
    /// Candidates from before that.
    early: Vec<String>,
}

impl Session {
    async fn stay(&mut self, join: &Join, line: &Line) -> Result<(), String> {
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.socket.next() => {
                    let message = message.ok_or("LiveKit closed the WebSocket")?;
                    if let Message::Binary(bytes) = message.map_err(|error| error.to_string())? {
                        let response = SignalResponse::decode(&*bytes).map_err(|error| error.to_string())?;
                        self.handle(response.message, join, line).await?;
                    }
                }
                _ = pings.tick() => self.send(Request::Ping(Ping { timestamp: 0, rtt: 0 })).await?,
            }
        }
    }

    async fn handle(&mut self, said: Option<Response>, join: &Join, line: &Line) -> Result<(), String> {
        match said {
            Some(Response::Join(_)) => self.publish(join).await,
            Some(Response::Answer(answer)) => {
                line.answer(answer.sdp);
                self.has_description(line);
                Ok(())
            }
            Some(Response::Offer(offer)) => {
                let sdp = line.offer(offer.sdp).await?;
                self.has_description(line);
                let answer = Description { kind: "answer".into(), sdp, id: offer.id };
                self.send(Request::Answer(answer)).await
            }
            Some(Response::Trickle(candidate)) => {
                self.candidate(&candidate, line);
                Ok(())
            }
            Some(Response::Leave(_)) => Err("LiveKit ended the session".into()),
            None => Ok(()),
        }
    }

    /// Announces the tracks and offers them.
    async fn publish(&mut self, join: &Join) -> Result<(), String> {
        let (Role::Publisher(_), Some(offer)) = (join.role, join.offer.as_ref()) else { return Ok(()) };
        self.send(Request::AddTrack(AddTrack::microphone())).await?;
        self.send(Request::AddTrack(AddTrack::camera(&join.encodings))).await?;
        self.send(Request::Offer(Description { kind: "offer".into(), sdp: offer.clone(), id: 0 })).await
    }

    fn has_description(&mut self, line: &Line) {
        self.described = true;
        self.early.drain(..).for_each(|candidate| line.candidate(candidate));
    }

    fn candidate(&mut self, candidate: &Candidate, line: &Line) {
        /// As in JavaScript.
        #[derive(Deserialize)]
        struct Init {
            candidate: String,
        }
        match serde_json::from_str::<Init>(&candidate.init) {
            // An empty one says that there are no more; TCP is not for us.
            Ok(init) if init.candidate.is_empty() || init.candidate.contains(" tcp ") => {}
            Ok(init) if self.described => line.candidate(init.candidate),
            Ok(init) => self.early.push(init.candidate),
            // One that cannot be read may be one of many.
            Err(_) => {}
        }
    }

    async fn send(&mut self, request: Request) -> Result<(), String> {
        let bytes = SignalRequest { message: Some(request) }.encode_to_vec();
        self.socket.send(Message::binary(bytes)).await.map_err(|error| error.to_string())
    }
}

fn address(base: &Url, token: &str) -> Result<Url, String> {
    let mut url = base.join("/rtc").map_err(|error| error.to_string())?;
    url.set_scheme("ws").map_err(|()| "the URL is no http:// one")?;
    url.query_pairs_mut()
        .append_pair("access_token", token)
        .append_pair("protocol", "15")
        .append_pair("sdk", "js")
        .append_pair("auto_subscribe", "1");
    Ok(url)
}

fn token(key: &ApiKey, join: &Join) -> Result<String, String> {
    #[derive(Serialize)]
    struct Claims<'a> {
        iss: &'a str,
        sub: String,
        exp: u64,
        video: Video,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Video {
        room: String,
        room_join: bool,
        can_publish: bool,
        can_subscribe: bool,
    }
    let publishes = matches!(join.role, Role::Publisher(_));
    let claims = Claims {
        iss: &key.id,
        sub: join.identity(),
        exp: jsonwebtoken::get_current_timestamp() + TOKEN_LIFE.as_secs(),
        video: Video {
            room: join.room_name(),
            room_join: true,
            can_publish: publishes,
            can_subscribe: !publishes,
        },
    };
    let key = EncodingKey::from_secret(key.secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_addresses_are_what_livekit_reads() {
        let viewer = Join {
            seat: 0,
            run: 1,
            room: 2,
            role: Role::Viewer(3),
            publishers: 1,
            encodings: Vec::new(),
            offer: None,
        };
        let key = ApiKey { id: "devkey".into(), secret: "secret".into() };
        let token = token(&key, &viewer).expect("a token");
        let claims =
            jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(&token).expect("claims").claims;
        assert_eq!(claims["iss"], "devkey");
        assert_eq!(claims["sub"], "viewer-3");
        assert_eq!(claims["video"]["room"], "bench-00000001-2");
        assert_eq!(claims["video"]["canSubscribe"], true);
        assert_eq!(claims["video"]["canPublish"], false);
        let base = Url::parse("http://127.0.0.1:7880").expect("a URL");
        let url = address(&base, &token).expect("an address");
        assert!(url.as_str().starts_with("ws://127.0.0.1:7880/rtc?access_token="), "{url}");
    }
}
