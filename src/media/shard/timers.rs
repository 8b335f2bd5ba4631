//! A shard's timers: which are met to the millisecond, which together, and which wake nobody for a while.

use std::time::{Duration, Instant};

use crate::media::peer::{PeerIndex, RoomIndex};
use crate::media::wheel::Wheel;

/// Timers of engines are not urgent to the millisecond, and met together they cost one wake-up.
const ENGINE_SLOT: Duration = Duration::from_millis(5);
/// Those of probes are: a probe is a rate.
const PROBE_SLOT: Duration = Duration::from_millis(1);
/// Those of rooms, and others that can wait, are met together.
const COARSE_SLOT: Duration = Duration::from_millis(20);
/// And wake nobody for so long: where sound flows, the shard is up within this anyway.
const COARSE_GRACE: Duration = Duration::from_millis(20);

pub(super) struct Timers {
    start: Instant,
    engines: Wheel,
    /// Of what peers are sent and told.
    pub egresses: Wheel,
    /// Of those among them that are being probed.
    pub probes: Wheel,
    pub rooms: Wheel,
}

impl Timers {
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            engines: Wheel::new(start, ENGINE_SLOT),
            egresses: Wheel::new(start, COARSE_SLOT),
            probes: Wheel::new(start, PROBE_SLOT),
            rooms: Wheel::new(start, COARSE_SLOT),
        }
    }

    /// `is_calm`: the engine's timer can wait.
    pub fn set_engine(&mut self, peer: PeerIndex, at: Instant, is_calm: bool) {
        self.engines.set(peer.0, if is_calm { self.coarsely(at) } else { at });
    }

    /// At this time or after it, when everyone's timers are met that can wait.
    fn coarsely(&self, at: Instant) -> Instant {
        let slots = at.saturating_duration_since(self.start).as_micros().div_ceil(COARSE_SLOT.as_micros());
        self.start + COARSE_SLOT * u32::try_from(slots).unwrap_or(u32::MAX)
    }

    /// When somebody has to be woken for them.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let coarse = [&self.egresses, &self.rooms].into_iter().filter_map(Wheel::next_deadline);
        let exact = [&self.engines, &self.probes].into_iter().filter_map(Wheel::next_deadline);
        exact.chain(coarse.map(|at| at + COARSE_GRACE)).min()
    }

    /// Peers whose engines are due.
    pub fn expire_engines(&mut self, now: Instant) -> Vec<PeerIndex> {
        let mut due = Vec::new();
        self.engines.expire(now, |key| due.push(PeerIndex(key)));
        due
    }

    /// Peers to whom something is due.
    pub fn expire_egresses(&mut self, now: Instant) -> Vec<PeerIndex> {
        let mut due = Vec::new();
        for wheel in [&mut self.egresses, &mut self.probes] {
            wheel.expire(now, |key| due.push(PeerIndex(key)));
        }
        due
    }

    pub fn expire_rooms(&mut self, now: Instant) -> Vec<RoomIndex> {
        let mut due = Vec::new();
        self.rooms.expire(now, |key| due.push(RoomIndex(key)));
        due
    }

    pub fn forget(&mut self, peer: PeerIndex) {
        for wheel in [&mut self.engines, &mut self.egresses, &mut self.probes] {
            wheel.clear(peer.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_wait_is_met_with_others_and_wakes_nobody_at_once() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::new(start);
        timers.rooms.set(1, ms(21));
        timers.egresses.set(2, ms(3));
        assert_eq!(timers.poll_timeout(), Some(ms(40)));
        timers.set_engine(PeerIndex(3), ms(33), true);
        timers.set_engine(PeerIndex(4), ms(33), false);
        assert_eq!(timers.poll_timeout(), Some(ms(35)));
        timers.probes.set(2, ms(33));
        assert_eq!(timers.poll_timeout(), Some(ms(33)));
        assert_eq!(timers.expire_egresses(ms(19)), []);
        assert_eq!(timers.expire_egresses(ms(34)), [PeerIndex(2), PeerIndex(2)], "one for each wheel");
        assert_eq!(timers.expire_rooms(ms(34)), []);
        assert_eq!(timers.expire_engines(ms(39)), [PeerIndex(4)]);
        assert_eq!(timers.expire_engines(ms(40)), [PeerIndex(3)]);
        timers.forget(PeerIndex(3));
        assert_eq!(timers.poll_timeout(), Some(ms(60)), "the room's");
    }
}
