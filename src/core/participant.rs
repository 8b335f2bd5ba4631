//! Who is in a room, and what each one's connection can do: lines it sends on, slots it receives into.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use str0m::media::Mid;

use super::feed::Playing;
use super::files::SmallFile;
use super::format::Format;
use super::forward::Rewriter;
use super::ids::{Identity, RoomName, SessionId, Site};
use super::layers::Allocator;
use super::mode::Advice;
use super::protocol::{
    ClientMessage, Grant, Kind, Mode, ModeReason, ParticipantState, PublishedTrack, SlotState, Source,
};
use super::rate::RateMeter;
use super::room::{ParticipantKey, TrackKey};
use super::stats::ConnectionStats;
use super::track::{PublishedLine, SlotLine};

/// Height wished for a video slot that nothing was said of.
const HEIGHT_DEFAULT: u32 = 720;
/// The window in which messages are counted against their rate.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// How a connection takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Seen by all, sends and receives.
    Member,
    /// Seen by all, only sends.
    Publisher,
    /// Not seen; receives the programme, or one participant.
    Viewer { of: Option<Identity> },
    /// Not seen; receives all, and publishes one picture and the sound of all. It has no connection.
    Mixer,
    /// Not seen; receives what may be recorded. It has no connection.
    Recorder,
    /// Seen by all; plays a file. It has no connection, and keeps no room open.
    Player,
}

impl Part {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Publisher => "publisher",
            Self::Viewer { .. } => "viewer",
            Self::Mixer => "mixer",
            Self::Recorder => "recorder",
            Self::Player => "player",
        }
    }
}

/// Somebody who is in a room, as seen by who asks for their session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub identity: Identity,
    pub name: String,
    pub grant: Grant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In the lobby.
    Waiting,
    Here,
    /// The connection is gone and may resume.
    Lost {
        since: Instant,
    },
}

/// What is sent into a slot: an encoding of a track, and of a scalable encoding its highest spatial layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    pub encoding: u8,
    pub spatial: u8,
}

impl Layer {
    /// From a layer's place in what its track offers: encodings of simulcast, or spatial layers of the one.
    pub fn of(index: usize, scalable: bool) -> Self {
        let index = u8::try_from(index).unwrap_or(u8::MAX);
        if scalable {
            Self { encoding: 0, spatial: index }
        } else {
            Self { encoding: index, spatial: u8::MAX }
        }
    }

    /// Back to the place in what is offered.
    pub fn index(self) -> u8 {
        if self.spatial == u8::MAX { self.encoding } else { self.spatial }
    }
}

/// A wish for one slot, as last heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub max_height: u32,
    pub pinned: Option<(Identity, Source)>,
}

/// One receive slot: one continuous outgoing stream.
#[derive(Debug)]
pub struct Slot {
    pub mid: Mid,
    pub kind: Kind,
    pub formats: Vec<Format>,
    pub described: bool,
    pub wish: Wish,
    pub track: Option<TrackKey>,
    /// What flows; `None` until the first key frame and while paused.
    pub current: Option<Layer>,
    /// What should flow.
    pub target: Option<Layer>,
    pub rewriter: Rewriter,
    pub rate: RateMeter,
    /// What the client was last told.
    pub told: Option<SlotState>,
}

impl Slot {
    fn new(line: SlotLine, seed: u64) -> Self {
        Self {
            mid: line.mid,
            kind: line.kind,
            formats: line.formats,
            described: line.described,
            wish: Wish { max_height: HEIGHT_DEFAULT, pinned: None },
            track: None,
            current: None,
            target: None,
            rewriter: Rewriter::new(line.kind, seed),
            rate: RateMeter::default(),
            told: None,
        }
    }
}

/// Counts messages over ten seconds: a burst is fine, a flood is not.
#[derive(Debug, Default)]
pub struct RateLimit {
    window_began: Option<Instant>,
    count: u32,
}

