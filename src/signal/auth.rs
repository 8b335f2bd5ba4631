//! Who asks, and may they: the rules between a request's token and what it wants. Deny by default.
//!
//! A token that was shown counts, for good or bad; guests are those who showed none. Under `--dev` whoever
//! shows none may do all.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::error::Problem;
use crate::config::Config;
use crate::control::Seat;
use crate::core::ids::{Identity, RoomName};
use crate::core::protocol::{Code, Grant};
use crate::token::{EVERY_ROOM, Keys, RoomGrant, Token};

/// By which a participant is let in again at another node of the cluster.
pub const SEAT: HeaderName = HeaderName::from_static("antiphon-seat");
/// Seconds for which a room's owner token holds, and a seat.
const OWNER_TOKEN_SECONDS: u64 = 24 * 60 * 60;

/// What a guest may do in an open room; whoever opens it becomes its admin inside.
pub const GUEST: Grant =
    Grant { publish: true, subscribe: true, chat: true, files: true, admin: false, lowest_layer: false };

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    Guest,
    Holder(Token),
}

/// Something that may be read about a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Its state, people and figures.
    State,
    Messages,
    Files,
}

/// The node's rules and the keys they go by.
pub struct Authority {
    keys: Keys,
    guests: bool,
    dev: bool,
}

impl Authority {
    pub fn new(config: &Config) -> Self {
        Self { keys: Keys::new(&config.auth.keys), guests: config.auth.guests, dev: config.dev }
    }

    /// Guests may come in without a token.
    pub fn admits_guests(&self) -> bool {
        self.guests
    }

    /// Whoever shows no token may do all.
    pub fn is_dev(&self) -> bool {
        self.dev
    }

    /// # Errors
    /// 401 for a token that is no good, and for none where guests are not admitted.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        match headers.get(AUTHORIZATION) {
            Some(value) => {
                let token = value.to_str().ok().and_then(bearer).ok_or_else(|| {
                    Problem::invalid_token("`Authorization` is not `Bearer` followed by a token")
                })?;
                let token =
                    self.keys.verify(token).map_err(|error| Problem::invalid_token(error.to_string()))?;
                Ok(Caller::Holder(token))
            }
            None if self.guests => Ok(Caller::Guest),
            None => Err(no_token()),
        }
    }

    /// As [`Self::caller`], but under `--dev` a token that is no good is as good as none: publishers such as
    /// OBS send whatever stands in their stream key.
    ///
    /// # Errors
    /// As [`Self::caller`].
    pub fn streamer(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        match self.caller(headers) {
            Err(_) if self.dev => Ok(Caller::Guest),
            verdict => verdict,
        }
    }

    /// May this room, or without a name any room, be made?
    ///
    /// # Errors
    /// 401 or 403.
    pub fn may_create(&self, caller: &Caller, room: Option<&RoomName>) -> Result<(), Problem> {
        let Caller::Holder(token) = caller else { return Ok(()) };
        let covered = room.map_or(token.room.room == EVERY_ROOM, |room| token.room.covers(room));
        if covered && token.room.admin { Ok(()) } else { Err(not_admin()) }
    }

    /// Whose hand changes the room: the token's identity, under `--dev` also nobody's.
    ///
    /// # Errors
    /// 401 without a token, 403 without the room's admin grant.
    pub fn may_administer(&self, caller: &Caller, room: &RoomName) -> Result<Option<Identity>, Problem> {
        match caller {
            Caller::Guest if self.dev => Ok(None),
            Caller::Guest => Err(no_token()),
            Caller::Holder(token) if token.room.covers(room) && token.room.admin => {
                Ok(Some(token.identity.clone()))
            }
            Caller::Holder(_) => Err(not_admin()),
        }
    }

    /// # Errors
    /// 403 for a token that does not grant it. A guest is the room's own concern: see `rooms::readable`.
    pub fn may_read(&self, caller: &Caller, room: &RoomName, what: Read) -> Result<(), Problem> {
        let Caller::Holder(token) = caller else { return Ok(()) };
        let granted = match what {
            Read::State => token.room.subscribe,
            Read::Messages => token.room.chat,
            Read::Files => token.room.files,
        };
        if token.room.covers(room) && (granted || token.room.admin) {
            return Ok(());
        }
        let needed = match what {
            Read::State => "subscribe",
            Read::Messages => "chat",
            Read::Files => "files",
        };
        Err(Problem::new(Code::Forbidden, format!("the token lacks the `{needed}` grant for this room")))
    }

    /// What the caller may do once inside.
    ///
    /// # Errors
    /// 403 for a token of another room.
    pub fn grant(&self, caller: &Caller, room: &RoomName) -> Result<Grant, Problem> {
        match caller {
            Caller::Guest => Ok(GUEST),
            Caller::Holder(token) if token.room.covers(room) => Ok(token.room.grant()),
            Caller::Holder(_) => Err(Problem::new(Code::Forbidden, "the token is for another room")),
        }
    }

    /// Signs a token by this node's key.
    ///
    /// # Errors
    /// `internal`, if it cannot be signed.
    pub fn sign(&self, token: Token, expires_at_s: u64) -> Result<String, Problem> {
        self.keys.sign(token, expires_at_s).map_err(|error| {
            tracing::error!(%error, "cannot sign a token");
            Problem::new(Code::Internal, "the token could not be made")
        })
    }

    /// A token by which whoever made the room rules it, from any device.
    ///
    /// # Errors
    /// `internal`, if it cannot be signed.
    pub fn owner_token(&self, room: &RoomName) -> Result<String, Problem> {
        let identity = random_identity("owner");
        let token = Token { identity, name: None, room: RoomGrant::owner(room) };
        let expires_at_s = jsonwebtoken::get_current_timestamp() + OWNER_TOKEN_SECONDS;
        self.sign(token, expires_at_s)
    }
}

