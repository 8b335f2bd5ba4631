//! The room's recording: who is in it, when it begins and ends, and what its recorder is told.
//!
//! The recorder sits in the room without a connection, as the mixer does: what it writes comes to its slots
//! by the rules of every receiver, always in the top layer. One slot for each track that may be recorded; its
//! last two are for the mix. One recording at a time; a recorder that fails is replaced and its recording
//! goes on.

mod told;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use str0m::media::Mid;

use super::commands::Answer;
use super::{Audience, Now, Output, ParticipantKey, Room, SlotKey, seat};
use crate::core::chat::Asker;
use crate::core::event::EventBody;
use crate::core::ids::{Identity, SessionId};
use crate::core::participant::{Entrant, Part, Participant, Presence};
use crate::core::protocol::{ClientMessage, Grant, Kind, ServerMessage};
use crate::core::recording::{
    ConsentRule, EndReason, FromRecorder, RecordedTrack, RecorderOrder, RecorderSettings, RecordingState,
    RecordingWish, ToRecorder,
};
use crate::core::refusal::{Code, Refusal};
use crate::core::track::SlotLine;

/// Tracks that one recording takes at a time. Those beyond are not recorded.
const PICTURES_MAX: usize = 64;
const VOICES_MAX: usize = 128;
/// A recorder that says nothing for so long has failed: to begin, or while a disk may be slow.
const START_WITHIN: Duration = Duration::from_secs(10);
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Between a failure and the next recorder.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// A recording whose recorder failed so often is given up.
const FAILURES_MAX: u32 = 5;
/// Above what any picture has: the top layer.
const HEIGHT_WISHED: u32 = u32::MAX;
/// A mark's words.
const TITLE_CHARS_MAX: usize = 100;
const RECEIVES: Grant =
    Grant { publish: false, subscribe: true, chat: false, files: false, admin: false, lowest_layer: false };

/// Where the room's recording is.
#[derive(Debug, Default)]
pub struct Recording {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    phase: Phase,
    seat: Option<ParticipantKey>,
    part: u32,
    heard_at: Instant,
    /// What its recorder was last told.
    tracks: Vec<RecordedTrack>,
    /// Who was here, and whose screens were, when it was last looked.
    seen: BTreeSet<Identity>,
    screens: BTreeSet<Identity>,
    had_people: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Starting,
    Active,
    Failed { until: Instant },
}

impl Recording {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

impl Room {
    /// The recorder's seat, while it records.
    pub fn recorder_seat(&self) -> Option<ParticipantKey> {
        self.recording.running.as_ref()?.seat
    }

    /// One was ordered and is not there yet.
    pub fn awaits_recorder(&self) -> bool {
        self.recording.running.as_ref().is_some_and(|running| running.phase == Phase::Starting)
    }

    /// The publication that a slot carries now.
    pub fn slot_serial(&self, key: ParticipantKey, slot: SlotKey) -> Option<u32> {
        let track = self.participant(key)?.slots.get(usize::from(slot.0))?.track?;
        u32::try_from(self.track(track)?.serial).ok()
    }

    /// The encoding of it that flows there.
    pub fn slot_encoding(&self, key: ParticipantKey, slot: SlotKey) -> Option<u8> {
        let slot = self.participant(key)?.slots.get(usize::from(slot.0))?;
        Some(slot.current?.encoding)
    }

    pub(super) fn records_mix(&self) -> bool {
        self.recording.running.is_some() && self.state.recording.as_ref().is_some_and(|state| state.mix)
    }

