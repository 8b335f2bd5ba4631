//! One connection: a str0m `Rtc` with the numbers by which this peer calls things.
//!
//! Each change of the `Rtc` is followed by draining it. Several packets may be written before one drain: they
//! queue inside, and `tests/media` pins that they all leave.

use std::time::Instant;

use str0m::channel::ChannelId;
use str0m::media::{KeyframeRequestKind, Mid, Rid};
use str0m::rtp::{ExtensionValues, RedDecoder, RtpPacket, RtpWrite, SeqNo, Ssrc};
use str0m::{Input, Rtc};

use super::channel::Backlog;
use super::demux::PeerSerial;
use super::negotiate::{Negotiated, PayloadType};
use crate::core::format::Format;
use crate::core::payload::{DescriptorBytes, PayloadPatch};
use crate::core::protocol::Kind;
use crate::core::room::{Arrival, Forward, ParticipantKey};
use crate::core::track::PublishedLine;

/// A room's place on its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomIndex(pub u32);

/// A peer's place on its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u32);

/// What only the connection knows of its figures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub rtt_ms: Option<f64>,
    pub egress_loss: Option<f32>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub transport: Option<&'static str>,
}

pub struct Peer {
    pub serial: PeerSerial,
    pub room: RoomIndex,
    pub who: ParticipantKey,
    pub rtc: Box<Rtc>,
    pub offer: String,
    pub remote_ufrag: String,
    pub etag: String,
    pub control: Option<ChannelId>,
    pub lossy: Option<ChannelId>,
    pub backlog: Backlog,
    pub figures: Figures,
    /// Still speaks for its participant; no longer once that has left.
    pub attached: bool,
    /// Was written to since it was last drained.
    pub dirty: bool,
    /// To be closed once its last message is out, at the latest then.
    pub closing_at: Option<Instant>,
    /// When the join was asked for; taken when the connection stands.
    pub asked_at: Option<Instant>,
    pub span: tracing::Span,
    lines: Vec<PublishedLine>,
    slots: Vec<SendSlot>,
    payload_types: Vec<PayloadType>,
    /// Line and encoding of each SSRC that was seen; str0m bounds how many there can be.
    streams: Vec<(Ssrc, u8, u8)>,
}

struct SendSlot {
    mid: Mid,
    kind: Kind,
    /// The payload type in use, and what for.
    payload_type: Option<PayloadType>,
}

impl Peer {
    pub fn new(
        serial: PeerSerial,
        room: RoomIndex,
        who: ParticipantKey,
        negotiated: Negotiated,
        asked_at: Instant,
        span: tracing::Span,
    ) -> Self {
        let slots = negotiated.slots.iter();
        let slots =
            slots.map(|slot| SendSlot { mid: slot.mid, kind: slot.kind, payload_type: None }).collect();
        Self {
            serial,
            room,
            who,
            rtc: negotiated.rtc,
            remote_ufrag: attribute(&negotiated.offer, "a=ice-ufrag:").unwrap_or_default().to_owned(),
            etag: etag(&negotiated.answer),
            offer: negotiated.offer,
            control: None,
            lossy: None,
            backlog: Backlog::default(),
            figures: Figures::default(),
            attached: true,
            dirty: false,
            closing_at: None,
            asked_at: Some(asked_at),
            span,
            lines: negotiated.published,
            slots,
            payload_types: negotiated.payload_types,
            streams: Vec::new(),
        }
    }

