//! Names and keys of the things a room is made of, each its own type so that none is taken for another.
//!
//! Names come from outside and are checked on the way in; keys are ours, dense and cheap to copy.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// A name was refused; the message says what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a room name has 3 to 64 characters, each a letter, a digit, '-' or '_'")]
    Room,
    #[error("an identity has 1 to 64 characters and no control characters")]
    Identity,
    #[error("a message id has 1 to 64 characters, each a letter, a digit, '-' or '_'")]
    Message,
    #[error("a node's id has 1 to 64 characters, each a letter, a digit, '-' or '_'")]
    Node,
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Makes a newtype over `String` whose only constructor checks its input.
macro_rules! checked_name {
    ($(#[$meta:meta])* $name:ident, $error:expr, $check:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
        #[schema(value_type = String)]
        #[cfg_attr(test, derive(ts_rs::TS), ts(type = "string"))]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// # Errors
            /// [`NameError`], saying what is accepted.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let accepted: fn(&str) -> bool = $check;
                if accepted(text) { Ok(Self(text.to_owned())) } else { Err($error) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = String::deserialize(input)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}

checked_name!(
    /// A room's name, as in its link: 3–64 characters of `[A-Za-z0-9_-]`.
    RoomName,
    NameError::Room,
    |text| (3..=64).contains(&text.len()) && is_plain(text)
);

/// Has a character that no room's name has.
const LEDGER: &str = "~ledger";

impl RoomName {
    /// No room, and no name from outside: under it the money of all rooms has one writer and one order, in
    /// the registry and in the shared log.
    pub fn ledger() -> Self {
        Self(LEDGER.to_owned())
    }

    /// A name as the log or the registry has it: a room's, or [`Self::ledger`].
    ///
    /// # Errors
    /// [`NameError::Room`].
    pub fn from_stored(text: &str) -> Result<Self, NameError> {
        if text == LEDGER { Ok(Self::ledger()) } else { Self::parse(text) }
    }

    /// [`Self::from_stored`], for fields of what is stored.
    ///
    /// # Errors
    /// As there.
    pub fn stored<'de, D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Self::from_stored(&String::deserialize(input)?).map_err(de::Error::custom)
    }
}

checked_name!(
    /// Who a participant is within a room: a token's `sub`, or what a guest calls itself. Unique in the room.
    Identity,
    NameError::Identity,
    |text| {
        !text.trim().is_empty()
            && text.chars().count() <= 64
            && !text.chars().any(char::is_control)
    }
);

checked_name!(
    /// A chat message's id, made by its author so that sending it again is not a second message.
    MessageId,
    NameError::Message,
    |text| (1..=64).contains(&text.len()) && is_plain(text)
);

checked_name!(
    /// A node of a cluster, as its configuration names it. Unique in the cluster.
    NodeId,
    NameError::Node,
    |text| (1..=64).contains(&text.len()) && is_plain(text)
);

/// The capability to act as one joined participant: resume, trickle, leave. The shard that serves it and 120
/// random bits, hex on the wire. It opens a session to whoever holds it, so it has no readable `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

/// In a session's number of its shard, of which a node has far fewer.
const LODGES: u128 = 0x80;

impl SessionId {
    /// Made of the upper 120 bits of `random`.
    pub fn new(shard: ShardId, random: u128) -> Self {
        Self(random & !0xff | u128::from(shard.0))
    }

    /// Of a lodger: its seat is at the room's home, which knows none of this node's shards.
    pub fn of_lodger(shard: ShardId, random: u128) -> Self {
        Self(Self::new(shard, random).0 | LODGES)
    }

    /// Where the session is served; of a lodger no shard that there is.
    pub fn shard(&self) -> ShardId {
        ShardId(self.0 as u8)
    }

    /// The shard on which the session's branch of another node's room is.
    pub fn branch(&self) -> ShardId {
        ShardId((self.0 & !LODGES) as u8)
    }

    pub fn is_of_lodger(&self) -> bool {
        self.0 & LODGES != 0
    }

    /// # Errors
    /// Anything but 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok().map(Self))?
    }

    /// The 32 hex digits that go into a URL. Never log them.
    pub fn reveal(&self) -> String {
        format!("{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(redacted)")
    }
}

/// One shard of this node: a pinned thread with its own UDP port. Dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ShardId(pub u8);

/// A room's way to another node, as this node numbers it. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FarId(pub u32);

/// Where the other side of a branch is: on another shard of this node, or beyond a link to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    Shard(ShardId),
    Far(FarId),
}

impl From<ShardId> for Site {
    fn from(shard: ShardId) -> Self {
        Self::Shard(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_name_is_plain_and_of_fair_length() {
        for good in ["abc", "Team-9_x", &"a".repeat(64)] {
            assert!(RoomName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "a b c", "café", "../x", &"a".repeat(65), "a%2F"] {
            assert_eq!(RoomName::parse(bad), Err(NameError::Room), "{bad}");
        }
    }

    #[test]
    fn an_identity_may_be_any_name_but_not_blank() {
        assert!(Identity::parse("Zoë 🙂").is_ok());
        for bad in ["", "  ", "a\nb", &"é".repeat(65)] {
            assert_eq!(Identity::parse(bad), Err(NameError::Identity));
        }
    }

    #[test]
    fn a_session_id_survives_its_text_and_hides_in_debug() {
        let id = SessionId(0xfeed);
        assert_eq!(SessionId::parse(&id.reveal()), Some(id));
        assert_eq!(SessionId::parse("feed"), None);
        assert_eq!(SessionId::parse(&"+".repeat(32)), None);
        assert!(!format!("{id:?}").contains("feed"));
    }
}