    /// Begins a recording; all are told.
    ///
    /// # Errors
    /// `already_recording`, `end_to_end_encrypted`, `consent_needed` for a mix where people are asked,
    /// `unavailable` where the node cannot, `malformed` for one of nothing.
    pub fn start_recording(
        &mut self,
        now: Now,
        wish: RecordingWish,
        by: Option<Identity>,
    ) -> Result<RecordingState, Refusal> {
        self.check_recording(&wish)?;
        let RecordingWish { id, tracks, mix } = wish;
        let state = RecordingState {
            id: id.clone(),
            tracks,
            mix,
            active: false,
            started_at_ms: now.unix_ms,
            by: by.clone(),
        };
        self.state.recording = Some(state.clone());
        let had_people = self.empty_since.is_none();
        self.recording.running = Some(Running {
            phase: Phase::Starting,
            seat: None,
            part: 0,
            heard_at: now.instant,
            tracks: Vec::new(),
            seen: self.people_seen(),
            screens: self.screens_shown(),
            had_people,
        });
        self.log(now, EventBody::RecordingStarted { recording: id, tracks, mix, by });
        self.order_recorder(now.instant);
        self.tell_room();
        Ok(state)
    }

    /// Whether the node has room for a recording that a participant wants.
    pub fn handle_recording_wish(
        &mut self,
        now: Now,
        asker: &Asker,
        wish: Result<RecordingWish, Refusal>,
        by: Identity,
    ) {
        let started = wish.and_then(|wish| self.start_recording(now, wish, Some(by)));
        self.answer(asker, started.map(drop));
    }

    fn check_recording(&self, wish: &RecordingWish) -> Result<(), Refusal> {
        if !wish.tracks && !wish.mix {
            return Err(Refusal::new(
                Code::Malformed,
                "a recording is of `tracks`, of the `mix`, or of both",
            ));
        }
        if self.state.recording.is_some() {
            let words = "the room is being recorded already: stop that recording first";
            return Err(Refusal::new(Code::AlreadyRecording, words));
        }
        if !self.settings.may_record {
            return Err(Refusal::new(Code::Unavailable, "this node does not record"));
        }
        if self.state.e2ee {
            let words = "this room is encrypted end to end: the server cannot read what it would record";
            return Err(Refusal::new(Code::EndToEndEncrypted, words));
        }
        if wish.mix {
            self.check_mixer()?;
            if self.state.recording_consent == ConsentRule::Ask {
                return Err(mix_needs_consent());
            }
        }
        Ok(())
    }

    /// Ends the recording `id`, or whichever runs.
    ///
    /// # Errors
    /// `not_found` where none of it runs.
    pub fn stop_recording(
        &mut self,
        now: Now,
        id: Option<&str>,
        by: Option<Identity>,
    ) -> Result<RecordingState, Refusal> {
        let state = self.state.recording.clone();
        let state = state.filter(|state| id.is_none_or(|id| state.id.as_str() == id));
        let not_found = || Refusal::new(Code::NotFound, "no such recording runs in this room");
        let state = state.ok_or_else(not_found)?;
        self.end_recording(now, EndReason::Stopped, by);
        Ok(state)
    }

    pub(super) fn end_recording(&mut self, now: Now, reason: EndReason, by: Option<Identity>) {
        if self.recording.running.is_none() {
            return;
        }
        let Some(state) = self.state.recording.take() else { return };
        self.tell_recorder(ToRecorder::End { at_ms: now.unix_ms, reason });
        self.unseat_recorder(now.instant);
        self.recording.running = None;
        self.outputs.push_back(Output::Recorder(RecorderOrder::Stop));
        let agreed: Vec<ParticipantKey> =
            self.seated().filter(|(_, p)| p.recording_consent.is_some()).map(|(key, _)| key).collect();
        for key in agreed {
            if let Some(participant) = self.participant_mut(key) {
                participant.recording_consent = None;
            }
            self.announce(key);
        }
        self.log(now, EventBody::RecordingEnded { recording: state.id.clone(), reason, by: by.clone() });
        self.tell_room();
        self.tell(Audience::All, ServerMessage::RecordingEnded { id: state.id, reason, by });
        self.poll_mixing(now.instant);
    }

    /// A recording does not outlast the people in it.
    pub(super) fn end_recording_if_empty(&mut self, now: Now) {
        let is_left = self.recording.running.as_ref().is_some_and(|running| running.had_people);
        if is_left && self.empty_since.is_some() {
            self.end_recording(now, EndReason::Empty, None);
        }
    }

