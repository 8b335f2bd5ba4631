//! A room's chat: who may say what, in which order, and what everyone sees.
//!
//! The room gives each message its `seq`, from 1; a message that could not be stored leaves a gap. A command
//! becomes an event to append; what it does is seen, by all in the order of admission, once the log says that
//! it is durable, and only then acknowledged. The log's answer carries the message as it stands, made by
//! [`apply`], so what is shown live and what is read back later are the same.
//!
//! A message id belongs to the room: sent again by its author it is the same message, by another it is
//! refused. In memory are the newest [`WINDOW`] messages; a command about an older one waits for
//! [`ChatOutput::Read`]. Text is text: nothing here knows markup. Rates and grants are checked by the caller.

mod history;
mod judge;

use std::collections::{BTreeMap, VecDeque};

pub use history::{
    EMOJI_PER_MESSAGE_MAX, HistoryRange, MessagePage, REACTIONS_PER_MESSAGE_MAX, RoomHistory, WINDOW, apply,
    is_emoji,
};

use self::judge::{Admitted, id_taken, no_message, not_stored};
use super::event::{Appended, Event, EventBody, EventId, EventIds};
use super::files::FileState;
use super::ids::{Identity, MessageId, RoomName};
use super::protocol::ChatMessage;
use super::refusal::{Code, Refusal};

/// Events on their way to the log. Full: the log is behind, the author is refused and may try again.
const PENDING_MAX: usize = 1024;
/// Commands that wait for an old message. Full: the author is refused and may try again.
const PARKED_MAX: usize = 64;
/// Retries that wait for one event. Full: the next one is refused.
const ASKERS_MAX: usize = 16;

/// A command about chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatCommand {
    Send {
        id: MessageId,
        text: String,
        reply_to: Option<MessageId>,
    },
    /// A file whose upload is complete.
    SendFile {
        id: MessageId,
        file: Box<FileState>,
    },
    /// A file is no longer kept; by the node itself.
    ExpireFile {
        id: MessageId,
    },
    Edit {
        id: MessageId,
        text: String,
    },
    Delete {
        id: MessageId,
    },
    React {
        id: MessageId,
        emoji: String,
        on: bool,
    },
}

/// Who gives a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    pub identity: Identity,
    pub name: String,
    pub is_admin: bool,
}

/// Who waits for an answer, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// A participant, to a request on its `control` channel.
    Participant { identity: Identity, request: Option<u64> },
    /// Somebody outside the room, by the number under which the shard knows them.
    Outside(u64),
}

/// What the room has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatOutput {
    /// Append to the log; answer with [`Chat::handle_appended`] or [`Chat::handle_append_failed`].
    Append(Event),
    /// Read this message from the log; answer with [`Chat::handle_read`] or [`Chat::handle_read_failed`].
    Read(MessageId),
    /// Show it to everyone.
    Publish(ChatMessage),
    /// What was asked is durable.
    Ack(Asker),
    Refuse(Asker, Refusal),
}

/// An event on its way to the log.
#[derive(Debug)]
struct Pending {
    event: Event,
    askers: Vec<Asker>,
    /// The log's answer, once it came; it takes effect when all before it have theirs.
    appended: Option<Appended>,
}

/// A command that waits for an old message.
#[derive(Debug)]
struct Parked {
    needs: MessageId,
    author: Author,
    asker: Asker,
    command: ChatCommand,
}

/// One room's chat.
#[derive(Debug)]
pub struct Chat {
    room: RoomName,
    chars_max: usize,
    /// Durable messages by `seq`, the newest [`WINDOW`].
    visible: BTreeMap<u64, ChatMessage>,
    seq_of: BTreeMap<MessageId, u64>,
    /// The log has older messages than the window.
    more: bool,
    last_seq: u64,
    ids: EventIds,
    /// By order of admission.
    pending: BTreeMap<u64, Pending>,
    admitted: u64,
    parked: VecDeque<Parked>,
    outputs: VecDeque<ChatOutput>,
}

impl Chat {
    /// The chat of a room that opens, with what the log has of it. `chars_max` bounds a message's text.
    pub fn restore(room: RoomName, chars_max: u32, history: RoomHistory) -> Self {
        let mut chat = Self {
            room,
            chars_max: usize::try_from(chars_max).unwrap_or(usize::MAX),
            visible: BTreeMap::new(),
            seq_of: BTreeMap::new(),
            more: false,
            last_seq: history.last_seq,
            ids: EventIds::new("edit", history.last_offset),
            pending: BTreeMap::new(),
            admitted: 0,
            parked: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        for message in history.page.messages {
            chat.show(message);
        }
        chat.more |= history.page.more;
        chat
    }

    /// The newest messages that everyone has seen, oldest first.
    pub fn recent(&self) -> MessagePage {
        MessagePage { messages: self.visible.values().cloned().collect(), more: self.more }
    }

    /// Nothing is on its way to or from the log.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.parked.is_empty()
    }

    /// What to do next, until `None`.
    pub fn poll_output(&mut self) -> Option<ChatOutput> {
        self.outputs.pop_front()
    }

    /// Takes a command. It is answered by exactly one [`ChatOutput::Ack`] or [`ChatOutput::Refuse`], now or
    /// when the log has answered.
    pub fn handle_command(&mut self, now_ms: u64, asker: Asker, author: Author, command: ChatCommand) {
        self.admit(now_ms, asker, author, command, None);
    }

    /// The log has the event. Events of others are ignored, so all answers may be passed on.
    pub fn handle_appended(&mut self, appended: Appended) {
        if let Some(order) = self.order_of(&appended.id)
            && let Some(pending) = self.pending.get_mut(&order)
        {
            pending.appended = Some(appended);
            self.settle();
        }
    }

