//! JSON Web Tokens (RFC 7519): HS256 alone, by keys that the configuration names.
//!
//! `iss` is the key's id, `sub` the identity, `exp` is a must, and `room` says what is granted where. What a
//! grant does not name is not granted. Used by the HTTP shell, which checks tokens, and by the command line,
//! which makes them.

use std::collections::BTreeMap;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Secret;
use crate::core::ids::{Identity, RoomName};
use crate::core::participant::Seat;
use crate::core::protocol::Grant;

/// A longer token is refused unread.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Seconds by which clocks may differ.
const LEEWAY_SECONDS: u64 = 30;
/// The room of a grant that holds for all rooms.
pub const EVERY_ROOM: &str = "*";

/// Why a token is refused. None of the words repeats the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("this is no JWT: accepted are three base64url parts, signed with HS256")]
    Malformed,
    #[error("the token's `iss` names no key of this node")]
    UnknownKey,
    #[error("the token's signature does not match its key; only HS256 is accepted")]
    Signature,
    #[error("the token has expired; ask for a new one")]
    Expired,
    #[error("the token is not valid yet; its `nbf` lies ahead")]
    NotYet,
    #[error("the token has an `aud`, which is not this node")]
    Audience,
    #[error("the token lacks `{0}`")]
    Lacks(&'static str),
    #[error("the token's `sub` is no identity: 1 to 64 characters and no control characters")]
    Subject,
    #[error("the token's `room` is no grant: accepted is {{\"room\": NAME or \"*\", \"publish\": true, …}}")]
    Grant,
}

/// What a token carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The key's id.
    pub iss: String,
    /// The identity.
    pub sub: String,
    /// End of validity, seconds since the Unix epoch.
    pub exp: u64,
    /// What others see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub room: RoomGrant,
}

/// The `room` claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomGrant {
    /// A room's name, or [`EVERY_ROOM`].
    pub room: String,
    #[serde(default)]
    pub publish: bool,
    #[serde(default)]
    pub subscribe: bool,
    #[serde(default)]
    pub chat: bool,
    #[serde(default)]
    pub files: bool,
    #[serde(default)]
    pub admin: bool,
    /// Of each picture the lowest layer alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lowest_layer: bool,
}

impl RoomGrant {
    pub fn covers(&self, room: &RoomName) -> bool {
        self.room == EVERY_ROOM || self.room == room.as_str()
    }

    pub fn grant(&self) -> Grant {
        let Self { publish, subscribe, chat, files, admin, lowest_layer, .. } = *self;
        Grant { publish, subscribe, chat, files, admin, lowest_layer }
    }

    /// Everything in this room: what an owner holds.
    pub fn owner(room: &RoomName) -> Self {
        let room = room.as_str().to_owned();
        Self {
            room,
            publish: true,
            subscribe: true,
            chat: true,
            files: true,
            admin: true,
            lowest_layer: false,
        }
    }
}

/// Whom a seat is shown to: no node takes it for a token.
const SEAT_AUDIENCE: &str = "antiphon-seat";

/// A [`Seat`] as it is signed.
#[derive(Serialize, Deserialize)]
struct SeatClaims {
    iss: String,
    sub: String,
    exp: u64,
    aud: String,
    name: String,
    room: RoomGrant,
    epoch: u64,
    opened_at_ms: u64,
}

/// A token that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub identity: Identity,
    pub name: Option<String>,
    pub room: RoomGrant,
}

/// The keys by which tokens are checked and signed. There is at least one.
pub struct Keys {
    secrets: BTreeMap<String, Secret>,
    /// Signs the tokens that this node hands out.
    signer: String,
}

impl Keys {
    /// Without a configured key, one is made that ends with the process.
    pub fn new(configured: &BTreeMap<String, Secret>) -> Self {
        let mut secrets = configured.clone();
        let signer = secrets.keys().next().cloned().unwrap_or_else(|| {
            let (id, secret) = new_key();
            secrets.insert(id.clone(), secret);
            id
        });
        Self { secrets, signer }
    }