    /// What a participant asks that concerns a recording.
    pub(super) fn record(
        &mut self,
        now: Now,
        key: ParticipantKey,
        request: Option<u64>,
        message: ClientMessage,
    ) -> Result<Answer, Refusal> {
        if let ClientMessage::RecordingConsent { agreed } = message {
            self.consent(now, key, agreed);
            return Ok(Answer::Ok);
        }
        let by = self.admin(key)?;
        match message {
            ClientMessage::RecordingStart { tracks, mix } => {
                let asker = Asker::Participant { identity: by.clone(), request };
                self.outputs.push_back(Output::StartRecording { asker, tracks, mix, by });
                return Ok(Answer::Later);
            }
            ClientMessage::RecordingStop => drop(self.stop_recording(now, None, Some(by))?),
            ClientMessage::RecordingMark { title } => self.mark(now, &title)?,
            _ => return Err(Refusal::new(Code::Internal, "not about a recording")),
        }
        Ok(Answer::Ok)
    }

    /// A participant says whether it may be recorded, in a room where it is asked.
    fn consent(&mut self, now: Now, key: ParticipantKey, agreed: bool) {
        let Some(participant) = self.participant_mut(key) else { return };
        participant.recording_consent = Some(agreed);
        let identity = participant.identity.clone();
        self.log(now, EventBody::RecordingConsent { identity, agreed });
        self.announce(key);
        self.rebind_recorder(now.instant);
    }

    /// A moderator marks a moment.
    fn mark(&mut self, now: Now, title: &str) -> Result<(), Refusal> {
        let title = title.trim();
        let fits = (1..=TITLE_CHARS_MAX).contains(&title.chars().count());
        if !fits || title.chars().any(char::is_control) {
            return Err(Refusal::new(Code::Malformed, "a mark has 1 to 100 characters, none of control"));
        }
        if self.recorder_seat().is_none() {
            return Err(Refusal::new(Code::NotFound, "no recording runs in this room"));
        }
        self.tell_recorder(ToRecorder::Chapter { at_ms: now.unix_ms, title: title.to_owned() });
        Ok(())
    }

    /// Whether those who have not agreed are recorded has changed.
    ///
    /// # Errors
    /// `consent_needed` while the mix is recorded.
    pub(super) fn check_consent_rule(&self, rule: ConsentRule) -> Result<(), Refusal> {
        if rule == ConsentRule::Ask && self.records_mix() { Err(mix_needs_consent()) } else { Ok(()) }
    }

    /// Something that the recorder says, or that is said of it.
    pub fn handle_recorder(&mut self, now: Now, news: FromRecorder) {
        let Some(running) = &mut self.recording.running else { return };
        running.heard_at = now.instant;
        match news {
            FromRecorder::Ready => self.seat_recorder(now),
            FromRecorder::Keyframe { serial } => {
                let Some(key) = running.seat else { return };
                let slots = self.participant(key).map_or(0, |p| p.slots.len()) as u16;
                let slot = (0..slots).find(|slot| self.slot_serial(key, SlotKey(*slot)) == Some(serial));
                if let Some(slot) = slot {
                    self.handle_keyframe_request(now.instant, key, slot);
                }
            }
            FromRecorder::Figures(_) => {}
            FromRecorder::Ended { reason } => self.end_recording(now, reason, None),
            FromRecorder::Gone => self.fail_recorder(now),
        }
        self.settle(now.instant);
    }

    /// Looks after the recorder, and tells it what has changed.
    pub(super) fn poll_recording(&mut self, now: Now) {
        let Some(running) = &mut self.recording.running else { return };
        running.had_people |= self.empty_since.is_none();
        let silent = now.instant.saturating_duration_since(running.heard_at);
        match running.phase {
            Phase::Starting if silent >= START_WITHIN => self.fail_recorder(now),
            Phase::Active if silent >= SILENT_FOR => self.fail_recorder(now),
            Phase::Failed { until } if now.instant >= until => self.order_recorder(now.instant),
            Phase::Active => self.tell_chapters(now),
            Phase::Starting | Phase::Failed { .. } => {}
        }
    }

