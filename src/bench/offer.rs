//! What a synthetic client offers, as SDP.

use std::sync::{Arc, OnceLock};

use str0m::change::SdpPendingOffer;
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::crypto::CryptoProvider;
use str0m::crypto::dtls::DtlsCert;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Pt, Simulcast, SimulcastLayer};
use str0m::{Rtc, RtcConfig};

use super::keys::watched;
use super::source::{AudioSource, VideoSource};
use crate::core::protocol::{CONTROL_LABEL, LOSSY_LABEL, PROTOCOL};

/// What a client offers.
#[derive(Default)]
pub struct Offer {
    pub video: Option<VideoSource>,
    pub audio: Option<AudioSource>,
    /// `recvonly` video lines.
    pub video_slots: usize,
    /// `recvonly` audio lines.
    pub audio_slots: usize,
    /// The data channels `control` and `lossy`.
    pub channels: bool,
    /// Keep every frame shown in [`super::reception::Playout::timeline`].
    pub timeline: bool,
}

/// The contract's two data channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    Control,
    Lossy,
}

/// Where the parts of an offer ended up.
#[derive(Debug)]
pub struct Lines {
    pub video: Option<Mid>,
    pub audio: Option<Mid>,
    /// Receiving lines, audio first.
    pub slots: Vec<Mid>,
    pub channels: Vec<(ChannelId, Channel)>,
}

impl Offer {
    /// The SDP offer, and which line is for what. None if there is nothing to offer.
    pub fn lines(&self, rtc: &mut Rtc) -> Option<(String, SdpPendingOffer, Lines)> {
        let mut api = rtc.sdp_api();
        let mut add = |kind, direction, simulcast| api.add_media(kind, direction, None, None, simulcast);
        let (send, receive) = (Direction::SendOnly, Direction::RecvOnly);
        let audio = self.audio.as_ref().map(|_| add(MediaKind::Audio, send, None));
        let video = self.video.as_ref().map(|source| add(MediaKind::Video, send, simulcast_of(source)));
        let mut slots: Vec<Mid> =
            (0..self.audio_slots).map(|_| add(MediaKind::Audio, receive, None)).collect();
        slots.extend((0..self.video_slots).map(|_| add(MediaKind::Video, receive, None)));
        let mut channels = Vec::new();
        if self.channels {
            channels.push((api.add_channel_with_config(control_channel()), Channel::Control));
            channels.push((api.add_channel_with_config(lossy_channel()), Channel::Lossy));
        }
        let (sdp, pending) = api.apply()?;
        Some((sdp.to_sdp_string(), pending, Lines { video, audio, slots, channels }))
    }
}

/// One certificate for all clients of a process: making one costs a millisecond.
fn identity() -> (Arc<CryptoProvider>, Option<DtlsCert>) {
    static IDENTITY: OnceLock<(Arc<CryptoProvider>, Option<DtlsCert>)> = OnceLock::new();
    IDENTITY
        .get_or_init(|| {
            let provider = watched(str0m_aws_lc_rs::default_provider());
            let cert = provider.dtls_provider.generate_certificate();
            (Arc::new(provider), cert)
        })
        .clone()
}

/// The engine's settings: VP8 and Opus, RTP as it comes, DTLS 1.2 as browsers prefer it.
pub fn rtc_config() -> RtcConfig {
    let (provider, cert) = identity();
    let config = Rtc::builder()
        .set_crypto_provider(provider)
        .set_rtp_mode(true)
        .clear_codecs()
        .enable_opus(true, false)
        .enable_vp8(true)
        .set_stats_interval(None);
    match cert {
        Some(cert) => config.set_dtls_cert(cert),
        None => config,
    }
}

fn simulcast_of(source: &VideoSource) -> Option<Simulcast> {
    let mut simulcast = Simulcast::new();
    for rid in source.encodings().filter_map(|encoding| encoding.rid) {
        simulcast.add_send_layer(SimulcastLayer::new(rid));
    }
    (!simulcast.send.is_empty()).then_some(simulcast)
}

fn control_channel() -> ChannelConfig {
    ChannelConfig { label: CONTROL_LABEL.into(), protocol: PROTOCOL.into(), ..ChannelConfig::default() }
}

fn lossy_channel() -> ChannelConfig {
    ChannelConfig {
        label: LOSSY_LABEL.into(),
        ordered: false,
        reliability: Reliability::MaxRetransmits { retransmits: 0 },
        ..ChannelConfig::default()
    }
}

/// The payload type that the answer chose for `codec` on this line.
pub fn negotiated(rtc: &Rtc, mid: Mid, codec: Codec) -> Option<Pt> {
    let pts = rtc.media(mid)?.remote_pts();
    rtc.codec_config()
        .params()
        .iter()
        .find(|params| params.spec().codec == codec && pts.contains(&params.pt()))
        .map(|params| params.pt())
}
