//! A branch's side of its lodgers: members whose connection ends here, while the home decides all else.
//!
//! The branch binds their slots and forwards what they send to whoever is here. What they ask goes to the
//! home, and what the home tells them goes on to them; of what concerns their own reception alone the home
//! hears nothing. Where the way to the home is lost they stay, what they ask waits, and once there is a way
//! again they ask for their seats.

use std::time::{Duration, Instant};

use super::{Audience, Now, Output, ParticipantKey, Room, TrackKey, seat};
use crate::core::ids::{Identity, SessionId, Site};
use crate::core::participant::{Entrant, Lodger, Participant, Presence};
use crate::core::protocol::{ClientMessage, LeaveReason, Request, ServerMessage};
use crate::core::refusal::{Code, Refusal};
use crate::core::relay::members::{Attach, FromLodger, Held, Seated, Seating};
use crate::core::relay::{Downstream, Upstream, Way};
use crate::core::track::Relayed;

/// The home answers within this time, or the join is refused: it may be that there is no way to it.
const SEAT_WITHIN: Duration = Duration::from_secs(4);
/// What one lodger may have asked without an answer. Full: refused, and to be said again.
const UNANSWERED_MAX: usize = 256;

/// What a branch knows of those who lodge in it, beside their seats.
#[derive(Debug, Default)]
pub struct Lodging {
    /// Who waits for the home's word.
    asking: Vec<Asking>,
}

#[derive(Debug)]
struct Asking {
    entrant: Entrant,
    resumes: bool,
    until: Instant,
}

/// What became of somebody who asked for a seat.
#[derive(Debug)]
pub enum Admission {
    /// It has one here.
    Seated(ParticipantKey),
    /// The home alone can serve it.
    AtHome,
    Refused(Refusal),
}

impl Room {
    /// Asks the home for a seat; [`Output::Admission`] answers, by the entrant's session.
    pub fn ask_for_seat(&mut self, now: Now, entrant: Entrant, resumes: bool) {
        let attach = Attach::of(&entrant, resumes);
        self.lodging.asking.push(Asking { entrant, resumes, until: now.instant + SEAT_WITHIN });
        self.outputs.push_back(Output::Upstream(Upstream::Attach(Box::new(attach))));
    }

    /// Somebody waits for the home's word.
    pub(super) fn asks_for_seats(&self) -> bool {
        !self.lodging.asking.is_empty()
    }

    pub(super) fn poll_lodging(&mut self, now: Instant) {
        for late in self.lodging.asking.extract_if(.., |asking| now >= asking.until) {
            let words = "the room's node cannot be reached now: try again in a moment";
            let admission = Admission::Refused(Refusal::new(Code::Unavailable, words));
            let session = late.entrant.session;
            self.outputs.push_back(Output::Admission { session, admission });
        }
    }

    /// Something that the home, or the way to it, says of lodgers.
    pub(super) fn handle_home(&mut self, now: Now, home: Site, news: Downstream) {
        match news {
            Downstream::Seating { session, seating } => self.handle_seating(now, session, seating),
            Downstream::Tell { to, message } => {
                for key in to.into_iter().filter_map(|seat| self.lodger_of(seat)).collect::<Vec<_>>() {
                    self.pass_on(now, key, (*message).clone());
                }
            }
            Downstream::Admitted { seat } => {
                if let Some(participant) = self.lodger_of(seat).and_then(|key| self.participant_mut(key)) {
                    participant.presence = Presence::Here;
                    participant.slots_stale = true;
                    self.settle(now.instant);
                }
            }
            Downstream::Unseated { seat, reason } => {
                if let Some(key) = self.lodger_of(seat) {
                    self.dismiss_unheard(now, key, reason);
                }
            }
            Downstream::Demand { seat, line, serial, encodings } => {
                let key = self.lodger_of(seat).and_then(|key| self.track_of(key, line));
                if let Some(key) = key.filter(|key| self.track(*key).is_some_and(|t| t.serial == serial)) {
                    self.take_demand(now.instant, home, key, encodings);
                }
            }
            Downstream::Keyframe { seat, mid, rid } => {
                if let Some(key) = self.lodger_of(seat) {
                    self.want_keyframe_of(now.instant, key, mid, rid);
                }
            }
            Downstream::Look => self.outputs.push_back(Output::Look),
            Downstream::Way(way) => self.handle_way(now, way),
            Downstream::Mirror(_) | Downstream::Dismiss { .. } | Downstream::Ended(_) => {}
        }
    }

