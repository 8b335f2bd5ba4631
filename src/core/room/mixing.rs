//! The room's mixer (MCU mode): when it is wanted, who gets the mix, and what it is told to make.
//!
//! The mixer sits in the room as a participant. What it decodes comes to its slots as to anybody's, so
//! layers, key frames and switches are those of every receiver; what it makes are tracks of its own. Whoever
//! wants the mix keeps what they have until the mix flows, and has it back when the mixer is gone.

mod modes;
mod scene;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use str0m::media::{Mid, Rid};

use super::{Audience, Now, Output, ParticipantKey, Room, TrackKey, seat};
use crate::core::format::Format;
use crate::core::ids::{Identity, SessionId};
use crate::core::mix::backdrop::Backdrop;
use crate::core::mix::{
    BackdropPart, Figures, FromMixer, LINE_H264, LINE_MINUS, LINE_SOUND, LINE_VP8, MixSettings, MixerOrder,
    RENDITIONS, Scene, ToMixer,
};
use crate::core::participant::{Entrant, Part, Participant, Presence};
use crate::core::protocol::{Grant, Kind, Mode, RoomState, ServerMessage, Source};
use crate::core::refusal::{Code, Refusal};
use crate::core::stats::MixerStats;
use crate::core::track::{PublishedLine, SlotLine};

/// The mixer stays for so long after the last who wanted it.
const STOP_AFTER: Duration = Duration::from_secs(10);
/// One that was started and says nothing has failed; so has one that falls silent.
const START_WITHIN: Duration = Duration::from_secs(10);
const SILENT_FOR: Duration = Duration::from_secs(3);
/// One that is silent for so long may be about to; nobody waits for it.
const STALLS_AFTER: Duration = Duration::from_millis(700);
/// Between a failure and the next start; doubles with each.
const RESTART_AFTER: Duration = Duration::from_millis(500);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(30);
/// A node that had no room for a mix is not asked again for so long, unless somebody wants it anew.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// A mixer that ran for so long had no fault that it was born with.
const SOUND_AFTER: Duration = Duration::from_secs(60);
/// A line of the mix flows if a packet of it came within this time.
const FLOWS: Duration = Duration::from_millis(500);
/// Pictures and voices that one mixer takes.
pub(super) const PICTURES_MAX: usize = 25;
const VOICES_MAX: usize = 50;
/// Speakers who each get the sound without their own voice.
const MINUS_MAX: u8 = 100;
/// What the mixer does in its room: all that it needs, and no more.
const MIXES: Grant =
    Grant { publish: true, subscribe: true, chat: false, files: false, admin: false, lowest_layer: false };
/// Above this estimate a receiver begins with the full picture.
const FULL_FROM_BPS: u64 = 1_200_000;

/// Where the room's mixer is.
#[derive(Debug, Default)]
pub struct Mixing {
    phase: Phase,
    seat: Option<ParticipantKey>,
    /// What it was last told.
    scene: Option<Scene>,
    backdrop: Option<Backdrop>,
    wanted: BTreeMap<u8, u32>,
    bitrates: BTreeMap<(u8, u8), u64>,
    /// Lines with the sound of all but one, by whom.
    minus: BTreeMap<ParticipantKey, u8>,
    failures: u32,
    heard_at: Option<Instant>,
    /// What it encodes with, and what it did in the last second.
    encoders: Vec<String>,
    figures: Option<Figures>,
    unwanted_since: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Phase {
    #[default]
    Off,
    Starting {
        since: Instant,
    },
    Running {
        since: Instant,
    },
    Failed {
        until: Instant,
    },
    Refused {
        until: Instant,
    },
}

impl Room {
    /// The mixer's seat, while it mixes.
    pub fn mixer_seat(&self) -> Option<ParticipantKey> {
        self.mixing.seat
    }

    /// One was ordered and is not there yet.
    pub fn awaits_mixer(&self) -> bool {
        matches!(self.mixing.phase, Phase::Starting { .. })
    }

