//! The node's one control loop: which rooms are open, on which shard each lives, and who may still come in.
//!
//! Shells talk to it through [`Control`], a cheap handle. What concerns a room is passed on to the room's
//! shard with the asker's reply channel inside, so an answer takes no second hop. The loop never waits for
//! a shard: a full mailbox refuses the request with [`Code::Unavailable`].

mod far;
mod feeds;
mod home;
mod joining;
mod ledger;
mod log;
mod people;
mod placement;
mod recordings;
mod streams;
mod wishes;
mod workers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rand::RngExt as _;
use tokio::sync::oneshot;

use crate::cluster::relay::Links;
use crate::cluster::{Cluster, LeaseNotice};
use crate::core::chat::Asker;
pub use crate::core::chat::{Author, ChatCommand, HistoryRange, MessagePage};
use crate::core::files::SmallFile;
use crate::core::ids::{RoomName, SessionId};
use crate::core::mix::backdrop::Backdrop;
pub use crate::core::participant::Seat;
use crate::core::participant::{Entrant, Member, Part};
use crate::core::protocol::{Access, Mode, ParticipantState, RoomChange, RoomState};
use crate::core::recording::ConsentRule;
use crate::core::refusal::{Code, Refusal};
use crate::core::spread::Comer;
use crate::core::stats::{RoomStats, RoomSummary};
use crate::events::LogError;
use crate::events::writer::EventWriter;
use crate::mailbox::ControlSender;
use crate::media::negotiate;
use crate::media::shard::{Command, IceChange, Join, RoomCommand};
use placement::{Ask, Newcomer, Place};
use recordings::no_recordings;

pub use far::Confined;
pub use feeds::{FeedRequest, FeedRole, FeedSeat};
pub use home::{Home, Turned};
pub use joining::{JoinRequest, Joined, Patched, Role, Sent};
pub use placement::{Around, Node, Placement, notices, unix_ms};
pub use wishes::{Played, Resumed, Wish, Wishes};

/// Settings of a room that is about to be made.
#[derive(Debug, Clone, Default)]
pub struct NewRoom {
    /// Absent: a unique, sayable one is generated.
    pub name: Option<RoomName>,
    pub mode: Mode,
    pub access: Access,
    pub lobby: bool,
    pub e2ee: bool,
    /// Absent: as the node's configuration has it.
    pub recording_consent: Option<ConsentRule>,
    /// Absent: the node's limit.
    pub participants_max: Option<u32>,
    /// The first to join without a token becomes its admin.
    pub first_is_admin: bool,
}

/// A small file that came over a data channel, for those who keep files.
pub struct IncomingFile {
    pub room: RoomName,
    pub file: SmallFile,
}

/// The way in for every shell. Each call is one message to the control loop and one back.
#[derive(Clone)]
pub struct Control {
    asks: ControlSender<Ask>,
    events: EventWriter,
    media: negotiate::Identity,
    cluster: Cluster,
    links: Option<Links>,
    confined: Arc<OnceLock<Confined>>,
    resumed: Arc<OnceLock<ControlSender<Resumed>>>,
    ready: Arc<AtomicBool>,
}

impl Control {
    /// A handle with no loop behind it: every call answers `unavailable`, and the node is not ready.
    #[cfg(test)]
    pub(crate) fn unplugged() -> Self {
        use crate::config::Config;

        let (asks, _) = crate::mailbox::control(1);
        let log = Box::new(crate::events::memory::MemoryLog::default());
        let events = EventWriter::spawn(log).expect("a thread");
        let crypto = Arc::new(str0m_aws_lc_rs::default_provider());
        let certificate = crypto.dtls_provider.generate_certificate().expect("a certificate");
        let media = negotiate::Identity { certificate, crypto, initial_estimate_bps: 0 };
        let (cluster, _) = Cluster::start(&Config::default(), 0).expect("no address to be wrong");
        let (links, confined, resumed) = (None, Arc::default(), Arc::default());
        let ready = Arc::new(AtomicBool::new(false));
        Self { asks, events, media, cluster, links, confined, resumed, ready }
    }

    /// # Errors
    /// `room_exists`, `node_full`, `draining`, `unavailable`; or it is to be made at another node.
    pub async fn create_room(&self, new: NewRoom) -> Result<RoomState, Turned> {
        self.make_room(new, true).await
    }

