//! A shard without its I/O: peers and rooms, driven by datagrams, commands and time; emptied by its outbox.
//!
//! One tick is: some `handle_*`, then [`Shard::finish_tick`], which drains every peer that was written to.
//! What is to be sent lies in [`Shard::outbox`] then. Nothing here blocks, locks or reads a clock, so tests
//! drive it in virtual time.

mod commands;
mod datagrams;
mod egress;
mod events;
mod feeds;
mod figures;
mod mixer;
mod outputs;
mod packets;
mod recorder;
mod relays;
mod silence;
mod streams;
mod timers;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::timers::Timers;
use super::demux::Demux;
use super::far::FarRoutes;
use super::negotiate::Reach;
use super::outbox::Outbox;
use super::peer::{Peer, PeerIndex, RoomIndex};
use super::relay::Relay;
use super::wire::TcpConnections;
use crate::core::chat::{HistoryRange, MessagePage, RoomHistory};
use crate::core::event::{Appended, Event, EventId};
use crate::core::files::SmallFile;
use crate::core::ids::{FarId, MessageId, RoomName, ShardId, Site};
use crate::core::mix::{MixPacket, MixSettings, Place};
use crate::core::protocol::ChatMessage;
use crate::core::recording::RecorderSettings;
use crate::core::relay::Cargo;
use crate::core::room::{Forward, Now, ParticipantKey, Room, SlotKey};
use crate::core::stats::RoomStats;
use crate::mailbox::{ControlSender, Inlet, LossySender};
use crate::media::egress::Queue;

pub use commands::{Command, Granted, IceChange, Join, RoomCommand};
pub use feeds::FeedJoin;
pub use mixer::MixerLink;
pub use recorder::{RecorderLink, RecordingAsked};
pub use streams::{StreamCommand, StreamLink};
pub use worker::WorkerLink;

/// Deadlines this close are met in the same tick: one wake-up instead of many.
const SLACK: Duration = Duration::from_micros(500);
/// Turns of one peer within a tick; the rest waits for the next, so that no peer starves the others.
const TURNS_MAX: usize = 128;
/// A closing connection gets this long to deliver its last message.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// What a shard tells the control loop.
#[derive(Debug)]
pub enum Notice {
    /// Read the history of a room that opened.
    Restore {
        shard: ShardId,
        room: RoomName,
    },
    Append {
        shard: ShardId,
        room: RoomName,
        event: Event,
    },
    ReadMessage {
        shard: ShardId,
        room: RoomName,
        id: MessageId,
    },
    ReadHistory {
        shard: ShardId,
        room: RoomName,
        to: ParticipantKey,
        range: HistoryRange,
    },
    StartMixer {
        shard: ShardId,
        room: RoomName,
        epoch: u64,
        settings: MixSettings,
    },
    StartRecorder {
        shard: ShardId,
        epoch: u64,
        settings: Box<RecorderSettings>,
    },
    /// A participant wants a recording, which the node may have no room for.
    AskRecording {
        shard: ShardId,
        room: RoomName,
        asked: RecordingAsked,
    },
    /// The shard has a branch of a room.
    BranchOpened {
        shard: ShardId,
        room: RoomName,
    },
    /// The shard's branch of a room is no more.
    BranchEnded {
        shard: ShardId,
        room: RoomName,
    },
    /// A small file came over a `control` channel.
    KeepFile {
        room: RoomName,
        file: Box<SmallFile>,
    },
    /// The room is over and its name free.
    Ended {
        shard: ShardId,
        room: RoomName,
    },
    /// People in the shard's rooms, and how busy it is.
    Load {
        shard: ShardId,
        load: Load,
    },
}

/// What the log answers to a room.
#[derive(Debug)]
pub enum LogAnswer {
    Restored(Box<RoomHistory>),
    RestoreFailed,
    Appended(Box<Appended>),
    AppendFailed(EventId),
    Message { id: MessageId, read: Result<Option<ChatMessage>, ()> },
    History { to: ParticipantKey, page: Result<MessagePage, ()> },
}

/// How much a shard has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    pub peers: u32,
    pub participants: u32,
    pub rooms: u32,
    /// Share of the last second that the shard was at work, 0–1.
    pub busy: f64,
    pub packets_per_second: f64,
    pub egress_bps: f64,
}

/// Counted on the packet path, collected by the shard's thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub packets_received: u64,
    pub packets_forwarded: u64,
    pub bytes_forwarded: u64,
    /// Copies for branches on other shards and nodes.
    pub packets_relayed: u64,
    pub dropped: Drops,
    pub chat_messages: u64,
}

