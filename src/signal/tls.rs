//! TLS from PEM files, read again when they change, so that a renewed certificate needs no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(5);

/// The certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: std::io::Error },
    #[error("tls.cert: {} holds no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("tls.key: {} holds no PEM private key", .0.display())]
    NoKey(PathBuf),
    #[error("tls.cert and tls.key cannot be used together: {0}")]
    Unusable(rustls::Error),
}

/// The pair of files and what was in them when they were last taken.
pub struct Files {
    cert: PathBuf,
    key: PathBuf,
    seen: Contents,
}

#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// Reads the pair for the first time.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(cert: &Path, key: &Path) -> Result<(Self, RustlsConfig), TlsError> {
        let seen = Contents { cert: read(cert)?, key: read(key)? };
        let files = Self { cert: cert.to_owned(), key: key.to_owned(), seen };
        let config = RustlsConfig::from_config(files.server_config(&files.seen)?);
        Ok((files, config))
    }

    /// Follows the files for ever. A pair that is no good leaves the last good one in place; that is said
    /// once for each change.
    pub async fn follow(mut self, config: RustlsConfig) {
        loop {
            tokio::time::sleep(POLL).await;
            match self.refresh(&config) {
                Ok(true) => tracing::info!("the TLS certificate was read again"),
                Ok(false) => (),
                Err(error) => {
                    tracing::warn!(%error, "the TLS files changed but cannot be used; the last ones stay")
                }
            }
        }
    }

    /// True if something new was taken.
    fn refresh(&mut self, config: &RustlsConfig) -> Result<bool, TlsError> {
        // A file that is away for a moment, as when it is replaced, is looked for again.
        let (Ok(cert), Ok(key)) = (read(&self.cert), read(&self.key)) else { return Ok(false) };
        let now = Contents { cert, key };
        if now == self.seen {
            return Ok(false);
        }
        let fresh = self.server_config(&now);
        self.seen = now;
        config.reload_from_config(fresh?);
        Ok(true)
    }

    fn server_config(&self, contents: &Contents) -> Result<Arc<ServerConfig>, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&contents.cert)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::NoCertificate(self.cert.clone()))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(self.cert.clone()));
        }
        let key =
            PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| TlsError::NoKey(self.key.clone()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|reason| TlsError::Unreadable { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(folder: &Path) {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(folder.join("cert.pem"), pair.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    }

    fn load(folder: &Path) -> Result<(Files, RustlsConfig), TlsError> {
        Files::load(&folder.join("cert.pem"), &folder.join("key.pem"))
    }

    #[test]
    fn a_renewed_pair_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path());
        let (mut files, config) = load(folder.path()).unwrap();
        let first = config.get_inner();
        assert!(!files.refresh(&config).unwrap(), "nothing changed");

        write_pair(folder.path());
        assert!(files.refresh(&config).unwrap());
        let second = config.get_inner();
        assert!(!Arc::ptr_eq(&first, &second));

        std::fs::write(folder.path().join("cert.pem"), "half written").unwrap();
        assert!(files.refresh(&config).is_err());
        assert!(!files.refresh(&config).unwrap(), "said once for each change");
        assert!(Arc::ptr_eq(&second, &config.get_inner()), "the last good pair stays");

        std::fs::remove_file(folder.path().join("cert.pem")).unwrap();
        assert!(!files.refresh(&config).unwrap(), "a file that is away for a moment is no change");
        write_pair(folder.path());
        assert!(files.refresh(&config).unwrap());
    }

    #[test]
    fn what_is_wrong_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let words = |folder: &Path| load(folder).err().unwrap().to_string();
        assert!(words(folder.path()).contains("cert.pem"));
        write_pair(folder.path());
        std::fs::write(folder.path().join("key.pem"), "none").unwrap();
        assert!(words(folder.path()).contains("key.pem"));
        let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(folder.path().join("key.pem"), other.signing_key.serialize_pem()).unwrap();
        assert!(words(folder.path()).contains("cannot be used together"));
    }
}
