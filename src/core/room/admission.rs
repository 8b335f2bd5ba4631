//! Coming in, waiting in the lobby, getting lost, coming back, and leaving.

use super::{Audience, Now, Output, ParticipantKey, Room, seat};
use crate::core::event::{EventBody, Moderation};
use crate::core::ids::{Identity, SessionId};
use crate::core::participant::{Entrant, Member, Part, Participant, Presence};
use crate::core::protocol::{Access, LeaveReason, PROTOCOL, ServerMessage};
use crate::core::refusal::{Code, Refusal};
use crate::core::relay::Downstream;
use crate::core::relay::members::FromLodger;
use crate::core::track::{PublishedLine, SlotLine};

impl Room {
    /// Seats a participant, or has it wait in the lobby.
    ///
    /// # Errors
    /// `room_private`, `room_locked`, `room_full`, `forbidden`, `not_found`.
    pub fn handle_join(&mut self, now: Now, mut entrant: Entrant) -> Result<ParticipantKey, Refusal> {
        if self.ended {
            return Err(Refusal::new(Code::NotFound, "the room has just ended; join again"));
        }
        let may_rule = self.settings.first_is_admin && !entrant.has_token && !entrant.returns;
        if may_rule && self.by_identity.is_empty() {
            entrant.grant.admin |= entrant.part == Part::Member;
        }
        if !entrant.returns {
            self.admit_to_join(&entrant)?;
        }
        self.settle_identity(now, &mut entrant);
        let waits = self.state.lobby
            && !entrant.returns
            && !entrant.grant.admin
            && !matches!(entrant.part, Part::Viewer { .. } | Part::Player);
        let presence = if waits { Presence::Waiting } else { Presence::Here };
        let is_proven = entrant.has_token;
        let identity = entrant.identity.clone();
        let name = entrant.name.clone();
        let estimate_bps = self.settings.initial_estimate_bps;
        let participant = Participant::new(entrant, presence, now.unix_ms, estimate_bps);
        let key = ParticipantKey(seat(&mut self.participants, participant));
        self.by_identity.insert(identity.clone(), key);
        self.note_emptiness(now.instant);
        self.viewers_changed |= self.has_branches();
        self.tell_viewers();
        if is_proven {
            self.tell_proven(&identity);
        }
        if waits {
            self.tell(Audience::Admins, ServerMessage::Knock { identity, name });
        } else {
            self.enter(now, key);
        }
        Ok(key)
    }

    fn admit_to_join(&self, entrant: &Entrant) -> Result<(), Refusal> {
        let viewer = matches!(entrant.part, Part::Viewer { .. });
        let refuse = |code, words: &str| Err(Refusal::new(code, words));
        if self.state.access == Access::Private && !entrant.has_token {
            return refuse(Code::RoomPrivate, "this room is private: join with a token of its owner's");
        }
        // Only an admin has a file played.
        if entrant.grant.admin || entrant.part == Part::Player {
            return Ok(());
        }
        if self.state.locked {
            return refuse(Code::RoomLocked, "this room is locked: its owner lets nobody in at the moment");
        }
        if self.state.lobby && viewer {
            return refuse(Code::Forbidden, "this room has a lobby, and viewers cannot knock");
        }
        let (count, max) = if viewer {
            (self.viewers_here() + self.viewers_elsewhere(), self.settings.viewers_max)
        } else {
            let members =
                self.seated().filter(|(_, p)| p.is_person() && !matches!(p.part, Part::Viewer { .. }));
            (members.count() as u32, self.state.participants_max)
        };
        if count >= max {
            return Err(Refusal::new(Code::RoomFull, format!("this room is full: it takes {max} at a time")));
        }
        Ok(())
    }

    /// One identity, one participant. A token's holder takes over from its earlier connection; a guest, who
    /// proves nothing, takes over only from one that was lost, and else gets a number behind the name; so
    /// does a file, whatever its name.
    fn settle_identity(&mut self, now: Now, entrant: &mut Entrant) {
        let Some(&key) = self.by_identity.get(&entrant.identity) else { return };
        // In a branch, whoever has a seat at the home is not for a viewer to replace.
        let mirrored = self.participant(key).is_some_and(|p| p.origin.is_some() || p.lodger.is_some());
        let lost = self.participant(key).is_some_and(|p| p.lost_since().is_some());
        let proves = entrant.has_token && entrant.part != Part::Player;
        if !mirrored && (proves || entrant.returns || lost) {
            self.dismiss(now, key, LeaveReason::Replaced);
            return;
        }
        let stem: String = entrant.identity.as_str().chars().take(58).collect();
        let free = (2..).map(|number| format!("{stem}-{number}"));
        let free = free.filter_map(|name| Identity::parse(&name).ok());
        if let Some(identity) = free.into_iter().find(|name| !self.by_identity.contains_key(name)) {
            if entrant.name == entrant.identity.as_str() {
                entrant.name = identity.as_str().to_owned();
            }
            entrant.identity = identity;
        }
    }

