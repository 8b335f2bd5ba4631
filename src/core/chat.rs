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

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::event::{Appended, Event, EventBody, EventId, EventIds};
use super::ids::{Identity, MessageId, RoomName};
use super::protocol::{ChatMessage, Code, Refusal};

/// Messages kept in memory for those who come late.
pub const WINDOW: usize = 200;
/// Different emoji on one message.
pub const EMOJI_PER_MESSAGE_MAX: usize = 20;
/// Reactions on one message, over all emoji: keeps a message well under what a data channel carries.
pub const REACTIONS_PER_MESSAGE_MAX: usize = 200;
/// The longest emoji in use, a kiss between two people with skin tones, has 10 code points in 35 bytes.
const EMOJI_CHARS_MAX: usize = 10;
const EMOJI_BYTES_MAX: usize = 40;
/// Events on their way to the log. Full: the log is behind, the author is refused and may try again.
const PENDING_MAX: usize = 1024;
/// Commands that wait for an old message. Full: the author is refused and may try again.
const PARKED_MAX: usize = 64;
/// Retries that wait for one event. Full: the oldest is forgotten, its author has given up on it.
const ASKERS_MAX: usize = 16;

/// One page of a room's chat, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct MessagePage {
    pub messages: Vec<ChatMessage>,
    /// There are more beyond this page in the direction asked for.
    pub more: bool,
}

impl MessagePage {
    /// Drops the oldest messages until the rest takes at most `bytes_max` as JSON; for pages that run backward.
    pub fn keep_newest(mut self, bytes_max: usize) -> Self {
        let mut left = bytes_max;
        let fits = |message: &&ChatMessage| {
            // A message is plain data and always has a JSON form; were it not so, it would not be sent.
            let bytes = serde_json::to_vec(message).map_or(usize::MAX, |json| json.len().saturating_add(1));
            left.checked_sub(bytes).inspect(|rest| left = *rest).is_some()
        };
        let kept = self.messages.iter().rev().take_while(fits).count();
        let dropped = self.messages.len().saturating_sub(kept);
        self.messages.drain(..dropped);
        self.more |= dropped > 0;
        self
    }
}

/// Which part of the history to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRange {
    /// The first messages with a greater `seq`.
    After(u64),
    /// The last messages with a lesser `seq`.
    Before(u64),
    Newest,
}

/// What a room needs of the log when it opens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomHistory {
    /// The newest messages, [`WINDOW`] of them where there are.
    pub page: MessagePage,
    /// The greatest `seq` in use; 0 when there is none.
    pub last_seq: u64,
    /// Place of the room's newest event; 0 when there is none.
    pub last_offset: u64,
}

/// A command about chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatCommand {
    Send { id: MessageId, text: String, reply_to: Option<MessageId> },
    Edit { id: MessageId, text: String },
    Delete { id: MessageId },
    React { id: MessageId, emoji: String, on: bool },
}

/// Who gives a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    pub identity: Identity,
    pub name: String,
    pub is_admin: bool,
}

/// Who waits for an answer, and to which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    pub identity: Identity,
    pub request: Option<u64>,
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
    request: Option<u64>,
    command: ChatCommand,
}

/// What is known of a message.
enum Known {
    /// As it will stand when all that is pending is durable.
    Here(Box<ChatMessage>),
    Absent,
    /// Older than the window: ask the log.
    Unread,
}

