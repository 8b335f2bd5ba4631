//! What a participant sends: a track, in one or several encodings (RFC 8853), and who takes it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use str0m::media::{Mid, Rid};

use super::format::Format;
use super::ids::Site;
use super::payload::{DependencyReader, Descriptor, FrameInfo, Resolution, SPATIAL_LAYERS_MAX};
use super::protocol::{Kind, Source};
use super::rate::RateMeter;
use super::relay::wire;
use super::replay::Replay;
use super::room::{ParticipantKey, SlotKey};

/// A key frame costs a burst: one encoding is asked at most this often, however many ask.
pub const KEYFRAME_INTERVAL_MIN: Duration = Duration::from_millis(500);
/// An encoding that sent nothing for so long is not on offer.
const ALIVE: Duration = Duration::from_millis(1_500);
/// One that is so far behind another of its track is not sent any more: both have the same pictures.
const BEHIND: Duration = Duration::from_millis(500);
/// An encoding that we asked to wake is believed to come for so long.
const WAKING: Duration = Duration::from_secs(3);

/// One that was asked to come and did not is left alone for so long: its publisher cannot send it.
const RETRY_AFTER: Duration = Duration::from_secs(20);

/// An m-line on which the client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedLine {
    #[serde(with = "wire::mid")]
    pub mid: Mid,
    pub kind: Kind,
    /// Simulcast encodings in the order of the offer, lowest first by custom; empty for a single one.
    #[serde(with = "wire::rids")]
    pub rids: Vec<Rid>,
}

/// An m-line on which the client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotLine {
    pub mid: Mid,
    pub kind: Kind,
    /// What its decoder takes.
    pub formats: Vec<Format>,
    /// It takes the dependency descriptor, without which no receiver can put AV1's spatial layers together.
    pub described: bool,
}

/// One encoding as it comes in.
#[derive(Debug)]
pub struct Encoding {
    pub rid: Option<Rid>,
    pub rate: RateMeter,
    /// Of each spatial layer alone; only [`Encoding::spatial_layers`] of them are in use.
    pub layer_rates: [RateMeter; SPATIAL_LAYERS_MAX],
    pub sizes: [Option<Resolution>; SPATIAL_LAYERS_MAX],
    pub spatial_layers: usize,
    /// The last VP9 packet named its layers.
    layered: bool,
    pub descriptors: DependencyReader,
    pub replay: Replay,
    last_packet_at: Option<Instant>,
    last_keyframe_request_at: Option<Instant>,
    keyframe_wanted: bool,
    woken_at: Option<Instant>,
    /// When it was given up on.
    missing_since: Option<Instant>,
    /// Whether the publisher was told that somebody takes it.
    pub told_active: bool,
    /// Since when nobody has taken it.
    pub idle_since: Option<Instant>,
}

impl Encoding {
    pub fn new(rid: Option<Rid>) -> Self {
        Self {
            rid,
            rate: RateMeter::default(),
            layer_rates: Default::default(),
            sizes: [None; SPATIAL_LAYERS_MAX],
            spatial_layers: 1,
            layered: false,
            descriptors: DependencyReader::default(),
            replay: Replay::default(),
            last_packet_at: None,
            last_keyframe_request_at: None,
            keyframe_wanted: false,
            woken_at: None,
            missing_since: None,
            told_active: true,
            idle_since: None,
        }
    }

    /// Takes note of a packet that came in.
    #[inline]
    pub fn note_packet(&mut self, now: Instant, bytes: usize, frame: &FrameInfo) {
        self.last_packet_at = Some(now);
        self.rate.add(now, bytes);
        let spatial = usize::from(frame.spatial.unwrap_or(0)).min(SPATIAL_LAYERS_MAX - 1);
        self.layer_rates[spatial].add(now, bytes);
        if spatial >= self.spatial_layers {
            self.spatial_layers = spatial + 1;
        }
        if frame.keyframe {
            self.keyframe_wanted = false;
            for (known, told) in self.sizes.iter_mut().zip(frame.resolutions) {
                *known = told.or(*known);
            }
        }
        if let Descriptor::Vp9(vp9) = &frame.descriptor
            && std::mem::replace(&mut self.layered, vp9.layered) != vp9.layered
            && !frame.keyframe
        {
            // Chromium stops naming layers while it sends a single one. Its receiver, told by the payload
            // descriptor alone, does not find the frames from before the change and stands still.
            self.keyframe_wanted = true;
        }
    }

    /// Sends more than it may: a burst is fine, a lasting excess of a quarter is not.
    #[inline]
    pub fn is_excessive(&mut self, now: Instant, bps_max: u64) -> bool {
        self.rate.bps(now) > bps_max.saturating_add(bps_max / 4)
    }

