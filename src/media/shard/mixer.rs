//! A room's mixer as its shard knows it: what it is sent, and the way of what it makes.

use std::sync::Arc;
use std::time::Instant;

use str0m::rtp::RedDecoder;

use super::{Notice, Shard};
use crate::core::format::Format;
use crate::core::forward::Rewritten;
use crate::core::mix::{FromMixer, MixPacket, MixerOrder, Place, ToMixer};
use crate::core::payload::{Codec, PayloadPatch};
use crate::core::room::{Arrival, SlotKey};
use crate::mailbox::{ControlSender, LossySender};
use crate::media::egress::Passed;
use crate::media::peer::RoomIndex;

/// The way to a mixer.
#[derive(Debug)]
pub struct MixerLink {
    /// Tells it from those that the room had before: what they still say concerns nobody.
    pub serial: u64,
    pub words: ControlSender<ToMixer>,
    pub packets: LossySender<MixPacket>,
}

impl MixerLink {
    /// Gives the mixer a packet for one of its slots. False where it cannot take it.
    pub(super) fn push(
        &self,
        slot: SlotKey,
        format: Format,
        rewritten: &Rewritten,
        payload: &Arc<[u8]>,
    ) -> bool {
        let (codec, payload) = if format == Format::RED {
            // What is repeated has come before, or the jitter buffer conceals it (RFC 2198 §3).
            let Ok(blocks) = RedDecoder::decode(payload) else { return false };
            let Some(primary) = blocks.last() else { return false };
            (Codec::Opus, Arc::from(primary.payload))
        } else if rewritten.patch == PayloadPatch::None {
            (format.codec, Arc::clone(payload))
        } else {
            let mut patched = Vec::with_capacity(payload.len());
            rewritten.patch.write(payload, &mut patched);
            (format.codec, Arc::from(patched))
        };
        self.packets.send(MixPacket {
            place: Place::Slot(slot.0),
            codec,
            seq_no: rewritten.seq_no,
            rtp_time: rewritten.rtp_time,
            marker: rewritten.marker,
            payload,
        })
    }
}

impl Shard {
    /// Carries out what a room has decided about its mixer.
    pub(super) fn order_mixer(&mut self, now: Instant, index: RoomIndex, order: MixerOrder) {
        let shard = self.around.id;
        let Some(seat) = self.seat_mut(index) else { return };
        let done = match order {
            MixerOrder::Start(settings) => {
                let (room, epoch) = (seat.room.name().clone(), seat.epoch);
                self.notify(Notice::StartMixer { shard, room, epoch, settings })
            }
            // A mixer that is just going is told nothing; the room hears of it.
            MixerOrder::Tell(words) => {
                seat.mixer.as_ref().is_none_or(|mixer| mixer.words.send(words).is_ok())
            }
            MixerOrder::Stop => {
                seat.mixer = None;
                true
            }
        };
        if !done {
            let stamp = self.stamp(now);
            if let Some(seat) = self.seat_mut(index) {
                seat.mixer = None;
                seat.room.handle_mixer(stamp, FromMixer::Gone);
            }
        }
    }

    /// The room's mixer was started.
    pub(super) fn handle_mixer_link(&mut self, index: RoomIndex, link: MixerLink) {
        if let Some(seat) = self.seat_mut(index).filter(|seat| seat.room.awaits_mixer()) {
            seat.mixer = Some(link);
        }
    }

    pub(super) fn handle_mixer_news(&mut self, now: Instant, index: RoomIndex, serial: u64, news: FromMixer) {
        let stamp = self.stamp(now);
        let Some(seat) = self.seat_mut(index) else { return };
        let is_current = seat.mixer.as_ref().is_some_and(|mixer| mixer.serial == serial);
        // There was none to be had, so there is none to know it by.
        let is_refused = news == FromMixer::Refused && seat.mixer.is_none();
        if is_current || is_refused {
            seat.room.handle_mixer(stamp, news);
        }
    }

    /// Forwards what a mixer has made.
    pub(super) fn handle_mixed(
        &mut self,
        now: Instant,
        index: RoomIndex,
        serial: u64,
        packets: &[MixPacket],
    ) {
        for packet in packets {
            let Some(seat) = self.rooms.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
            if seat.mixer.as_ref().is_none_or(|mixer| mixer.serial != serial) {
                return;
            }
            let (Some(who), Some(arrival)) = (seat.room.mixer_seat(), arrival(packet)) else { continue };
            self.counters.packets_received += 1;
            let passed = Passed::default();
            let mut forwards = std::mem::take(&mut self.forwards);
            let taken = seat.room.handle_rtp(now, who, &arrival, &mut forwards);
            self.fan_out(now, index, &packet.payload, &passed, &mut forwards);
            self.forwards = forwards;
            if taken {
                self.relay(now, index, who, &arrival, &passed);
            }
        }
    }
}

fn arrival(packet: &MixPacket) -> Option<Arrival<'_>> {
    let Place::Line { line, encoding } = packet.place else { return None };
    let format = match packet.codec {
        Codec::Opus => Format::OPUS,
        Codec::Vp8 => Format::VP8,
        Codec::H264 => Format::H264_BASELINE,
        Codec::Red | Codec::Vp9 | Codec::Av1 => return None,
    };
    Some(Arrival {
        line,
        encoding,
        format,
        seq_no: packet.seq_no,
        rtp_time: packet.rtp_time,
        marker: packet.marker,
        payload: &packet.payload,
        descriptor: None,
        audio_level: None,
        rare: None,
    })
}
