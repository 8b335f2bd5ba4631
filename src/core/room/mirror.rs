//! A branch's side of a relay: the home's publishers take seats here, and what is wanted of them is asked of
//! the home.

use std::time::Instant;

use super::{Now, Output, ParticipantKey, Room, Settings, TrackKey, seat};
use crate::core::event::EventIds;
use crate::core::ids::{Identity, SessionId, ShardId, Site};
use crate::core::participant::{Entrant, Part, Participant, Presence};
use crate::core::protocol::{Grant, Kind};
use crate::core::relay::{Downstream, Mirror, MirroredPublisher, MirroredTrack, Upstream};

/// All that a mirrored publisher does here.
const SENDS: Grant =
    Grant { publish: true, subscribe: false, chat: false, files: false, admin: false, lowest_layer: false };

impl Room {
    /// A branch on shard `shard` of a room whose home is elsewhere. It admits nobody until it has its first
    /// mirror, see [`Room::is_mirrored`].
    pub fn new_branch(now: Now, shard: ShardId, settings: Settings) -> Self {
        let ids = EventIds::new("branch", now.unix_ms << 8 | u64::from(shard.0));
        let mut room = Self { is_branch: true, event_ids: ids, ..Self::new(now, settings) };
        room.outputs.push_back(Output::Upstream(Upstream::Opened));
        room
    }

    pub fn is_branch(&self) -> bool {
        self.is_branch
    }

    /// False for a branch that does not know its room yet.
    pub fn is_mirrored(&self) -> bool {
        !self.is_branch || self.has_mirror
    }

    /// Something that the home says.
    pub fn handle_downstream(&mut self, now: Now, home: Site, news: Downstream) {
        match news {
            Downstream::Mirror(mirror) => self.handle_mirror(now.instant, *mirror),
            Downstream::Dismiss { identity, reason } => self.dismiss_viewer(now, &identity, reason),
            Downstream::Ended(reason) => self.close(now, reason),
            news => self.handle_home(now, home, news),
        }
    }

    /// Where the home's participant of this seat sits here.
    #[inline]
    pub fn seat_of_origin(&self, origin: ParticipantKey) -> Option<ParticipantKey> {
        self.origins.get(&origin).copied()
    }

    fn handle_mirror(&mut self, now: Instant, mirror: Mirror) {
        let Mirror { state, viewers_elsewhere, publishers } = mirror;
        self.has_mirror = true;
        self.state = state;
        self.mirrored_viewers = viewers_elsewhere;
        let told = |origin: ParticipantKey, participant: &Participant| {
            publishers.iter().any(|publisher| publisher.is(origin, participant))
        };
        let gone = self.origins.iter().filter(|&(&origin, &key)| {
            self.participant(key).is_none_or(|participant| !told(origin, participant))
        });
        let gone: Vec<_> = gone.map(|(&origin, &key)| (origin, key)).collect();
        for (origin, key) in gone {
            if self.participant(key).is_some_and(|participant| participant.lodger.is_some()) {
                // It sends nothing, and stays.
                self.unpublish_all(key);
                continue;
            }
            self.origins.remove(&origin);
            self.unseat(key);
        }
        for publisher in publishers {
            self.mirror_publisher(publisher);
        }
        self.settle(now);
    }

    fn mirror_publisher(&mut self, publisher: MirroredPublisher) {
        let MirroredPublisher { seat: origin, identity, name, lines, tracks } = publisher;
        let key = self.seat_of_origin(origin).unwrap_or_else(|| {
            let entrant = Entrant {
                identity: identity.clone(),
                name,
                grant: SENDS,
                part: Part::Publisher,
                session: SessionId(0),
                has_token: true,
                returns: false,
                lines,
                slots: Vec::new(),
                seed: 0,
            };
            let mut participant = Participant::new(entrant, Presence::Here, 0, 0);
            participant.origin = Some(origin);
            participant.names_tracks = true;
            let key = ParticipantKey(seat(&mut self.participants, participant));
            // Before a viewer here who bears the same name: it is the publisher that others may ask for.
            self.by_identity.insert(identity, key);
            self.origins.insert(origin, key);
            key
        });
        for (line, track) in tracks.into_iter().enumerate() {
            self.mirror_track(key, line, track);
        }
    }

