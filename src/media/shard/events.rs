//! What a peer's engine tells: packets, messages, the connection's state.

use std::sync::Arc;
use std::time::Instant;

use str0m::channel::{ChannelData, ChannelId};
use str0m::rtp::RtpPacket;
use str0m::{Event, IceConnectionState};

use super::mixer::captured_us;
use super::{PeerIndex, Shard, worker};
use crate::core::protocol::{CONTROL_LABEL, LOSSY_LABEL};
use crate::core::refusal::{Code, Refusal};
use crate::core::room::{Forward, Replayed};
use crate::media::channel::decode;
use crate::media::egress::Passed;
use crate::media::peer::RoomIndex;

/// What a path is believed to carry whose receiver tells nothing: all that a room may send it.
const BLIND_ESTIMATE_BPS: u64 = 100_000_000;

impl Shard {
    pub(super) fn handle_event(&mut self, now: Instant, index: PeerIndex, event: Event) {
        if !self.peer_mut(index).is_some_and(|peer| peer.attached) {
            return;
        }
        match event {
            Event::RtpPacket(packet) => self.handle_packet(now, index, &packet),
            Event::Connected => self.handle_connected(now, index),
            Event::IceConnectionStateChange(state) => self.handle_ice(now, index, state),
            Event::ChannelOpen(id, label) => self.handle_channel_open(now, index, id, &label),
            Event::ChannelData(data) => self.handle_channel_data(now, index, &data),
            Event::ChannelClose(id) => self.handle_channel_close(now, index, id),
            Event::ChannelBufferedAmountLow(_) => {
                if let Some(peer) = self.peer_mut(index) {
                    peer.flush_backlog();
                }
            }
            Event::PeerStats(stats) => {
                let Some(peer) = self.peer_mut(index) else { return };
                peer.figures.bytes_received = stats.peer_bytes_rx;
                if let Some(pair) = &stats.selected_candidate_pair {
                    peer.figures.transport =
                        Some(if pair.protocol == str0m::net::Protocol::Udp { "udp" } else { "tcp" });
                }
            }
            Event::Closed => self.lose_peer(now, index),
            _ => {}
        }
    }

    /// The way of a packet: what the room makes of it goes straight to its receivers.
    fn handle_packet(&mut self, now: Instant, index: PeerIndex, packet: &RtpPacket) {
        self.counters.packets_received += 1;
        let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
        let (room, who) = (peer.room, peer.who);
        let passed = Passed::of(&packet.header.ext_vals, None);
        let Some(arrival) = peer.arrival(packet, passed.rare.as_deref()) else {
            self.counters.dropped.refused += 1;
            return;
        };
        let Some(seat) = self.rooms.get_mut(room.0 as usize).and_then(Option::as_mut) else { return };
        let has_workers = seat.mixer.is_some() || seat.recorder.is_some();
        let mut forwards = std::mem::take(&mut self.forwards);
        let taken = seat.room.handle_rtp(now, who, &arrival, &mut forwards);
        if !taken {
            self.counters.dropped.refused += 1;
        }
        let captured_us = if has_workers { captured_us(packet) } else { None };
        self.fan_out(now, room, &packet.payload, &passed, captured_us, &mut forwards);
        self.forwards = forwards;
        if taken {
            self.relay(now, room, who, &arrival, &passed);
        }
        self.flush_room(now, room);
    }

    /// Gives each receiver its own of a packet; `captured_us` is for the room's workers.
    pub(super) fn fan_out(
        &mut self,
        now: Instant,
        room: RoomIndex,
        payload: &Arc<[u8]>,
        passed: &Passed,
        captured_us: Option<i64>,
        forwards: &mut Vec<Forward>,
    ) {
        let Some(seat) = self.rooms.get(room.0 as usize).and_then(Option::as_ref) else { return };
        for Forward { to, slot, format, rewritten, replayed } in forwards.drain(..) {
            let Some(to) = seat.peer_of(to) else {
                let captured_us = captured_us.filter(|_| replayed.is_none());
                let payload = replayed.as_ref().map_or(payload, |replayed| &replayed.payload);
                let Some((queue, place, is_recorder)) = seat.worker_of(to, slot) else { continue };
                let packet = worker::packet(place, format, &rewritten, payload, captured_us);
                if !packet.is_some_and(|packet| queue.send(packet)) {
                    let dropped = &mut self.counters.dropped;
                    *if is_recorder { &mut dropped.recorder_full } else { &mut dropped.mixer_full } += 1;
                }
                continue;
            };
            let Some(receiver) = self.peers.get_mut(to.0 as usize).and_then(Option::as_mut) else { continue };
            let sent = match &replayed {
                None => receiver.egress.push(now, slot.0, format, rewritten, payload, passed),
                Some(Replayed { payload, rare }) => {
                    let passed = Passed { rare: rare.clone(), ..Passed::default() };
                    receiver.egress.push(now, slot.0, format, rewritten, payload, &passed)
                }
            };
            if !sent {
                self.counters.dropped.unsendable += 1;
                continue;
            }
            self.counters.packets_forwarded += 1;
            let payload = replayed.as_ref().map_or(payload, |replayed| &replayed.payload);
            self.counters.bytes_forwarded += payload.len() as u64;
            self.forwarded_in_tick += 1;
            if !receiver.unsent {
                receiver.unsent = true;
                self.unsent.push_back(to);
            }
        }
    }

