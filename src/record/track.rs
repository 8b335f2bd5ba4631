//! One track on its way into its file: put in order, put together, put in its time.

use std::collections::VecDeque;
use std::path::Path;

use super::media::MediaError;
use super::track_file::{Grown, TrackFile};
use crate::core::depacketize::{Assembler, Outcome, Unit};
use crate::core::mix::{MixPacket, Place};
use crate::core::payload::Codec;
use crate::core::recording::RecordedTrack;
use crate::core::recording::manifest::{Content, RecordedFile, file_name};
use crate::core::recording::reorder::{Ordered, Reorder};
use crate::core::recording::timeline::{MediaTime, SETTLE_US, SenderClock, Timeline};

/// A key frame is asked for again after so long.
const ASK_INTERVAL_US: i64 = 300_000;

/// A picture is held back for so long: the same moment may yet come in another layer, with which a better one
/// begins.
const HELD_US: i64 = 300_000;
/// Pictures that are less apart are of one moment: cameras send 60 a second at most.
const ONE_MOMENT_US: i64 = 8_000;
/// Another layer is placed once its sender's report says when it was, which comes in a second, or after this.
const REPORTED_WITHIN_US: i64 = 2_000_000;

/// Packets of a track in, units with their times out.
///
/// A track may come in another of its layers from one picture to the next. Each layer counts its time from
/// anywhere, and begins with a picture that its predecessor may have shown already: of two pictures of one
/// moment the later layer's is kept, which is the one that what follows builds on.
pub struct Inflow {
    slot: u16,
    pub codec: Codec,
    reorder: Reorder,
    assembler: Assembler,
    timeline: Timeline,
    /// Which of the track's layers came last.
    encoding: Option<u8>,
    /// Units whose time is not settled, and since when there are such; after that all are placed at once.
    unsettled: VecDeque<(Unit, MediaTime, i64)>,
    began_us: Option<i64>,
    /// What is unsettled is of another layer than what is placed.
    changes: bool,
    /// With their times, and when they came.
    placed: VecDeque<(Unit, i64, i64)>,
    /// The time of the last that was given on.
    given_us: Option<i64>,
    asked_us: Option<i64>,
    wants_keyframe: bool,
    pub lost: u64,
}

impl Inflow {
    pub fn new(slot: u16, codec: Codec) -> Self {
        Self {
            slot,
            codec,
            reorder: Reorder::default(),
            assembler: Assembler::new(codec),
            timeline: Timeline::new(codec.clock_rate()),
            encoding: None,
            unsettled: VecDeque::new(),
            began_us: None,
            changes: false,
            placed: VecDeque::new(),
            given_us: None,
            asked_us: None,
            wants_keyframe: false,
            lost: 0,
        }
    }

    pub fn push(&mut self, now_us: i64, packet: MixPacket) {
        self.reorder.push(now_us, packet);
    }

    /// The track comes by another slot, whose numbers are its own.
    pub fn change_slot(&mut self, slot: u16, clock: &SenderClock) {
        self.place(clock);
        self.began_us = None;
        self.encoding = None;
        self.slot = slot;
        self.reorder = Reorder::default();
        self.assembler.lose();
        self.timeline.begin_anew();
    }

    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// From this packet on the track comes in another layer.
    fn change_encoding(&mut self, encoding: u8, clock: &SenderClock) {
        if self.encoding.replace(encoding).is_none_or(|before| before == encoding) || !self.codec.is_video() {
            return;
        }
        self.place(clock);
        self.began_us = None;
        self.changes = true;
        self.assembler = Assembler::new(self.codec);
        self.timeline.begin_anew();
    }

    fn place(&mut self, clock: &SenderClock) {
        if std::mem::take(&mut self.changes)
            && let Some((_, noted, _)) = self.unsettled.front()
        {
            let begins_us = self.timeline.time_of(clock, *noted);
            while self.placed.back().is_some_and(|(_, at_us, _)| *at_us > begins_us - ONE_MOMENT_US) {
                self.placed.pop_back();
            }
            self.timeline.go_on_after(self.placed.back().map(|(_, at_us, _)| *at_us).or(self.given_us));
        }
        for (unit, noted, came_us) in self.unsettled.drain(..) {
            self.placed.push_back((unit, self.timeline.place(clock, noted), came_us));
        }
    }

    fn is_settled(&self, now_us: i64) -> bool {
        let since = |began_us: i64| now_us.saturating_sub(began_us);
        match (self.began_us, self.changes) {
            (None, _) => false,
            (Some(began_us), false) => since(began_us) >= SETTLE_US,
            (Some(began_us), true) => self.timeline.is_reported() || since(began_us) >= REPORTED_WITHIN_US,
        }
    }

    /// What is complete by now; `is_last` where nothing more comes. Times are on this machine's clock.
    pub fn take(&mut self, now_us: i64, clock: &mut SenderClock, is_last: bool) -> Vec<(Unit, i64)> {
        while let Some(ordered) = if is_last { self.reorder.flush() } else { self.reorder.poll(now_us) } {
            match ordered {
                Ordered::Packet(packet, came_us) => self.take_packet(&packet, came_us, clock),
                Ordered::Lost(count) => {
                    self.lost += count;
                    self.assembler.lose();
                    self.wants_keyframe |= self.codec.is_video();
                }
                Ordered::Missing => self.wants_keyframe |= self.codec.is_video(),
            }
        }
        if is_last || self.is_settled(now_us) {
            self.place(clock);
        }
        self.give(now_us, is_last)
    }

