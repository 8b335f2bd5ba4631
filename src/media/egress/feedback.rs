//! What a receiver says of what it gets: resends it asks for, decoders that are stuck, what its path carries.

use std::time::{Duration, Instant};

use super::{Egress, RESENDS_MAX};
use crate::core::rtcp::{self, Feedback, ReportBlock, SenderReport};

/// What a receiver's RTCP asked for.
#[derive(Debug, Default)]
pub struct Requests {
    /// Slots whose decoder is stuck.
    pub keyframes: Vec<u16>,
    /// Packets were lost.
    pub for_resends: bool,
    /// What it tells of its own streams.
    pub sender_reports: Vec<SenderReport>,
}

impl Egress {
    /// Takes RTCP of the peer. `None` for what is not genuine.
    pub fn handle_rtcp(&mut self, now: Instant, sealed: &[u8]) -> Option<Requests> {
        self.protect();
        let mut plain = std::mem::take(&mut self.plain);
        let opened = self.protection.as_mut().and_then(|keys| keys.opener.open_rtcp(sealed, &mut plain));
        let requests = opened.map(|compound| {
            let mut requests = Requests::default();
            rtcp::read(compound, |feedback| {
                requests.for_resends |= matches!(feedback, Feedback::Nack { .. });
                self.handle_feedback(now, feedback, &mut requests);
            });
            requests
        });
        self.plain = plain;
        requests
    }

    fn handle_feedback(&mut self, now: Instant, feedback: Feedback<'_>, requests: &mut Requests) {
        match feedback {
            Feedback::Nack { ssrc, lost } => {
                let Some(slot) = self.slot_of(ssrc) else { return };
                let room = RESENDS_MAX.saturating_sub(self.resends.len());
                self.resends.extend(lost.iter().take(room).map(|seq_no| (slot, seq_no)));
            }
            Feedback::KeyframeRequest { ssrc } => requests.keyframes.extend(self.slot_of(ssrc)),
            Feedback::TransportCc(report) => {
                let (reports, newest_sent_at) = self.sent.handle_report(now, self.probed, &report);
                if let Some(sent_at) = newest_sent_at.filter(|_| !self.rtt_is_reported) {
                    self.rtt = Some(smooth(self.rtt, now.saturating_duration_since(sent_at)));
                }
                self.estimator.handle_feedback(now, reports, self.rtt);
            }
            Feedback::Remb { bps } => self.estimator.handle_remb(now, bps),
            Feedback::Report(block) => self.handle_report(now, &block),
            Feedback::SenderReport(report) => requests.sender_reports.push(report),
        }
    }

    fn handle_report(&mut self, now: Instant, block: &ReportBlock) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.line.ssrc == block.ssrc) {
            stream.is_known = true;
        }
        if block.last_report != 0 {
            let middle = (self.clock.ntp_time(now) >> 16) as u32;
            let units = middle.wrapping_sub(block.last_report).wrapping_sub(block.delay_since_last_report);
            // A clock that disagrees gives nonsense, not a time of more than a minute.
            if units < 60 << 16 {
                let rtt = Duration::from_secs_f64(f64::from(units) / 65_536.0);
                self.rtt = Some(if self.rtt_is_reported { smooth(self.rtt, rtt) } else { rtt });
                self.rtt_is_reported = true;
            }
        }
    }

    fn slot_of(&self, ssrc: u32) -> Option<u16> {
        let slot = self.streams.iter().position(|stream| stream.line.ssrc == ssrc)?;
        u16::try_from(slot).ok()
    }
}

fn smooth(old: Option<Duration>, new: Duration) -> Duration {
    old.map_or(new, |old| (old * 7 + new) / 8)
}