    /// On offer: it flows, or was just asked to.
    pub fn is_alive(&self, now: Instant) -> bool {
        let within =
            |at: Option<Instant>, span| at.is_some_and(|at| now.saturating_duration_since(at) < span);
        if !self.told_active {
            return !within(self.missing_since, RETRY_AFTER);
        }
        within(self.last_packet_at, ALIVE) || within(self.woken_at, WAKING)
    }

    /// It comes, and goes on to. The last packet of all encodings of its track came at `newest`.
    pub fn flows(&self, now: Instant, newest: Option<Instant>) -> bool {
        let is_recent = |at| now.saturating_duration_since(at) < ALIVE;
        let keeps_up = |at| newest.is_none_or(|newest| newest.saturating_duration_since(at) < BEHIND);
        self.told_active && self.last_packet_at.is_some_and(|at| is_recent(at) && keeps_up(at))
    }

    /// When its last packet came.
    pub fn heard_at(&self) -> Option<Instant> {
        self.last_packet_at
    }

    pub fn wake(&mut self, now: Instant) {
        self.told_active = true;
        self.woken_at = Some(now);
    }

    /// Its publisher goes on after a pause of its own, with what it was told to send.
    pub fn expect(&mut self, now: Instant) {
        self.missing_since = None;
        if self.told_active {
            self.woken_at = Some(now);
        }
    }

    /// Nobody takes it: its publisher may rest it.
    pub fn rest(&mut self, now: Instant) {
        self.told_active = false;
        let never_came = self.woken_at.is_some_and(|woken| self.last_packet_at.is_none_or(|at| at < woken));
        self.missing_since = never_came.then_some(now);
    }

    /// Somebody needs a key frame; the next [`Encoding::poll_keyframe_request`] says when to ask.
    pub fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// A slot begins, over a path of this estimate: the replay may do. If in the end it does not, this is to
    /// be called again.
    pub fn want_beginning(&mut self, now: Instant, estimate_bps: u64) {
        let may_do = self.replay.fits(estimate_bps) || self.was_asked_lately(now);
        if !(may_do && self.replay.will_serve(now)) {
            self.want_keyframe();
        }
    }

    /// Whether a slot that begins gets the replay: not where the path would take long for it and a key frame
    /// is under way.
    pub fn is_replayed(&self, estimate_bps: u64) -> bool {
        let is_awaited = self.last_keyframe_request_at > self.replay.began_at();
        self.replay.is_whole() && (self.replay.fits(estimate_bps) || !is_awaited)
    }

    fn was_asked_lately(&self, now: Instant) -> bool {
        let since = |at| now.saturating_duration_since(at);
        self.last_keyframe_request_at.is_some_and(|at| since(at) < KEYFRAME_INTERVAL_MIN)
    }

    /// True when the publisher is to be asked now.
    pub fn poll_keyframe_request(&mut self, now: Instant) -> bool {
        if !self.keyframe_wanted || self.was_asked_lately(now) {
            return false;
        }
        self.last_keyframe_request_at = Some(now);
        true
    }

    pub fn height(&self) -> Option<u32> {
        self.sizes.iter().rev().flatten().next().map(|size| u32::from(size.height))
    }
}

/// A branch of the room takes encodings of a track, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    pub to: Site,
    pub encodings: u32,
    /// Those of which nothing was sent yet since they were asked for.
    pub begins: u32,
}

impl Relayed {
    /// The bit of an encoding; those beyond the 32nd, which no client has, are not relayed.
    pub fn bit(encoding: u8) -> u32 {
        1_u32.checked_shl(encoding.into()).unwrap_or(0)
    }
}

/// A published track.
#[derive(Debug)]
pub struct Track {
    /// Of this publication; no other of its room has it.
    pub serial: u64,
    pub owner: ParticipantKey,
    pub mid: Mid,
    pub source: Source,
    /// Known from the first packet.
    pub format: Option<Format>,
    /// By its publisher.
    pub muted: bool,
    /// By an admin: nothing is forwarded until the publisher unmutes it.
    pub silenced: bool,
    /// Height of the fullest encoding, as the publisher said.
    pub height_told: Option<u32>,
    pub encodings: Vec<Encoding>,
    pub subscribers: Vec<(ParticipantKey, SlotKey)>,
    pub relays: Vec<Relayed>,
}

