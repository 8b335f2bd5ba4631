//! Janus's videoroom plugin over its HTTP API: a session and a handle for each client, events by long poll.
//!
//! A publisher joins and offers in one request. A viewer subscribes to all feeds of its room on one handle
//! (multistream, Janus 1.x), gets Janus's offer and answers it. Feed ids are the publishers' numbers from 1.

use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{ANSWER_WITHIN, Join, Line, Role, reason};

/// Videoroom's error for a room that is there already.
const ROOM_EXISTS: u64 = 427;

/// A reply or an event; only what is needed of it.
#[derive(Debug, Deserialize)]
struct Message {
    janus: String,
    data: Option<Created>,
    error: Option<Failure>,
    plugindata: Option<PluginData>,
    jsep: Option<Jsep>,
}

/// A new session or handle.
#[derive(Debug, Deserialize)]
struct Created {
    id: u64,
}

#[derive(Debug, Deserialize)]
struct Failure {
    code: u64,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct PluginData {
    data: Plugin,
}

/// What the videoroom says.
#[derive(Debug, Deserialize)]
struct Plugin {
    error_code: Option<u64>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Jsep {
    sdp: String,
}

impl Message {
    /// What Janus or the videoroom refuses, as words.
    fn refusal(&self) -> Option<String> {
        let core = self.error.as_ref().map(|failure| format!("Janus {}: {}", failure.code, failure.reason));
        let plugin = self.plugindata.as_ref().map(|plugin| &plugin.data);
        let plugin = plugin.filter(|plugin| plugin.error_code != Some(ROOM_EXISTS)).and_then(|plugin| {
            let code = plugin.error_code?;
            Some(format!("videoroom {code}: {}", plugin.error.as_deref().unwrap_or_default()))
        });
        core.or(plugin)
    }
}

/// Joins, stays, and ends the session when the run is over.
pub(super) async fn join(http: &Client, base: &Url, join: &Join, line: &Line) -> Result<(), String> {
    let root = base.join("/janus").map_err(|error| error.to_string())?;
    let mut session = Handle::open(http, root).await?;
    let done = tokio::select! {
        done = stay(&mut session, join, line) => done,
        () = line.over() => Ok(()),
    };
    let destroyed = session.request(&session.session, json!({ "janus": "destroy" })).await;
    done.and(destroyed.map(|_| ()))
}

async fn stay(handle: &mut Handle<'_>, join: &Join, line: &Line) -> Result<(), String> {
    let room = u64::from(join.run) << 16 | u64::from(join.room);
    handle.send(create(room, join.publishers), None).await?;
    match join.role {
        Role::Publisher(number) => {
            let offer = join.offer.as_deref().ok_or("a publisher has to offer")?;
            handle.send(publish(room, number), Some(json!({ "type": "offer", "sdp": offer }))).await?;
            line.answer(handle.description().await?);
        }
        Role::Viewer(_) => {
            handle.send(subscribe(room, join.publishers), None).await?;
            let offer = handle.description().await?;
            let answer = line.offer(offer).await?;
            let start = json!({ "request": "start" });
            handle.send(start, Some(json!({ "type": "answer", "sdp": answer }))).await?;
        }
        Role::Person(_) => return Err("here one either publishes or views".into()),
    }
    // Polling goes on, as it keeps the session alive.
    loop {
        let event = handle.poll().await?;
        if event.janus == "hangup" || event.janus == "timeout" {
            return Err(format!("Janus ended the session: {}", event.janus));
        }
    }
}

fn create(room: u64, publishers: u32) -> Value {
    json!({
        "request": "create", "room": room, "publishers": publishers, "bitrate": 0,
        "audiocodec": "opus", "videocodec": "vp8", "transport_wide_cc_ext": true, "audiolevel_ext": true,
    })
}

fn publish(room: u64, number: u32) -> Value {
    json!({
        "request": "joinandconfigure", "ptype": "publisher", "room": room, "id": number + 1, "bitrate": 0,
    })
}

fn subscribe(room: u64, publishers: u32) -> Value {
    let streams: Vec<Value> = (1..=publishers).map(|feed| json!({ "feed": feed })).collect();
    json!({ "request": "join", "ptype": "subscriber", "room": room, "streams": streams })
}

/// A session with one handle of the videoroom.
struct Handle<'a> {
    http: &'a Client,
    session: Url,
    handle: Url,
}

impl<'a> Handle<'a> {
    async fn open(http: &'a Client, root: Url) -> Result<Self, String> {
        let mut opened = Self { http, session: root.clone(), handle: root };
        opened.session = opened.make(&opened.session, json!({ "janus": "create" })).await?;
        let attach = json!({ "janus": "attach", "plugin": "janus.plugin.videoroom" });
        opened.handle = opened.make(&opened.session, attach).await?;
        Ok(opened)
    }

