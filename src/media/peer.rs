//! One connection: a str0m `Rtc` for ICE, DTLS, SCTP and what comes in, an [`Egress`] for what goes out, and
//! the numbers by which this peer calls things.
//!
//! Each change of the `Rtc` is followed by draining it, each push to the egress by flushing it at the end of
//! the tick.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::channel::ChannelId;
use str0m::media::{KeyframeRequestKind, Mid, Rid};
use str0m::rtp::{RtpPacket, Ssrc};
use str0m::{Input, Rtc};

use super::channel::Backlog;
use super::demux::PeerSerial;
use super::egress::Egress;
use super::negotiate::{Negotiated, PayloadType};
use crate::core::payload::DescriptorBytes;
use crate::core::replay::Rare;
use crate::core::room::{Arrival, ParticipantKey};
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
    pub bytes_received: u64,
    pub transport: Option<&'static str>,
}

pub struct Peer {
    pub serial: PeerSerial,
    pub room: RoomIndex,
    pub who: ParticipantKey,
    /// ICE, DTLS, SCTP and what comes in.
    pub rtc: Box<Rtc>,
    /// What goes out.
    pub egress: Egress,
    /// Where a nomination came from that the engine has yet to answer (RFC 8445 §7.3.1.5).
    pub nominating: Option<SocketAddr>,
    pub offer: String,
    pub remote_ufrag: String,
    pub etag: String,
    pub control: Option<ChannelId>,
    pub lossy: Option<ChannelId>,
    pub backlog: Backlog,
    pub figures: Figures,
    /// Still speaks for its participant; no longer once that has left.
    pub attached: bool,
    /// When its last datagram came.
    pub heard_at: Instant,
    /// Was not heard for so long that its participant counts as lost.
    pub is_silent: bool,
    /// Its engine was written to since it was last drained.
    pub dirty: bool,
    /// Its egress has something to send.
    pub unsent: bool,
    /// To be closed once its last message is out, at the latest then.
    pub closing_at: Option<Instant>,
    pub said_goodbye: bool,
    /// When the join was asked for; taken when the connection stands.
    pub asked_at: Option<Instant>,
    pub span: tracing::Span,
    lines: Vec<PublishedLine>,
    payload_types: Vec<PayloadType>,
    /// Line and encoding of each SSRC that was seen; str0m bounds how many there can be.
    streams: Vec<(Ssrc, u8, u8)>,
}

impl Peer {
    pub fn new(
        serial: PeerSerial,
        room: RoomIndex,
        who: ParticipantKey,
        negotiated: Negotiated,
        egress: Egress,
        asked_at: Instant,
        span: tracing::Span,
    ) -> Self {
        Self {
            serial,
            room,
            who,
            rtc: negotiated.rtc,
            egress,
            nominating: None,
            remote_ufrag: attribute(&negotiated.offer, "a=ice-ufrag:").unwrap_or_default().to_owned(),
            etag: etag(&negotiated.answer),
            offer: negotiated.offer,
            control: None,
            lossy: None,
            backlog: Backlog::default(),
            figures: Figures::default(),
            attached: true,
            heard_at: asked_at,
            is_silent: false,
            dirty: false,
            unsent: false,
            closing_at: None,
            said_goodbye: false,
            asked_at: Some(asked_at),
            span,
            lines: negotiated.published,
            payload_types: negotiated.payload_types,
            streams: Vec::new(),
        }
    }

    /// Whether it may send media at all.
    pub fn publishes(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Reads a packet's numbers; `None` for one of no line or format of this peer's.
    #[inline]
    pub fn arrival<'a>(&mut self, packet: &'a RtpPacket, rare: Option<&'a Rare>) -> Option<Arrival<'a>> {
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
            rare,
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

/// The entity tag of an ICE session (RFC 9725 §4.3.1): our ufrag, which each restart changes.
pub fn etag(description: &str) -> String {
    format!("\"{}\"", attribute(description, "a=ice-ufrag:").unwrap_or_default())
}

/// The value of the first line of an SDP text that starts with `name`.
pub fn attribute<'a>(description: &'a str, name: &str) -> Option<&'a str> {
    description.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
