//! The vocabulary of the log: what happened in a room, one [`Event`] each.
//!
//! Two events of a room with the same [`EventId`] are the same event, so appending again is harmless. Events
//! are read tolerantly: a body of a newer version is kept as it is in [`EventBody::Unknown`] and never an
//! error. Bodies carry chat text and names; do not log them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::files::FileState;
use super::ids::{Identity, MessageId, RoomName};
use super::ledger::Fact;
use super::protocol::{Access, ChatMessage, LeaveReason, Mode, RoomChange, Source};
use super::recording::{EndReason, RecordingId};

/// Names an event within its room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(String);

impl EventId {
    /// The sending of a message. Made from the client's id, so that a retry is the same event.
    pub fn of_message(id: &MessageId) -> Self {
        Self(format!("chat:{id}"))
    }

    /// The end of a message's file: it comes once, whoever notices it.
    pub fn of_expiry(id: &MessageId) -> Self {
        Self(format!("file-expired:{id}"))
    }

    /// The end of a recording: once.
    pub fn of_deleted_recording(id: &RecordingId) -> Self {
        Self(format!("recording-deleted:{id}"))
    }

    /// Of one that a room counted itself: under which epoch it was open then.
    pub fn room_epoch(&self) -> Option<u64> {
        self.room_place().map(|(epoch, _)| epoch)
    }

    /// Of one that a room counted itself: the epoch under which it was open then, and the number in it. They
    /// grow along the log.
    pub fn room_place(&self) -> Option<(u64, u64)> {
        let (epoch, number) = self.0.strip_prefix("room:")?.split_once('.')?;
        Some((epoch.parse().ok()?, number.parse().ok()?))
    }

    /// An id as the log stored it.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Counts out ids for events that no client names: `{kind}:{epoch}.{n}`.
///
/// The epoch tells apart the times a room was opened. [`RoomHistory::last_offset`](super::chat::RoomHistory)
/// serves: an earlier opening that used any id has moved it on.
#[derive(Debug, Clone)]
pub struct EventIds {
    kind: &'static str,
    epoch: u64,
    used: u64,
}

impl EventIds {
    /// Two counters of one room differ in `kind`, which is not `chat`.
    pub fn new(kind: &'static str, epoch: u64) -> Self {
        Self { kind, epoch, used: 0 }
    }

    pub fn next_id(&mut self) -> EventId {
        self.used += 1;
        EventId(format!("{}:{}.{}", self.kind, self.epoch, self.used))
    }
}

/// Something that happened in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: EventId,
    #[serde(deserialize_with = "RoomName::stored")]
    pub room: RoomName,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub body: EventBody,
}

impl Event {
    /// Under which name it has its order and its one writer in a shared log: its room's, and all that is
    /// about money under that of the ledger.
    pub fn stream(&self) -> RoomName {
        match self.body {
            EventBody::Ledger(_) => RoomName::ledger(),
            _ => self.room.clone(),
        }
    }

    /// The epoch under which its writer takes the stream over by it.
    pub fn opening_epoch(&self) -> Option<u64> {
        match &self.body {
            EventBody::RoomOpened { .. } => self.id.room_epoch(),
            EventBody::Ledger(fact) => fact.opening_epoch(),
            _ => None,
        }
    }
}

