//! RTCP (RFC 3550 §6, RFC 4585, RFC 5104, transport-wide congestion control): reads what a peer says, writes
//! what it is told ([`write`]).
//!
//! Reading is a total function over bytes from the network: what breaks a rule is skipped to the next packet
//! of the compound, or ends it. Nothing is allocated.

mod arrivals;
mod transport_cc;
pub mod write;

pub use arrivals::Arrivals;
pub use transport_cc::TransportCc;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
/// Transport layer feedback, RFC 4585 §6.2.
const TRANSPORT_FEEDBACK: u8 = 205;
/// Payload-specific feedback, RFC 4585 §6.3.
const PAYLOAD_FEEDBACK: u8 = 206;

const FORMAT_NACK: u8 = 1;
const FORMAT_TRANSPORT_CC: u8 = 15;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;

/// One thing that a peer says, about what it gets from us or of what it sends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback<'a> {
    /// These packets are missing (RFC 4585 §6.2.1).
    Nack {
        ssrc: u32,
        lost: Lost<'a>,
    },
    /// A decoder is stuck: PLI (RFC 4585 §6.3.1) or FIR (RFC 5104 §4.3.1).
    KeyframeRequest {
        ssrc: u32,
    },
    TransportCc(TransportCc<'a>),
    /// The receiver's own estimate of what its path carries (draft-alvestrand-rmcat-remb).
    Remb {
        bps: u64,
    },
    Report(ReportBlock),
    /// Of a stream of its own.
    SenderReport(SenderReport),
}

/// What a receiver has seen of one stream (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Of the packets since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Since the beginning; what came more than once makes up for it. Of 24 bits, none negative.
    pub lost: u32,
    /// With the number of rounds in the upper half.
    pub highest_seq_no: u32,
    /// Interarrival jitter in ticks of the stream's clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of our last report that it has; 0 for none.
    pub last_report: u32,
    /// How long ago it got that report, in 65,536ths of a second.
    pub delay_since_last_report: u32,
}

/// The sequence numbers that a NACK asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost<'a>(&'a [u8]);

impl Lost<'_> {
    /// Lowest of each group first; at most 17 for each four bytes.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.chunks_exact(4).flat_map(|item| {
            let first = u16::from_be_bytes([item[0], item[1]]);
            let mask = u16::from_be_bytes([item[2], item[3]]);
            let following = (0..16u16).filter(move |bit| mask & 1 << bit != 0);
            std::iter::once(first).chain(following.map(move |bit| first.wrapping_add(bit + 1)))
        })
    }
}

/// Hands over what a decrypted compound packet says, as far as it is read here. Who it is, ICE and DTLS have
/// said already; and goodbyes come at odd moments, also of streams that go on.
pub fn read<'a>(compound: &'a [u8], mut each: impl FnMut(Feedback<'a>)) {
    let mut rest = compound;
    while let Some((packet, after)) = split_packet(rest) {
        rest = after;
        match packet.kind {
            SENDER_REPORT => {
                each_sender_report(packet.body, &mut each);
                blocks(packet.body.get(24..), packet.count, &mut each);
            }
            RECEIVER_REPORT => blocks(packet.body.get(4..), packet.count, &mut each),
            TRANSPORT_FEEDBACK => transport_feedback(&packet, &mut each),
            PAYLOAD_FEEDBACK => payload_feedback(&packet, &mut each),
            _ => {}
        }
    }
}

fn each_sender_report<'a>(body: &[u8], each: &mut impl FnMut(Feedback<'a>)) {
    let at = |at| word(body, at);
    if let (Some(ssrc), Some(seconds), Some(fraction), Some(rtp_time), Some(packets), Some(octets)) =
        (at(0), at(4), at(8), at(12), at(16), at(20))
    {
        let ntp_time = u64::from(seconds) << 32 | u64::from(fraction);
        each(Feedback::SenderReport(SenderReport { ssrc, ntp_time, rtp_time, packets, octets }));
    }
}

struct Packet<'a> {
    /// Five bits: a number of blocks, or the format of a feedback message.
    count: u8,
    kind: u8,
    /// After the first word.
    body: &'a [u8],
}

fn split_packet(bytes: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let &[first, kind, high, low, ..] = bytes else { return None };
    let len = 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
    if first >> 6 != 2 || bytes.len() < len {
        return None;
    }
    let (packet, rest) = bytes.split_at(len);
    Some((Packet { count: first & 31, kind, body: &packet[4..] }, rest))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn blocks<'a>(bytes: Option<&'a [u8]>, count: u8, each: &mut impl FnMut(Feedback<'a>)) {
    for block in bytes.unwrap_or_default().chunks_exact(24).take(usize::from(count)) {
        let at = |at| word(block, at).unwrap_or_default();
        each(Feedback::Report(ReportBlock {
            ssrc: at(0),
            fraction_lost: block[4],
            lost: at(4) & 0xff_ffff,
            highest_seq_no: at(8),
            jitter: at(12),
            last_report: at(16),
            delay_since_last_report: at(20),
        }));
    }
}

fn transport_feedback<'a>(packet: &Packet<'a>, each: &mut impl FnMut(Feedback<'a>)) {
    let (Some(ssrc), Some(rest)) = (word(packet.body, 4), packet.body.get(8..)) else { return };
    match packet.count {
        FORMAT_NACK => each(Feedback::Nack { ssrc, lost: Lost(rest) }),
        FORMAT_TRANSPORT_CC => {
            if let Some(report) = TransportCc::parse(rest) {
                each(Feedback::TransportCc(report));
            }
        }
        _ => {}
    }
}

fn payload_feedback<'a>(packet: &Packet<'a>, each: &mut impl FnMut(Feedback<'a>)) {
    let (Some(ssrc), Some(rest)) = (word(packet.body, 4), packet.body.get(8..)) else { return };
    match packet.count {
        FORMAT_PLI => each(Feedback::KeyframeRequest { ssrc }),
        FORMAT_FIR => {
            for entry in rest.chunks_exact(8) {
                if let Some(ssrc) = word(entry, 0) {
                    each(Feedback::KeyframeRequest { ssrc });
                }
            }
        }
        FORMAT_APPLICATION if rest.starts_with(b"REMB") => {
            if let Some(value) = word(rest, 4) {
                // Eight bits of count, six of exponent, eighteen of mantissa.
                let bps = u64::from(value & 0x3_ffff) << (value >> 18 & 0x3f).min(32);
                each(Feedback::Remb { bps });
            }
        }
        _ => {}
    }
}

/// What a sender tells of one of its streams (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    pub ssrc: u32,
    /// Seconds since 1900 and their fractions, 32 bits each.
    pub ntp_time: u64,
    /// The same instant by the stream's own clock.
    pub rtp_time: u32,
    pub packets: u32,
    /// Of payload.
    pub octets: u32,
}

/// From 1900 to 1970.
const NTP_OFFSET_S: u64 = 2_208_988_800;

/// NTP time of an instant given in microseconds since the Unix epoch.
pub fn ntp_time(unix_us: u64) -> u64 {
    let (seconds, us) = (unix_us / 1_000_000 + NTP_OFFSET_S, unix_us % 1_000_000);
    (seconds << 32) | ((us << 32) / 1_000_000)
}

/// The other way; before the epoch it is negative.
pub fn unix_us_of_ntp(ntp_time: u64) -> i64 {
    let seconds = (ntp_time >> 32) as i64 - NTP_OFFSET_S as i64;
    let us = ((ntp_time & 0xffff_ffff) * 1_000_000) >> 32;
    seconds * 1_000_000 + us as i64
}

#[cfg(test)]
mod tests;
