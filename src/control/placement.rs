//! The control loop: which rooms are open, and on which shards each lives.

mod opening;
mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use metrics::gauge;
use tokio::sync::{mpsc, oneshot};

use super::far::{Confined, FarRoom};
use super::wishes::{Resumed, Wish, Wishes};
use super::{Control, IncomingFile, LeaseNotice, NewRoom, Sent, no_room, overloaded};
use crate::cluster::relay::{BranchAsk, Far, Links};
use crate::cluster::{Cluster, Won};
use crate::config::Config;
use crate::core::files::SmallFile;
use crate::core::ids::{Identity, RoomName, SessionId, ShardId};
use crate::core::protocol::RoomState;
use crate::core::refusal::{Code, Refusal};
use crate::core::room::Settings;
use crate::core::spread::Comer;
use crate::events::writer::EventWriter;
use crate::mailbox::{self, ControlSender};
use crate::mcu::Mixers;
use crate::media::negotiate::{self, Reach};
use crate::media::shard::{Command, Home, Load, Notice, RoomCommand};
use crate::media::{PeerSerial, ShardHandle};
use crate::record::Recordings;

/// Requests that may wait for the loop. Full: refused with `unavailable`.
const QUEUE_DEPTH: usize = 8_192;
/// Addresses whose joins are counted. Full: the window begins anew for all.
const JOINERS_MAX: usize = 65_536;
/// The window over which joins from an address are counted.
const JOIN_WINDOW: Duration = Duration::from_secs(10);

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// What the handle asks of the loop.
pub enum Ask {
    /// `won` unless it is open here already.
    Create {
        new: NewRoom,
        won: Option<Won>,
        reply: Reply<RoomState>,
    },
    Names {
        reply: Reply<Vec<RoomName>>,
    },
    /// May somebody from there join at all?
    Knock {
        from: IpAddr,
        reply: Reply<()>,
    },
    Place {
        newcomer: Newcomer,
        reply: Reply<Place>,
    },
    /// The shards of a room, its home first.
    Shards {
        room: RoomName,
        reply: Reply<Vec<ShardHandle>>,
    },
    InRoom {
        room: RoomName,
        command: RoomCommand,
    },
    /// Something that is to go with the room.
    Wish {
        room: RoomName,
        wish: Wish,
    },
    /// Answers whether nobody is left.
    Drain {
        reply: Reply<bool>,
    },
    CloseAll {
        reply: Reply<()>,
    },
}

/// Who wants a place in a room.
pub struct Newcomer {
    pub room: RoomName,
    pub from: IpAddr,
    pub may_create: bool,
    /// The right to open the room here, where it was not open.
    pub won: Option<Won>,
    /// The branch in which it is seated, of a room that another node holds.
    pub far: Option<Far>,
    /// Who has sent it here, and why.
    pub sent: Option<Sent>,
    /// The session that it continues.
    pub resume: Option<SessionId>,
    /// As what a branch may serve it, if at all.
    pub comer: Option<Comer>,
    /// Proved by a token: an earlier connection of the same identity makes way.
    pub proven: Option<Identity>,
}

impl Newcomer {
    /// Any shard may serve it.
    pub fn only_watches(&self) -> bool {
        self.comer == Some(Comer::Viewer)
    }
}

/// Where a connection goes.
pub struct Place {
    pub shard: ShardHandle,
    pub id: ShardId,
    pub reach: Reach,
    pub serial: PeerSerial,
    /// Under which the room is open, and since when: on whichever node.
    pub epoch: u64,
    pub opened_at_ms: u64,
    /// Of a room that another node holds.
    pub in_branch: bool,
}

/// A shard as the loop knows it.
pub struct Node {
    pub handle: ShardHandle,
    pub reach: Reach,
}

/// Who is around the loop.
pub struct Around {
    pub events: EventWriter,
    pub media: negotiate::Identity,
    /// `None` where the node cannot mix, or does not record.
    pub workers: (Option<Mixers>, Option<Recordings>),
    pub small_files: ControlSender<IncomingFile>,
    pub cluster: Cluster,
    pub leases: mpsc::Receiver<LeaseNotice>,
    /// To other nodes, and what those ask for.
    pub links: Option<Links>,
    pub branch_asks: mpsc::Receiver<BranchAsk>,
}

