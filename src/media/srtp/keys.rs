//! The SRTP keys of a connection, taken from its DTLS handshake as they pass.
//!
//! The engine (str0m) does ICE, DTLS and SCTP; media and RTCP are opened and sealed here ([`super`]). AES-GCM
//! is broken by a nonce used twice (RFC 7714 §9.1), so two senders must never hold one key. They cannot: all
//! of the keying material is replaced by random bytes before the engine sees it.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use aws_lc_rs::rand;
use str0m::config::DtlsVersion;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, KeyingMaterial, ProtocolVersion,
    SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

/// A master key and its salt (RFC 3711 §3.2.1).
#[derive(Clone)]
pub struct MasterKey {
    pub key: Vec<u8>,
    pub salt: Vec<u8>,
}

/// What a handshake gave.
pub struct Keys {
    pub profile: SrtpProfile,
    /// What we send with.
    pub outgoing: MasterKey,
    /// What the peer sends with.
    pub incoming: MasterKey,
}

/// Keys are for no log.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.profile)
    }
}

impl Keys {
    /// The keys in what a handshake exports: client key, server key, client salt, server salt (RFC 5764
    /// §4.2). `None` where it is too short, or the profile is none of ours.
    pub fn of(material: &[u8], profile: SrtpProfile, is_client: bool) -> Option<Self> {
        let (key_len, salt_len) = lengths(profile)?;
        if material.len() < 2 * (key_len + salt_len) {
            return None;
        }
        let (keys, salts) = material.split_at(2 * key_len);
        let half = |second: bool| MasterKey {
            key: keys[usize::from(second) * key_len..][..key_len].to_vec(),
            salt: salts[usize::from(second) * salt_len..][..salt_len].to_vec(),
        };
        Some(Self { profile, outgoing: half(!is_client), incoming: half(is_client) })
    }
}

/// Where the keys of one connection will lie once its handshake is done.
pub type KeySlot = Arc<OnceLock<Keys>>;

thread_local! {
    /// Of the connection that this thread built last. The engine makes its DTLS instance while it is built,
    /// and has no way to name the connection that it is for.
    static LAST: RefCell<Option<KeySlot>> = const { RefCell::new(None) };
}

/// `provider` with its DTLS tapped.
pub fn tapped(provider: &CryptoProvider) -> CryptoProvider {
    /// The engine wants its providers for ever. There is one for each process.
    static TAP: OnceLock<Tap> = OnceLock::new();
    let tap = TAP.get_or_init(|| Tap { inner: provider.dtls_provider });
    CryptoProvider { dtls_provider: tap, ..provider.clone() }
}

/// The key slot of the connection that `build` builds. `None` where it built none with [`tapped`] DTLS.
pub fn of_built<T>(build: impl FnOnce() -> T) -> (T, Option<KeySlot>) {
    LAST.take();
    let built = build();
    (built, LAST.take())
}

#[derive(Debug)]
struct Tap {
    inner: &'static dyn DtlsProvider,
}

impl DtlsProvider for Tap {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.inner.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = self.inner.new_dtls(cert, now, version, mtu)?;
        let slot = KeySlot::default();
        LAST.replace(Some(Arc::clone(&slot)));
        Ok(Box::new(Tapped { inner, slot }))
    }
}

#[derive(Debug)]
struct Tapped {
    inner: Box<dyn DtlsInstance>,
    slot: KeySlot,
}

impl DtlsInstance for Tapped {
    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let is_client = self.inner.is_active();
        match self.inner.poll_output(buf) {
            DtlsOutput::KeyingMaterial(material, profile) => match split(&material, profile, is_client) {
                Some((keys, for_engine)) => {
                    // A second handshake on one connection does not exist in WebRTC.
                    let _ = self.slot.set(keys);
                    DtlsOutput::KeyingMaterial(for_engine, profile)
                }
                // Neither side gets keys: nothing is sent in the clear or with a shared key.
                None => DtlsOutput::CloseNotify,
            },
            other => other,
        }
    }

    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}

/// Length of master key and salt.
fn lengths(profile: SrtpProfile) -> Option<(usize, usize)> {
    match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Some((16, 14)),
        SrtpProfile::AEAD_AES_128_GCM => Some((16, 12)),
        SrtpProfile::AEAD_AES_256_GCM => Some((32, 12)),
        _ => None,
    }
}

/// The keys, and random bytes for the engine in their place.
fn split(material: &[u8], profile: SrtpProfile, is_client: bool) -> Option<(Keys, KeyingMaterial)> {
    let keys = Keys::of(material, profile, is_client)?;
    let mut for_engine = vec![0; material.len()];
    rand::fill(&mut for_engine).ok()?;
    Some((keys, KeyingMaterial::new(&for_engine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_gets_neither_half() {
        for (profile, len) in [
            (SrtpProfile::AES128_CM_SHA1_80, 60),
            (SrtpProfile::AEAD_AES_128_GCM, 56),
            (SrtpProfile::AEAD_AES_256_GCM, 88),
        ] {
            let material: Vec<u8> = (0..len).collect();
            for is_client in [false, true] {
                let (keys, engine) = split(&material, profile, is_client).expect("long enough");
                let (key_len, salt_len) = lengths(profile).expect("known");
                let own = usize::from(!is_client);
                assert_eq!(keys.outgoing.key, material[own * key_len..][..key_len]);
                assert_eq!(keys.outgoing.salt, material[2 * key_len + own * salt_len..][..salt_len]);
                assert_eq!(keys.incoming.key, material[(1 - own) * key_len..][..key_len]);
                assert_eq!(engine.len(), material.len());
                let kept =
                    engine.windows(key_len).any(|some| material.windows(key_len).any(|key| key == some));
                assert!(!kept, "none of it");
            }
            assert!(split(&material[1..], profile, false).is_none(), "too short");
        }
    }
}