    /// Reads a packet's numbers; `None` for one of no line or format of this peer's.
    #[inline]
    pub fn arrival<'a>(&mut self, packet: &'a RtpPacket) -> Option<Arrival<'a>> {
        let ssrc = packet.header.ssrc;
        let known = self.streams.iter().find(|(known, _, _)| *known == ssrc);
        let (line, encoding) = match known {
            Some(&(_, line, encoding)) => (line, encoding),
            None => self.learn_stream(ssrc)?,
        };
        let pt = packet.header.payload_type;
        let format = self.payload_types.iter().find(|known| known.pt == pt)?.format;
        let values = &packet.header.ext_vals;
        let level = values.audio_level.map(|level| level.unsigned_abs().min(127));
        Some(Arrival {
            line,
            encoding,
            format,
            seq_no: *packet.seq_no,
            rtp_time: packet.header.timestamp,
            marker: packet.header.marker,
            payload: &packet.payload,
            descriptor: values.user_values.get::<DescriptorBytes>(),
            audio_level: level.map(|level| (level, values.voice_activity.unwrap_or(level < 127))),
        })
    }

    fn learn_stream(&mut self, ssrc: Ssrc) -> Option<(u8, u8)> {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_rx(&ssrc)?;
        let (mid, rid) = (stream.mid(), stream.rid());
        let line = self.lines.iter().position(|line| line.mid == mid)?;
        let rids = &self.lines[line].rids;
        let encoding = match rid {
            Some(rid) if !rids.is_empty() => rids.iter().position(|known| *known == rid)?,
            _ => 0,
        };
        let found = (u8::try_from(line).ok()?, u8::try_from(encoding).ok()?);
        self.streams.push((ssrc, found.0, found.1));
        Some(found)
    }

    /// Queues a packet for sending. False where this peer cannot take it.
    #[inline]
    pub fn write(&mut self, forward: &Forward, packet: &RtpPacket) -> bool {
        let Some(slot) = self.slots.get_mut(usize::from(forward.slot.0)) else { return false };
        let format = forward.format;
        if slot.payload_type.is_none_or(|known| known.format != format) {
            let find =
                |wanted: Format| self.payload_types.iter().find(|known| known.format == wanted).copied();
            slot.payload_type = find(format).or_else(|| find(Format::OPUS).filter(|_| format == Format::RED));
        }
        let Some(payload_type) = slot.payload_type else { return false };
        let rewritten = &forward.rewritten;
        let payload = if format == Format::RED && payload_type.format == Format::OPUS {
            // The receiver does not know RED: it gets the newest block alone (RFC 2198 §3).
            let Ok(blocks) = RedDecoder::decode(&packet.payload) else { return false };
            let Some(primary) = blocks.last() else { return false };
            primary.payload.into()
        } else {
            rewritten.patch.apply(&packet.payload)
        };
        let is_video = slot.kind == Kind::Video;
        let mut write = RtpWrite::new(
            payload_type.pt,
            SeqNo::from(rewritten.seq_no),
            rewritten.rtp_time,
            packet.timestamp,
            payload,
        )
        .marker(rewritten.marker)
        .nackable(is_video)
        .ext_vals(extensions(&packet.header.ext_vals, rewritten.dd.as_ref()));
        if let PayloadPatch::Vp8(patch) = &rewritten.patch {
            write = write.vp8_patch(*patch);
        }
        let mid = slot.mid;
        match self.rtc.direct_api().stream_tx_by_mid(mid, None) {
            Some(stream) => stream.write_rtp(write),
            None => return false,
        }
        true
    }

    pub fn slot_of(&self, mid: Mid) -> Option<u16> {
        self.slots.iter().position(|slot| slot.mid == mid).and_then(|slot| u16::try_from(slot).ok())
    }

    pub fn request_keyframe(&mut self, mid: Mid, rid: Option<Rid>) {
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_rx_by_mid(mid, rid) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    /// Asks the publisher to stay within `bps` (REMB); a stream that has not begun is not asked.
    pub fn limit_bitrate(&mut self, mid: Mid, rid: Option<Rid>, bps: u64) {
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_rx_by_mid(mid, rid) {
            stream.request_remb(bps.into());
        }
    }

    pub fn set_bitrate(&mut self, minimum_bps: u64, desired_bps: u64) {
        self.rtc.bwe().set_bitrate(minimum_bps.into(), desired_bps.into());
    }

    /// Sends a control message, or keeps it until the channel takes it. False when too much waits already.
    pub fn tell(&mut self, message: String) -> bool {
        let fits = self.backlog.push(message);
        self.flush_backlog();
        fits
    }

    /// Writes what waits, as far as the channel takes it.
    pub fn flush_backlog(&mut self) {
        let Some(channel) = self.control else { return };
        while let Some(message) = self.backlog.front() {
            let written =
                self.rtc.channel(channel).map(|mut channel| channel.write(false, message.as_bytes()));
            if !matches!(written, Some(Ok(true))) {
                return;
            }
            self.backlog.pop();
        }
    }

    /// Relays a datagram of the `lossy` channel; drops it when the channel is full.
    pub fn relay_lossy(&mut self, binary: bool, bytes: &[u8]) {
        let Some(mut channel) = self.lossy.and_then(|channel| self.rtc.channel(channel)) else { return };
        let _ = channel.write(binary, bytes);
    }

    /// Advances the engine's time.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.rtc.handle_input(Input::Timeout(now)).is_ok()
    }
}

/// What goes on to the receiver of a packet's header extensions; the engine adds those of the hop.
#[inline]
fn extensions(of: &ExtensionValues, descriptor: Option<&DescriptorBytes>) -> ExtensionValues {
    let mut values = ExtensionValues {
        audio_level: of.audio_level,
        voice_activity: of.voice_activity,
        video_orientation: of.video_orientation,
        play_delay_min: of.play_delay_min,
        play_delay_max: of.play_delay_max,
        abs_capture_time: of.abs_capture_time,
        ..ExtensionValues::default()
    };
    if let Some(descriptor) = descriptor {
        values.user_values.set(descriptor.clone());
    }
    values
}

/// The entity tag of an ICE session (RFC 9725 §4.3.1): our ufrag, which each restart changes.
pub fn etag(description: &str) -> String {
    format!("\"{}\"", attribute(description, "a=ice-ufrag:").unwrap_or_default())
}

/// The value of the first line of an SDP text that starts with `name`.
pub fn attribute<'a>(description: &'a str, name: &str) -> Option<&'a str> {
    description.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
