//! Media past the engine: a client that only receives opens it, and tells its sender of it, by the server's
//! own [`Ingress`], as the engine costs several times as much for each packet as a server does, and the load
//! tool would be full long before the server. ICE, DTLS and channels stay the engine's.
//!
//! It says what the engine would: arrivals each 50 ms, reports each second, requests for what is lost at
//! once. Tests receive by the engine, so that the server is not judged by its own code. The engine has the
//! same keys, so nothing of what it seals may leave ([`Direct::takes`]): no nonce is used twice (RFC 7714
//! §9.1).

use std::net::SocketAddr;
use std::time::Instant;

use str0m::Rtc;
use str0m::media::Mid;
use str0m::net::{Protocol, Transmit};

use crate::bench::phase::Phase;
use crate::core::rtcp::{self, Feedback};
use crate::media::ingress::{ARRIVALS_INTERVAL, Incoming, Ingress, Untaken};
use crate::media::negotiate::ingress_lines;
use crate::media::srtp::keys::KeySlot;
use crate::media::srtp::{RtcpOpener, Sealer};

/// As whom it reports; no slot's sender has this number.
const OWN_SSRC: u32 = 1;

/// What only the handshake's keys make.
struct Sealed {
    opener: RtcpOpener,
    sealer: Sealer,
}

/// See the module.
pub(super) struct Direct {
    keys: KeySlot,
    /// Instant 0 of the run.
    start: Instant,
    local: SocketAddr,
    /// Where media comes from.
    remote: Option<SocketAddr>,
    /// None before the lines are known.
    ingress: Option<Ingress>,
    sealed: Option<Sealed>,
    plain: Vec<u8>,
    compound: Vec<u8>,
}

impl Direct {
    pub fn new(keys: KeySlot, start: Instant, local: SocketAddr) -> Self {
        let (plain, compound) = Default::default();
        Self { keys, start, local, remote: None, ingress: None, sealed: None, plain, compound }
    }

    /// Learns the lines that were negotiated; `described` is the server's description.
    pub fn learn(&mut self, now: Instant, rtc: &Rtc, described: &str) {
        let lines = ingress_lines(rtc, described, self.keys.clone());
        match &mut self.ingress {
            Some(ingress) => ingress.renegotiate(lines),
            None => {
                // Viewers of the tool that come in at a steady rate would be in step with each other.
                let phase = Phase::of(self.local.port().into(), self.start, ARRIVALS_INTERVAL);
                let start = phase.next(now) - ARRIVALS_INTERVAL;
                self.ingress = Some(Ingress::new(start, lines, OWN_SSRC));
            }
        }
    }

    /// Whether it takes a datagram, which is then not for the engine: RTP and RTCP (RFC 7983), with keys.
    pub fn takes(&self, datagram: &[u8]) -> bool {
        matches!(datagram, [128..=191, _, ..]) && self.ingress.is_some() && self.keys.get().is_some()
    }

    /// Takes a datagram that is RTCP or RTP. Gives the packet of media that was in it, and its line.
    ///
    /// # Errors
    /// Why there is none; [`Untaken::Nothing`] also for RTCP.
    pub fn receive<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a [u8],
    ) -> Result<(Mid, Incoming<'a>), Untaken> {
        self.remote = Some(source);
        // RFC 5761 §4.
        if matches!(datagram, [_, 192..=223, ..]) {
            self.handle_rtcp(now, datagram);
            return Err(Untaken::Nothing);
        }
        let ingress = self.ingress.as_mut().ok_or(Untaken::Unknown)?;
        let incoming = ingress.receive(now, datagram)?;
        let line = ingress.lines().get(usize::from(incoming.line)).ok_or(Untaken::Unknown)?;
        Ok((line.mid, incoming))
    }

    fn handle_rtcp(&mut self, now: Instant, datagram: &[u8]) {
        let Some(sealed) = sealed(&mut self.sealed, &self.keys) else { return };
        let (Some(ingress), Some(compound)) =
            (&mut self.ingress, sealed.opener.open_rtcp(datagram, &mut self.plain))
        else {
            return;
        };
        rtcp::read(compound, |feedback| {
            if let Feedback::SenderReport(report) = feedback {
                ingress.handle_sender_report(now, &report);
            }
        });
    }

    pub fn request_key_frame(&mut self, now: Instant, mid: Mid) {
        if let Some(ingress) = &mut self.ingress {
            ingress.request_keyframe(now, mid, None);
        }
    }

    pub fn limit_bitrate(&mut self, now: Instant, mid: Mid, bps: u64) {
        if let Some(ingress) = &mut self.ingress {
            ingress.limit_bitrate(now, mid, None, bps);
        }
    }

    /// When [`Direct::poll_transmit`] will have something.
    pub fn timeout(&self) -> Option<Instant> {
        self.ingress.as_ref().and_then(Ingress::poll_timeout)
    }

    /// Whether something has become due since it was asked last.
    pub fn is_alarmed(&mut self, now: Instant) -> bool {
        self.ingress.as_mut().and_then(Ingress::take_alarm).is_some_and(|at| at <= now)
    }

    /// The next datagram of feedback that is due.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let destination = self.remote?;
        if !self.ingress.as_mut()?.poll_feedback(now, &mut self.compound) {
            return None;
        }
        let sealed = sealed(&mut self.sealed, &self.keys)?;
        sealed.sealer.seal_rtcp(&mut self.compound, 0).ok()?;
        let contents = self.compound.clone().into();
        Some(Transmit { proto: Protocol::Udp, source: self.local, destination, contents })
    }
}

/// Once there are keys.
fn sealed<'a>(sealed: &'a mut Option<Sealed>, keys: &KeySlot) -> Option<&'a mut Sealed> {
    if sealed.is_none() {
        let keys = keys.get()?;
        let opener = RtcpOpener::new(keys.profile, &keys.incoming).ok()?;
        *sealed = Some(Sealed { opener, sealer: Sealer::new(keys.profile, &keys.outgoing).ok()? });
    }
    sealed.as_mut()
}
