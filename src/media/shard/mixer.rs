//! A room's mixer as its shard knows it: what it is sent, and the way of what it makes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::worker::WorkerLink;
use super::{Notice, Shard};
use crate::core::format::Format;
use crate::core::mix::{FromMixer, MixPacket, MixerOrder, Place, ToMixer};
use crate::core::payload::Codec;
use crate::core::replay::{Contributors, Rare};
use crate::core::room::{Arrival, Room};
use crate::media::egress::Passed;
use crate::media::peer::RoomIndex;

/// A packet of the mix is on its way to its shard for less.
const AGE_US_MAX: i64 = 2_000_000;

pub type MixerLink = WorkerLink<ToMixer>;

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
            self.stream_out(index, packet);
            let Some(seat) = self.rooms.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
            let passed = passed(now, packet, &seat.room);
            let arrival = arrival(packet, passed.rare.as_deref());
            let (Some(who), Some(arrival)) = (seat.room.mixer_seat(), arrival) else { continue };
            self.counters.packets_received += 1;
            let mut forwards = std::mem::take(&mut self.forwards);
            let taken = seat.room.handle_rtp(now, who, &arrival, &mut forwards);
            self.fan_out(now, index, &packet.payload, &passed, packet.captured_us, &mut forwards);
            self.forwards = forwards;
            if taken {
                self.relay(now, index, who, &arrival, &passed);
            }
        }
    }
}

/// What a packet of the mix carries beside its payload: who is in it, and when it was made.
fn passed(now: Instant, packet: &MixPacket, room: &Room) -> Passed {
    let contributors = match packet.place {
        Place::Line { line, .. } => room.contributors(line),
        Place::Slot(_) | Place::Track { .. } => Contributors::new(),
    };
    let rare = Rare { orientation: None, playout_delay: None, contributors };
    Passed { rare: Some(Box::new(rare)), made_at: made_at(now, packet), ..Passed::default() }
}

/// When a process of the node made a packet.
pub(super) fn made_at(now: Instant, packet: &MixPacket) -> Option<Instant> {
    let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_micros() as i64);
    let age_us = unix_us.zip(packet.captured_us).map(|(unix_us, made_us)| unix_us.saturating_sub(made_us));
    // More than that is a wall clock that was set in between.
    let age = age_us.filter(|age_us| (0..AGE_US_MAX).contains(age_us)).unwrap_or_default();
    now.checked_sub(Duration::from_micros(age as u64))
}

/// A packet of a line, as the room takes it.
pub(super) fn arrival<'a>(packet: &'a MixPacket, rare: Option<&'a Rare>) -> Option<Arrival<'a>> {
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
        rare,
    })
}
