//! From an SDP offer to an `Rtc` with its answer (RFC 8829, RFC 9725), on any thread; the shard gets the
//! result.
//!
//! Every m-line that the client sends on becomes a [`PublishedLine`], every one it receives on a
//! [`SlotLine`]. We are ICE-lite and DTLS-passive on DTLS 1.2, whose server side picks the SRTP profile and
//! picks AES-GCM. One engine answers the offer and names the streams that we send, which [`super::egress`]
//! sends, and the lines that [`super::ingress`] takes from. The engine that stays does ICE, DTLS and SCTP: it
//! is told of no line that media flows on, for each of which it would keep some kilobytes for nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer};
use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::media::{Direction, Media, Mid, Pt, Rids};
use str0m::net::{Protocol, TcpType};
use str0m::rtp::Extension;
use str0m::{Candidate, IceCreds, Rtc};

use super::descriptor::DependencyDescriptorSerializer;
use super::egress::{EgressLines, ExtensionIds, Framing, StreamLine};
use super::ingress::{IngressLines, Meanings, declared};
use super::peer::attribute;
use super::srtp::keys::{self, KeySlot};
use crate::core::format::Format;
use crate::core::payload::dependency;
use crate::core::protocol::{Kind, OFFER_BYTES_MAX};
use crate::core::refusal::{Code, Refusal};
use crate::core::track::{PublishedLine, SlotLine};

/// More lines than a wall of 25 tiles with sound and some publications needs.
const LINES_MAX: usize = 64;
/// How clients reach one shard, the same for all of its peers.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Candidate addresses of the shard's UDP port; empty where UDP is turned off.
    pub udp: Vec<SocketAddr>,
    /// Candidate addresses of the node's ICE-TCP port; empty where TCP is turned off.
    pub tcp: Vec<SocketAddr>,
    /// Addresses of this machine among them, which the kernel can be asked to send from.
    pub local_ips: Vec<IpAddr>,
}

impl Reach {
    /// The candidate that a datagram to `actual` was meant for: itself, or the public address of its family
    /// that a NAT in front of us has translated. `None` where nothing of that family was offered.
    pub fn candidate(&self, proto: Protocol, actual: SocketAddr) -> Option<SocketAddr> {
        let offered = if proto == Protocol::Udp { &self.udp } else { &self.tcp };
        let same = offered.iter().find(|candidate| **candidate == actual);
        same.or_else(|| offered.iter().find(|candidate| candidate.is_ipv4() == actual.is_ipv4())).copied()
    }
}

/// What all connections of the node share.
#[derive(Clone)]
pub struct Identity {
    pub certificate: DtlsCert,
    pub crypto: Arc<CryptoProvider>,
    pub initial_estimate_bps: u64,
}

/// A payload type that this peer uses, and what it means.
#[derive(Debug, Clone, Copy)]
pub struct PayloadType {
    pub pt: Pt,
    /// Of its resends (RFC 4588), where the peer takes them.
    pub resend: Option<Pt>,
    /// Lost packets of it are asked for, and come again.
    pub is_resent: bool,
    pub format: Format,
}

/// An accepted offer.
pub struct Negotiated {
    pub rtc: Box<Rtc>,
    pub answer: String,
    pub slots: Vec<SlotLine>,
    pub ingress: IngressLines,
    pub egress: EgressLines,
    /// What the engine was offered: kept for an ICE restart by fragment, which needs the rest of it.
    pub offer: String,
}

