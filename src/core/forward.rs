//! Makes one continuous RTP stream for a receive slot out of whatever is bound to it in turn.
//!
//! A [`Rewriter`] belongs to one slot of one subscriber. What leaves it looks like the work of one sender
//! (RFC 3550): sequence numbers rise by one for each packet forwarded, packets lost on the way in are gaps
//! that the receiver can ask for, timestamps and picture ids go on across a switch. It holds no packets.

mod renumber;
mod select;

use std::time::{Duration, Instant};

use renumber::{Place, Renumber, extend};
pub use select::Layers;
use select::{Choice, Selector};

use super::payload::dependency::Rewrite;
use super::payload::{
    AUDIO_CLOCK_RATE, DependencyDescriptor, Descriptor, DescriptorBytes, FrameInfo, PayloadPatch,
    VIDEO_CLOCK_RATE, vp8, vp9,
};
use super::protocol::Kind;

/// Late packets are still placed this many sequence numbers back, in words of 64: 512 is two seconds of
/// 1080p at 2.5 Mbit/s.
const SEQUENCE_WORDS: usize = 8;
/// Same for pictures: 128 are four seconds.
const PICTURE_WORDS: usize = 2;
/// A larger jump of the source is no loss but a new beginning (`MAX_DROPOUT` of RFC 3550 appendix A.1); it
/// becomes a gap of one.
const DROPOUT_MAX: u64 = 3_000;
/// After a switch audio goes on at least one usual packet (20 ms) after the last: an earlier timestamp would
/// overlap what was sent.
const AUDIO_STEP: u32 = AUDIO_CLOCK_RATE / 50;
/// And video one millisecond.
const VIDEO_STEP: u32 = VIDEO_CLOCK_RATE / 1_000;
/// Longest pause that is told by the timestamp. More would wrap it (RFC 3550 section 5.1: 32 bits).
const PAUSE_MAX: Duration = Duration::from_secs(3 * 3_600);

/// One packet of the source that is bound to the slot.
#[derive(Debug, Clone, Copy)]
pub struct PacketMeta<'a> {
    /// Extended sequence number of the source.
    pub seq_no: u64,
    pub rtp_time: u32,
    pub marker: bool,
    pub frame: &'a FrameInfo,
    pub dd: Option<&'a DependencyDescriptor>,
}

/// How the packet goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// Extended; the first of a slot is below 32,768, so the rollover counter begins at 0 (RFC 3711).
    pub seq_no: u64,
    pub rtp_time: u32,
    pub marker: bool,
    pub patch: PayloadPatch,
    /// Replaces the packet's dependency descriptor; `None` where it had none.
    pub dd: Option<DescriptorBytes>,
    /// First packet of a source: nothing that was sent before is needed to decode what follows.
    pub begins: bool,
}

/// See the module. About 1 KiB.
#[derive(Debug, Clone)]
pub struct Rewriter {
    kind: Kind,
    anchored: bool,
    numbers: Renumber<SEQUENCE_WORDS>,
    clock: Clock,
    pictures: Pictures,
    frames: FrameNumbers,
    selector: Selector,
}

impl Rewriter {
    /// `seed` gives the first sequence number and timestamp, which RFC 3550 wants unpredictable.
    pub fn new(kind: Kind, seed: u64) -> Self {
        Self {
            kind,
            anchored: false,
            numbers: Renumber::starting(0, seed & 0x7fff),
            clock: Clock::new(kind, (seed >> 32) as u32),
            pictures: Pictures::default(),
            frames: FrameNumbers::default(),
            selector: Selector::new(Layers::ALL),
        }
    }

    /// The next packet is of another source (another track, another encoding), or of the same one after
    /// packets that this rewriter was not shown. Video begins with a key frame: until one comes nothing is
    /// forwarded.
    pub fn switch(&mut self) {
        self.anchored = false;
        self.selector.restart();
    }

    /// True until the first packet after [`Self::switch`] was forwarded.
    pub fn awaits_source(&self) -> bool {
        !self.anchored
    }

    /// Which layers of a scalable stream to forward from now on, as soon as the stream allows the change.
    pub fn set_layers(&mut self, target: Layers) {
        self.selector.set_target(target);
    }