impl RateLimit {
    /// True when one more is within `per_second`, averaged over ten seconds.
    pub fn admits(&mut self, now: Instant, per_second: f64) -> bool {
        let began = *self.window_began.get_or_insert(now);
        if now.saturating_duration_since(began) >= RATE_WINDOW {
            self.window_began = Some(now);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        f64::from(self.count) <= per_second * RATE_WINDOW.as_secs_f64()
    }
}

#[derive(Debug)]
pub struct Participant {
    pub identity: Identity,
    pub name: String,
    pub grant: Grant,
    pub part: Part,
    pub session: SessionId,
    pub presence: Presence,
    /// In a branch: its seat at the home. Without being a lodger it has no connection here.
    pub origin: Option<ParticipantKey>,
    /// In a branch: its connection ends here, and its seat is at the home.
    pub lodger: Option<Box<Lodger>>,
    /// At the home: the branch in which its connection ends.
    pub via: Option<Site>,
    /// At the home, of one in the lobby: since when the way to its branch is lost. Its place waits.
    pub unreached_since: Option<Instant>,
    /// Likewise of a lodger: how its connection fares, as its branch said last.
    pub figures: Option<Box<ConnectionStats>>,
    pub joined_at_ms: u64,
    pub hand_raised: bool,
    pub lines: Vec<PublishedLine>,
    /// The track of each line, once it is published.
    pub line_tracks: Vec<Option<TrackKey>>,
    pub slots: Vec<Slot>,
    pub allocator: Allocator<usize>,
    /// The rates that its bandwidth estimator was last told to look out for: the next step's, and that of
    /// all wishes.
    pub goal: (u64, u64),
    /// Its connection can carry media.
    pub is_connected: bool,
    /// Its `control` channel is open: it can be told things.
    pub control_open: bool,
    pub welcomed: bool,
    /// How it wants the room; `None`: as the room has it.
    pub mode_wish: Option<Mode>,
    /// Whether it is better off with the mix, where it did not choose.
    pub advice: Advice,
    pub device_strained: bool,
    /// Whether it may be recorded, once it was asked.
    pub recording_consent: Option<bool>,
    /// Where in its file a player is.
    pub playing: Option<Playing>,
    /// Its slots carry the mix.
    pub is_mixed: bool,
    /// What it was last told of that.
    pub mode_told: (Mode, ModeReason),
    pub watches_stats: bool,
    /// Over the `control` channel, and not whole yet.
    pub small_file: Option<SmallFile>,
    pub stats_told_at: Option<Instant>,
    pub messages: RateLimit,
    /// Its slots may have to change.
    pub slots_stale: bool,
    /// Tracks that the publisher named by `publish`; until then its packets speak for themselves.
    pub names_tracks: bool,
}

/// What a branch knows of one whose seat is at the home, and whose connection ends in the branch.
#[derive(Debug, Default)]
pub struct Lodger {
    /// Of the room, when the home gave it its seat.
    pub epoch: u64,
    /// It has proved who it is.
    pub has_token: bool,
    /// What it has asked and was not answered yet, in order: said again where the way to the home was lost.
    pub unanswered: VecDeque<(Option<u64>, ClientMessage)>,
    /// What it asks waits until the home welcomes it again.
    pub is_cut_off: bool,
    /// Its tracks, as it named them last.
    pub tracks: Option<Vec<PublishedTrack>>,
    /// Lines without a name of which the home was told that packets come, a bit each.
    pub sends: u32,
}

/// Who was let into a room, as another node needs to know it that has the room later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub room: RoomName,
    /// When the room was opened, which stays when it moves: another room of the same name is another one.
    pub opened_at_ms: u64,
    /// Under which epoch the seat was taken. It counts under later ones alone.
    pub epoch: u64,
    pub identity: Identity,
    pub name: String,
    pub grant: Grant,
}

/// What is needed to seat a participant.
#[derive(Debug, Clone)]
pub struct Entrant {
    pub identity: Identity,
    pub name: String,
    pub grant: Grant,
    pub part: Part,
    pub session: SessionId,
    pub has_token: bool,
    /// It was let in before, at the node that had the room then: nothing is asked of it again.
    pub returns: bool,
    pub lines: Vec<PublishedLine>,
    pub slots: Vec<SlotLine>,
    /// Makes first sequence numbers and timestamps unpredictable.
    pub seed: u64,
}