    fn handle_way(&mut self, now: Now, way: Way) {
        // Until the home welcomes them again.
        for key in self.lodgers() {
            if let Some(lodger) = self.participant_mut(key).and_then(|p| p.lodger.as_mut()) {
                lodger.is_cut_off = true;
            }
        }
        match way {
            Way::Open { seats: true } => self.attach_all(),
            Way::Lost => self.forget_demands(),
            Way::Moved => {
                self.forget_demands();
                for key in self.lodgers() {
                    self.unpublish_all(key);
                    self.forget_seat(key);
                }
            }
            // Nobody who has the room seats them, or nobody has it: they find out by themselves who will.
            Way::Open { seats: false } | Way::Orphaned => self.send_lodgers_on(now),
        }
    }

    /// Lodgers are to join anew, wherever that leads.
    pub fn send_lodgers_on(&mut self, now: Now) {
        for key in self.lodgers() {
            self.dismiss(now, key, LeaveReason::Moved);
        }
    }

    /// What the home took it asks for anew.
    fn forget_demands(&mut self) {
        for key in self.lodgers() {
            let tracks = self.participant(key).map(|p| p.line_tracks.clone()).unwrap_or_default();
            for track in tracks.into_iter().flatten() {
                if let Some(track) = self.track_mut(track) {
                    track.relays.clear();
                }
            }
        }
    }

    /// All who lodge here ask for their seats, and those who wait for one ask again.
    fn attach_all(&mut self) {
        for key in self.lodgers() {
            let Some(participant) = self.participant(key) else { continue };
            let Some(lodger) = &participant.lodger else { continue };
            if participant.presence == Presence::Waiting && participant.origin.is_none() {
                // Nobody at the new home has let it in either: it knocks there.
                let entrant =
                    Entrant { has_token: lodger.has_token, returns: false, ..participant.as_entrant() };
                let attach = Box::new(Attach::of(&entrant, false));
                self.outputs.push_back(Output::Upstream(Upstream::Attach(attach)));
                continue;
            }
            let held = Held {
                epoch: lodger.epoch,
                is_connected: !matches!(participant.presence, Presence::Lost { .. }),
                listens: participant.control_open,
                tracks: lodger.tracks.clone(),
            };
            let attach = Attach { held: Some(held), ..Attach::of(&participant.as_entrant(), false) };
            self.outputs.push_back(Output::Upstream(Upstream::Attach(Box::new(attach))));
        }
        for Asking { entrant, resumes, .. } in &self.lodging.asking {
            let attach = Box::new(Attach::of(entrant, *resumes));
            self.outputs.push_back(Output::Upstream(Upstream::Attach(attach)));
        }
    }

    fn handle_seating(&mut self, now: Now, session: SessionId, seating: Seating) {
        let asking = self.lodging.asking.iter().position(|asking| asking.entrant.session == session);
        let Some(place) = asking else { return self.handle_seating_again(now, session, seating) };
        let Asking { entrant, resumes, .. } = self.lodging.asking.remove(place);
        let admission = match seating {
            Seating::Seated(seated) => Admission::Seated(self.seat_lodger(now, entrant, resumes, *seated)),
            Seating::AtHome => Admission::AtHome,
            Seating::Refused(refusal) => Admission::Refused(refusal),
        };
        self.outputs.push_back(Output::Admission { session, admission });
        self.settle(now.instant);
    }

    /// For one who has its place here, and asked for its seat because the way there was lost; or for one who
    /// has given up waiting.
    fn handle_seating_again(&mut self, now: Now, session: SessionId, seating: Seating) {
        let key = self.seat_of(session).ok();
        match (key, seating) {
            (Some(key), Seating::Seated(seated)) => {
                let knocked = self.participant(key).is_some_and(|p| p.origin.is_none() && p.control_open)
                    && self.waits(key);
                self.take_seat(key, &seated);
                if knocked {
                    self.tell_of_lodger(key, FromLodger::Listens);
                }
                if self.waits(key) {
                    self.say_again(key);
                }
                self.tell_formats(key);
                self.settle(now.instant);
            }
            (Some(key), Seating::AtHome) => self.dismiss_unheard(now, key, LeaveReason::Moved),
            (Some(key), Seating::Refused(_)) => self.dismiss_unheard(now, key, LeaveReason::Lost),
            (None, Seating::Seated(_)) => {
                let news = FromLodger::Left(LeaveReason::Lost);
                self.outputs.push_back(Output::Upstream(Upstream::Lodger { session, news }));
            }
            (None, _) => {}
        }
    }

    fn seat_lodger(&mut self, now: Now, entrant: Entrant, resumes: bool, seated: Seated) -> ParticipantKey {
        let known = if resumes { self.seat_of(entrant.session).ok() } else { None };
        let key = known.unwrap_or_else(|| {
            let estimate_bps = self.settings.initial_estimate_bps;
            let presence = if seated.waits { Presence::Waiting } else { Presence::Here };
            let mut participant = Participant::new(entrant.clone(), presence, now.unix_ms, estimate_bps);
            let lodger = Lodger { has_token: entrant.has_token, ..Lodger::default() };
            participant.lodger = Some(Box::new(lodger));
            ParticipantKey(seat(&mut self.participants, participant))
        });
        if known.is_some() {
            // It is there, so that nothing refuses it.
            let _ = self.handle_resume(now, entrant.session, entrant.lines, entrant.slots, entrant.seed);
        }
        self.take_seat(key, &seated);
        self.note_emptiness(now.instant);
        key
    }

