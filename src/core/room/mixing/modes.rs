//! Who gets the mix: who wants it, or is better off with it, and from when on it can be had.

use std::time::Instant;

use super::{FLOWS, FULL_FROM_BPS, Phase};
use crate::core::mix::LINE_MINUS;
use crate::core::mode::Fare;
use crate::core::participant::{Part, Participant, Slot};
use crate::core::protocol::{Kind, Mode, ModeReason, ServerMessage, Source};
use crate::core::refusal::Refusal;
use crate::core::room::allocation::Need;
use crate::core::room::{Audience, ParticipantKey, Room, TrackKey};
use crate::core::track::Encoding;

impl Room {
    pub(in crate::core::room) fn choose_mode(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        mode: Option<Mode>,
    ) -> Result<(), Refusal> {
        if mode == Some(Mode::Mcu) {
            self.check_mixer()?;
            self.ask_anew();
        }
        if let Some(participant) = self.participant_mut(key) {
            participant.mode_wish = mode;
        }
        self.poll_mixing(now);
        self.settle(now);
        Ok(())
    }

    /// Somebody wants the mix: the node may have room for it again.
    pub(in crate::core::room) fn ask_anew(&mut self) {
        if matches!(self.mixing.phase, Phase::Refused { .. }) {
            self.mixing.phase = Phase::Off;
        }
    }

    pub(super) fn wants_mix(&self, participant: &Participant) -> bool {
        let follows = match &participant.part {
            Part::Member | Part::Viewer { of: None } => true,
            Part::Publisher | Part::Viewer { of: Some(_) } | Part::Mixer | Part::Recorder | Part::Player => {
                false
            }
        };
        let advised = participant.advice.reason().map(|_| Mode::Mcu);
        let mode = participant.mode_wish.or(advised).unwrap_or(self.state.mode);
        // A branch has no mix for its lodgers, whom the home calls home for it.
        let is_here = participant.via.is_none() && participant.lodger.is_none();
        follows && is_here && participant.is_person() && participant.may_receive() && mode == Mode::Mcu
    }

    /// Takes note of how somebody fares, who may be better off with the mix.
    pub(super) fn poll_advice(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participant(key) else { return };
        let may_mix = self.settings.mix.is_some()
            && !self.state.e2ee
            && !matches!(self.mixing.phase, Phase::Refused { .. });
        if !may_mix
            || !participant.is_person()
            || participant.part != Part::Member
            || !participant.is_connected
        {
            return;
        }
        let shown =
            |slot: &&Slot| slot.kind == Kind::Video && slot.track.is_some() && slot.wish.max_height > 0;
        let starved = participant.slots.iter().filter(shown).filter(|slot| slot.target.is_none()).count();
        let others = self.tracks.iter().flatten().filter(|track| {
            track.owner != key && track.kind() == Kind::Video && track.is_shown() && !track.source.is_mix()
        });
        let slots = participant.slots.iter().filter(|slot| slot.kind == Kind::Video).count();
        let fare = Fare {
            pictures: others.count().min(slots),
            starved: if participant.is_mixed { 0 } else { starved },
            estimate_bps: participant.allocator.estimate_bps(),
            device_strained: participant.device_strained,
        };
        if let Some(participant) = self.participant_mut(key) {
            participant.advice.handle(now, fare);
        }
    }

    /// The track of the mix that somebody gets: a picture that they can decode, the sound without their own.
    pub(in crate::core::room) fn mix_for(&self, key: ParticipantKey, kind: Kind) -> Option<TrackKey> {
        let participant = self.participant(key)?;
        let slot = participant.slots.iter().position(|slot| slot.kind == kind)?;
        let tracks =
            || (0u32..).zip(&self.tracks).filter_map(|(n, track)| Some((TrackKey(n), track.as_ref()?)));
        let minus = self.mixing.minus.get(&key).and_then(|&line| self.mixer_track(line));
        if kind == Kind::Audio && minus.is_some() {
            return minus;
        }
        let mixer = tracks().find(|(_, track)| track.source == Source::Mix).map(|(_, track)| track.owner)?;
        let lines = &self.participant(mixer)?.line_tracks;
        let common = lines.get(..usize::from(LINE_MINUS))?.iter().flatten().copied();
        let mut common = common.filter(|&track| self.track(track).is_some_and(|track| track.kind() == kind));
        common.find(|&track| self.can_carry(key, slot, track))
    }