impl Participant {
    pub fn new(entrant: Entrant, presence: Presence, joined_at_ms: u64, estimate_bps: u64) -> Self {
        let mut participant = Self {
            identity: entrant.identity,
            name: entrant.name,
            grant: entrant.grant,
            part: entrant.part,
            session: entrant.session,
            presence,
            origin: None,
            lodger: None,
            via: None,
            unreached_since: None,
            figures: None,
            joined_at_ms,
            hand_raised: false,
            lines: Vec::new(),
            line_tracks: Vec::new(),
            slots: Vec::new(),
            allocator: Allocator::new(estimate_bps),
            goal: (0, 0),
            is_connected: false,
            control_open: false,
            welcomed: false,
            mode_wish: None,
            advice: Advice::default(),
            device_strained: false,
            recording_consent: None,
            playing: None,
            is_mixed: false,
            mode_told: (Mode::Sfu, ModeReason::Room),
            watches_stats: false,
            small_file: None,
            stats_told_at: None,
            messages: RateLimit::default(),
            slots_stale: true,
            names_tracks: false,
        };
        participant.connect(entrant.lines, entrant.slots, entrant.seed);
        participant
    }

    /// Takes over the lines and slots of a new connection; wishes of slots with the same mid stay.
    pub fn connect(&mut self, lines: Vec<PublishedLine>, slots: Vec<SlotLine>, seed: u64) {
        let wishes: Vec<(Mid, Wish)> = self.slots.drain(..).map(|slot| (slot.mid, slot.wish)).collect();
        self.line_tracks = vec![None; lines.len()];
        self.lines = lines;
        let seeds = (0u64..).map(|n| seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        self.slots = slots.into_iter().zip(seeds).map(|(line, seed)| Slot::new(line, seed)).collect();
        for slot in &mut self.slots {
            if let Some((_, wish)) = wishes.iter().find(|(mid, _)| *mid == slot.mid) {
                slot.wish = wish.clone();
            }
        }
        self.slots_stale = true;
        self.names_tracks = false;
        self.is_mixed = false;
        self.mode_told = (Mode::Sfu, ModeReason::Room);
        self.goal = (0, 0);
        self.is_connected = false;
    }

    pub fn is_seen(&self) -> bool {
        !matches!(self.part, Part::Viewer { .. } | Part::Mixer | Part::Recorder)
            && self.presence != Presence::Waiting
    }

    /// Somebody who came here: no mixer, recorder or player, nor whoever sits at the room's home.
    pub fn is_person(&self) -> bool {
        !self.is_mirrored() && !matches!(self.part, Part::Mixer | Part::Recorder | Part::Player)
    }

    /// In a branch: somebody of the home's who has no connection here.
    pub fn is_mirrored(&self) -> bool {
        self.origin.is_some() && self.lodger.is_none()
    }

    /// Since when it is not connected, in the room or in its lobby.
    pub fn lost_since(&self) -> Option<Instant> {
        if let Presence::Lost { since } = self.presence { Some(since) } else { self.unreached_since }
    }

    pub fn is_here(&self) -> bool {
        self.presence != Presence::Waiting
    }

    pub fn may_receive(&self) -> bool {
        self.grant.subscribe && self.presence == Presence::Here
    }

    /// As it would be seated anew, who was let in before.
    pub fn as_entrant(&self) -> Entrant {
        Entrant {
            identity: self.identity.clone(),
            name: self.name.clone(),
            grant: self.grant,
            part: self.part.clone(),
            session: self.session,
            has_token: true,
            returns: true,
            lines: self.lines.clone(),
            slots: Vec::new(),
            seed: 0,
        }
    }

    /// The state that others see; tracks are the room's to add.
    pub fn state(&self) -> ParticipantState {
        ParticipantState {
            identity: self.identity.clone(),
            name: self.name.clone(),
            grant: self.grant,
            tracks: Vec::new(),
            hand_raised: self.hand_raised,
            connected: !matches!(self.presence, Presence::Lost { .. }),
            joined_at_ms: self.joined_at_ms,
            csrc: 0,
            recording_consent: self.recording_consent,
            playing: self.playing.clone(),
        }
    }
}
