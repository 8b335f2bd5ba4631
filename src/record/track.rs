//! One track on its way into its file: put in order, put together, put in its time.

use std::path::Path;

use super::media::MediaError;
use super::track_file::TrackFile;
use crate::core::depacketize::{Assembler, Outcome, Unit};
use crate::core::mix::MixPacket;
use crate::core::payload::Codec;
use crate::core::recording::RecordedTrack;
use crate::core::recording::manifest::{Content, RecordedFile, file_name};
use crate::core::recording::reorder::{Ordered, Reorder};
use crate::core::recording::timeline::{SenderClock, Timeline};

/// A key frame is asked for again after so long.
const ASK_INTERVAL_US: i64 = 300_000;

/// Packets of a track in, units with their times out.
pub struct Inflow {
    slot: u16,
    pub codec: Codec,
    reorder: Reorder,
    assembler: Assembler,
    timeline: Timeline,
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
            asked_us: None,
            wants_keyframe: false,
            lost: 0,
        }
    }

    pub fn push(&mut self, now_us: i64, packet: MixPacket) {
        self.reorder.push(now_us, packet);
    }

    /// The track comes by another slot, whose numbers are its own.
    pub fn change_slot(&mut self, slot: u16) {
        self.slot = slot;
        self.reorder = Reorder::default();
        self.assembler.lose();
        self.timeline.begin_anew();
    }

    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// What is complete by now; `is_last` where nothing more comes. Times are on this machine's clock.
    pub fn take(&mut self, now_us: i64, clock: &mut SenderClock, is_last: bool) -> Vec<(Unit, i64)> {
        let mut units = Vec::new();
        let mut outcomes = Vec::new();
        while let Some(ordered) = if is_last { self.reorder.flush() } else { self.reorder.poll(now_us) } {
            let came_us = match ordered {
                Ordered::Packet(packet, came_us) => {
                    self.assembler.push(&packet, &mut outcomes);
                    came_us
                }
                Ordered::Lost(count) => {
                    self.lost += count;
                    self.assembler.lose();
                    self.wants_keyframe |= self.codec.is_video();
                    continue;
                }
                Ordered::Missing => {
                    self.wants_keyframe |= self.codec.is_video();
                    continue;
                }
            };
            for outcome in outcomes.drain(..) {
                match outcome {
                    Outcome::Unit(unit) => {
                        let Unit { rtp_time, captured_us, .. } = unit;
                        let at_us = self.timeline.place(clock, rtp_time, captured_us, came_us);
                        self.wants_keyframe &= !unit.keyframe;
                        units.push((unit, at_us));
                    }
                    Outcome::NeedsKeyframe => self.wants_keyframe = true,
                }
            }
        }
        units
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

    /// The file is at its end. Its entry, and whether it has its length and index.
    pub fn finish(&mut self) -> Option<(RecordedFile, Result<(), MediaError>)> {
        let (file, entry) = self.file.take()?;
        let mut entry = self.stamp(&file, &entry);
        let written = file.written();
        let result = file.finish();
        entry.complete = result.is_ok();
        entry.bytes = written.bytes();
        Some((entry, result))
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
