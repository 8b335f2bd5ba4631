//! The room's chat between its people and the log.

use super::commands::Answer;
use super::{Audience, Now, Output, ParticipantKey, Room};
use crate::core::chat::{Asker, Author, ChatCommand, ChatOutput, MessagePage};
use crate::core::event::{Appended, EventId};
use crate::core::ids::MessageId;
use crate::core::protocol::{ChatMessage, ClientMessage, ServerMessage};
use crate::core::refusal::{Code, Refusal};

/// A page of history in one message, beside what else a `welcome` carries.
pub(super) const HISTORY_BYTES_MAX: usize = 40 * 1024;

impl Room {
    pub(super) fn chat(
        &mut self,
        now: Now,
        key: ParticipantKey,
        request: Option<u64>,
        message: ClientMessage,
    ) -> Result<Answer, Refusal> {
        let Some(participant) = self.participant(key) else { return Ok(Answer::Later) };
        if !participant.grant.chat {
            return Err(Refusal::new(Code::Forbidden, "your grant does not let you chat"));
        }
        let author = Author {
            identity: participant.identity.clone(),
            name: participant.name.clone(),
            is_admin: participant.grant.admin,
        };
        let command = match message {
            ClientMessage::ChatSend { id, text, reply_to } => ChatCommand::Send { id, text, reply_to },
            ClientMessage::ChatEdit { id, text } => ChatCommand::Edit { id, text },
            ClientMessage::ChatDelete { id } => ChatCommand::Delete { id },
            ClientMessage::ChatReact { id, emoji, on } => ChatCommand::React { id, emoji, on },
            _ => return Err(Refusal::new(Code::Internal, "not a chat command")),
        };
        if let Some(chat) = &mut self.chat {
            chat.handle_command(now.unix_ms, author, request, command);
        }
        self.drain_chat();
        Ok(Answer::Later)
    }

    /// The log has an event.
    pub fn handle_appended(&mut self, appended: Appended) {
        if let Some(chat) = &mut self.chat {
            chat.handle_appended(appended);
        }
        self.drain_chat();
    }

    /// The log could not take an event.
    pub fn handle_append_failed(&mut self, id: &EventId) {
        if let Some(chat) = &mut self.chat {
            chat.handle_append_failed(id);
        }
        self.drain_chat();
    }

    /// The log was asked for a message and has answered: with it, with nothing, or with a failure.
    pub fn handle_message_read(&mut self, now: Now, id: &MessageId, read: Result<Option<ChatMessage>, ()>) {
        if let Some(chat) = &mut self.chat {
            match read {
                Ok(stored) => chat.handle_read(now.unix_ms, id, stored),
                Err(()) => chat.handle_read_failed(id),
            }
        }
        self.drain_chat();
    }

    /// The log was asked for older messages.
    pub fn handle_history_read(&mut self, key: ParticipantKey, page: Result<MessagePage, Refusal>) {
        match page {
            Ok(page) => {
                let MessagePage { messages, more } = page.keep_newest(HISTORY_BYTES_MAX);
                self.tell(Audience::One(key), ServerMessage::ChatHistory { messages, more });
            }
            Err(refusal) => self.refuse(key, None, refusal),
        }
    }

    pub(super) fn typing(&mut self, key: ParticipantKey, typing: bool) -> Result<(), Refusal> {
        let Some(participant) = self.participant(key) else { return Ok(()) };
        if !participant.grant.chat {
            return Err(Refusal::new(Code::Forbidden, "your grant does not let you chat"));
        }
        let identity = participant.identity.clone();
        self.tell(Audience::AllBut(key), ServerMessage::ChatTyping { identity, typing });
        Ok(())
    }

    fn drain_chat(&mut self) {
        while let Some(output) = self.chat.as_mut().and_then(|chat| chat.poll_output()) {
            match output {
                ChatOutput::Append(event) => self.outputs.push_back(Output::Append(event)),
                ChatOutput::Read(id) => self.outputs.push_back(Output::ReadMessage(id)),
                ChatOutput::Publish(message) => {
                    self.tell(Audience::All, ServerMessage::ChatMessage { message });
                }
                ChatOutput::Ack(asker) => self.answer(&asker, Ok(())),
                ChatOutput::Refuse(asker, refusal) => self.answer(&asker, Err(refusal)),
            }
        }
    }

    fn answer(&mut self, asker: &Asker, result: Result<(), Refusal>) {
        let Some(&key) = self.by_identity.get(&asker.identity) else { return };
        match result {
            Ok(()) => self.tell(Audience::One(key), ServerMessage::Ok { request: asker.request }),
            Err(refusal) => self.refuse(key, asker.request, refusal),
        }
    }
}
