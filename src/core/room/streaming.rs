//! Streams of a room's programme: takers of the mix that are nobody in the room.
//!
//! While there is one the room has a mixer, whatever its mode: those in it go on as they are.

use super::{Audience, Now, Output, Room};
use crate::core::mix::{LINE_H264, LINE_SOUND, MixerOrder, ToMixer};
use crate::core::protocol::ServerMessage;
use crate::core::refusal::Refusal;
use crate::core::stream::{Takers, Track};

impl Room {
    /// Who takes the mix beside those in the room.
    pub fn takers(&self) -> Takers {
        Takers { hls: self.state.hls, restreams: self.state.restreams }
    }

    /// Streams began or ended; all are told.
    ///
    /// # Errors
    /// As of a room that is to be mixed: `unavailable`, `end_to_end_encrypted`.
    pub fn set_takers(&mut self, now: Now, takers: Takers) -> Result<(), Refusal> {
        let before = self.takers();
        if takers.any() {
            self.check_mixer()?;
        }
        if before == takers {
            return Ok(());
        }
        (self.state.hls, self.state.restreams) = (takers.hls, takers.restreams);
        self.mirror_is_stale = true;
        self.poll_mixing(now.instant);
        self.settle(now.instant);
        self.tell(Audience::All, ServerMessage::Room { room: self.state.clone() });
        Ok(())
    }

    /// A stream needs a key frame.
    pub fn ask_for_stream_keyframe(&mut self, track: Track) {
        if let (Some(_), Some(encoding)) = (self.mixer_seat(), track.encoding()) {
            let words = ToMixer::Keyframe { line: LINE_H264, encoding };
            self.outputs.push_back(Output::Mixer(MixerOrder::Tell(words)));
        }
    }

    /// Encodings of one of the mixer's lines that streams take, a bit each.
    pub(super) fn streamed(&self, line: u8) -> u32 {
        match line {
            LINE_H264 => self.takers().pictures(),
            LINE_SOUND => u32::from(self.takers().any()),
            _ => 0,
        }
    }
}
