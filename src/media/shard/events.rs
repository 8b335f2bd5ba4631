//! What a peer's engine tells: messages, and the connection's state.

use std::time::Instant;

use str0m::channel::{ChannelData, ChannelId};
use str0m::{Event, IceConnectionState};

use super::{PeerIndex, Shard};
use crate::core::protocol::{CONTROL_LABEL, LOSSY_LABEL};
use crate::core::refusal::{Code, Refusal};
use crate::core::room::ParticipantKey;
use crate::media::channel::decode;
use crate::media::peer::RoomIndex;

/// What a path is believed to carry whose receiver tells nothing: all that a room may send it.
const BLIND_ESTIMATE_BPS: u64 = 100_000_000;

impl Shard {
    pub(super) fn handle_event(&mut self, now: Instant, index: PeerIndex, event: Event) {
        if !self.peer_mut(index).is_some_and(|peer| peer.attached) {
            return;
        }
        match event {
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
                if let Some(pair) = &stats.selected_candidate_pair {
                    peer.figures.transport =
                        Some(if pair.protocol == str0m::net::Protocol::Udp { "udp" } else { "tcp" });
                }
            }
            Event::Closed => self.lose_peer(now, index),
            _ => {}
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
        let who = ParticipantKey(peer as u32);
        if !seat.room.may_talk(who) {
            let words = "your grant does not let you send data";
            seat.room.refuse(who, None, Refusal::new(Code::Forbidden, words));
            return;
        }
        self.deliver_lossy(room, Some(from), binary, bytes);
        self.relay_data(room, who, None, binary, bytes);
    }

    /// Application data goes to the `lossy` channels of all who are connected here, but of its sender.
    pub(super) fn deliver_lossy(
        &mut self,
        room: RoomIndex,
        but: Option<PeerIndex>,
        binary: bool,
        bytes: &[u8],
    ) {
        let Some(seat) = self.seat_mut(room) else { return };
        let peers = (0u32..).zip(&seat.peers);
        let peers = peers.filter_map(|(key, peer)| Some((ParticipantKey(key), (*peer)?)));
        let others: Vec<PeerIndex> = peers
            .filter(|(key, peer)| Some(*peer) != but && seat.room.may_receive(*key))
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
