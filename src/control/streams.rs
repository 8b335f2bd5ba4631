//! Streams of rooms, as the shell of streams asks for them.

use tokio::sync::{mpsc, oneshot};

use super::Control;
use super::placement::Ask;
use crate::core::ids::RoomName;
use crate::core::mix::MixPacket;
use crate::core::refusal::Refusal;
use crate::core::stream::Track;
use crate::mailbox;
use crate::media::shard::{RoomCommand, StreamCommand, StreamLink};

/// Packets that may wait for a stream: two seconds of pictures in both sizes and sound. Full: packets are
/// dropped, and a key frame is asked for.
const PACKETS_DEPTH: usize = 2_048;

impl Control {
    /// Has a room's mix copied: a mixer is started for it, if there is none. The copies end when the room
    /// does.
    ///
    /// # Errors
    /// `not_found`, `unavailable` without a mixer, `end_to_end_encrypted`.
    pub async fn open_stream(
        &self,
        room: &RoomName,
        serial: u64,
        is_hls: bool,
    ) -> Result<mpsc::Receiver<MixPacket>, Refusal> {
        let (packets, receiver) = mailbox::lossy(PACKETS_DEPTH);
        let link = StreamLink { serial, is_hls, packets };
        self.in_room(room, |reply| RoomCommand::Stream(StreamCommand::Open(link), reply)).await?;
        Ok(receiver)
    }

    /// # Errors
    /// `not_found`: the room is gone, and its streams with it.
    pub async fn close_stream(&self, room: &RoomName, serial: u64) -> Result<(), Refusal> {
        self.in_room(room, |reply| RoomCommand::Stream(StreamCommand::Close(serial), reply)).await
    }

    /// Asks for a key frame of a room's mix, without waiting. One that is lost is asked for again.
    pub fn ask_for_stream_keyframe(&self, room: &RoomName, track: Track) {
        let (reply, _) = oneshot::channel();
        let command = RoomCommand::Stream(StreamCommand::Keyframe(track), reply);
        let _ = self.asks.send(Ask::InRoom { room: room.clone(), command });
    }
}