/// Packets and datagrams that were not taken, by reason.
#[derive(Debug, Clone, Copy, Default)]
pub struct Drops {
    /// From an address that proved nothing.
    pub unknown_peer: u64,
    /// Not STUN, DTLS, RTP or RTCP, or broken.
    pub malformed: u64,
    /// No grant, silenced, or of no known line.
    pub refused: u64,
    /// The receiver has no payload type or stream for it.
    pub unsendable: u64,
    /// A socket's or connection's buffer was full.
    pub buffer_full: u64,
    /// The shard of a branch, or the link to its node, does not keep up.
    pub relay_full: u64,
    /// The room's mixer does not keep up.
    pub mixer_full: u64,
    /// The room's recorder does not keep up.
    pub recorder_full: u64,
}

/// What the shard is told of its surroundings once.
pub struct Surroundings {
    pub id: ShardId,
    pub reach: Reach,
    pub notices: ControlSender<Notice>,
    /// Turns the monotone clock into the wall clock.
    pub unix_ms_at_start: u64,
    pub start: Instant,
}

/// Where a branch has its home, and the way there.
pub enum Home {
    Shard(ShardId),
    Far(FarId, Inlet<Cargo>),
}

/// Something for where a room spreads to.
struct Outgoing {
    to: Site,
    relay: Relay,
}

/// Something for another shard.
pub struct RelayOut {
    pub to: ShardId,
    pub relay: Relay,
}

struct RoomSeat {
    room: Room,
    epoch: u64,
    /// Of a room whose home is elsewhere.
    branch: Option<relays::BranchSeat>,
    mixer: Option<MixerLink>,
    /// Bounded by the shell of streams, and again here.
    streams: Vec<StreamLink>,
    recorder: Option<RecorderLink>,
    /// Bounded likewise.
    feeds: Vec<feeds::FeedLink>,
    /// Who waits for what was said from outside the room, by its number. The room bounds them.
    said: BTreeMap<u64, commands::Reply<()>>,
    last_said: u64,
    /// Who waits for what branches say of their lodgers. Bounded where they are taken in.
    looking: Vec<commands::Reply<RoomStats>>,
    /// By participant: where its connection is.
    peers: Vec<Option<PeerIndex>>,
}

pub struct Shard {
    around: Surroundings,
    peers: Vec<Option<Peer>>,
    rooms: Vec<Option<RoomSeat>>,
    rooms_by_name: BTreeMap<RoomName, RoomIndex>,
    demux: Demux<PeerIndex>,
    tcp: TcpConnections,
    timers: Timers,
    queue: Queue,
    outbox: Outbox,
    relays: VecDeque<Outgoing>,
    far: FarRoutes,
    dirty: Vec<PeerIndex>,
    unsent: VecDeque<PeerIndex>,
    forwards: Vec<Forward>,
    /// RTCP in the making.
    compound: Vec<u8>,
    check_silence_at: Instant,
    /// Until then receivers may ask for lost packets again.
    lossy_until: Instant,
    /// Told when the last peer is gone.
    drained: Option<oneshot::Sender<()>>,
    pub counters: Counters,
    /// Forwards that lie in the outbox, for the latency histogram.
    pub forwarded_in_tick: u64,
    /// Seconds from a join's arrival to its first connected transport.
    pub joins_s: Vec<f64>,
}

impl Shard {
    pub fn new(around: Surroundings) -> Self {
        Self {
            peers: Vec::new(),
            rooms: Vec::new(),
            rooms_by_name: BTreeMap::new(),
            demux: Demux::new(),
            tcp: TcpConnections::new(),
            timers: Timers::new(around.start),
            queue: Queue::default(),
            outbox: Outbox::default(),
            relays: VecDeque::new(),
            far: FarRoutes::default(),
            dirty: Vec::new(),
            unsent: VecDeque::new(),
            forwards: Vec::new(),
            compound: Vec::new(),
            check_silence_at: around.start,
            lossy_until: around.start,
            drained: None,
            counters: Counters::default(),
            forwarded_in_tick: 0,
            joins_s: Vec::new(),
            around,
        }
    }

    pub fn id(&self) -> ShardId {
        self.around.id
    }

    pub fn has_peers(&self) -> bool {
        self.peers.iter().any(Option::is_some)
    }

    /// Whether receivers have asked for lost packets lately, so that RTCP should not wait long.
    pub fn is_lossy(&self, now: Instant) -> bool {
        now < self.lossy_until
    }