    /// The log does not have the event: it never happened, and may be asked for again.
    pub fn handle_append_failed(&mut self, id: &EventId) {
        if let Some(pending) = self.order_of(id).and_then(|order| self.pending.remove(&order)) {
            for asker in pending.askers {
                self.refuse(asker, not_stored());
            }
            self.settle();
        }
    }

    /// The log's answer to [`ChatOutput::Read`]: the message as it stands, or `None` when there is none.
    pub fn handle_read(&mut self, now_ms: u64, id: &MessageId, stored: Option<ChatMessage>) {
        for parked in self.unpark(id) {
            self.admit(now_ms, parked.asker, parked.author, parked.command, Some(&stored));
        }
    }

    /// The log could not be read.
    pub fn handle_read_failed(&mut self, id: &MessageId) {
        for parked in self.unpark(id) {
            let words = "older messages cannot be read now; try again";
            self.refuse(parked.asker, Refusal::new(Code::Unavailable, words));
        }
    }

    fn unpark(&mut self, id: &MessageId) -> VecDeque<Parked> {
        let (ready, rest) = self.parked.drain(..).partition(|parked| parked.needs == *id);
        self.parked = rest;
        ready
    }

    fn refuse(&mut self, asker: Asker, refusal: Refusal) {
        self.outputs.push_back(ChatOutput::Refuse(asker, refusal));
    }

    fn order_of(&self, id: &EventId) -> Option<u64> {
        self.pending.iter().find(|(_, pending)| pending.event.id == *id).map(|(order, _)| *order)
    }

    /// `stored` is the log's answer about the one old message that the command needs, if it was asked.
    fn admit(
        &mut self,
        now_ms: u64,
        asker: Asker,
        author: Author,
        command: ChatCommand,
        stored: Option<&Option<ChatMessage>>,
    ) {
        match self.judge(&author, &command, stored) {
            Err(refusal) => self.refuse(asker, refusal),
            Ok(Admitted::Append(_)) if self.pending.len() >= PENDING_MAX => self.refuse(asker, not_stored()),
            Ok(Admitted::Append(body)) => self.append(now_ms, asker, body),
            Ok(Admitted::Already(id)) => self.join_pending(asker, &id),
            Ok(Admitted::Read(_)) if self.parked.len() >= PARKED_MAX => {
                self.refuse(
                    asker,
                    Refusal::new(Code::RateLimited, "too much is asked of older messages; try again"),
                );
            }
            Ok(Admitted::Read(needs)) => {
                if !self.parked.iter().any(|parked| parked.needs == needs) {
                    self.outputs.push_back(ChatOutput::Read(needs.clone()));
                }
                self.parked.push_back(Parked { needs, author, asker, command });
            }
        }
    }

    fn append(&mut self, now_ms: u64, asker: Asker, body: EventBody) {
        let id = match &body {
            EventBody::ChatSent { message, seq, .. } => {
                self.last_seq = *seq;
                EventId::of_message(message)
            }
            EventBody::FileExpired { message } => EventId::of_expiry(message),
            _ => self.ids.next_id(),
        };
        let event = Event { id, room: self.room.clone(), at_ms: now_ms, body };
        self.outputs.push_back(ChatOutput::Append(event.clone()));
        self.admitted += 1;
        self.pending.insert(self.admitted, Pending { event, askers: vec![asker], appended: None });
    }

    /// Answers when the last pending event of this message is durable; at once if there is none.
    fn join_pending(&mut self, asker: Asker, id: &MessageId) {
        let last =
            self.pending.values_mut().rev().find(|pending| pending.event.body.message_id() == Some(id));
        match last {
            None => self.outputs.push_back(ChatOutput::Ack(asker)),
            Some(pending) if pending.askers.len() < ASKERS_MAX => pending.askers.push(asker),
            Some(_) => self.refuse(asker, not_stored()),
        }
    }

    /// Lets what is durable take effect, up to the first event that is not.
    fn settle(&mut self) {
        while let Some(first) = self.pending.first_entry() {
            if first.get().appended.is_none() {
                return;
            }
            let Pending { event, askers, appended } = first.remove();
            let message = appended.and_then(|appended| appended.message);
            let refusal = match (&message, &event.body) {
                (None, _) => Some(no_message()),
                (Some(kept), EventBody::ChatSent { identity, .. }) if kept.identity != *identity => {
                    Some(id_taken())
                }
                _ => None,
            };
            if refusal.is_none()
                && let Some(message) = message
                && self.visible.get(&message.seq) != Some(&message)
            {
                self.outputs.push_back(ChatOutput::Publish(message.clone()));
                self.show(message);
            }
            for asker in askers {
                self.outputs.push_back(match &refusal {
                    Some(refusal) => ChatOutput::Refuse(asker, refusal.clone()),
                    None => ChatOutput::Ack(asker),
                });
            }
        }
    }

    /// Puts a durable message into the window, unless it is older than the window reaches.
    fn show(&mut self, message: ChatMessage) {
        let oldest = self.visible.keys().next().copied().unwrap_or(0);
        if self.more && message.seq < oldest {
            return;
        }
        self.last_seq = self.last_seq.max(message.seq);
        self.seq_of.insert(message.id.clone(), message.seq);
        self.visible.insert(message.seq, message);
        if self.visible.len() > WINDOW
            && let Some((_, gone)) = self.visible.pop_first()
        {
            self.seq_of.remove(&gone.id);
            self.more = true;
        }
    }
}

#[cfg(test)]
mod tests;
