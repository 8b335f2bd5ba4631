//! Puts coded pictures and sounds together from RTP payloads that come in order: VP8 (RFC 7741), VP9
//! (RFC 9628), H264 (RFC 6184), AV1, Opus (RFC 7587).
//!
//! Whatever comes out can be decoded by one who has all that came out since the last key frame: after a loss
//! nothing does until the next. Total functions over bytes from the network: nothing panics, and what is kept
//! is bounded by [`UNIT_BYTES_MAX`].

pub mod av1;
mod h264;
mod vp9;

use crate::core::mix::MixPacket;
use crate::core::payload::{self, Codec, vp8};

/// A unit that grows larger is no picture of a call; what is broken must not fill the memory.
pub const UNIT_BYTES_MAX: usize = 4 << 20;

/// A coded picture of all its layers, or a packet of sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Of H264 in Annex B, with parameter sets before each key frame; of AV1 a temporal unit whose OBUs have
    /// sizes; of VP9 with a superframe index where it has several layers.
    pub data: Vec<u8>,
    pub keyframe: bool,
    pub rtp_time: u32,
    /// As of its packets.
    pub captured_us: Option<i64>,
}

/// What a packet led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Unit(Unit),
    /// Packets came that are of no use without a key frame.
    NeedsKeyframe,
}

#[derive(Debug)]
enum Pictures {
    /// Each packet is a unit.
    Sound,
    Vp8,
    Vp9(vp9::Frames),
    H264(h264::Units),
    Av1(av1::Units),
}

/// See the module. One for each stream of one codec.
#[derive(Debug)]
pub struct Assembler {
    codec: Codec,
    pictures: Pictures,
    data: Vec<u8>,
    keyframe: bool,
    rtp_time: Option<u32>,
    captured_us: Option<i64>,
    /// Nothing is missing since a key frame.
    whole: bool,
    /// The picture at hand lacks a packet, or its beginning.
    broken: bool,
}

impl Assembler {
    pub fn new(codec: Codec) -> Self {
        let pictures = match codec {
            Codec::Opus | Codec::Red => Pictures::Sound,
            Codec::Vp8 => Pictures::Vp8,
            Codec::Vp9 => Pictures::Vp9(vp9::Frames::default()),
            Codec::H264 => Pictures::H264(h264::Units::default()),
            Codec::Av1 => Pictures::Av1(av1::Units::default()),
        };
        Self {
            codec,
            pictures,
            data: Vec::new(),
            keyframe: false,
            rtp_time: None,
            captured_us: None,
            whole: false,
            broken: false,
        }
    }

    /// Packets before the next one are lost.
    pub fn lose(&mut self) {
        if let Pictures::Av1(units) = &mut self.pictures {
            units.lose(&mut Vec::new());
        }
        self.whole = false;
        self.broken = true;
    }

    /// Takes the next packet, and appends what became complete.
    pub fn push(&mut self, packet: &MixPacket, outcomes: &mut Vec<Outcome>) {
        let (rtp_time, captured_us) = (packet.rtp_time, packet.captured_us);
        match &mut self.pictures {
            Pictures::Sound => {
                let data = packet.payload.to_vec();
                outcomes.push(Outcome::Unit(Unit { data, keyframe: true, rtp_time, captured_us }));
            }
            Pictures::Av1(units) => {
                let mut found = Vec::new();
                units.take(packet, &mut found);
                for outcome in found {
                    outcomes.push(match outcome {
                        av1::Outcome::Unit(data) => {
                            let keyframe = av1::begins_sequence(&data);
                            self.whole |= keyframe;
                            judge(self.whole, Unit { data, keyframe, rtp_time, captured_us })
                        }
                        av1::Outcome::Lost => {
                            self.whole = false;
                            Outcome::NeedsKeyframe
                        }
                    });
                }
            }
            Pictures::Vp8 | Pictures::Vp9(_) | Pictures::H264(_) => self.gather(packet, outcomes),
        }
    }

    fn gather(&mut self, packet: &MixPacket, outcomes: &mut Vec<Outcome>) {
        if self.rtp_time.is_some_and(|rtp_time| rtp_time != packet.rtp_time) {
            // Its last packet had no marker.
            outcomes.extend(self.finish());
        }
        if self.rtp_time.is_none() {
            self.rtp_time = Some(packet.rtp_time);
            self.captured_us = packet.captured_us;
            if payload::inspect(self.codec, &packet.payload, None).keyframe {
                self.broken = false;
            }
        }
        let taken = match &mut self.pictures {
            Pictures::Vp8 => self.take_vp8(&packet.payload),
            Pictures::Vp9(frames) => frames.take(&packet.payload, &mut self.data, &mut self.keyframe),
            Pictures::H264(units) => units.take(&packet.payload, &mut self.data, &mut self.keyframe),
            Pictures::Sound | Pictures::Av1(_) => None,
        };
        if taken.is_none() || self.data.len() > UNIT_BYTES_MAX {
            self.data.clear();
            self.broken = true;
            match &mut self.pictures {
                Pictures::Vp9(frames) => *frames = vp9::Frames::default(),
                Pictures::H264(units) => units.forget_unit(),
                Pictures::Sound | Pictures::Vp8 | Pictures::Av1(_) => {}
            }
        }
        if packet.marker {
            outcomes.extend(self.finish());
        }
    }

    fn take_vp8(&mut self, payload: &[u8]) -> Option<()> {
        let (body, begins) = vp8::body(payload)?;
        if begins && self.data.is_empty() {
            // RFC 6386 §9.1: the first bit of a picture is 0 for a key frame.
            self.keyframe = body.first()? & 1 == 0;
        } else if self.data.is_empty() {
            return None;
        }
        self.data.extend(body);
        Some(())
    }

    /// The picture at hand has come to its end.
    fn finish(&mut self) -> Option<Outcome> {
        let (rtp_time, captured_us) = (self.rtp_time.take()?, self.captured_us.take());
        let mut data = std::mem::take(&mut self.data);
        let mut keyframe = std::mem::take(&mut self.keyframe);
        let mut broken = std::mem::take(&mut self.broken);
        let shows = match &mut self.pictures {
            Pictures::Vp9(frames) => {
                broken |= !frames.finish(&mut data);
                true
            }
            Pictures::H264(units) => units.finish(&mut data, &mut keyframe, &mut broken),
            _ => true,
        };
        if broken || data.is_empty() {
            self.whole = false;
            return Some(Outcome::NeedsKeyframe);
        }
        self.whole |= keyframe;
        shows.then(|| judge(self.whole, Unit { data, keyframe, rtp_time, captured_us }))
    }
}

fn judge(is_whole: bool, unit: Unit) -> Outcome {
    if is_whole { Outcome::Unit(unit) } else { Outcome::NeedsKeyframe }
}

/// What a packet of Opus lasts, in microseconds (RFC 6716 §3.1); `None` for what is no packet.
pub fn opus_duration_us(packet: &[u8]) -> Option<i64> {
    let toc = *packet.first()?;
    let frame_us = match toc >> 3 {
        config @ 0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(config & 3)],
        config @ 12..=15 => [10_000, 20_000][usize::from(config & 1)],
        config => [2_500, 5_000, 10_000, 20_000][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => i64::from(packet.get(1)? & 0x3f),
    };
    // No packet lasts longer (§3.2.5, R5).
    Some(frame_us * frames).filter(|us| (1..=120_000).contains(us))
}

#[cfg(test)]
mod tests;
