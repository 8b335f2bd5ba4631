//! Files that are played: begun, paused, sought in, ended.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};

use super::figures::Account;
use super::{Feeds, Inner, deliveries};
use crate::control::{FeedRequest, FeedRole, FeedSeat, Played, Turned, Wish, Wishes, unix_ms};
use crate::core::feed::{
    FeedFault, FeedMedia, FeedOrder, FromFeed, LINE_PICTURE, LINE_SOUND, Playing, ToFeed, sources,
};
use crate::core::files::FileState;
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::refusal::{Code, Refusal};
use crate::worker::{Delivery, Queues, bridge};

/// A process gets so long to find out what is in a file.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// And to carry out a change.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);
/// Of a file's name, as the name of who plays it.
const NAME_CHARS_MAX: usize = 58;

/// The body of `POST /v1/rooms/{room}/play`.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlayWish {
    /// The id of a file that is kept in the room, of sound or video.
    pub file: String,
    /// It shows its first picture and waits.
    pub paused: bool,
}

/// The body of `PATCH /v1/rooms/{room}/play/{player}`; what is absent stays.
#[derive(Debug, Default, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlayerChange {
    pub paused: Option<bool>,
    /// Where in the file it is to go on.
    pub position_ms: Option<u64>,
}

/// A file that is played.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PlayerState {
    pub id: String,
    /// As whom it is in the room.
    pub participant: Identity,
    pub file: MessageId,
    /// Of the file.
    pub name: String,
    pub paused: bool,
    /// Where it was at `at_ms`; unless it is paused, it went on since.
    pub position_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    pub video: bool,
    pub audio: bool,
    /// The picture goes on as it is in the file, and is not coded anew.
    pub copied: bool,
}

/// One that was asked for.
pub struct Player {
    serial: u64,
    file: MessageId,
    name: String,
    stop: Notify,
    /// Once it is known to be playable, and has its seat.
    started: OnceLock<Started>,
}

struct Started {
    identity: Identity,
    media: FeedMedia,
    words: mpsc::Sender<Change>,
    position: watch::Receiver<Position>,
}

/// A change, by its number.
struct Change {
    number: u64,
    change: PlayerChange,
}

#[derive(Debug, Clone, Copy, Default)]
struct Position {
    /// Of the last change that was carried out.
    number: u64,
    paused: bool,
    position_ms: u64,
    at_ms: u64,
    is_over: bool,
}

impl Player {
    /// `None` before it has begun.
    fn state(&self) -> Option<PlayerState> {
        let Started { identity, media, position, .. } = self.started.get()?;
        let Position { paused, position_ms, at_ms, .. } = *position.borrow();
        Some(PlayerState {
            id: self.serial.to_string(),
            participant: identity.clone(),
            file: self.file.clone(),
            name: self.name.clone(),
            paused,
            position_ms,
            at_ms,
            duration_ms: media.duration_ms,
            video: media.picture,
            audio: media.sound,
            copied: media.is_copied,
        })
    }
}

/// Takes a player off the list again, unless it has begun.
struct Place {
    inner: Arc<Inner>,
    room: RoomName,
    player: Arc<Player>,
}

impl Place {
    /// What the room's next node is to go on with.
    fn wish(&self, played: Option<Played>) {
        self.inner.control.wish(&self.room, Wish::Play(self.player.serial.to_string(), played));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.forget(&self.room, &self.player);
    }
}