    fn handle_connected(&mut self, now: Instant, index: PeerIndex) {
        let Some(peer) = self.peer_mut(index) else { return };
        let asked_at = peer.asked_at.take();
        tracing::debug!(parent: &peer.span, "connected");
        let (room, who, is_blind) = (peer.room, peer.who, peer.egress.is_blind());
        self.joins_s.extend(asked_at.map(|at| now.saturating_duration_since(at).as_secs_f64()));
        let stamp = self.stamp(now);
        let Some(seat) = self.seat_mut(room) else { return };
        if is_blind {
            seat.room.handle_estimate(now, who, BLIND_ESTIMATE_BPS);
        }
        seat.room.handle_connected(stamp, who);
        self.flush_room(now, room);
    }

    fn handle_ice(&mut self, now: Instant, index: PeerIndex, state: IceConnectionState) {
        let Some(peer) = self.peer_mut(index) else { return };
        let (room, who) = (peer.room, peer.who);
        tracing::debug!(parent: &peer.span, ?state, "ice");
        let Some(seat) = self.seat_mut(room) else { return };
        let stamp = crate::core::room::Now { instant: now, unix_ms: 0 };
        match state {
            IceConnectionState::Disconnected => seat.room.handle_lost(stamp, who),
            IceConnectionState::Connected | IceConnectionState::Completed => {
                seat.room.handle_recovered(stamp, who);
            }
            _ => return,
        }
        self.flush_room(now, room);
    }

    fn handle_channel_open(&mut self, now: Instant, index: PeerIndex, id: ChannelId, label: &str) {
        let stamp = self.stamp(now);
        let Some(peer) = self.peer_mut(index) else { return };
        let (room, who) = (peer.room, peer.who);
        match label {
            CONTROL_LABEL if peer.control.is_none() => {
                peer.control = Some(id);
                if let Some(mut channel) = peer.rtc.channel(id) {
                    channel.set_buffered_amount_low_threshold(crate::media::channel::BACKLOG_BYTES_MAX / 4);
                }
                if let Some(seat) = self.seat_mut(room) {
                    seat.room.handle_control_open(stamp, who);
                    self.flush_room(now, room);
                }
            }
            LOSSY_LABEL if peer.lossy.is_none() => peer.lossy = Some(id),
            // A channel that the protocol does not name is no one's: close it.
            _ => peer.rtc.direct_api().close_data_channel(id),
        }
    }

    fn handle_channel_data(&mut self, now: Instant, index: PeerIndex, data: &ChannelData) {
        let stamp = self.stamp(now);
        let Some(peer) = self.peer_mut(index) else { return };
        let (room, who) = (peer.room, peer.who);
        if peer.lossy == Some(data.id) {
            self.relay_lossy(room, index, data.binary, &data.data);
            return;
        }
        if peer.control != Some(data.id) {
            return;
        }
        let Some(seat) = self.seat_mut(room) else { return };
        match decode(&data.data) {
            Ok(request) => seat.room.handle_request(stamp, who, request),
            Err((request, refusal)) => seat.room.refuse(who, request, refusal),
        }
        self.flush_room(now, room);
    }

    /// Application data goes as it is to everyone else in the room, or nowhere.
    fn relay_lossy(&mut self, room: RoomIndex, from: PeerIndex, binary: bool, bytes: &[u8]) {
        let Some(seat) = self.seat_mut(room) else { return };
        let Some(peer) = seat.peers.iter().position(|peer| *peer == Some(from)) else { return };
        let who = crate::core::room::ParticipantKey(peer as u32);
        if !seat.room.may_talk(who) {
            let words = "your grant does not let you send data";
            seat.room.refuse(who, None, Refusal::new(Code::Forbidden, words));
            return;
        }
        let others: Vec<PeerIndex> = seat
            .peers
            .iter()
            .enumerate()
            .filter_map(|(key, peer)| Some((crate::core::room::ParticipantKey(key as u32), (*peer)?)))
            .filter(|(key, peer)| *peer != from && seat.room.may_receive(*key))
            .map(|(_, peer)| peer)
            .collect();
        for other in others {
            if let Some(peer) = self.peer_mut(other) {
                peer.relay_lossy(binary, bytes);
            }
            self.mark_dirty(other);
        }
    }

    fn handle_channel_close(&mut self, now: Instant, index: PeerIndex, id: ChannelId) {
        let Some(peer) = self.peer_mut(index) else { return };
        if peer.lossy == Some(id) {
            peer.lossy = None;
        }
        if peer.control == Some(id) {
            // Without it a participant can be told nothing: it has to come back.
            self.lose_peer(now, index);
        }
    }

    /// The connection is no more; its participant may resume.
    pub(super) fn lose_peer(&mut self, now: Instant, index: PeerIndex) {
        let stamp = self.stamp(now);
        let Some(peer) = self.peer_mut(index) else { return };
        let (room, who, attached) = (peer.room, peer.who, peer.attached);
        tracing::debug!(parent: &peer.span, "connection closed");
        self.drop_peer(index);
        if !attached {
            return;
        }
        if let Some(seat) = self.seat_mut(room) {
            seat.room.handle_lost(stamp, who);
            self.flush_room(now, room);
        }
    }
}
