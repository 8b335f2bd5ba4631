//! Who has gone without a word: an ICE-lite agent sends no checks of its own, so a peer that vanishes is
//! known by its silence alone. A peer that lives is heard at least every 2.5 seconds (browsers' consent
//! checks, RFC 7675), and most more often.

use std::time::{Duration, Instant};

use super::{PeerIndex, Shard};

/// After so long without a datagram a participant counts as lost. More than two consent checks, and more than
/// a server that stood still for five seconds has to read through.
const SILENT_AFTER: Duration = Duration::from_secs(7);
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Shard {
    #[inline]
    pub(super) fn note_heard(&mut self, now: Instant, index: PeerIndex, bytes: usize) {
        let Some(peer) = self.peer_mut(index) else { return };
        peer.heard_at = now;
        peer.figures.bytes_received += bytes as u64;
        if !std::mem::take(&mut peer.is_silent) || !peer.attached {
            return;
        }
        let (room, who) = (peer.room, peer.who);
        let stamp = self.stamp(now);
        if let Some(seat) = self.seat_mut(room) {
            seat.room.handle_recovered(stamp, who);
            self.flush_room(now, room);
        }
    }

    /// Tells rooms of those who were not heard for too long. Their seats are kept for a while, for a return.
    pub(super) fn check_silence(&mut self, now: Instant) {
        if now < self.check_silence_at {
            return;
        }
        self.check_silence_at = now + CHECK_INTERVAL;
        let stamp = self.stamp(now);
        for place in 0..self.peers.len() {
            let Some(peer) = self.peer_mut(PeerIndex(place as u32)) else { continue };
            let silent = now.saturating_duration_since(peer.heard_at) >= SILENT_AFTER;
            if !silent || peer.is_silent || !peer.attached {
                continue;
            }
            peer.is_silent = true;
            tracing::debug!(parent: &peer.span, "silent: counts as lost");
            let (room, who) = (peer.room, peer.who);
            if let Some(seat) = self.seat_mut(room) {
                seat.room.handle_lost(stamp, who);
                self.flush_room(now, room);
            }
        }
    }
}