    /// Creates something below `url`. Returns its own URL.
    async fn make(&self, url: &Url, request: Value) -> Result<Url, String> {
        let id = self.request(url, request).await?.data.ok_or("Janus names no id")?.id;
        let mut made = url.clone();
        made.path_segments_mut().map_err(|()| "the URL can have no path")?.push(&id.to_string());
        Ok(made)
    }

    async fn request(&self, url: &Url, mut request: Value) -> Result<Message, String> {
        request["transaction"] = "antiphon".into();
        let request = self.http.post(url.clone()).json(&request).timeout(ANSWER_WITHIN);
        let message: Message = request.send().await.map_err(reason)?.json().await.map_err(reason)?;
        message.refusal().map_or(Ok(message), Err)
    }

    async fn send(&self, body: Value, jsep: Option<Value>) -> Result<(), String> {
        let mut message = json!({ "janus": "message", "body": body });
        if let Some(jsep) = jsep {
            message["jsep"] = jsep;
        }
        self.request(&self.handle, message).await.map(|_| ())
    }

    /// The next event; Janus answers within 30 s even if there is none.
    async fn poll(&self) -> Result<Message, String> {
        let message: Message =
            self.http.get(self.session.clone()).send().await.map_err(reason)?.json().await.map_err(reason)?;
        message.refusal().map_or(Ok(message), Err)
    }

    /// Waits for the event that has an SDP.
    async fn description(&self) -> Result<String, String> {
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            let event = timeout_at(until, self.poll()).await.map_err(|_| "Janus sent no SDP in time")??;
            if let Some(jsep) = event.jsep {
                return Ok(jsep.sdp);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        serde_json::from_str(text).expect("a message of Janus")
    }

    #[test]
    fn replies_and_events_of_janus_are_understood() {
        let created = message(r#"{"janus":"success","transaction":"a","data":{"id":4574061985075210}}"#);
        assert_eq!(created.data.map(|data| data.id), Some(4_574_061_985_075_210));
        let event = message(
            r#"{"janus":"event","session_id":1,"transaction":"a","sender":2,
                "plugindata":{"plugin":"janus.plugin.videoroom","data":{"videoroom":"attached","room":7}},
                "jsep":{"type":"offer","sdp":"v=0\r\n"}}"#,
        );
        assert_eq!(event.refusal(), None);
        assert_eq!(event.jsep.map(|jsep| jsep.sdp).as_deref(), Some("v=0\r\n"));
        let idle = message(r#"{"janus":"keepalive"}"#);
        assert!(idle.refusal().is_none() && idle.jsep.is_none());
    }

    #[test]
    fn refusals_are_told_apart_from_a_room_that_is_there() {
        let refused = message(r#"{"janus":"error","error":{"code":458,"reason":"No such session"}}"#);
        assert_eq!(refused.refusal().as_deref(), Some("Janus 458: No such session"));
        let plugin = |code: u32| {
            message(&format!(
                r#"{{"janus":"success","plugindata":{{"plugin":"janus.plugin.videoroom",
                    "data":{{"videoroom":"event","error_code":{code},"error":"Room 7"}}}}}}"#
            ))
        };
        assert_eq!(plugin(426).refusal().as_deref(), Some("videoroom 426: Room 7"));
        assert_eq!(plugin(427).refusal(), None);
    }

    #[test]
    fn a_viewer_asks_for_every_feed_of_its_room() {
        let streams = &subscribe(7, 3)["streams"];
        assert_eq!(*streams, json!([{ "feed": 1 }, { "feed": 2 }, { "feed": 3 }]));
        assert_eq!(publish(7, 2)["id"], 3);
    }
}