impl Authority {
    /// A seat that a node of the cluster gave out. One that is no good is none: then its holder comes in
    /// anew.
    pub fn seat(&self, headers: &HeaderMap) -> Option<Seat> {
        self.keys.verify_seat(headers.get(SEAT)?.to_str().ok()?).ok()
    }

    /// What its holder shows, should the room move.
    pub fn signed_seat(&self, seat: Seat) -> Option<HeaderValue> {
        let expires_at_s = jsonwebtoken::get_current_timestamp() + OWNER_TOKEN_SECONDS;
        let signed = self.keys.sign_seat(seat, expires_at_s).ok()?;
        HeaderValue::from_str(&signed).ok()
    }
}

/// Such as `guest-7kq2mv`: for those who named nobody. 30 random bits.
pub fn random_identity(kind: &str) -> Identity {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bits: u32 = rand::random();
    let tail = (0..6).map(|at| char::from(LETTERS[(bits >> (5 * at) & 31) as usize]));
    let text: String = kind.chars().chain(['-']).chain(tail).collect();
    Identity::parse(&text).expect("a short plain word and six letters are an identity")
}

/// The token of an `Authorization` header; its scheme's case is free (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn no_token() -> Problem {
    Problem::new(
        Code::Unauthorized,
        "a token is needed: send `Authorization: Bearer` with a JWT for this room",
    )
}

fn not_admin() -> Problem {
    Problem::new(Code::Forbidden, "the token lacks the `admin` grant for this room")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn authority(dev: bool, guests: bool) -> Authority {
        let mut config = Config { dev, ..Config::default() };
        config.auth.guests = guests;
        config.auth.keys.insert("k1".into(), Secret::new("0123456789abcdef0123456789abcdef"));
        Authority::new(&config)
    }

    fn room() -> RoomName {
        RoomName::parse("abc").unwrap()
    }

    fn showing(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    fn holder(room: &str, change: impl FnOnce(&mut RoomGrant)) -> Caller {
        let mut grant = RoomGrant::owner(&self::room());
        room.clone_into(&mut grant.room);
        change(&mut grant);
        Caller::Holder(Token { identity: random_identity("owner"), name: None, room: grant })
    }

    #[test]
    fn a_guest_comes_in_only_where_guests_are_admitted() {
        assert_eq!(authority(false, true).caller(&HeaderMap::new()), Ok(Caller::Guest));
        assert_eq!(authority(false, false).caller(&HeaderMap::new()).unwrap_err().status, 401);
    }

    #[test]
    fn a_bad_token_is_refused_even_where_none_is_needed() {
        for value in ["Bearer", "Bearer ", "Basic YTpi", "Bearer a.b.c"] {
            assert_eq!(authority(true, true).caller(&showing(value)).unwrap_err().status, 401, "{value}");
        }
    }

    #[test]
    fn a_stream_key_may_be_anything_in_dev_and_only_there() {
        assert_eq!(authority(true, true).streamer(&showing("Bearer obs")), Ok(Caller::Guest));
        assert_eq!(authority(false, true).streamer(&showing("Bearer obs")).unwrap_err().status, 401);
    }

    #[test]
    fn an_owner_token_rules_its_room_and_no_other() {
        let authority = authority(false, false);
        let token = authority.owner_token(&room()).unwrap();
        let caller = authority.caller(&showing(&format!("bearer {token}"))).unwrap();
        assert!(authority.may_administer(&caller, &room()).unwrap().is_some());
        let other = RoomName::parse("other").unwrap();
        assert_eq!(authority.may_administer(&caller, &other).unwrap_err().status, 403);
        assert_eq!(authority.grant(&caller, &other).unwrap_err().status, 403);
        assert_eq!(authority.may_create(&caller, None).unwrap_err().status, 403);
    }

    #[test]
    fn administering_needs_the_grant_unless_dev_and_no_token() {
        let open = authority(false, true);
        assert_eq!(open.may_administer(&Caller::Guest, &room()).unwrap_err().status, 401);
        let dev = authority(true, true);
        assert_eq!(dev.may_administer(&Caller::Guest, &room()), Ok(None));
        let member = holder("abc", |grant| grant.admin = false);
        assert_eq!(dev.may_administer(&member, &room()).unwrap_err().status, 403);
    }

    #[test]
    fn reading_needs_the_grant_that_fits() {
        let authority = authority(false, false);
        let chatter = holder("abc", |grant| (grant.subscribe, grant.admin) = (false, false));
        assert!(authority.may_read(&chatter, &room(), Read::Messages).is_ok());
        assert_eq!(authority.may_read(&chatter, &room(), Read::State).unwrap_err().status, 403);
        let elsewhere = holder("other", |_| ());
        assert_eq!(authority.may_read(&elsewhere, &room(), Read::Messages).unwrap_err().status, 403);
    }

    #[test]
    fn any_room_is_made_only_by_a_token_for_all() {
        let authority = authority(false, false);
        assert!(authority.may_create(&holder("*", |_| ()), None).is_ok());
        assert!(authority.may_create(&holder("abc", |_| ()), Some(&room())).is_ok());
        assert!(authority.may_create(&holder("*", |grant| grant.admin = false), None).is_err());
    }
}
