//! Synthetic media, as an encoder would hand it over: VP8 frames in bursts of RTP payloads, Opus every 20 ms.
//!
//! The VP8 payload descriptors (RFC 7741) and frame headers (RFC 6386 §9.1) are valid, so a server may parse
//! and rewrite them; what follows is filler with a [`Stamp`] at the end, so no decoder is needed to judge
//! what arrived. Or a recording is played, which can be decoded and has no stamps. Runs on the instants it is
//! given, hence in virtual time too.

use std::time::{Duration, Instant};

use super::clip::{Frame, Playback, SoundClip};
use super::phase::Phase;
use super::stamp::{AUDIO, STAMP_LEN, Stamp};

/// Largest payload of one packet: what libwebrtc leaves after headers in an MTU of 1200.
const PAYLOAD_LEN_MAX: usize = 1_160;
/// A key frame's size over that of an average frame.
const KEY_FRAME_FACTOR: usize = 3;
/// VP8 payload descriptor with 15-bit picture id, TL0PICIDX and TID/KEYIDX.
const DESCRIPTOR_LEN: usize = 6;

/// One encoding of a video track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// RTP stream id (RFC 8851); none without simulcast.
    pub rid: Option<&'static str>,
    pub width: u16,
    pub height: u16,
    pub bitrate_bps: u64,
}

/// A single encoding without simulcast.
pub fn single(bitrate_bps: u64) -> Vec<Encoding> {
    vec![Encoding { rid: None, width: 1280, height: 720, bitrate_bps }]
}

/// Three encodings as browsers send them, lowest first; `bitrate_bps` is that of the top one.
pub fn simulcast(bitrate_bps: u64) -> Vec<Encoding> {
    vec![
        Encoding { rid: Some("q"), width: 320, height: 180, bitrate_bps: bitrate_bps / 10 },
        Encoding { rid: Some("h"), width: 640, height: 360, bitrate_bps: bitrate_bps / 3 },
        Encoding { rid: Some("f"), width: 1280, height: 720, bitrate_bps },
    ]
}

/// A packet to be sent.
#[derive(Debug, Clone, Copy)]
pub struct MediaPacket<'a> {
    /// Index into the source's encodings; 0 for audio.
    pub encoding: usize,
    /// Extended RTP sequence number.
    pub seq_no: u64,
    pub rtp_time: u32,
    pub marker: bool,
    pub payload: &'a [u8],
}

/// What a track has handed over so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    pub packets: u32,
    pub payload_bytes: u64,
    pub key_frames: u32,
}

struct EncodingState {
    config: Encoding,
    active: bool,
    key_wanted: bool,
    /// Of a recording: nothing is sent before the next key frame that it has.
    awaits_key: bool,
    /// Bytes by which key frames have exceeded the rate; later frames are smaller by them.
    debt: usize,
    picture_id: u16,
    tl0_pic_idx: u8,
    seq_no: u64,
    /// RTP time of picture 0. Each encoding has its own, as in libwebrtc: only sender reports align them.
    rtp_time_base: u32,
    sent: Sent,
}

/// A camera with one or more encodings.
pub struct VideoSource {
    publisher: u32,
    frames_per_second: u32,
    key_interval: Duration,
    encodings: Vec<EncodingState>,
    first_at: Instant,
    phase: Option<Phase>,
    key_at: Instant,
    frame: u32,
    playback: Option<Playback>,
    /// Of a recording: when each picture was handed over, on the run's clock.
    handed_over_ns: Vec<u64>,
    scratch: Vec<u8>,
}