/// How a command ends for now.
enum Admitted {
    Append(EventBody),
    /// It is so already, or will be when what is pending on this message is durable.
    Already(MessageId),
    Read(MessageId),
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
    pub fn handle_command(
        &mut self,
        now_ms: u64,
        author: Author,
        request: Option<u64>,
        command: ChatCommand,
    ) {
        self.admit(now_ms, author, request, command, None);
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
            self.admit(now_ms, parked.author, parked.request, parked.command, Some(&stored));
        }
    }

    /// The log could not be read.
    pub fn handle_read_failed(&mut self, id: &MessageId) {
        for parked in self.unpark(id) {
            let asker = Asker { identity: parked.author.identity, request: parked.request };
            self.refuse(
                asker,
                Refusal::new(Code::Unavailable, "older messages cannot be read now; try again"),
            );
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
        author: Author,
        request: Option<u64>,
        command: ChatCommand,
        stored: Option<&Option<ChatMessage>>,
    ) {
        let asker = Asker { identity: author.identity.clone(), request };
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
                self.parked.push_back(Parked { needs, author, request, command });
            }
        }
    }

    fn append(&mut self, now_ms: u64, asker: Asker, body: EventBody) {
        let id = match &body {
            EventBody::ChatSent { message, seq, .. } => {
                self.last_seq = *seq;
                EventId::of_message(message)
            }
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
            Some(pending) => {
                if pending.askers.len() >= ASKERS_MAX {
                    pending.askers.remove(0);
                }
                pending.askers.push(asker);
            }
        }
    }

    /// Whether a command may be, given the message as it will stand.
    fn judge(
        &self,
        author: &Author,
        command: &ChatCommand,
        stored: Option<&Option<ChatMessage>>,
    ) -> Result<Admitted, Refusal> {
        match command {
            ChatCommand::Send { id, text, reply_to } => self.judge_send(author, id, text, reply_to, stored),
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

/// A message after an event about it. Deterministic, bounded, and the same when applied twice, so that any
/// reader of the log comes to the same messages.
pub fn apply(message: Option<ChatMessage>, event: &Event) -> Option<ChatMessage> {
    let Some(mut message) = message else { return sent(event) };
    match &event.body {
        EventBody::ChatEdited { text, .. } if !message.deleted => {
            text.clone_into(&mut message.text);
            message.edited_at_ms = Some(event.at_ms);
        }
        EventBody::ChatDeleted { .. } => {
            message.text.clear();
            message.reactions.clear();
            message.deleted = true;
        }
        EventBody::ChatReacted { by, emoji, on: true, .. } if !message.deleted => {
            let is_on = message.reactions.get(emoji).is_some_and(|all| all.contains(by));
            if !is_on && has_room_for(&message, emoji) {
                message.reactions.entry(emoji.clone()).or_default().push(by.clone());
            }
        }
        EventBody::ChatReacted { by, emoji, on: false, .. } => {
            if let Some(all) = message.reactions.get_mut(emoji) {
                all.retain(|identity| identity != by);
                if all.is_empty() {
                    message.reactions.remove(emoji);
                }
            }
        }
        _ => {}
    }
    Some(message)
}

fn sent(event: &Event) -> Option<ChatMessage> {
    let EventBody::ChatSent { message, seq, identity, name, text, reply_to } = &event.body else {
        return None;
    };
    Some(ChatMessage {
        id: message.clone(),
        seq: *seq,
        identity: identity.clone(),
        name: name.clone(),
        text: text.clone(),
        sent_at_ms: event.at_ms,
        edited_at_ms: None,
        deleted: false,
        reply_to: reply_to.clone(),
        reactions: BTreeMap::new(),
    })
}

fn has_room_for(message: &ChatMessage, emoji: &str) -> bool {
    let has_kind = message.reactions.contains_key(emoji) || message.reactions.len() < EMOJI_PER_MESSAGE_MAX;
    has_kind && message.reactions.values().map(Vec::len).sum::<usize>() < REACTIONS_PER_MESSAGE_MAX
}

/// Something short that can be shown as a reaction: made of emoji (Unicode TR 51) and what joins them.
pub fn is_emoji(text: &str) -> bool {
    let is_part = |c: char| {
        let joins = matches!(c, '0'..='9' | '#' | '*' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}' | '\u{e0020}'..='\u{e007f}');
        joins || is_symbol(c)
    };
    text.len() <= EMOJI_BYTES_MAX
        && text.chars().count() <= EMOJI_CHARS_MAX
        && text.chars().all(is_part)
        && text.chars().any(is_symbol)
}

fn is_symbol(c: char) -> bool {
    matches!(c,
        '\u{1f000}'..='\u{1faff}' | '\u{2100}'..='\u{2bff}' | '\u{20e3}' | '\u{203c}' | '\u{2049}'
        | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}' | '©' | '®')
}

fn no_message() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such message")
}

fn id_taken() -> Refusal {
    Refusal::new(Code::Forbidden, "another's message has this id; send with a new one")
}

fn not_stored() -> Refusal {
    Refusal::new(Code::Unavailable, "messages cannot be stored now; try again")
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