/// Accepts `offer`.
///
/// # Errors
/// `bad_offer`, saying what is wrong with it.
pub fn accept(
    now: Instant,
    identity: &Identity,
    reach: &Reach,
    creds: IceCreds,
    offer: Offer,
) -> Result<Negotiated, Refusal> {
    let Offer { text: offer, parsed } = offer;
    let (mut negotiator, _) = build(now, identity, reach, creds.clone());
    let answer = accept_by_engine(&mut negotiator, parsed)?.to_sdp_string();
    let slots = slots(&negotiator, &answer);
    let payload_types = payload_types(&negotiator);
    let streams = streams(&mut negotiator, now, &slots)?;
    let is_blind =
        streams.iter().all(|stream| stream.framing.ids.transport_cc == 0) && !offer.contains("goog-remb");
    let cname =
        slots.first().and_then(|slot| negotiator.media(slot.mid)).map(|media| media.cname().to_owned());
    let (mut rtc, keys) = build(now, identity, reach, creds);
    let keys = keys.ok_or_else(|| Refusal::new(Code::Unavailable, "DTLS could not be set up; try again"))?;
    let ingress = ingress_lines(&negotiator, &offer, keys.clone());
    drop(negotiator);
    let offer = without_media(&offer);
    accept_by_engine(&mut rtc, Offer::parse(offer.clone())?.parsed)?;
    let egress = EgressLines {
        keys,
        streams,
        cname: cname.unwrap_or_default(),
        payload_types,
        is_blind,
        initial_estimate_bps: identity.initial_estimate_bps,
    };
    Ok(Negotiated { rtc: Box::new(rtc), answer, slots, ingress, egress, offer })
}

/// The engine asserts some of what it expects of an offer. One that breaks such an assertion is refused like
/// any other that cannot be used; its engine is of no use after that.
fn accept_by_engine(rtc: &mut Rtc, offer: SdpOffer) -> Result<SdpAnswer, Refusal> {
    match catch_unwind(AssertUnwindSafe(|| rtc.sdp_api().accept_offer(offer))) {
        Ok(accepted) => accepted.map_err(|error| bad_offer(&error.to_string())),
        Err(_) => {
            rtc.disconnect();
            Err(bad_offer("it contradicts itself"))
        }
    }
}

/// The offer without media: its channels are left, and the first line, which may hold for all what an offer
/// says but once.
fn without_media(offer: &str) -> String {
    let mut sections = offer.split("\nm=");
    let session = sections.next().unwrap_or_default();
    let (mut mids, mut kept) = (Vec::new(), String::new());
    for (index, section) in sections.enumerate() {
        if index == 0 || section.starts_with("application") {
            mids.push(attribute(section, "a=mid:").unwrap_or_default());
            let directions = ["a=sendrecv", "a=sendonly", "a=recvonly"];
            let inactive = directions.iter().fold(section.to_owned(), |s, way| s.replace(way, "a=inactive"));
            kept.extend(["m=", &inactive, "\n"]);
        }
    }
    let mut described = String::new();
    for line in session.lines().map(|line| line.trim_end_matches('\r')) {
        if let Some(bundled) = line.strip_prefix("a=group:BUNDLE ") {
            described += "a=group:BUNDLE";
            let left = bundled.split(' ').filter(|mid| mids.contains(mid));
            left.for_each(|mid| described.extend([" ", mid]));
        } else {
            described += line;
        }
        described += "\r\n";
    }
    described + &kept
}

/// The streams that the answer names for the slots.
fn streams(negotiator: &mut Rtc, now: Instant, slots: &[SlotLine]) -> Result<Vec<StreamLine>, Refusal> {
    let mut streams = Vec::with_capacity(slots.len());
    for slot in slots {
        let Some(ids) = negotiator.media(slot.mid).map(ExtensionIds::of) else {
            return Err(bad_offer("a line to receive on was not accepted"));
        };
        let mut api = negotiator.direct_api();
        let Some((ssrc, resend)) = api.stream_tx_by_mid(slot.mid, None).map(|tx| (tx.ssrc(), tx.rtx()))
        else {
            return Err(bad_offer("a line to receive on takes no stream"));
        };
        let framing = Framing { ids, mid: slot.mid.to_string(), epoch: now };
        let resend_ssrc = resend.map(|ssrc| *ssrc);
        streams.push(StreamLine { kind: slot.kind, ssrc: *ssrc, resend_ssrc, framing });
    }
    Ok(streams)
}

/// Accepts again what the engine was offered, with other ICE credentials: an ICE restart (RFC 9725 §4.3.3).
///
/// # Errors
/// `bad_offer`.
pub fn restart(rtc: &mut Rtc, offer: &str, creds: &IceCreds) -> Result<(), Refusal> {
    let restarted: String = offer
        .lines()
        .map(|line| match line.split_once(':') {
            Some(("a=ice-ufrag", _)) => format!("a=ice-ufrag:{}\r\n", creds.ufrag),
            Some(("a=ice-pwd", _)) => format!("a=ice-pwd:{}\r\n", creds.pass),
            _ => format!("{line}\r\n"),
        })
        .collect();
    accept_by_engine(rtc, Offer::parse(restarted)?.parsed).map(drop)
}

