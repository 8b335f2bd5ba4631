//! The ways to a room's streams: copies of what its mixer makes.

use super::{RoomSeat, Shard};
use crate::core::mix::MixPacket;
use crate::core::refusal::{Code, Refusal};
use crate::core::room::Now;
use crate::core::stream::{Takers, Track};
use crate::mailbox::LossySender;
use crate::media::peer::RoomIndex;

/// Of one room. The shell of streams allows fewer.
const STREAMS_MAX: usize = 32;

/// What is asked about a room's streams.
#[derive(Debug)]
pub enum StreamCommand {
    Open(StreamLink),
    /// By its serial.
    Close(u64),
    Keyframe(Track),
}

/// The way to a stream.
#[derive(Debug)]
pub struct StreamLink {
    pub serial: u64,
    /// HLS, else a restream.
    pub is_hls: bool,
    pub packets: LossySender<MixPacket>,
}

impl RoomSeat {
    /// # Errors
    /// `unavailable`, `end_to_end_encrypted`.
    pub(super) fn handle_stream(&mut self, now: Now, command: StreamCommand) -> Result<(), Refusal> {
        match command {
            StreamCommand::Open(_) if self.streams.len() >= STREAMS_MAX => {
                Err(Refusal::new(Code::Unavailable, "the room has too many streams"))
            }
            StreamCommand::Open(link) => {
                self.streams.push(link);
                let told = self.tell_takers(now);
                if told.is_err() {
                    self.streams.pop();
                }
                told
            }
            StreamCommand::Close(serial) => {
                self.streams.retain(|link| link.serial != serial);
                self.tell_takers(now)
            }
            StreamCommand::Keyframe(track) => {
                self.room.ask_for_stream_keyframe(track);
                Ok(())
            }
        }
    }

    fn tell_takers(&mut self, now: Now) -> Result<(), Refusal> {
        let hls = self.streams.iter().any(|link| link.is_hls);
        let restreams = self.streams.iter().filter(|link| !link.is_hls).count() as u32;
        self.room.set_takers(now, Takers { hls, restreams })
    }
}

impl Shard {
    /// Copies a packet of the mix for those streams that take it. One that does not keep up loses it, and
    /// asks for a key frame.
    pub(super) fn stream_out(&mut self, index: RoomIndex, packet: &MixPacket) {
        let Some(track) = Track::of(packet) else { return };
        let Some(seat) = self.rooms.get(index.0 as usize).and_then(Option::as_ref) else { return };
        for link in seat.streams.iter().filter(|link| link.is_hls || track != Track::Low) {
            link.packets.send(packet.clone());
        }
    }
}
