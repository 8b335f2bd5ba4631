//! The home's side of lodgers: members who sit here, and whose connection ends in a branch.
//!
//! They are participants like any other, but for their slots, which the branch binds, and for the way to
//! them. What the room asks of a publisher it asks the branch for; what it tells them it tells the branch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Audience, Now, Output, ParticipantKey, Room, TrackKey};
use crate::core::ids::{SessionId, Site};
use crate::core::participant::{Part, Participant, Presence};
use crate::core::protocol::{LeaveReason, Mode, Request};
use crate::core::refusal::{Code, Refusal};
use crate::core::relay::Downstream;
use crate::core::relay::members::{Attach, FromLodger, Seated, Seating};

impl Room {
    /// Whoever is connected in the branch at `from` asks for its seat.
    pub(super) fn handle_attach(&mut self, now: Now, from: Site, attach: &Attach) {
        let seating = match self.attach(now, from, attach) {
            Ok(seating) => seating,
            Err(refusal) => Seating::Refused(refusal),
        };
        let news = Downstream::Seating { session: attach.session, seating };
        self.outputs.push_back(Output::Downstream { to: from, news });
        if let Ok(key) = self.seat_of(attach.session) {
            self.announce(key);
            self.demand_all(key);
            // What was told before went nowhere.
            self.welcome(now, key);
        }
    }

    fn attach(&mut self, now: Now, from: Site, attach: &Attach) -> Result<Seating, Refusal> {
        if !self.branches.iter().any(|branch| branch.site == from) {
            return Err(Refusal::new(Code::Unavailable, "the branch is not open: try again"));
        }
        let known = self.seat_of(attach.session).ok();
        let wish = known.and_then(|key| self.participant(key)).and_then(|participant| participant.mode_wish);
        if !attach.only_sends && wish.unwrap_or(self.state.mode) == Mode::Mcu {
            // A branch has of the mix no more than what all get, one's own voice included.
            return Ok(Seating::AtHome);
        }
        let key = match (known, &attach.held) {
            (Some(key), Some(held)) => {
                self.take_over(key, from);
                let participant = self.participant_mut(key).ok_or_else(over)?;
                participant.control_open = held.listens;
                participant.welcomed = false;
                if held.is_connected {
                    self.handle_connected(now, key);
                }
                key
            }
            // The one before has ended with its link, or is about to: it is the same ask.
            (Some(key), None) if !attach.resumes => {
                self.take_over(key, from);
                key
            }
            (Some(key), None) => {
                self.leave_branch(key, LeaveReason::Replaced, Some(from));
                let lines = attach.lines.clone();
                let key = self.handle_resume(now, attach.session, lines, Vec::new(), 0)?;
                self.take_over(key, from);
                key
            }
            (None, Some(held)) if held.epoch >= self.settings.epoch => return Err(over()),
            (None, None) if attach.resumes => return Err(over()),
            (None, held) => {
                if attach.has_token && held.is_none() {
                    self.dismiss_beyond(&attach.identity, LeaveReason::Replaced);
                }
                let key = self.handle_join(now, attach.entrant())?;
                self.take_over(key, from);
                if let Some(held) = held {
                    let participant = self.participant_mut(key).ok_or_else(over)?;
                    participant.control_open = held.listens;
                    if let Some(tracks) = &held.tracks {
                        // One that may not be named any more was named under another grant.
                        let _ = self.handle_publish(now.instant, key, tracks);
                    }
                }
                key
            }
        };
        let participant = self.participant(key).ok_or_else(over)?;
        let Participant { identity, name, grant, presence, .. } = participant;
        Ok(Seating::Seated(Box::new(Seated {
            seat: key,
            epoch: self.settings.epoch,
            identity: identity.clone(),
            name: name.clone(),
            grant: *grant,
            waits: *presence == Presence::Waiting,
        })))
    }

    fn take_over(&mut self, key: ParticipantKey, from: Site) {
        self.leave_branch(key, LeaveReason::Replaced, Some(from));
        if let Some(participant) = self.participant_mut(key) {
            participant.via = Some(from);
            participant.unreached_since = None;
        }
    }

    /// Its connection ends in a branch no more, which is told so unless it is the one at `but`.
    pub(super) fn leave_branch(&mut self, key: ParticipantKey, reason: LeaveReason, but: Option<Site>) {
        let via = self.participant_mut(key).and_then(|participant| {
            participant.figures = None;
            participant.via.take()
        });
        self.note_figures(key);
        if let Some(to) = via.filter(|via| Some(*via) != but) {
            let news = Downstream::Unseated { seat: key, reason };
            self.outputs.push_back(Output::Downstream { to, news });
        }
    }