impl Feeds {
    /// Plays a file that is kept in the room.
    ///
    /// # Errors
    /// `unavailable` where it is off, `not_found`, `gone`, `unsupported_media_type` for what is neither sound
    /// nor video or cannot be decoded, `quota_exceeded`, `node_full`, `end_to_end_encrypted`; or the room is
    /// at another node.
    pub async fn play(&self, room: &RoomName, wish: PlayWish) -> Result<PlayerState, Turned> {
        let inner = &self.0;
        let program = inner.program(inner.play.enabled, "this node plays no files: play.enabled is off")?;
        let id = MessageId::parse(&wish.file).map_err(|error| {
            Refusal::new(Code::Malformed, format!("`file` is the id of a file in the room: {error}"))
        })?;
        inner.control.room(room).await?;
        let file = inner.files.kept(room, &id).await?.file;
        check_type(&file)?;
        let place = inner.admit(room, id, &file)?;
        let bytes = inner.files.open_contents(&file).await?;
        let (deliver, mut from) = deliveries();
        let begin = ToFeed::Begin(inner.settings(false));
        let queues = bridge::start_reading(program, bytes.into(), begin, Account::open, deliver);
        let media = ready(&mut from).await?;
        let (position, position_of) = watch::channel(Position { at_ms: unix_ms(), ..Position::default() });
        let (words, words_of) = mpsc::channel(1);
        let seat = inner.seat(room, &file, media).await?;
        let number = inner.next_serial();
        say(&queues, ToFeed::Change { number, paused: Some(wish.paused), to_ms: None })?;
        say(&queues, ToFeed::Start)?;
        let started = Started { identity: seat.identity.clone(), media, words, position: position_of };
        // Nobody else has begun it.
        let _ = place.player.started.set(started);
        tracing::info!(%room, player = place.player.serial, copied = media.is_copied, "a file is played");
        let player = Arc::clone(&place.player);
        let task = Task { seat, queues, from, words: words_of, position, place, media };
        tokio::spawn(task.run());
        self.settled(&player, number).await.map_err(Turned::Away)
    }

    /// Goes on with what was played at a room's last node, where it would be by now.
    pub async fn resume(&self, room: &RoomName, wishes: &Wishes) {
        for (id, played) in &wishes.plays {
            // It was of that node; what goes on here has an id of its own.
            self.0.control.wish(room, Wish::Play(id.clone(), None));
            if let Err(turned) = self.go_on(room, played).await {
                tracing::warn!(%room, %turned, "a film of another node does not go on here");
            }
        }
    }

    async fn go_on(&self, room: &RoomName, played: &Played) -> Result<(), Turned> {
        let player = self.play(room, PlayWish { file: played.file.to_string(), paused: true }).await?;
        let position_ms = Some(played.position_ms(unix_ms()));
        let change = PlayerChange { paused: Some(played.paused), position_ms };
        if let Err(refusal) = self.change(room, &player.id, change).await {
            // It would be over.
            self.stop(room, &player.id).await?;
            return Err(refusal.into());
        }
        Ok(())
    }

    /// Files that are played in a room, in the order in which they began.
    pub fn players(&self, room: &RoomName) -> Vec<PlayerState> {
        let players = self.0.players();
        players.get(room).into_iter().flatten().filter_map(|player| player.state()).collect()
    }

    /// # Errors
    /// `not_found`, `malformed` for a place that the file does not have, `unavailable` where it does not
    /// answer.
    pub async fn change(
        &self,
        room: &RoomName,
        id: &str,
        change: PlayerChange,
    ) -> Result<PlayerState, Refusal> {
        let player = self.player(room, id)?;
        let started = player.started.get().ok_or_else(no_player)?;
        if let (Some(to_ms), Some(duration_ms)) = (change.position_ms, started.media.duration_ms)
            && to_ms > duration_ms
        {
            let words = format!("`position_ms` is beyond the end: the file has {duration_ms} ms");
            return Err(Refusal::new(Code::Malformed, words));
        }
        let number = self.0.next_serial();
        started.words.send(Change { number, change }).await.map_err(|_| no_player())?;
        self.settled(&player, number).await
    }

    /// # Errors
    /// `not_found`.
    pub async fn stop(&self, room: &RoomName, id: &str) -> Result<(), Refusal> {
        let player = self.player(room, id)?;
        player.stop.notify_one();
        // It has left its seat when its task is over.
        let started = player.started.get().ok_or_else(no_player)?;
        let mut position = started.position.clone();
        let _ = tokio::time::timeout(CHANGE_WITHIN, position.wait_for(|position| position.is_over)).await;
        Ok(())
    }

