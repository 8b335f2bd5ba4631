//! Rooms that spread over shards and nodes: copies for their branches, news from and to their homes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::{Home, Join, Notice, Outgoing, RelayOut, RoomSeat, Shard, commands};
use crate::core::event::CloseReason;
use crate::core::ids::{RoomName, SessionId, Site};
use crate::core::participant::{Entrant, Part};
use crate::core::refusal::{Code, Refusal};
use crate::core::relay::{Data, Downstream, Upstream};
use crate::core::room::{Admission, Arrival, ParticipantKey, Room, Settings};
use crate::media::egress::Passed;
use crate::media::peer::RoomIndex;
use crate::media::relay::{Freight, Relay, RelayedPacket};

/// Viewers who may wait for a branch to learn what its room is. More are refused.
const WAITING_MAX: usize = 4_096;
/// A branch that nobody watches closes after so long.
const EMPTY_AFTER: Duration = Duration::from_secs(10);

/// What a shard knows of its branch of a room.
pub struct BranchSeat {
    pub home: Site,
    /// They are let in, or not, once the branch knows its room.
    pub waiting: Vec<Join>,
    /// And these by the home's word.
    pub asking: Vec<Join>,
}

impl Shard {
    /// Opens a branch of a room whose home is another shard, or at another node.
    pub(super) fn open_branch(&mut self, now: Instant, settings: Settings, home: Home) {
        let (name, epoch) = (settings.state.name.clone(), settings.epoch);
        if self.make_way(now, &name, epoch) {
            return;
        }
        let home = match home {
            Home::Shard(shard) => Site::Shard(shard),
            Home::Far(id, queue) => {
                self.far.add(id, queue);
                Site::Far(id)
            }
        };
        let settings = Settings { empty_after: EMPTY_AFTER, first_is_admin: false, ..settings };
        let room = Room::new_branch(self.stamp(now), self.around.id, settings);
        tracing::info!(room = %name, shard = self.around.id.0, ?home, "branch opened");
        let branch = Some(BranchSeat { home, waiting: Vec::new(), asking: Vec::new() });
        let index = self.seat_room(RoomSeat::new(room, epoch, branch));
        self.notify(Notice::BranchOpened { shard: self.around.id, room: name });
        self.flush_room(now, index);
    }

    /// Closes what is left here of an earlier opening of a room, whose end was not heard of yet. True where
    /// this very opening is here already.
    pub(super) fn make_way(&mut self, now: Instant, name: &RoomName, epoch: u64) -> bool {
        let Some(&index) = self.rooms_by_name.get(name) else { return false };
        let stamp = self.stamp(now);
        let Some(seat) = self.seat_mut(index) else { return false };
        if seat.epoch == epoch {
            return true;
        }
        seat.room.close(stamp, CloseReason::Closed);
        self.flush_room(now, index);
        false
    }

    /// Keeps a viewer until its branch knows its room. Gives it back where there is nothing to wait for.
    pub(super) fn keep_waiting(&mut self, index: RoomIndex, join: Join) -> Option<Join> {
        let Some(seat) = self.seat_mut(index) else { return Some(join) };
        match &mut seat.branch {
            Some(branch) if !seat.room.is_mirrored() => {
                if branch.waiting.len() < WAITING_MAX {
                    branch.waiting.push(join);
                } else {
                    commands::answer(join.reply, Err(too_many()));
                }
                None
            }
            _ => Some(join),
        }
    }

    /// Asks the home for the seat of one who takes part, where this is a branch of its room. Gives back who
    /// is let in here.
    pub(super) fn ask_home(&mut self, now: Instant, index: RoomIndex, join: Join) -> Option<Join> {
        let stamp = self.stamp(now);
        let Some(seat) = self.seat_mut(index) else { return Some(join) };
        let watches = matches!(join.entrant.part, Part::Viewer { .. });
        let Some(branch) = seat.branch.as_mut().filter(|_| !watches) else { return Some(join) };
        if branch.asking.len() >= WAITING_MAX {
            commands::answer(join.reply, Err(too_many()));
            return None;
        }
        let session = join.resume.unwrap_or(join.entrant.session);
        let entrant = Entrant { session, ..join.entrant.clone() };
        let resumes = join.resume.is_some();
        branch.asking.push(join);
        seat.room.ask_for_seat(stamp, entrant, resumes);
        self.flush_room(now, index);
        None
    }

    /// The home has said whether somebody is let in.
    pub(super) fn admit(&mut self, now: Instant, index: RoomIndex, session: SessionId, admission: Admission) {
        let Some(branch) = self.seat_mut(index).and_then(|seat| seat.branch.as_mut()) else { return };
        let is_it = |join: &Join| join.resume.unwrap_or(join.entrant.session) == session;
        let Some(place) = branch.asking.iter().position(is_it) else { return };
        let join = branch.asking.remove(place);
        match admission {
            Admission::Seated(who) => self.connect(now, index, who, join),
            Admission::AtHome => commands::answer(join.reply, Ok(None)),
            Admission::Refused(refusal) => commands::answer(join.reply, Err(refusal)),
        }
    }

