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
/// Commands from outside that wait for the room's history. Full: refused, and asked again.
const SAID_EARLY_MAX: usize = 256;

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
        let asker = Asker::Participant { identity: author.identity.clone(), request };
        if let Some(chat) = &mut self.chat {
            chat.handle_command(now.unix_ms, asker, author, command);
        }
        self.drain_chat();
        Ok(Answer::Later)
    }

    /// Something is said from outside the room: a finished upload, a deletion by HTTP. Answered by
    /// [`Output::Said`] with the same number, once it is durable.
    pub fn handle_said(&mut self, now: Now, number: u64, author: Author, command: ChatCommand) {
        let asker = Asker::Outside(number);
        match &mut self.chat {
            Some(chat) => chat.handle_command(now.unix_ms, asker, author, command),
            None if self.said_early.len() < SAID_EARLY_MAX => self.said_early.push((number, author, command)),
            None => {
                let words = "the room is being opened; try again in a moment";
                self.answer(&asker, Err(Refusal::new(Code::Unavailable, words)));
            }
        }
        self.drain_chat();
    }

    /// What was said before the room's history was there.
    pub(super) fn take_what_was_said(&mut self, now: Now) {
        for (number, author, command) in std::mem::take(&mut self.said_early) {
            self.handle_said(now, number, author, command);
        }
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
                    self.record_message(&message);
                    self.tell(Audience::All, ServerMessage::ChatMessage { message });
                }
                ChatOutput::Ack(asker) => self.answer(&asker, Ok(())),
                ChatOutput::Refuse(asker, refusal) => self.answer(&asker, Err(refusal)),
            }
        }
    }

    pub(super) fn answer(&mut self, asker: &Asker, result: Result<(), Refusal>) {
        let (identity, request) = match asker {
            Asker::Participant { identity, request } => (identity, *request),
            Asker::Outside(number) => {
                return self.outputs.push_back(Output::Said { number: *number, result });
            }
        };
        let Some(&key) = self.by_identity.get(identity) else { return };
        match result {
            Ok(()) => self.tell(Audience::One(key), ServerMessage::Ok { request }),
            Err(refusal) => self.refuse(key, request, refusal),
        }
    }
}