    /// The layers set can only be reached by a key frame: ask for one if this lasts.
    pub fn awaits_keyframe(&self) -> bool {
        self.anchored && self.selector.awaits_keyframe()
    }

    /// What becomes of `packet`: `None` drops it.
    #[inline]
    pub fn rewrite(&mut self, now: Instant, packet: &PacketMeta<'_>) -> Option<Rewritten> {
        let begins = !self.anchored;
        if begins {
            self.anchor(now, packet)?;
        }
        let place = self.numbers.place(packet.seq_no);
        match place {
            Place::Ahead if packet.seq_no - self.numbers.next() > DROPOUT_MAX => {
                self.numbers = Renumber::starting(packet.seq_no, self.numbers.next_out() + 1);
            }
            Place::Ahead | Place::Gap => {}
            Place::Taken | Place::Skipped | Place::Unknown => return None,
        }
        let choice = if packet.frame.usable { self.choose(packet) } else { Choice::DROP };
        if !choice.forward {
            return self.leave_out(packet, place);
        }
        let rtp_time = self.clock.convert(now, packet.rtp_time);
        Some(Rewritten {
            seq_no: self.numbers.take(packet.seq_no),
            rtp_time,
            marker: packet.marker || choice.ends_picture || self.clock.begins_talkspurt(),
            patch: self.pictures.patch(packet.frame),
            dd: packet.dd.map(|dd| self.frames.rewrite(dd, choice.active)),
            begins,
        })
    }

    fn anchor(&mut self, now: Instant, packet: &PacketMeta<'_>) -> Option<()> {
        let begins = packet.frame.usable && (self.kind == Kind::Audio || packet.frame.keyframe);
        if !begins {
            return None;
        }
        self.anchored = true;
        self.numbers = Renumber::starting(packet.seq_no, self.numbers.next_out());
        self.clock.anchor(now, packet.rtp_time);
        self.pictures.restart();
        if let Some(dd) = packet.dd {
            self.frames.anchor(dd);
        }
        Some(())
    }

    fn choose(&mut self, packet: &PacketMeta<'_>) -> Choice {
        let descriptor = &packet.frame.descriptor;
        if !self.pictures.locate(packet) {
            return Choice::DROP;
        }
        let id = self.pictures.current;
        let choice = match (packet.dd, descriptor) {
            (Some(dd), _) => self.selector.choose_described(packet.rtp_time, dd),
            (None, Descriptor::Vp8(vp8)) => self.selector.choose_vp8(id, packet.frame.keyframe, vp8),
            (None, Descriptor::Vp9(vp9)) if vp9.layered => self.selector.choose_vp9(id, vp9),
            _ => Choice::FORWARD,
        };
        if let Descriptor::Vp8(_) = descriptor {
            // A VP8 receiver waits for every picture id; RFC 9628 lets those of VP9 stand for references.
            return self.pictures.settle(choice);
        }
        choice
    }

    /// Drops a packet: without a hole if it is in order, by an empty packet if its number is already
    /// promised.
    fn leave_out(&mut self, packet: &PacketMeta<'_>, place: Place) -> Option<Rewritten> {
        if place != Place::Gap {
            self.numbers.skip(packet.seq_no);
            return None;
        }
        Some(Rewritten {
            seq_no: self.numbers.take(packet.seq_no),
            rtp_time: self.clock.shifted(packet.rtp_time),
            marker: false,
            patch: PayloadPatch::Blank,
            dd: None,
            begins: false,
        })
    }
}

/// Timestamps: each source's clock, shifted so that time goes on.
#[derive(Debug, Clone)]
struct Clock {
    kind: Kind,
    shift: u32,
    /// Latest timestamp sent, or the one to begin with.
    last: u32,
    last_at: Option<Instant>,
    /// Ticks by which the stream runs ahead of the wall clock, after switches that came too close.
    ahead: u32,
    talkspurt: bool,
}

impl Clock {
    fn new(kind: Kind, first: u32) -> Self {
        Self { kind, shift: 0, last: first, last_at: None, ahead: 0, talkspurt: false }
    }