    /// Whoever was mirrored from this seat is this one.
    fn take_seat(&mut self, key: ParticipantKey, seated: &Seated) {
        self.forget_seat(key);
        if let Some(before) = self.origins.insert(seated.seat, key)
            && before != key
        {
            self.unseat(before);
        }
        let Some(participant) = self.participant_mut(key) else { return };
        participant.origin = Some(seated.seat);
        participant.grant = seated.grant;
        participant.name.clone_from(&seated.name);
        if participant.presence == Presence::Waiting && !seated.waits {
            // It was let in while nothing could be heard of that here.
            participant.presence = Presence::Here;
            participant.slots_stale = true;
        }
        let before = std::mem::replace(&mut participant.identity, seated.identity.clone());
        if let Some(lodger) = &mut participant.lodger {
            lodger.epoch = seated.epoch;
            lodger.sends = 0;
        }
        if self.by_identity.get(&before) == Some(&key) {
            self.by_identity.remove(&before);
        }
        self.by_identity.insert(seated.identity.clone(), key);
    }

    fn forget_seat(&mut self, key: ParticipantKey) {
        let origin = self.participant_mut(key).and_then(|participant| participant.origin.take());
        if let Some(origin) = origin.filter(|origin| self.origins.get(origin) == Some(&key)) {
            self.origins.remove(&origin);
        }
    }

    /// The home has let it go, or does not know it.
    fn dismiss_unheard(&mut self, now: Now, key: ParticipantKey, reason: LeaveReason) {
        self.forget_seat(key);
        if let Some(participant) = self.participant_mut(key) {
            participant.lodger = None;
        }
        self.dismiss(now, key, reason);
    }

    /// One who lodged here is gone. Where it is to come again its seat waits.
    pub(super) fn tell_left(&mut self, participant: &Participant, reason: LeaveReason) {
        if let Some(origin) = participant.origin {
            self.origins.remove(&origin);
        }
        let news = match reason {
            LeaveReason::Moved | LeaveReason::Draining => FromLodger::Lost,
            _ => FromLodger::Left(reason),
        };
        self.outputs.push_back(Output::Upstream(Upstream::Lodger { session: participant.session, news }));
    }

    /// Tells the home something of one who lodges here. False for anybody else.
    pub(super) fn tell_of_lodger(&mut self, key: ParticipantKey, news: FromLodger) -> bool {
        let lodger = self.participant(key).filter(|participant| participant.lodger.is_some());
        let Some(session) = lodger.map(|participant| participant.session) else { return false };
        self.outputs.push_back(Output::Upstream(Upstream::Lodger { session, news }));
        true
    }

    /// Packets of a line came before it was named.
    pub(super) fn tell_sends(&mut self, key: ParticipantKey, line: u8) {
        let Some(lodger) = self.participant_mut(key).and_then(|p| p.lodger.as_mut()) else { return };
        let bit = Relayed::bit(line);
        if lodger.sends & bit == 0 {
            lodger.sends |= bit;
            self.tell_of_lodger(key, FromLodger::Sends { line });
        }
    }

    fn tell_formats(&mut self, key: ParticipantKey) {
        let tracks = self.participant(key).map(|p| p.line_tracks.clone()).unwrap_or_default();
        tracks.into_iter().flatten().for_each(|track| self.tell_format(track));
    }

    /// The home, which has no packet yet, is told what a publication is.
    pub(super) fn tell_format(&mut self, key: TrackKey) {
        let Some(track) = self.track(key) else { return };
        let (owner, serial, format) = (track.owner, track.serial, track.format);
        let line = self.participant(owner).and_then(|p| p.line_tracks.iter().position(|t| *t == Some(key)));
        if let Some((line, format)) = line.and_then(|line| u8::try_from(line).ok()).zip(format) {
            self.tell_of_lodger(owner, FromLodger::Format { line, serial, format });
        }
    }

    /// What a lodger asks: of its own reception here, of all else at the home.
    pub(super) fn handle_lodger_request(&mut self, now: Now, key: ParticipantKey, request: Request) {
        use ClientMessage as M;
        let Request { request: number, message } = request;
        if matches!(message, M::SlotsWish { .. } | M::StatsWatch { .. } | M::DeviceStrained { .. } | M::Ping)
        {
            return self.carry_out_and_answer(now, key, number, message);
        }
        let Some(participant) = self.participant_mut(key) else { return };
        let Some(lodger) = &mut participant.lodger else { return };
        let is_cut_off = lodger.is_cut_off;
        if lodger.unanswered.len() >= UNANSWERED_MAX || is_cut_off && !may_be_said_twice(&message) {
            return self.refuse(key, number, unheard());
        }
        if let M::Publish { tracks } = &message {
            lodger.tracks = Some(tracks.clone());
        }
        lodger.unanswered.push_back((number, message.clone()));
        if !is_cut_off {
            self.tell_of_lodger(key, FromLodger::Asks { request: number, message: Box::new(message) });
        }
    }

