//! The control loop: which rooms are open, on which shard each lives, and what the rooms tell the log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use metrics::gauge;
use tokio::sync::{mpsc, oneshot};

use super::{Control, NewRoom, no_room, overloaded};
use crate::config::Config;
use crate::core::chat::HistoryRange;
use crate::core::ids::{RoomName, ShardId};
use crate::core::protocol::{Access, Mode, RoomState};
use crate::core::refusal::{Code, Refusal};
use crate::core::room::Settings;
use crate::core::room_name;
use crate::events::writer::EventWriter;
use crate::mailbox::{self, ControlSender};
use crate::media::negotiate::{self, Reach};
use crate::media::shard::{Command, Load, LogAnswer, Notice, RoomCommand};
use crate::media::{PeerSerial, ShardHandle};

/// Requests that may wait for the loop. Full: refused with `unavailable`.
const QUEUE_DEPTH: usize = 8_192;
/// Addresses whose joins are counted. Full: the window begins anew for all.
const JOINERS_MAX: usize = 65_536;
/// The window over which joins from an address are counted.
const JOIN_WINDOW: Duration = Duration::from_secs(10);
/// Messages in one `chat.history`.
const HISTORY_PAGE: u32 = 50;

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the handle asks of the loop.
pub enum Ask {
    Create {
        new: NewRoom,
        reply: Reply<RoomState>,
    },
    Names {
        reply: Reply<Vec<RoomName>>,
    },
    Place {
        room: RoomName,
        from: IpAddr,
        may_create: bool,
        reply: Reply<Place>,
    },
    InRoom {
        room: RoomName,
        command: RoomCommand,
    },
    /// Answers whether nobody is left.
    Drain {
        reply: Reply<bool>,
    },
    CloseAll {
        reply: Reply<()>,
    },
}

/// Where a connection goes.
pub struct Place {
    pub shard: ShardHandle,
    pub id: ShardId,
    pub reach: Reach,
    pub serial: PeerSerial,
}

/// A shard as the loop knows it.
pub struct Node {
    pub handle: ShardHandle,
    pub reach: Reach,
}

/// The loop's own state.
pub struct Placement {
    config: Config,
    shards: Vec<Node>,
    loads: Vec<Load>,
    rooms: BTreeMap<RoomName, ShardId>,
    /// Rooms placed on each shard: known at once, where its load comes a second later.
    rooms_on: Vec<u32>,
    events: EventWriter,
    next_serial: u32,
    joins: BTreeMap<IpAddr, u32>,
    joins_since: Instant,
    draining: bool,
}

impl Placement {
    /// Starts the loop on the current runtime. `notices` is where the shards report to.
    pub fn spawn(
        config: Config,
        shards: Vec<Node>,
        notices: mpsc::Receiver<Notice>,
        events: EventWriter,
        media: negotiate::Identity,
    ) -> Control {
        let (asks, receiver) = mailbox::control(QUEUE_DEPTH);
        let control = Control::new(asks, events.clone(), media);
        let placement = Self {
            config,
            loads: vec![Load::default(); shards.len()],
            rooms_on: vec![0; shards.len()],
            shards,
            rooms: BTreeMap::new(),
            events,
            next_serial: 1,
            joins: BTreeMap::new(),
            joins_since: Instant::now(),
            draining: false,
        };
        tokio::spawn(placement.run(receiver, notices));
        control
    }

    async fn run(mut self, mut asks: mpsc::Receiver<Ask>, mut notices: mpsc::Receiver<Notice>) {
        loop {
            tokio::select! {
                // What rooms say goes first: it is what their answers wait for.
                biased;
                Some(notice) = notices.recv() => self.handle_notice(notice),
                ask = asks.recv() => match ask {
                    Some(ask) => self.handle_ask(ask),
                    None => return,
                },
            }
        }
    }

    fn handle_ask(&mut self, ask: Ask) {
        // Whoever asked may have given up; then the answer has no reader, which is fine.
        match ask {
            Ask::Create { new, reply } => {
                let _ = reply.send(self.create(new));
            }
            Ask::Names { reply } => {
                let _ = reply.send(Ok(self.rooms.keys().cloned().collect()));
            }
            Ask::Place { room, from, may_create, reply } => {
                let _ = reply.send(self.place(&room, from, may_create));
            }
            Ask::InRoom { room, command } => {
                if let Some(shard) = self.rooms.get(&room) {
                    // Refused: the reply inside is dropped, and its reader told.
                    let _ = self.send(*shard, Command::InRoom(room, command));
                }
            }
            Ask::Drain { reply } => {
                self.draining = true;
                let left = self.loads.iter().map(|load| load.participants).sum::<u32>();
                let _ = reply.send(Ok(left == 0));
            }
            Ask::CloseAll { reply } => {
                self.draining = true;
                // A shard answers when its last peer is gone; one that is gone itself does by dropping it.
                let closed = (0..self.shards.len()).map(|shard| {
                    let (done, closed) = oneshot::channel();
                    let _ = self.send(ShardId(shard as u8), Command::Drain(done));
                    closed
                });
                let closed: Vec<_> = closed.collect();
                tokio::spawn(async move {
                    for shard in closed {
                        let _ = shard.await;
                    }
                    let _ = reply.send(Ok(()));
                });
            }
        }
    }

