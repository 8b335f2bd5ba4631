//! How nodes know each other: each proves that it has the cluster's key, by TLS 1.3 with raw public keys
//! (RFC 7250) on both sides.
//!
//! The key pair is made of the cluster's key (HKDF, RFC 5869), so it is the same on all nodes, and nobody
//! else has it. There are no certificates, no names and no expiry; a new key is a new cluster.

use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::signature::Ed25519KeyPair;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};

use crate::core::relay::wire::ALPN;

/// Parts these keys from others that might be made of the same secret.
const SALT: &[u8] = b"antiphon relay";
const PURPOSE: &[u8] = b"ed25519 1";

/// The library does not take what was made of the key.
#[derive(Debug, thiserror::Error)]
#[error("no key pair can be made of cluster.relay.key")]
pub struct KeyError;

/// What both sides of a link need.
pub struct Keys {
    pub server: QuicServerConfig,
    pub client: Arc<QuicClientConfig>,
}

impl Keys {
    /// # Errors
    /// [`KeyError`], which no secret of a fair length brings about.
    pub fn of(secret: &str) -> Result<Self, KeyError> {
        let certified = Arc::new(certified(secret)?);
        let spki = certified.cert.first().ok_or(KeyError)?.as_ref().to_vec();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(SameKey { spki, algorithms: provider.signature_verification_algorithms });
        let versions = &[&rustls::version::TLS13];
        let alpn: Vec<Vec<u8>> = ALPN.iter().map(|version| version.to_vec()).collect();
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|_| KeyError)?
            .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&certified))));
        server.alpn_protocols.clone_from(&alpn);
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|_| KeyError)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
        client.alpn_protocols = alpn;
        Ok(Self {
            server: QuicServerConfig::try_from(server).map_err(|_| KeyError)?,
            client: Arc::new(QuicClientConfig::try_from(client).map_err(|_| KeyError)?),
        })
    }
}

fn certified(secret: &str) -> Result<CertifiedKey, KeyError> {
    let material = Salt::new(HKDF_SHA256, SALT).extract(secret.as_bytes());
    let mut seed = [0; 32];
    let made = material.expand(&[PURPOSE], HKDF_SHA256).and_then(|made| made.fill(&mut seed));
    made.map_err(|_| KeyError)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError)?;
    let pair = pair.to_pkcs8().map_err(|_| KeyError)?;
    let pair = PrivatePkcs8KeyDer::from(pair.as_ref());
    let key = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&pair).map_err(|_| KeyError)?;
    let spki = key.public_key().ok_or(KeyError)?.to_vec();
    Ok(CertifiedKey::new(vec![CertificateDer::from(spki)], key))
}

/// Takes whoever proves to have the very key that we have.
#[derive(Debug)]
struct SameKey {
    spki: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SameKey {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        if shown.as_ref() == self.spki {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn check_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signed, &self.algorithms)
    }
}

/// QUIC has no TLS 1.2 (RFC 9001 §4.2).
fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for SameKey {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for SameKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_secret_makes_one_key_and_another_another() {
        let spki = |secret: &str| certified(secret).unwrap().cert[0].as_ref().to_vec();
        assert_eq!(spki("the same"), spki("the same"));
        assert_ne!(spki("the same"), spki("another"));
    }
}
