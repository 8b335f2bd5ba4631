//! What clients make of what they are told, and what the log answers.

use antiphon::core::protocol::ServerMessage;
use antiphon::core::room::ParticipantKey;
use rand::RngExt;

use super::World;

impl World {
    pub(super) fn told(&mut self, key: ParticipantKey, message: &ServerMessage) {
        let Some(client) = self.clients.iter_mut().find(|client| client.key == key) else { return };
        match message {
            ServerMessage::Welcome { messages, .. } => {
                if !client.in_room {
                    client.in_room = true;
                    self.checker.reached.count("admitted");
                }
                self.checker.welcomed(&client.identity, messages);
            }
            ServerMessage::ChatMessage { message } => {
                let identity = client.identity.clone();
                self.checker.shown(&identity, message);
            }
            ServerMessage::Layers { .. } => self.checker.reached.count("layers told"),
            _ => {}
        }
    }

    /// The log answers, in its order, a while later; at times it fails.
    pub(super) fn answer_appends(&mut self) {
        while self.appends.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, event)) = self.appends.pop_front() else { return };
            if self.rng.random_bool(0.05) {
                if event.body.message_id().is_some() {
                    self.checker.reached.count("chat not stored");
                }
                self.room.handle_append_failed(&event.id);
            } else {
                let appended = self.log.append(event);
                self.room.handle_appended(appended);
            }
            self.drain();
        }
    }
}
