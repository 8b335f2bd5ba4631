//! A WebRTC client on str0m, as a browser would behave: it offers, or answers a server that does, answers
//! transport-cc and NACK, resends what is asked for and asks for key frames when a picture is stuck.
//!
//! No socket, clock or thread: datagrams and time come in by `handle_*`, what is to be sent waits in
//! [`Client::poll_transmit`]. The load tool drives it over UDP, tests over an emulated network.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::format::Codec;
use str0m::media::{KeyframeRequestKind, Mid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::{Extension, Ssrc};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcError};

use super::keys;
pub use super::offer::{Channel, Offer};
use super::offer::{negotiated, rtc_config};
use super::reception::Slot;
use super::source::{AudioSource, VideoSource};
use crate::core::stats::srtp_profile_name;
use crate::media::srtp::keys::KeySlot;

mod direct;
mod received;
mod sending;

use direct::Direct;
pub use received::Received;
use sending::Sending;

/// How often a receiving client looks whether a picture is stuck.
const PLAYOUT_CHECK: Duration = Duration::from_millis(50);
/// How often a receiver tells its own estimate where the server numbers no packets for one of its own.
const REMB_INTERVAL: Duration = Duration::from_secs(1);
/// That estimate. Paths of the load tool carry all; a browser's would grow far beyond what is sent, too.
const REMB_BPS: u64 = 50_000_000;
/// Unread messages kept for each client; beyond it the oldest are dropped.
const MESSAGES_MAX: usize = 10_000;

/// The client cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the server's description is no SDP: {0}")]
    Sdp(String),
    #[error("the server's candidate cannot be read: {0}")]
    Candidate(String),
    #[error("WebRTC: {0}")]
    Rtc(#[from] RtcError),
    #[error("the answer accepts no {0}")]
    Refused(&'static str),
    #[error("the local address {0} is no candidate")]
    Address(SocketAddr),
}

/// When things happened first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Milestones {
    pub connected: Option<Instant>,
    pub first_packet: Option<Instant>,
    pub first_frame: Option<Instant>,
}

/// A message on a data channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelMessage {
    pub channel: Channel,
    pub data: Vec<u8>,
}

/// One connection to the server.
pub struct Client {
    rtc: Rtc,
    keys: KeySlot,
    /// Takes media in the engine's place.
    direct: Option<Direct>,
    local: SocketAddr,
    pending: Option<SdpPendingOffer>,
    clock_base: Instant,
    video: Option<Sending<VideoSource>>,
    audio: Option<Sending<AudioSource>>,
    slots: BTreeMap<Mid, Slot>,
    mid_by_ssrc: BTreeMap<u32, Mid>,
    timeline: bool,
    channels: Vec<(ChannelId, Channel, bool)>,
    messages: VecDeque<ChannelMessage>,
    milestones: Milestones,
    transmits: VecDeque<Transmit>,
    rtc_at: Instant,
    playout_at: Instant,
    remb_at: Instant,
    /// One-way delays of media since the last [`Client::drain_delays`], nanoseconds; only while wanted.
    delays_ns: Option<Vec<u64>>,
    /// How long the datagram at hand had waited to be read.
    waited: Duration,
    /// Packets that came, while a decoder takes them.
    received: Option<VecDeque<Received>>,
    key_frames_requested: u64,
    foreign_packets: u64,
    closed: bool,
}

impl Client {
    /// A client at `local` and its SDP offer. `clock_base` is instant 0 of the run's stamps.
    ///
    /// # Errors
    /// [`ClientError::Address`] for an address that ICE cannot use, such as port 0.
    pub fn new(
        now: Instant,
        clock_base: Instant,
        local: SocketAddr,
        offer: Offer,
    ) -> Result<(Self, String), ClientError> {
        let mut client = Self::answering(now, clock_base, local, offer.timeline)?;
        let (sdp, pending, lines) =
            offer.lines(&mut client.rtc).ok_or(ClientError::Refused("offer without a line"))?;
        client.pending = Some(pending);
        client.video = offer.video.zip(lines.video).map(|(source, mid)| Sending { mid, source, pt: None });
        client.audio = offer.audio.zip(lines.audio).map(|(source, mid)| Sending { mid, source, pt: None });
        client.channels = lines.channels.into_iter().map(|(id, channel)| (id, channel, false)).collect();
        for mid in lines.slots {
            client.slots.insert(mid, client.empty_slot());
        }
        Ok((client, sdp))
    }