/// Where a room lives.
pub(super) struct OpenRoom {
    /// Under which this node holds it.
    pub(super) epoch: u64,
    pub(super) home: ShardId,
    branches: BTreeSet<ShardId>,
    pub(super) settings: Settings,
    wishes: Wishes,
    /// Of the request that opened it, until its opening is in the log.
    pub(super) trace: Option<String>,
}

impl OpenRoom {
    /// The shard that serves a session; that of another opening is refused there.
    fn shard_of(&self, session: SessionId) -> ShardId {
        self.branches.get(&session.shard()).copied().unwrap_or(self.home)
    }
}

/// The loop's own state.
pub struct Placement {
    pub(super) config: Config,
    shards: Vec<Node>,
    loads: Vec<Load>,
    pub(super) rooms: BTreeMap<RoomName, OpenRoom>,
    /// Rooms placed on each shard: known at once, where its load comes a second later.
    rooms_on: Vec<u32>,
    /// Viewers seated on each shard since its last load.
    pub(super) seated_since: Vec<u32>,
    /// Rooms that other nodes hold, and of which this one has branches.
    pub(super) fars: BTreeMap<RoomName, FarRoom>,
    pub(super) confined: Arc<OnceLock<Confined>>,
    /// Who begins again what rooms had at other nodes.
    resumed: Arc<OnceLock<ControlSender<Resumed>>>,
    pub(super) events: EventWriter,
    /// `None` where the node cannot mix.
    pub(super) mixers: Option<Mixers>,
    /// `None` where the node does not record.
    pub(super) recordings: Option<Recordings>,
    pub(super) workers_started: u64,
    small_files: ControlSender<IncomingFile>,
    pub(super) cluster: Cluster,
    /// Rooms that other nodes have, which could not be told to their shards yet.
    pub(super) lost: BTreeMap<RoomName, u64>,
    next_serial: u32,
    joins: BTreeMap<IpAddr, u32>,
    joins_since: Instant,
    pub(super) draining: bool,
}

impl Placement {
    /// Starts the loop on the current runtime. `notices` is where the shards report to.
    pub fn spawn(
        config: Config,
        shards: Vec<Node>,
        notices: mpsc::Receiver<Notice>,
        around: Around,
    ) -> Control {
        let Around { events, media, workers, small_files, cluster, leases, links, branch_asks } = around;
        let (mixers, recordings) = workers;
        let (asks, receiver) = mailbox::control(QUEUE_DEPTH);
        let ready = Arc::new(AtomicBool::new(true));
        let confined: Arc<OnceLock<Confined>> = Arc::default();
        let resumed: Arc<OnceLock<ControlSender<Resumed>>> = Arc::default();
        let control = Control {
            asks,
            events: events.clone(),
            media,
            cluster: cluster.clone(),
            links,
            confined: Arc::clone(&confined),
            resumed: Arc::clone(&resumed),
            ready,
        };
        let placement = Self {
            config,
            loads: vec![Load::default(); shards.len()],
            rooms_on: vec![0; shards.len()],
            seated_since: vec![0; shards.len()],
            fars: BTreeMap::new(),
            confined,
            resumed,
            shards,
            rooms: BTreeMap::new(),
            events,
            mixers,
            recordings,
            workers_started: 0,
            small_files,
            cluster,
            lost: BTreeMap::new(),
            next_serial: 1,
            joins: BTreeMap::new(),
            joins_since: Instant::now(),
            draining: false,
        };
        tokio::spawn(placement.run(receiver, notices, leases, branch_asks));
        control
    }

