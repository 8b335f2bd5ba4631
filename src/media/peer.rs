//! One connection: a str0m `Rtc` for ICE, DTLS and SCTP, an [`Ingress`] for the media that comes in, and an
//! [`Egress`] for what goes out.
//!
//! Each change of the `Rtc` is followed by draining it, each push to the egress by flushing it at the end of
//! the tick.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::channel::ChannelId;
use str0m::{Input, Rtc};

use super::channel::Backlog;
use super::demux::PeerSerial;
use super::egress::Egress;
use super::ingress::Ingress;
use super::negotiate::Negotiated;
use crate::core::room::ParticipantKey;

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
    /// ICE, DTLS and SCTP.
    pub rtc: Box<Rtc>,
    /// Media that comes in.
    pub ingress: Ingress,
    /// All media and RTCP that goes out.
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
            ingress: Ingress::new(asked_at, negotiated.ingress, egress.own_ssrc()),
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
        }
    }

    /// Whether it may send media at all.
    pub fn publishes(&self) -> bool {
        !self.ingress.lines().is_empty()
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
