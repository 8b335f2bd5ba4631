//! What goes to peers: their egress, its timers, and RTCP in both directions.

use std::time::{Duration, Instant};

use str0m::net::Transmit;

use super::{PeerIndex, Shard};
use crate::media::egress::WallClock;
use crate::media::wire::{Path, Wire};

/// Who has lost packets may lose more within this.
const LOSSY_FOR: Duration = Duration::from_secs(5);

impl Shard {
    /// Sends what the peers' egresses hold, and tells rooms of new estimates. True when it stopped because the
    /// outbox is full.
    pub(super) fn flush_unsent(&mut self, now: Instant) -> bool {
        for _ in 0..self.unsent.len() {
            let Some(index) = self.unsent.pop_front() else { return false };
            let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut) else { continue };
            peer.unsent = false;
            let mut wire = Wire {
                outbox: &mut self.outbox,
                tcp: &self.tcp,
                dropped: &mut self.counters.dropped.buffer_full,
            };
            peer.egress.flush(&mut self.queue, now, &mut wire);
            while peer.ingress.poll_feedback(now, &mut self.compound) {
                peer.egress.send_rtcp(&mut self.compound, &mut wire);
            }
            peer.ingress.take_alarm();
            let at = peer.egress.poll_timeout(now).into_iter().chain(peer.ingress.poll_timeout()).min();
            match at {
                // A probe is a rate; nothing else is urgent to the millisecond.
                Some(at) if peer.egress.is_probing() => self.timers.probes.set(index.0, at),
                Some(at) => self.timers.egresses.set(index.0, at),
                None => self.timers.egresses.clear(index.0),
            }
            self.tell_estimate(now, index);
            if self.outbox.is_full() {
                return true;
            }
        }
        false
    }

    pub(super) fn handle_egress_timeout(&mut self, now: Instant, index: PeerIndex) {
        if let Some(peer) = self.peer_mut(index) {
            peer.egress.handle_timeout(now);
            self.mark_unsent(index);
        }
    }

    pub(super) fn mark_unsent(&mut self, index: PeerIndex) {
        if let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut)
            && !peer.unsent
        {
            peer.unsent = true;
            self.unsent.push_back(index);
        }
    }

    fn tell_estimate(&mut self, now: Instant, index: PeerIndex) {
        let Some(peer) = self.peer_mut(index).filter(|peer| peer.attached) else { return };
        let Some(bps) = peer.egress.poll_estimate() else { return };
        let (room, who) = (peer.room, peer.who);
        if let Some(seat) = self.seat_mut(room) {
            seat.room.handle_estimate(now, who, bps);
            self.flush_room(now, room);
        }
    }

    /// Takes RTCP of a peer.
    pub(super) fn handle_rtcp(&mut self, now: Instant, index: PeerIndex, sealed: &[u8]) {
        let Some(peer) = self.peer_mut(index) else { return };
        let (room, who, attached) = (peer.room, peer.who, peer.attached);
        let Some(requests) = peer.egress.handle_rtcp(now, sealed) else {
            self.counters.dropped.malformed += 1;
            return;
        };
        for report in &requests.sender_reports {
            peer.ingress.handle_sender_report(now, report);
        }
        if requests.for_resends {
            self.lossy_until = now + LOSSY_FOR;
        }
        self.mark_unsent(index);
        if attached && !requests.keyframes.is_empty() {
            if let Some(seat) = self.seat_mut(room) {
                for slot in &requests.keyframes {
                    seat.room.handle_keyframe_request(now, who, *slot);
                }
            }
            self.flush_room(now, room);
        }
    }

    /// Sends what a peer's engine wants to be sent.
    pub(super) fn transmit(&mut self, index: PeerIndex, transmit: &Transmit) {
        let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
        let path = Path { proto: transmit.proto, source: transmit.source, destination: transmit.destination };
        let mut wire = Wire {
            outbox: &mut self.outbox,
            tcp: &self.tcp,
            dropped: &mut self.counters.dropped.buffer_full,
        };
        // RFC 7983: STUN, DTLS, SRTP and SRTCP are told apart by their first byte.
        match *transmit.contents {
            // The engine has no stream to send or to report on; if it had, it would not have the key.
            [128..=191, ..] => {
                self.counters.dropped.unsendable += 1;
                return;
            }
            // The answer to a nomination that was genuine: the pair is the chosen one.
            [0..=3, ..] if peer.nominating == Some(path.destination) => {
                peer.nominating = None;
                peer.egress.path = Some(path);
            }
            [0..=3, ..] => {}
            _ => peer.egress.path = Some(path),
        }
        wire.send(&path, |out, _| {
            out.extend_from_slice(&transmit.contents);
            Ok::<_, std::convert::Infallible>(())
        });
    }

    pub(super) fn say_goodbye(&mut self, index: PeerIndex) {
        let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
        let mut wire = Wire {
            outbox: &mut self.outbox,
            tcp: &self.tcp,
            dropped: &mut self.counters.dropped.buffer_full,
        };
        peer.egress.say_goodbye(&mut wire);
    }

    pub(super) fn wall_clock(&self) -> WallClock {
        WallClock { start: self.around.start, unix_us_at_start: self.around.unix_ms_at_start * 1_000 }
    }
}
