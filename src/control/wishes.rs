//! What a room's owner wants of whichever node has the room: that it is streamed, pushed on, recorded, that a
//! film is played in it. It is kept with the room's settings, and the room's next node begins each again.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Control;
use super::placement::Ask;
use crate::core::event::EventBody;
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::recording::RecordingWish;
use crate::mailbox;
use crate::record::Recordings;

/// Rooms that came with wishes and wait for those to be begun. Full: they are not, and a warning says so.
const RESUMED_DEPTH: usize = 1_024;

/// See the module.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Streamed by HLS.
    #[serde(default)]
    pub hls: bool,
    /// Addresses that it is pushed to, with their keys, which are secret.
    #[serde(default)]
    pub restreams: Vec<String>,
    #[serde(default)]
    pub recording: Option<Recorded>,
    /// A picture lies behind its mix, and in the store of files.
    #[serde(default)]
    pub backdrop: bool,
    /// Files that are played, by their players' ids.
    #[serde(default)]
    pub plays: BTreeMap<String, Played>,
}

/// A file that is played, and where in it that is: it went on since, unless it is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Played {
    pub file: MessageId,
    pub paused: bool,
    pub position_ms: u64,
    /// Since the Unix epoch.
    pub at_ms: u64,
}

impl Played {
    /// Where it would be by now.
    pub fn position_ms(&self, now_ms: u64) -> u64 {
        let passed_ms = if self.paused { 0 } else { now_ms.saturating_sub(self.at_ms) };
        self.position_ms.saturating_add(passed_ms)
    }
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    tracks: bool,
    mix: bool,
    /// Who wants it; absent when the API did.
    by: Option<Identity>,
}

/// A wish that comes or goes.
#[derive(Clone)]
pub enum Wish {
    Hls(bool),
    /// By its whole address.
    Restream(String, bool),
    Recording(Option<Recorded>),
    Backdrop(bool),
    /// By the player's id.
    Play(String, Option<Played>),
}

/// A room that was at another node before, and what was wished for there.
pub struct Resumed {
    pub room: RoomName,
    pub wishes: Wishes,
}

impl fmt::Debug for Wishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hls, restreams, recording, backdrop, plays } = self;
        f.debug_struct("Wishes")
            .field("hls", hls)
            .field("restreams", &restreams.len())
            .field("recording", recording)
            .field("backdrop", backdrop)
            .field("plays", &plays.len())
            .finish()
    }
}

impl Wishes {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// True if that changes them.
    pub fn apply(&mut self, wish: Wish) -> bool {
        let before = self.clone();
        match wish {
            Wish::Hls(wanted) => self.hls = wanted,
            Wish::Restream(url, wanted) => {
                self.restreams.retain(|other| *other != url);
                self.restreams.extend(Some(url).filter(|_| wanted));
            }
            Wish::Recording(recording) => self.recording = recording,
            Wish::Backdrop(wanted) => self.backdrop = wanted,
            Wish::Play(id, Some(played)) => drop(self.plays.insert(id, played)),
            Wish::Play(id, None) => drop(self.plays.remove(&id)),
        }
        *self != before
    }
}

impl Wish {
    /// What an event of a room says about them.
    pub fn of(body: &EventBody) -> Option<Self> {
        match body {
            EventBody::RecordingStarted { tracks, mix, by, .. } => {
                let (tracks, mix, by) = (*tracks, *mix, by.clone());
                Some(Self::Recording(Some(Recorded { tracks, mix, by })))
            }
            EventBody::RecordingEnded { .. } => Some(Self::Recording(None)),
            _ => None,
        }
    }
}

impl Control {
    /// Keeps a wish with a room. Where the loop is overrun it is forgotten when the room moves.
    pub fn wish(&self, room: &RoomName, wish: Wish) {
        if self.asks.send(Ask::Wish { room: room.clone(), wish }).is_err() {
            tracing::warn!(room = %room, "what a room is to have at its next node could not be noted");
        }
    }

    /// Rooms that come with wishes from now on. To be called once.
    pub fn resumed(&self) -> mpsc::Receiver<Resumed> {
        let (sender, receiver) = mailbox::control(RESUMED_DEPTH);
        if self.resumed.set(sender).is_err() {
            tracing::warn!("nobody begins again what rooms had at other nodes: that is done twice");
        }
        receiver
    }

    /// Begins a room's recording again: a new one, as the node before has finished its own.
    pub async fn resume_recording(&self, room: &RoomName, wish: &Recorded, recordings: &Recordings) {
        let begun = async {
            let id = recordings.admit(room).await?;
            let Recorded { tracks, mix, by } = wish.clone();
            self.start_recording(room, RecordingWish { id, tracks, mix }, by).await
        };
        match begun.await {
            Ok(_) => tracing::info!(room = %room, "a recording goes on that another node began"),
            Err(refusal) => {
                tracing::warn!(room = %room, %refusal, "a recording of another node does not go on here");
                self.wish(room, Wish::Recording(None));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_come_and_go_and_show_no_key() {
        let mut wishes = Wishes::default();
        assert!(wishes.is_none());
        let url = |key| format!("rtmp://h/a/{key}");
        for (wish, changes) in [
            (Wish::Hls(true), true),
            (Wish::Hls(true), false),
            (Wish::Restream(url("secret"), true), true),
            (Wish::Restream(url("secret"), true), false),
            (Wish::Restream(url("other"), true), true),
            (Wish::Restream(url("secret"), false), true),
            (Wish::Restream(url("secret"), false), false),
            (Wish::Backdrop(true), true),
            (Wish::Backdrop(false), true),
        ] {
            assert_eq!(wishes.apply(wish), changes);
        }
        assert_eq!((wishes.hls, wishes.restreams.clone()), (true, vec![url("other")]));
        assert!(!format!("{wishes:?}").contains("other"));
        let played = Played {
            file: MessageId::parse("abcdefghijklmnopqrstuv").unwrap(),
            paused: false,
            position_ms: 5_000,
            at_ms: 1_000,
        };
        assert_eq!(played.position_ms(3_000), 7_000);
        assert_eq!(Played { paused: true, ..played.clone() }.position_ms(3_000), 5_000);
        assert!(wishes.apply(Wish::Play("7".into(), Some(played))));
        let kept = serde_json::to_string(&wishes).unwrap();
        assert_eq!(serde_json::from_str::<Wishes>(&kept).unwrap(), wishes);
        // Of a node that knew of none.
        assert!(serde_json::from_str::<Wishes>("{}").unwrap().is_none());
    }
}
