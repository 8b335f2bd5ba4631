//! What a participant's `control` channel may ask for, and who may ask it.

use str0m::media::Mid;

use super::small_files::FilePart;
use super::{Audience, Now, Output, ParticipantKey, Room};
use crate::core::chat::is_emoji;
use crate::core::event::{CloseReason, EventBody, Moderation};
use crate::core::ids::Identity;
use crate::core::participant::Wish;
use crate::core::protocol::{
    ClientMessage, Kind, LeaveReason, Mode, Request, RoomChange, RoomState, ServerMessage, SlotWish, Source,
};
use crate::core::refusal::{Code, Refusal};

/// A display name's length.
const NAME_CHARS_MAX: usize = 64;
/// Above this nobody sees more.
const HEIGHT_MAX: u32 = 4_320;

impl Room {
    /// One message of a participant's `control` channel. Answers with `ok`, `error`, or what was asked for.
    pub fn handle_request(&mut self, now: Now, key: ParticipantKey, request: Request) {
        let number = request.request;
        let per_second = self.settings.messages_per_second;
        let Some(participant) = self.participant_mut(key) else { return };
        let lodges = participant.lodger.is_some();
        let refusal = if !participant.messages.admits(now.instant, per_second) {
            Some(Refusal::new(Code::RateLimited, "too many messages: wait a little"))
        } else if !participant.welcomed {
            Some(Refusal::new(Code::Forbidden, "you are not in the room yet: wait for `welcome`"))
        } else {
            None
        };
        match refusal {
            Some(refusal) => self.refuse(key, number, refusal),
            None if lodges => self.handle_lodger_request(now, key, request),
            None => self.carry_out_and_answer(now, key, number, request.message),
        }
    }

    pub(super) fn carry_out_and_answer(
        &mut self,
        now: Now,
        key: ParticipantKey,
        number: Option<u64>,
        message: ClientMessage,
    ) {
        match self.carry_out(now, key, number, message) {
            Ok(Answer::Ok) => self.tell(Audience::One(key), ServerMessage::Ok { request: number }),
            Ok(Answer::Later) => {}
            Err(refusal) => self.refuse(key, number, refusal),
        }
    }

    /// Refuses something of a participant's, with words.
    pub fn refuse(&mut self, key: ParticipantKey, request: Option<u64>, refusal: Refusal) {
        let Refusal { code, message } = refusal;
        self.tell(Audience::One(key), ServerMessage::Error { request, code, message });
    }

    fn carry_out(
        &mut self,
        now: Now,
        key: ParticipantKey,
        request: Option<u64>,
        message: ClientMessage,
    ) -> Result<Answer, Refusal> {
        use ClientMessage as M;
        match message {
            M::Publish { tracks } => self.handle_publish(now.instant, key, &tracks)?,
            M::SlotsWish { slots } => self.handle_wishes(now, key, slots)?,
            M::ChatTyping { typing } => self.typing(key, typing)?,
            M::ChatHistory { before } => return self.history(key, before),
            M::ChatSend { .. } | M::ChatEdit { .. } | M::ChatDelete { .. } | M::ChatReact { .. } => {
                return self.chat(now, key, request, message);
            }
            M::FileSend { id, name, size_bytes, offset, data } => {
                let part = FilePart { id, name, size_bytes, offset, data };
                return self.take_part(key, request, part);
            }
            M::React { emoji } => self.react(key, emoji)?,
            M::MeUpdate { name, hand_raised } => self.update_me(key, name, hand_raised)?,
            M::ModerateMute { participant, source } => {
                let by = self.admin(key)?;
                self.mute(now, &participant, source, &by)?;
            }
            M::ModerateRemove { participant } => {
                let by = self.admin(key)?;
                self.remove(now, &participant, &by)?;
            }
            M::ModerateAdmit { participant } => {
                let by = self.admin(key)?;
                self.admit(now, &participant, &by)?;
            }
            M::ModerateDeny { participant } => {
                let by = self.admin(key)?;
                self.deny(now, &participant, &by)?;
            }
            M::RoomUpdate(change) => {
                let by = self.admin(key)?;
                self.change(now, change, Some(by))?;
            }
            M::RecordingStart { .. }
            | M::RecordingStop
            | M::RecordingMark { .. }
            | M::RecordingConsent { .. } => return self.record(now, key, request, message),
            M::RoomClose => {
                self.admin(key)?;
                self.close(now, CloseReason::Closed);
            }
            M::ModeChoose { mode } => self.choose_mode(now.instant, key, mode)?,
            M::DeviceStrained { strained } => {
                if let Some(participant) = self.participant_mut(key) {
                    participant.device_strained = strained;
                }
            }
            M::StatsWatch { on } => {
                if let Some(participant) = self.participant_mut(key) {
                    participant.watches_stats = on;
                }
            }
            M::Ping => {
                self.tell(Audience::One(key), ServerMessage::Pong { request });
                return Ok(Answer::Later);
            }
        }
        Ok(Answer::Ok)
    }

