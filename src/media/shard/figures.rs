//! Live figures of rooms: what the room knows, and what only connections do.

use std::time::Instant;

use super::commands::{Reply, answer, gone};
use super::{ParticipantKey, Shard};
use crate::core::refusal::Refusal;
use crate::core::stats::{ParticipantStats, RoomStats};
use crate::media::peer::RoomIndex;

/// Who may wait for what branches say. More are shown what is known.
const LOOKING_MAX: usize = 64;

impl Shard {
    /// Shows the room's figures, with those of whoever is connected at other nodes once these have said them.
    pub(super) fn show_stats(&mut self, now: Instant, index: RoomIndex, reply: Reply<RoomStats>) {
        let Some(seat) = self.seat_mut(index) else { return answer(reply, Err(gone())) };
        if seat.looking.len() < LOOKING_MAX && seat.room.look(now) {
            seat.looking.push(reply);
            return self.flush_room(now, index);
        }
        answer(reply, self.stats(now, index));
    }

    /// All has been said that will be.
    pub(super) fn show_all(&mut self, now: Instant, index: RoomIndex) {
        let looking = self.seat_mut(index).map(|seat| std::mem::take(&mut seat.looking));
        for reply in looking.unwrap_or_default() {
            answer(reply, self.stats(now, index));
        }
    }

    /// Tells the home how its lodgers fare who are connected here.
    pub(super) fn tell_figures(&mut self, now: Instant, index: RoomIndex) {
        let stats = self.participant_stats(now, index);
        if let Some(seat) = self.seat_mut(index) {
            seat.room.tell_figures(stats);
        }
    }

    fn stats(&mut self, now: Instant, index: RoomIndex) -> Result<RoomStats, Refusal> {
        let shard = self.around.id.0;
        let seat = self.seat_mut(index).ok_or_else(gone)?;
        let (room, mixer) = (seat.room.name().clone(), seat.room.mixer_stats());
        let participants = self.participant_stats(now, index).into_iter().map(|(_, stats)| stats).collect();
        Ok(RoomStats { room, shard, participants, mixer })
    }

    fn participant_stats(
        &mut self,
        now: Instant,
        index: RoomIndex,
    ) -> Vec<(ParticipantKey, ParticipantStats)> {
        let shard = self.around.id.0;
        let Some(seat) = self.seat_mut(index) else { return Vec::new() };
        let mut participants = seat.room.stats(now);
        let peers: Vec<_> = participants.iter().map(|(key, _)| seat.peer_of(*key)).collect();
        for ((_, stats), peer) in participants.iter_mut().zip(peers) {
            let Some(peer) = peer.and_then(|peer| self.peer_mut(peer)) else { continue };
            let connection = &mut stats.connection;
            connection.shard = shard;
            connection.rtt_ms = peer.egress.rtt().map(|rtt| rtt.as_secs_f64() * 1_000.0);
            connection.srtp_profile = peer.egress.srtp_profile().map(str::to_owned);
            connection.egress_loss = peer.egress.loss();
            connection.bytes_received = peer.figures.bytes_received;
            connection.bytes_sent = peer.egress.bytes_sent();
            connection.transport = peer.figures.transport.map(str::to_owned);
        }
        participants
    }
}
