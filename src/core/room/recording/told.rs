//! What comes to the recorder, and what it is told of it.

use std::collections::BTreeSet;

use crate::core::ids::Identity;
use crate::core::mix::{LINE_H264, LINE_SOUND};
use crate::core::participant::{Part, Participant};
use crate::core::protocol::{ChatMessage, Kind, Source};
use crate::core::recording::{ConsentRule, RecordedTrack, ToRecorder};
use crate::core::room::{Now, ParticipantKey, Room, SlotKey, TrackKey};

impl Room {
    /// May be in the recording, by the room's rule.
    pub(super) fn may_be_recorded(&self, participant: &Participant) -> bool {
        participant.is_seen()
            && (self.state.recording_consent == ConsentRule::Notice
                || participant.part == Part::Player
                || participant.recording_consent == Some(true))
    }

    /// The tracks of those who may be recorded.
    fn recordable(&self) -> impl Iterator<Item = (TrackKey, &Participant)> {
        let people = self.seated().filter(|(_, p)| p.part != Part::Mixer && self.may_be_recorded(p));
        people.flat_map(|(_, p)| p.line_tracks.iter().flatten().map(move |&track| (track, p)))
    }

    fn mix_tracks(&self) -> [Option<TrackKey>; 2] {
        let line = |line| if self.records_mix() { self.mixer_track(line) } else { None };
        [line(LINE_H264), line(LINE_SOUND)]
    }

    /// Binds the recorder's slots of a kind: each track that is shown keeps the one that it has.
    pub(in crate::core::room) fn bind_recorder(&mut self, key: ParticipantKey, kind: Kind) {
        let Some(participant) = self.participant(key) else { return };
        let slots: Vec<u16> = (0u16..)
            .zip(&participant.slots)
            .filter_map(|(slot, line)| (line.kind == kind).then_some(slot))
            .collect();
        let Some((&for_mix, for_tracks)) = slots.split_last() else { return };
        let records_tracks = self.state.recording.as_ref().is_some_and(|state| state.tracks);
        let shown = |track: &TrackKey| self.track(*track).is_some_and(|t| t.kind() == kind && t.is_shown());
        let all = self.recordable().map(|(track, _)| track).filter(|track| records_tracks && shown(track));
        let mut wanted: Vec<TrackKey> = all.collect();
        let carries = |slot: u16| participant.slots.get(usize::from(slot)).and_then(|slot| slot.track);
        let kept: Vec<Option<TrackKey>> =
            for_tracks.iter().map(|slot| carries(*slot).filter(|track| wanted.contains(track))).collect();
        wanted.retain(|track| !kept.contains(&Some(*track)));
        let mut rest = wanted.into_iter();
        let bound: Vec<Option<TrackKey>> =
            kept.into_iter().map(|kept| kept.or_else(|| rest.next())).collect();
        let mix = self.mix_tracks()[usize::from(kind == Kind::Audio)].filter(shown);
        for (slot, track) in for_tracks.iter().zip(bound).chain([(&for_mix, mix)]) {
            self.bind(key, SlotKey(*slot), track);
        }
    }

    /// Tells the recorder whose its packets are, before they come.
    pub(in crate::core::room) fn tell_recorded_tracks(&mut self) {
        let Some(seat) = self.recorder_seat() else { return };
        let records_tracks = self.state.recording.as_ref().is_some_and(|state| state.tracks);
        let named = |key: TrackKey, participant: &Participant| {
            let track = self.track(key)?;
            Some(RecordedTrack {
                serial: u32::try_from(track.serial).ok()?,
                source: track.source,
                identity: participant.identity.clone(),
                name: participant.name.clone(),
            })
        };
        let people = self.recordable().filter(|_| records_tracks).filter_map(|(key, p)| named(key, p));
        let mixer = self.mixer_seat().and_then(|mixer| self.participant(mixer));
        let mix = self.mix_tracks().into_iter().flatten();
        let mix = mix.filter_map(|key| named(key, mixer?));
        let tracks: Vec<RecordedTrack> = people.chain(mix).collect();
        let Some(running) = self.recording.running.as_mut().filter(|running| running.tracks != tracks) else {
            return;
        };
        running.tracks.clone_from(&tracks);
        self.tell_recorder(ToRecorder::Tracks(tracks));
        if let Some(participant) = self.participant_mut(seat) {
            participant.slots_stale = true;
        }
    }

    /// Who came, and who began to show a screen, is a chapter.
    pub(super) fn tell_chapters(&mut self, now: Now) {
        let (seen, screens) = (self.people_seen(), self.screens_shown());
        let Some(running) = &mut self.recording.running else { return };
        let came: Vec<Identity> = seen.difference(&running.seen).cloned().collect();
        let shared: Vec<Identity> = screens.difference(&running.screens).cloned().collect();
        (running.seen, running.screens) = (seen, screens);
        let words = [(came, "joins"), (shared, "shares a screen")];
        for (identity, what) in
            words.into_iter().flat_map(|(all, what)| all.into_iter().map(move |i| (i, what)))
        {
            let name = self.by_identity.get(&identity).and_then(|key| self.participant(*key));
            let Some(name) = name.map(|participant| participant.name.clone()) else { continue };
            self.tell_recorder(ToRecorder::Chapter { at_ms: now.unix_ms, title: format!("{name} {what}") });
        }
    }

    pub(super) fn people_seen(&self) -> BTreeSet<Identity> {
        let people = self.seated().filter(|(_, p)| self.may_be_recorded(p));
        people.map(|(_, p)| p.identity.clone()).collect()
    }

    pub(super) fn screens_shown(&self) -> BTreeSet<Identity> {
        let screens = self.recordable().filter(|(track, _)| {
            self.track(*track).is_some_and(|track| track.source == Source::Screen && track.is_shown())
        });
        screens.map(|(_, participant)| participant.identity.clone()).collect()
    }

    /// A message is in the room, or has changed: it goes beside the recording, if its author may be in it.
    pub(in crate::core::room) fn record_message(&mut self, message: &ChatMessage) {
        if self.recorder_seat().is_none() {
            return;
        }
        let author = self.by_identity.get(&message.identity).and_then(|key| self.participant(*key));
        let is_asked = self.state.recording_consent == ConsentRule::Ask;
        if is_asked && !author.is_some_and(|author| self.may_be_recorded(author)) {
            return;
        }
        self.tell_recorder(ToRecorder::Chat {
            id: message.id.to_string(),
            at_ms: message.sent_at_ms,
            name: message.name.clone(),
            text: message.text.clone(),
        });
    }
}
