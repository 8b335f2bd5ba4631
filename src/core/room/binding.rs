//! Which track each slot carries.
//!
//! A bound slot keeps its track while that is worth a slot, so that tiles do not jump. Pins come first, then
//! screens, then whoever spoke last; in a room with no more tracks than slots everyone simply has one.

use std::time::Instant;

use super::{Audience, ParticipantKey, Room, SlotKey, TrackKey};
use crate::core::ids::Identity;
use crate::core::participant::{Part, Participant};
use crate::core::protocol::{Kind, ServerMessage, SlotState, Source};
use crate::core::track::Track;

impl Room {
    /// Everyone's slots may have to change.
    pub(super) fn stale_slots(&mut self) {
        for participant in self.participants.iter_mut().flatten() {
            participant.slots_stale = true;
        }
    }

    /// Binds whatever has to be bound anew and tells whom it concerns.
    pub(super) fn settle(&mut self, now: Instant) {
        let mut mixer_changed = false;
        for key in self.keys() {
            let stale = self.participant_mut(key).is_some_and(|p| std::mem::take(&mut p.slots_stale));
            if !stale {
                continue;
            }
            mixer_changed |= self.mixer_seat() == Some(key);
            for kind in [Kind::Audio, Kind::Video] {
                if self.recorder_seat() == Some(key) {
                    self.bind_recorder(key, kind);
                } else {
                    self.bind_kind(key, kind);
                }
            }
            self.allocate(now, key);
            self.tell_slots(key);
        }
        // Whose a slot of the mixer's is has to be known there when its packets come.
        if mixer_changed {
            self.tell_scene();
        }
        self.tell_recorded_tracks();
    }

    fn bind_kind(&mut self, key: ParticipantKey, kind: Kind) {
        let Some(participant) = self.participant(key) else { return };
        let slots: Vec<usize> =
            (0..participant.slots.len()).filter(|&slot| participant.slots[slot].kind == kind).collect();
        if slots.is_empty() {
            return;
        }
        let wanted = self.wanted(key, kind, slots.len());
        let mut assigned: Vec<Option<TrackKey>> = slots
            .iter()
            .map(|&slot| {
                self.pinned(key, participant, slot).filter(|track| self.can_carry(key, slot, *track))
            })
            .collect();
        let mut rest: Vec<TrackKey> =
            wanted.into_iter().filter(|track| !assigned.contains(&Some(*track))).collect();
        // What already flows stays where it is.
        for (place, &slot) in assigned.iter_mut().zip(&slots) {
            let bound = participant.slots[slot].track;
            if place.is_none()
                && self.pin(participant, slot).is_none()
                && let Some(at) = rest.iter().position(|track| Some(*track) == bound)
            {
                *place = Some(rest.remove(at));
            }
        }
        for (place, &slot) in assigned.iter_mut().zip(&slots) {
            if place.is_none()
                && self.pin(participant, slot).is_none()
                && let Some(at) = rest.iter().position(|track| self.can_carry(key, slot, *track))
            {
                *place = Some(rest.remove(at));
            }
        }
        for (track, slot) in assigned.into_iter().zip(slots) {
            self.bind(key, SlotKey(slot as u16), track);
        }
    }

    /// The tracks worth a slot for this participant, best first, as many as fit.
    fn wanted(&self, key: ParticipantKey, kind: Kind, count: usize) -> Vec<TrackKey> {
        let Some(participant) = self.participant(key) else { return Vec::new() };
        if !participant.may_receive() {
            return Vec::new();
        }
        if participant.is_mixed {
            return self.mix_for(key, kind).into_iter().collect();
        }
        let only = match &participant.part {
            Part::Viewer { of: Some(identity) } => Some(identity),
            _ => None,
        };
        let tracks =
            (0u32..).zip(&self.tracks).filter_map(|(index, track)| Some((TrackKey(index), track.as_ref()?)));
        let offered = tracks.filter(|(_, track)| {
            track.owner != key && track.kind() == kind && track.is_shown() && !track.source.is_mix() && {
                let owner = self.participant(track.owner).map(|owner| &owner.identity);
                only.is_none_or(|only| owner == Some(only))
            }
        });
        let mut ranked: Vec<(TrackKey, usize)> =
            offered.map(|(track_key, track)| (track_key, self.rank(participant, track))).collect();
        ranked.sort_by_key(|&(track, rank)| (rank, track));
        if kind == Kind::Audio && ranked.len() > count {
            // More talk than slots: the loudest, kept stable by the speaker detection.
            ranked.retain(|(track, rank)| *rank == 0 || self.speakers.is_heard(*track));
        }
        ranked.into_iter().take(count).map(|(track, _)| track).collect()
    }

    /// Less is better. Members see screens, then the one on air, then by how lately each spoke; the programme
    /// that a viewer follows puts the one on air first.
    fn rank(&self, subscriber: &Participant, track: &Track) -> usize {
        let on_air = self.on_air == Some(track.owner);
        let programme = matches!(subscriber.part, Part::Viewer { of: None });
        match track.source {
            Source::ScreenAudio => 0,
            Source::Camera | Source::Microphone if on_air => 1,
            Source::Screen => {
                if programme {
                    2
                } else {
                    0
                }
            }
            _ => {
                let last = self.was_on_air.len();
                3 + self.was_on_air.iter().position(|&owner| owner == track.owner).unwrap_or(last)
            }
        }
    }

