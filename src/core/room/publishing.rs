//! Tracks come, change and go.

use std::time::Instant;

use super::{Audience, Output, ParticipantKey, Room, TrackKey, seat};
use crate::core::format::Format;
use crate::core::participant::Participant;
use crate::core::protocol::{Kind, PublishedTrack, ServerMessage, Source};
use crate::core::refusal::{Code, Refusal};
use crate::core::track::Track;

impl Room {
    /// The publisher says what its lines carry; lines that it does not name carry nothing.
    ///
    /// # Errors
    /// `forbidden` without the grant, `malformed` for an unknown line or a source of the other kind,
    /// `room_full` when as many publish as may.
    pub(super) fn handle_publish(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        named: &[PublishedTrack],
    ) -> Result<(), Refusal> {
        let Some(participant) = self.participant(key) else { return Ok(()) };
        if !participant.grant.publish {
            return Err(Refusal::new(Code::Forbidden, "your grant does not let you publish"));
        }
        let mut lines = Vec::with_capacity(named.len());
        for track in named {
            let line = participant.lines.iter().position(|line| line.mid.to_string() == track.mid);
            let line = line.ok_or_else(|| malformed("a track names an m-line that you do not send on"))?;
            if track.source.is_mix() {
                return Err(malformed("only the room's mixer publishes a mix"));
            }
            if participant.lines[line].kind != track.source.kind() {
                return Err(malformed("a track's source is not of its m-line's kind"));
            }
            if lines.iter().any(|&(other, earlier): &(usize, &PublishedTrack)| {
                other == line || earlier.source == track.source
            }) {
                return Err(malformed("an m-line or a source is named twice"));
            }
            lines.push((line, track));
        }
        let is_publisher = participant.line_tracks.iter().any(Option::is_some);
        if !lines.is_empty() && !is_publisher {
            self.admit_publisher()?;
        }
        self.name_tracks(now, key, &lines);
        self.announce(key);
        self.settle(now);
        Ok(())
    }

    fn name_tracks(&mut self, now: Instant, key: ParticipantKey, lines: &[(usize, &PublishedTrack)]) {
        let Some(participant) = self.participant_mut(key) else { return };
        participant.names_tracks = true;
        for line in 0..participant.lines.len() {
            if !lines.iter().any(|&(named, _)| named == line) {
                self.unpublish(key, line);
            }
        }
        for &(line, told) in lines {
            let existing = self.participant(key).and_then(|p| p.line_tracks.get(line).copied().flatten());
            let Some(track_key) = existing.or_else(|| self.add_track(key, line, told.source)) else {
                continue;
            };
            let Some(track) = self.track_mut(track_key) else { continue };
            let (unmuted, changes) = (track.muted && !told.muted, track.muted != told.muted);
            track.source = told.source;
            track.muted = told.muted;
            track.height_told = told.height;
            if unmuted {
                track.silenced = false;
                track.encodings.iter_mut().for_each(|encoding| encoding.expect(now));
            }
            if told.muted {
                self.speakers.remove(track_key);
            }
            if changes {
                self.stale_slots();
            }
        }
    }

    /// A line spoke before its publisher named it: a WHIP client, which never will.
    pub(super) fn publish_line(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        line: usize,
    ) -> Option<TrackKey> {
        let participant = self.participant(key)?;
        let kind = participant.lines.get(line)?.kind;
        let used = |source: Source| {
            let tracks = participant.line_tracks.iter().flatten();
            tracks.filter_map(|&track| self.track(track)).any(|track| track.source == source)
        };
        let sources = match kind {
            Kind::Audio => [Source::Microphone, Source::ScreenAudio],
            Kind::Video => [Source::Camera, Source::Screen],
        };
        let source = sources.into_iter().find(|&source| !used(source))?;
        if participant.line_tracks.iter().all(Option::is_none) {
            self.admit_publisher().ok()?;
        }
        let track = self.add_track(key, line, source)?;
        self.announce(key);
        self.settle(now);
        Some(track)
    }

