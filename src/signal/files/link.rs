//! Addresses of files for who cannot send headers, such as a download or a player: short-lived, for one file,
//! signed. A token never stands in an address.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};

use super::access::may_fetch_unsold;
use crate::config::Config;
use crate::control::unix_ms;
use crate::core::ids::{Identity, MessageId, RoomName};
use crate::core::protocol::Code;
use crate::signal::Signal;
use crate::signal::error::{Problem, ProblemBody};
use crate::signal::extract::{From, InRoom, OfFile, Params};

/// Long enough to begin a download. One that runs goes on; a player asks for a new address.
const HOLDS_MS: u64 = 10 * 60 * 1_000;

/// Signs and reads addresses.
pub struct Links {
    key: hmac::Key,
}

/// What makes an address one of ours.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Signature {
    /// Of an address that a `link` gave: until when it holds, ms since the Unix epoch.
    until: Option<u64>,
    /// And its signature, in hex.
    signature: Option<String>,
    /// Of an address of what was bought: by whom.
    viewer: Option<String>,
}

/// Who asks for contents, beside what its headers say: an address of ours perhaps, and from where.
pub struct Asker {
    pub signature: Signature,
    /// Never logged.
    pub from: IpAddr,
}

impl FromRequestParts<Arc<Signal>> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, signal: &Arc<Signal>) -> Result<Self, Problem> {
        let Params(signature) = Params::from_request_parts(parts, signal).await?;
        let From(from) = From::from_request_parts(parts, signal).await?;
        Ok(Self { signature, from })
    }
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The request shows no address of ours.
    Nothing,
    /// Whoever has it.
    Anyone,
    /// This buyer's, for as long as what was bought is not taken back.
    Buyer(Identity),
}

/// An address of a file that needs no header.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Link {
    /// Path and query.
    pub url: String,
    /// Milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

impl Links {
    /// By a key of the node's, so that every node which has the same takes them; without any, by one that ends
    /// with the process.
    pub fn new(config: &Config) -> Self {
        let base: Vec<u8> = match config.auth.keys.values().next() {
            Some(secret) => secret.reveal().as_bytes().to_vec(),
            None => rand::random::<[u8; 32]>().to_vec(),
        };
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &base), b"antiphon file links");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    /// Of a path in this API. No identity has a line break in it, so no two claims read alike.
    fn sign(&self, path: &str, until: u64, viewer: Option<&str>) -> String {
        let viewer = viewer.map(|viewer| format!("\n{viewer}")).unwrap_or_default();
        let signed = hmac::sign(&self.key, format!("{path}?{until}{viewer}").as_bytes());
        signed.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whose this address is, if it is one of ours that still holds.
    ///
    /// # Errors
    /// 401 for one that claims to be ours and is not, or not any more.
    pub fn admits(&self, path: &str, claim: &Signature) -> Result<Shown, Problem> {
        self.admits_at(unix_ms(), path, claim)
    }

    /// An address of this path that holds from now on.
    pub fn link(&self, path: &str) -> Link {
        let expires_at_ms = unix_ms() + HOLDS_MS;
        let signature = self.sign(path, expires_at_ms, None);
        Link { url: format!("{path}?until={expires_at_ms}&signature={signature}"), expires_at_ms }
    }

    /// An address for a buyer, which ends no later than what was paid for.
    pub fn sold(&self, path: &str, viewer: &Identity, paid_until_ms: u64) -> Link {
        let expires_at_ms = paid_until_ms.min(unix_ms() + HOLDS_MS);
        let signature = self.sign(path, expires_at_ms, Some(viewer.as_str()));
        let until = expires_at_ms.to_string();
        let query = [("until", until.as_str()), ("signature", &signature), ("viewer", viewer.as_str())];
        // Of the base nothing is used; it is needed for a query to be written.
        let made = reqwest::Url::parse_with_params("http://localhost", query);
        let query = made.as_ref().ok().and_then(|url| url.query()).unwrap_or_default();
        Link { url: format!("{path}?{query}"), expires_at_ms }
    }

    fn admits_at(&self, now_ms: u64, path: &str, claim: &Signature) -> Result<Shown, Problem> {
        let (until, signature) = match claim {
            Signature { until: None, signature: None, .. } => return Ok(Shown::Nothing),
            Signature { until: Some(until), signature: Some(signature), .. } => (*until, signature),
            _ => return Err(Problem::new(Code::Unauthorized, "this address is not whole")),
        };
        let ours = self.sign(path, until, claim.viewer.as_deref());
        let is_ours = constant_time::verify_slices_are_equal(ours.as_bytes(), signature.as_bytes()).is_ok();
        if is_ours && now_ms < until {
            return Ok(match &claim.viewer {
                Some(viewer) => Shown::Buyer(Identity::parse(viewer)?),
                None => Shown::Anyone,
            });
        }
        Err(Problem::new(Code::Unauthorized, "this address does not hold any more: ask for a new one"))
    }
}