    fn pinned(&self, key: ParticipantKey, participant: &Participant, slot: usize) -> Option<TrackKey> {
        let (identity, source) = self.pin(participant, slot)?;
        let owner = *self.by_identity.get(identity)?;
        if owner == key || !participant.may_receive() {
            return None;
        }
        let mut tracks = self.participant(owner)?.line_tracks.iter().flatten().copied();
        tracks.find(|&track| self.track(track).is_some_and(|t| t.source == *source && t.is_shown()))
    }

    /// What a slot is pinned to. The mix takes the place of all pins.
    fn pin<'a>(&self, participant: &'a Participant, slot: usize) -> Option<&'a (Identity, Source)> {
        participant.slots.get(slot)?.wish.pinned.as_ref().filter(|_| !participant.is_mixed)
    }

    pub(super) fn can_carry(&self, key: ParticipantKey, slot: usize, track: TrackKey) -> bool {
        let format = self.track(track).and_then(|track| track.format);
        let participant = self.participant(key);
        // The mixer has a decoder for whatever is forwarded.
        if participant.is_some_and(|participant| participant.part == Part::Mixer) {
            return format.is_some();
        }
        let slot = participant.and_then(|p| p.slots.get(slot));
        let (Some(format), Some(slot)) = (format, slot) else { return false };
        // RED can be unwrapped on the way out, so whoever takes Opus takes it.
        let takes = |format| slot.formats.contains(&format);
        takes(format)
            || format == crate::core::format::Format::RED && takes(crate::core::format::Format::OPUS)
    }

    pub(super) fn bind(&mut self, key: ParticipantKey, slot_key: SlotKey, track: Option<TrackKey>) {
        let Some(participant) = self.participant_mut(key) else { return };
        let Some(slot) = participant.slots.get_mut(usize::from(slot_key.0)) else { return };
        if slot.track == track {
            return;
        }
        let before = std::mem::replace(&mut slot.track, track);
        slot.current = None;
        slot.target = None;
        if let Some(before) = before.and_then(|before| self.track_mut(before)) {
            before.subscribers.retain(|&subscriber| subscriber != (key, slot_key));
        }
        if let Some(track) = track.and_then(|track| self.track_mut(track)) {
            track.subscribers.push((key, slot_key));
        }
    }

    /// Nothing flows to this participant any more.
    pub(super) fn release_slots(&mut self, key: ParticipantKey) {
        let slots = self.participant(key).map_or(0, |p| p.slots.len());
        for slot in 0..slots {
            let slot_key = SlotKey(slot as u16);
            let bound = self.participant_mut(key).and_then(|p| p.slots.get_mut(slot)).and_then(|slot| {
                slot.current = None;
                slot.target = None;
                slot.track.take()
            });
            if let Some(track) = bound.and_then(|track| self.track_mut(track)) {
                track.subscribers.retain(|&subscriber| subscriber != (key, slot_key));
            }
        }
    }

    pub(super) fn slot_state(&self, participant: &Participant, slot: usize) -> Option<SlotState> {
        let slot = participant.slots.get(slot)?;
        let track = slot.track.and_then(|track| self.track(track));
        let owner = track.and_then(|track| self.participant(track.owner));
        Some(SlotState {
            mid: slot.mid.to_string(),
            kind: slot.kind,
            participant: owner.map(|owner| owner.identity.clone()),
            source: track.map(|track| track.source),
            paused: track.is_some_and(|track| !track.is_hushed()) && slot.target.is_none(),
        })
    }

    /// Tells a participant about its slots that changed.
    pub(super) fn tell_slots(&mut self, key: ParticipantKey) {
        let Some(participant) = self.participant(key) else { return };
        if !participant.welcomed {
            return;
        }
        let mut changed = Vec::new();
        for slot in 0..participant.slots.len() {
            let Some(state) = self.slot_state(participant, slot) else { continue };
            if participant.slots[slot].told.as_ref() != Some(&state) {
                changed.push((slot, state));
            }
        }
        if changed.is_empty() {
            return;
        }
        if let Some(participant) = self.participant_mut(key) {
            for (slot, state) in &changed {
                participant.slots[*slot].told = Some(state.clone());
            }
        }
        let slots = changed.into_iter().map(|(_, state)| state).collect();
        self.tell(Audience::One(key), ServerMessage::Slots { slots });
    }

    /// All slots as they are, which the participant is about to be told.
    pub(super) fn slot_states(&mut self, key: ParticipantKey) -> Vec<SlotState> {
        let Some(participant) = self.participant(key) else { return Vec::new() };
        let states: Vec<SlotState> =
            (0..participant.slots.len()).filter_map(|slot| self.slot_state(participant, slot)).collect();
        if let Some(participant) = self.participant_mut(key) {
            for (slot, state) in participant.slots.iter_mut().zip(&states) {
                slot.told = Some(state.clone());
            }
        }
        states
    }
}