    pub(super) fn admit_publisher(&self) -> Result<(), Refusal> {
        let publishes = |p: &Participant| p.is_person() && p.line_tracks.iter().any(Option::is_some);
        let publishers = self.seated().filter(|(_, p)| publishes(p)).count();
        if publishers >= self.settings.publishers_max as usize {
            let max = self.settings.publishers_max;
            return Err(Refusal::new(
                Code::RoomFull,
                format!("{max} already send here, the most this room takes"),
            ));
        }
        Ok(())
    }

    pub(super) fn add_track(
        &mut self,
        owner: ParticipantKey,
        line: usize,
        source: Source,
    ) -> Option<TrackKey> {
        let published = self.participant(owner)?.lines.get(line)?.clone();
        self.last_serial += 1;
        let track = Track::new(self.last_serial, owner, &published, source);
        let key = TrackKey(seat(&mut self.tracks, track));
        let place = self.participant_mut(owner)?.line_tracks.get_mut(line)?;
        *place = Some(key);
        self.mirror_is_stale = true;
        if self.participant(owner).is_some_and(|owner| owner.via.is_some()) {
            self.demand_later(key);
        }
        if published.kind == Kind::Video {
            let bps = self.settings.video_bps_max;
            let rids: Vec<_> = self.track(key)?.encodings.iter().map(|encoding| encoding.rid).collect();
            for rid in rids {
                self.outputs.push_back(Output::LimitBitrate { from: owner, mid: published.mid, rid, bps });
            }
        }
        self.stale_slots();
        Some(key)
    }

    /// A track's first packet came, or its publisher changed codec.
    pub(super) fn set_format(&mut self, now: Instant, key: TrackKey, format: Format) {
        let Some(track) = self.track_mut(key) else { return };
        track.format = Some(format);
        track.encodings.iter_mut().for_each(|encoding| encoding.replay.clear());
        let owner = track.owner;
        self.tell_format(key);
        self.announce(owner);
        self.stale_slots();
        self.settle(now);
    }

    pub(super) fn unpublish(&mut self, key: ParticipantKey, line: usize) {
        let track =
            self.participant_mut(key).and_then(|p| p.line_tracks.get_mut(line)).and_then(Option::take);
        let Some(track_key) = track else { return };
        let Some(track) = self.tracks.get_mut(track_key.0 as usize).and_then(Option::take) else { return };
        for (subscriber, slot) in track.subscribers {
            if let Some(participant) = self.participant_mut(subscriber) {
                if let Some(slot) = participant.slots.get_mut(usize::from(slot.0)) {
                    slot.track = None;
                    slot.current = None;
                    slot.target = None;
                }
                participant.slots_stale = true;
            }
        }
        self.speakers.remove(track_key);
        self.mirror_is_stale = true;
        self.stale_slots();
    }

    pub(super) fn unpublish_all(&mut self, key: ParticipantKey) {
        let lines = self.participant(key).map_or(0, |p| p.lines.len());
        for line in 0..lines {
            self.unpublish(key, line);
        }
    }

    /// Silences a participant's tracks until it unmutes them itself; without a source, all its sound.
    pub(super) fn silence(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        source: Option<Source>,
        by: &crate::core::ids::Identity,
    ) {
        let Some(participant) = self.participant(key) else { return };
        let tracks: Vec<TrackKey> = participant.line_tracks.iter().flatten().copied().collect();
        for track_key in tracks {
            let Some(track) = self.track_mut(track_key) else { continue };
            let wanted = source.map_or(track.kind() == Kind::Audio, |source| track.source == source);
            if !wanted {
                continue;
            }
            track.silenced = true;
            track.muted = true;
            let source = track.source;
            self.speakers.remove(track_key);
            self.tell(Audience::One(key), ServerMessage::Muted { source, by: by.clone() });
        }
        self.stale_slots();
        self.announce(key);
        self.settle(now);
    }
}

fn malformed(words: &str) -> Refusal {
    Refusal::new(Code::Malformed, words)
}