    fn player(&self, room: &RoomName, id: &str) -> Result<Arc<Player>, Refusal> {
        let players = self.0.players();
        let mut of_room = players.get(room).into_iter().flatten();
        of_room.find(|player| player.serial.to_string() == id).cloned().ok_or_else(no_player)
    }

    /// The state once a change was carried out.
    async fn settled(&self, player: &Player, number: u64) -> Result<PlayerState, Refusal> {
        let started = player.started.get().ok_or_else(no_player)?;
        let mut position = started.position.clone();
        let settled = position.wait_for(|position| position.number >= number || position.is_over);
        match tokio::time::timeout(CHANGE_WITHIN, settled).await {
            Ok(Ok(_)) => player.state().ok_or_else(no_player),
            Ok(Err(_)) => Err(no_player()),
            Err(_) => Err(Refusal::new(Code::Unavailable, "the player does not answer: try again")),
        }
    }
}

impl Inner {
    /// Makes room for one more.
    fn admit(self: &Arc<Self>, room: &RoomName, id: MessageId, file: &FileState) -> Result<Place, Refusal> {
        let mut players = self.players();
        let of_room = players.get(room).map_or(0, Vec::len);
        if of_room >= self.play.players_per_room_max as usize {
            let words = format!("the room has {of_room} players, which is its limit: end one of them");
            return Err(Refusal::new(Code::QuotaExceeded, words));
        }
        if players.values().map(Vec::len).sum::<usize>() >= self.play.players_max as usize {
            return Err(Refusal::new(Code::NodeFull, "this node has no room for one more player"));
        }
        let player = Arc::new(Player {
            serial: self.next_serial(),
            file: id,
            name: file.name.clone(),
            stop: Notify::new(),
            started: OnceLock::new(),
        });
        players.entry(room.clone()).or_default().push(Arc::clone(&player));
        Ok(Place { inner: Arc::clone(self), room: room.clone(), player })
    }

    fn forget(&self, room: &RoomName, player: &Arc<Player>) {
        let mut players = self.players();
        if let Some(of_room) = players.get_mut(room) {
            of_room.retain(|other| other.serial != player.serial);
            if of_room.is_empty() {
                players.remove(room);
            }
        }
    }

    async fn seat(&self, room: &RoomName, file: &FileState, media: FeedMedia) -> Result<FeedSeat, Turned> {
        let [picture, sound] = sources(false);
        let lines = [(LINE_PICTURE, picture, media.picture), (LINE_SOUND, sound, media.sound)];
        let published = lines.into_iter().filter(|(_, _, is_there)| *is_there);
        let name: String = file.name.chars().take(NAME_CHARS_MAX).collect();
        let identity = Identity::parse(&name).or_else(|_| Identity::parse("player"));
        let request = FeedRequest {
            room: room.clone(),
            identity: identity.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?,
            name,
            role: FeedRole::Player,
            sources: published.map(|(line, source, _)| (line, source)).collect(),
        };
        self.control.seat_feed(request).await
    }
}

/// Carries on until it is over.
struct Task {
    seat: FeedSeat,
    queues: Queues<ToFeed>,
    from: mpsc::Receiver<Delivery<FromFeed>>,
    words: mpsc::Receiver<Change>,
    position: watch::Sender<Position>,
    place: Place,
    media: FeedMedia,
}