    pub(super) fn admin(&self, key: ParticipantKey) -> Result<Identity, Refusal> {
        let participant = self.participant(key).filter(|participant| participant.grant.admin);
        participant
            .map(|participant| participant.identity.clone())
            .ok_or_else(|| Refusal::new(Code::Forbidden, "only the room's owner and admins may do that"))
    }

    fn handle_wishes(&mut self, now: Now, key: ParticipantKey, wishes: Vec<SlotWish>) -> Result<(), Refusal> {
        let Some(participant) = self.participant_mut(key) else { return Ok(()) };
        for wish in &wishes {
            let known = participant.slots.iter().any(|slot| slot.mid.to_string() == wish.mid);
            if !known {
                return Err(Refusal::new(
                    Code::Malformed,
                    "a wish names an m-line that you do not receive on",
                ));
            }
        }
        for wish in wishes {
            let mid = Mid::from(wish.mid.as_str());
            let Some(slot) = participant.slots.iter_mut().find(|slot| slot.mid == mid) else { continue };
            let default = if slot.kind == Kind::Audio { Source::Microphone } else { Source::Camera };
            let pinned = wish.participant.map(|identity| (identity, wish.source.unwrap_or(default)));
            slot.wish = Wish { max_height: wish.max_height.min(HEIGHT_MAX), pinned };
        }
        participant.slots_stale = true;
        self.settle(now.instant);
        Ok(())
    }

    fn react(&mut self, key: ParticipantKey, emoji: String) -> Result<(), Refusal> {
        if !is_emoji(&emoji) {
            return Err(Refusal::new(Code::Malformed, "a reaction is one emoji"));
        }
        let Some(participant) = self.participant(key) else { return Ok(()) };
        let identity = participant.identity.clone();
        self.tell(Audience::All, ServerMessage::React { identity, emoji });
        Ok(())
    }

    fn update_me(
        &mut self,
        key: ParticipantKey,
        name: Option<String>,
        hand_raised: Option<bool>,
    ) -> Result<(), Refusal> {
        let Some(participant) = self.participant_mut(key) else { return Ok(()) };
        if let Some(name) = name {
            let name = name.trim();
            let fits = !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX;
            if !fits || name.chars().any(char::is_control) {
                return Err(Refusal::new(Code::Malformed, "a name has 1 to 64 characters, none of control"));
            }
            participant.name = name.to_owned();
        }
        participant.hand_raised = hand_raised.unwrap_or(participant.hand_raised);
        self.announce(key);
        Ok(())
    }

    /// Silences somebody.
    ///
    /// # Errors
    /// `not_found`.
    pub fn mute(
        &mut self,
        now: Now,
        identity: &Identity,
        source: Option<Source>,
        by: &Identity,
    ) -> Result<(), Refusal> {
        let key = self.seat_named(identity)?;
        self.moderated(now, Moderation::Muted(source.unwrap_or(Source::Microphone)), identity, by);
        self.silence(now.instant, key, source, by);
        Ok(())
    }

