//! The messages of the `control` data channel, protocol `antiphon.v1`: one JSON object each, `{"type": …}`.
//!
//! `docs/PROTOCOL.md` tells the same in prose, and the client's `protocol.ts` is generated from these types.
//! A client ignores a type it does not know; the server refuses one with [`Code::UnknownType`]. Any client
//! message may carry `request`, which the server's `ok` or `error` repeats.

mod people;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::files::FileState;
use super::ids::{Identity, MessageId, RoomName};
use super::mix::colour::Colour;
use super::mix::layout::Layout;
pub use super::mode::ModeReason;
pub use super::recording::{ConsentRule, EndReason, RecordingId, RecordingState};
pub use super::refusal::{Code, Refusal};
pub use people::{Access, Grant, LeaveReason, ParticipantState, TrackState};

/// Name of the data channel's protocol, sent in its DCEP open (RFC 8832).
pub const PROTOCOL: &str = "antiphon.v1";
/// Label of the reliable, ordered channel that carries these messages.
pub const CONTROL_LABEL: &str = "control";
/// Label of the unordered, unreliable channel whose data is relayed as it is.
pub const LOSSY_LABEL: &str = "lossy";
/// A larger message is refused with [`Code::TooLarge`]; the connection lives on.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// A longer offer is refused unread. A browser that offers 25 pictures in all of its codecs has 130 kB.
pub const OFFER_BYTES_MAX: usize = 160 * 1024;

/// Forwarded as it is (SFU), or decoded and mixed (MCU).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Sfu,
    Mcu,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Audio,
    Video,
}

/// What a track shows. Its name is the track's id within its participant.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    Microphone,
    Camera,
    Screen,
    ScreenAudio,
    /// The picture of all, made by the room's mixer. Nobody else may publish it, nor [`Self::MixAudio`].
    Mix,
    MixAudio,
}

impl Source {
    pub fn kind(self) -> Kind {
        match self {
            Self::Microphone | Self::ScreenAudio | Self::MixAudio => Kind::Audio,
            Self::Camera | Self::Screen | Self::Mix => Kind::Video,
        }
    }

    pub fn is_mix(self) -> bool {
        matches!(self, Self::Mix | Self::MixAudio)
    }
}

/// The room as everyone in it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RoomState {
    pub name: RoomName,
    pub mode: Mode,
    /// Of the mixed picture.
    pub layout: Layout,
    /// Behind and between its tiles.
    pub background: Colour,
    /// There is a picture over that colour.
    pub has_backdrop: bool,
    /// Its people encrypt what they send with keys that the server has not: it forwards and cannot mix. Said
    /// when the room is made, for good.
    pub e2ee: bool,
    pub access: Access,
    /// Nobody new gets in but those with an admin grant.
    pub locked: bool,
    /// New people wait until an admin admits them.
    pub lobby: bool,
    pub participants_max: u32,
    /// The programme is streamed by HLS.
    pub hls: bool,
    /// Services that the programme is pushed to.
    pub restreams: u32,
    /// Milliseconds since the Unix epoch.
    #[cfg_attr(test, ts(type = "number"))]
    pub opened_at_ms: u64,
    /// The recording that runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub recording: Option<RecordingState>,
    /// Whether people are asked before they are recorded.
    #[serde(default)]
    pub recording_consent: ConsentRule,
}

impl RoomState {
    /// A room that forwards and is open to all who come, up to `participants_max`.
    pub fn new(name: RoomName, participants_max: u32, opened_at_ms: u64) -> Self {
        Self {
            name,
            mode: Mode::Sfu,
            layout: Layout::default(),
            background: Colour::default(),
            has_backdrop: false,
            e2ee: false,
            access: Access::Open,
            locked: false,
            lobby: false,
            participants_max,
            hls: false,
            restreams: 0,
            opened_at_ms,
            recording: None,
            recording_consent: ConsentRule::default(),
        }
    }
}

/// What a receive slot carries now. A slot with no `participant` is silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct SlotState {
    /// The client's m-line (RFC 5888 `mid`) that is this slot.
    pub mid: String,
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub participant: Option<Identity>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub source: Option<Source>,
    /// Bound, but nothing is sent: off screen, or no bandwidth for its lowest layer.
    pub paused: bool,
}

/// A wish for one video slot; a slot never wished for gets the default of 720 lines and an automatic track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct SlotWish {
    pub mid: String,
    /// Height in pixels at which the slot is shown; 0 for off screen: nothing is sent.
    pub max_height: u32,
    /// Pins a participant's track to the slot; absent, the room picks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub participant: Option<Identity>,
    /// With `participant`: which of its tracks. Default `camera`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub source: Option<Source>,
}

