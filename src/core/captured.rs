//! When media of one stream was captured, by its sender's clock: told by its reports (RFC 3550 §6.4.1), or,
//! more exactly, with packets themselves (the header extension abs-capture-time).
//!
//! A report of sound by libwebrtc has the moment of sending for that of capture, which is 20 ms and more
//! later, and later still where its machine is busy. So once packets have told it, reports are not listened
//! to.

use super::rtcp::{SenderReport, unix_us_of_ntp};

/// A moment by both of a sender's clocks.
#[derive(Debug, Clone, Copy)]
struct Moment {
    ntp_time: u64,
    rtp_time: u32,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct CaptureClock {
    reported: Option<Moment>,
    /// With a packet.
    carried: Option<Moment>,
}

impl CaptureClock {
    pub fn handle_report(&mut self, report: &SenderReport) {
        self.reported = Some(Moment { ntp_time: report.ntp_time, rtp_time: report.rtp_time });
    }

    /// A packet with this timestamp said when it was captured, as seconds since 1900 and their fractions,
    /// 32 bits each.
    pub fn handle_packet(&mut self, rtp_time: u32, ntp_time: u64) {
        self.carried = Some(Moment { ntp_time, rtp_time });
    }

    /// When media of this timestamp was captured, in microseconds since the Unix epoch. `None` before
    /// anything was told. Senders that count from when they were started are long before that epoch, which
    /// does no harm.
    pub fn captured_us(&self, rtp_time: u32, clock_rate: u32) -> Option<i64> {
        let Moment { ntp_time, rtp_time: then } = self.carried.or(self.reported)?;
        // Both wrap; a packet is not hours from what its sender told.
        let ticks = rtp_time.wrapping_sub(then) as i32;
        unix_us_of_ntp(ntp_time).checked_add(i64::from(ticks) * 1_000_000 / i64::from(clock_rate.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rtcp::ntp_time;

    #[test]
    fn what_packets_tell_is_better_than_reports() {
        let mut clock = CaptureClock::default();
        assert_eq!(clock.captured_us(0, 48_000), None);
        let report = |unix_us| SenderReport {
            ssrc: 1,
            ntp_time: ntp_time(unix_us),
            rtp_time: 960,
            packets: 1,
            octets: 1,
        };
        clock.handle_report(&report(5_000_000));
        assert_eq!(clock.captured_us(1_920, 48_000), Some(5_020_000));
        clock.handle_packet(u32::MAX, ntp_time(5_000_000));
        assert_eq!(clock.captured_us(959, 48_000), Some(5_020_000));
        clock.handle_report(&report(9_000_000));
        assert_eq!(clock.captured_us(959, 48_000), Some(5_020_000));
    }
}
