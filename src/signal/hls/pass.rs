//! Passes: what stands in the addresses of a stream's playlists and parts, in place of a token.
//!
//! A pass is for one room and half a day, the same for all who asked in the same hour, so that a cache in
//! front of the node serves one copy to all of them. Checking one costs no question to the room. Where a room
//! costs money a pass says whose it is, as what was paid for may end before the pass does.

use aws_lc_rs::{constant_time, hmac};

use crate::config::Config;
use crate::control::unix_ms;
use crate::core::ids::{Identity, RoomName};
use crate::core::protocol::Code;
use crate::signal::error::Problem;

const HOUR_MS: u64 = 60 * 60 * 1_000;
const HOLDS_HOURS: u64 = 12;
/// Of the signature, in bytes: 128 bits.
const TAG_BYTES: usize = 16;

/// Whose a pass is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Anyone,
    /// Whoever runs the room.
    Owner,
    Viewer(Identity),
}

impl Holder {
    fn spelled(&self) -> String {
        match self {
            Self::Anyone => "a".into(),
            Self::Owner => "o".into(),
            Self::Viewer(identity) => {
                let hex = identity.as_str().bytes().map(|byte| format!("{byte:02x}"));
                std::iter::once("v".to_owned()).chain(hex).collect()
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "a" => Some(Self::Anyone),
            "o" => Some(Self::Owner),
            _ => {
                let digits = text.strip_prefix('v')?.as_bytes().chunks(2);
                let bytes = digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
                let identity = String::from_utf8(bytes.collect::<Option<_>>()?).ok()?;
                Some(Self::Viewer(Identity::parse(&identity).ok()?))
            }
        }
    }
}

/// Makes and reads passes.
pub struct Passes {
    key: hmac::Key,
}

impl Passes {
    /// By a key of the node's, so that every node which has the same takes them; without any, by one that
    /// ends with the process.
    pub fn new(config: &Config) -> Self {
        let base: Vec<u8> = match config.auth.keys.values().next() {
            Some(secret) => secret.reveal().as_bytes().to_vec(),
            None => rand::random::<[u8; 32]>().to_vec(),
        };
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &base), b"antiphon stream passes");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    /// A pass for somebody who may watch the room.
    pub fn issue(&self, room: &RoomName, holder: &Holder) -> String {
        self.issue_at(unix_ms(), room, holder)
    }

    /// Whose pass it is.
    ///
    /// # Errors
    /// `forbidden` for one that is not ours, or not any more.
    pub fn check(&self, room: &RoomName, pass: &str) -> Result<Holder, Problem> {
        self.check_at(unix_ms(), room, pass)
    }

    fn issue_at(&self, now_ms: u64, room: &RoomName, holder: &Holder) -> String {
        let (until_h, holder) = (now_ms / HOUR_MS + HOLDS_HOURS + 1, holder.spelled());
        format!("{until_h:x}-{holder}-{}", self.tag(room, until_h, &holder))
    }

    fn check_at(&self, now_ms: u64, room: &RoomName, pass: &str) -> Result<Holder, Problem> {
        let refused = || Problem::new(Code::Forbidden, "this address does not hold any more: begin anew");
        let mut words = pass.splitn(3, '-');
        let (Some(until_h), Some(holder), Some(tag)) = (words.next(), words.next(), words.next()) else {
            return Err(refused());
        };
        let until_h = u64::from_str_radix(until_h, 16).map_err(|_| refused())?;
        let ours = self.tag(room, until_h, holder);
        constant_time::verify_slices_are_equal(ours.as_bytes(), tag.as_bytes()).map_err(|_| refused())?;
        let holder = Holder::parse(holder).ok_or_else(refused)?;
        if now_ms / HOUR_MS < until_h { Ok(holder) } else { Err(refused()) }
    }

    fn tag(&self, room: &RoomName, until_h: u64, holder: &str) -> String {
        // A room's name has no slash in it.
        let signed = hmac::sign(&self.key, format!("{room}/{until_h:x}/{holder}").as_bytes());
        signed.as_ref().iter().take(TAG_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_for_its_room_and_its_time() {
        let passes = Passes::new(&Config::default());
        let (room, other) = (RoomName::parse("room").unwrap(), RoomName::parse("other").unwrap());
        let pass = passes.issue_at(7 * HOUR_MS + 5, &room, &Holder::Anyone);
        assert_eq!(pass, passes.issue_at(8 * HOUR_MS - 1, &room, &Holder::Anyone), "the same for an hour");
        assert_eq!(passes.check_at(7 * HOUR_MS, &room, &pass), Ok(Holder::Anyone));
        assert_eq!(passes.check_at(19 * HOUR_MS, &room, &pass), Ok(Holder::Anyone));
        assert_eq!(passes.check_at(20 * HOUR_MS, &room, &pass).unwrap_err().status, 403);
        assert!(passes.check_at(7 * HOUR_MS, &other, &pass).is_err());
        assert!(Passes::new(&Config::default()).check_at(7 * HOUR_MS, &room, &pass).is_err());
        let tag = pass.rsplit('-').next().unwrap();
        let longer = format!("ffff-a-{tag}");
        for bad in ["", "-", "--", "open", &longer, &pass.replace("-a-", "-o-"), &pass[..pass.len() - 1]] {
            assert!(passes.check_at(0, &room, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pass_says_whose_it_is() {
        let passes = Passes::new(&Config::default());
        let room = RoomName::parse("room").unwrap();
        for holder in [Holder::Owner, Holder::Viewer(Identity::parse("Zoë-1").unwrap())] {
            let pass = passes.issue_at(0, &room, &holder);
            assert_eq!(passes.check_at(0, &room, &pass), Ok(holder));
        }
    }
}