    /// Something that the home tells a lodger.
    fn pass_on(&mut self, now: Now, key: ParticipantKey, message: ServerMessage) {
        let message = match message {
            ServerMessage::Welcome {
                protocol,
                room,
                me,
                participants,
                messages,
                more_messages,
                knocking,
                resume_seconds,
                ..
            } => {
                self.settle(now.instant);
                let slots = self.slot_states(key);
                let welcome = ServerMessage::Welcome {
                    protocol,
                    room,
                    me,
                    participants,
                    slots,
                    messages,
                    more_messages,
                    knocking,
                    resume_seconds,
                };
                return self.welcome_lodger(key, welcome);
            }
            ServerMessage::Ok { request } | ServerMessage::Error { request, .. } => {
                self.note_answer(key, |known, _| known == request);
                message
            }
            ServerMessage::ChatHistory { .. } => {
                self.note_answer(key, |_, asked| matches!(asked, ClientMessage::ChatHistory { .. }));
                message
            }
            message => message,
        };
        self.tell(Audience::One(key), message);
    }

    fn note_answer(&mut self, key: ParticipantKey, is_it: impl Fn(Option<u64>, &ClientMessage) -> bool) {
        let Some(lodger) = self.participant_mut(key).and_then(|p| p.lodger.as_mut()) else { return };
        let place = lodger.unanswered.iter().position(|(number, asked)| is_it(*number, asked));
        if let Some(place) = place {
            lodger.unanswered.remove(place);
        }
    }

    /// It is in the room, or in it again.
    fn welcome_lodger(&mut self, key: ParticipantKey, welcome: ServerMessage) {
        let Some(participant) = self.participant_mut(key) else { return };
        participant.welcomed = true;
        self.tell(Audience::One(key), welcome);
        self.tell_layers_to(key);
        self.say_again(key);
    }

    /// What was on its way when the link was lost is said again where that does no harm, as chat has its own
    /// ids; the rest is refused.
    fn say_again(&mut self, key: ParticipantKey) {
        let Some(lodger) = self.participant_mut(key).and_then(|p| p.lodger.as_mut()) else { return };
        lodger.is_cut_off = false;
        let (again, lost): (Vec<_>, Vec<_>) = std::mem::take(&mut lodger.unanswered)
            .into_iter()
            .partition(|(_, asked)| may_be_said_twice(asked));
        lodger.unanswered = again.iter().cloned().collect();
        for (request, message) in again {
            self.tell_of_lodger(key, FromLodger::Asks { request, message: Box::new(message) });
        }
        for (request, _) in lost {
            self.refuse(key, request, unheard());
        }
    }

    /// In the lobby.
    fn waits(&self, key: ParticipantKey) -> bool {
        self.participant(key).is_some_and(|participant| participant.presence == Presence::Waiting)
    }

    fn lodger_of(&self, seat: ParticipantKey) -> Option<ParticipantKey> {
        let key = self.seat_of_origin(seat)?;
        self.participant(key).is_some_and(|participant| participant.lodger.is_some()).then_some(key)
    }

    fn lodgers(&self) -> Vec<ParticipantKey> {
        self.seated().filter(|(_, participant)| participant.lodger.is_some()).map(|(key, _)| key).collect()
    }

    /// Whoever proved elsewhere to be this one takes the place of viewers here; a lodger goes by its seat.
    pub(super) fn dismiss_viewer(&mut self, now: Now, identity: &Identity, reason: LeaveReason) {
        if let Ok(key) = self.seat_named(identity)
            && self.participant(key).is_some_and(|participant| participant.lodger.is_none())
        {
            self.dismiss(now, key, reason);
        }
    }
}

/// To be said again, and answered as the first time.
fn may_be_said_twice(message: &ClientMessage) -> bool {
    use ClientMessage as M;
    matches!(
        message,
        M::Publish { .. }
            | M::ChatSend { .. }
            | M::ChatEdit { .. }
            | M::ChatDelete { .. }
            | M::ChatReact { .. }
            | M::ChatHistory { .. }
            | M::MeUpdate { .. }
            | M::ModeChoose { .. }
            | M::RecordingConsent { .. }
    )
}

fn unheard() -> Refusal {
    Refusal::new(Code::Unavailable, "the room's node cannot be reached now: say it again in a moment")
}