    fn handle_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Restore { shard, room } => self.restore(shard, room),
            Notice::Append { shard, room, event } => {
                let (to, id) = (self.shard(shard), event.id.clone());
                let (again, name, refused_id) = (to.clone(), room.clone(), id.clone());
                let refused = self.events.append(vec![event], move |result| match result {
                    Ok(appended) => {
                        for appended in appended {
                            answer(&to, &room, LogAnswer::Appended(Box::new(appended)));
                        }
                    }
                    Err(_) => answer(&to, &room, LogAnswer::AppendFailed(id)),
                });
                if refused.is_err() {
                    tracing::warn!(room = %name, "the event log is overrun: an event was refused");
                    answer(&again, &name, LogAnswer::AppendFailed(refused_id));
                }
            }
            Notice::ReadMessage { shard, room, id } => {
                let (to, name, wanted) = (self.shard(shard), room.clone(), id.clone());
                let (again, refused_in, refused_id) = (to.clone(), room.clone(), id.clone());
                let reply = move |read: Result<_, _>| {
                    answer(&to, &room, LogAnswer::Message { id, read: read.map_err(|_| ()) });
                };
                if self.events.read(move |log| log.message(&name, &wanted), reply).is_err() {
                    answer(&again, &refused_in, LogAnswer::Message { id: refused_id, read: Err(()) });
                }
            }
            Notice::ReadHistory { shard, room, to, range } => {
                let (handle, name) = (self.shard(shard), room.clone());
                let (again, refused_in) = (handle.clone(), room.clone());
                let reply = move |page: Result<_, _>| {
                    answer(&handle, &room, LogAnswer::History { to, page: page.map_err(|_| ()) });
                };
                let range =
                    if let HistoryRange::Before(u64::MAX) = range { HistoryRange::Newest } else { range };
                if self.events.read(move |log| log.messages(&name, range, HISTORY_PAGE), reply).is_err() {
                    answer(&again, &refused_in, LogAnswer::History { to, page: Err(()) });
                }
            }
            Notice::Ended { shard, room } => {
                if self.rooms.remove(&room).is_some() {
                    self.rooms_on[usize::from(shard.0)] -= 1;
                }
                self.count_rooms();
            }
            Notice::Load { shard, load } => {
                self.loads[usize::from(shard.0)] = load;
                let people: u32 = self.loads.iter().map(|load| load.participants).sum();
                gauge!("antiphon_participants").set(people);
            }
        }
    }

    /// Reads a room's history. The room asks again where it cannot be read.
    fn restore(&mut self, shard: ShardId, room: RoomName) {
        let (to, name) = (self.shard(shard), room.clone());
        let (again, refused_in) = (to.clone(), room.clone());
        let reply = move |history: Result<_, _>| match history {
            Ok(history) => answer(&to, &room, LogAnswer::Restored(Box::new(history))),
            Err(error) => {
                tracing::error!(room = %room, %error, "the room's history cannot be read; it is tried again");
                answer(&to, &room, LogAnswer::RestoreFailed);
            }
        };
        if self.events.read(move |log| log.history(&name), reply).is_err() {
            tracing::error!(room = %refused_in, "the log is overrun: the room's history is tried again");
            answer(&again, &refused_in, LogAnswer::RestoreFailed);
        }
    }

    fn create(&mut self, new: NewRoom) -> Result<RoomState, Refusal> {
        self.admit()?;
        let name = match new.name {
            Some(name) if self.rooms.contains_key(&name) => {
                return Err(Refusal::new(Code::RoomExists, "a room of this name is open: choose another"));
            }
            Some(name) => name,
            None => self.unused_name(),
        };
        if new.mode == Mode::Mcu {
            return Err(Refusal::new(Code::Unavailable, "this node has no mixer: make the room in SFU mode"));
        }
        let ceiling = self.config.limits.participants_per_room;
        let participants_max = new.participants_max.unwrap_or(ceiling);
        if !(1..=ceiling).contains(&participants_max) {
            let words = format!("participants_max is from 1 to {ceiling} on this node");
            return Err(Refusal::new(Code::Malformed, words));
        }
        let state = RoomState {
            name,
            mode: new.mode,
            access: new.access,
            locked: false,
            lobby: new.lobby,
            participants_max,
            opened_at_ms: unix_ms(),
        };
        self.open(state.clone(), false)?;
        Ok(state)
    }

    fn unused_name(&self) -> RoomName {
        let mut rng = rand::rng();
        loop {
            let name = room_name::generate(&mut rng);
            if !self.rooms.contains_key(&name) {
                return name;
            }
        }
    }

    /// No new room: the node drains, or has as many as it may.
    fn admit(&self) -> Result<(), Refusal> {
        if self.draining {
            return Err(Refusal::new(Code::Draining, "this node is going down: join on another"));
        }
        let max = self.config.limits.rooms;
        if self.rooms.len() >= max as usize {
            return Err(Refusal::new(
                Code::NodeFull,
                format!("this node has {max} rooms, the most it takes"),
            ));
        }
        Ok(())
    }

    fn open(&mut self, state: RoomState, first_is_admin: bool) -> Result<ShardId, Refusal> {
        let (limits, rooms) = (&self.config.limits, &self.config.rooms);
        let name = state.name.clone();
        let settings = Settings {
            epoch: state.opened_at_ms,
            publishers_max: limits.publishers_per_room,
            viewers_max: limits.viewers_per_room,
            video_bps_max: limits.video_bps_max,
            messages_per_second: limits.messages_per_second,
            chat_chars_max: limits.chat_chars_max,
            empty_after: Duration::from_secs(rooms.empty_seconds),
            resume_within: Duration::from_secs(rooms.resume_seconds),
            initial_estimate_bps: self.config.media.initial_estimate_bps,
            first_is_admin,
            state,
        };
        let shard = self.least_busy();
        self.send(shard, Command::Open(Box::new(settings)))?;
        self.rooms.insert(name, shard);
        self.rooms_on[usize::from(shard.0)] += 1;
        self.count_rooms();
        Ok(shard)
    }

    fn place(&mut self, room: &RoomName, from: IpAddr, may_create: bool) -> Result<Place, Refusal> {
        self.count_join(from)?;
        let id = match self.rooms.get(room) {
            Some(_) if self.draining => {
                return Err(Refusal::new(Code::Draining, "this node is going down: join on another"));
            }
            Some(&shard) => shard,
            None if may_create => {
                self.admit()?;
                let state = RoomState {
                    name: room.clone(),
                    mode: Mode::Sfu,
                    access: Access::Open,
                    locked: false,
                    lobby: false,
                    participants_max: self.config.limits.participants_per_room,
                    opened_at_ms: unix_ms(),
                };
                self.open(state, true)?
            }
            None => return Err(no_room()),
        };
        let serial = PeerSerial(self.next_serial);
        self.next_serial = self.next_serial.wrapping_add(1);
        let node = &self.shards[usize::from(id.0)];
        Ok(Place { shard: node.handle.clone(), id, reach: node.reach.clone(), serial })
    }

    fn count_join(&mut self, from: IpAddr) -> Result<(), Refusal> {
        let over = self.joins_since.elapsed() >= JOIN_WINDOW;
        if over || self.joins.len() >= JOINERS_MAX && !self.joins.contains_key(&from) {
            self.joins.clear();
            self.joins_since = Instant::now();
        }
        let count = self.joins.entry(from).or_default();
        *count += 1;
        if f64::from(*count) > self.config.limits.joins_per_second * JOIN_WINDOW.as_secs_f64() {
            let words = "too many joins from your address: wait ten seconds";
            return Err(Refusal::new(Code::RateLimited, words));
        }
        Ok(())
    }

    /// By how busy each was in the last second, then by rooms: many may come within a second.
    fn least_busy(&self) -> ShardId {
        let busy = |shard: &usize| {
            let load = self.loads[*shard].busy + f64::from(self.rooms_on[*shard]) * 0.01;
            (load * 1_000.0) as u64
        };
        let shard = (0..self.shards.len()).min_by_key(busy).unwrap_or(0);
        ShardId(shard as u8)
    }

    fn shard(&self, shard: ShardId) -> ShardHandle {
        self.shards[usize::from(shard.0)].handle.clone()
    }

    fn send(&self, shard: ShardId, command: Command) -> Result<(), Refusal> {
        self.shards[usize::from(shard.0)].handle.send(command).map_err(|_| overloaded())
    }

    fn count_rooms(&self) {
        gauge!("antiphon_rooms").set(self.rooms.len() as f64);
    }
}

fn answer(shard: &ShardHandle, room: &RoomName, log: LogAnswer) {
    // A shard that is overrun loses an answer; its authors send again, and get the same one.
    if shard.send(Command::InRoom(room.clone(), RoomCommand::Log(log))).is_err() {
        tracing::warn!(room = %room, "an answer of the event log was lost: the shard is overrun");
    }
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What the shards report through.
pub fn notices() -> (ControlSender<Notice>, mpsc::Receiver<Notice>) {
    mailbox::control(QUEUE_DEPTH)
}