impl Task {
    async fn run(mut self) {
        let player = Arc::clone(&self.place.player);
        let mut told = None;
        loop {
            tokio::select! {
                order = self.seat.orders.recv() => match order {
                    // One that is lost is asked for again.
                    Some(FeedOrder::Keyframe) => drop(self.queues.words.send(ToFeed::Keyframe)),
                    None => break,
                },
                delivery = self.from.recv() => match delivery {
                    Some(Delivery::Packets(packets)) => self.seat.send(packets),
                    Some(Delivery::News(news)) => if !self.hear(&news, &mut told).await { break },
                    None => break,
                },
                change = self.words.recv() => if let Some(Change { number, change }) = change {
                    let words =
                        ToFeed::Change { number, paused: change.paused, to_ms: change.position_ms };
                    if self.queues.words.send(words).is_err() { break }
                },
                () = player.stop.notified() => break,
            }
        }
        let Self { seat, queues, position, place, .. } = self;
        drop(queues);
        seat.leave().await;
        tracing::info!(room = %place.room, player = player.serial, "a file is played no more");
        // Where the room has gone to another node that has been told already, and this is not heard.
        place.wish(None);
        drop(place);
        position.send_modify(|position| position.is_over = true);
    }

    /// False when it is over.
    async fn hear(&mut self, news: &FromFeed, told: &mut Option<(u64, bool)>) -> bool {
        match *news {
            FromFeed::Position { number, paused, at_ms: position_ms } => {
                let at_ms = unix_ms();
                // All in the room go on counting by themselves; they are told what they cannot know.
                if told.replace((number, paused)) != Some((number, paused)) {
                    let (id, duration_ms) = (self.place.player.serial.to_string(), self.media.duration_ms);
                    let file = self.place.player.file.clone();
                    let played = Played { file, paused, position_ms, at_ms };
                    self.place.wish(Some(played));
                    self.seat.tell(Playing { id, paused, position_ms, at_ms, duration_ms }).await;
                }
                self.position.send_modify(|position| {
                    *position = Position { number, paused, position_ms, at_ms, ..*position };
                });
                true
            }
            FromFeed::Figures(_) | FromFeed::Ready(_) => true,
            FromFeed::Failed(fault) => {
                tracing::warn!(room = %self.place.room, %fault, "a file cannot be played to its end");
                false
            }
            FromFeed::Ended | FromFeed::Gone => false,
        }
    }
}

/// Waits until a process knows what it reads.
async fn ready(from: &mut mpsc::Receiver<Delivery<FromFeed>>) -> Result<FeedMedia, Refusal> {
    let ready = async {
        loop {
            match from.recv().await {
                Some(Delivery::News(FromFeed::Ready(media))) => return Ok(media),
                Some(Delivery::News(FromFeed::Failed(fault))) => return Err(unplayable(fault)),
                Some(Delivery::News(FromFeed::Gone)) | None => {
                    let words = "the player failed over this file: it may be broken";
                    return Err(Refusal::new(Code::UnsupportedMediaType, words));
                }
                Some(_) => {}
            }
        }
    };
    let waited = tokio::time::timeout(READY_WITHIN, ready).await;
    waited.unwrap_or_else(|_| Err(Refusal::new(Code::Unavailable, "the player does not begin: try again")))
}

fn unplayable(fault: FeedFault) -> Refusal {
    let code = match fault {
        FeedFault::NoEncoder => Code::Unavailable,
        FeedFault::Unreadable | FeedFault::Empty | FeedFault::Undecodable => Code::UnsupportedMediaType,
    };
    Refusal::new(code, fault.to_string())
}

fn check_type(file: &FileState) -> Result<(), Refusal> {
    let is_media = file.media_type.starts_with("video/") || file.media_type.starts_with("audio/");
    let words = || format!("only sound and video can be played, and this is {}", file.media_type);
    is_media.then_some(()).ok_or_else(|| Refusal::new(Code::UnsupportedMediaType, words()))
}

fn say(queues: &Queues<ToFeed>, words: ToFeed) -> Result<(), Refusal> {
    queues
        .words
        .send(words)
        .map_err(|_| Refusal::new(Code::Unavailable, "the player does not begin: try again"))
}

fn no_player() -> Refusal {
    Refusal::new(Code::NotFound, "nothing of this id is played in the room")
}
