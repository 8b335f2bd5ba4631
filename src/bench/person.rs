//! Somebody in a room who comes back by itself: a client with sound and chat that joins through any of a
//! cluster's nodes, notices when its node is gone, and joins again with what it has not sent yet.
//!
//! One thread each, which drives one client over UDP and does its HTTP between turns. What has happened is
//! read from a snapshot.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use reqwest::{Client as Http, Url, header};
use serde_json::{Value, json};

use super::client::{Channel, Offer};
use super::engine::Engine;
use super::source::AudioSource;

/// Longest turn of the loop, within which a word that was given is sent.
const TURN: Duration = Duration::from_millis(10);
const PING_EVERY: Duration = Duration::from_millis(500);
/// After this long without a word from the node it is asked over HTTP whether it lives.
const SUSPECT_AFTER: Duration = Duration::from_secs(2);
/// And after this long it is left, whatever it says there.
const SILENCE_MAX: Duration = Duration::from_secs(9);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// From a join's answer to the first word on the `control` channel.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);
/// Between two rounds of trying all nodes, doubled each time up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(1));
/// After a refusal, before the same is said again.
const SAY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Words that wait to be acknowledged. Full: the next is refused.
const UNSENT_MAX: usize = 1_000;

/// What has happened to a person.
#[derive(Debug, Clone, Default)]
pub struct Story {
    /// URL of the node that it is connected to; none while it is looking for one.
    pub node: Option<String>,
    /// How often it was welcomed.
    pub welcomes: u32,
    /// As whom, the last time.
    pub identity: String,
    /// Ids of its messages that were acknowledged, in that order.
    pub acknowledged: Vec<String>,
    /// Ids of all messages that it was shown, in that order, each time that it was.
    pub shown: Vec<String>,
    /// From the last word of one node to the welcome of the next.
    pub gaps: Vec<Duration>,
    /// When it last got media.
    pub media_at: Option<Instant>,
    /// From the last packet before it was gone to the first after.
    pub media_gaps: Vec<Duration>,
    /// The longest time between two packets of one connection, since [`Person::listen_anew`].
    pub silence_max: Duration,
    /// The longest that it got no processor itself, or waited for HTTP, since then: it took and sent no media
    /// for so long.
    pub stall_max: Duration,
    /// The last refusal or failure on its way back.
    pub trouble: Option<String>,
}

/// A handle on somebody. The person leaves when it is dropped.
pub struct Person {
    story: Arc<Mutex<Story>>,
    unsaid: Arc<Mutex<VecDeque<(String, String)>>>,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Person {
    /// Joins `room` as `identity` through one of the nodes at `urls`, and stays. `number` tells its sound
    /// from that of others.
    ///
    /// # Errors
    /// The system gives no thread or no epoll.
    pub fn start(room: &str, identity: &str, number: u32, urls: Vec<String>) -> io::Result<Self> {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST), room, identity, number, urls)
    }

    /// As [`Person::start`], from this address of the machine.
    ///
    /// # Errors
    /// As there.
    pub fn start_at(
        local: IpAddr,
        room: &str,
        identity: &str,
        number: u32,
        urls: Vec<String>,
    ) -> io::Result<Self> {
        let story = Arc::new(Mutex::new(Story::default()));
        let unsaid = Arc::new(Mutex::new(VecDeque::new()));
        let over = Arc::new(AtomicBool::new(false));
        let life = Life {
            local,
            room: room.to_owned(),
            identity: identity.to_owned(),
            number,
            urls: urls.into(),
            http: Http::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            story: Arc::clone(&story),
            unsaid: Arc::clone(&unsaid),
            over: Arc::clone(&over),
            session: None,
            seat: None,
            requests: 0,
        };
        let thread = thread::Builder::new().name("person".into()).spawn(move || life.live())?;
        Ok(Self { story, unsaid, over, thread: Some(thread) })
    }

    /// Says something, now or as soon as it can; `id` is the message's. False when too much waits.
    pub fn say(&self, id: &str, text: &str) -> bool {
        let mut unsaid = locked(&self.unsaid);
        let fits = unsaid.len() < UNSENT_MAX;
        if fits {
            unsaid.push_back((id.to_owned(), text.to_owned()));
        }
        fits
    }

    pub fn story(&self) -> Story {
        locked(&self.story).clone()
    }

    /// From here on [`Story::silence_max`] and [`Story::stall_max`] count.
    pub fn listen_anew(&self) {
        let mut story = locked(&self.story);
        (story.silence_max, story.stall_max) = (Duration::ZERO, Duration::ZERO);
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics on nothing, and there is nothing to be done if it did.
            let _ = thread.join();
        }
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A joined session, as its `Location` names it.
struct Session {
    url: Url,
    id: String,
}

/// Why a connection is left.
enum End {
    Over,
    /// The node is gone or has sent us away: look for another.
    Lost,
}

