//! Messages as they stand: made from events, read in pages, and bounded.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::core::event::{Event, EventBody};
use crate::core::protocol::ChatMessage;

/// Messages kept in memory for those who come late.
pub const WINDOW: usize = 200;
/// Different emoji on one message.
pub const EMOJI_PER_MESSAGE_MAX: usize = 20;
/// Reactions on one message, over all emoji: keeps a message well under what a data channel carries.
pub const REACTIONS_PER_MESSAGE_MAX: usize = 200;
/// The longest emoji in use, a kiss between two people with skin tones, has 10 code points in 35 bytes.
const EMOJI_CHARS_MAX: usize = 10;
const EMOJI_BYTES_MAX: usize = 40;
/// One page of a room's chat, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct MessagePage {
    pub messages: Vec<ChatMessage>,
    /// There are more beyond this page in the direction asked for.
    pub more: bool,
}

impl MessagePage {
    /// Drops the oldest messages until the rest takes at most `bytes_max` as JSON; for pages backward.
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
            message.file = None;
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
        EventBody::FileExpired { .. } => {
            if let Some(file) = &mut message.file {
                file.expired = true;
                file.thumbnail = false;
            }
        }
        _ => {}
    }
    Some(message)
}

fn sent(event: &Event) -> Option<ChatMessage> {
    let EventBody::ChatSent { message, seq, identity, name, text, reply_to, file } = &event.body else {
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
        file: file.clone(),
        reactions: BTreeMap::new(),
    })
}

pub(super) fn has_room_for(message: &ChatMessage, emoji: &str) -> bool {
    let has_kind = message.reactions.contains_key(emoji) || message.reactions.len() < EMOJI_PER_MESSAGE_MAX;
    has_kind && message.reactions.values().map(Vec::len).sum::<usize>() < REACTIONS_PER_MESSAGE_MAX
}

/// Something short that can be shown as a reaction: made of emoji (Unicode TR 51) and what joins them.
pub fn is_emoji(text: &str) -> bool {
    let joins = |c: char| {
        matches!(c, '0'..='9' | '#' | '*' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}')
            || ('\u{e0020}'..='\u{e007f}').contains(&c)
    };
    text.len() <= EMOJI_BYTES_MAX
        && text.chars().count() <= EMOJI_CHARS_MAX
        && text.chars().all(|c| joins(c) || is_symbol(c))
        && text.chars().any(is_symbol)
}

fn is_symbol(c: char) -> bool {
    matches!(c,
        '\u{1f000}'..='\u{1faff}' | '\u{2100}'..='\u{2bff}' | '\u{20e3}' | '\u{203c}' | '\u{2049}'
        | '\u{3030}' | '\u{303d}' | '\u{3297}' | '\u{3299}' | '©' | '®')
}