    fn take_packet(&mut self, packet: &MixPacket, came_us: i64, clock: &mut SenderClock) {
        if let Place::Track { encoding, .. } = packet.place {
            self.change_encoding(encoding, clock);
        }
        let mut outcomes = Vec::new();
        self.assembler.push(packet, &mut outcomes);
        for outcome in outcomes {
            match outcome {
                Outcome::Unit(unit) => {
                    let noted = self.timeline.note(clock, unit.rtp_time, unit.captured_us, came_us);
                    self.wants_keyframe &= !unit.keyframe;
                    self.began_us.get_or_insert(came_us);
                    self.unsettled.push_back((unit, noted, came_us));
                }
                Outcome::NeedsKeyframe => self.wants_keyframe = true,
            }
        }
    }

    /// What is not held back any more.
    fn give(&mut self, now_us: i64, is_last: bool) -> Vec<(Unit, i64)> {
        let held_us = if self.codec.is_video() { HELD_US } else { 0 };
        let is_due = |came_us: i64| now_us.saturating_sub(came_us) >= held_us;
        let mut given = Vec::new();
        while self.placed.front().is_some_and(|(_, _, came_us)| is_last || !self.changes && is_due(*came_us))
            && let Some((unit, at_us, _)) = self.placed.pop_front()
        {
            self.given_us = Some(at_us);
            given.push((unit, at_us));
        }
        given
    }

    /// Whether a key frame is to be asked for now.
    pub fn asks(&mut self, now_us: i64) -> bool {
        let is_due = self.asked_us.is_none_or(|asked_us| now_us - asked_us >= ASK_INTERVAL_US);
        let asks = self.wants_keyframe && is_due;
        if asks {
            self.asked_us = Some(now_us);
        }
        asks
    }
}

/// A file that has come to its end.
pub struct Ended {
    pub entry: RecordedFile,
    /// It holds larger pictures than it says at its beginning.
    pub grown: Option<Grown>,
    /// Whether it has its length and index.
    pub result: Result<(), MediaError>,
}

/// A track that is recorded.
pub struct Track {
    pub about: RecordedTrack,
    pub inflow: Option<Inflow>,
    file: Option<(TrackFile, RecordedFile)>,
    /// Files of this track, this one included.
    turn: u32,
    /// Said once.
    is_troubled: bool,
}

impl Track {
    pub fn new(about: RecordedTrack) -> Self {
        Self { about, inflow: None, file: None, turn: 0, is_troubled: false }
    }

    /// Writes what is complete. Gives the entry of a file that it has just begun.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(
        &mut self,
        units: Vec<(Unit, i64)>,
        (folder, part): (&Path, u32),
        epoch_us: i64,
    ) -> Result<Option<RecordedFile>, MediaError> {
        let mut begun = None;
        for (unit, at_us) in units {
            // What others saw before the beginning, which what follows builds on, is all at the beginning.
            let at_us = (at_us - epoch_us).max(0);
            let written = match &mut self.file {
                Some((file, _)) => file.write(&unit, at_us),
                // What follows a picture that is none is of no use either.
                None if !unit.keyframe => Ok(()),
                None => self.begin(&unit, at_us, folder, part).map(|entry| begun = Some(entry)),
            };
            match written {
                Err(error) if error.is_of_stream() => self.note_trouble(&error),
                written => written?,
            }
        }
        Ok(begun)
    }

    /// Begins a file with this unit.
    fn begin(
        &mut self,
        unit: &Unit,
        at_us: i64,
        folder: &Path,
        part: u32,
    ) -> Result<RecordedFile, MediaError> {
        let codec = self.inflow.as_ref().map_or(Codec::Opus, |inflow| inflow.codec);
        let name = file_name(&self.about, part, self.turn + 1);
        let title = format!("{} ({:?})", self.about.name, self.about.source);
        let mut file = TrackFile::create(&folder.join(&name), &title, codec, unit, at_us)?;
        file.write(unit, at_us)?;
        self.turn += 1;
        let entry = entry(&self.about, name, codec, at_us);
        self.file = Some((file, entry.clone()));
        Ok(entry)
    }

    /// A unit cannot be written; the next key frame may.
    pub fn note_trouble(&mut self, error: &MediaError) {
        if !std::mem::replace(&mut self.is_troubled, true) {
            tracing::warn!(%error, serial = self.about.serial, "something of a track cannot be written");
        }
        if let Some(inflow) = &mut self.inflow {
            inflow.wants_keyframe |= inflow.codec.is_video();
        }
    }

    /// The file as it stands.
    pub fn state(&self) -> Option<RecordedFile> {
        let (file, entry) = self.file.as_ref()?;
        Some(self.stamp(file, entry))
    }

    /// The file is at its end.
    pub fn finish(&mut self) -> Option<Ended> {
        let (mut file, entry) = self.file.take()?;
        let mut entry = self.stamp(&file, &entry);
        let (written, grown) = (file.written(), file.take_grown());
        let result = file.finish();
        entry.complete = result.is_ok();
        entry.bytes = written.bytes();
        Some(Ended { entry, grown, result })
    }

    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    fn stamp(&self, file: &TrackFile, entry: &RecordedFile) -> RecordedFile {
        RecordedFile {
            end_ms: (file.end_us / 1_000) as u64,
            bytes: file.bytes(),
            packets_lost: self.inflow.as_ref().map_or(0, |inflow| inflow.lost),
            ..entry.clone()
        }
    }
}

fn entry(about: &RecordedTrack, name: String, codec: Codec, at_us: i64) -> RecordedFile {
    RecordedFile {
        name,
        content: Content::from(about.kind()),
        identity: Some(about.identity.clone()),
        participant_name: Some(about.name.clone()),
        source: Some(about.source),
        codec: Some(codec.name().to_owned()),
        start_ms: (at_us / 1_000) as u64,
        end_ms: (at_us / 1_000) as u64,
        bytes: 0,
        packets_lost: 0,
        complete: false,
    }
}