    fn anchor(&mut self, now: Instant, rtp_time: u32) {
        let begin = match self.last_at {
            None => self.last,
            Some(at) => {
                let (rate, step) = match self.kind {
                    Kind::Audio => (AUDIO_CLOCK_RATE, AUDIO_STEP),
                    Kind::Video => (VIDEO_CLOCK_RATE, VIDEO_STEP),
                };
                let pause = now.saturating_duration_since(at).min(PAUSE_MAX);
                let elapsed = (pause.as_micros() * u128::from(rate) / 1_000_000) as u32;
                let advance = elapsed.saturating_sub(self.ahead).max(step);
                self.ahead = (self.ahead + advance).saturating_sub(elapsed);
                self.last.wrapping_add(advance)
            }
        };
        self.shift = begin.wrapping_sub(rtp_time);
        self.last = begin;
        self.last_at = Some(now);
        self.talkspurt = self.kind == Kind::Audio;
    }

    #[inline]
    fn shifted(&self, rtp_time: u32) -> u32 {
        rtp_time.wrapping_add(self.shift)
    }

    #[inline]
    fn convert(&mut self, now: Instant, rtp_time: u32) -> u32 {
        let time = self.shifted(rtp_time);
        let step = time.wrapping_sub(self.last);
        if step != 0 && step < 1 << 31 {
            self.last = time;
            self.last_at = Some(now);
        }
        time
    }

    /// RFC 3551 section 4.1: the marker begins a talkspurt; another speaker does.
    fn begins_talkspurt(&mut self) -> bool {
        std::mem::take(&mut self.talkspurt)
    }
}

/// Picture ids and TL0PICIDX of VP8 and VP9.
#[derive(Debug, Clone)]
struct Pictures {
    numbers: Renumber<PICTURE_WORDS>,
    begun: bool,
    /// Some source had picture ids before: go on after them.
    used: bool,
    /// Extended id of the packet at hand; a count of timestamps where the source has no ids.
    current: u64,
    has_id: bool,
    rtp_time: u32,
    tl0_shift: u8,
    tl0_next: Option<u8>,
}

impl Default for Pictures {
    fn default() -> Self {
        Self {
            numbers: Renumber::starting(PICTURE_BASE, PICTURE_BASE),
            begun: false,
            used: false,
            current: PICTURE_BASE,
            has_id: false,
            rtp_time: 0,
            tl0_shift: 0,
            tl0_next: None,
        }
    }
}

/// Extended ids begin here, so that there is room below.
const PICTURE_BASE: u64 = 1 << 20;

impl Pictures {
    fn restart(&mut self) {
        self.begun = false;
    }

    /// Finds the picture that the packet is of; false for one that is too old.
    #[inline]
    fn locate(&mut self, packet: &PacketMeta<'_>) -> bool {
        let (id, bits, tl0) = match &packet.frame.descriptor {
            Descriptor::None => return true,
            Descriptor::Vp8(vp8) => (vp8.picture_id(), id_bits(vp8.wide_picture_id), vp8.tl0_picture_index()),
            Descriptor::Vp9(vp9) => (vp9.picture_id(), id_bits(vp9.wide_picture_id), vp9.tl0_picture_index()),
        };
        self.has_id = id.is_some();
        let Some(id) = id.map(u64::from) else {
            if !self.begun || packet.rtp_time != self.rtp_time {
                self.current += 1;
            }
            (self.begun, self.rtp_time) = (true, packet.rtp_time);
            return true;
        };
        self.current = extend(self.numbers.next(), id, bits);
        let lost = self.numbers.place(self.current) == Place::Unknown;
        if !self.begun || (lost && packet.frame.keyframe) {
            self.begin(id, tl0);
        }
        self.numbers.place(self.current) != Place::Unknown
    }

    fn begin(&mut self, id: u64, tl0: Option<u8>) {
        // Above every id so far, so that a source which starts its ids anew is not taken for late.
        self.current = (self.numbers.next() | 0x7fff) + 1 + id;
        let out = if self.used { self.numbers.next_out() } else { self.current };
        self.numbers = Renumber::starting(self.current, out);
        if let Some(tl0) = tl0 {
            self.tl0_shift = self.tl0_next.map_or(0, |next| next.wrapping_sub(tl0));
        }
        (self.begun, self.used) = (true, true);
    }