    async fn make_room(&self, mut new: NewRoom, anywhere: bool) -> Result<RoomState, Turned> {
        let _claiming = match &new.name {
            Some(name) => Some(self.cluster.claiming(name).await),
            None => None,
        };
        let won = self.win_new(&mut new, anywhere).await?;
        Ok(self.ask(|reply| Ask::Create { new, won, reply }).await?)
    }

    pub async fn rooms(&self) -> Result<Vec<RoomSummary>, Refusal> {
        let names = self.ask(|reply| Ask::Names { reply }).await?;
        let mut rooms = Vec::with_capacity(names.len());
        for name in names {
            // One that ended meanwhile is not listed.
            rooms.extend(self.room(&name).await.ok());
        }
        Ok(rooms)
    }

    /// # Errors
    /// `not_found`.
    pub async fn room(&self, room: &RoomName) -> Result<RoomSummary, Refusal> {
        self.in_room(room, RoomCommand::Summary).await
    }

    /// # Errors
    /// `not_found`, `unavailable` for a mode that cannot be had.
    pub async fn change_room(&self, room: &RoomName, change: RoomChange) -> Result<RoomState, Refusal> {
        self.in_room(room, |reply| RoomCommand::Change(change, reply)).await
    }

    /// Puts a picture behind the tiles of a room's mix, or takes it away.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn set_backdrop(
        &self,
        room: &RoomName,
        backdrop: Option<Backdrop>,
    ) -> Result<RoomState, Refusal> {
        self.in_room(room, |reply| RoomCommand::Backdrop(backdrop, reply)).await
    }

    /// # Errors
    /// `not_found`.
    pub async fn close_room(&self, room: &RoomName) -> Result<(), Refusal> {
        self.in_room(room, RoomCommand::Close).await
    }

    /// # Errors
    /// `not_found`, `room_locked`, `room_full`, `room_private`, `rate_limited`, `bad_offer`, `forbidden`,
    /// `node_full`, `draining`, `unavailable`; or the room is at another node.
    pub async fn join(&self, mut request: JoinRequest) -> Result<Joined, Turned> {
        let asked_at = Instant::now();
        // Before it is given a place: an offer that cannot be read opens no room.
        let offer = negotiate::Offer::parse(request.offer)?;
        let newcomer = Newcomer {
            room: request.room.clone(),
            from: request.from,
            may_create: request.may_create,
            won: None,
            far: None,
            sent: request.sent,
            resume: request.resume,
            comer: match request.role {
                Role::Viewer { .. } => (!offer.has_channels()).then_some(Comer::Viewer),
                Role::Member | Role::Publisher => Some(Comer::Member),
            },
            proven: request.has_token.then(|| request.identity.clone()),
        };
        let lodges = newcomer.comer == Some(Comer::Member);
        let Place { shard, serial, reach, id, epoch, opened_at_ms, in_branch } = self.place(newcomer).await?;
        let room = request.room.clone();
        let lodges = lodges && in_branch;
        // A session that another node had is none here; whoever had its seat there has it here.
        let had = request
            .seat
            .take()
            .filter(|seat| seat.room == room && seat.opened_at_ms == opened_at_ms && seat.epoch < epoch);
        let returns = had.is_some();
        if let Some(seat) = had {
            (request.identity, request.name, request.grant) = (seat.identity, seat.name, seat.grant);
            request.resume = None;
        }
        let creds = crate::media::credentials(id, serial, random_pair());
        // The offer is parsed here, on a thread that may take its time; the shard gets what came of it.
        let negotiated = negotiate::accept(asked_at, &self.media, &reach, creds, offer)?;
        let entrant = Entrant {
            identity: request.identity,
            name: request.name,
            grant: request.grant,
            part: match request.role {
                Role::Member => Part::Member,
                Role::Publisher => Part::Publisher,
                Role::Viewer { of } => Part::Viewer { of },
            },
            session: if lodges {
                SessionId::of_lodger(id, rand::rng().random())
            } else {
                SessionId::new(id, rand::rng().random())
            },
            has_token: request.has_token,
            returns,
            lines: negotiated.ingress.lines.clone(),
            slots: negotiated.slots.clone(),
            seed: rand::rng().random(),
        };
        let resume = request.resume;
        let (reply, granted) = oneshot::channel();
        let join = Join { serial, entrant, resume, negotiated, asked_at, reply };
        let command = Command::InRoom(request.room, RoomCommand::Join(Box::new(join)));
        shard.send(command).map_err(|_| overloaded())?;
        let Some(granted) = granted.await.map_err(|_| overloaded())?? else {
            return Err(self.turned_home(&room).await);
        };
        let session = granted.session;
        // A viewer has nothing that another node would have to know.
        let has_seat = lodges || !in_branch;
        let seat = if has_seat { self.seat_of(&room, session, epoch, opened_at_ms).await } else { None };
        Ok(Joined { session, answer: granted.answer, etag: granted.etag, seat, in_branch })
    }

    /// The seat that a session was given. Who waits in the lobby has none.
    async fn seat_of(
        &self,
        room: &RoomName,
        session: SessionId,
        epoch: u64,
        opened_at_ms: u64,
    ) -> Option<Seat> {
        if self.cluster.is_alone() {
            return None;
        }
        let Member { identity, name, grant } = self.member(room, session).await.ok()?;
        Some(Seat { room: room.clone(), opened_at_ms, epoch, identity, name, grant })
    }

    /// Finds a newcomer its shard; opens the room here if it is to be.
    async fn place(&self, mut newcomer: Newcomer) -> Result<Place, Turned> {
        let room = newcomer.room.clone();
        if self.cluster.epoch(&room).is_some() {
            if let Some(url) = self.better_for(&newcomer) {
                return Err(Turned::ToBranch(url));
            }
            // Nobody waits for those who are about to open other rooms.
            return Ok(self.ask(|reply| Ask::Place { newcomer, reply }).await?);
        }
        newcomer.far = self.branch_for(&newcomer).await;
        if newcomer.far.is_some() {
            return Ok(self.ask(|reply| Ask::Place { newcomer, reply }).await?);
        }
        let from = newcomer.from;
        self.ask(|reply| Ask::Knock { from, reply }).await?;
        let _claiming = self.cluster.claiming(&room).await;
        newcomer.won = self.win(&room, newcomer.may_create, true).await?;
        Ok(self.ask(|reply| Ask::Place { newcomer, reply }).await?)
    }

    /// Trickle or ICE restart by an SDP fragment (RFC 8840). `if_match` is the `If-Match` header as it came.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed` for an entity tag of an older ICE session, `malformed`.
    pub async fn patch_session(
        &self,
        room: &RoomName,
        session: SessionId,
        if_match: Option<String>,
        fragment: String,
    ) -> Result<Patched, Refusal> {
        let random = random_pair();
        let patch = |reply| RoomCommand::Patch { session, if_match, fragment, random, reply };
        Ok(match self.in_room(room, patch).await? {
            IceChange::Trickled => Patched::Trickled,
            IceChange::Restarted { fragment, etag } => Patched::Restarted { fragment, etag },
        })
    }

    /// # Errors
    /// `not_found`.
    pub async fn leave(&self, room: &RoomName, session: SessionId) -> Result<(), Refusal> {
        self.in_room(room, |reply| RoomCommand::Leave { session, reply }).await
    }

    /// # Errors
    /// `not_found`.
    pub async fn participants(&self, room: &RoomName) -> Result<Vec<ParticipantState>, Refusal> {
        self.in_room(room, RoomCommand::Participants).await
    }

    /// # Errors
    /// `not_found`.
    pub async fn stats(&self, room: &RoomName) -> Result<RoomStats, Refusal> {
        let mut answers = self.on_all_shards(room, RoomCommand::Stats).await?.into_iter();
        let mut stats = answers.next().unwrap_or_else(|| Err(no_room()))?;
        // A branch that closed meanwhile has nobody left.
        for branch in answers.flatten() {
            stats.participants.extend(branch.participants);
        }
        Ok(stats)
    }

    /// History outlives its room, so a room that is not open is no error.
    ///
    /// # Errors
    /// `unavailable` while the log cannot be read.
    pub async fn messages(
        &self,
        room: &RoomName,
        range: HistoryRange,
        limit: u32,
    ) -> Result<MessagePage, Refusal> {
        let page = self.events.messages(room.clone(), range, limit).await;
        page.map_err(|error: LogError| {
            tracing::warn!(%error, "chat history cannot be read");
            Refusal::new(Code::Unavailable, "the history cannot be read now; try again")
        })
    }

    /// Who holds this session in the room.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for who waits in the lobby.
    pub async fn member(&self, room: &RoomName, session: SessionId) -> Result<Member, Refusal> {
        self.in_room(room, |reply| RoomCommand::Member { session, reply }).await
    }

    /// Says something in a room, in its one order, for somebody who need not be in it; durable on return. A
    /// room that is not open is opened for it: files come and go while nobody is there.
    ///
    /// # Errors
    /// As the room refuses it, and what keeps a room from being opened.
    pub async fn say(&self, room: &RoomName, author: Author, command: ChatCommand) -> Result<(), Refusal> {
        let said = Box::new((author, command));
        let say = |reply| RoomCommand::Say { said: said.clone(), reply };
        match self.in_room(room, say).await {
            Err(refusal) if refusal.code == Code::NotFound && !self.is_open(room).await => {}
            answer => return answer,
        }
        let new = NewRoom { name: Some(room.clone()), first_is_admin: true, ..NewRoom::default() };
        match self.make_room(new, false).await {
            Err(Turned::Away(refusal)) if refusal.code != Code::RoomExists => return Err(refusal),
            Err(Turned::Elsewhere(_) | Turned::ToBranch(_) | Turned::ToHome(_)) => {
                let words = "the room has just moved to another node: try again";
                return Err(Refusal::new(Code::Unavailable, words));
            }
            _ => {}
        }
        self.in_room(room, say).await
    }

    /// Tells a participant what became of its small file.
    pub fn kept(&self, room: RoomName, asker: Asker, result: Result<(), Refusal>) {
        // A loop that is overrun leaves it to time out.
        let _ = self.asks.send(Ask::InRoom { room, command: RoomCommand::Kept { asker, result } });
    }

    async fn is_open(&self, room: &RoomName) -> bool {
        !matches!(self.room(room).await, Err(Refusal { code: Code::NotFound, .. }))
    }

    /// False once draining has begun.
    pub fn is_open_to_all(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// False once draining has begun, while the event log cannot be written, or while nobody can say which
    /// rooms other nodes have.
    pub fn is_ready(&self) -> bool {
        self.is_open_to_all() && self.events.is_healthy() && self.cluster.is_ready()
    }

    /// No new rooms and joins from now on; `true` once no participant is left. Rooms go to other nodes.
    pub async fn drain(&self) -> bool {
        self.ready.store(false, Ordering::Relaxed);
        self.hand_over().await;
        self.ask(|reply| Ask::Drain { reply }).await.unwrap_or(true)
    }

    /// Sends everyone away and closes all rooms; returns once the last words have left.
    pub async fn close_all(&self) {
        // Without a control loop there is nothing left to close.
        let _ = self.ask(|reply| Ask::CloseAll { reply }).await;
        if let Some(links) = &self.links {
            links.close().await;
        }
        self.cluster.sign_off().await;
    }

    async fn in_room<T>(
        &self,
        room: &RoomName,
        command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> RoomCommand,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::InRoom { room: room.clone(), command: command(reply) };
        self.asks.send(ask).map_err(|_| overloaded())?;
        // The reply is dropped when there is no such room.
        answer.await.unwrap_or_else(|_| Err(no_room()))
    }

    /// Asks every shard of a room, its home first.
    async fn on_all_shards<T>(
        &self,
        room: &RoomName,
        command: impl Fn(oneshot::Sender<Result<T, Refusal>>) -> RoomCommand,
    ) -> Result<Vec<Result<T, Refusal>>, Refusal> {
        let room = room.clone();
        let shards = self.ask(|reply| Ask::Shards { room: room.clone(), reply }).await?;
        let answers: Vec<_> = shards
            .into_iter()
            .map(|shard| {
                let (reply, answer) = oneshot::channel();
                let sent = shard.send(Command::InRoom(room.clone(), command(reply)));
                sent.map(|()| answer).map_err(|_| overloaded())
            })
            .collect();
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Ok(answer) => answer.await.unwrap_or_else(|_| Err(no_room())),
                Err(refusal) => Err(refusal),
            });
        }
        Ok(results)
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Ask,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).map_err(|_| overloaded())?;
        answer.await.unwrap_or_else(|_| Err(overloaded()))
    }
}

fn random_pair() -> [u128; 2] {
    let mut rng = rand::rng();
    [rng.random(), rng.random()]
}

fn overloaded() -> Refusal {
    Refusal::new(Code::Unavailable, "the node has too much to do: try again in a moment")
}

fn no_room() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such room")
}
