//! The room as others see it: states for its people, figures for operators.

use std::time::Instant;

use super::allocation::layer_name;
use super::{Audience, ParticipantKey, Room};
use crate::core::participant::Part;
use crate::core::protocol::{ParticipantState, ServerMessage, TrackState};
use crate::core::stats::{ConnectionStats, EncodingStats, ParticipantStats, RoomSummary, SlotReport};

impl Room {
    pub fn summary(&self) -> RoomSummary {
        let here = || self.seated().filter(|(_, p)| p.is_person());
        let count = |wanted: fn(&Part) -> bool| here().filter(|(_, p)| wanted(&p.part)).count() as u32;
        RoomSummary {
            state: self.state.clone(),
            participants: count(|part| !matches!(part, Part::Viewer { .. })),
            publishers: here().filter(|(_, p)| p.line_tracks.iter().any(Option::is_some)).count() as u32,
            viewers: self.viewers_here() + self.branches.iter().map(|branch| branch.viewers).sum::<u32>(),
        }
    }

    /// Members and publishers whose connection ends here.
    pub fn connected_here(&self) -> u32 {
        let here = self.seated().filter(|(_, p)| p.is_person() && p.via.is_none());
        here.filter(|(_, p)| !matches!(p.part, Part::Viewer { .. })).count() as u32
    }

    /// Everyone who is seen, in the order of joining.
    pub fn participant_states(&self) -> Vec<ParticipantState> {
        let mut states: Vec<_> = self
            .seated()
            .filter(|(_, participant)| participant.is_seen())
            .filter_map(|(key, _)| self.participant_state(key))
            .collect();
        states.sort_by_key(|state| state.joined_at_ms);
        states
    }

    pub(super) fn participant_state(&self, key: ParticipantKey) -> Option<ParticipantState> {
        let participant = self.participant(key)?;
        let mut state = participant.state();
        // A branch seats the home's publishers anew, and packets of the mix name them by their seats there.
        state.csrc = participant.origin.unwrap_or(key).csrc();
        let tracks = participant.line_tracks.iter().flatten().filter_map(|&track| self.track(track));
        state.tracks = tracks
            .map(|track| TrackState {
                source: track.source,
                kind: track.kind(),
                muted: track.muted,
                codec: track.format.map(|format| format.codec.name().to_owned()),
            })
            .collect();
        Some(state)
    }

    /// Tells all how a participant looks now.
    pub(super) fn announce(&mut self, key: ParticipantKey) {
        self.mirror_is_stale = true;
        if !self.participant(key).is_some_and(|participant| participant.is_seen()) {
            return;
        }
        if let Some(participant) = self.participant_state(key) {
            self.tell(Audience::All, ServerMessage::ParticipantUpdated { participant });
        }
    }

    /// What each sends and gets; what only the connection knows is left for the shard to fill in.
    pub fn stats(&mut self, now: Instant) -> Vec<(ParticipantKey, ParticipantStats)> {
        let here = self.seated().filter(|(_, p)| !p.is_mirrored()).map(|(key, _)| key).collect::<Vec<_>>();
        here.into_iter().filter_map(|key| Some((key, self.participant_stats(now, key)?))).collect()
    }

    fn participant_stats(&mut self, now: Instant, key: ParticipantKey) -> Option<ParticipantStats> {
        let participant = self.participant(key)?;
        let mut stats = ParticipantStats {
            identity: participant.identity.clone(),
            role: participant.part.name(),
            connected: participant.may_receive() || participant.state().connected,
            connection: participant.figures.as_deref().cloned().unwrap_or_default(),
            sends: Vec::new(),
        };
        let is_served_here = participant.via.is_none();
        if is_served_here {
            // To the mixer nothing goes over a network.
            let estimate_bps = if participant.is_person() { participant.allocator.estimate_bps() } else { 0 };
            stats.connection = ConnectionStats { estimate_bps, ..ConnectionStats::default() };
        }
        let tracks: Vec<_> = participant.line_tracks.iter().flatten().copied().collect();
        for track_key in tracks {
            let subscribers = self.subscribers_by_encoding(track_key);
            let Some(track) = self.track_mut(track_key) else { continue };
            let (source, format) = (track.source, track.format);
            for (encoding, subscribers) in track.encodings.iter_mut().zip(subscribers) {
                stats.sends.push(EncodingStats {
                    source,
                    codec: format.map(|format| format.codec.name().to_owned()),
                    rid: encoding.rid.map(|rid| rid.to_string()),
                    height: encoding.height(),
                    bitrate_bps: encoding.rate.bps(now),
                    packets: encoding.rate.packets(),
                    subscribers,
                });
            }
        }
        if is_served_here {
            stats.connection.gets = self.slot_reports(now, key);
        }
        Some(stats)
    }

    fn subscribers_by_encoding(&self, key: super::TrackKey) -> Vec<u32> {
        let Some(track) = self.track(key) else { return Vec::new() };
        let mut counts = vec![0; track.encodings.len()];
        for &(subscriber, slot) in &track.subscribers {
            let slot = self.participant(subscriber).and_then(|p| p.slots.get(usize::from(slot.0)));
            let current = slot.and_then(|slot| slot.current);
            if let Some(count) = current.and_then(|layer| counts.get_mut(usize::from(layer.encoding))) {
                *count += 1;
            }
        }
        // A branch counts as one: it takes one copy.
        for relay in &track.relays {
            for (index, count) in counts.iter_mut().enumerate().take(u32::BITS as usize) {
                *count += relay.encodings >> index & 1;
            }
        }
        counts
    }

    fn slot_reports(&mut self, now: Instant, key: ParticipantKey) -> Vec<SlotReport> {
        let states: Vec<_> = match self.participant(key) {
            Some(participant) => {
                (0..participant.slots.len()).map(|slot| self.slot_state(participant, slot)).collect()
            }
            None => return Vec::new(),
        };
        let Room { participants, tracks, .. } = self;
        let Some(participant) = participants.get_mut(key.0 as usize).and_then(Option::as_mut) else {
            return Vec::new();
        };
        let slots = participant.slots.iter_mut().zip(states);
        slots
            .filter_map(|(slot, state)| {
                let state = state?;
                let track = slot.track.and_then(|track| tracks.get(track.0 as usize)?.as_ref());
                Some(SlotReport {
                    mid: state.mid,
                    participant: state.participant,
                    source: state.source,
                    layer: track.and_then(|track| layer_name(track, slot.current)),
                    bitrate_bps: slot.rate.bps(now),
                    packets: slot.rate.packets(),
                })
            })
            .collect()
    }
}
