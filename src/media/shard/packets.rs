//! The way of a packet: from its sender's connection through the room to its receivers' ([`super::egress`]).

use std::sync::Arc;
use std::time::Instant;

use super::{PeerIndex, Shard, worker};
use crate::core::payload::DescriptorBytes;
use crate::core::replay::{Contributors, Rare};
use crate::core::room::{Arrival, Forward, Replayed};
use crate::media::egress::{Forwarded, Passed};
use crate::media::ingress::{Untaken, Values};
use crate::media::peer::RoomIndex;

impl Shard {
    /// Takes one RTP packet as it came.
    pub(super) fn handle_rtp(&mut self, now: Instant, index: PeerIndex, sealed: &[u8]) {
        let Some(peer) = self.peers.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
        if !peer.attached {
            return;
        }
        let (room, who) = (peer.room, peer.who);
        let received = peer.ingress.receive(now, sealed);
        if let Some(at) = peer.ingress.take_alarm() {
            self.heed(now, index, at);
        }
        let incoming = match received {
            Ok(incoming) => incoming,
            Err(untaken) => {
                let dropped = &mut self.counters.dropped;
                match untaken {
                    Untaken::Malformed => dropped.malformed += 1,
                    Untaken::Unknown => dropped.refused += 1,
                    Untaken::Nothing => {}
                }
                return;
            }
        };
        self.counters.packets_received += 1;
        let passed = passed(&incoming.values);
        let descriptor = incoming.values.descriptor.map(DescriptorBytes::new);
        let arrival = Arrival {
            line: incoming.line,
            encoding: incoming.encoding,
            format: incoming.format,
            seq_no: incoming.seq_no,
            rtp_time: incoming.rtp_time,
            marker: incoming.marker,
            payload: &incoming.payload,
            descriptor: descriptor.as_ref(),
            audio_level: incoming.values.audio_level.map(|level| (level & 0x7f, level & 0x80 != 0)),
            rare: passed.rare.as_deref(),
        };
        let Some(seat) = self.rooms.get_mut(room.0 as usize).and_then(Option::as_mut) else { return };
        let mut forwards = std::mem::take(&mut self.forwards);
        let taken = seat.room.handle_rtp(now, who, &arrival, &mut forwards);
        if !taken {
            self.counters.dropped.refused += 1;
        }
        self.fan_out(now, room, &incoming.payload, &passed, incoming.captured_us, &mut forwards);
        self.forwards = forwards;
        if taken {
            self.relay(now, room, who, &arrival, &passed);
        }
        self.flush_room(now, room);
    }

    /// Sees to it that what has become due for a peer is sent then.
    fn heed(&mut self, now: Instant, index: PeerIndex, at: Instant) {
        if at <= now {
            self.mark_unsent(index);
        } else {
            self.timers.egresses.set_earlier(index.0, at);
        }
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
        for Forward { to, slot, format, mut rewritten, replayed } in forwards.drain(..) {
            let Some(to) = seat.peer_of(to) else {
                let captured_us = captured_us.filter(|_| replayed.is_none());
                let payload = replayed.as_ref().map_or(payload, |replayed| &replayed.payload);
                let Some((queue, place, is_recorder)) = seat.worker_of(to, slot) else { continue };
                if let Some(replayed) = replayed.as_ref().filter(|_| is_recorder) {
                    // A recording has no jitter buffer to spare: its pictures are when they were.
                    rewritten.rtp_time = rewritten.rtp_time.wrapping_sub(replayed.late_by);
                }
                let packet = worker::packet(place, format, &rewritten, payload, captured_us);
                if !packet.is_some_and(|packet| queue.send(packet)) {
                    let dropped = &mut self.counters.dropped;
                    *if is_recorder { &mut dropped.recorder_full } else { &mut dropped.mixer_full } += 1;
                }
                continue;
            };
            let Some(receiver) = self.peers.get_mut(to.0 as usize).and_then(Option::as_mut) else { continue };
            let queue = &mut self.queue;
            let slot = slot.0;
            let sent = match &replayed {
                None => {
                    let packet = Forwarded { slot, format, rewritten, payload, passed };
                    receiver.egress.push(queue, now, packet)
                }
                Some(Replayed { payload, rare, .. }) => {
                    let passed = &Passed { rare: rare.clone(), ..Passed::default() };
                    let packet = Forwarded { slot, format, rewritten, payload, passed };
                    receiver.egress.push(queue, now, packet)
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
}

/// Header extensions that go on as they came.
#[inline]
fn passed(values: &Values<'_>) -> Passed {
    let Values { audio_level, orientation, playout_delay, .. } = *values;
    // Without the bits that tell one camera from another.
    let orientation = orientation.map(|orientation| orientation & 3);
    let rare = (orientation.is_some() || playout_delay.is_some())
        .then(|| Box::new(Rare { orientation, playout_delay, contributors: Contributors::new() }));
    Passed { audio_level, descriptor: None, rare, made_at: None }
}