    fn order_recorder(&mut self, now: Instant) {
        let (Some(running), Some(recording)) = (&mut self.recording.running, &self.state.recording) else {
            return;
        };
        running.phase = Phase::Starting;
        running.part += 1;
        running.heard_at = now;
        let settings = RecorderSettings {
            room: self.state.name.clone(),
            recording: recording.clone(),
            part: running.part,
            folder: String::new(),
            disk_free_min_bytes: 0,
            bytes_max: 0,
        };
        self.outputs.push_back(Output::Recorder(RecorderOrder::Start(Box::new(settings))));
    }

    fn fail_recorder(&mut self, now: Now) {
        self.unseat_recorder(now.instant);
        let Some(running) = &mut self.recording.running else { return };
        if matches!(running.phase, Phase::Failed { .. }) {
            return;
        }
        running.phase = Phase::Failed { until: now.instant + RESTART_AFTER };
        let gives_up = running.part >= FAILURES_MAX;
        self.outputs.push_back(Output::Recorder(RecorderOrder::Stop));
        if gives_up {
            return self.end_recording(now, EndReason::Failed, None);
        }
        if let Some(state) = &mut self.state.recording {
            state.active = false;
        }
        self.tell_room();
    }

    fn seat_recorder(&mut self, now: Now) {
        let Some(running) = self.recording.running.as_mut().filter(|r| r.phase == Phase::Starting) else {
            return;
        };
        running.phase = Phase::Active;
        running.tracks.clear();
        let Some(entrant) = recorder() else { return };
        let mut participant = Participant::new(entrant, Presence::Here, 0, u64::MAX);
        participant.is_connected = true;
        participant.names_tracks = true;
        participant.slots.iter_mut().for_each(|slot| slot.wish.max_height = HEIGHT_WISHED);
        let key = ParticipantKey(seat(&mut self.participants, participant));
        if let Some(running) = &mut self.recording.running {
            running.seat = Some(key);
        }
        if let Some(state) = &mut self.state.recording {
            state.active = true;
        }
        self.tell_room();
        self.poll_mixing(now.instant);
    }

    fn unseat_recorder(&mut self, now: Instant) {
        let Some(key) = self.recording.running.as_mut().and_then(|running| running.seat.take()) else {
            return;
        };
        self.release_slots(key);
        if let Some(place) = self.participants.get_mut(key.0 as usize) {
            *place = None;
        }
        self.settle(now);
    }

    /// Who may be recorded may have changed.
    pub(super) fn rebind_recorder(&mut self, now: Instant) {
        if let Some(participant) = self.recorder_seat().and_then(|key| self.participant_mut(key)) {
            participant.slots_stale = true;
        }
        self.settle(now);
    }

    fn tell_room(&mut self) {
        self.mirror_is_stale = true;
        self.tell(Audience::All, ServerMessage::Room { room: self.state.clone() });
    }

    fn tell_recorder(&mut self, words: ToRecorder) {
        if self.recorder_seat().is_some() {
            self.outputs.push_back(Output::Recorder(RecorderOrder::Tell(words)));
        }
    }
}

fn mix_needs_consent() -> Refusal {
    let words = "in this room people are asked before they are recorded, and the mix shows everybody: record \
                 `tracks`, or set the room's `recording_consent` to `notice`";
    Refusal::new(Code::ConsentNeeded, words)
}

/// Who the recorder is in its room.
fn recorder() -> Option<Entrant> {
    let slot = |kind, name: String| SlotLine {
        mid: Mid::from(name.as_str()),
        kind,
        formats: Vec::new(),
        described: true,
    };
    let pictures = (0..=PICTURES_MAX).map(|number| slot(Kind::Video, format!("v{number}")));
    let voices = (0..=VOICES_MAX).map(|number| slot(Kind::Audio, format!("a{number}")));
    Some(Entrant {
        identity: Identity::parse("recorder").ok()?,
        name: String::new(),
        grant: RECEIVES,
        part: Part::Recorder,
        session: SessionId(0),
        has_token: true,
        returns: false,
        lines: Vec::new(),
        slots: pictures.chain(voices).collect(),
        seed: 0,
    })
}

#[cfg(test)]
mod tests;
