//! Passes: what stands in the addresses of a stream's playlists and parts, in place of a token.
//!
//! A pass is for one room and half a day, the same for all who asked in the same hour, so that a cache in
//! front of the node serves one copy to all of them. Checking one costs no question to the room.

use aws_lc_rs::{constant_time, hmac};

use crate::config::Config;
use crate::control::unix_ms;
use crate::core::ids::RoomName;
use crate::core::protocol::Code;
use crate::signal::error::Problem;

const HOUR_MS: u64 = 60 * 60 * 1_000;
const HOLDS_HOURS: u64 = 12;
/// Of the signature, in bytes: 128 bits.
const TAG_BYTES: usize = 16;

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

    /// A pass for whoever may watch the room.
    pub fn issue(&self, room: &RoomName) -> String {
        self.issue_at(unix_ms(), room)
    }

    /// # Errors
    /// `forbidden` for one that is not ours, or not any more.
    pub fn check(&self, room: &RoomName, pass: &str) -> Result<(), Problem> {
        self.check_at(unix_ms(), room, pass)
    }

    fn issue_at(&self, now_ms: u64, room: &RoomName) -> String {
        let until_h = now_ms / HOUR_MS + HOLDS_HOURS + 1;
        format!("{until_h:x}-{}", self.tag(room, until_h))
    }

    fn check_at(&self, now_ms: u64, room: &RoomName, pass: &str) -> Result<(), Problem> {
        let refused = || Problem::new(Code::Forbidden, "this address does not hold any more: begin anew");
        let (until_h, tag) = pass.split_once('-').ok_or_else(refused)?;
        let until_h = u64::from_str_radix(until_h, 16).map_err(|_| refused())?;
        let ours = self.tag(room, until_h);
        constant_time::verify_slices_are_equal(ours.as_bytes(), tag.as_bytes()).map_err(|_| refused())?;
        if now_ms / HOUR_MS < until_h { Ok(()) } else { Err(refused()) }
    }

    fn tag(&self, room: &RoomName, until_h: u64) -> String {
        // A room's name has no slash in it.
        let signed = hmac::sign(&self.key, format!("{room}/{until_h:x}").as_bytes());
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
        let pass = passes.issue_at(7 * HOUR_MS + 5, &room);
        assert_eq!(pass, passes.issue_at(8 * HOUR_MS - 1, &room), "the same for all of an hour");
        assert_eq!(passes.check_at(7 * HOUR_MS, &room, &pass), Ok(()));
        assert_eq!(passes.check_at(19 * HOUR_MS, &room, &pass), Ok(()));
        assert_eq!(passes.check_at(20 * HOUR_MS, &room, &pass).unwrap_err().status, 403);
        assert!(passes.check_at(7 * HOUR_MS, &other, &pass).is_err());
        assert!(Passes::new(&Config::default()).check_at(7 * HOUR_MS, &room, &pass).is_err());
        let (_, tag) = pass.split_once('-').unwrap();
        for bad in ["", "-", "open", &format!("ffff-{tag}"), &pass[..pass.len() - 1]] {
            assert!(passes.check_at(0, &room, bad).is_err(), "{bad}");
        }
    }
}