/// Says what one of the client's sending m-lines carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct PublishedTrack {
    pub mid: String,
    pub source: Source,
    #[serde(default)]
    pub muted: bool,
    /// Height in pixels of the fullest encoding, when known; lets layers be matched to slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub height: Option<u32>,
}

/// A chat message as it stands now, edits and reactions applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ChatMessage {
    pub id: MessageId,
    /// Its place in the room's one order, from 1.
    #[cfg_attr(test, ts(type = "number"))]
    pub seq: u64,
    pub identity: Identity,
    pub name: String,
    /// Plain text; empty once deleted. Never HTML.
    pub text: String,
    #[cfg_attr(test, ts(type = "number"))]
    pub sent_at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub edited_at_ms: Option<u64>,
    pub deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub reply_to: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub file: Option<Box<FileState>>,
    /// Emoji → who reacted with it.
    pub reactions: BTreeMap<String, Vec<Identity>>,
}

/// What one slot gets at the moment, for the stats panel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct SlotStats {
    pub mid: String,
    /// The RID or spatial layer being sent, such as `q`, `h`, `f` or `s1`; absent when nothing is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(test, ts(optional))]
    pub layer: Option<String>,
    #[cfg_attr(test, ts(type = "number"))]
    pub bitrate_bps: u64,
}

/// From the client to the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type")]
pub enum ClientMessage {
    /// Names what each sending m-line carries, and whether it is muted. Replaces what was said before.
    #[serde(rename = "publish")]
    Publish { tracks: Vec<PublishedTrack> },
    /// Wishes for some slots; the others keep theirs.
    #[serde(rename = "slots.wish")]
    SlotsWish { slots: Vec<SlotWish> },
    #[serde(rename = "chat.send")]
    ChatSend {
        id: MessageId,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional))]
        reply_to: Option<MessageId>,
    },
    /// By the author only.
    #[serde(rename = "chat.edit")]
    ChatEdit { id: MessageId, text: String },
    /// By the author or an admin.
    #[serde(rename = "chat.delete")]
    ChatDelete { id: MessageId },
    #[serde(rename = "chat.react")]
    ChatReact { id: MessageId, emoji: String, on: bool },
    #[serde(rename = "chat.typing")]
    ChatTyping { typing: bool },
    /// A small file in base64, in one or more parts that repeat all but `offset` and `data`. `ok` to each; to
    /// the last when the file is in the room.
    #[serde(rename = "file.send")]
    FileSend {
        id: MessageId,
        name: String,
        size_bytes: u32,
        /// Bytes of the file that lie before this part; without it, those that have come.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional))]
        offset: Option<u32>,
        data: String,
    },
    /// Messages before this `seq`, newest last; without it the newest. Answered by `chat.history`.
    #[serde(rename = "chat.history")]
    ChatHistory {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional, type = "number"))]
        before: Option<u64>,
    },
    /// A reaction to the moment, shown and forgotten.
    #[serde(rename = "react")]
    React { emoji: String },
    /// Changes what others see of me.
    #[serde(rename = "me.update")]
    MeUpdate {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional))]
        name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional))]
        hand_raised: Option<bool>,
    },
    /// Admins: silence a participant's tracks; without `source`, all its audio.
    #[serde(rename = "moderate.mute")]
    ModerateMute {
        participant: Identity,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional))]
        source: Option<Source>,
    },
    #[serde(rename = "moderate.remove")]
    ModerateRemove { participant: Identity },
    #[serde(rename = "moderate.admit")]
    ModerateAdmit { participant: Identity },
    #[serde(rename = "moderate.deny")]
    ModerateDeny { participant: Identity },
    /// Admins: change the room; what is absent stays.
    #[serde(rename = "room.update")]
    RoomUpdate(RoomChange),
    #[serde(rename = "room.close")]
    RoomClose,
    /// Admins: record the room; each track in a file of its own, the mix, or both.
    #[serde(rename = "recording.start")]
    RecordingStart { tracks: bool, mix: bool },
    #[serde(rename = "recording.stop")]
    RecordingStop,
    /// Admins: a chapter of the recording begins here.
    #[serde(rename = "recording.mark")]
    RecordingMark { title: String },
    /// Whether I may be recorded. Lasts until the recording ends, or I say otherwise.
    #[serde(rename = "recording.consent")]
    RecordingConsent { agreed: bool },
    /// How I want the room: forwarded, or mixed. Without `mode` as the room has it.
    #[serde(rename = "mode.choose")]
    ModeChoose {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(test, ts(optional))]
        mode: Option<Mode>,
    },
    /// My device cannot keep up with the pictures that I get, or can again.
    #[serde(rename = "device.strained")]
    DeviceStrained { strained: bool },
    /// Turns the server's `stats` messages on or off.
    #[serde(rename = "stats.watch")]
    StatsWatch { on: bool },
    #[serde(rename = "ping")]
    Ping,
}