    /// Gives a VP8 picture its place, or takes it out without a hole.
    fn settle(&mut self, choice: Choice) -> Choice {
        match (self.has_id, self.numbers.place(self.current)) {
            (true, Place::Skipped) => return Choice::DROP,
            (true, _) if !choice.forward => self.numbers.skip(self.current),
            _ => {}
        }
        choice
    }

    #[inline]
    fn patch(&mut self, frame: &FrameInfo) -> PayloadPatch {
        match &frame.descriptor {
            Descriptor::None => PayloadPatch::None,
            Descriptor::Vp8(vp8) => self.patch_vp8(vp8),
            Descriptor::Vp9(vp9) => self.patch_vp9(vp9),
        }
    }

    fn patch_vp8(&mut self, packet: &vp8::Descriptor) -> PayloadPatch {
        let id = self.new_id(packet.picture_id(), packet.wide_picture_id);
        let tl0 = self.new_tl0(packet.tl0_picture_index());
        if id == packet.picture_id() && tl0 == packet.tl0_picture_index() {
            return PayloadPatch::None;
        }
        PayloadPatch::Bytes(packet.patch(id, tl0))
    }

    fn patch_vp9(&mut self, packet: &vp9::Descriptor) -> PayloadPatch {
        let id = self.new_id(packet.picture_id(), packet.wide_picture_id);
        let tl0 = self.new_tl0(packet.tl0_picture_index());
        if id == packet.picture_id() && tl0 == packet.tl0_picture_index() {
            return PayloadPatch::None;
        }
        PayloadPatch::Bytes(packet.patch(id, tl0))
    }

    fn new_id(&mut self, id: Option<u16>, wide: bool) -> Option<u16> {
        id?;
        let out = self.numbers.take(self.current);
        Some((out & ((1 << id_bits(wide)) - 1)) as u16)
    }

    fn new_tl0(&mut self, tl0: Option<u8>) -> Option<u8> {
        let out = tl0?.wrapping_add(self.tl0_shift);
        let next = out.wrapping_add(1);
        let newer = self.tl0_next.is_none_or(|known| next.wrapping_sub(known) < 0x80);
        if newer {
            self.tl0_next = Some(next);
        }
        Some(out)
    }
}

fn id_bits(wide: bool) -> u32 {
    if wide { 15 } else { 7 }
}

/// Frame numbers and template ids of the dependency descriptor.
#[derive(Debug, Clone, Default)]
struct FrameNumbers {
    shift: u16,
    next: Option<u16>,
    template_shift: u8,
    /// First template id after those of the last structure sent.
    template_next: Option<u8>,
}

impl FrameNumbers {
    /// The source's first frame follows the last one sent. Its templates follow those sent too: a receiver
    /// may take equal template ids for an equal structure (section A.8.3, `template_id_offset`).
    fn anchor(&mut self, dd: &DependencyDescriptor) {
        self.shift = self.next.map_or(0, |next| next.wrapping_sub(dd.frame_number));
        let offset = dd.frame.as_ref().map(|frame| frame.structure.offset);
        self.template_shift = match (self.template_next, offset) {
            (Some(next), Some(offset)) => next.wrapping_sub(offset) & 63,
            _ => 0,
        };
    }

    fn rewrite(&mut self, dd: &DependencyDescriptor, active: Option<u32>) -> DescriptorBytes {
        let frame_number = dd.frame_number.wrapping_add(self.shift);
        let next = frame_number.wrapping_add(1);
        if self.next.is_none_or(|known| next.wrapping_sub(known) < 0x8000) {
            self.next = Some(next);
        }
        if dd.attached
            && let Some(frame) = &dd.frame
        {
            let end = frame.structure.offset + frame.structure.template_count();
            self.template_next = Some((end + self.template_shift) & 63);
        }
        if self.shift == 0 && self.template_shift == 0 && active.is_none() {
            return dd.bytes().clone();
        }
        dd.rewrite(Rewrite { frame_number, template_shift: self.template_shift, active })
    }
}

#[cfg(test)]
mod tests;