    /// The mixer's figures, while it mixes.
    pub fn mixer_stats(&self) -> Option<MixerStats> {
        self.mixing.seat?;
        let (encoders, figures) = (self.mixing.encoders.clone(), self.mixing.figures.clone());
        Some(MixerStats { encoders, figures: figures.unwrap_or_default() })
    }

    /// It says nothing for now, so that nobody is to wait for what it makes.
    fn mixer_stalls(&self, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        matches!(self.mixing.phase, Phase::Running { .. })
            && self.mixing.heard_at.is_none_or(|at| since(at) >= STALLS_AFTER)
    }

    /// # Errors
    /// `unavailable` where the node has no mixer, `end_to_end_encrypted` where nothing can be decoded.
    pub(super) fn check_mixer(&self) -> Result<(), Refusal> {
        if self.state.e2ee {
            return Err(no_mix_of_ciphertext());
        }
        let words = "this node has no mixer: the room stays in SFU mode";
        self.settings.mix.map(|_| ()).ok_or_else(|| Refusal::new(Code::Unavailable, words))
    }

    /// Something that the mixer says, or that is said of it.
    pub fn handle_mixer(&mut self, now: Now, news: FromMixer) {
        match news {
            FromMixer::Ready { encoders } => {
                self.mixing.encoders = encoders;
                self.seat_mixer(now.instant);
            }
            FromMixer::Encoders { encoders } => self.mixing.encoders = encoders,
            FromMixer::Keyframe { slot } => {
                if let Some(key) = self.mixing.seat {
                    self.handle_keyframe_request(now.instant, key, slot);
                }
            }
            // What else it says may come from a part of it that lives on where another hangs.
            FromMixer::Pulse => self.mixing.heard_at = Some(now.instant),
            FromMixer::Figures(figures) => self.mixing.figures = Some(figures),
            FromMixer::Gone => self.fail_mixer(now.instant),
            FromMixer::Refused => {
                self.unseat_mixer(now.instant);
                self.mixing.phase = Phase::Refused { until: now.instant + REFUSED_FOR };
                self.refuse_mix(now);
            }
        }
        self.poll_mixing(now.instant);
        self.settle(now.instant);
    }

    /// Starts, stops and instructs the mixer, and moves people to the mix and back.
    pub(super) fn poll_mixing(&mut self, now: Instant) {
        if !self.is_branch {
            self.poll_phase(now);
            self.assign_minus_lines(now);
            self.tell_scene();
        }
        for key in self.keys() {
            self.call_home(now, key);
            self.poll_advice(now, key);
            self.poll_mode(now, key);
        }
        if self.mixing.seat.is_some() {
            self.tell_wanted();
            self.tell_bitrates();
        }
    }

    fn poll_phase(&mut self, now: Instant) {
        let wanted = self.is_mix_wanted();
        let since = |at: Instant| now.saturating_duration_since(at);
        match self.mixing.phase {
            Phase::Off | Phase::Refused { .. } if !wanted => self.mixing.phase = Phase::Off,
            Phase::Refused { until } if now >= until => self.start_mixer(now),
            Phase::Off => self.start_mixer(now),
            Phase::Failed { until } if wanted && now >= until => self.start_mixer(now),
            Phase::Failed { .. } | Phase::Refused { .. } => {}
            Phase::Starting { since: started } if since(started) >= START_WITHIN => self.fail_mixer(now),
            Phase::Running { .. } if self.mixing.heard_at.is_none_or(|at| since(at) >= SILENT_FOR) => {
                self.fail_mixer(now);
            }
            Phase::Starting { .. } | Phase::Running { .. } => {
                let unwanted_since = (!wanted).then(|| *self.mixing.unwanted_since.get_or_insert(now));
                self.mixing.unwanted_since = unwanted_since;
                if unwanted_since.is_some_and(|at| since(at) >= STOP_AFTER) {
                    self.unseat_mixer(now);
                    self.mixing.phase = Phase::Off;
                    self.outputs.push_back(Output::Mixer(MixerOrder::Stop));
                }
            }
        }
    }

