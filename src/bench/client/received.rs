//! What a client keeps of what came, for a decoder.

use std::collections::VecDeque;

use str0m::media::{KeyframeRequestKind, Mid};
use str0m::rtp::RtpPacket;

use super::Client;

/// Packets kept for a decoder: some seconds of them. Beyond it the oldest are dropped.
const RECEIVED_MAX: usize = 10_000;

/// A packet of media as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub mid: Mid,
    /// RTP's sequence number, extended.
    pub seq_no: u64,
    pub rtp_time: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
}

impl Client {
    /// Keeps what comes from now on for a decoder.
    pub fn keep_received(&mut self) {
        self.received.get_or_insert_with(VecDeque::new);
    }

    /// The next packet for the decoder.
    pub fn poll_received(&mut self) -> Option<Received> {
        self.received.as_mut()?.pop_front()
    }

    /// Asks the sender of a slot for a key frame.
    pub fn request_key_frame(&mut self, mid: Mid) {
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, None) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    pub(super) fn keep(&mut self, packet: &RtpPacket) {
        if self.received.is_none() {
            return;
        }
        let Some(mid) = self.mid_of(*packet.header.ssrc) else { return };
        let Some(received) = &mut self.received else { return };
        if received.len() == RECEIVED_MAX {
            received.pop_front();
        }
        received.push_back(Received {
            mid,
            seq_no: *packet.seq_no,
            rtp_time: packet.header.timestamp,
            marker: packet.header.marker,
            payload: packet.payload.to_vec(),
        });
    }
}