/// A change of a room's settings; absent fields stay. The body of `PATCH /v1/rooms/{room}` too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct RoomChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub layout: Option<Layout>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub background: Option<Colour>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub access: Option<Access>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub locked: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub lobby: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub participants_max: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub recording_consent: Option<ConsentRule>,
}

/// A client's message with the number by which its answer is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    #[serde(flatten)]
    pub message: ClientMessage,
}

/// From the server to the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "type")]
pub enum ServerMessage {
    /// First message once in the room: everything there is to know. Sent again after a resume.
    #[serde(rename = "welcome")]
    Welcome {
        protocol: String,
        room: RoomState,
        me: Identity,
        participants: Vec<ParticipantState>,
        slots: Vec<SlotState>,
        /// The newest messages, oldest first.
        messages: Vec<ChatMessage>,
        /// There are older messages than these.
        more_messages: bool,
        /// Identities waiting in the lobby; empty but for admins.
        knocking: Vec<Identity>,
        /// Seconds during which a lost connection may resume.
        resume_seconds: u32,
    },
    /// First message when the room has a lobby: wait for `welcome` or `removed`.
    #[serde(rename = "waiting")]
    Waiting { room: RoomName },
    #[serde(rename = "room")]
    Room { room: RoomState },
    #[serde(rename = "participant.joined")]
    ParticipantJoined { participant: ParticipantState },
    #[serde(rename = "participant.updated")]
    ParticipantUpdated { participant: ParticipantState },
    #[serde(rename = "participant.left")]
    ParticipantLeft { identity: Identity, reason: LeaveReason },
    /// The slots that changed.
    #[serde(rename = "slots")]
    Slots { slots: Vec<SlotState> },
    /// How I get the room from now on. In `mcu` one video slot has the source `mix`, the others are silent.
    #[serde(rename = "mode")]
    Mode { mode: Mode, reason: ModeReason },
    /// Who is heard, loudest first; empty when nobody is.
    #[serde(rename = "speakers")]
    Speakers { speakers: Vec<Identity> },
    /// To a publisher: which encodings (RIDs) of its m-line somebody takes. Pause the others.
    #[serde(rename = "layers")]
    Layers { mid: String, active: Vec<String> },
    /// A message that is new, edited, deleted or reacted to: put it in place of the one with its id.
    #[serde(rename = "chat.message")]
    ChatMessage { message: ChatMessage },
    #[serde(rename = "chat.history")]
    ChatHistory { messages: Vec<ChatMessage>, more: bool },
    #[serde(rename = "chat.typing")]
    ChatTyping { identity: Identity, typing: bool },
    #[serde(rename = "react")]
    React { identity: Identity, emoji: String },
    /// To admins: somebody waits in the lobby.
    #[serde(rename = "knock")]
    Knock { identity: Identity, name: String },
    /// To admins: who knocked was admitted, denied or went away.
    #[serde(rename = "knock.gone")]
    KnockGone { identity: Identity },
    /// An admin muted this track of mine; unmute it with `publish`.
    #[serde(rename = "muted")]
    Muted { source: Source, by: Identity },
    /// The room is not recorded any more.
    #[serde(rename = "recording.ended")]
    RecordingEnded {
        id: RecordingId,
        reason: EndReason,
        /// Who stopped it; absent when nobody in the room did.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        #[cfg_attr(test, ts(optional))]
        by: Option<Identity>,
    },
    /// My paid time ends, and this invoice is for more of it.
    #[serde(rename = "renewal.due")]
    RenewalDue {
        invoice: String,
        /// What is to be paid, in satoshis.
        #[cfg_attr(test, ts(type = "number"))]
        amount_sat: u64,
        #[cfg_attr(test, ts(type = "number"))]
        ends_at_ms: u64,
    },
    /// The last message of this connection.
    #[serde(rename = "removed")]
    Removed { reason: LeaveReason },
    #[serde(rename = "stats")]
    Stats {
        /// Send-side bandwidth estimate towards this client.
        #[cfg_attr(test, ts(type = "number"))]
        estimate_bps: u64,
        slots: Vec<SlotStats>,
    },
    #[serde(rename = "pong")]
    Pong {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        #[cfg_attr(test, ts(optional, type = "number"))]
        request: Option<u64>,
    },
    #[serde(rename = "ok")]
    Ok {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        #[cfg_attr(test, ts(optional, type = "number"))]
        request: Option<u64>,
    },
    #[serde(rename = "error")]
    Error {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        #[cfg_attr(test, ts(optional, type = "number"))]
        request: Option<u64>,
        code: Code,
        message: String,
    },
}
