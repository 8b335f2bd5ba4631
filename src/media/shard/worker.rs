//! What a room's workers have in common: the way to one, and what a slot of theirs is sent.

use std::sync::Arc;

use str0m::rtp::RedDecoder;

use crate::core::format::Format;
use crate::core::forward::Rewritten;
use crate::core::mix::{MixPacket, Place};
use crate::core::payload::{Codec, PayloadPatch};
use crate::mailbox::{ControlSender, LossySender};

/// The way to a worker of a room's.
#[derive(Debug)]
pub struct WorkerLink<To> {
    /// Tells it from those that the room had before: what they still say concerns nobody.
    pub serial: u64,
    pub words: ControlSender<To>,
    pub packets: LossySender<MixPacket>,
}

/// A packet as a worker gets it, by a slot that it has in the room. `None` for one that cannot be read.
pub(super) fn packet(
    place: Place,
    format: Format,
    rewritten: &Rewritten,
    payload: &Arc<[u8]>,
    captured_us: Option<i64>,
) -> Option<MixPacket> {
    let (codec, payload) = if format == Format::RED {
        // What is repeated has come before, or the jitter buffer conceals it (RFC 2198 §3).
        let blocks = RedDecoder::decode(payload).ok()?;
        (Codec::Opus, Arc::from(blocks.last()?.payload))
    } else if rewritten.patch == PayloadPatch::None {
        (format.codec, Arc::clone(payload))
    } else {
        let mut patched = Vec::with_capacity(payload.len());
        rewritten.patch.write(payload, &mut patched);
        (format.codec, Arc::from(patched))
    };
    let (seq_no, rtp_time, marker) = (rewritten.seq_no, rewritten.rtp_time, rewritten.marker);
    Some(MixPacket { place, codec, seq_no, rtp_time, captured_us, marker, payload })
}
