//! A recording as its recorder has it: tracks, their files, what was said and what happened meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use super::finish;
use super::folder::{Folder, read_manifest};
use super::media::MediaError;
use super::mix_file::{self, MixFile};
use super::recorder::RecorderError;
use super::track::{Ended, Inflow, Track};
use super::track_file::Grown;
use super::usage::Usage;
use crate::core::depacketize::Unit;
use crate::core::ids::Identity;
use crate::core::mix::{MixPacket, Place};
use crate::core::protocol::{Kind, Source};
use crate::core::recording::captions::Captions;
use crate::core::recording::manifest::{CHAPTERS, CHAT, Content, Manifest, RecordedFile};
use crate::core::recording::timeline::SenderClock;
use crate::core::recording::{EndReason, Figures, FromRecorder, RecordedTrack, RecorderSettings, ToRecorder};

/// Packets of a track of which nothing was said yet wait for that; more are dropped.
const UNKNOWN_MAX: usize = 1_024;
/// Packets of the mix's sound that came before its first picture: two seconds. The oldest go.
const EARLY_MAX: usize = 100;
const SECOND_US: i64 = 1_000_000;

/// See the module.
pub struct Session {
    settings: RecorderSettings,
    folder: Folder,
    path: PathBuf,
    manifest: Manifest,
    epoch_us: i64,
    tracks: BTreeMap<u32, Track>,
    clocks: BTreeMap<Identity, SenderClock>,
    unknown: Vec<(u32, i64, MixPacket)>,
    mix: Option<(MixFile, RecordedFile)>,
    /// Its file begins with a picture, and sound of the same time may be placed first.
    early_sound: VecDeque<(Unit, i64)>,
    captions: Captions,
    captions_changed: bool,
    /// Files that say too little of their size.
    grown: Vec<(String, Grown)>,
    usage: Usage,
    figures: Figures,
    told_us: i64,
    /// Nothing is written any more.
    ended: bool,
}

impl Session {
    /// Makes the folder, or goes on in it where an earlier recorder failed.
    pub fn begin(settings: RecorderSettings) -> Result<Self, RecorderError> {
        let path = PathBuf::from(&settings.folder);
        let folder = Folder::open(&path).map_err(MediaError::from)?.ok_or(RecorderError::Taken)?;
        let begins = |_| Manifest::new(settings.room.clone(), settings.recording.clone());
        let manifest = read_manifest(&path).unwrap_or_else(begins);
        folder.write_manifest(&manifest).map_err(MediaError::from)?;
        Ok(Self {
            epoch_us: (settings.recording.started_at_ms as i64).saturating_mul(1_000),
            settings,
            folder,
            path,
            manifest,
            tracks: BTreeMap::new(),
            clocks: BTreeMap::new(),
            unknown: Vec::new(),
            mix: None,
            early_sound: VecDeque::new(),
            captions: Captions::default(),
            captions_changed: false,
            grown: Vec::new(),
            usage: Usage::default(),
            figures: Figures::default(),
            told_us: 0,
            ended: false,
        })
    }

    /// # Errors
    /// A file cannot be ended as it should.
    pub fn handle_words(&mut self, words: ToRecorder) -> Result<(), MediaError> {
        match words {
            ToRecorder::Begin(_) => tracing::warn!("a recorder is told to begin twice"),
            ToRecorder::Tracks(tracks) => return self.set_tracks(tracks),
            ToRecorder::Chapter { at_ms, title } => {
                let at_ms = self.since_start_ms(at_ms);
                self.captions.note_chapter(at_ms, title);
                self.captions_changed = true;
            }
            ToRecorder::Chat { id, at_ms, name, text } => {
                // What was written before it began is no part of it.
                if at_ms >= self.manifest.started_at_ms {
                    let at_ms = self.since_start_ms(at_ms);
                    self.captions.note_message(id, at_ms, name, text);
                    self.captions_changed = true;
                }
            }
            ToRecorder::End { at_ms, reason } => {
                self.manifest.ended_at_ms = Some(at_ms);
                self.manifest.reason.get_or_insert(reason);
            }
        }
        Ok(())
    }