    /// # Errors
    /// [`TokenError`], by the first thing that is wrong.
    pub fn verify(&self, token: &str) -> Result<Token, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        let claims: Shown = self.claims(token, validation)?;
        let identity = Identity::parse(&claims.sub).map_err(|_| TokenError::Subject)?;
        let room = claims.room.ok_or(TokenError::Lacks("room"))?;
        let room = RoomGrant::deserialize(room).map_err(|_| TokenError::Grant)?;
        if room.room != EVERY_ROOM && RoomName::parse(&room.room).is_err() {
            return Err(TokenError::Grant);
        }
        Ok(Token { identity, name: claims.name, room })
    }

    /// What is claimed by a token that one of our keys has signed and whose time is now.
    fn claims<T: DeserializeOwned>(&self, token: &str, mut validation: Validation) -> Result<T, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let issuer = jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token)
            .map_err(|_| TokenError::Malformed)?
            .iss
            .ok_or(TokenError::Lacks("iss"))?;
        let secret = self.secrets.get(&issuer).ok_or(TokenError::UnknownKey)?;
        let key = DecodingKey::from_secret(secret.reveal().as_bytes());
        validation.leeway = LEEWAY_SECONDS;
        Ok(jsonwebtoken::decode(token, &key, &validation).map_err(refusal)?.claims)
    }

    /// Reads a seat that a node of the cluster gave out.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify_seat(&self, token: &str) -> Result<Seat, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[SEAT_AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
        let SeatClaims { sub, name, room, epoch, opened_at_ms, .. } = self.claims(token, validation)?;
        let identity = Identity::parse(&sub).map_err(|_| TokenError::Subject)?;
        let grant = room.grant();
        let room = RoomName::parse(&room.room).map_err(|_| TokenError::Grant)?;
        Ok(Seat { room, opened_at_ms, epoch, identity, name, grant })
    }

    /// Signs a seat for whoever has it.
    ///
    /// # Errors
    /// As [`Keys::sign`].
    pub fn sign_seat(&self, seat: Seat, expires_at_s: u64) -> Result<String, jsonwebtoken::errors::Error> {
        let Seat { room, opened_at_ms, epoch, identity, name, grant } = seat;
        let Grant { publish, subscribe, chat, files, admin, lowest_layer } = grant;
        let room = RoomGrant {
            room: room.as_str().to_owned(),
            publish,
            subscribe,
            chat,
            files,
            admin,
            lowest_layer,
        };
        let (iss, sub) = (self.signer.clone(), identity.as_str().to_owned());
        let aud = SEAT_AUDIENCE.to_owned();
        let claims = SeatClaims { iss, sub, exp: expires_at_s, aud, name, room, epoch, opened_at_ms };
        let secret = self.secrets.get(&self.signer).map_or("", Secret::reveal);
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
    }

    /// Signs a token by the node's first key.
    ///
    /// # Errors
    /// [`jsonwebtoken::errors::Error`] if the claims cannot be written as JSON, which no claims of ours are.
    pub fn sign(&self, token: Token, expires_at_s: u64) -> Result<String, jsonwebtoken::errors::Error> {
        let Token { identity, name, room } = token;
        let iss = self.signer.clone();
        let claims = Claims { iss, sub: identity.as_str().to_owned(), exp: expires_at_s, name, room };
        let secret = self.secrets.get(&self.signer).map_or("", Secret::reveal);
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
    }
}

/// A new key: its id, and 256 random bits as base64url.
pub fn new_key() -> (String, Secret) {
    use base64::Engine;
    // No hyphen: the id is part of a variable's name when the key comes from the environment.
    let id = format!("key_{:06x}", rand::random::<u32>() >> 8);
    let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    (id, Secret::new(secret))
}

/// What is read before the signature was checked: only which key is to check it.
#[derive(Deserialize)]
struct Issuer {
    iss: Option<String>,
}

/// Claims as others may write them, so that each lack has its own words.
#[derive(Deserialize)]
struct Shown {
    sub: String,
    name: Option<String>,
    room: Option<serde_json::Value>,
}

