//! The secret of billing, from which preimages, claims, signatures and L402 root keys are derived: the node's
//! own, or one that the nodes of a cluster share.
//!
//! Derived and not stored: after a kill between two steps the same invoice has the same preimage again, so
//! that asking the Lightning node once more is harmless. The secret cannot spend: it proves payment to this
//! node alone.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::macaroon::Macaroon;
use super::wallet::{Preimage, from_hex, hex};
use crate::config::Secret;
use crate::core::ids::{Identity, RoomName};
use crate::core::ledger::{InvoiceId, Resource};

/// The file's name in the data directory.
const FILE_NAME: &str = "billing.key";

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {reason}; it holds this node's billing secret and must be readable and writable", path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: std::io::Error,
}

/// The secret. It has no `Debug`.
#[derive(Clone)]
pub struct BillingKey([u8; 32]);

impl BillingKey {
    /// Reads the secret, or makes it: durably, before anything is derived from it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(data_dir: &Path) -> Result<Self, KeyError> {
        let path = data_dir.join(FILE_NAME);
        Self::read_or_make(&path).map_err(|reason| KeyError { path, reason })
    }

    /// As configured.
    pub fn of_secret(secret: &Secret) -> Self {
        let whole = Self([0; 32]);
        Self(whole.derive("billing", &[secret.reveal()]))
    }

    /// Tells this secret from another, and nothing of it.
    pub fn fingerprint(&self) -> String {
        hex(&self.derive("fingerprint", &[])[..8])
    }

    /// What proves that a text comes from who knows the secret.
    pub fn sign(&self, purpose: &str, text: &str) -> String {
        hex(&self.derive(purpose, &[text]))
    }

    pub fn is_signed(&self, purpose: &str, text: &str, signature: &str) -> bool {
        let right = self.sign(purpose, text);
        aws_lc_rs::constant_time::verify_slices_are_equal(right.as_bytes(), signature.as_bytes()).is_ok()
    }

    fn read_or_make(path: &Path) -> std::io::Result<Self> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let bytes = bytes.try_into();
                bytes
                    .map(Self)
                    .map_err(|_| std::io::Error::other("it has not 32 bytes: restore it from a backup"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = Self(rand::random());
                // Under another name first: a kill leaves the whole secret or none.
                let beside = path.with_extension("new");
                let mut options = std::fs::OpenOptions::new();
                let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
                file.write_all(&key.0)?;
                file.sync_all()?;
                std::fs::rename(&beside, path)?;
                if let Some(directory) = path.parent() {
                    std::fs::File::open(directory)?.sync_all()?;
                }
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    pub fn preimage(&self, invoice: &InvoiceId) -> Preimage {
        Preimage(self.derive("preimage", &[invoice.as_str()]))
    }

    /// The key by which a room's webhooks are signed; another one with each wish.
    pub fn webhook_secret(&self, room: &RoomName, change: u32) -> String {
        hex(&self.derive("webhook", &[room.as_str(), &change.to_string()]))
    }

    /// What proves to be this buyer of this thing. A secret of the viewer's.
    pub fn claim(&self, of: &Resource, viewer: &Identity) -> String {
        let content = of.content.as_ref().map(ToString::to_string);
        let parts = [Some(of.room.as_str()), content.as_deref(), Some(viewer.as_str())];
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        hex(&self.derive("claim", &parts)[..16])
    }

    pub fn is_claim(&self, of: &Resource, viewer: &Identity, claim: &str) -> bool {
        let right = self.claim(of, viewer);
        aws_lc_rs::constant_time::verify_slices_are_equal(right.as_bytes(), claim.as_bytes()).is_ok()
    }

    /// The macaroon of an L402 challenge: good for this thing, once the invoice with this hash is paid.
    pub fn l402(&self, of: &Resource, payment_hash: &str) -> Option<String> {
        let mut identifier = vec![0, 0];
        identifier.extend(from_hex(payment_hash)?);
        identifier.extend(self.derive("l402-id", &[payment_hash]));
        let root_key = self.derive("l402", &[payment_hash]);
        let mut made = Macaroon::new(&root_key, identifier);
        for caveat in caveats(of) {
            made = made.with_caveat(&caveat);
        }
        Some(STANDARD.encode(made.to_bytes()))
    }

    /// The payment hash of an L402 token (`macaroon:preimage`) that is genuine, for this thing, and whose
    /// preimage fits. Whether it was paid is the ledger's to say.
    pub fn paid_hash(&self, token: &str, of: &Resource, now_ms: u64) -> Option<String> {
        let (macaroon, preimage) = token.trim().split_once(':')?;
        let macaroon = Macaroon::from_bytes(&STANDARD.decode(macaroon).ok()?)?;
        let preimage = Preimage(from_hex(preimage)?.try_into().ok()?);
        let hash = preimage.payment_hash();
        let named = macaroon.identifier.get(2..34).map(hex)?;
        let genuine = macaroon.is_genuine(&self.derive("l402", &[&hash]));
        let ours = caveats(of);
        let holds = |caveat: &Vec<u8>| {
            let text = String::from_utf8_lossy(caveat);
            let expires = text.strip_prefix("expires_at_ms = ").and_then(|at| at.parse::<u64>().ok());
            ours.iter().any(|caveat| *caveat == text) || expires.is_some_and(|at| now_ms < at)
        };
        (genuine && named == hash && macaroon.caveats.iter().all(holds)).then_some(hash)
    }

    fn derive(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        for part in std::iter::once(&purpose).chain(parts) {
            // Lengths keep two lists of parts from reading alike.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }
}

/// What an L402 token is narrowed to.
fn caveats(of: &Resource) -> Vec<String> {
    let content = of.content.iter().map(|content| format!("content = {content}"));
    std::iter::once(format!("room = {}", of.room)).chain(content).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> Resource {
        RoomName::parse(name).unwrap().into()
    }

    #[test]
    fn what_was_bought_in_a_room_opens_neither_the_room_nor_another_thing() {
        use crate::core::ids::MessageId;
        let key = BillingKey([7; 32]);
        let (show, preimage) = (room("show"), key.preimage(&InvoiceId::new(1)));
        let file = |id: &str| Resource::file(&show.room, &MessageId::parse(id).unwrap());
        let (one, other) = (file("f1"), file("f2"));
        let hash = preimage.payment_hash();
        let token = |of| format!("{}:{}", key.l402(of, &hash).unwrap(), hex(&preimage.0));
        assert_eq!(key.paid_hash(&token(&one), &one, 0), Some(hash.clone()));
        assert_eq!(key.paid_hash(&token(&one), &other, 0), None);
        assert_eq!(key.paid_hash(&token(&one), &show, 0), None);
        let ann = Identity::parse("ann").unwrap();
        for elsewhere in [&other, &show] {
            assert!(!key.is_claim(elsewhere, &ann, &key.claim(&one, &ann)));
        }
    }

    #[test]
    fn nodes_with_one_secret_know_what_each_other_sold() {
        let secret = Secret::new("0123456789abcdef0123456789abcdef");
        let (one, other) = (BillingKey::of_secret(&secret), BillingKey::of_secret(&secret));
        let ann = Identity::parse("ann").unwrap();
        assert!(other.is_claim(&room("show"), &ann, &one.claim(&room("show"), &ann)));
        assert_eq!(one.fingerprint(), other.fingerprint());
        let foreign = BillingKey::of_secret(&Secret::new("another secret of thirty-two bytes"));
        assert_ne!(one.fingerprint(), foreign.fingerprint());
        assert!(one.is_signed("wish", "{}", &other.sign("wish", "{}")));
        assert!(!one.is_signed("wish", "{}", &foreign.sign("wish", "{}")));
        assert!(!one.is_signed("answer", "{}", &other.sign("wish", "{}")), "for one purpose");
        assert!(!one.is_signed("wish", "{} ", &other.sign("wish", "{}")));
    }

    #[test]
    fn the_secret_is_made_once_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let first = BillingKey::open(directory.path()).unwrap();
        let again = BillingKey::open(directory.path()).unwrap();
        let invoice = InvoiceId::new(7);
        assert_eq!(first.preimage(&invoice), again.preimage(&invoice));
        let mode = std::fs::metadata(directory.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
        std::fs::write(directory.path().join(FILE_NAME), "short").unwrap();
        assert!(BillingKey::open(directory.path()).is_err());
    }

    #[test]
    fn a_token_needs_the_preimage_the_room_and_our_signature() {
        let key = BillingKey([7; 32]);
        let preimage = key.preimage(&InvoiceId::new(1));
        let (hash, hidden) = (preimage.payment_hash(), hex(&preimage.0));
        let macaroon = key.l402(&room("show"), &hash).unwrap();
        let token = format!("{macaroon}:{hidden}");
        assert_eq!(key.paid_hash(&token, &room("show"), 0), Some(hash.clone()));
        assert_eq!(key.paid_hash(&token, &room("other"), 0), None);
        assert_eq!(BillingKey([8; 32]).paid_hash(&token, &room("show"), 0), None);
        let wrong = format!("{macaroon}:{}", "00".repeat(32));
        for forged in [wrong.as_str(), "", ":", "a:b", &token[1..]] {
            assert_eq!(key.paid_hash(forged, &room("show"), 0), None, "{forged}");
        }
        let narrowed = Macaroon::from_bytes(&STANDARD.decode(&macaroon).unwrap()).unwrap();
        let narrowed = narrowed.with_caveat("expires_at_ms = 100");
        let token = format!("{}:{hidden}", STANDARD.encode(narrowed.to_bytes()));
        assert_eq!(key.paid_hash(&token, &room("show"), 99), Some(hash));
        assert_eq!(key.paid_hash(&token, &room("show"), 100), None);
    }

    #[test]
    fn a_claim_is_one_viewers_of_one_room() {
        let key = BillingKey([7; 32]);
        let (ann, bob) = (Identity::parse("ann").unwrap(), Identity::parse("bob").unwrap());
        let claim = key.claim(&room("show"), &ann);
        assert!(key.is_claim(&room("show"), &ann, &claim));
        assert!(!key.is_claim(&room("show"), &bob, &claim));
        assert!(!key.is_claim(&room("other"), &ann, &claim));
        assert!(!key.is_claim(&room("show"), &ann, ""));
    }
}
