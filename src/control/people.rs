//! What is done to one participant of a room: sent away, told something, silenced.

use super::{Control, no_room};
use crate::core::ids::{Identity, RoomName};
use crate::core::protocol::{ServerMessage, Source};
use crate::core::refusal::Refusal;
use crate::media::shard::RoomCommand;

impl Control {
    /// # Errors
    /// `not_found`.
    pub async fn remove_participant(
        &self,
        room: &RoomName,
        identity: &Identity,
        by: &Identity,
    ) -> Result<(), Refusal> {
        let (identity, by) = (identity.clone(), by.clone());
        let remove = |reply| RoomCommand::Remove { identity: identity.clone(), by: by.clone(), reply };
        // A viewer may be on any of the room's shards, and one who proved nothing on several.
        let answers = self.on_all_shards(room, remove).await?;
        answers.into_iter().reduce(Result::or).unwrap_or_else(|| Err(no_room()))
    }

    /// Tells one participant something.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn tell_participant(
        &self,
        room: &RoomName,
        identity: &Identity,
        message: &ServerMessage,
    ) -> Result<(), Refusal> {
        let tell = |reply| RoomCommand::Tell {
            identity: identity.clone(),
            message: Box::new(message.clone()),
            reply,
        };
        let answers = self.on_all_shards(room, tell).await?;
        answers.into_iter().reduce(Result::or).unwrap_or_else(|| Err(no_room()))
    }

    /// Without a `source`, all of its audio.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn mute_participant(
        &self,
        room: &RoomName,
        identity: &Identity,
        source: Option<Source>,
        by: &Identity,
    ) -> Result<(), Refusal> {
        let (identity, by) = (identity.clone(), by.clone());
        self.in_room(room, |reply| RoomCommand::Mute { identity, source, by, reply }).await
    }
}