    /// A mixer is there, or is to be.
    pub(super) fn is_mixing(&self) -> bool {
        matches!(self.mixing.phase, Phase::Starting { .. } | Phase::Running { .. }) || self.is_mix_wanted()
    }

    fn is_mix_wanted(&self) -> bool {
        let elsewhere = self.branches.iter().any(|branch| branch.viewers > 0);
        self.settings.mix.is_some()
            && !self.state.e2ee
            && (self.takers().any()
                || self.records_mix()
                || self.seated().any(|(_, p)| self.wants_mix(p))
                || elsewhere && self.state.mode == Mode::Mcu)
    }

    fn start_mixer(&mut self, now: Instant) {
        let Some(settings) = self.settings.mix else { return };
        self.mixing.phase = Phase::Starting { since: now };
        self.mixing.heard_at = None;
        self.mixing.unwanted_since = None;
        self.outputs.push_back(Output::Mixer(MixerOrder::Start(settings)));
    }

    fn fail_mixer(&mut self, now: Instant) {
        match self.mixing.phase {
            Phase::Off | Phase::Refused { .. } | Phase::Failed { .. } => return,
            Phase::Running { since } if now.saturating_duration_since(since) >= SOUND_AFTER => {
                self.mixing.failures = 0;
            }
            Phase::Starting { .. } | Phase::Running { .. } => {}
        }
        self.unseat_mixer(now);
        let wait = RESTART_AFTER.saturating_mul(1 << self.mixing.failures.min(10)).min(RESTART_AFTER_MAX);
        self.mixing.failures += 1;
        self.mixing.phase = Phase::Failed { until: now + wait };
        self.outputs.push_back(Output::Mixer(MixerOrder::Stop));
    }

    /// No mix can be had: everyone goes on without, and is told.
    fn refuse_mix(&mut self, now: Now) {
        let was_mixed = self.state.mode == Mode::Mcu;
        if was_mixed {
            self.state.mode = Mode::Sfu;
            self.mirror_is_stale = true;
            self.tell(Audience::All, ServerMessage::Room { room: self.state.clone() });
        }
        for key in self.keys() {
            let Some(participant) = self.participant_mut(key) else { continue };
            let is_owner = was_mixed && participant.grant.admin && participant.is_person();
            let wished = participant.mode_wish.take();
            if wished == Some(Mode::Mcu) || is_owner {
                let words = "this node has no room for a mix now: the room is forwarded";
                self.refuse(key, None, Refusal::new(Code::Unavailable, words));
            }
        }
        self.poll_mixing(now.instant);
    }

    fn seat_mixer(&mut self, now: Instant) {
        if self.mixing.seat.is_some() || !matches!(self.mixing.phase, Phase::Starting { .. }) {
            return;
        }
        let Some(entrant) = mixer(self.settings.mix) else { return };
        let mut participant = Participant::new(entrant, Presence::Here, 0, u64::MAX);
        participant.is_connected = true;
        participant.names_tracks = true;
        let key = ParticipantKey(seat(&mut self.participants, participant));
        self.mixing.seat = Some(key);
        self.mixing.heard_at = Some(now);
        self.mixing.phase = Phase::Running { since: now };
        if self.mixing.backdrop.is_some() {
            self.tell_backdrop();
        }
        for (line, source, format) in [
            (LINE_VP8, Source::Mix, Format::VP8),
            (LINE_H264, Source::Mix, Format::H264_BASELINE),
            (LINE_SOUND, Source::MixAudio, Format::OPUS),
        ] {
            self.publish_mix(now, key, line, source, format);
        }
    }