    /// A client at `local` that waits for offers of the server and receives what they send. With `timeline`
    /// it keeps every frame shown.
    ///
    /// # Errors
    /// [`ClientError::Address`] for an address that ICE cannot use, such as port 0.
    pub fn answering(
        now: Instant,
        clock_base: Instant,
        local: SocketAddr,
        timeline: bool,
    ) -> Result<Self, ClientError> {
        let (mut rtc, keys) = keys::of_built(|| rtc_config().build(now));
        let candidate = Candidate::host(local, "udp").map_err(|_| ClientError::Address(local))?;
        rtc.add_local_candidate(candidate);
        Ok(Self {
            rtc,
            keys,
            direct: None,
            local,
            pending: None,
            clock_base,
            video: None,
            audio: None,
            slots: BTreeMap::new(),
            mid_by_ssrc: BTreeMap::new(),
            timeline,
            channels: Vec::new(),
            messages: VecDeque::new(),
            milestones: Milestones::default(),
            transmits: VecDeque::new(),
            rtc_at: now,
            playout_at: now,
            remb_at: now,
            delays_ns: None,
            waited: Duration::ZERO,
            received: None,
            key_frames_requested: 0,
            foreign_packets: 0,
            closed: false,
        })
    }

    /// Receives media past the engine, for a fraction of the cost. Only for a client that sends none, and
    /// before it has an answer or an offer.
    pub fn receive_directly(&mut self) {
        self.direct = Some(Direct::new(self.keys.clone(), self.clock_base, self.local));
    }

    fn empty_slot(&self) -> Slot {
        let mut slot = Slot::default();
        slot.playout.timeline = self.timeline.then(Vec::new);
        slot
    }

    /// Takes the server's answer; ICE begins.
    ///
    /// # Errors
    /// An answer that is no SDP, does not fit the offer, or refuses what was to be sent.
    pub fn accept_answer(&mut self, now: Instant, answer: &str) -> Result<(), ClientError> {
        let described = answer;
        let answer =
            SdpAnswer::from_sdp_string(answer).map_err(|error| ClientError::Sdp(error.to_string()))?;
        let pending = self.pending.take().ok_or(ClientError::Refused("second answer"))?;
        self.rtc.sdp_api().accept_answer(pending, answer)?;
        self.learn(now, described);
        if let Some(video) = &mut self.video {
            let pt = negotiated(&self.rtc, video.mid, Codec::Vp8).ok_or(ClientError::Refused("VP8"))?;
            video.pt = Some(pt);
        }
        if let Some(audio) = &mut self.audio {
            let pt = negotiated(&self.rtc, audio.mid, Codec::Opus).ok_or(ClientError::Refused("Opus"))?;
            audio.pt = Some(pt);
        }
        self.handle_timeout(now)
    }

    /// Answers an offer of the server, the first or a later one. Lines that send to us become slots.
    ///
    /// # Errors
    /// An offer that is no SDP, or that does not fit those before it.
    pub fn accept_offer(&mut self, now: Instant, offer: &str) -> Result<String, ClientError> {
        let described = offer;
        let offer = SdpOffer::from_sdp_string(offer).map_err(|error| ClientError::Sdp(error.to_string()))?;
        let answer = self.rtc.sdp_api().accept_offer(offer)?.to_sdp_string();
        self.learn(now, described);
        self.handle_timeout(now)?;
        Ok(answer)
    }

    fn learn(&mut self, now: Instant, described: &str) {
        if let Some(direct) = &mut self.direct {
            direct.learn(now, &self.rtc, described);
            // The engine has something to do by it.
            self.rtc_at = now;
        }
    }

