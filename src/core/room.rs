//! A room: its people, their tracks, who gets what, and the one order in which all of it happens.
//!
//! Drive it with `handle_*(now, …)`, then [`Room::poll_output`] until it is empty. A packet goes through
//! [`Room::handle_rtp`], which answers with what to send to whom and allocates nothing of its own.
//!
//! Invariants: nobody gets a packet without a grant to subscribe and a place in the room; nobody gets their
//! own; a slot is one continuous stream whatever is bound to it; what all are told, all are told in one
//! order.

mod abroad;
mod admission;
mod allocation;
mod binding;
mod branches;
mod commands;
mod conversation;
mod feeding;
mod figures;
#[cfg(test)]
mod fixtures;
mod lodging;
mod mirror;
mod mixing;
mod packets;
mod publishing;
mod recording;
mod report;
mod small_files;
mod streaming;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use str0m::media::{Mid, Rid};

use super::chat::{Asker, Author, Chat, ChatCommand, RoomHistory};
use super::event::{Event, EventIds};
use super::files::SmallFile;
use super::ids::{Identity, MessageId, RoomName, SessionId, Site};
use super::mix::{MixSettings, MixerOrder};
use super::participant::{Participant, Presence};
use super::protocol::{LeaveReason, RoomState, ServerMessage};
use super::recording::{EndReason, RecorderOrder};
use super::refusal::Refusal;
use super::relay::{Branch, Downstream, Upstream};
use super::speaker::Speakers;
use super::track::Track;

use figures::Looking;
pub use lodging::Admission;
use lodging::Lodging;
use mixing::Mixing;
pub use mixing::no_mix_of_ciphertext;
pub use packets::{Arrival, Forward, Replayed};
use recording::Recording;

/// How often a room looks after its people: layers, lost connections, statistics.
const TICK: Duration = Duration::from_millis(100);
/// Between two tries to read a room's history.
const RESTORE_AFTER: Duration = Duration::from_secs(1);
/// Voices that are heard at a time where more talk than there are slots: three, and one's own.
const VOICES_HEARD: usize = 4;

/// A seat in a room. Reused after its participant left, so it must not be kept past [`Output::Gone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ParticipantKey(pub u32);

impl ParticipantKey {
    /// By which a mixed packet names it (RFC 3550 §5.1); of a seat at the room's home.
    pub fn csrc(self) -> u32 {
        self.0.saturating_add(1)
    }
}

/// A published track. Reused likewise; never leaves the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackKey(pub u32);

/// A slot's index within its participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey(pub u16);

/// What a room is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub state: RoomState,
    pub publishers_max: u32,
    pub viewers_max: u32,
    /// Of one video encoding; what is beyond is dropped.
    pub video_bps_max: u64,
    pub messages_per_second: f64,
    pub chat_chars_max: u32,
    pub empty_after: Duration,
    pub resume_within: Duration,
    pub initial_estimate_bps: u64,
    /// The first to join without a token becomes its admin (`--dev` and guest nodes).
    pub first_is_admin: bool,
    /// What its mixer is started with; `None` where the node has none.
    pub mix: Option<MixSettings>,
    /// The node records.
    pub may_record: bool,
    /// Rises each time that a room of this name opens, on whichever node; keeps event ids apart.
    pub epoch: u64,
}

/// Time of the room's inputs: monotone for deadlines, wall clock for what people read.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    One(ParticipantKey),
    All,
    AllBut(ParticipantKey),
    Admins,
}