/// Make an address that needs no header
///
/// For a download or a player. It holds for ten minutes, and for this file.
#[utoipa::path(
    post, path = "/v1/rooms/{room}/files/{file}/link", tag = "files",
    params(
        ("room" = RoomName, Path), ("file" = MessageId, Path),
        ("Antiphon-Session" = Option<String>, Header, description = "The session of a participant"),
    ),
    responses(
        (status = 200, body = Link),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json",
            description = "401 unauthorized, 402 payment_required where it is sold, 403 forbidden or \
                room_private, 404 not_found, 410 gone"),
    )
)]
pub async fn link(
    State(signal): State<Arc<Signal>>,
    InRoom(room): InRoom,
    OfFile(id): OfFile,
    headers: HeaderMap,
) -> Result<Json<Link>, Problem> {
    may_fetch_unsold(&signal, &headers, &room, &id).await?;
    signal.files.kept(&room, &id).await?;
    Ok(Json(signal.links.link(&path(&room, &id))))
}

/// Of a file in this API.
pub fn path(room: &RoomName, id: &MessageId) -> String {
    format!("/v1/rooms/{room}/files/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_for_its_file_and_its_time() {
        let links = Links::new(&Config::default());
        let path = |room: &str, id: &str| {
            super::path(&RoomName::parse(room).unwrap(), &MessageId::parse(id).unwrap())
        };
        let ours = path("room", "f1");
        let claim = |until, signature: &str| Signature {
            until: Some(until),
            signature: Some(signature.into()),
            viewer: None,
        };
        let good = claim(1_000, &links.sign(&ours, 1_000, None));
        assert_eq!(links.admits_at(999, &ours, &good), Ok(Shown::Anyone));
        let ann = Identity::parse("ann").unwrap();
        let bought =
            Signature { viewer: Some("ann".into()), ..claim(1_000, &links.sign(&ours, 1_000, Some("ann"))) };
        assert_eq!(links.admits_at(999, &ours, &bought), Ok(Shown::Buyer(ann)));
        let stolen = Signature { viewer: Some("bob".into()), ..bought };
        assert!(links.admits_at(999, &ours, &stolen).is_err());
        let unbound = Signature { viewer: None, ..stolen };
        assert!(links.admits_at(999, &ours, &unbound).is_err());
        assert!(links.admits_at(1_000, &ours, &good).is_err());
        assert!(links.admits_at(999, &path("room", "f2"), &good).is_err());
        assert!(links.admits_at(999, &path("other", "f1"), &good).is_err());
        let later = claim(2_000, &links.sign(&ours, 1_000, None));
        assert!(links.admits_at(999, &ours, &later).is_err());
        assert!(Links::new(&Config::default()).admits_at(999, &ours, &good).is_err());
        assert_eq!(links.admits_at(999, &ours, &Signature::default()), Ok(Shown::Nothing));
    }
}