    fn mirror_track(&mut self, key: ParticipantKey, line: usize, told: Option<MirroredTrack>) {
        let place = self.participant(key).and_then(|p| p.line_tracks.get(line).copied());
        let Some(existing) = place else { return };
        let known = existing.and_then(|track| self.track(track)).map(|track| track.serial);
        if known.is_some() && known != told.as_ref().map(|track| track.serial) {
            self.unpublish(key, line);
        }
        let Some(told) = told else { return };
        let current = self.participant(key).and_then(|p| p.line_tracks.get(line).copied().flatten());
        let track_key = current.or_else(|| self.add_track(key, line, told.source));
        let Some(track_key) = track_key else { return };
        let lodges = self.participant(key).is_some_and(|participant| participant.lodger.is_some());
        let hushed = told.muted || told.silenced;
        let Some(track) = self.track_mut(track_key) else { return };
        let before = (track.source, track.muted, track.silenced, track.format);
        track.serial = told.serial;
        track.source = told.source;
        // Of a lodger it is known here first.
        track.format = if lodges { track.format.or(told.format) } else { told.format.or(track.format) };
        track.muted = told.muted;
        track.silenced = told.silenced;
        track.height_told = told.height_told;
        let has_changed = before != (track.source, track.muted, track.silenced, track.format);
        if current.is_none() && !lodges {
            // Nothing comes before it was asked for. Sound is wanted from all, so that this branch knows who
            // speaks.
            let is_audio = track.kind() == Kind::Audio;
            track.encodings.iter_mut().for_each(|encoding| encoding.told_active = is_audio);
            if is_audio {
                self.demand(track_key);
            }
        }
        if hushed {
            self.speakers.remove(track_key);
        }
        // Most mirrors tell only of viewers, while many of them come: nobody's slots are bound anew for that.
        if has_changed {
            self.stale_slots();
        }
    }

    pub(super) fn unseat(&mut self, key: ParticipantKey) {
        self.unpublish_all(key);
        let gone = self.participants.get_mut(key.0 as usize).and_then(Option::take);
        if let Some(participant) = gone
            && self.by_identity.get(&participant.identity) == Some(&key)
        {
            self.by_identity.remove(&participant.identity);
        }
        self.was_on_air.retain(|&other| other != key);
        self.on_air.take_if(|on_air| *on_air == key);
    }

    /// Asks the home for those encodings of a track that are taken here.
    pub(super) fn demand(&mut self, key: TrackKey) {
        let Some(track) = self.track(key) else { return };
        let (owner, serial, encodings) = (track.owner, track.serial, track.wanted());
        let Some(participant) = self.participant(owner) else { return };
        let line = participant.line_tracks.iter().position(|&track| track == Some(key));
        let Some((seat, line)) = participant.origin.zip(line.and_then(|line| u8::try_from(line).ok())) else {
            return;
        };
        self.outputs.push_back(Output::Upstream(Upstream::Demand { seat, line, serial, encodings }));
    }

    /// Tells the home how many are seated here.
    pub(super) fn tell_viewers(&mut self) {
        if self.is_branch {
            let viewers = self.viewers_here();
            self.outputs.push_back(Output::Upstream(Upstream::Viewers(viewers)));
        }
    }

    /// Tells the home who has proved to be somebody.
    pub(super) fn tell_proven(&mut self, identity: &Identity) {
        if self.is_branch {
            self.outputs.push_back(Output::Upstream(Upstream::Proven(identity.clone())));
        }
    }

    /// A branch ends without an event: its room lives on, or has said so itself.
    pub(super) fn end_branch(&mut self) {
        self.outputs.push_back(Output::Upstream(Upstream::Closed));
        self.outputs.push_back(Output::Ended);
    }
}

impl MirroredPublisher {
    /// The same seat, the same person, the same lines.
    fn is(&self, origin: ParticipantKey, participant: &Participant) -> bool {
        self.seat == origin && self.identity == participant.identity && self.lines == participant.lines
    }
}
