//! A room's recorder as its shard knows it: what it is sent, and what becomes of what it says.

use std::time::Instant;

use super::worker::WorkerLink;
use super::{Notice, Shard};
use crate::core::chat::Asker;
use crate::core::ids::Identity;
use crate::core::recording::{FromRecorder, RecorderOrder, RecordingWish, ToRecorder};
use crate::core::refusal::{Code, Refusal};
use crate::media::peer::RoomIndex;

pub type RecorderLink = WorkerLink<ToRecorder>;

/// A participant wants a recording.
#[derive(Debug)]
pub struct RecordingAsked {
    pub asker: Asker,
    pub tracks: bool,
    pub mix: bool,
    pub by: Identity,
}

impl Shard {
    /// Carries out what a room has decided about its recorder.
    pub(super) fn order_recorder(&mut self, now: Instant, index: RoomIndex, order: RecorderOrder) {
        let shard = self.around.id;
        let Some(seat) = self.seat_mut(index) else { return };
        let done = match order {
            RecorderOrder::Start(settings) => {
                let epoch = seat.epoch;
                self.notify(Notice::StartRecorder { shard, epoch, settings })
            }
            // A recorder that is just going is told nothing; the room hears of it.
            RecorderOrder::Tell(words) => {
                seat.recorder.as_ref().is_none_or(|recorder| recorder.words.send(words).is_ok())
            }
            RecorderOrder::Stop => {
                seat.recorder = None;
                true
            }
        };
        if !done {
            let stamp = self.stamp(now);
            if let Some(seat) = self.seat_mut(index) {
                seat.recorder = None;
                seat.room.handle_recorder(stamp, FromRecorder::Gone);
            }
        }
    }

    /// The room's recorder was started.
    pub(super) fn handle_recorder_link(&mut self, index: RoomIndex, link: RecorderLink) {
        if let Some(seat) = self.seat_mut(index).filter(|seat| seat.room.awaits_recorder()) {
            seat.recorder = Some(link);
        }
    }

    pub(super) fn handle_recorder_news(
        &mut self,
        now: Instant,
        index: RoomIndex,
        serial: u64,
        news: FromRecorder,
    ) {
        let stamp = self.stamp(now);
        let Some(seat) = self.seat_mut(index) else { return };
        if seat.recorder.as_ref().is_some_and(|recorder| recorder.serial == serial) {
            seat.room.handle_recorder(stamp, news);
        }
    }

    /// A participant wants a recording: whether there is room for one is not for a shard to say.
    pub(super) fn ask_for_recording(&mut self, now: Instant, index: RoomIndex, asked: RecordingAsked) {
        let shard = self.around.id;
        let stamp = self.stamp(now);
        let Some(seat) = self.seat_mut(index) else { return };
        let room = seat.room.name().clone();
        let (asker, by) = (asked.asker.clone(), asked.by.clone());
        if !self.notify(Notice::AskRecording { shard, room, asked })
            && let Some(seat) = self.seat_mut(index)
        {
            let words = "the node has too much to do: try again in a moment";
            let refusal = Refusal::new(Code::Unavailable, words);
            seat.room.handle_recording_wish(stamp, &asker, Err::<RecordingWish, _>(refusal), by);
        }
    }
}