    fn since_start_ms(&self, at_ms: u64) -> u64 {
        at_ms.saturating_sub(self.manifest.started_at_ms)
    }

    fn set_tracks(&mut self, tracks: Vec<RecordedTrack>) -> Result<(), MediaError> {
        let gone: Vec<u32> = self
            .tracks
            .keys()
            .copied()
            .filter(|serial| !tracks.iter().any(|track| track.serial == *serial))
            .collect();
        let mut result = Ok(());
        for serial in gone {
            result = self.end_track(serial).and(result);
        }
        for track in tracks {
            match self.tracks.get_mut(&track.serial) {
                Some(known) => known.about = track,
                None => {
                    self.tracks.insert(track.serial, Track::new(track));
                }
            }
        }
        for (serial, came_us, packet) in std::mem::take(&mut self.unknown) {
            if self.tracks.contains_key(&serial) {
                self.handle_packet(came_us, packet);
            }
        }
        result
    }

    /// Takes a packet that came at `now_us`.
    pub fn handle_packet(&mut self, now_us: i64, packet: MixPacket) {
        let Place::Track { slot, serial, .. } = packet.place else { return };
        if self.ended {
            return;
        }
        self.figures.packets += 1;
        let Some(track) = self.tracks.get_mut(&serial) else {
            if self.unknown.len() < UNKNOWN_MAX {
                self.unknown.push((serial, now_us, packet));
            }
            return;
        };
        if track.inflow.as_ref().is_some_and(|inflow| inflow.codec != packet.codec)
            && let Err(error) = self.end_codec(serial)
        {
            tracing::warn!(%error, "a file of a recording has no end");
        }
        let Some(track) = self.tracks.get_mut(&serial) else { return };
        let inflow = track.inflow.get_or_insert_with(|| Inflow::new(slot, packet.codec));
        if inflow.slot() != slot {
            let clock = self.clocks.entry(track.about.identity.clone()).or_default();
            inflow.change_slot(slot, clock);
        }
        inflow.push(now_us, packet);
    }

    /// A track's publisher changed codec: another file goes on.
    fn end_codec(&mut self, serial: u32) -> Result<(), MediaError> {
        let written = self.write_track(serial, i64::MAX, true);
        let Some(track) = self.tracks.get_mut(&serial) else { return written };
        track.inflow = None;
        let ended = track.finish();
        written.and(self.note_ended(ended))
    }

    /// Does what is due: some times a second. What is to be said, and whether it can go on.
    pub fn check(&mut self, now_us: i64) -> (Vec<FromRecorder>, Result<(), MediaError>) {
        let mut said = Vec::new();
        if self.ended {
            return (said, Ok(()));
        }
        let mut result = self.write_due(now_us, false);
        for (serial, track) in &mut self.tracks {
            if track.inflow.as_mut().is_some_and(|inflow| inflow.asks(now_us)) {
                said.push(FromRecorder::Keyframe { serial: *serial });
            }
        }
        if now_us - self.told_us >= SECOND_US {
            self.told_us = now_us;
            said.push(FromRecorder::Figures(self.take_figures()));
            if result.is_ok() {
                result = self.write_captions(now_us).map_err(MediaError::from);
            }
            let bound = self.bound();
            if let (Some(reason), Ok(())) = (bound, &result) {
                self.end(reason);
                said.push(FromRecorder::Ended { reason });
            }
        }
        (said, result)
    }

    /// Why it may not go on.
    fn bound(&self) -> Option<EndReason> {
        let free = Folder::free_bytes(&self.path).unwrap_or(u64::MAX);
        if free < self.settings.disk_free_min_bytes {
            return Some(EndReason::DiskFull);
        }
        let most = self.settings.bytes_max;
        (most > 0 && self.bytes() > most).then_some(EndReason::TooLarge)
    }