struct Life {
    local: IpAddr,
    room: String,
    identity: String,
    number: u32,
    /// The one to try first comes first.
    urls: VecDeque<String>,
    http: Http,
    runtime: tokio::runtime::Runtime,
    story: Arc<Mutex<Story>>,
    unsaid: Arc<Mutex<VecDeque<(String, String)>>>,
    over: Arc<AtomicBool>,
    session: Option<Session>,
    /// What the node gave it for the case that the room moves.
    seat: Option<String>,
    requests: u64,
}

/// One connection's state.
struct Link {
    engine: Engine,
    seat: usize,
    heard_at: Instant,
    pinged_at: Instant,
    suspected_at: Instant,
    welcomed: bool,
    packets: u64,
    /// Something was refused for now: nothing is said before.
    quiet_until: Instant,
    /// Messages sent on this connection, by request, that wait for their answer.
    sent: VecDeque<(u64, String)>,
}

impl Life {
    fn live(mut self) {
        let mut pause = PAUSE.0;
        let mut lost_at: Option<Instant> = None;
        while !self.is_over() {
            match self.connect() {
                Ok(mut link) => {
                    let end = self.stay(&mut link, &mut lost_at);
                    if link.welcomed {
                        pause = PAUSE.0;
                    }
                    if matches!(end, End::Over) {
                        break;
                    }
                    lost_at.get_or_insert(link.heard_at);
                    locked(&self.story).node = None;
                }
                Err(trouble) => {
                    locked(&self.story).trouble = Some(trouble);
                    self.urls.rotate_left(1);
                    self.rest(pause);
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
        if let Some(session) = self.session.take() {
            let goodbye = self.http.delete(session.url).timeout(ANSWER_WITHIN);
            // A server ends what falls silent.
            let _ = self.runtime.block_on(async { goodbye.send().await });
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn rest(&self, pause: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(pause).await });
    }

    /// Joins through the first node of the list, to wherever that leads.
    fn connect(&mut self) -> Result<Link, String> {
        let mut engine = Engine::new(self.local).map_err(|error| error.to_string())?;
        let now = Instant::now();
        let offer = Offer {
            audio: Some(AudioSource::new(self.number, now)),
            audio_slots: 3,
            channels: true,
            ..Offer::default()
        };
        let (seat, sdp) = engine.add(offer).map_err(|error| error.to_string())?;
        let resume = self.session.as_ref().map(|session| session.id.clone());
        let joined = match self.join(sdp.clone(), resume.as_deref()) {
            // The session ended with its node: come in anew, under the same name.
            Err(refusal) if resume.is_some() && refusal.starts_with("404") => self.join(sdp, None),
            joined => joined,
        };
        let answer = joined?;
        engine.answer(seat, &answer);
        let now = Instant::now();
        Ok(Link {
            engine,
            seat,
            heard_at: now,
            pinged_at: now,
            suspected_at: now,
            welcomed: false,
            packets: 0,
            quiet_until: now,
            sent: VecDeque::new(),
        })
    }

    fn join(&mut self, offer: String, resume: Option<&str>) -> Result<String, String> {
        let base = self.urls.front().cloned().ok_or("no node to join through")?;
        let resume = resume.map(|id| format!("&resume={id}")).unwrap_or_default();
        let url = format!("{base}/v1/rooms/{}/participants?identity={}{resume}", self.room, self.identity);
        let mut request = self.http.post(url).header(header::CONTENT_TYPE, "application/sdp").body(offer);
        if let Some(seat) = &self.seat {
            request = request.header("antiphon-seat", seat);
        }
        let asked = async {
            let response = request.timeout(ANSWER_WITHIN).send().await.map_err(|error| reason(&error))?;
            let (status, headers, at) =
                (response.status(), response.headers().clone(), response.url().clone());
            let body = response.text().await.map_err(|error| reason(&error))?;
            Ok::<_, String>((status, headers, at, body))
        };
        let (status, headers, at, body) = self.runtime.block_on(asked)?;
        if !status.is_success() {
            return Err(format!("{status}: {}", body.chars().take(200).collect::<String>()));
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let session = text("location").and_then(|location| at.join(location).ok());
        let session = session.ok_or("the answer names no session")?;
        for node in text("antiphon-nodes").unwrap_or_default().split(',').map(str::trim) {
            if !node.is_empty() && !self.urls.iter().any(|known| known == node) {
                self.urls.push_back(node.to_owned());
            }
        }
        self.seat = text("antiphon-seat").map(str::to_owned);
        let id = session.path_segments().and_then(Iterator::last).unwrap_or_default().to_owned();
        self.session = Some(Session { url: session, id });
        Ok(body)
    }

    /// Keeps the connection until it is of no use any more.
    fn stay(&mut self, link: &mut Link, lost_at: &mut Option<Instant>) -> End {
        let joined_at = Instant::now();
        let mut turned_at = joined_at;
        loop {
            if self.is_over() {
                return End::Over;
            }
            if link.engine.turn(Instant::now() + TURN).is_err() {
                return End::Lost;
            }
            let now = Instant::now();
            self.note_stall(now.saturating_duration_since(turned_at));
            turned_at = now;
            while let Some(message) = link.engine.seats[link.seat].client.poll_message() {
                link.heard_at = now;
                let Ok(message) = serde_json::from_slice::<Value>(&message.data) else { continue };
                if self.take(link, lost_at, &message) {
                    return End::Lost;
                }
            }
            self.note_media(link, now);
            let seat = &link.engine.seats[link.seat];
            let silent = now.saturating_duration_since(link.heard_at);
            let is_late = !link.welcomed && now.saturating_duration_since(joined_at) > WELCOME_WITHIN;
            if seat.failure.is_some() || seat.client.is_closed() || silent > SILENCE_MAX || is_late {
                return End::Lost;
            }
            if silent > SUSPECT_AFTER && now >= link.suspected_at + SUSPECT_AFTER {
                link.suspected_at = now;
                if !self.node_lives() {
                    return End::Lost;
                }
            }
            self.speak(link, now);
        }
    }

    /// Whether the session's node still answers over HTTP.
    fn node_lives(&self) -> bool {
        let url = self.session.as_ref().and_then(|session| session.url.join("/healthz").ok());
        let Some(url) = url else { return false };
        let asked = self.http.get(url).timeout(ANSWER_WITHIN / 2);
        let answer = self.runtime.block_on(async { asked.send().await });
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    fn note_stall(&self, turn: Duration) {
        let stall = turn.saturating_sub(TURN);
        if stall > TURN {
            let mut story = locked(&self.story);
            story.stall_max = story.stall_max.max(stall);
        }
    }

    fn note_media(&self, link: &mut Link, now: Instant) {
        let received =
            link.engine.seats[link.seat].client.slots().values().map(|slot| slot.sequence.packets).sum();
        if received > link.packets {
            let first = link.packets == 0;
            link.packets = received;
            let mut story = locked(&self.story);
            let Some(before) = story.media_at.replace(now) else { return };
            let silence = now.saturating_duration_since(before);
            if first {
                story.media_gaps.push(silence);
            } else {
                story.silence_max = story.silence_max.max(silence);
            }
        }
    }

    fn speak(&mut self, link: &mut Link, now: Instant) {
        if now >= link.pinged_at + PING_EVERY {
            link.pinged_at = now;
            self.send(link, json!({"type": "ping"}));
        }
        if !link.welcomed || now < link.quiet_until {
            return;
        }
        let unsaid: Vec<_> = locked(&self.unsaid).iter().skip(link.sent.len()).cloned().collect();
        for (id, text) in unsaid {
            let Some(request) = self.send(link, json!({"type": "chat.send", "id": id, "text": text})) else {
                return;
            };
            link.sent.push_back((request, id));
        }
    }

    fn send(&mut self, link: &mut Link, mut message: Value) -> Option<u64> {
        self.requests += 1;
        message["request"] = self.requests.into();
        let sent = link.engine.send(link.seat, Channel::Control, message.to_string().as_bytes());
        sent.then_some(self.requests)
    }

    /// True when the node has sent us away.
    fn take(&mut self, link: &mut Link, lost_at: &mut Option<Instant>, message: &Value) -> bool {
        let mut story = locked(&self.story);
        match message["type"].as_str().unwrap_or_default() {
            "welcome" => {
                link.welcomed = true;
                let url = self.session.as_ref().map(|session| session.url.origin().ascii_serialization());
                story.node = url;
                story.welcomes += 1;
                story.identity = message["me"].as_str().unwrap_or_default().to_owned();
                if let Some(lost_at) = lost_at.take() {
                    story.gaps.push(lost_at.elapsed());
                }
                let before: Vec<_> = message["messages"].as_array().into_iter().flatten().collect();
                story.shown.extend(before.iter().filter_map(|one| one["id"].as_str()).map(str::to_owned));
            }
            "chat.message" => story.shown.extend(message["message"]["id"].as_str().map(str::to_owned)),
            "ok" => {
                let request = message["request"].as_u64();
                let place = link.sent.iter().position(|(sent, _)| Some(*sent) == request);
                if let Some((_, id)) = place.and_then(|place| link.sent.remove(place)) {
                    locked(&self.unsaid).retain(|(unsaid, _)| *unsaid != id);
                    story.acknowledged.push(id);
                }
            }
            "error" => {
                let request = message["request"].as_u64();
                story.trouble = message["code"].as_str().map(str::to_owned);
                // Refused for now: it stays the first to be sent, on this connection from anew.
                if link.sent.iter().any(|(sent, _)| Some(*sent) == request) {
                    link.sent.clear();
                    link.quiet_until = Instant::now() + SAY_AGAIN_AFTER;
                }
            }
            "removed" => {
                story.trouble = message["reason"].as_str().map(str::to_owned);
                return true;
            }
            _ => {}
        }
        false
    }
}

/// What went wrong, without the URL.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() { "no answer in time".into() } else { "the node cannot be reached".into() }
}
