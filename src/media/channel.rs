//! Data channels: bytes to control messages and back.

use std::collections::VecDeque;

use crate::core::protocol::{ClientMessage, MESSAGE_BYTES_MAX, Request};
use crate::core::refusal::{Code, Refusal};

/// What may wait for a slow receiver's `control` channel. Full: the connection is closed, it can resume.
pub const BACKLOG_BYTES_MAX: usize = 256 * 1024;

/// Reads one message of a `control` channel.
///
/// # Errors
/// What is wrong with it, and its `request` number where that could still be read.
pub fn decode(bytes: &[u8]) -> Result<Request, (Option<u64>, Refusal)> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err((None, Refusal::new(Code::TooLarge, "a message has at most 64 KiB")));
    }
    let malformed = |words: String| Refusal::new(Code::Malformed, words);
    let mut value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| (None, malformed(format!("not JSON: {error}"))))?;
    let request = value.get("request").and_then(serde_json::Value::as_u64);
    let Some(kind) = value.get("type").and_then(serde_json::Value::as_str).map(str::to_owned) else {
        return Err((request, malformed("a message is an object with a `type`".to_owned())));
    };
    // The number belongs to the envelope: a message that takes no unknown fields must not meet it.
    if let Some(fields) = value.as_object_mut() {
        fields.remove("request");
    }
    let message = serde_json::from_value::<ClientMessage>(value).map_err(|error| {
        let words = error.to_string();
        let refusal = if words.starts_with("unknown variant") {
            let name: String = kind.chars().filter(|c| !c.is_control()).take(64).collect();
            Refusal::new(Code::UnknownType, format!("there is no message of type {name:?}"))
        } else {
            malformed(words.chars().take(200).collect())
        };
        (request, refusal)
    })?;
    Ok(Request { request, message })
}

/// Messages that wait for their channel, in order, no more than [`BACKLOG_BYTES_MAX`].
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: VecDeque<String>,
    bytes: usize,
}

impl Backlog {
    /// False when the receiver is hopelessly behind.
    pub fn push(&mut self, message: String) -> bool {
        self.bytes += message.len();
        self.waiting.push_back(message);
        self.bytes <= BACKLOG_BYTES_MAX
    }

    pub fn front(&self) -> Option<&str> {
        self.waiting.front().map(String::as_str)
    }

    pub fn pop(&mut self) {
        if let Some(message) = self.waiting.pop_front() {
            self.bytes -= message.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_message_is_refused_by_its_number() {
        let (request, refusal) = decode(br#"{"type":"fly","request":7}"#).expect_err("no such type");
        assert_eq!((request, refusal.code), (Some(7), Code::UnknownType));
        let (request, refusal) = decode(br#"{"type":"chat.edit","request":8}"#).expect_err("incomplete");
        assert_eq!((request, refusal.code), (Some(8), Code::Malformed));
        for text in [&b"\xff"[..], b"[]", b"7", b"{\"type\":3}", b"{}"] {
            assert_eq!(decode(text).expect_err("malformed").1.code, Code::Malformed);
        }
        let large = vec![b' '; MESSAGE_BYTES_MAX + 1];
        assert_eq!(decode(&large).expect_err("too large").1.code, Code::TooLarge);
    }

    #[test]
    fn a_good_message_keeps_its_number() {
        let request = decode(br#"{"type":"ping","request":3}"#).expect("good");
        assert_eq!(request, Request { request: Some(3), message: ClientMessage::Ping });
        let request = decode(br#"{"type":"room.update","locked":true,"request":4}"#).expect("good");
        assert_eq!(request.request, Some(4));
        let typo = br#"{"type":"room.update","loked":true,"request":5}"#;
        assert_eq!(decode(typo).expect_err("a wrong field").0, Some(5));
    }

    #[test]
    fn a_backlog_has_an_end() {
        let mut backlog = Backlog::default();
        assert!(backlog.push("x".repeat(BACKLOG_BYTES_MAX)));
        assert!(!backlog.push("x".into()));
        backlog.pop();
        assert!(backlog.push("x".repeat(BACKLOG_BYTES_MAX - 1)));
    }
}