/// Our side of an ICE restart as an SDP fragment (RFC 8840 §4.4).
pub fn fragment(offer: &str, reach: &Reach, creds: &IceCreds) -> String {
    let media = offer.lines().find(|line| line.starts_with("m=")).unwrap_or("m=audio 9 UDP/TLS/RTP/SAVPF 0");
    let mid = attribute(offer, "a=mid:").unwrap_or("0");
    let mut text = format!("a=ice-lite\r\n{media}\r\na=mid:{mid}\r\n");
    text += &format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", creds.ufrag, creds.pass);
    for candidate in candidates(reach) {
        text += &format!("a={}\r\n", candidate.to_sdp_string());
    }
    text + "a=end-of-candidates\r\n"
}

/// An offer that could be read. Costs no room and no peer yet.
pub struct Offer {
    text: String,
    parsed: SdpOffer,
}

impl Offer {
    /// # Errors
    /// `bad_offer`.
    pub fn parse(text: String) -> Result<Self, Refusal> {
        if text.len() > OFFER_BYTES_MAX {
            return Err(bad_offer("it is longer than 160 KiB"));
        }
        if text.lines().filter(|line| line.starts_with("m=")).count() > LINES_MAX {
            return Err(bad_offer("it has more than 64 m-lines"));
        }
        if let Some(pt) = payload_type_of_two_meanings(&text) {
            return Err(bad_offer(&format!("payload type {pt} has two meanings (RFC 8843 §9.1)")));
        }
        // The parser's own words quote the offer and addresses of memory: neither belongs in an answer.
        let parsed = SdpOffer::from_sdp_string(&text);
        let parsed =
            parsed.map_err(|_| bad_offer("it is not well-formed SDP (RFC 8866) of a WebRTC session"))?;
        Ok(Self { text, parsed })
    }

    /// It wants data channels, besides media.
    pub fn has_channels(&self) -> bool {
        self.text.contains("\nm=application")
    }
}

/// A payload type that lines of one bundle describe differently.
fn payload_type_of_two_meanings(offer: &str) -> Option<&str> {
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for media in offer.split("\nm=").skip(1) {
        let mut here: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in media.lines() {
            let described = line.strip_prefix("a=rtpmap:").or_else(|| line.strip_prefix("a=fmtp:"));
            if let Some((pt, meaning)) = described.and_then(|text| text.split_once(' ')) {
                here.entry(pt).or_default().push(meaning.trim());
            }
        }
        for (pt, mut meaning) in here {
            meaning.sort_unstable();
            // One name, and parameters once at most.
            let before = known.entry(pt).or_insert_with(|| meaning.clone());
            if meaning.len() > 2 || *before != meaning {
                return Some(pt);
            }
        }
    }
    None
}

fn bad_offer(reason: &str) -> Refusal {
    let brief: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    Refusal::new(Code::BadOffer, format!("the SDP offer cannot be used: {brief}"))
}

/// Header extensions that are answered, under numbers that an offer may change.
///
/// Not the orientation of a camera (3GPP TS 26.114 §7.4.5): who is not answered that turns its pictures
/// itself, so that they are upright for whoever decodes them: mixer, recordings, streams, players that know
/// nothing of it.
fn extensions() -> [(u8, Extension); 9] {
    [
        (1, Extension::AudioLevel),
        (2, Extension::AbsoluteSendTime),
        (3, Extension::TransportSequenceNumber),
        (4, Extension::RtpMid),
        (10, Extension::RtpStreamId),
        (11, Extension::RepairedRtpStreamId),
        (12, Extension::with_serializer(dependency::URI, DependencyDescriptorSerializer)),
        (13, Extension::AbsoluteCaptureTime),
        (14, Extension::PlayoutDelay),
    ]
}

