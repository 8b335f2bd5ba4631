//! RTCP about what we send: reads the feedback of a receiver, writes the reports of a sender (RFC 3550 §6,
//! RFC 4585, RFC 5104, transport-wide congestion control).
//!
//! Reading is a total function over bytes from the network: what breaks a rule is skipped to the next packet
//! of the compound, or ends it. Nothing is allocated.

mod transport_cc;

pub use transport_cc::TransportCc;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// Transport layer feedback, RFC 4585 §6.2.
const TRANSPORT_FEEDBACK: u8 = 205;
/// Payload-specific feedback, RFC 4585 §6.3.
const PAYLOAD_FEEDBACK: u8 = 206;

const FORMAT_NACK: u8 = 1;
const FORMAT_TRANSPORT_CC: u8 = 15;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
const FORMAT_APPLICATION: u8 = 15;

/// One thing that a receiver says about what it gets from us.
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
}

/// What a receiver has seen of one stream (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Of the packets since the last report, in 256ths.
    pub fraction_lost: u8,
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

/// Hands over what a decrypted compound packet says about our streams. True if it says something else, too:
/// about the peer's own streams, or what is not read here.
pub fn read<'a>(compound: &'a [u8], mut each: impl FnMut(Feedback<'a>)) -> bool {
    let mut rest = compound;
    let mut more = false;
    while let Some((packet, after)) = split_packet(rest) {
        rest = after;
        match packet.kind {
            SENDER_REPORT => {
                more = true;
                blocks(packet.body.get(24..), packet.count, &mut each);
            }
            RECEIVER_REPORT => blocks(packet.body.get(4..), packet.count, &mut each),
            TRANSPORT_FEEDBACK => more |= !transport_feedback(&packet, &mut each),
            PAYLOAD_FEEDBACK => more |= !payload_feedback(&packet, &mut each),
            // Who it is, ICE and DTLS have said already.
            DESCRIPTION => {}
            _ => more = true,
        }
    }
    more
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
            last_report: at(16),
            delay_since_last_report: at(20),
        }));
    }
}

/// False for a format that is not read here.
fn transport_feedback<'a>(packet: &Packet<'a>, each: &mut impl FnMut(Feedback<'a>)) -> bool {
    let (Some(ssrc), Some(rest)) = (word(packet.body, 4), packet.body.get(8..)) else { return true };
    match packet.count {
        FORMAT_NACK => each(Feedback::Nack { ssrc, lost: Lost(rest) }),
        FORMAT_TRANSPORT_CC => {
            if let Some(report) = TransportCc::parse(rest) {
                each(Feedback::TransportCc(report));
            }
        }
        _ => return false,
    }
    true
}

fn payload_feedback<'a>(packet: &Packet<'a>, each: &mut impl FnMut(Feedback<'a>)) -> bool {
    let (Some(ssrc), Some(rest)) = (word(packet.body, 4), packet.body.get(8..)) else { return true };
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
        _ => return false,
    }
    true
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

/// NTP time of an instant given in microseconds since the Unix epoch.
pub fn ntp_time(unix_us: u64) -> u64 {
    /// From 1900 to 1970.
    const OFFSET_S: u64 = 2_208_988_800;
    let (seconds, us) = (unix_us / 1_000_000 + OFFSET_S, unix_us % 1_000_000);
    (seconds << 32) | ((us << 32) / 1_000_000)
}

/// Appends a sender report and the description that names its source, as each compound must.
pub fn write_sender_report(report: &SenderReport, cname: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x80, SENDER_REPORT, 0, 6]);
    out.extend_from_slice(&report.ssrc.to_be_bytes());
    out.extend_from_slice(&report.ntp_time.to_be_bytes());
    for field in [report.rtp_time, report.packets, report.octets] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    // SSRC, item type 1 with its length, the name, and zeros to the end of a word, one at least.
    let words = (4 + 2 + cname.len() + 1).div_ceil(4);
    out.extend_from_slice(&[0x81, DESCRIPTION, 0, words as u8]);
    out.extend_from_slice(&report.ssrc.to_be_bytes());
    out.extend_from_slice(&[1, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.resize(out.len() + 4 * words - (4 + 2 + cname.len()), 0);
}

/// Appends a goodbye of these sources, 31 at most (RFC 3550 §6.6).
pub fn write_goodbye(ssrcs: &[u32], out: &mut Vec<u8>) {
    let ssrcs = &ssrcs[..ssrcs.len().min(31)];
    out.extend_from_slice(&[0x80 | ssrcs.len() as u8, GOODBYE, 0, ssrcs.len() as u8]);
    for ssrc in ssrcs {
        out.extend_from_slice(&ssrc.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