    fn bytes(&self) -> u64 {
        let open = self.tracks.values().filter_map(Track::state).map(|file| file.bytes).sum::<u64>();
        let mix = self.mix.as_ref().map_or(0, |(file, _)| file.written().bytes());
        let ended = self.manifest.files.iter().filter(|file| file.complete);
        ended.map(|file| file.bytes).sum::<u64>() + open + mix
    }

    /// Nothing is written from now on. False where that was so already.
    pub fn end(&mut self, reason: EndReason) -> bool {
        self.manifest.reason.get_or_insert(reason);
        !std::mem::replace(&mut self.ended, true)
    }

    fn write_due(&mut self, now_us: i64, is_last: bool) -> Result<(), MediaError> {
        let serials: Vec<u32> = self.tracks.keys().copied().collect();
        let mut result = Ok(());
        for serial in serials {
            result = self.write_track(serial, now_us, is_last).and(result);
        }
        result
    }

    fn write_track(&mut self, serial: u32, now_us: i64, is_last: bool) -> Result<(), MediaError> {
        let Some(track) = self.tracks.get_mut(&serial) else { return Ok(()) };
        let Some(inflow) = &mut track.inflow else { return Ok(()) };
        let clock = self.clocks.entry(track.about.identity.clone()).or_default();
        let before = inflow.lost;
        let units = inflow.take(now_us, clock, is_last);
        self.figures.packets_lost += inflow.lost - before;
        self.figures.units += units.len() as u64;
        if units.is_empty() {
            return Ok(());
        }
        if track.about.source.is_mix() {
            let kind = track.about.source.kind();
            let written = self.write_mix(kind, units);
            let Some(track) = self.tracks.get_mut(&serial) else { return written };
            return match written {
                Err(error) if error.is_of_stream() => {
                    track.note_trouble(&error);
                    Ok(())
                }
                written => written,
            };
        }
        let begun = track.write(units, (&self.path, self.settings.part), self.epoch_us)?;
        if let Some(entry) = begun {
            note_file(&mut self.manifest, entry);
            self.folder.write_manifest(&self.manifest)?;
        }
        Ok(())
    }

    fn write_mix(&mut self, kind: Kind, units: Vec<(Unit, i64)>) -> Result<(), MediaError> {
        for (unit, at_us) in units {
            let at_us = (at_us - self.epoch_us).max(0);
            match (&mut self.mix, kind) {
                (Some((file, _)), Kind::Video) => file.write_picture(unit, at_us)?,
                (Some((file, _)), Kind::Audio) => file.write_sound(&unit, at_us)?,
                (None, Kind::Video) => {
                    let entry = mix_entry(self.settings.part, at_us);
                    let mut file = MixFile::create(&self.folder.path(&entry.name), &unit, at_us)?;
                    file.write_picture(unit, at_us)?;
                    for (unit, at_us) in std::mem::take(&mut self.early_sound) {
                        file.write_sound(&unit, at_us)?;
                    }
                    note_file(&mut self.manifest, entry.clone());
                    self.folder.write_manifest(&self.manifest)?;
                    self.mix = Some((file, entry));
                }
                (None, Kind::Audio) => {
                    if self.early_sound.len() >= EARLY_MAX {
                        self.early_sound.pop_front();
                    }
                    self.early_sound.push_back((unit, at_us));
                }
            }
        }
        Ok(())
    }

    fn end_track(&mut self, serial: u32) -> Result<(), MediaError> {
        let written = self.write_track(serial, i64::MAX, true);
        let Some(mut track) = self.tracks.remove(&serial) else { return written };
        let Some(ended) = track.finish() else { return written };
        let result = self.note_ended(Some(ended));
        self.folder.write_manifest(&self.manifest)?;
        written.and(result)
    }

    fn note_ended(&mut self, ended: Option<Ended>) -> Result<(), MediaError> {
        let Some(Ended { entry, grown, result }) = ended else { return Ok(()) };
        self.grown.extend(grown.map(|grown| (entry.name.clone(), grown)));
        note_file(&mut self.manifest, entry);
        result
    }