fn build(now: Instant, identity: &Identity, reach: &Reach, creds: IceCreds) -> (Rtc, Option<KeySlot>) {
    let mut config = Rtc::builder()
        .set_crypto_provider(Arc::new(keys::tapped(&identity.crypto)))
        .set_dtls_cert(identity.certificate.clone())
        .set_dtls_version(DtlsVersion::Dtls12)
        .set_local_ice_credentials(creds)
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .set_stats_interval(Some(Duration::from_secs(1)))
        .set_send_buffer_audio(16)
        .set_send_buffer_video(16)
        .clear_codecs()
        .enable_opus(true, true)
        .enable_vp8(true)
        .enable_vp9(true)
        .enable_h264(true)
        .enable_av1(true)
        .clear_extension_map();
    for (id, extension) in extensions() {
        config = config.set_extension(id, extension);
    }
    // A bridge must not hold a lost receiver's memory for long: five tries over about three seconds.
    config.set_max_stun_retransmits(5);
    let (mut rtc, keys) = keys::of_built(|| config.build(now));
    for candidate in candidates(reach) {
        rtc.add_local_candidate(candidate);
    }
    (rtc, keys)
}

fn candidates(reach: &Reach) -> impl Iterator<Item = Candidate> + '_ {
    let udp = reach.udp.iter().filter_map(|&address| Candidate::host(address, "udp").ok());
    let tcp = reach.tcp.iter().filter_map(|&address| {
        Candidate::builder().tcp().host(address).tcptype(TcpType::Passive).build().ok()
    });
    udp.chain(tcp)
}

/// What the other side sends, by what was negotiated with `rtc`; `described` is its description.
pub fn ingress_lines(rtc: &Rtc, described: &str, keys: KeySlot) -> IngressLines {
    let (mut lines, mut meanings) = (Vec::<PublishedLine>::new(), Meanings::default());
    for media in in_order(rtc, described) {
        // A description may name a line twice; the engine has it once.
        let is_new = lines.iter().all(|line| line.mid != media.mid());
        if is_new && matches!(media.direction(), Direction::RecvOnly | Direction::SendRecv) {
            let rids = if let Rids::Specific(rids) = media.rids_rx() { rids.clone() } else { Vec::new() };
            lines.push(PublishedLine { mid: media.mid(), kind: kind_of(media), rids });
            meanings.learn(media);
        }
    }
    let declared = declared(described, &lines);
    IngressLines { keys, lines, payload_types: payload_types(rtc), meanings, declared }
}

/// What the client receives on, in the order of its offer.
fn slots(rtc: &Rtc, answer: &str) -> Vec<SlotLine> {
    let own = payload_types(rtc);
    let receives = |media: &&Media| matches!(media.direction(), Direction::SendOnly | Direction::SendRecv);
    let slot = |media: &Media| {
        let formats = own.iter().filter(|own| accepts(rtc, media.remote_pts(), own));
        SlotLine {
            mid: media.mid(),
            kind: kind_of(media),
            formats: formats.map(|own| own.format).collect(),
            described: media.remote_extmap().iter().any(|(_, ext)| ext.as_uri() == dependency::URI),
        }
    };
    in_order(rtc, answer).filter(receives).map(slot).collect()
}

/// The lines of a description. Directions in the `Rtc` are ours.
fn in_order<'a>(rtc: &'a Rtc, description: &'a str) -> impl Iterator<Item = &'a Media> {
    let mids = description.lines().filter_map(|line| line.strip_prefix("a=mid:"));
    mids.filter_map(|mid| rtc.media(Mid::from(mid.trim())))
}

fn kind_of(media: &Media) -> Kind {
    if media.kind().is_audio() { Kind::Audio } else { Kind::Video }
}

fn accepts(rtc: &Rtc, pts: &[Pt], own: &PayloadType) -> bool {
    let params = rtc.codec_config().params().iter();
    params.filter(|p| pts.contains(&p.pt())).any(|p| p.pt() == own.pt || p.red() == Some(own.pt))
}

fn payload_types(rtc: &Rtc) -> Vec<PayloadType> {
    let mut types = Vec::new();
    for params in rtc.codec_config().params() {
        let resend = params.resend();
        let is_resent = params.fb_nack();
        types.extend(Format::of(params).map(|format| PayloadType {
            pt: params.pt(),
            resend,
            is_resent,
            format,
        }));
        let red = |pt| PayloadType { pt, resend: None, is_resent: false, format: Format::RED };
        types.extend(params.red().map(red));
    }
    types
}
