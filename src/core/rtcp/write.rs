//! What peers are told: reports on what we send and on what has come, and requests to senders.
//!
//! Each function appends one RTCP packet; several make a compound, or one of reduced size (RFC 5506).

use super::{
    FORMAT_APPLICATION, FORMAT_NACK, FORMAT_PLI, PAYLOAD_FEEDBACK, RECEIVER_REPORT, ReportBlock,
    SENDER_REPORT, SenderReport, TRANSPORT_FEEDBACK,
};

const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// Blocks in one report (RFC 3550 §6.4).
pub const BLOCKS_MAX: usize = 31;
/// Bytes of the header and the two SSRCs of feedback.
pub(super) const FEEDBACK_BYTES: usize = 12;

/// Appends a sender report and the description that names its source, as each compound must.
pub fn sender_report(report: &SenderReport, cname: &str, out: &mut Vec<u8>) {
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
pub fn goodbye(ssrcs: &[u32], out: &mut Vec<u8>) {
    let ssrcs = &ssrcs[..ssrcs.len().min(31)];
    out.extend_from_slice(&[0x80 | ssrcs.len() as u8, GOODBYE, 0, ssrcs.len() as u8]);
    for ssrc in ssrcs {
        out.extend_from_slice(&ssrc.to_be_bytes());
    }
}

/// Appends a report on streams that came in, [`BLOCKS_MAX`] at most; `ssrc` is whose report it is.
pub fn receiver_report(ssrc: u32, blocks: &[ReportBlock], out: &mut Vec<u8>) {
    let blocks = &blocks[..blocks.len().min(BLOCKS_MAX)];
    out.extend_from_slice(&[0x80 | blocks.len() as u8, RECEIVER_REPORT, 0, 1 + 6 * blocks.len() as u8]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    for block in blocks {
        let lost = u32::from(block.fraction_lost) << 24 | block.lost.min(0x7f_ffff);
        let fields = [
            block.ssrc,
            lost,
            block.highest_seq_no,
            block.jitter,
            block.last_report,
            block.delay_since_last_report,
        ];
        fields.iter().for_each(|field| out.extend_from_slice(&field.to_be_bytes()));
    }
}

/// Appends a request for packets of `of`, in ascending order (RFC 4585 §6.2.1). Nothing where there are none.
pub fn nack(ssrc: u32, of: u32, missing: impl IntoIterator<Item = u16>, out: &mut Vec<u8>) {
    let start = begin(ssrc, of, TRANSPORT_FEEDBACK, FORMAT_NACK, out);
    let mut item: Option<(u16, u16)> = None;
    for seq_no in missing {
        if let Some((first, mask)) = &mut item
            && let behind = seq_no.wrapping_sub(*first)
            && (1..=16).contains(&behind)
        {
            *mask |= 1 << (behind - 1);
            continue;
        }
        push_item(item.replace((seq_no, 0)), out);
    }
    push_item(item, out);
    if out.len() == start + FEEDBACK_BYTES {
        out.truncate(start);
        return;
    }
    end(start, out);
}

fn push_item(item: Option<(u16, u16)>, out: &mut Vec<u8>) {
    let Some((first, mask)) = item else { return };
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&mask.to_be_bytes());
}

/// Appends a request for a key frame of `of` (RFC 4585 §6.3.1).
pub fn picture_loss(ssrc: u32, of: u32, out: &mut Vec<u8>) {
    let start = begin(ssrc, of, PAYLOAD_FEEDBACK, FORMAT_PLI, out);
    end(start, out);
}

/// Appends the request to send no more than `bps` as `of` (draft-alvestrand-rmcat-remb-03 §2.2).
pub fn remb(ssrc: u32, of: u32, bps: u64, out: &mut Vec<u8>) {
    let start = begin(ssrc, 0, PAYLOAD_FEEDBACK, FORMAT_APPLICATION, out);
    let exponent = (64 - bps.leading_zeros()).saturating_sub(18);
    let mantissa = (bps >> exponent) as u32;
    out.extend_from_slice(b"REMB");
    out.extend_from_slice(&(1 << 24 | exponent << 18 | mantissa).to_be_bytes());
    out.extend_from_slice(&of.to_be_bytes());
    end(start, out);
}

/// Begins a feedback message (RFC 4585 §6.1). Gives where.
pub(super) fn begin(ssrc: u32, of: u32, kind: u8, format: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0x80 | format, kind, 0, 0]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&of.to_be_bytes());
    start
}

/// Ends it: pads to whole words and writes the length.
pub(super) fn end(start: usize, out: &mut Vec<u8>) {
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    let words = (out.len() - start) / 4 - 1;
    out[start + 2..start + 4].copy_from_slice(&(words as u16).to_be_bytes());
}