impl VideoSource {
    /// Its first frame is due at `first_at`; a key frame comes every `key_interval` and on request.
    pub fn new(publisher: u32, encodings: Vec<Encoding>, first_at: Instant, key_interval: Duration) -> Self {
        let encodings = encodings.into_iter().enumerate().map(|(index, config)| {
            let offset = publisher.wrapping_mul(7919).wrapping_add(index as u32 * 101);
            EncodingState {
                config,
                active: true,
                key_wanted: true,
                awaits_key: true,
                debt: 0,
                picture_id: (offset % 0x7fff) as u16,
                tl0_pic_idx: offset as u8,
                // Low enough for a roll-over count of zero (RFC 3711 §3.3.1), as a fresh receiver expects.
                seq_no: u64::from(offset % 30_000),
                rtp_time_base: offset.wrapping_mul(65_537),
                sent: Sent::default(),
            }
        });
        Self {
            publisher,
            frames_per_second: 30,
            key_interval,
            encodings: encodings.collect(),
            first_at,
            phase: None,
            key_at: first_at,
            frame: 0,
            playback: None,
            handed_over_ns: Vec::new(),
            scratch: Vec::with_capacity(1500),
        }
    }

    /// Plays a recording. It has the key frames that it has: to be asked for one changes nothing.
    pub fn playing(publisher: u32, playback: Playback, first_at: Instant) -> Self {
        let encodings = playback.clip.encodings.iter().map(|recorded| recorded.encoding).collect();
        Self {
            frames_per_second: playback.clip.frames_per_second,
            playback: Some(playback),
            ..Self::new(publisher, encodings, first_at, Duration::MAX)
        }
    }

    /// Its pictures are in step with nobody else's of the run that began at `base`.
    pub fn out_of_step(mut self, base: Instant) -> Self {
        let interval = Duration::from_secs(1) / self.frames_per_second;
        self.phase = Some(Phase::of(self.publisher, base, interval));
        self
    }

    /// When each picture of a recording was handed over, nanoseconds on the run's clock.
    pub fn handed_over_ns(&self) -> &[u64] {
        &self.handed_over_ns
    }

    /// Begins at `first_at` instead, if it has not begun: nothing is made up for the time until then.
    pub fn postpone_to(&mut self, first_at: Instant) {
        if self.frame == 0 {
            self.first_at = self.phase.map_or(first_at, |phase| phase.next(first_at));
            self.key_at = self.first_at;
        }
    }

    /// When the next frame is due.
    pub fn next_at(&self) -> Instant {
        self.first_at + Duration::from_secs(1) * self.frame / self.frames_per_second
    }