fn refusal(error: jsonwebtoken::errors::Error) -> TokenError {
    match error.into_kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            TokenError::Signature
        }
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYet,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match claim.as_str()
        {
            "exp" => TokenError::Lacks("exp"),
            "sub" => TokenError::Lacks("sub"),
            "iss" => TokenError::Lacks("iss"),
            _ => TokenError::Malformed,
        },
        ErrorKind::Json(error) if error.to_string().contains("missing field `sub`") => {
            TokenError::Lacks("sub")
        }
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn keys() -> Keys {
        Keys::new(&BTreeMap::from([("k1".to_owned(), Secret::new(SECRET))]))
    }

    fn in_seconds(seconds: i64) -> u64 {
        jsonwebtoken::get_current_timestamp().saturating_add_signed(seconds)
    }

    fn claims() -> Value {
        json!({"iss": "k1", "sub": "ann", "exp": in_seconds(60), "room": {"room": "abc", "publish": true}})
    }

    fn signed(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn verdict(change: impl FnOnce(&mut Value)) -> Result<Token, TokenError> {
        let mut claims = claims();
        change(&mut claims);
        keys().verify(&signed(&claims, Algorithm::HS256, SECRET))
    }

    #[test]
    fn a_good_token_grants_what_it_names_and_no_more() {
        let token = verdict(|_| ()).unwrap();
        assert_eq!(token.identity.as_str(), "ann");
        let grant = token.room.grant();
        assert!(grant.publish && !grant.subscribe && !grant.admin);
        assert!(token.room.covers(&RoomName::parse("abc").unwrap()));
        assert!(!token.room.covers(&RoomName::parse("abcd").unwrap()));
    }

    #[test]
    fn a_star_covers_every_room() {
        let token = verdict(|claims| claims["room"]["room"] = json!("*")).unwrap();
        assert!(token.room.covers(&RoomName::parse("any-room").unwrap()));
    }

    #[test]
    fn what_is_missing_is_named() {
        for claim in ["iss", "sub", "exp", "room"] {
            let refused = verdict(|claims| drop(claims.as_object_mut().unwrap().remove(claim)));
            assert_eq!(refused, Err(TokenError::Lacks(claim)));
        }
    }

    #[test]
    fn time_counts_with_half_a_minute_of_leeway() {
        assert_eq!(verdict(|claims| claims["exp"] = json!(in_seconds(-60))), Err(TokenError::Expired));
        assert!(verdict(|claims| claims["exp"] = json!(in_seconds(-5))).is_ok());
        assert_eq!(verdict(|claims| claims["nbf"] = json!(in_seconds(60))), Err(TokenError::NotYet));
        assert_eq!(verdict(|claims| claims["exp"] = json!("soon")), Err(TokenError::Lacks("exp")));
    }

    #[test]
    fn only_our_keys_and_only_hs256_sign() {
        assert_eq!(verdict(|claims| claims["iss"] = json!("k2")), Err(TokenError::UnknownKey));
        let wrong_key = signed(&claims(), Algorithm::HS256, "another-secret-of-enough-length!!");
        assert_eq!(keys().verify(&wrong_key), Err(TokenError::Signature));
        let wrong_algorithm = signed(&claims(), Algorithm::HS512, SECRET);
        assert_eq!(keys().verify(&wrong_algorithm), Err(TokenError::Signature));
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
        for unsigned in [format!("{header}.{payload}."), format!("{header}.{payload}.AAAA")] {
            assert!(keys().verify(&unsigned).is_err());
        }
    }

    #[test]
    fn a_changed_payload_does_not_pass() {
        let token = signed(&claims(), Algorithm::HS256, SECRET);
        let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
        let mut claims = claims();
        claims["room"]["admin"] = json!(true);
        parts[1] = URL_SAFE_NO_PAD.encode(claims.to_string());
        assert_eq!(keys().verify(&parts.join(".")), Err(TokenError::Signature));
    }

    #[test]
    fn nonsense_is_refused_and_never_panics() {
        for text in ["", ".", "..", "a.b.c", "é.é.é", "x".repeat(8192).as_str()] {
            assert_eq!(keys().verify(text), Err(TokenError::Malformed));
        }
        assert_eq!(keys().verify(&"x".repeat(8193)), Err(TokenError::TooLong));
        assert_eq!(verdict(|claims| claims["sub"] = json!("")), Err(TokenError::Subject));
        assert_eq!(verdict(|claims| claims["room"] = json!("abc")), Err(TokenError::Grant));
        assert_eq!(verdict(|claims| claims["room"]["room"] = json!("a b")), Err(TokenError::Grant));
        assert_eq!(verdict(|claims| claims["aud"] = json!("elsewhere")), Err(TokenError::Audience));
    }

    #[test]
    fn what_we_sign_we_accept_even_without_a_configured_key() {
        let keys = Keys::new(&BTreeMap::new());
        let room = RoomGrant::owner(&RoomName::parse("abc").unwrap());
        let token = Token { identity: Identity::parse("ann").unwrap(), name: Some("Ann".into()), room };
        let text = keys.sign(token.clone(), in_seconds(60)).unwrap();
        assert_eq!(keys.verify(&text), Ok(token));
    }

    #[test]
    fn new_keys_differ_and_are_long_enough() {
        let ((id, secret), (other, _)) = (new_key(), new_key());
        assert_ne!(id, other);
        assert!(secret.reveal().len() >= 32);
    }

    #[test]
    fn a_seat_is_read_by_nodes_with_its_key_and_is_no_token() {
        let room = RoomName::parse("abc").unwrap();
        let grant = RoomGrant::owner(&room).grant();
        let identity = Identity::parse("ann").unwrap();
        let seat = Seat { room, opened_at_ms: 5, epoch: 7, identity, name: "Ann".into(), grant };
        let token = keys().sign_seat(seat.clone(), in_seconds(60)).unwrap();
        assert_eq!(keys().verify_seat(&token), Ok(seat.clone()));
        assert_eq!(keys().verify(&token), Err(TokenError::Audience));
        assert!(
            keys().verify_seat(&signed(&claims(), Algorithm::HS256, SECRET)).is_err(),
            "and no token a seat"
        );
        let late = keys().sign_seat(seat, in_seconds(-60)).unwrap();
        assert_eq!(keys().verify_seat(&late), Err(TokenError::Expired));
        let others = Keys::new(&BTreeMap::from([("k1".to_owned(), Secret::new("f".repeat(32)))]));
        assert_eq!(others.verify_seat(&token), Err(TokenError::Signature));
    }
}