    /// Files are copied for it, so that this is done once nothing more comes.
    fn note_growth(&mut self) {
        for (name, grown) in std::mem::take(&mut self.grown) {
            match finish::note_growth(&self.folder, &name, &grown) {
                Ok(bytes) => {
                    let entry = self.manifest.files.iter_mut().find(|file| file.name == name);
                    entry.into_iter().for_each(|entry| entry.bytes = bytes);
                }
                Err(error) => tracing::warn!(%error, "a file of a recording says too small a size"),
            }
        }
    }

    fn take_figures(&mut self) -> Figures {
        let mut figures = std::mem::take(&mut self.figures);
        figures.files = self.tracks.values().filter(|track| track.has_file()).count() as u32
            + u32::from(self.mix.is_some());
        self.usage.note(&mut figures, self.bytes());
        figures
    }

    fn write_captions(&mut self, now_us: i64) -> std::io::Result<()> {
        if !std::mem::take(&mut self.captions_changed) {
            return Ok(());
        }
        let length_ms = ((now_us - self.epoch_us).max(0) / 1_000) as u64;
        for (name, content, text) in [
            (CHAT, Content::Chat, self.captions.chat_vtt()),
            (CHAPTERS, Content::Chapters, self.captions.chapters_vtt(length_ms)),
        ] {
            let Some(text) = text else { continue };
            self.folder.write(name, text.as_bytes())?;
            note_file(&mut self.manifest, captions_entry(name, content, text.len()));
        }
        Ok(())
    }

    /// Puts everything in order. To be called once, at the end.
    pub fn finish(mut self, now_us: i64) -> Result<(), RecorderError> {
        let mut result = if self.ended { Ok(()) } else { self.write_due(now_us, true) };
        for track in std::mem::take(&mut self.tracks).values_mut() {
            let ended = track.finish();
            result = result.and(self.note_ended(ended));
        }
        if let Some((file, mut entry)) = self.mix.take() {
            let ended_us = self.manifest.ended_at_ms.map(|at_ms| self.since_start_ms(at_ms) as i64 * 1_000);
            entry.end_ms = (file.ends_us(ended_us) / 1_000) as u64;
            let written = file.written();
            result = result.and(file.finish(ended_us));
            entry.bytes = written.bytes();
            note_file(&mut self.manifest, entry);
        }
        self.captions_changed = true;
        let media = self.manifest.files.iter().map(|file| file.end_ms).max().unwrap_or_default();
        let captioned = self.write_captions(self.epoch_us + media as i64 * 1_000);
        // Without an end by the room, the node is gone.
        self.manifest.reason.get_or_insert(EndReason::Closed);
        self.manifest.duration_ms = media;
        self.note_growth();
        finish::finish(&self.folder, &mut self.manifest).map_err(MediaError::from)?;
        captioned.map_err(MediaError::from)?;
        result.map_err(RecorderError::from)
    }
}

/// Puts an entry in place of the one of the same file.
fn note_file(manifest: &mut Manifest, entry: RecordedFile) {
    match manifest.files.iter_mut().find(|file| file.name == entry.name) {
        Some(known) => *known = entry,
        None => manifest.files.push(entry),
    }
}

fn mix_entry(part: u32, at_us: i64) -> RecordedFile {
    let name = if part == 1 { mix_file::FILE_NAME.to_owned() } else { format!("mix-{part}.mp4") };
    RecordedFile {
        name,
        content: Content::Mix,
        identity: None,
        participant_name: None,
        source: Some(Source::Mix),
        codec: Some("h264+aac".into()),
        start_ms: (at_us / 1_000) as u64,
        end_ms: (at_us / 1_000) as u64,
        bytes: 0,
        packets_lost: 0,
        complete: false,
    }
}

fn captions_entry(name: &str, content: Content, length: usize) -> RecordedFile {
    RecordedFile {
        name: name.to_owned(),
        content,
        identity: None,
        participant_name: None,
        source: None,
        codec: None,
        start_ms: 0,
        end_ms: 0,
        bytes: length as u64,
        packets_lost: 0,
        complete: true,
    }
}