impl Track {
    pub fn new(serial: u64, owner: ParticipantKey, line: &PublishedLine, source: Source) -> Self {
        let encodings = if line.rids.is_empty() {
            vec![Encoding::new(None)]
        } else {
            line.rids.iter().map(|&rid| Encoding::new(Some(rid))).collect()
        };
        Self {
            serial,
            owner,
            mid: line.mid,
            source,
            format: None,
            muted: false,
            silenced: false,
            height_told: None,
            encodings,
            subscribers: Vec::new(),
            relays: Vec::new(),
        }
    }

    pub fn kind(&self) -> Kind {
        self.source.kind()
    }

    /// Encodings that its publisher was told to send, a bit each.
    pub fn wanted(&self) -> u32 {
        let wanted = self.encodings.iter().take(u32::BITS as usize).enumerate();
        let wanted = wanted.filter(|(_, encoding)| encoding.told_active);
        wanted.fold(0, |mask, (index, _)| mask | 1u32 << index)
    }

    /// Nothing of it is to be forwarded: muted by its publisher or by an admin.
    pub fn is_hushed(&self) -> bool {
        self.muted || self.silenced
    }

    /// Worth a slot.
    pub fn is_shown(&self) -> bool {
        !self.is_hushed() && self.format.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::forward::PacketMeta;
    use crate::core::payload::{Codec, inspect};

    const KEY_BARE: [u8; 4] = [0x9c, 0x80, 0x01, 0xaa];
    const DELTA_BARE: [u8; 5] = [0xdc, 0x80, 0x02, 0x02, 0xaa];
    const DELTA_LAYERED: [u8; 6] = [0xfc, 0x80, 0x03, 0x10, 0x02, 0xaa];
    const KEY_LAYERED: [u8; 5] = [0xbc, 0x80, 0x04, 0x10, 0xaa];

    #[test]
    fn a_stream_that_begins_or_ceases_to_name_its_layers_is_asked_for_a_key_frame() {
        let now = Instant::now();
        let mut encoding = Encoding::new(None);
        let mut asks = |payload: &[u8], seconds: u64| {
            let at = now + Duration::from_secs(seconds);
            encoding.note_packet(at, payload.len(), &inspect(Codec::Vp9, payload, None));
            encoding.poll_keyframe_request(at)
        };
        assert!(!asks(&KEY_BARE, 0));
        assert!(!asks(&DELTA_BARE, 1));
        assert!(asks(&DELTA_LAYERED, 2));
        assert!(!asks(&KEY_LAYERED, 3));
        assert!(!asks(&DELTA_LAYERED, 4));
        assert!(asks(&DELTA_BARE, 5));
    }

    /// A VP9 picture in one packet comes in.
    fn video(encoding: &mut Encoding, now: Instant, seq_no: u64, key: bool) {
        let payload: Arc<[u8]> =
            if key { Arc::from([&KEY_BARE[..], &[0; 1_000]].concat()) } else { [0; 1_000].into() };
        let frame = inspect(Codec::Vp9, &payload, None);
        encoding.note_packet(now, payload.len(), &frame);
        let meta =
            PacketMeta { seq_no, rtp_time: seq_no as u32 * 3_000, marker: true, frame: &frame, dd: None };
        encoding.replay.push(now, &meta, &payload, None);
    }

    #[test]
    fn a_replay_spares_a_key_frame_where_the_path_takes_it_or_none_may_be_asked_for() {
        const NARROW_BPS: u64 = 100_000;
        const WIDE_BPS: u64 = 1_000_000;
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut encoding = Encoding::new(None);
        encoding.want_beginning(start, WIDE_BPS);
        assert!(encoding.poll_keyframe_request(start), "there is nothing to replay");
        for number in 0..10 {
            video(&mut encoding, at(40 + 33 * number), number, number == 0);
        }
        for estimate_bps in [WIDE_BPS, NARROW_BPS] {
            encoding.want_beginning(at(340), estimate_bps);
            assert!(!encoding.keyframe_wanted, "none may be asked for so soon");
            assert!(encoding.is_replayed(estimate_bps));
        }
        let mut unasked = Encoding::new(None);
        for number in 0..10 {
            video(&mut unasked, at(40 + 33 * number), number, number == 0);
        }
        unasked.want_beginning(at(340), WIDE_BPS);
        assert!(!unasked.poll_keyframe_request(at(340)));
        unasked.want_beginning(at(340), NARROW_BPS);
        assert!(unasked.poll_keyframe_request(at(340)));
        assert!(unasked.is_replayed(WIDE_BPS) && !unasked.is_replayed(NARROW_BPS));
        video(&mut unasked, at(370), 10, true);
        assert!(unasked.is_replayed(NARROW_BPS));
    }
}
