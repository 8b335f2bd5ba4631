//! Feeds in the room: participants without a connection, whose packets a process of the node makes.
//!
//! A file that is played is seen by all and counts as nobody: it keeps no room open. A stream that an encoder
//! pushes is a publisher like any that came by WHIP.

use super::{Now, ParticipantKey, Room};
use crate::core::feed::Playing;
use crate::core::participant::{Entrant, Part};
use crate::core::protocol::Source;
use crate::core::refusal::{Code, Refusal};

impl Room {
    /// Seats a feed, which publishes these sources, by the lines that carry them.
    ///
    /// # Errors
    /// As [`Room::handle_join`], `room_full` where as many publish as may, `end_to_end_encrypted`.
    pub fn seat_feed(
        &mut self,
        now: Now,
        entrant: Entrant,
        sources: &[(u8, Source)],
    ) -> Result<ParticipantKey, Refusal> {
        if self.state.e2ee {
            let words =
                "this room is encrypted end to end: what the server would send could not be read in it";
            return Err(Refusal::new(Code::EndToEndEncrypted, words));
        }
        if entrant.part == Part::Publisher {
            self.admit_publisher()?;
        }
        let key = self.handle_join(now, entrant)?;
        if let Some(participant) = self.participant_mut(key) {
            participant.is_connected = true;
            participant.names_tracks = true;
        }
        for &(line, source) in sources {
            self.add_track(key, usize::from(line), source);
        }
        self.announce(key);
        self.settle(now.instant);
        Ok(key)
    }

    /// Where in its file a player is; all are told.
    pub fn set_playing(&mut self, key: ParticipantKey, playing: Playing) {
        if let Some(participant) = self.participant_mut(key) {
            participant.playing = Some(playing);
            self.announce(key);
        }
    }
}

#[cfg(test)]
mod tests;