    /// The participant is in the room: others see it, and it sees them as soon as its channel is open.
    fn enter(&mut self, now: Now, key: ParticipantKey) {
        let Some(participant) = self.participant_mut(key) else { return };
        participant.presence = Presence::Here;
        participant.slots_stale = true;
        let (identity, name) = (participant.identity.clone(), participant.name.clone());
        let (is_seen, via) = (participant.is_seen(), participant.via);
        if let Some(to) = via {
            self.outputs.push_back(Output::Downstream { to, news: Downstream::Admitted { seat: key } });
        }
        if is_seen {
            if let Some(participant) = self.participant_state(key) {
                self.tell(Audience::AllBut(key), ServerMessage::ParticipantJoined { participant });
            }
            self.log(now, EventBody::ParticipantJoined { identity, name });
        }
        self.settle(now.instant);
        self.welcome(now, key);
        if self.participant_mut(key).is_some_and(|participant| participant.unreached_since.take().is_some()) {
            self.handle_lost(now, key);
        }
    }

    /// The participant's `control` channel opened.
    pub fn handle_control_open(&mut self, now: Now, key: ParticipantKey) {
        let room = self.state.name.clone();
        let Some(participant) = self.participant_mut(key) else { return };
        participant.control_open = true;
        participant.welcomed = false;
        if self.tell_of_lodger(key, FromLodger::Listens) {
            return;
        }
        let Some(participant) = self.participant(key) else { return };
        if participant.presence == Presence::Waiting {
            self.tell(Audience::One(key), ServerMessage::Waiting { room });
        }
        self.welcome(now, key);
    }

    /// Tells a participant everything, once there is someone to tell, a channel, and a history.
    pub(super) fn welcome(&mut self, now: Now, key: ParticipantKey) {
        let Some(chat) = &self.chat else { return };
        let Some(participant) = self.participant(key) else { return };
        if !participant.is_here() || !participant.control_open || participant.welcomed {
            return;
        }
        let recent = if participant.grant.chat { chat.recent() } else { Default::default() };
        let recent = recent.keep_newest(super::conversation::HISTORY_BYTES_MAX);
        let (me, is_admin) = (participant.identity.clone(), participant.grant.admin);
        let waiting = self.seated().filter(|(_, p)| is_admin && p.presence == Presence::Waiting);
        let knocking = waiting.map(|(_, p)| p.identity.clone()).collect();
        self.settle(now.instant);
        let slots = self.slot_states(key);
        let message = ServerMessage::Welcome {
            protocol: PROTOCOL.to_owned(),
            room: self.state.clone(),
            me,
            participants: self.participant_states(),
            slots,
            messages: recent.messages,
            more_messages: recent.more,
            knocking,
            resume_seconds: self.settings.resume_within.as_secs() as u32,
        };
        if let Some(participant) = self.participant_mut(key) {
            participant.welcomed = true;
        }
        self.tell(Audience::One(key), message);
        self.tell_layers_to(key);
    }

    /// The connection of a participant failed; it may resume.
    pub fn handle_lost(&mut self, now: Now, key: ParticipantKey) {
        let Some(participant) = self.participant_mut(key) else { return };
        match participant.presence {
            Presence::Here => {}
            // Who is not in yet has nothing to come back to.
            Presence::Waiting => return self.dismiss(now, key, LeaveReason::Lost),
            Presence::Lost { .. } => return,
        }
        participant.presence = Presence::Lost { since: now.instant };
        self.tell_of_lodger(key, FromLodger::Lost);
        self.release_slots(key);
        self.announce(key);
    }

    /// A participant's connection stands: it can be sent media, and is back if it was lost.
    pub fn handle_connected(&mut self, now: Now, key: ParticipantKey) {
        if let Some(participant) = self.participant_mut(key) {
            participant.is_connected = true;
        }
        self.handle_recovered(now, key);
        self.allocate(now.instant, key);
        self.tell_slots(key);
    }

    /// The same connection works again.
    pub fn handle_recovered(&mut self, now: Now, key: ParticipantKey) {
        let Some(participant) = self.participant_mut(key) else { return };
        participant.unreached_since = None;
        if !matches!(participant.presence, Presence::Lost { .. }) {
            return;
        }
        participant.presence = Presence::Here;
        participant.slots_stale = true;
        self.tell_of_lodger(key, FromLodger::Back);
        self.announce(key);
        self.settle(now.instant);
    }

    /// A new connection takes over from a lost one. Says whose seat it was.
    ///
    /// # Errors
    /// `not_found` when the session is over.
    pub fn handle_resume(
        &mut self,
        now: Now,
        session: SessionId,
        lines: Vec<PublishedLine>,
        slots: Vec<SlotLine>,
        seed: u64,
    ) -> Result<ParticipantKey, Refusal> {
        let key = self.seat_of(session)?;
        self.leave_branch(key, LeaveReason::Replaced, None);
        self.unpublish_all(key);
        self.release_slots(key);
        if let Some(participant) = self.participant_mut(key) {
            participant.connect(lines, slots, seed);
            participant.control_open = false;
            participant.welcomed = false;
            if matches!(participant.presence, Presence::Lost { .. }) {
                // It is back once the new connection stands, not before.
                participant.presence = Presence::Lost { since: now.instant };
            }
        }
        self.announce(key);
        self.settle(now.instant);
        Ok(key)
    }