    /// Gives somebody the mix once it flows, takes it away where it is not wanted or gone, and says so.
    pub(super) fn poll_mode(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participant(key).filter(|p| p.is_person()) else { return };
        let (wants, was_mixed) = (self.wants_mix(participant), participant.is_mixed);
        let stalls = self.mixer_stalls(now);
        let is_mixed = wants && !stalls && (self.mix_flows(now, key) || was_mixed && self.has_mix(key));
        let followed = match (participant.mode_wish, participant.advice.reason()) {
            (Some(_), _) => ModeReason::Chosen,
            (None, Some(reason)) => reason,
            (None, None) => ModeReason::Room,
        };
        let reason = match self.mixing.phase {
            _ if is_mixed || !wants => followed,
            Phase::Failed { .. } => ModeReason::Failed,
            Phase::Running { .. } if stalls => ModeReason::Failed,
            Phase::Refused { .. } => ModeReason::Unavailable,
            Phase::Off | Phase::Starting { .. } | Phase::Running { .. } => ModeReason::Starting,
        };
        if wants && !is_mixed {
            self.prime_mix(now, key);
        }
        let mode = if is_mixed { Mode::Mcu } else { Mode::Sfu };
        let Some(participant) = self.participant_mut(key) else { return };
        if is_mixed != was_mixed {
            participant.is_mixed = is_mixed;
            participant.slots_stale = true;
        }
        if participant.welcomed && participant.mode_told != (mode, reason) {
            participant.mode_told = (mode, reason);
            self.tell(Audience::One(key), ServerMessage::Mode { mode, reason });
        }
    }

    fn has_mix(&self, key: ParticipantKey) -> bool {
        let has = |kind| self.mix_for(key, kind).is_some();
        has(Kind::Video) || has(Kind::Audio)
    }

    /// All that somebody would get of the mix comes in, and a picture can begin at once.
    fn mix_flows(&self, now: Instant, key: ParticipantKey) -> bool {
        let flows = |kind| {
            let track = self.mix_for(key, kind).and_then(|track| self.track(track));
            let index = if kind == Kind::Video { self.first_encoding(key) } else { 0 };
            let encoding = track.and_then(|track| track.encodings.get(usize::from(index)));
            encoding.is_some_and(|encoding| can_begin(now, kind, encoding))
        };
        let receives =
            |kind| self.participant(key).is_some_and(|p| p.slots.iter().any(|slot| slot.kind == kind));
        self.has_mix(key) && [Kind::Video, Kind::Audio].into_iter().all(|kind| !receives(kind) || flows(kind))
    }

    /// The size of the mix that somebody will most likely begin with.
    fn first_encoding(&self, key: ParticipantKey) -> u8 {
        let estimate_bps = self.participant(key).map_or(0, |p| p.allocator.estimate_bps());
        u8::from(estimate_bps >= FULL_FROM_BPS)
    }

    /// Has the mix made that somebody waits for, beginning with a key frame.
    fn prime_mix(&mut self, now: Instant, key: ParticipantKey) {
        let Some(track) = self.mix_for(key, Kind::Video) else { return };
        let estimate_bps = self.participant(key).map_or(0, |p| p.allocator.estimate_bps());
        let index = self.first_encoding(key);
        let encoding = self.track(track).and_then(|track| track.encodings.get(usize::from(index)));
        if !encoding.is_some_and(|encoding| can_begin(now, Kind::Video, encoding)) {
            self.want_keyframe(now, track, index, Need::Beginning { estimate_bps });
        }
    }
}

/// It comes in; of a picture all since a key frame is at hand.
fn can_begin(now: Instant, kind: Kind, encoding: &Encoding) -> bool {
    let is_new = encoding.heard_at().is_some_and(|at| now.saturating_duration_since(at) < FLOWS);
    is_new && (kind == Kind::Audio || encoding.replay.is_whole())
}
