//! What reaches a shard about a room from outside it: from other shards and nodes that the room spreads over,
//! and from its mixer, its recorder and its feeds.
//!
//! Packets and news share one bounded queue for each shard, so that they keep their order. Full: packets are
//! dropped and counted, and key frames asked for; news waits at the sender, in order, with all packets behind
//! it dropped.

use std::sync::Arc;
use std::time::Instant;

use super::egress::Passed;
use super::shard::{MixerLink, RecorderLink};
use crate::core::feed::Playing;
use crate::core::format::Format;
use crate::core::forward::PacketMeta;
use crate::core::ids::{FarId, RoomName, Site};
use crate::core::mix::{FromMixer, MixPacket};
use crate::core::payload::DescriptorBytes;
use crate::core::recording::FromRecorder;
use crate::core::relay::{Cargo, Data, Downstream, Packet, Upstream};
use crate::core::replay::{Recorded, Replay};
use crate::core::room::{Arrival, ParticipantKey};
use crate::mailbox::Inlet;

/// Something for the same room from elsewhere.
pub struct Relay {
    pub room: RoomName,
    /// Of the room's opening: what is meant for an earlier one concerns nobody.
    pub epoch: u64,
    pub from: Site,
    pub freight: Freight,
}

pub enum Freight {
    /// What one tick of the home brought, in order.
    Packets(Vec<RelayedPacket>),
    /// From the `lossy` channel of somebody who is connected elsewhere.
    Data(Data),
    Down(Downstream),
    Up(Upstream),
    /// A branch at another node is to be opened: the way to it.
    FarLink(FarId, Inlet<Cargo>),
    /// The room's mixer was started: the way to it.
    MixerLink(MixerLink),
    Mixer {
        serial: u64,
        news: FromMixer,
    },
    /// What the room's mixer made.
    Mixed {
        serial: u64,
        packets: Vec<MixPacket>,
    },
    /// The room's recorder was started: the way to it.
    RecorderLink(RecorderLink),
    Recorder {
        serial: u64,
        news: FromRecorder,
    },
    /// What a feed of the room's made.
    Fed {
        serial: u64,
        packets: Vec<MixPacket>,
    },
    /// Where in its file one is that plays.
    Playing {
        serial: u64,
        playing: Playing,
    },
    /// A feed gives its seat up.
    FeedEnded {
        serial: u64,
    },
}

impl From<Cargo> for Freight {
    fn from(cargo: Cargo) -> Self {
        match cargo {
            Cargo::Packets(packets) => Self::Packets(packets.into_iter().map(RelayedPacket::from).collect()),
            Cargo::Data(data) => Self::Data(data),
            Cargo::Down(news) => Self::Down(news),
            Cargo::Up(news) => Self::Up(news),
        }
    }
}

impl Freight {
    /// May be lost.
    pub fn is_media(&self) -> bool {
        matches!(self, Self::Packets(_) | Self::Data(_) | Self::Mixed { .. } | Self::Fed { .. })
    }
}

/// A packet as it came in at the home.
#[derive(Debug, Clone)]
pub struct RelayedPacket {
    /// Its sender's seat at the home.
    pub origin: ParticipantKey,
    pub line: u8,
    pub encoding: u8,
    pub format: Format,
    pub seq_no: u64,
    pub rtp_time: u32,
    pub marker: bool,
    /// A copy of the receiving shard's own: no count is shared by two cores.
    pub payload: Arc<[u8]>,
    pub descriptor: Option<DescriptorBytes>,
    pub audio_level: Option<(u8, bool)>,
    pub passed: Passed,
}

impl RelayedPacket {
    pub fn new(origin: ParticipantKey, arrival: &Arrival<'_>, passed: &Passed) -> Self {
        Self {
            origin,
            line: arrival.line,
            encoding: arrival.encoding,
            format: arrival.format,
            seq_no: arrival.seq_no,
            rtp_time: arrival.rtp_time,
            marker: arrival.marker,
            payload: Arc::from(&arrival.payload[..]),
            descriptor: arrival.descriptor.cloned(),
            audio_level: arrival.audio_level,
            passed: passed.clone(),
        }
    }

    /// What a branch that begins with this packet needs to show it. `None` for a stream with dependency
    /// descriptors, which are not kept as they came: it begins with a key frame.
    pub fn replayed(
        now: Instant,
        origin: ParticipantKey,
        arrival: &Arrival<'_>,
        replay: &Replay,
    ) -> Option<Vec<Self>> {
        if arrival.descriptor.is_some() {
            return None;
        }
        let packet = |(_, meta, recorded): (Instant, PacketMeta<'_>, &Recorded)| Self {
            origin,
            line: arrival.line,
            encoding: arrival.encoding,
            format: arrival.format,
            seq_no: meta.seq_no,
            rtp_time: meta.rtp_time,
            marker: meta.marker,
            payload: Arc::from(&recorded.payload[..]),
            descriptor: None,
            audio_level: None,
            passed: Passed { rare: recorded.rare.clone(), ..Passed::default() },
        };
        Some(replay.packets(now).map(packet).collect())
    }

    pub fn arrival(&self) -> Arrival<'_> {
        Arrival {
            line: self.line,
            encoding: self.encoding,
            format: self.format,
            seq_no: self.seq_no,
            rtp_time: self.rtp_time,
            marker: self.marker,
            payload: &self.payload,
            descriptor: self.descriptor.as_ref(),
            audio_level: self.audio_level,
            rare: self.passed.rare.as_deref(),
        }
    }
}

impl RelayedPacket {
    /// As it crosses a link to another node. The payload is shared with this, for the moment.
    pub fn crossing(&self) -> Packet {
        Packet {
            origin: self.origin,
            line: self.line,
            encoding: self.encoding,
            format: self.format,
            seq_no: self.seq_no,
            rtp_time: self.rtp_time,
            marker: self.marker,
            audio_level: self.audio_level,
            descriptor: self.descriptor.clone(),
            rare: self.passed.rare.clone(),
            payload: Arc::clone(&self.payload),
        }
    }
}

impl From<Packet> for RelayedPacket {
    fn from(packet: Packet) -> Self {
        let level = packet.audio_level.map(|(level, voice)| u8::from(voice) << 7 | level);
        Self {
            origin: packet.origin,
            line: packet.line,
            encoding: packet.encoding,
            format: packet.format,
            seq_no: packet.seq_no,
            rtp_time: packet.rtp_time,
            marker: packet.marker,
            payload: packet.payload,
            descriptor: packet.descriptor,
            audio_level: packet.audio_level,
            passed: Passed { audio_level: level, rare: packet.rare, ..Passed::default() },
        }
    }
}