    /// Sends somebody away.
    ///
    /// # Errors
    /// `not_found`.
    pub fn remove(&mut self, now: Now, identity: &Identity, by: &Identity) -> Result<(), Refusal> {
        // Who watches at another node is known by name there alone.
        let is_asked_beyond = self.dismiss_beyond(identity, LeaveReason::Removed);
        let key = match self.seat_named(identity) {
            Err(refusal) if !is_asked_beyond => return Err(refusal),
            seated => seated.ok(),
        };
        self.moderated(now, Moderation::Removed, identity, by);
        if let Some(key) = key {
            self.dismiss(now, key, LeaveReason::Removed);
        }
        Ok(())
    }

    /// Tells something to one participant alone.
    ///
    /// # Errors
    /// `not_found`.
    pub fn tell_named(&mut self, identity: &Identity, message: ServerMessage) -> Result<(), Refusal> {
        let key = self.seat_named(identity)?;
        self.tell(Audience::One(key), message);
        Ok(())
    }

    pub(super) fn moderated(&mut self, now: Now, action: Moderation, whom: &Identity, by: &Identity) {
        let body = EventBody::Moderated { action, participant: whom.clone(), by: Some(by.clone()) };
        self.log(now, body);
    }

    /// Changes the room's settings; all are told.
    ///
    /// # Errors
    /// `unavailable` or `end_to_end_encrypted` for a mode that cannot be had, `malformed` for a limit out of
    /// bounds.
    pub fn change(
        &mut self,
        now: Now,
        change: RoomChange,
        by: Option<Identity>,
    ) -> Result<RoomState, Refusal> {
        if change.mode == Some(Mode::Mcu) {
            self.check_mixer()?;
            self.ask_anew();
        }
        if let Some(layout) = &change.layout {
            layout.check()?;
        }
        if let Some(rule) = change.recording_consent {
            self.check_consent_rule(rule)?;
        }
        let ceiling = self.settings.state.participants_max;
        if let Some(max) = change.participants_max
            && !(1..=ceiling).contains(&max)
        {
            let words = format!("participants_max is from 1 to {ceiling} on this node");
            return Err(Refusal::new(Code::Malformed, words));
        }
        change.apply(&mut self.state);
        self.rebind_recorder(now.instant);
        let room = self.state.clone();
        self.mirror_is_stale = true;
        self.poll_mixing(now.instant);
        self.settle(now.instant);
        self.log(now, EventBody::RoomChanged { change, by });
        self.tell(Audience::All, ServerMessage::Room { room: room.clone() });
        Ok(room)
    }

    fn history(&mut self, key: ParticipantKey, before: Option<u64>) -> Result<Answer, Refusal> {
        let Some(participant) = self.participant(key) else { return Ok(Answer::Later) };
        if !participant.grant.chat {
            return Err(Refusal::new(Code::Forbidden, "your grant does not let you read the chat"));
        }
        let before = before.unwrap_or(u64::MAX);
        self.outputs.push_back(Output::ReadHistory { to: key, before });
        Ok(Answer::Later)
    }
}

impl RoomChange {
    /// What it names becomes so; the rest stays.
    pub fn apply(&self, state: &mut RoomState) {
        let Self { mode, layout, background, access, locked, lobby, participants_max, recording_consent } =
            self;
        state.mode = mode.unwrap_or(state.mode);
        if let Some(layout) = layout {
            state.layout.clone_from(layout);
        }
        state.background = background.unwrap_or(state.background);
        state.access = access.unwrap_or(state.access);
        state.locked = locked.unwrap_or(state.locked);
        state.lobby = lobby.unwrap_or(state.lobby);
        state.participants_max = participants_max.unwrap_or(state.participants_max);
        state.recording_consent = recording_consent.unwrap_or(state.recording_consent);
    }
}

pub(super) enum Answer {
    Ok,
    /// Something else answers.
    Later,
}