    /// Takes an ICE candidate of the server that came by itself, as `candidate:…`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn add_candidate(&mut self, now: Instant, candidate: &str) -> Result<(), ClientError> {
        let candidate = Candidate::from_sdp_string(candidate)
            .map_err(|error| ClientError::Candidate(error.to_string()))?;
        self.rtc.add_remote_candidate(candidate);
        self.handle_timeout(now)
    }

    /// A datagram from `source`. One that is nothing WebRTC knows is ignored, as a browser does.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        arrived: Instant,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), ClientError> {
        self.waited = now.saturating_duration_since(arrived);
        if self.direct.as_ref().is_some_and(|direct| direct.takes(datagram)) {
            self.handle_directly(now, source, datagram);
            return Ok(());
        }
        let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, datagram) else { return Ok(()) };
        self.rtc.handle_input(Input::Receive(now, receive))?;
        self.drain(now)
    }

    /// Does what is due: ICE, feedback, and sending of media.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ClientError> {
        if self.milestones.connected.is_some() {
            self.send_media(now);
            if now >= self.playout_at {
                self.playout_at = now + PLAYOUT_CHECK;
                self.ask_key_frames(now);
            }
            if now >= self.remb_at {
                self.remb_at = now + REMB_INTERVAL;
                self.estimate(now);
            }
        }
        self.tell_directly(now);
        if self.direct.is_some() && now < self.rtc_at {
            return Ok(());
        }
        self.rtc.handle_input(Input::Timeout(now))?;
        self.drain(now)
    }

    /// When [`Client::handle_timeout`] is due.
    pub fn timeout(&self) -> Instant {
        if self.milestones.connected.is_none() {
            return self.rtc_at;
        }
        let video = self.video.as_ref().map(|video| video.source.next_at());
        let audio = self.audio.as_ref().map(|audio| audio.source.next_at());
        let playout = (!self.slots.is_empty()).then_some(self.playout_at);
        let direct = self.direct.as_ref().and_then(Direct::timeout);
        [video, audio, playout, direct].into_iter().flatten().fold(self.rtc_at, Instant::min)
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next message of a data channel.
    pub fn poll_message(&mut self) -> Option<ChannelMessage> {
        self.messages.pop_front()
    }

    /// Sends on a data channel; false while it is not open or its buffer is full.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn send_message(&mut self, now: Instant, to: Channel, data: &[u8]) -> Result<bool, ClientError> {
        let open = self.channels.iter().find(|(_, channel, open)| *channel == to && *open);
        let Some(mut channel) = open.and_then(|(id, ..)| self.rtc.channel(*id)) else { return Ok(false) };
        let sent = channel.write(to == Channel::Lossy, data)?;
        self.rtc.handle_input(Input::Timeout(now))?;
        self.drain(now)?;
        Ok(sent)
    }

    /// Whether a data channel is open.
    pub fn is_open(&self, channel: Channel) -> bool {
        self.channels.iter().any(|(_, which, open)| *which == channel && *open)
    }

    pub fn milestones(&self) -> Milestones {
        self.milestones
    }

    /// The receiving lines by mid, in the order of the offer for up to ten of a kind.
    pub fn slots(&self) -> &BTreeMap<Mid, Slot> {
        &self.slots
    }

    /// The camera, if it has one.
    pub fn video(&mut self) -> Option<&mut VideoSource> {
        self.video.as_mut().map(|video| &mut video.source)
    }

    /// The microphone, if it has one.
    pub fn audio(&self) -> Option<&AudioSource> {
        self.audio.as_ref().map(|audio| &audio.source)
    }

    /// What protects its media, as RFC 5764 names it; none before DTLS is done.
    pub fn srtp_profile(&self) -> Option<&'static str> {
        self.keys.get().map(|keys| srtp_profile_name(keys.profile))
    }

    /// PLI and FIR that came for what this client sends.
    pub fn key_frames_requested(&self) -> u64 {
        self.key_frames_requested
    }

    /// Media packets that no synthetic source made.
    pub fn foreign_packets(&self) -> u64 {
        self.foreign_packets
    }

    /// The server ended the connection, or ICE gave it up.
    pub fn is_closed(&self) -> bool {
        self.closed || !self.rtc.is_alive()
    }

    /// Turns recording of one-way delays on or off; off forgets them.
    pub fn record_delays(&mut self, on: bool) {
        self.delays_ns = on.then(Vec::new);
    }

    /// The one-way delays since the last call, nanoseconds.
    pub fn drain_delays(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.delays_ns.iter_mut().flat_map(|delays| delays.drain(..))
    }

    /// The engine, for a test that needs more.
    pub fn rtc(&mut self) -> &mut Rtc {
        &mut self.rtc
    }

    /// The connection stands: media begins.
    fn begin(&mut self, now: Instant) {
        self.milestones.connected = Some(now);
        if let Some(video) = &mut self.video {
            video.source.postpone_to(now);
        }
        if let Some(audio) = &mut self.audio {
            audio.source.postpone_to(now);
        }
    }

    fn ask_key_frames(&mut self, now: Instant) {
        for (mid, slot) in &mut self.slots {
            if !slot.playout.wants_key_frame(now) {
                continue;
            }
            if let Some(direct) = &mut self.direct {
                direct.request_key_frame(now, *mid);
                continue;
            }
            let Some(ssrc) = slot.ssrcs.last() else { continue };
            if let Some(stream) = self.rtc.direct_api().stream_rx(&Ssrc::from(*ssrc)) {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
    }

    /// Sends REMB for video that comes without transport-cc numbers, as browsers do.
    fn estimate(&mut self, now: Instant) {
        for (mid, slot) in &self.slots {
            let (Some(media), Some(ssrc)) = (self.rtc.media(*mid), slot.ssrcs.last()) else { continue };
            let numbered = media.remote_extmap().id_of(Extension::TransportSequenceNumber).is_some();
            if numbered || !media.kind().is_video() {
                continue;
            }
            if let Some(direct) = &mut self.direct {
                direct.limit_bitrate(now, *mid, REMB_BPS);
                continue;
            }
            if let Some(stream) = self.rtc.direct_api().stream_rx(&Ssrc::from(*ssrc)) {
                stream.request_remb(REMB_BPS.into());
            }
        }
    }

    fn drain(&mut self, now: Instant) -> Result<(), ClientError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.rtc_at = at;
                    return Ok(());
                }
                // It would report on media that it never saw.
                Output::Transmit(transmit) if self.takes_directly(&transmit) => {}
                Output::Transmit(transmit) => self.transmits.push_back(transmit),
                Output::Event(event) => self.handle_event(now, event),
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::RtpPacket(packet) => self.handle_rtp(now, &packet),
            Event::Connected => self.begin(now),
            Event::KeyframeRequest(request) => {
                self.key_frames_requested += 1;
                if let Some(video) = &mut self.video {
                    video.source.request_key_frame(request.rid.as_deref());
                }
            }
            Event::MediaAdded(added) if added.direction.is_receiving() => {
                let slot = self.empty_slot();
                self.slots.entry(added.mid).or_insert(slot);
            }
            Event::ChannelOpen(id, _) => {
                for (_, _, open) in self.channels.iter_mut().filter(|(channel, ..)| *channel == id) {
                    *open = true;
                }
            }
            Event::ChannelData(data) => {
                let channel = self.channels.iter().find(|(id, ..)| *id == data.id);
                if let Some((_, channel, _)) = channel {
                    if self.messages.len() == MESSAGES_MAX {
                        self.messages.pop_front();
                    }
                    self.messages.push_back(ChannelMessage { channel: *channel, data: data.data });
                }
            }
            Event::ChannelClose(id) => {
                for (_, _, open) in self.channels.iter_mut().filter(|(channel, ..)| *channel == id) {
                    *open = false;
                }
            }
            Event::Closed => self.closed = true,
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => self.closed = true,
            _ => {}
        }
    }

    fn mid_of(&mut self, ssrc: u32) -> Option<Mid> {
        if let Some(mid) = self.mid_by_ssrc.get(&ssrc) {
            return Some(*mid);
        }
        let mid = self.rtc.direct_api().stream_rx(&Ssrc::from(ssrc))?.mid();
        self.mid_by_ssrc.insert(ssrc, mid);
        Some(mid)
    }
}

#[cfg(test)]
pub mod tests;