    /// The encodings, lowest first.
    pub fn encodings(&self) -> impl Iterator<Item = Encoding> + '_ {
        self.encodings.iter().map(|encoding| encoding.config)
    }

    /// Pictures captured so far.
    pub fn frames(&self) -> u32 {
        self.frame
    }

    /// What each encoding has sent.
    pub fn sent(&self) -> impl Iterator<Item = Sent> + '_ {
        self.encodings.iter().map(|encoding| encoding.sent)
    }

    /// The next frame of the encoding with this RID is a key frame; without one, that of every encoding.
    pub fn request_key_frame(&mut self, rid: Option<&str>) {
        for encoding in &mut self.encodings {
            if rid.is_none() || encoding.config.rid == rid {
                encoding.key_wanted = true;
            }
        }
    }

    /// Sends only the encodings with these RIDs, as the server's `layers` message asks. One that comes back
    /// starts with a key frame.
    pub fn set_active(&mut self, rids: &[String]) {
        for encoding in &mut self.encodings {
            let active = encoding.config.rid.is_none_or(|rid| rids.iter().any(|wanted| wanted == rid));
            encoding.key_wanted |= active && !encoding.active;
            encoding.awaits_key |= active && !encoding.active;
            encoding.active = active;
        }
    }

    /// Makes the frames that are due at `now`, each a burst of packets. `clock_ns` is what stamps them.
    pub fn emit(&mut self, now: Instant, clock_ns: u64, mut sink: impl FnMut(MediaPacket<'_>)) {
        while self.next_at() <= now {
            let rtp_time = (u64::from(self.frame) * 90_000 / u64::from(self.frames_per_second)) as u32;
            if self.playback.is_some() {
                self.play(rtp_time, clock_ns, &mut sink);
                continue;
            }
            let periodic = self.next_at() >= self.key_at;
            if periodic {
                self.key_at += self.key_interval;
            }
            for (index, encoding) in self.encodings.iter_mut().enumerate() {
                if !encoding.active {
                    continue;
                }
                let stamp = Stamp {
                    publisher: self.publisher,
                    encoding: index as u8,
                    key: periodic || encoding.key_wanted,
                    part: 0,
                    parts: 0,
                    frame: self.frame,
                    counter: 0,
                    sent_ns: clock_ns,
                };
                encoding.frame(stamp, self.frames_per_second, rtp_time, &mut self.scratch, &mut sink);
            }
            self.frame += 1;
        }
    }

    fn play(&mut self, rtp_time: u32, clock_ns: u64, sink: &mut impl FnMut(MediaPacket<'_>)) {
        let Some(playback) = &self.playback else { return };
        for (index, encoding) in self.encodings.iter_mut().enumerate().filter(|(_, state)| state.active) {
            if let Some(frame) = playback.frame(index, self.frame) {
                encoding.recorded_frame(index, frame, rtp_time, &mut self.scratch, sink);
            }
        }
        self.handed_over_ns.push(clock_ns);
        self.frame += 1;
    }
}

impl EncodingState {
    /// Size of the next frame, so that key frames do not lift the rate in the long run.
    fn frame_len(&mut self, key: bool, frames_per_second: u32) -> usize {
        let average = (self.config.bitrate_bps / 8 / u64::from(frames_per_second)) as usize;
        let pay_back = self.debt.min(average / 4);
        self.debt -= pay_back;
        if key {
            self.debt += average * (KEY_FRAME_FACTOR - 1);
            average * KEY_FRAME_FACTOR
        } else {
            average - pay_back
        }
    }

    /// Makes one frame, in packets of about equal size as libwebrtc's packetizer does.
    fn frame(
        &mut self,
        mut stamp: Stamp,
        frames_per_second: u32,
        rtp_time: u32,
        scratch: &mut Vec<u8>,
        sink: &mut impl FnMut(MediaPacket<'_>),
    ) {
        self.key_wanted = false;
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.tl0_pic_idx = self.tl0_pic_idx.wrapping_add(1);
        let frame_len = self.frame_len(stamp.key, frames_per_second);
        let parts = frame_len.div_ceil(PAYLOAD_LEN_MAX).max(1);
        let part_len = frame_len.div_ceil(parts).max(DESCRIPTOR_LEN + 10 + STAMP_LEN);
        stamp.parts = parts as u16;
        for part in 0..parts {
            stamp.part = part as u16;
            stamp.counter = self.sent.packets;
            scratch.clear();
            self.descriptor(part == 0, scratch);
            if part == 0 {
                self.frame_header(stamp.key, frame_len, scratch);
            }
            scratch.resize(part_len - STAMP_LEN, 0x5a);
            stamp.write(scratch);
            sink(MediaPacket {
                encoding: usize::from(stamp.encoding),
                seq_no: self.seq_no,
                rtp_time: rtp_time.wrapping_add(self.rtp_time_base),
                marker: part + 1 == parts,
                payload: scratch,
            });
            self.seq_no += 1;
            self.sent.packets += 1;
            self.sent.payload_bytes += scratch.len() as u64;
        }
        self.sent.key_frames += u32::from(stamp.key);
    }

    /// Sends a frame of a recording, in packets of about equal size.
    fn recorded_frame(
        &mut self,
        encoding: usize,
        frame: &Frame,
        rtp_time: u32,
        scratch: &mut Vec<u8>,
        sink: &mut impl FnMut(MediaPacket<'_>),
    ) {
        if self.awaits_key && !frame.key {
            return;
        }
        self.awaits_key = false;
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.tl0_pic_idx = self.tl0_pic_idx.wrapping_add(1);
        let parts = frame.data.len().div_ceil(PAYLOAD_LEN_MAX - DESCRIPTOR_LEN).max(1);
        let part_len = frame.data.len().div_ceil(parts).max(1);
        for (part, data) in (1..).zip(frame.data.chunks(part_len)) {
            scratch.clear();
            self.descriptor(part == 1, scratch);
            scratch.extend_from_slice(data);
            let rtp_time = rtp_time.wrapping_add(self.rtp_time_base);
            let marker = part == parts;
            sink(MediaPacket { encoding, seq_no: self.seq_no, rtp_time, marker, payload: scratch });
            self.seq_no += 1;
            self.sent.packets += 1;
            self.sent.payload_bytes += scratch.len() as u64;
        }
        self.sent.key_frames += u32::from(frame.key);
    }

    /// RFC 7741 §4.2, one temporal layer.
    fn descriptor(&self, first: bool, payload: &mut Vec<u8>) {
        const EXTENDED: u8 = 0x80;
        const START_OF_PARTITION: u8 = 0x10;
        const PICTURE_ID_TL0_TID: u8 = 0x80 | 0x40 | 0x20;
        payload.push(EXTENDED | if first { START_OF_PARTITION } else { 0 });
        payload.push(PICTURE_ID_TL0_TID);
        payload.extend_from_slice(&(0x8000 | self.picture_id).to_be_bytes());
        payload.push(self.tl0_pic_idx);
        payload.push(0);
    }

    /// RFC 6386 §9.1: frame tag, and for a key frame start code and size.
    fn frame_header(&self, key: bool, frame_len: usize, payload: &mut Vec<u8>) {
        const SHOW_FRAME: u32 = 1 << 4;
        let tag = u32::from(!key) | SHOW_FRAME | ((frame_len as u32 & 0x7_ffff) << 5);
        payload.extend_from_slice(&tag.to_le_bytes()[..3]);
        if key {
            payload.extend_from_slice(&[0x9d, 0x01, 0x2a]);
            payload.extend_from_slice(&self.config.width.to_le_bytes());
            payload.extend_from_slice(&self.config.height.to_le_bytes());
        }
    }
}

/// A microphone: one Opus packet every 20 ms, 32 kbit/s.
pub struct AudioSource {
    publisher: u32,
    first_at: Instant,
    phase: Option<Phase>,
    seq_no: u64,
    sent: Sent,
    level_dbov: i8,
    clip: Option<SoundClip>,
    scratch: Vec<u8>,
}

/// Audio level of packets (RFC 6464), in dBov: of someone who speaks, and of silence.
pub const AUDIO_LEVEL_DBOV: i8 = -25;
const SILENCE_DBOV: i8 = -127;

impl AudioSource {
    const INTERVAL: Duration = Duration::from_millis(20);
    const PAYLOAD_LEN: usize = 80;
    /// RFC 6716 §3.1: SILK/CELT hybrid, full band, 20 ms, mono, one frame.
    const TOC: u8 = 15 << 3;

    /// Its first packet is due at `first_at`.
    pub fn new(publisher: u32, first_at: Instant) -> Self {
        Self {
            publisher,
            first_at,
            phase: None,
            seq_no: u64::from(publisher % 30_000),
            sent: Sent::default(),
            level_dbov: AUDIO_LEVEL_DBOV,
            clip: None,
            scratch: Vec::with_capacity(Self::PAYLOAD_LEN),
        }
    }

    /// Plays a recording, of somebody who speaks or is silent.
    pub fn playing(publisher: u32, clip: SoundClip, speaks: bool, first_at: Instant) -> Self {
        let level_dbov = if speaks { AUDIO_LEVEL_DBOV } else { SILENCE_DBOV };
        Self { clip: Some(clip), level_dbov, ..Self::new(publisher, first_at) }
    }

    /// As [`VideoSource::out_of_step`].
    pub fn out_of_step(mut self, base: Instant) -> Self {
        self.phase = Some(Phase::of(self.publisher, base, Self::INTERVAL));
        self
    }

    /// What its packets say of their loudness.
    pub fn level_dbov(&self) -> i8 {
        self.level_dbov
    }

    /// Whether its packets say that somebody speaks.
    pub fn is_voice(&self) -> bool {
        self.level_dbov > SILENCE_DBOV
    }

    /// As [`VideoSource::postpone_to`].
    pub fn postpone_to(&mut self, first_at: Instant) {
        if self.sent.packets == 0 {
            self.first_at = self.phase.map_or(first_at, |phase| phase.next(first_at));
        }
    }

    /// When the next packet is due.
    pub fn next_at(&self) -> Instant {
        self.first_at + Self::INTERVAL * self.sent.packets
    }

    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Makes the packets that are due at `now`.
    pub fn emit(&mut self, now: Instant, clock_ns: u64, mut sink: impl FnMut(MediaPacket<'_>)) {
        while self.next_at() <= now {
            self.scratch.clear();
            match &self.clip {
                Some(clip) => {
                    let packet = clip.get(self.sent.packets as usize % clip.len().max(1));
                    self.scratch.extend_from_slice(packet.map_or(&[Self::TOC], Vec::as_slice));
                }
                None => self.filler(clock_ns),
            }
            sink(MediaPacket {
                encoding: 0,
                seq_no: self.seq_no,
                rtp_time: self
                    .publisher
                    .wrapping_mul(65_537)
                    .wrapping_add(self.sent.packets.wrapping_mul(960)),
                marker: self.sent.packets == 0,
                payload: &self.scratch,
            });
            self.seq_no += 1;
            self.sent.packets += 1;
            self.sent.payload_bytes += self.scratch.len() as u64;
        }
    }

    fn filler(&mut self, clock_ns: u64) {
        self.scratch.push(Self::TOC);
        self.scratch.resize(Self::PAYLOAD_LEN - STAMP_LEN, 0x5a);
        let stamp = Stamp {
            publisher: self.publisher,
            encoding: AUDIO,
            key: false,
            part: 0,
            parts: 1,
            frame: self.sent.packets,
            counter: self.sent.packets,
            sent_ns: clock_ns,
        };
        stamp.write(&mut self.scratch);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use str0m::rtp::Vp8Descriptor;

    use super::super::clip::{Clip, Recorded};
    use super::*;

    fn run(source: &mut VideoSource, seconds: u32, from: Instant) -> Vec<(usize, u64, bool, Vec<u8>)> {
        let mut packets = Vec::new();
        source.emit(from + Duration::from_secs(u64::from(seconds)), 1, |packet| {
            packets.push((packet.encoding, packet.seq_no, packet.marker, packet.payload.to_vec()));
        });
        packets
    }

    #[test]
    fn the_rate_holds_although_key_frames_are_large() {
        let start = Instant::now();
        let mut source = VideoSource::new(1, simulcast(1_500_000), start, Duration::from_secs(5));
        run(&mut source, 20, start);
        for (sent, encoding) in source.sent().zip(source.encodings().collect::<Vec<_>>()) {
            let bps = sent.payload_bytes * 8 / 20;
            let ratio = bps as f64 / encoding.bitrate_bps as f64;
            assert!((0.97..1.05).contains(&ratio), "{:?}: {bps}", encoding.rid);
            assert_eq!(sent.key_frames, 5);
        }
    }

    #[test]
    fn descriptors_are_valid_and_counters_run_on() {
        let start = Instant::now();
        let mut source = VideoSource::new(3, single(1_500_000), start, Duration::from_secs(3600));
        let packets = run(&mut source, 2, start);
        let mut picture_id = None;
        for (counter, pair) in packets.windows(2).enumerate() {
            let [(_, seq_no, marker, payload), (_, next_seq_no, ..)] = pair else { unreachable!() };
            assert_eq!(seq_no + 1, *next_seq_no);
            let descriptor = Vp8Descriptor::parse(payload).expect("a VP8 payload descriptor");
            let stamp = Stamp::read(payload).expect("a stamp");
            assert_eq!(stamp.counter as usize, counter);
            assert_eq!(stamp.part + 1 == stamp.parts, *marker);
            assert_eq!(stamp.key, stamp.frame == 0);
            assert!(payload.len() <= PAYLOAD_LEN_MAX + 1);
            let id = descriptor.picture_id();
            if stamp.part == 0 {
                assert_ne!(picture_id, Some(id));
            }
            picture_id = Some(id);
        }
    }

    #[test]
    fn a_key_frame_comes_on_request_and_when_an_encoding_returns() {
        let start = Instant::now();
        let mut source = VideoSource::new(1, simulcast(1_500_000), start, Duration::from_secs(3600));
        run(&mut source, 1, start);
        source.request_key_frame(Some("h"));
        source.set_active(&["q".into(), "h".into()]);
        run(&mut source, 2, start);
        assert_eq!(source.sent().map(|sent| sent.key_frames).collect::<Vec<_>>(), [1, 2, 1]);
        let top_before = source.sent().last();
        source.set_active(&["q".into(), "h".into(), "f".into()]);
        run(&mut source, 3, start);
        assert_ne!(source.sent().last(), top_before);
        assert_eq!(source.sent().map(|sent| sent.key_frames).collect::<Vec<_>>(), [1, 2, 2]);
    }

    #[test]
    fn audio_is_fifty_packets_a_second() {
        let start = Instant::now();
        let mut source = AudioSource::new(9, start);
        let mut seqs = Vec::new();
        source.emit(start + Duration::from_millis(1999), 5, |packet| seqs.push(packet.seq_no));
        assert_eq!(seqs, (9..109).collect::<Vec<_>>());
        assert_eq!(source.sent().packets, 100);
    }

    #[test]
    fn a_recording_begins_with_a_key_frame_and_is_played_over_and_over() {
        let frames = |encoding: usize| {
            (0..10).map(move |index| Frame { key: index % 5 == 0, data: vec![index; 2_000 + 500 * encoding] })
        };
        let recorded = simulcast(1_500_000).into_iter().enumerate();
        let recorded = recorded.map(|(at, encoding)| Recorded { encoding, frames: frames(at).collect() });
        let clip = Arc::new(Clip { frames_per_second: 30, encodings: recorded.collect() });
        let start = Instant::now();
        let mut source = VideoSource::playing(1, Playback { clip, phase: 7 }, start);
        let packets = run(&mut source, 1, start);
        assert_eq!((source.frames(), source.handed_over_ns().len()), (31, 31));
        for encoding in 0..3 {
            let of_it: Vec<_> = packets.iter().filter(|(at, ..)| *at == encoding).collect();
            // From the key frame 0, which is its fourth picture; three packets of the largest.
            let each = [2, 3, 3][encoding];
            assert_eq!(of_it.len(), (31 - 3) * each);
            for (index, packet) in of_it.iter().enumerate() {
                let (_, seq_no, marker, payload) = packet;
                assert_eq!(*seq_no, of_it[0].1 + index as u64);
                assert_eq!(*marker, index % each == each - 1);
                assert_eq!(usize::from(*payload.last().expect("bytes")), index / each % 10);
                assert!(Vp8Descriptor::parse(payload).is_ok() && payload.len() <= PAYLOAD_LEN_MAX);
            }
        }
        source.set_active(&["q".into()]);
        source.set_active(&["q".into(), "f".into()]);
        let next = run(&mut source, 2, start);
        let top = next.iter().find(|(at, ..)| *at == 2).map(|(.., payload)| payload.last().copied());
        assert!(
            matches!(top, Some(Some(0 | 5))),
            "an encoding that comes back begins with a key frame: {top:?}"
        );
    }
}