/// What the shard has to do.
#[derive(Debug)]
pub enum Output {
    /// Over the `control` channel of all in the audience who were welcomed.
    Tell(Audience, Box<ServerMessage>),
    /// Ask a publisher for a key frame.
    RequestKeyframe {
        from: ParticipantKey,
        mid: Mid,
        rid: Option<Rid>,
    },
    /// Tell a publisher the most that one of its encodings may take (REMB).
    LimitBitrate {
        from: ParticipantKey,
        mid: Mid,
        rid: Option<Rid>,
        bps: u64,
    },
    /// Tell the bandwidth estimator what is worth probing for.
    SetGoal {
        to: ParticipantKey,
        next_bps: u64,
        desired_bps: u64,
    },
    /// Close the connection once its last message is out; the seat is free.
    Gone {
        who: ParticipantKey,
        reason: LeaveReason,
    },
    Append(Event),
    /// Read the room's history once more.
    Restore,
    ReadMessage(MessageId),
    /// Read older messages for a `chat.history`.
    ReadHistory {
        to: ParticipantKey,
        before: u64,
    },
    /// Keep a small file; answer with [`Room::handle_kept`].
    KeepFile(Box<SmallFile>),
    /// The answer to [`Room::handle_said`].
    Said {
        number: u64,
        result: Result<(), Refusal>,
    },
    Mixer(MixerOrder),
    Recorder(RecorderOrder),
    /// Start a recording, if the node has room for one; answer with [`Room::handle_recording_wish`].
    StartRecording {
        asker: Asker,
        tracks: bool,
        mix: bool,
        by: Identity,
    },
    /// To a branch of this room.
    Downstream {
        to: Site,
        news: Downstream,
    },
    /// To the home of which this room is a branch.
    Upstream(Upstream),
    /// The answer to [`Room::ask_for_seat`].
    Admission {
        session: SessionId,
        admission: Admission,
    },
    /// The home wants to know how those fare who lodge here; answer with [`Room::tell_figures`].
    Look,
    /// Branches have said how their lodgers fare, or have had their time, see [`Room::look`].
    Looked,
    /// The room is over; nothing comes after this.
    Ended,
}

#[derive(Debug)]
pub struct Room {
    settings: Settings,
    state: RoomState,
    participants: Vec<Option<Participant>>,
    by_identity: BTreeMap<Identity, ParticipantKey>,
    tracks: Vec<Option<Track>>,
    speakers: Speakers<TrackKey>,
    /// The loudest, as slots were last bound to them.
    loudest: Vec<Option<TrackKey>>,
    /// Identities last named in `speakers`.
    heard: Vec<Identity>,
    /// The participant whom the programme shows.
    on_air: Option<ParticipantKey>,
    /// Who was on air, latest first; decides who is seen where slots are short.
    was_on_air: Vec<ParticipantKey>,
    /// Absent until the room's history was read; nobody is welcomed before.
    chat: Option<Chat>,
    /// From outside, for when the history was read.
    said_early: Vec<(u64, Author, ChatCommand)>,
    /// When to ask for it again, after it could not be read.
    restore_at: Option<Instant>,
    /// Waits for the log with the chat's own events.
    event_ids: EventIds,
    outputs: VecDeque<Output>,
    next_tick: Instant,
    empty_since: Option<Instant>,
    ended: bool,
    has_moved: bool,
    mixing: Mixing,
    recording: Recording,
    /// Publications are told apart by numbers that are never used again.
    last_serial: u64,
    /// Where viewers are seated elsewhere: on other shards, at other nodes.
    branches: Vec<Branch>,
    /// The branches have to be told how things are.
    mirror_is_stale: bool,
    /// They have to be told, in time, how many watch.
    viewers_changed: bool,
    /// This room is a branch itself.
    is_branch: bool,
    /// And has been told what of.
    has_mirror: bool,
    /// Viewers at its home and in the other branches.
    mirrored_viewers: u32,
    /// Where the home's publishers sit here, by their seats there.
    origins: BTreeMap<ParticipantKey, ParticipantKey>,
    lodging: Lodging,
    /// Tracks of lodgers, whose branches are to be told what is wanted of them.
    demanded: BTreeSet<TrackKey>,
    looking: Looking,
}