/// What happened. New fields are optional and new kinds are welcome; none ever changes its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum EventBody {
    #[serde(rename = "room.opened")]
    RoomOpened {
        mode: Mode,
        access: Access,
        /// Who made it; absent when the API did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    #[serde(rename = "room.closed")]
    RoomClosed { reason: CloseReason },
    #[serde(rename = "room.changed")]
    RoomChanged {
        change: RoomChange,
        /// Absent when the API did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    #[serde(rename = "participant.joined")]
    ParticipantJoined { identity: Identity, name: String },
    #[serde(rename = "participant.left")]
    ParticipantLeft { identity: Identity, reason: LeaveReason },
    #[serde(rename = "chat.sent")]
    ChatSent {
        message: MessageId,
        seq: u64,
        identity: Identity,
        name: String,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<Box<FileState>>,
    },
    #[serde(rename = "chat.edited")]
    ChatEdited { message: MessageId, by: Identity, text: String },
    #[serde(rename = "chat.deleted")]
    ChatDeleted { message: MessageId, by: Identity },
    #[serde(rename = "chat.reacted")]
    ChatReacted { message: MessageId, by: Identity, emoji: String, on: bool },
    /// The contents of a message's file are no longer kept.
    #[serde(rename = "file.expired")]
    FileExpired { message: MessageId },
    #[serde(rename = "recording.started")]
    RecordingStarted {
        recording: RecordingId,
        tracks: bool,
        mix: bool,
        /// Absent when the API did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    #[serde(rename = "recording.ended")]
    RecordingEnded {
        recording: RecordingId,
        reason: EndReason,
        /// Absent when the API did, or nobody.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    /// A participant said whether it may be recorded.
    #[serde(rename = "recording.consent")]
    RecordingConsent { identity: Identity, agreed: bool },
    /// A recording and all its files are no more.
    #[serde(rename = "recording.deleted")]
    RecordingDeleted {
        recording: RecordingId,
        /// Absent when its time was over, or a node without tokens was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    #[serde(rename = "moderated")]
    Moderated {
        action: Moderation,
        participant: Identity,
        /// Absent when the API did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Identity>,
    },
    /// About money.
    #[serde(untagged)]
    Ledger(Box<Fact>),
    /// Of a kind or form that this version does not know, as it was stored.
    #[serde(untagged)]
    Unknown(serde_json::Value),
}

impl EventBody {
    /// The chat message that this is about.
    pub fn message_id(&self) -> Option<&MessageId> {
        match self {
            Self::ChatSent { message, .. }
            | Self::ChatEdited { message, .. }
            | Self::ChatDeleted { message, .. }
            | Self::ChatReacted { message, .. }
            | Self::FileExpired { message } => Some(message),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// No one was in it for the set time.
    Empty,
    /// An admin or the API closed it.
    Closed,
    /// The node went down.
    Draining,
    /// It goes on at another node. Never in the log.
    Moved,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moderation {
    /// Silenced this track.
    Muted(Source),
    Removed,
    /// Let in from the lobby.
    Admitted,
    /// Turned away from the lobby.
    Denied,
}

/// The log's answer to one event: it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    pub id: EventId,
    /// Its place in the log. An event appended again answers with its first place.
    pub offset: u64,
    /// False when the log had an event of this id already, and kept that one.
    pub is_new: bool,
    /// For chat: the message it is about, as it stands after this event.
    pub message: Option<ChatMessage>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> EventBody {
        serde_json::from_value(value).expect("any object is a body")
    }

    #[test]
    fn a_body_survives_its_json() {
        let body = EventBody::ChatSent {
            message: MessageId::parse("m1").expect("plain"),
            seq: 7,
            identity: Identity::parse("Zoë").expect("a name"),
            name: "Zoë".into(),
            text: "<b>hi</b>\n\"you\"".into(),
            reply_to: None,
            file: None,
        };
        let stored = serde_json::to_value(&body).expect("a body is JSON");
        assert_eq!(stored["kind"], "chat.sent");
        assert_eq!(read(stored), body);
        let moderated = EventBody::Moderated {
            action: Moderation::Muted(Source::Microphone),
            participant: Identity::parse("a").expect("a name"),
            by: None,
        };
        assert_eq!(read(serde_json::to_value(&moderated).expect("a body is JSON")), moderated);
    }

    #[test]
    fn an_unknown_kind_or_field_is_kept_or_skipped() {
        let newer = json!({"kind": "chat.pinned", "message": "m1"});
        assert_eq!(read(newer.clone()), EventBody::Unknown(newer.clone()));
        assert_eq!(serde_json::to_value(EventBody::Unknown(newer.clone())).expect("JSON"), newer);
        let other_form = json!({"kind": "chat.edited", "message": "m1", "text": {"rich": true}});
        assert_eq!(read(other_form.clone()), EventBody::Unknown(other_form));
        let with_more = json!({"kind": "room.closed", "reason": "empty", "after_seconds": 3});
        assert_eq!(read(with_more), EventBody::RoomClosed { reason: CloseReason::Empty });
    }

    #[test]
    fn counted_ids_differ_between_openings_and_kinds() {
        let mut all = std::collections::BTreeSet::new();
        for (kind, epoch) in [("edit", 0), ("edit", 1), ("room", 0)] {
            let mut ids = EventIds::new(kind, epoch);
            all.extend((0..3).map(|_| ids.next_id()));
        }
        assert_eq!(all.len(), 9);
        assert_eq!(EventIds::new("room", 17).next_id().room_epoch(), Some(17));
        assert_eq!(EventIds::new("edit", 17).next_id().room_epoch(), None);
    }
}
