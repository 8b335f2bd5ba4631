//! The simulated log: what was appended, once each, and the messages that it makes.

use std::collections::BTreeMap;

use antiphon::core::chat::apply;
use antiphon::core::event::{Appended, Event};
use antiphon::core::ids::MessageId;
use antiphon::core::protocol::ChatMessage;

#[derive(Default)]
pub struct Log {
    events: Vec<Event>,
    messages: BTreeMap<MessageId, ChatMessage>,
}

impl Log {
    pub fn append(&mut self, event: Event) -> Appended {
        let known = self.events.iter().position(|known| known.id == event.id);
        let offset = known.unwrap_or(self.events.len()) as u64 + 1;
        let id = event.id.clone();
        let mut message = None;
        if let Some(about) = event.body.message_id().cloned() {
            message = self.messages.get(&about).cloned();
            if known.is_none() {
                message = apply(message, &event);
                if let Some(message) = &message {
                    self.messages.insert(about, message.clone());
                }
            }
        }
        if known.is_none() {
            self.events.push(event);
        }
        Appended { id, offset, is_new: known.is_none(), message }
    }

    pub fn message(&self, id: &MessageId) -> Option<ChatMessage> {
        self.messages.get(id).cloned()
    }
}
