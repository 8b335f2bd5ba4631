//! What a client sends of its camera and its microphone.

use std::time::Instant;

use str0m::media::{Mid, Pt, Rid};
use str0m::rtp::{ExtensionValues, RtpWrite};

use super::Client;
use crate::bench::source::MediaPacket;

/// A line that sends.
pub(super) struct Sending<S> {
    pub mid: Mid,
    pub source: S,
    pub pt: Option<Pt>,
}

impl Client {
    /// The line of the camera, if it has one.
    pub fn video_mid(&self) -> Option<Mid> {
        self.video.as_ref().map(|video| video.mid)
    }

    /// The line of the microphone, if it has one.
    pub fn audio_mid(&self) -> Option<Mid> {
        self.audio.as_ref().map(|audio| audio.mid)
    }

    /// Sends what the sources have for now.
    pub(super) fn send_media(&mut self, now: Instant) {
        let clock_ns = now.saturating_duration_since(self.clock_base).as_nanos() as u64;
        let mut direct = self.rtc.direct_api();
        if let Some(Sending { mid, source, pt: Some(pt) }) = &mut self.video {
            let rids: Vec<Option<Rid>> = source.encodings().map(|e| e.rid.map(Rid::from)).collect();
            source.emit(now, clock_ns, |packet| {
                let rid = rids.get(packet.encoding).copied().flatten();
                if let Some(stream) = direct.stream_tx_by_mid(*mid, rid) {
                    stream.write_rtp(rtp_write(&packet, *pt, now).nackable(true));
                }
            });
        }
        if let Some(Sending { mid, source, pt: Some(pt) }) = &mut self.audio {
            let (level, is_voice) = (source.level_dbov(), source.is_voice());
            source.emit(now, clock_ns, |packet| {
                let values = ExtensionValues {
                    audio_level: Some(level),
                    voice_activity: Some(is_voice),
                    ..ExtensionValues::default()
                };
                if let Some(stream) = direct.stream_tx_by_mid(*mid, None) {
                    stream.write_rtp(rtp_write(&packet, *pt, now).ext_vals(values));
                }
            });
        }
    }
}

fn rtp_write(packet: &MediaPacket<'_>, pt: Pt, now: Instant) -> RtpWrite {
    RtpWrite::new(pt, packet.seq_no.into(), packet.rtp_time, now, packet.payload).marker(packet.marker)
}
