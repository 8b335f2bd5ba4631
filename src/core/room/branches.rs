//! The home's side of a relay: which branches there are, what each takes of whom, and what they are told.

use std::time::Instant;

use super::allocation::Need;
use str0m::media::{Mid, Rid};

use super::{Now, Output, ParticipantKey, Room, TrackKey};
use crate::core::ids::{Identity, Site};
use crate::core::participant::Part;
use crate::core::protocol::{Kind, LeaveReason};
use crate::core::relay::{Branch, Downstream, Mirror, MirroredPublisher, MirroredTrack, Upstream};
use crate::core::replay::Replay;
use crate::core::track::Relayed;

impl Room {
    pub fn has_branches(&self) -> bool {
        !self.branches.is_empty()
    }

    /// What comes in may have to go to a branch, or from a branch to its home.
    pub fn spreads(&self) -> bool {
        self.is_branch || self.has_branches()
    }

    /// By which seat both the home and its branches know a sender.
    pub fn origin_of(&self, key: ParticipantKey) -> ParticipantKey {
        self.participant(key).and_then(|participant| participant.origin).unwrap_or(key)
    }

    /// Something that a branch says.
    pub fn handle_upstream(&mut self, now: Now, from: Site, news: Upstream) {
        match news {
            Upstream::Opened => {
                self.branches.retain(|branch| branch.site != from);
                self.branches.push(Branch { site: from, viewers: 0 });
                self.mirror_is_stale = true;
            }
            Upstream::Demand { seat, line, serial, encodings } => {
                self.handle_demand(now.instant, from, (seat, line, serial), encodings);
            }
            Upstream::Keyframe { seat, mid, rid } => {
                self.want_keyframe_of(now.instant, seat, mid, rid);
            }
            Upstream::Viewers(viewers) => {
                let branch = self.branches.iter_mut().find(|branch| branch.site == from);
                if let Some(branch) = branch {
                    branch.viewers = viewers;
                    self.viewers_changed = true;
                }
                self.note_emptiness(now.instant);
            }
            Upstream::Proven(identity) => self.displace_from_elsewhere(now, from, &identity),
            Upstream::Closed => {
                self.branches.retain(|branch| branch.site != from);
                for track in self.tracks.iter_mut().flatten() {
                    track.relays.retain(|relay| relay.to != from);
                }
                self.viewers_changed = true;
                self.lose_lodgers(now, from);
                self.note_emptiness(now.instant);
            }
            Upstream::Attach(attach) => self.handle_attach(now, from, &attach),
            Upstream::Lodger { session, news } => self.handle_lodger(now, from, session, news),
            Upstream::Figures(figures) => self.handle_figures(from, figures),
        }
    }

    /// Asks for a key frame of whatever this participant sends on this line.
    pub(super) fn want_keyframe_of(
        &mut self,
        now: Instant,
        owner: ParticipantKey,
        mid: Mid,
        rid: Option<Rid>,
    ) {
        let tracks = self.participant(owner).map(|p| p.line_tracks.clone()).unwrap_or_default();
        for key in tracks.into_iter().flatten() {
            let Some(track) = self.track(key).filter(|track| track.mid == mid) else { continue };
            let index = track.encodings.iter().position(|encoding| encoding.rid == rid);
            if let Some(index) = index.and_then(|index| u8::try_from(index).ok()) {
                self.want_keyframe(now, key, index, Need::Keyframe);
            }
        }
    }

    pub(super) fn track_of(&self, owner: ParticipantKey, line: u8) -> Option<TrackKey> {
        self.participant(owner)?.line_tracks.get(usize::from(line)).copied().flatten()
    }

    fn handle_demand(
        &mut self,
        now: Instant,
        from: Site,
        (seat, line, serial): (ParticipantKey, u8, u64),
        encodings: u32,
    ) {
        if !self.branches.iter().any(|branch| branch.site == from) {
            return;
        }
        let key = self.track_of(seat, line);
        if let Some(key) = key.filter(|key| self.track(*key).is_some_and(|track| track.serial == serial)) {
            self.take_demand(now, from, key, encodings);
        }
    }

    /// The other side takes these encodings of a track from now on.
    pub(super) fn take_demand(&mut self, now: Instant, from: Site, key: TrackKey, encodings: u32) {
        let Some(track) = self.track_mut(key) else { return };
        let before = track.relays.iter().find(|relay| relay.to == from).copied();
        let (before, waiting) = before.map_or((0, 0), |relay| (relay.encodings, relay.begins));
        track.relays.retain(|relay| relay.to != from);
        if encodings != 0 {
            let begins = encodings & (waiting | !before);
            track.relays.push(Relayed { to: from, encodings, begins });
        }
        let count = track.encodings.len().min(u32::BITS as usize) as u8;
        for index in (0..count).filter(|index| (encodings & !before) >> index & 1 == 1) {
            self.want_keyframe(now, key, index, Need::Keyframe);
        }
    }

    /// A copy for this branch was lost: whoever watches there needs a key frame.
    pub fn handle_relay_loss(&mut self, now: Instant, to: Site) {
        for index in 0..self.tracks.len() {
            let key = TrackKey(index as u32);
            let Some(track) = self.track(key).filter(|track| track.kind() == Kind::Video) else { continue };
            let lost = track.relays.iter().find(|relay| relay.to == to).map_or(0, |relay| relay.encodings);
            let count = track.encodings.len().min(u32::BITS as usize) as u8;
            for index in (0..count).filter(|index| lost >> index & 1 == 1) {
                self.want_keyframe(now, key, index, Need::Keyframe);
            }
        }
    }