impl Room {
    pub fn new(now: Now, settings: Settings) -> Self {
        Self {
            state: settings.state.clone(),
            participants: Vec::new(),
            by_identity: BTreeMap::new(),
            tracks: Vec::new(),
            speakers: Speakers::new(VOICES_HEARD),
            loudest: Vec::new(),
            heard: Vec::new(),
            on_air: None,
            was_on_air: Vec::new(),
            chat: None,
            said_early: Vec::new(),
            restore_at: None,
            event_ids: EventIds::new("room", settings.epoch),
            outputs: VecDeque::new(),
            next_tick: now.instant + TICK,
            empty_since: Some(now.instant),
            ended: false,
            has_moved: false,
            mixing: Mixing::default(),
            recording: Recording::default(),
            last_serial: 0,
            branches: Vec::new(),
            mirror_is_stale: false,
            viewers_changed: false,
            is_branch: false,
            has_mirror: false,
            mirrored_viewers: 0,
            origins: BTreeMap::new(),
            lodging: Lodging::default(),
            demanded: BTreeSet::new(),
            looking: Looking::default(),
            settings,
        }
    }

    pub fn name(&self) -> &RoomName {
        &self.state.name
    }

    pub fn state(&self) -> &RoomState {
        &self.state
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.poll_mirror())
    }

    /// When to call [`Room::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Instant {
        match self.empty_since.map(|since| since + self.settings.empty_after) {
            Some(ends_at) if self.has_work() => ends_at.min(self.next_tick),
            Some(ends_at) => ends_at,
            None => self.next_tick,
        }
    }

    /// There is something to look after, though nobody be here: a recording, a stream, a file that is played.
    fn has_work(&self) -> bool {
        self.participants.iter().any(Option::is_some)
            || self.recording.is_running()
            || self.is_mixing()
            || self.asks_for_seats()
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if let Some(since) = self.empty_since {
            if now.instant >= since + self.settings.empty_after {
                self.end(now, super::event::CloseReason::Empty);
            }
            if self.ended || !self.has_work() {
                return;
            }
        }
        if now.instant < self.next_tick {
            return;
        }
        self.next_tick = now.instant + TICK;
        self.mirror_is_stale |= std::mem::take(&mut self.viewers_changed);
        if self.restore_at.take_if(|at| now.instant >= *at).is_some() {
            self.outputs.push_back(Output::Restore);
        }
        self.poll_lodging(now.instant);
        self.poll_looking(now.instant);
        self.drop_lost(now);
        self.poll_speakers(now.instant);
        self.poll_mixing(now.instant);
        self.poll_recording(now);
        self.settle(now.instant);
        self.allocate_all(now.instant);
        self.poll_encodings(now.instant);
    }

    /// The history was read: the room is complete.
    pub fn handle_restored(&mut self, now: Now, history: RoomHistory) {
        let chat = Chat::restore(self.state.name.clone(), self.settings.chat_chars_max, history);
        self.chat = Some(chat);
        for key in self.keys() {
            self.welcome(now, key);
        }
        self.take_what_was_said(now);
    }

    /// The history could not be read. Without it what was written before would seem lost, and offsets would
    /// begin anew: nobody is welcomed, and it is tried again.
    pub fn handle_restore_failed(&mut self, now: Now) {
        self.restore_at = Some(now.instant + RESTORE_AFTER);
    }

    /// Sends everyone away and ends the room.
    ///
    /// One that moves leaves no trace in the log: it goes on elsewhere, whose word counts there by now.
    pub fn close(&mut self, now: Now, reason: super::event::CloseReason) {
        self.has_moved |= reason == super::event::CloseReason::Moved;
        let leave = match reason {
            super::event::CloseReason::Draining => LeaveReason::Draining,
            super::event::CloseReason::Moved => LeaveReason::Moved,
            _ => LeaveReason::Closed,
        };
        self.end_recording(now, EndReason::Closed, None);
        for key in self.keys() {
            self.dismiss(now, key, leave);
        }
        self.end(now, reason);
    }

    fn end(&mut self, now: Now, reason: super::event::CloseReason) {
        if self.ended {
            return;
        }
        self.end_recording(now, EndReason::Closed, None);
        self.ended = true;
        if self.is_branch {
            return self.end_branch();
        }
        for Branch { site, .. } in std::mem::take(&mut self.branches) {
            let news = Downstream::Ended(reason);
            self.outputs.push_back(Output::Downstream { to: site, news });
        }
        self.log(now, super::event::EventBody::RoomClosed { reason });
        self.outputs.push_back(Output::Ended);
    }

    fn log(&mut self, now: Now, body: super::event::EventBody) {
        // Of a branch only its home's word counts.
        if self.has_moved || self.is_branch {
            return;
        }
        let id = self.event_ids.next_id();
        self.outputs.push_back(Output::Append(Event {
            id,
            room: self.state.name.clone(),
            at_ms: now.unix_ms,
            body,
        }));
    }

    /// In a branch its people are told by the home what all are told.
    fn tell(&mut self, audience: Audience, message: ServerMessage) {
        if self.is_branch && !matches!(audience, Audience::One(_)) {
            return;
        }
        self.outputs.push_back(Output::Tell(audience, Box::new(message)));
    }

    /// Records something about the room from outside it.
    pub fn note(&mut self, now: Now, body: super::event::EventBody) {
        self.log(now, body);
    }

    /// Those of an audience who can be told: one by itself always, many only once welcomed.
    pub fn audience(&self, audience: Audience) -> Vec<ParticipantKey> {
        let hears = |key: ParticipantKey, participant: &Participant| match audience {
            Audience::One(_) => false,
            Audience::All => participant.welcomed,
            Audience::AllBut(but) => participant.welcomed && key != but,
            Audience::Admins => participant.welcomed && participant.grant.admin,
        };
        if let Audience::One(key) = audience {
            return self.participant(key).map(|_| vec![key]).unwrap_or_default();
        }
        self.seated().filter(|(key, participant)| hears(*key, participant)).map(|(key, _)| key).collect()
    }

    /// Whose seat this is.
    pub fn identity_of(&self, key: ParticipantKey) -> Option<Identity> {
        self.participant(key).map(|participant| participant.identity.clone())
    }

    /// May send application data to others.
    pub fn may_talk(&self, key: ParticipantKey) -> bool {
        self.participant(key).is_some_and(|p| p.grant.chat && p.presence == Presence::Here)
    }

    /// May be sent what others say and show.
    pub fn may_receive(&self, key: ParticipantKey) -> bool {
        self.participant(key).is_some_and(Participant::may_receive)
    }

    fn keys(&self) -> Vec<ParticipantKey> {
        let seats = (0u32..).zip(&self.participants);
        seats.filter(|(_, seat)| seat.is_some()).map(|(index, _)| ParticipantKey(index)).collect()
    }

    fn participant(&self, key: ParticipantKey) -> Option<&Participant> {
        self.participants.get(key.0 as usize)?.as_ref()
    }

    fn participant_mut(&mut self, key: ParticipantKey) -> Option<&mut Participant> {
        self.participants.get_mut(key.0 as usize)?.as_mut()
    }

    fn track(&self, key: TrackKey) -> Option<&Track> {
        self.tracks.get(key.0 as usize)?.as_ref()
    }

    fn track_mut(&mut self, key: TrackKey) -> Option<&mut Track> {
        self.tracks.get_mut(key.0 as usize)?.as_mut()
    }

    fn seated(&self) -> impl Iterator<Item = (ParticipantKey, &Participant)> {
        let seats = (0u32..).zip(&self.participants);
        seats.filter_map(|(index, seat)| Some((ParticipantKey(index), seat.as_ref()?)))
    }

    /// Participants whose lost connection did not come back in time leave.
    fn drop_lost(&mut self, now: Now) {
        let within = self.settings.resume_within;
        let gone = |participant: &Participant| {
            let since = participant.lost_since();
            since.is_some_and(|since| now.instant.saturating_duration_since(since) >= within)
        };
        let lost: Vec<_> = self.seated().filter(|(_, p)| gone(p)).map(|(key, _)| key).collect();
        for key in lost {
            self.dismiss(now, key, LeaveReason::Lost);
        }
    }
}

/// Puts `value` into the first free place.
fn seat<T>(places: &mut Vec<Option<T>>, value: T) -> u32 {
    let free = places.iter().position(Option::is_none).unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    });
    places[free] = Some(value);
    free as u32
}
