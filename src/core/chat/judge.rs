//! Who may do what to which message.

use super::history::{has_room_for, is_emoji};
use super::{Author, Chat, ChatCommand, apply};
use crate::core::event::EventBody;
use crate::core::files::FileState;
use crate::core::ids::MessageId;
use crate::core::protocol::ChatMessage;
use crate::core::refusal::{Code, Refusal};

/// What is known of a message.
enum Known {
    /// As it will stand when all that is pending is durable.
    Here(Box<ChatMessage>),
    Absent,
    /// Older than the window: ask the log.
    Unread,
}

/// How a command ends for now.
pub(super) enum Admitted {
    Append(EventBody),
    /// It is so already, or will be when what is pending on this message is durable.
    Already(MessageId),
    Read(MessageId),
}

impl Chat {
    /// Whether a command may be, given the message as it will stand.
    pub(super) fn judge(
        &self,
        author: &Author,
        command: &ChatCommand,
        stored: Option<&Option<ChatMessage>>,
    ) -> Result<Admitted, Refusal> {
        match command {
            ChatCommand::Send { id, text, reply_to } => self.judge_send(author, id, text, reply_to, stored),
            ChatCommand::SendFile { id, file } => self.judge_file(author, id, file),
            ChatCommand::ExpireFile { id } => self.judge_change(id, stored, |message| {
                let is_kept = message.file.as_ref().is_some_and(|file| !file.expired);
                Ok(is_kept.then(|| EventBody::FileExpired { message: id.clone() }))
            }),
            ChatCommand::Edit { id, text } => self.judge_change(id, stored, |message| {
                let text = self.checked_text(text)?;
                if message.identity != author.identity {
                    return Err(Refusal::new(Code::Forbidden, "only its author edits a message"));
                }
                Ok((message.text != text).then(|| EventBody::ChatEdited {
                    message: id.clone(),
                    by: author.identity.clone(),
                    text,
                }))
            }),
            ChatCommand::Delete { id } => self.judge_delete(author, id, stored),
            ChatCommand::React { id, emoji, on } => self.judge_change(id, stored, |message| {
                if !is_emoji(emoji) {
                    return Err(Refusal::new(Code::Malformed, "a reaction is one emoji"));
                }
                let is_on = message.reactions.get(emoji).is_some_and(|by| by.contains(&author.identity));
                if *on && !is_on && !has_room_for(message, emoji) {
                    return Err(Refusal::new(
                        Code::RateLimited,
                        "this message has all the reactions it can have",
                    ));
                }
                Ok((is_on != *on).then(|| EventBody::ChatReacted {
                    message: id.clone(),
                    by: author.identity.clone(),
                    emoji: emoji.clone(),
                    on: *on,
                }))
            }),
        }
    }

    fn judge_send(
        &self,
        author: &Author,
        id: &MessageId,
        text: &str,
        reply_to: &Option<MessageId>,
        stored: Option<&Option<ChatMessage>>,
    ) -> Result<Admitted, Refusal> {
        // An id older than the window is left to the log, which knows it and answers with its first message.
        if let Known::Here(message) = self.latest(id, None) {
            if message.identity != author.identity {
                return Err(id_taken());
            }
            return Ok(Admitted::Already(id.clone()));
        }
        let text = self.checked_text(text)?;
        if let Some(target) = reply_to {
            match self.latest(target, stored) {
                Known::Here(_) => {}
                Known::Absent => return Err(no_message()),
                Known::Unread => return Ok(Admitted::Read(target.clone())),
            }
        }
        Ok(Admitted::Append(EventBody::ChatSent {
            message: id.clone(),
            seq: self.last_seq.saturating_add(1),
            identity: author.identity.clone(),
            name: author.name.clone(),
            text,
            reply_to: reply_to.clone(),
            file: None,
        }))
    }

    fn judge_file(&self, author: &Author, id: &MessageId, file: &FileState) -> Result<Admitted, Refusal> {
        if let Known::Here(message) = self.latest(id, None) {
            if message.identity != author.identity {
                return Err(id_taken());
            }
            return Ok(Admitted::Already(id.clone()));
        }
        Ok(Admitted::Append(EventBody::ChatSent {
            message: id.clone(),
            seq: self.last_seq.saturating_add(1),
            identity: author.identity.clone(),
            name: author.name.clone(),
            text: String::new(),
            reply_to: None,
            file: Some(Box::new(file.clone())),
        }))
    }

    fn judge_delete(
        &self,
        author: &Author,
        id: &MessageId,
        stored: Option<&Option<ChatMessage>>,
    ) -> Result<Admitted, Refusal> {
        match self.latest(id, stored) {
            Known::Absent => Err(no_message()),
            Known::Unread => Ok(Admitted::Read(id.clone())),
            Known::Here(message) if message.identity != author.identity && !author.is_admin => {
                Err(Refusal::new(Code::Forbidden, "only its author or an admin deletes a message"))
            }
            Known::Here(message) if message.deleted => Ok(Admitted::Already(id.clone())),
            Known::Here(_) => Ok(Admitted::Append(EventBody::ChatDeleted {
                message: id.clone(),
                by: author.identity.clone(),
            })),
        }
    }

    /// Judges a change of a message that is not deleted; `None` from `change` means that it is so already.
    fn judge_change(
        &self,
        id: &MessageId,
        stored: Option<&Option<ChatMessage>>,
        change: impl FnOnce(&ChatMessage) -> Result<Option<EventBody>, Refusal>,
    ) -> Result<Admitted, Refusal> {
        match self.latest(id, stored) {
            Known::Absent => Err(no_message()),
            Known::Unread => Ok(Admitted::Read(id.clone())),
            Known::Here(message) if message.deleted => {
                Err(Refusal::new(Code::NotFound, "this message was deleted"))
            }
            Known::Here(message) => {
                Ok(change(&message)?.map_or_else(|| Admitted::Already(id.clone()), Admitted::Append))
            }
        }
    }

    /// A message with all that is pending applied.
    fn latest(&self, id: &MessageId, stored: Option<&Option<ChatMessage>>) -> Known {
        let seen = self.seq_of.get(id).and_then(|seq| self.visible.get(seq));
        let base = seen.or_else(|| stored.and_then(Option::as_ref).filter(|message| message.id == *id));
        let latest = self
            .pending
            .values()
            .filter(|pending| pending.event.body.message_id() == Some(id))
            .fold(base.cloned(), |message, pending| apply(message, &pending.event));
        match latest {
            Some(message) => Known::Here(Box::new(message)),
            None if stored.is_some() || !self.more => Known::Absent,
            None => Known::Unread,
        }
    }

    fn checked_text(&self, text: &str) -> Result<String, Refusal> {
        let text = text.replace("\r\n", "\n");
        let text = text.trim();
        if text.is_empty() {
            return Err(Refusal::new(Code::Malformed, "a message has text"));
        }
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            return Err(Refusal::new(
                Code::Malformed,
                "a message has no control characters but newline and tab",
            ));
        }
        if text.chars().count() > self.chars_max {
            let words = format!("a message has at most {} characters", self.chars_max);
            return Err(Refusal::new(Code::TooLarge, words));
        }
        Ok(text.to_owned())
    }
}

pub(super) fn no_message() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such message")
}

pub(super) fn id_taken() -> Refusal {
    Refusal::new(Code::Forbidden, "another's message has this id; send with a new one")
}

pub(super) fn not_stored() -> Refusal {
    Refusal::new(Code::Unavailable, "messages cannot be stored now; try again")
}