    /// The branches that take a copy of a packet which was just forwarded.
    #[inline]
    pub fn relays(
        &self,
        from: ParticipantKey,
        line: u8,
        encoding: u8,
    ) -> impl Iterator<Item = Site> + use<'_> {
        let key = self.participant(from).and_then(|p| p.line_tracks.get(usize::from(line)).copied());
        let track = key.flatten().and_then(|key| self.track(key)).filter(|track| track.is_shown());
        let relays = track.map_or(&[][..], |track| &track.relays);
        relays.iter().filter(move |relay| relay.encodings & Relayed::bit(encoding) != 0).map(|relay| relay.to)
    }

    /// Where a branch is sent its first packet of an encoding: all that it needs to show that one, itself
    /// included, if it is known.
    pub fn begin_relay(&mut self, from: ParticipantKey, line: u8, encoding: u8, to: Site) -> Option<&Replay> {
        let key = self.participant(from)?.line_tracks.get(usize::from(line)).copied()??;
        let track = self.track_mut(key)?;
        let relay = track.relays.iter_mut().find(|relay| relay.to == to)?;
        let bit = Relayed::bit(encoding);
        if relay.begins & bit == 0 {
            return None;
        }
        relay.begins &= !bit;
        let replay = &track.encodings.get(usize::from(encoding))?.replay;
        replay.is_whole().then_some(replay)
    }

    /// Tells the branches how things are, if that has changed; and then what is wanted of their lodgers.
    pub(super) fn poll_mirror(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.mirror_is_stale) && !self.branches.is_empty() && !self.ended {
            self.tell_mirror();
        }
        self.poll_demands();
        self.outputs.pop_front()
    }

    fn tell_mirror(&mut self) {
        let publishers = self.mirrored_publishers();
        for branch in self.branches.clone() {
            let others = self.branches.iter().filter(|other| other.site != branch.site);
            let viewers_elsewhere = self.viewers_here() + others.map(|branch| branch.viewers).sum::<u32>();
            let mirror =
                Mirror { state: self.state.clone(), viewers_elsewhere, publishers: publishers.clone() };
            let news = Downstream::Mirror(Box::new(mirror));
            self.outputs.push_back(Output::Downstream { to: branch.site, news });
        }
    }

    /// Somebody who proved this identity watches in one branch: connections here and in the others go.
    fn displace_from_elsewhere(&mut self, now: Now, from: Site, identity: &Identity) {
        let reason = LeaveReason::Replaced;
        for Branch { site, .. } in self.branches.clone().into_iter().filter(|branch| branch.site != from) {
            let news = Downstream::Dismiss { identity: identity.clone(), reason };
            self.outputs.push_back(Output::Downstream { to: site, news });
        }
        if let Ok(key) = self.seat_named(identity) {
            self.dismiss(now, key, reason);
        }
    }

    /// Has whoever watches at another node under this name go. False where nobody watches at any.
    pub(super) fn dismiss_beyond(&mut self, identity: &Identity, reason: LeaveReason) -> bool {
        let far = self.branches.iter().filter(|branch| matches!(branch.site, Site::Far(_)));
        let far: Vec<Site> = far.filter(|branch| branch.viewers > 0).map(|branch| branch.site).collect();
        for &to in &far {
            let news = Downstream::Dismiss { identity: identity.clone(), reason };
            self.outputs.push_back(Output::Downstream { to, news });
        }
        !far.is_empty()
    }

    fn mirrored_publishers(&self) -> Vec<MirroredPublisher> {
        let publishers = self.seated().filter(|(_, p)| p.line_tracks.iter().any(Option::is_some));
        let mirrored = publishers.map(|(seat, participant)| {
            let tracks = participant.line_tracks.iter().map(|key| {
                let track = key.and_then(|key| self.track(key))?;
                Some(MirroredTrack {
                    serial: track.serial,
                    source: track.source,
                    format: track.format,
                    muted: track.muted,
                    silenced: track.silenced,
                    height_told: track.height_told,
                })
            });
            MirroredPublisher {
                seat,
                identity: participant.identity.clone(),
                name: participant.name.clone(),
                lines: participant.lines.clone(),
                tracks: tracks.collect(),
            }
        });
        mirrored.collect()
    }

    pub(super) fn viewers_here(&self) -> u32 {
        self.seated().filter(|(_, p)| matches!(p.part, Part::Viewer { .. })).count() as u32
    }

    /// Viewers of this room in other branches or at its home.
    pub(super) fn viewers_elsewhere(&self) -> u32 {
        self.mirrored_viewers + self.branches.iter().map(|branch| branch.viewers).sum::<u32>()
    }

    /// Begins to count the time that a room stays open without anybody, or ceases to.
    pub(super) fn note_emptiness(&mut self, now: Instant) {
        let is_empty = !self.seated().any(|(_, p)| p.is_person())
            && self.branches.iter().all(|branch| branch.viewers == 0);
        if !is_empty {
            if self.empty_since.take().is_some() {
                self.next_tick = now + super::TICK;
            }
        } else if self.empty_since.is_none() {
            self.empty_since = Some(now);
        }
    }
}