    /// Something of one who sits here, which the branch at `from` says.
    pub(super) fn handle_lodger(&mut self, now: Now, from: Site, session: SessionId, news: FromLodger) {
        let Ok(key) = self.seat_of(session) else { return };
        if self.participant(key).is_none_or(|participant| participant.via != Some(from)) {
            return;
        }
        match news {
            FromLodger::Listens => self.handle_control_open(now, key),
            FromLodger::Asks { request, message } => {
                self.handle_request(now, key, Request { request, message: *message });
            }
            FromLodger::Lost => self.handle_lost(now, key),
            FromLodger::Back => self.handle_connected(now, key),
            FromLodger::Left(reason) => self.dismiss(now, key, reason),
            FromLodger::Sends { line } => {
                let names = self.participant(key).is_some_and(|participant| participant.names_tracks);
                if !names && self.track_of(key, line).is_none() {
                    self.publish_line(now.instant, key, usize::from(line));
                }
            }
            FromLodger::Format { line, serial, format } => {
                let track = self.track_of(key, line).filter(|key| {
                    self.track(*key).is_some_and(|t| t.serial == serial && t.format != Some(format))
                });
                if let Some(track) = track {
                    self.set_format(now.instant, track, format);
                }
            }
        }
    }

    /// The branch is no more, or the way to it: who is connected there is lost for now.
    pub(super) fn lose_lodgers(&mut self, now: Now, site: Site) {
        let lost: Vec<_> = self.seated().filter(|(_, p)| p.via == Some(site)).map(|(key, _)| key).collect();
        for key in lost {
            let Some(participant) = self.participant_mut(key) else { continue };
            (participant.via, participant.figures) = (None, None);
            if participant.presence == Presence::Waiting {
                // Whoever knocked still stands there, as far as is known.
                participant.unreached_since = Some(now.instant);
            } else {
                self.handle_lost(now, key);
            }
            self.note_figures(key);
        }
    }

    /// Those of an audience who are told by way of a branch, for each.
    pub fn beyond(&self, audience: Audience) -> BTreeMap<Site, Vec<ParticipantKey>> {
        let mut beyond: BTreeMap<Site, Vec<ParticipantKey>> = BTreeMap::new();
        if self.has_branches() {
            for key in self.audience(audience) {
                if let Some(via) = self.participant(key).and_then(|participant| participant.via) {
                    beyond.entry(via).or_default().push(key);
                }
            }
        }
        beyond
    }

    /// Whose session this is, if its connection ends in a branch.
    pub fn seat_abroad(&self, session: SessionId) -> Option<ParticipantKey> {
        let key = self.seat_of(session).ok()?;
        self.participant(key).is_some_and(|participant| participant.via.is_some()).then_some(key)
    }

    /// The branches that have lodgers.
    pub fn lodged_at(&self) -> BTreeSet<Site> {
        self.seated().filter_map(|(_, participant)| participant.via).collect()
    }

    /// The sender of a packet that came from elsewhere: in a branch one who is at the home, at the home one
    /// who is connected in the branch that it came from.
    #[inline]
    pub fn sender(&self, origin: ParticipantKey, from: Site) -> Option<ParticipantKey> {
        if self.is_branch {
            let key = self.seat_of_origin(origin)?;
            return self.participant(key).is_some_and(Participant::is_mirrored).then_some(key);
        }
        self.participant(origin).is_some_and(|participant| participant.via == Some(from)).then_some(origin)
    }

    /// The mix is made here alone: those who are to get it are to connect here. Their seats wait.
    pub(super) fn call_home(&mut self, now: Instant, key: ParticipantKey) {
        let Some(participant) = self.participant(key) else { return };
        let mode = participant.mode_wish.unwrap_or(self.state.mode);
        let is_here = participant.via.is_some() && participant.presence == Presence::Here;
        if !is_here || participant.part != Part::Member || mode != Mode::Mcu {
            return;
        }
        self.leave_branch(key, LeaveReason::Moved, None);
        self.handle_lost(Now { instant: now, unix_ms: 0 }, key);
    }

    /// The branch of a lodger is asked for what is wanted of a track of it, once it knows of the track.
    pub(super) fn demand_later(&mut self, key: TrackKey) {
        self.demanded.insert(key);
    }

    fn demand_all(&mut self, key: ParticipantKey) {
        let tracks = self.participant(key).map(|p| p.line_tracks.clone()).unwrap_or_default();
        self.demanded.extend(tracks.into_iter().flatten());
    }

    pub(super) fn poll_demands(&mut self) {
        for key in std::mem::take(&mut self.demanded) {
            let Some(track) = self.track(key) else { continue };
            let (seat, serial, encodings) = (track.owner, track.serial, track.wanted());
            let Some(participant) = self.participant(seat) else { continue };
            let line = participant.line_tracks.iter().position(|track| *track == Some(key));
            let line = line.and_then(|line| u8::try_from(line).ok());
            if let Some((to, line)) = participant.via.zip(line) {
                let news = Downstream::Demand { seat, line, serial, encodings };
                self.outputs.push_back(Output::Downstream { to, news });
            }
        }
    }
}

fn over() -> Refusal {
    Refusal::new(Code::NotFound, "this session is over: join again")
}

#[cfg(test)]
mod tests;