    /// What to send; clear it when sent.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// When to call [`Shard::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = (!self.rooms_by_name.is_empty()).then_some(self.check_silence_at);
        self.timers.poll_timeout().into_iter().chain(silence).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.check_silence(now);
        for peer in self.timers.expire_engines(now) {
            self.mark_dirty(peer);
        }
        for peer in self.timers.expire_egresses(now) {
            self.handle_egress_timeout(now, peer);
        }
        for index in self.timers.expire_rooms(now) {
            let stamp = self.stamp(now);
            if let Some(seat) = self.seat_mut(index) {
                seat.room.handle_timeout(stamp);
                self.flush_room(now, index);
            }
        }
    }

    /// Drains everyone who was written to, until all is quiet, or the outbox is full: then it is true, and
    /// has to be called again once the outbox is empty.
    pub fn finish_tick(&mut self, now: Instant) -> bool {
        // Draining a peer can write to others; each round shortens what is left to say.
        for _ in 0..8 {
            if self.flush_unsent(now) {
                return true;
            }
            let mut dirty = std::mem::take(&mut self.dirty);
            if dirty.is_empty() {
                self.tell_drained();
                return false;
            }
            for index in dirty.drain(..) {
                if let Some(peer) = self.peer_mut(index) {
                    peer.dirty = false;
                    let alive = peer.handle_timeout(now);
                    self.drain(now, index, alive);
                }
            }
            if self.dirty.is_empty() {
                self.dirty = dirty;
            }
        }
        false
    }

    fn tell_drained(&mut self) {
        if self.drained.is_some()
            && self.peers.iter().all(Option::is_none)
            && let Some(drained) = self.drained.take()
        {
            // Who asked may have given up waiting.
            let _ = drained.send(());
        }
    }

    pub fn load(&self, busy: f64) -> Load {
        let rooms = self.rooms.iter().flatten();
        Load {
            peers: self.peers.iter().flatten().count() as u32,
            participants: rooms.clone().map(|seat| seat.room.connected_here()).sum(),
            rooms: rooms.count() as u32,
            busy,
            ..Load::default()
        }
    }

    fn stamp(&self, now: Instant) -> Now {
        let since = now.saturating_duration_since(self.around.start);
        Now { instant: now, unix_ms: self.around.unix_ms_at_start + since.as_millis() as u64 }
    }

    fn peer_mut(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.peers.get_mut(index.0 as usize)?.as_mut()
    }

    fn seat_mut(&mut self, index: RoomIndex) -> Option<&mut RoomSeat> {
        self.rooms.get_mut(index.0 as usize)?.as_mut()
    }

    fn seat_room(&mut self, seat: RoomSeat) -> RoomIndex {
        let place = self.rooms.iter().position(Option::is_none).unwrap_or_else(|| {
            self.rooms.push(None);
            self.rooms.len() - 1
        });
        let index = RoomIndex(place as u32);
        self.rooms_by_name.insert(seat.room.name().clone(), index);
        self.rooms[place] = Some(seat);
        index
    }

    fn mark_dirty(&mut self, index: PeerIndex) {
        if let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut)
            && !peer.dirty
        {
            peer.dirty = true;
            self.dirty.push(index);
        }
    }

    /// The control loop is told; it cannot be overrun but by a fault of ours, and then says so itself.
    fn notify(&self, notice: Notice) -> bool {
        self.around.notices.send(notice).is_ok()
    }

    /// Forgets a connection. Its participant stays in the room until the room lets go.
    fn drop_peer(&mut self, index: PeerIndex) {
        let Some(mut peer) = self.peers.get_mut(index.0 as usize).and_then(Option::take) else { return };
        peer.egress.discard(&mut self.queue);
        self.demux.remove(peer.serial);
        self.timers.forget(index);
        if let Some(seat) = self.seat_mut(peer.room)
            && let Some(place) = seat.peers.get_mut(peer.who.0 as usize)
            && *place == Some(index)
        {
            *place = None;
        }
    }
}

impl RoomSeat {
    fn new(room: Room, epoch: u64, branch: Option<relays::BranchSeat>) -> Self {
        let said = BTreeMap::new();
        let (mixer, recorder, streams) = (None, None, Vec::new());
        let (feeds, peers) = (Vec::new(), Vec::new());
        let looking = Vec::new();
        Self { room, epoch, branch, mixer, recorder, streams, feeds, said, last_said: 0, looking, peers }
    }

    fn peer_of(&self, who: ParticipantKey) -> Option<PeerIndex> {
        self.peers.get(who.0 as usize).copied().flatten()
    }

    /// The queue of the room's worker that sits here, what its packets of this slot are, and whether it
    /// records.
    fn worker_of(
        &self,
        who: ParticipantKey,
        slot: SlotKey,
    ) -> Option<(&LossySender<MixPacket>, Place, bool)> {
        if self.room.mixer_seat() == Some(who) {
            return self.mixer.as_ref().map(|mixer| (&mixer.packets, Place::Slot(slot.0), false));
        }
        let recorder = self.recorder.as_ref().filter(|_| self.room.recorder_seat() == Some(who))?;
        let (serial, encoding) = (self.room.slot_serial(who, slot)?, self.room.slot_encoding(who, slot)?);
        let place = Place::Track { slot: slot.0, serial, encoding };
        Some((&recorder.packets, place, true))
    }

    fn set_peer(&mut self, who: ParticipantKey, peer: Option<PeerIndex>) {
        let index = who.0 as usize;
        if self.peers.len() <= index {
            self.peers.resize(index + 1, None);
        }
        self.peers[index] = peer;
    }
}