    /// Copies a packet that the room has just forwarded for those branches that take it; of a lodger's, for
    /// the home.
    pub(super) fn relay(
        &mut self,
        now: Instant,
        index: RoomIndex,
        from: ParticipantKey,
        arrival: &Arrival<'_>,
        passed: &Passed,
    ) {
        let Some(seat) = self.rooms.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
        if !seat.room.spreads() {
            return;
        }
        let (line, encoding) = (arrival.line, arrival.encoding);
        let origin = seat.room.origin_of(from);
        let branches: SmallVec<[Site; 8]> = seat.room.relays(from, line, encoding).collect();
        for to in branches {
            let replay = seat.room.begin_relay(from, line, encoding, to);
            let begun = replay.and_then(|replay| RelayedPacket::replayed(now, origin, arrival, replay));
            let packets = begun.unwrap_or_default();
            let alone = packets.is_empty().then(|| RelayedPacket::new(origin, arrival, passed));
            let batch = Batch { from: self.around.id.into(), to, room: seat.room.name(), epoch: seat.epoch };
            self.counters.packets_relayed += batch.append(&mut self.relays, packets.into_iter().chain(alone));
        }
    }

    /// Passes application data on to where others are connected, but not to where it came from.
    pub(super) fn relay_data(
        &mut self,
        index: RoomIndex,
        who: ParticipantKey,
        from: Option<Site>,
        is_binary: bool,
        bytes: &[u8],
    ) {
        let Some(seat) = self.seat_mut(index) else { return };
        let home = seat.branch.as_ref().map(|branch| branch.home);
        let sites: Vec<Site> = match home {
            Some(home) => vec![home],
            None => seat.room.lodged_at().into_iter().filter(|site| Some(*site) != from).collect(),
        };
        let origin = seat.room.origin_of(who);
        for site in sites {
            let data = Data { origin, is_binary, bytes: Arc::from(bytes) };
            self.send_freight(index, site, Freight::Data(data));
        }
    }

    fn handle_data(&mut self, index: RoomIndex, from: Site, data: &Data) {
        let Some(seat) = self.seat_mut(index) else { return };
        let is_branch = seat.branch.is_some();
        if is_branch {
            return self.deliver_lossy(index, None, data.is_binary, &data.bytes);
        }
        let sender = seat.room.sender(data.origin, from);
        let Some(sender) = sender.filter(|sender| seat.room.may_talk(*sender)) else { return };
        self.deliver_lossy(index, None, data.is_binary, &data.bytes);
        self.relay_data(index, sender, Some(from), data.is_binary, &data.bytes);
    }

    pub(super) fn tell_branch(&mut self, index: RoomIndex, to: Site, news: Downstream) {
        self.send_freight(index, to, Freight::Down(news));
    }

    pub(super) fn tell_home(&mut self, index: RoomIndex, news: Upstream) {
        let home = self.seat_mut(index).and_then(|seat| seat.branch.as_ref()).map(|branch| branch.home);
        if let Some(home) = home {
            self.send_freight(index, home, Freight::Up(news));
        }
    }

    fn send_freight(&mut self, index: RoomIndex, to: Site, freight: Freight) {
        let from = self.around.id.into();
        let Some(seat) = self.seat_mut(index) else { return };
        let relay = Relay { room: seat.room.name().clone(), epoch: seat.epoch, from, freight };
        self.relays.push_back(Outgoing { to, relay });
    }

    /// The room that a branch was opened for is gone: the branch is told.
    fn refuse_branch(&mut self, opened: Relay) {
        let news = Downstream::Ended(CloseReason::Closed);
        let (to, from) = (opened.from, self.around.id.into());
        let relay = Relay { from, freight: Freight::Down(news), ..opened };
        self.relays.push_back(Outgoing { to, relay });
    }

    /// The next thing for another shard. What is for other nodes goes on its way meanwhile.
    pub fn poll_relay(&mut self, now: Instant) -> Option<RelayOut> {
        while let Some(Outgoing { to, relay }) = self.relays.pop_front() {
            match to {
                Site::Shard(to) => return Some(RelayOut { to, relay }),
                Site::Far(id) => {
                    if self.far.send(id, &relay) {
                        self.handle_loss(now, to, &relay);
                    }
                }
            }
        }
        self.far.flush();
        None
    }

    /// Packets for a branch were dropped, as its shard does not keep up.
    pub fn handle_relay_loss(&mut self, now: Instant, RelayOut { to, relay }: &RelayOut) {
        self.handle_loss(now, Site::Shard(*to), relay);
    }

    fn handle_loss(&mut self, now: Instant, to: Site, lost: &Relay) {
        let Freight::Packets(packets) = &lost.freight else { return };
        self.counters.dropped.relay_full += packets.len() as u64;
        if let Some(index) = self.room_of(lost) {
            if let Some(seat) = self.seat_mut(index) {
                seat.room.handle_relay_loss(now, to);
            }
            self.flush_room(now, index);
        }
    }

