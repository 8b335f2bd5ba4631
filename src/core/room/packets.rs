//! The way of a packet through the room: in by one track's encoding, out to each slot that takes it.

use std::sync::Arc;
use std::time::Instant;

use super::{ParticipantKey, Room, SlotKey, TrackKey};
use crate::core::format::Format;
use crate::core::forward::{Layers, PacketMeta, Rewritten};
use crate::core::participant::{Layer, Participant, Slot};
use crate::core::payload::{self, DescriptorBytes};
use crate::core::protocol::Kind;
use crate::core::replay::{Rare, Replay};
use crate::core::track::Track;

/// A packet as it came in, its peer's numbers already translated.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Index of the line in what the participant published, and of the encoding within it.
    pub line: u8,
    pub encoding: u8,
    pub format: Format,
    /// Extended sequence number.
    pub seq_no: u64,
    pub rtp_time: u32,
    pub marker: bool,
    pub payload: &'a Arc<[u8]>,
    pub descriptor: Option<&'a DescriptorBytes>,
    /// RFC 6464: −dBov, 0 loudest, and the voice flag.
    pub audio_level: Option<(u8, bool)>,
    pub rare: Option<&'a Rare>,
}

/// One packet for one slot.
#[derive(Debug)]
pub struct Forward {
    pub to: ParticipantKey,
    pub slot: SlotKey,
    pub format: Format,
    pub rewritten: Rewritten,
    /// What goes out instead of what came in: a packet of before.
    pub replayed: Option<Replayed>,
}

/// What a packet carried that came in earlier.
#[derive(Debug)]
pub struct Replayed {
    pub payload: Arc<[u8]>,
    pub rare: Option<Box<Rare>>,
    /// Ticks by which its timestamp is later than its source has it: see [`Replay::packets`].
    pub late_by: u32,
}

impl Room {
    /// Takes a packet in and appends to `forwards` whatever leaves for it. False when it was refused: no
    /// grant, muted by an admin, or an unknown line.
    pub fn handle_rtp(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        arrival: &Arrival<'_>,
        forwards: &mut Vec<Forward>,
    ) -> bool {
        let Some(key) = self.track_of_packet(now, from, arrival) else { return false };
        let Some(track) = self.tracks.get_mut(key.0 as usize).and_then(Option::as_mut) else { return false };
        let (kind, muted, silenced) = (track.kind(), track.muted, track.silenced);
        let speaks = kind == Kind::Audio && !muted && !track.source.is_mix();
        let Some(encoding) = track.encodings.get_mut(usize::from(arrival.encoding)) else { return false };
        let dd = arrival.descriptor.and_then(|bytes| encoding.descriptors.read(bytes.as_slice()));
        let frame = payload::inspect(arrival.format.codec, arrival.payload, dd.as_ref());
        encoding.note_packet(now, arrival.payload.len(), &frame);
        if arrival.format.codec.is_video() && encoding.is_excessive(now, self.settings.video_bps_max) {
            return false;
        }
        if silenced || muted && kind == Kind::Video {
            // What nobody was to see then, nobody is shown later.
            encoding.replay.clear();
            return !silenced;
        }
        if speaks {
            match arrival.audio_level {
                Some((level, voice)) => self.speakers.handle_level(now, key, level, Some(voice)),
                None => self.speakers.handle_unmeasured(now, key),
            };
        }
        let meta = PacketMeta {
            seq_no: arrival.seq_no,
            rtp_time: arrival.rtp_time,
            marker: arrival.marker,
            frame: &frame,
            dd: dd.as_ref(),
        };
        let in_order = kind == Kind::Audio || encoding.replay.push(now, &meta, arrival.payload, arrival.rare);
        let incoming = Incoming { arrival, meta: &meta, in_order };
        forward(track, &mut self.participants, now, &incoming, forwards);
        true
    }

    /// The track that the packet belongs to. The first packet of a line publishes it, unless the publisher
    /// names its tracks itself.
    fn track_of_packet(
        &mut self,
        now: Instant,
        from: ParticipantKey,
        arrival: &Arrival<'_>,
    ) -> Option<TrackKey> {
        let line = usize::from(arrival.line);
        let participant = self.participant(from)?;
        if !participant.grant.publish || !participant.is_here() {
            return None;
        }
        let key = match *participant.line_tracks.get(line)? {
            Some(key) => key,
            None if participant.lodger.is_some() => {
                self.tell_sends(from, arrival.line);
                return None;
            }
            None if participant.names_tracks => return None,
            None => self.publish_line(now, from, line)?,
        };
        if self.track(key)?.format != Some(arrival.format) {
            self.set_format(now, key, arrival.format);
        }
        Some(key)
    }
}

/// A packet that was let in.
struct Incoming<'a> {
    arrival: &'a Arrival<'a>,
    meta: &'a PacketMeta<'a>,
    /// None that was sent later came earlier.
    in_order: bool,
}

/// Gives the packet to every subscriber that takes its encoding, or switches to it here. One that begins gets
/// all that it needs to show this packet.
#[inline]
fn forward(
    track: &Track,
    participants: &mut [Option<Participant>],
    now: Instant,
    packet: &Incoming<'_>,
    forwards: &mut Vec<Forward>,
) {
    let Incoming { arrival, meta, in_order } = *packet;
    let Some(encoding) = track.encodings.get(usize::from(arrival.encoding)) else { return };
    for &(to, slot_key) in &track.subscribers {
        let Some(subscriber) = participants.get_mut(to.0 as usize).and_then(Option::as_mut) else { continue };
        let Some(slot) = subscriber.slots.get_mut(usize::from(slot_key.0)) else { continue };
        let Some(target) = slot.target else { continue };
        let takes = |layer: Option<Layer>| layer.is_some_and(|layer| layer.encoding == arrival.encoding);
        if target.encoding == arrival.encoding && slot.current != Some(target) {
            if takes(slot.current) {
                flow(slot, target);
            } else if slot.current.is_none() && encoding.is_replayed(subscriber.allocator.estimate_bps()) {
                slot.rewriter.switch();
                flow(slot, target);
                replay(&encoding.replay, now, slot, (to, slot_key), arrival.format, forwards);
                continue;
            } else if meta.frame.keyframe && in_order || slot.kind == Kind::Audio {
                slot.rewriter.switch();
                flow(slot, target);
            }
        }
        if !takes(slot.current) {
            continue;
        }
        if let Some(rewritten) = slot.rewriter.rewrite(now, meta) {
            slot.rate.add(now, arrival.payload.len());
            forwards.push(Forward { to, slot: slot_key, format: arrival.format, rewritten, replayed: None });
        }
    }
}

fn flow(slot: &mut Slot, target: Layer) {
    slot.rewriter.set_layers(Layers { spatial: target.spatial, ..Layers::ALL });
    slot.current = Some(target);
}

/// Gives a slot that begins the key frame and all since, this packet being among it.
fn replay(
    replay: &Replay,
    now: Instant,
    slot: &mut Slot,
    (to, slot_key): (ParticipantKey, SlotKey),
    format: Format,
    forwards: &mut Vec<Forward>,
) {
    for (at, meta, recorded) in replay.packets(now) {
        if let Some(rewritten) = slot.rewriter.rewrite(at, &meta) {
            slot.rate.add(now, recorded.payload.len());
            let late_by = meta.rtp_time.wrapping_sub(recorded.rtp_time);
            let (payload, rare) = (Arc::clone(&recorded.payload), recorded.rare.clone());
            let replayed = Replayed { payload, rare, late_by };
            forwards.push(Forward { to, slot: slot_key, format, rewritten, replayed: Some(replayed) });
        }
    }
}