    /// Whose session this is.
    ///
    /// # Errors
    /// `not_found`.
    pub fn seat_of(&self, session: SessionId) -> Result<ParticipantKey, Refusal> {
        let found = self.seated().find(|(_, p)| p.is_person() && p.session == session).map(|(key, _)| key);
        found.ok_or_else(|| Refusal::new(Code::NotFound, "this session is over: join again"))
    }

    /// Who holds this session. Whoever waits in the lobby is nobody yet.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub fn member(&self, session: SessionId) -> Result<Member, Refusal> {
        let key = self.seat_of(session)?;
        let waits = || Refusal::new(Code::Forbidden, "you are not in the room yet");
        let here = self.participant(key).filter(|participant| participant.presence != Presence::Waiting);
        let Participant { identity, name, grant, .. } = here.ok_or_else(waits)?;
        Ok(Member { identity: identity.clone(), name: name.clone(), grant: *grant })
    }

    /// Whose identity this is.
    ///
    /// # Errors
    /// `not_found`.
    pub fn seat_named(&self, identity: &Identity) -> Result<ParticipantKey, Refusal> {
        let found = self.by_identity.get(identity).copied();
        found.ok_or_else(|| Refusal::new(Code::NotFound, "nobody of that identity is in the room"))
    }

    /// Somebody of this identity, who has proved it, comes in on another shard: the connection here goes, and
    /// those at other nodes.
    pub fn displace(&mut self, now: Now, identity: &Identity) {
        self.dismiss_beyond(identity, LeaveReason::Replaced);
        if let Ok(key) = self.seat_named(identity) {
            self.dismiss(now, key, LeaveReason::Replaced);
        }
    }

    pub fn handle_leave(&mut self, now: Now, key: ParticipantKey) {
        self.dismiss(now, key, LeaveReason::Left);
    }

    /// Lets one who waits in the lobby in.
    ///
    /// # Errors
    /// `not_found` when nobody of that name waits.
    pub fn admit(&mut self, now: Now, identity: &Identity, by: &Identity) -> Result<(), Refusal> {
        let key = self.waiting(identity)?;
        self.moderated(now, Moderation::Admitted, identity, by);
        self.tell(Audience::Admins, ServerMessage::KnockGone { identity: identity.clone() });
        self.enter(now, key);
        Ok(())
    }

    /// Sends one who waits in the lobby away.
    ///
    /// # Errors
    /// `not_found` when nobody of that name waits.
    pub fn deny(&mut self, now: Now, identity: &Identity, by: &Identity) -> Result<(), Refusal> {
        let key = self.waiting(identity)?;
        self.moderated(now, Moderation::Denied, identity, by);
        self.dismiss(now, key, LeaveReason::Denied);
        Ok(())
    }

    fn waiting(&self, identity: &Identity) -> Result<ParticipantKey, Refusal> {
        let key = self.seat_named(identity)?;
        let waits = self.participant(key).is_some_and(|p| p.presence == Presence::Waiting);
        waits.then_some(key).ok_or_else(|| Refusal::new(Code::NotFound, "nobody of that name is waiting"))
    }

    /// Frees a seat, whatever the reason; the others are told.
    pub(super) fn dismiss(&mut self, now: Now, key: ParticipantKey, reason: LeaveReason) {
        if self.participant(key).is_some_and(Participant::is_mirrored) {
            return;
        }
        self.unpublish_all(key);
        self.release_slots(key);
        // A room that goes on elsewhere takes its lodgers along, who stay connected.
        if !matches!(reason, LeaveReason::Moved | LeaveReason::Draining) {
            self.leave_branch(key, reason, None);
        }
        let Some(participant) = self.participants.get_mut(key.0 as usize).and_then(Option::take) else {
            return;
        };
        let identity = participant.identity.clone();
        if self.by_identity.get(&identity) == Some(&key) {
            self.by_identity.remove(&identity);
        }
        if participant.lodger.is_some() {
            self.tell_left(&participant, reason);
        }
        self.outputs.push_back(Output::Gone { who: key, reason });
        if participant.is_seen() {
            let left = ServerMessage::ParticipantLeft { identity: identity.clone(), reason };
            self.tell(Audience::All, left);
            self.log(now, EventBody::ParticipantLeft { identity, reason });
        } else if participant.presence == Presence::Waiting {
            self.tell(Audience::Admins, ServerMessage::KnockGone { identity });
        }
        self.was_on_air.retain(|&other| other != key);
        if self.on_air == Some(key) {
            self.on_air = None;
        }
        self.settle(now.instant);
        self.viewers_changed |= self.has_branches();
        self.tell_viewers();
        self.note_emptiness(now.instant);
        self.end_recording_if_empty(now);
    }
}