    /// Puts a picture behind the tiles, or takes it away; all are told.
    pub fn set_backdrop(&mut self, now: Now, backdrop: Option<Backdrop>) -> RoomState {
        self.state.has_backdrop = backdrop.is_some();
        self.mixing.backdrop = backdrop;
        self.tell_backdrop();
        let room = self.state.clone();
        self.mirror_is_stale = true;
        self.settle(now.instant);
        self.tell(Audience::All, ServerMessage::Room { room: room.clone() });
        room
    }

    fn tell_backdrop(&mut self) {
        if self.mixing.seat.is_none() {
            return;
        }
        match self.mixing.backdrop.clone() {
            Some(backdrop) => {
                BackdropPart::of(&backdrop).for_each(|part| self.tell_mixer(ToMixer::Backdrop(part)));
            }
            None => self.tell_mixer(ToMixer::NoBackdrop),
        }
    }

    fn publish_mix(&mut self, now: Instant, key: ParticipantKey, line: u8, source: Source, format: Format) {
        let height = self.settings.mix.map(|mix| mix.canvas.height);
        let Some(track_key) = self.add_track(key, usize::from(line), source) else { return };
        if let Some(track) = self.track_mut(track_key) {
            track.height_told = height;
            // Nothing is made before somebody asks for it.
            track.encodings.iter_mut().for_each(|encoding| encoding.told_active = false);
        }
        self.set_format(now, track_key, format);
    }

    fn unseat_mixer(&mut self, now: Instant) {
        let Some(key) = self.mixing.seat.take() else { return };
        self.release_slots(key);
        self.unpublish_all(key);
        if let Some(place) = self.participants.get_mut(key.0 as usize) {
            *place = None;
        }
        self.mixing.scene = None;
        self.mixing.figures = None;
        self.mixing.wanted.clear();
        self.mixing.bitrates.clear();
        self.mixing.minus.clear();
        for key in self.keys() {
            self.poll_mode(now, key);
        }
        self.settle(now);
    }

    /// Everyone who may speak and gets the mix has it without their own voice.
    fn assign_minus_lines(&mut self, now: Instant) {
        let Some(mixer) = self.mixing.seat else { return };
        let speaks = |room: &Self, p: &Participant| {
            let mut tracks = p.line_tracks.iter().flatten().filter_map(|&track| room.track(track));
            tracks.any(|track| track.kind() == Kind::Audio)
        };
        let wants =
            |(key, p): (ParticipantKey, &Participant)| (self.wants_mix(p) && speaks(self, p)).then_some(key);
        let speakers: Vec<ParticipantKey> = self.seated().filter_map(wants).collect();
        let gone: Vec<_> = self
            .mixing
            .minus
            .iter()
            .filter(|(key, _)| !speakers.contains(key))
            .map(|(&k, &l)| (k, l))
            .collect();
        for (key, line) in gone {
            self.mixing.minus.remove(&key);
            self.unpublish(mixer, usize::from(line));
        }
        for key in speakers {
            if self.mixing.minus.contains_key(&key) {
                continue;
            }
            let used: Vec<u8> = self.mixing.minus.values().copied().collect();
            let free = (LINE_MINUS..LINE_MINUS + MINUS_MAX).find(|line| !used.contains(line));
            let Some(line) = free else { return };
            self.mixing.minus.insert(key, line);
            self.publish_mix(now, mixer, line, Source::MixAudio, Format::OPUS);
            if let Some(participant) = self.participant_mut(key) {
                participant.slots_stale = true;
            }
        }
    }

    pub(super) fn mixer_track(&self, line: u8) -> Option<TrackKey> {
        self.participant(self.mixing.seat?)?.line_tracks.get(usize::from(line)).copied()?
    }