    /// Takes what another shard has sent.
    pub fn handle_relay(&mut self, now: Instant, relay: Relay) {
        let Some(index) = self.room_of(&relay) else {
            match relay {
                Relay { freight: Freight::Up(Upstream::Opened), .. } => self.refuse_branch(relay),
                Relay { freight: Freight::Up(Upstream::Closed), from: Site::Far(id), .. } => {
                    self.far.remove(id)
                }
                Relay { freight: Freight::FarLink(id, queue), .. } => self.far.add(id, queue),
                _ => {}
            }
            return;
        };
        let stamp = self.stamp(now);
        match relay.freight {
            Freight::Packets(packets) => return self.handle_relayed(now, index, relay.from, &packets),
            Freight::Data(data) => return self.handle_data(index, relay.from, &data),
            Freight::FarLink(id, queue) => self.far.add(id, queue),
            Freight::MixerLink(link) => self.handle_mixer_link(index, link),
            Freight::Mixer { serial, news } => self.handle_mixer_news(now, index, serial, news),
            Freight::RecorderLink(link) => self.handle_recorder_link(index, link),
            Freight::Recorder { serial, news } => self.handle_recorder_news(now, index, serial, news),
            Freight::Mixed { serial, packets } => self.handle_mixed(now, index, serial, &packets),
            Freight::Fed { serial, packets } => self.handle_fed(now, index, serial, &packets),
            Freight::Playing { serial, playing } => self.handle_playing(index, serial, playing),
            Freight::FeedEnded { serial } => self.handle_feed_end(now, index, serial),
            Freight::Up(news) => {
                if let (Site::Far(id), Upstream::Closed) = (relay.from, &news) {
                    self.far.remove(id);
                }
                let Some(seat) = self.seat_mut(index) else { return };
                let attaches = if let Upstream::Attach(attach) = &news { Some(attach.session) } else { None };
                seat.room.handle_upstream(stamp, relay.from, news);
                // Whoever is connected in a branch from now on is so here no more.
                let abroad = attaches.and_then(|session| seat.room.seat_abroad(session));
                if let Some(peer) = abroad.and_then(|who| seat.peer_of(who)) {
                    self.drop_peer(peer);
                }
            }
            Freight::Down(news) => {
                let Some(seat) = self.seat_mut(index) else { return };
                seat.room.handle_downstream(stamp, relay.from, news);
                let waiting = seat.branch.as_mut().map(|branch| std::mem::take(&mut branch.waiting));
                for join in waiting.unwrap_or_default() {
                    self.join(now, index, join);
                }
            }
        }
        self.flush_room(now, index);
    }

    fn room_of(&self, relay: &Relay) -> Option<RoomIndex> {
        let index = *self.rooms_by_name.get(&relay.room)?;
        let seat = self.rooms.get(index.0 as usize)?.as_ref()?;
        (seat.epoch == relay.epoch).then_some(index)
    }

    fn handle_relayed(&mut self, now: Instant, index: RoomIndex, from: Site, packets: &[RelayedPacket]) {
        for packet in packets {
            let Some(seat) = self.rooms.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
            // One that is not mirrored any more, or does not lodge there any more.
            let Some(who) = seat.room.sender(packet.origin, from) else { continue };
            let arrival = packet.arrival();
            let mut forwards = std::mem::take(&mut self.forwards);
            let taken = seat.room.handle_rtp(now, who, &arrival, &mut forwards);
            self.fan_out(now, index, &packet.payload, &packet.passed, None, &mut forwards);
            self.forwards = forwards;
            if taken {
                // To the other branches: the one that it came from asks for none of it.
                self.relay(now, index, who, &arrival, &packet.passed);
            }
        }
        self.flush_room(now, index);
    }
}

fn too_many() -> Refusal {
    Refusal::new(Code::Unavailable, "too many join at once: try again in a moment")
}

/// Packets for one branch.
struct Batch<'a> {
    from: Site,
    to: Site,
    room: &'a RoomName,
    epoch: u64,
}

impl Batch<'_> {
    /// Puts packets with those that wait already: what a tick brings leaves together. Gives their number.
    fn append(&self, relays: &mut VecDeque<Outgoing>, packets: impl Iterator<Item = RelayedPacket>) -> u64 {
        let Self { from, to, room, epoch } = *self;
        if let Some(Outgoing { to: last, relay }) = relays.back_mut()
            && *last == to
            && relay.epoch == epoch
            && relay.room == *room
            && let Freight::Packets(batch) = &mut relay.freight
        {
            let before = batch.len();
            batch.extend(packets);
            return (batch.len() - before) as u64;
        }
        let batch: Vec<RelayedPacket> = packets.collect();
        let count = batch.len() as u64;
        let relay = Relay { room: room.clone(), epoch, from, freight: Freight::Packets(batch) };
        relays.push_back(Outgoing { to, relay });
        count
    }
}
