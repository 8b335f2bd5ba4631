//! The SRTP keys and their profile that the DTLS handshake of a client gave, noted as they pass. The engine
//! does not tell them.
//!
//! Unlike the server's tap ([`crate::media::srtp::keys`]), which replaces them and has no way of leaving
//! them: here the engine gets what it always gets.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::config::DtlsVersion;
use str0m::crypto::dtls::{DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion};
use str0m::crypto::{CryptoError, CryptoProvider};

use crate::media::srtp::keys::{KeySlot, Keys};

thread_local! {
    /// Of the client that this thread built last. The engine makes its DTLS instance while it is built, and
    /// has no way to name the client that it is for.
    static LAST: RefCell<KeySlot> = RefCell::default();
}

/// `provider` with its DTLS watched.
pub fn watched(provider: CryptoProvider) -> CryptoProvider {
    /// The engine wants its providers for ever. There is one for each process.
    static WATCH: OnceLock<Watch> = OnceLock::new();
    let watch = WATCH.get_or_init(|| Watch { inner: provider.dtls_provider });
    CryptoProvider { dtls_provider: watch, ..provider }
}

/// What `build` builds with [`watched`] DTLS, and where its keys will be.
pub fn of_built<T>(build: impl FnOnce() -> T) -> (T, KeySlot) {
    LAST.take();
    let built = build();
    (built, LAST.take())
}

#[derive(Debug)]
struct Watch {
    inner: &'static dyn DtlsProvider,
}

impl DtlsProvider for Watch {
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
        LAST.replace(Arc::clone(&slot));
        Ok(Box::new(Watched { inner, slot }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: Box<dyn DtlsInstance>,
    slot: KeySlot,
}

impl DtlsInstance for Watched {
    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let is_client = self.inner.is_active();
        let output = self.inner.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output
            && let Some(keys) = Keys::of(material, *profile, is_client)
        {
            // A second handshake on one connection does not exist in WebRTC.
            let _ = self.slot.set(keys);
        }
        output
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