    async fn run(
        mut self,
        mut asks: mpsc::Receiver<Ask>,
        mut notices: mpsc::Receiver<Notice>,
        mut leases: mpsc::Receiver<LeaseNotice>,
        mut branch_asks: mpsc::Receiver<BranchAsk>,
    ) {
        loop {
            tokio::select! {
                // What rooms say goes first: it is what their answers wait for.
                biased;
                Some(notice) = notices.recv() => self.handle_notice(notice),
                Some(LeaseNotice::Lost { room, epoch }) = leases.recv() => {
                    self.lost.insert(room, epoch);
                    self.drop_lost();
                }
                Some(ask) = branch_asks.recv() => self.give_branch(ask),
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
            Ask::Create { new, won, reply } => {
                let _ = reply.send(self.create(new, won));
            }
            Ask::Knock { from, reply } => {
                let _ = reply.send(self.count_join(from));
            }
            Ask::Names { reply } => {
                let _ = reply.send(Ok(self.rooms.keys().cloned().collect()));
            }
            Ask::Place { newcomer, reply } => {
                let _ = reply.send(self.place(newcomer));
            }
            Ask::Shards { room, reply } => {
                let shards = self.rooms.get(&room).ok_or_else(no_room).map(|open| {
                    let shards = std::iter::once(&open.home).chain(&open.branches);
                    shards.map(|shard| self.shard(*shard)).collect()
                });
                let _ = reply.send(shards);
            }
            Ask::InRoom { room, command } => {
                let shard = match (self.rooms.get(&room), command.session()) {
                    (Some(open), session) => {
                        Some(session.map_or(open.home, |session| open.shard_of(session)))
                    }
                    (None, Some(session)) => self.far_shard(&room, session),
                    (None, None) => None,
                };
                if let Some(shard) = shard {
                    // Refused: the reply inside is dropped, and its reader told.
                    let _ = self.send(shard, Command::InRoom(room, command));
                }
            }
            Ask::Wish { room, wish } => self.note_wish(&room, wish),
            Ask::Drain { reply } => {
                if !std::mem::replace(&mut self.draining, true) {
                    self.send_lodgers_on();
                }
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
                self.note_change(&event);
                let trace = self.rooms.get_mut(&room).and_then(|open| open.trace.take());
                self.append(shard, room, event, trace);
            }
            Notice::ReadMessage { shard, room, id } => self.read_message(shard, room, id),
            Notice::ReadHistory { shard, room, to, range } => self.read_history(shard, room, to, range),
            Notice::KeepFile { room, file } => self.keep_file(room, *file),
            Notice::StartMixer { shard, room, epoch, settings } => {
                self.start_mixer(shard, room, epoch, settings);
            }
            Notice::StartRecorder { shard, epoch, settings } => self.start_recorder(shard, epoch, *settings),
            Notice::AskRecording { shard, room, asked } => self.ask_recording(shard, room, asked),
            Notice::BranchOpened { shard, room } => match self.rooms.get_mut(&room) {
                Some(open) => {
                    open.branches.insert(shard);
                }
                None => self.note_far_branch(&room, shard, true),
            },
            Notice::BranchEnded { shard, room } => {
                if let Some(open) = self.rooms.get_mut(&room) {
                    open.branches.remove(&shard);
                }
                self.note_far_branch(&room, shard, false);
            }
            Notice::Ended { shard, room } => {
                if let Some(open) = self.rooms.remove(&room) {
                    self.rooms_on[usize::from(shard.0)] -= 1;
                    // One that is lost waits for its next holder, if it has none.
                    let ended = self.lost.remove(&room) != Some(open.epoch);
                    self.cluster.give_up(&room, open.epoch, ended);
                }
                self.count_rooms();
            }
            Notice::Load { shard, load } => {
                self.loads[usize::from(shard.0)] = load;
                self.seated_since[usize::from(shard.0)] = 0;
                let people: u32 = self.loads.iter().map(|load| load.participants).sum();
                gauge!("antiphon_participants").set(people);
                self.tell_load();
                self.drop_lost();
            }
        }
    }

    /// Passes a small file on to those who keep files.
    fn keep_file(&self, room: RoomName, file: SmallFile) {
        if let Err(IncomingFile { room, file }) = self.small_files.offer(IncomingFile { room, file })
            && let Some(open) = self.rooms.get(&room)
        {
            let kept = RoomCommand::Kept { asker: file.asker, result: Err(overloaded()) };
            // A shard that is overrun, too, leaves its participant to time out.
            let _ = self.send(open.home, Command::InRoom(room, kept));
        }
    }

    fn place(&mut self, mut newcomer: Newcomer) -> Result<Place, Refusal> {
        if let Some(far) = newcomer.far.take() {
            self.count_join(newcomer.from)?;
            return self.place_far(&newcomer, far);
        }
        match newcomer.won.take() {
            Some(won) => {
                if let Err(refusal) = self.open_for(&newcomer.room, &won) {
                    self.cluster.give_up(&newcomer.room, won.epoch, won.settings.is_none());
                    return Err(refusal);
                }
            }
            None => self.count_join(newcomer.from)?,
        }
        if !self.rooms.contains_key(&newcomer.room) {
            return Err(no_room());
        }
        if self.draining {
            return Err(Refusal::new(Code::Draining, "this node is going down: join on another"));
        }
        if !self.cluster.admits_joins() {
            return Err(Refusal::new(Code::NodeFull, "the room's node has no room for more people"));
        }
        self.cluster.joined();
        let newcomer = &newcomer;
        let id = self.shard_for(newcomer)?;
        let open = self.rooms.get(&newcomer.room).ok_or_else(no_room)?;
        let (epoch, opened_at_ms) = (open.epoch, open.settings.state.opened_at_ms);
        Ok(self.place_on(id, epoch, opened_at_ms))
    }

    /// A place on a shard, for a connection that has a number of its own.
    pub(super) fn place_on(&mut self, id: ShardId, epoch: u64, opened_at_ms: u64) -> Place {
        let serial = PeerSerial(self.next_serial);
        self.next_serial = self.next_serial.wrapping_add(1);
        let node = &self.shards[usize::from(id.0)];
        let (shard, reach) = (node.handle.clone(), node.reach.clone());
        Place { shard, id, reach, serial, epoch, opened_at_ms, in_branch: false }
    }

    /// The shard of the room that is to serve a newcomer; opens a branch there where it needs one.
    fn shard_for(&mut self, newcomer: &Newcomer) -> Result<ShardId, Refusal> {
        let open = self.rooms.get(&newcomer.room).ok_or_else(no_room)?;
        if let Some(session) = newcomer.resume {
            return Ok(open.shard_of(session));
        }
        let shard = if newcomer.only_watches() { self.shard_for_viewer(open) } else { open.home };
        if let Some(identity) = &newcomer.proven {
            let others = std::iter::once(&open.home).chain(&open.branches).filter(|other| **other != shard);
            for other in others {
                let displace = RoomCommand::Displace(identity.clone());
                self.send(*other, Command::InRoom(newcomer.room.clone(), displace))?;
            }
        }
        if shard != open.home {
            // It may have closed just now, so it is opened each time: one that is open stays as it is.
            let settings = Box::new(open.settings.clone());
            self.send(shard, Command::OpenBranch { settings, home: Home::Shard(open.home) })?;
            if let Some(open) = self.rooms.get_mut(&newcomer.room) {
                open.branches.insert(shard);
            }
        }
        self.seated_since[usize::from(shard.0)] += u32::from(newcomer.only_watches());
        Ok(shard)
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

    pub(super) fn shard(&self, shard: ShardId) -> ShardHandle {
        self.shards[usize::from(shard.0)].handle.clone()
    }

    pub(super) fn send(&self, shard: ShardId, command: Command) -> Result<(), Refusal> {
        self.shards[usize::from(shard.0)].handle.send(command).map_err(|_| overloaded())
    }

    fn count_rooms(&self) {
        gauge!("antiphon_rooms").set(self.rooms.len() as f64);
    }
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What the shards report through.
pub fn notices() -> (ControlSender<Notice>, mpsc::Receiver<Notice>) {
    mailbox::control(QUEUE_DEPTH)
}