    pub(super) fn ask_mixer_for_keyframe(&mut self, mid: Mid, rid: Option<Rid>) {
        let Some(mixer) = self.mixing.seat.and_then(|seat| self.participant(seat)) else { return };
        let line = mixer.lines.iter().position(|line| line.mid == mid);
        let Some((line, published)) = line.and_then(|line| Some((line, mixer.lines.get(line)?))) else {
            return;
        };
        let encoding = published.rids.iter().position(|&other| Some(other) == rid).unwrap_or(0);
        let words = ToMixer::Keyframe { line: line as u8, encoding: encoding as u8 };
        self.tell_mixer(words);
    }

    /// Tells the mixer which encodings somebody takes or waits for.
    pub(super) fn tell_wanted(&mut self) {
        let Some(mixer) = self.mixing.seat.and_then(|seat| self.participant(seat)) else { return };
        let waits = self.seated().any(|(_, p)| self.wants_mix(p) && !p.is_mixed);
        let waiting: Vec<Option<TrackKey>> = if waits {
            let waiting = self.seated().filter(|(_, p)| self.wants_mix(p) && !p.is_mixed);
            waiting.map(|(key, _)| self.mix_for(key, Kind::Audio)).collect()
        } else {
            Vec::new()
        };
        let wanted = |&key: &TrackKey| match self.track(key) {
            Some(track) if track.kind() == Kind::Video => {
                let active = track.encodings.iter().enumerate().filter(|(_, encoding)| encoding.told_active);
                active.fold(0, |mask, (index, _)| mask | 1u32 << index)
            }
            Some(track) => {
                let is_taken = !track.subscribers.is_empty() || !track.relays.is_empty();
                u32::from(is_taken || waiting.contains(&Some(key)))
            }
            None => 0,
        };
        let lines = mixer.line_tracks.iter().enumerate();
        let lines: Vec<(u8, u32)> =
            lines.map(|(line, track)| (line as u8, track.as_ref().map_or(0, wanted))).collect();
        for (line, encodings) in lines {
            let encodings = encodings | self.streamed(line);
            let told = self.mixing.wanted.insert(line, encodings).unwrap_or(0);
            if told != encodings {
                self.tell_mixer(ToMixer::Wanted { line, encodings });
            }
        }
    }

    pub(super) fn tell_mixer(&mut self, words: ToMixer) {
        self.outputs.push_back(Output::Mixer(MixerOrder::Tell(words)));
    }
}

/// Why a room that is encrypted end to end is not mixed.
pub fn no_mix_of_ciphertext() -> Refusal {
    let words = "this room is encrypted end to end: the server cannot decode it, so it cannot be mixed";
    Refusal::new(Code::EndToEndEncrypted, words)
}

/// Who the mixer is in its room.
fn mixer(settings: Option<MixSettings>) -> Option<Entrant> {
    settings?;
    let rids: Vec<Rid> = RENDITIONS.into_iter().map(Rid::from).collect();
    let picture = |name: &str| PublishedLine { mid: Mid::from(name), kind: Kind::Video, rids: rids.clone() };
    let sound = |name: &str| PublishedLine { mid: Mid::from(name), kind: Kind::Audio, rids: Vec::new() };
    let minus = (0..MINUS_MAX).map(|number| sound(&format!("minus{number}")));
    let lines = [picture("vp8"), picture("h264"), sound("sound")].into_iter().chain(minus).collect();
    let slot = |kind, name: String| SlotLine {
        mid: Mid::from(name.as_str()),
        kind,
        formats: Vec::new(),
        described: true,
    };
    let slots = (0..PICTURES_MAX).map(|number| slot(Kind::Video, format!("v{number}")));
    let slots = slots.chain((0..VOICES_MAX).map(|number| slot(Kind::Audio, format!("a{number}")))).collect();
    Some(Entrant {
        identity: Identity::parse("mixer").ok()?,
        name: String::new(),
        grant: MIXES,
        part: Part::Mixer,
        session: SessionId(0),
        has_token: true,
        returns: false,
        lines,
        slots,
        seed: 0,
    })
}

#[cfg(test)]
mod tests;
