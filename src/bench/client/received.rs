//! What becomes of a packet of media: it is counted by its stamp, and kept where a decoder waits for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use str0m::media::{KeyframeRequestKind, Mid};
use str0m::net::Transmit;
use str0m::rtp::RtpPacket;

use super::Client;
use crate::bench::reception::Arrival;
use crate::bench::stamp::Stamp;
use crate::media::ingress::{Incoming, Untaken};

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

    pub(super) fn handle_rtp(&mut self, now: Instant, packet: &RtpPacket) {
        self.keep(packet);
        let ssrc = *packet.header.ssrc;
        let (Some(stamp), Some(mid)) = (Stamp::read(&packet.payload), self.mid_of(ssrc)) else {
            self.foreign_packets += 1;
            return;
        };
        let (seq_no, marker, at) = (*packet.seq_no, packet.header.marker, packet.timestamp);
        self.count(now, mid, Arrival { seq_no, ssrc, marker, stamp, at });
    }

    /// Takes a datagram of media or about it past the engine.
    pub(super) fn handle_directly(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        let Some(direct) = &mut self.direct else { return };
        // What waited to be read must not look to the server like a path that fills up.
        let arrived = now.checked_sub(self.waited).unwrap_or(now);
        let received = direct.receive(arrived, source, datagram);
        let is_alarmed = direct.is_alarmed(now);
        match received.map(|(mid, incoming)| (mid, Stamp::read(&incoming.payload), incoming)) {
            Ok((mid, Some(stamp), Incoming { seq_no, ssrc, marker, .. })) => {
                self.count(now, mid, Arrival { seq_no, ssrc, marker, stamp, at: now });
            }
            Err(Untaken::Nothing) => {}
            Ok(_) | Err(_) => self.foreign_packets += 1,
        }
        if is_alarmed {
            self.tell_directly(now);
        }
    }

    /// Sends what is to be told of media that came past the engine.
    pub(super) fn tell_directly(&mut self, now: Instant) {
        let Some(direct) = &mut self.direct else { return };
        self.transmits.extend(std::iter::from_fn(|| direct.poll_transmit(now)));
    }

    pub(super) fn takes_directly(&self, transmit: &Transmit) -> bool {
        self.direct.as_ref().is_some_and(|direct| direct.takes(&transmit.contents))
    }

    fn count(&mut self, now: Instant, mid: Mid, arrival: Arrival) {
        let Some(slot) = self.slots.get_mut(&mid) else { return };
        let (at, sent_ns) = (arrival.at, arrival.stamp.sent_ns);
        let new = slot.handle(arrival);
        self.milestones.first_packet.get_or_insert(at);
        if slot.playout.frames > 0 {
            self.milestones.first_frame.get_or_insert(now);
        }
        if let Some(delays) = self.delays_ns.as_mut().filter(|_| new) {
            let arrived = at.checked_sub(self.waited).unwrap_or(at);
            let arrived_ns = arrived.saturating_duration_since(self.clock_base).as_nanos() as u64;
            delays.push(arrived_ns.saturating_sub(sent_ns));
        }
    }

    fn keep(&mut self, packet: &RtpPacket) {
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
