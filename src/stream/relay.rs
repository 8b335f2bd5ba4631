//! The way of a push out of this machine: from our own process to a server that a room's owner named.
//!
//! FFmpeg speaks RTMP to a port on loopback; from there one connection goes to an address that was looked up
//! and judged here, over TLS where the target wants it. So FFmpeg reaches nothing else, a name that changes
//! its mind is of no use, and a server that stands still is noticed.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::core::stream::target::Target;

const LOOK_UP_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Our own process connects at once.
const ACCEPT_WITHIN: Duration = Duration::from_secs(20);
/// A server that takes nothing for so long is gone. Pictures come thirty times a second.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
const BUFFER_BYTES: usize = 64 * 1024;

/// Why nothing goes out. The words name no address.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("the server's name is not known")]
    NoSuchName,
    #[error("the server's address is private: this node pushes to public ones alone")]
    Private,
    #[error("the server cannot be reached")]
    Unreachable,
    #[error("the server's certificate or TLS is no good")]
    Tls,
    #[error("the server closed the connection")]
    Closed,
    #[error("the server stands still")]
    Stalled,
    #[error("no port is to be had: {0}")]
    NoPort(#[from] io::Error),
}

/// A port that waits for our process.
pub struct Relay {
    listener: TcpListener,
    pub port: u16,
}

impl Relay {
    /// # Errors
    /// [`RelayError::NoPort`].
    pub async fn open() -> Result<Self, RelayError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Carries one connection to the target until it ends, and says why it did.
    pub async fn run(self, target: &Target, private: bool, sent: &AtomicU64) -> RelayError {
        let Err(ended) = self.carry(target, private, sent).await;
        ended
    }

    async fn carry(self, target: &Target, private: bool, sent: &AtomicU64) -> Result<Infallible, RelayError> {
        let addresses = look_up(target, private).await?;
        let accepted = timeout(ACCEPT_WITHIN, self.listener.accept()).await;
        let (inside, _) = accepted.map_err(|_| RelayError::Closed)??;
        // Nobody else gets in.
        drop(self.listener);
        let outside = connect(&addresses).await?;
        outside.set_nodelay(true)?;
        if !target.tls {
            return carry(inside, outside, sent).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| RelayError::Tls)?;
        let secured = timeout(CONNECT_WITHIN, connector()?.connect(name, outside)).await;
        carry(inside, secured.map_err(|_| RelayError::Stalled)?.map_err(|_| RelayError::Tls)?, sent).await
    }
}

fn connector() -> Result<TlsConnector, RelayError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|_| RelayError::Tls)?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Whether a target may be connected to, as its name is looked up now.
///
/// # Errors
/// [`RelayError::NoSuchName`], [`RelayError::Private`].
pub async fn may_reach(target: &Target, private: bool) -> Result<(), RelayError> {
    look_up(target, private).await.map(drop)
}

/// The target's addresses that may be connected to.
async fn look_up(target: &Target, private: bool) -> Result<Vec<SocketAddr>, RelayError> {
    let found = timeout(LOOK_UP_WITHIN, tokio::net::lookup_host((target.host.as_str(), target.port))).await;
    let found: Vec<SocketAddr> =
        found.map_err(|_| RelayError::NoSuchName)?.map_err(|_| RelayError::NoSuchName)?.collect();
    if found.is_empty() {
        return Err(RelayError::NoSuchName);
    }
    let usable: Vec<SocketAddr> =
        found.into_iter().filter(|address| private || is_public(address.ip())).take(ADDRESSES_MAX).collect();
    if usable.is_empty() { Err(RelayError::Private) } else { Ok(usable) }
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, RelayError> {
    for address in addresses {
        if let Ok(Ok(stream)) = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            return Ok(stream);
        }
    }
    Err(RelayError::Unreachable)
}

/// Copies both ways until one of them ends.
async fn carry<S: AsyncRead + AsyncWrite>(
    inside: TcpStream,
    outside: S,
    sent: &AtomicU64,
) -> Result<Infallible, RelayError> {
    let (mut from_inside, mut to_inside) = inside.into_split();
    let (mut from_outside, mut to_outside) = tokio::io::split(outside);
    let out = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let Ok(length @ 1..) = from_inside.read(&mut buffer).await else { return RelayError::Closed };
            let bytes = buffer.get(..length).unwrap_or_default();
            let written = async {
                to_outside.write_all(bytes).await?;
                to_outside.flush().await
            };
            match timeout(STALLED_AFTER, written).await {
                Ok(Ok(())) => sent.fetch_add(length as u64, Ordering::Relaxed),
                Ok(Err(_)) => return RelayError::Closed,
                Err(_) => return RelayError::Stalled,
            };
        }
    };
    let back = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let Ok(length @ 1..) = from_outside.read(&mut buffer).await else { return RelayError::Closed };
            let bytes = buffer.get(..length).unwrap_or_default();
            match timeout(STALLED_AFTER, to_inside.write_all(bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return RelayError::Closed,
            }
        }
    };
    Err(tokio::select! {
        ended = out => ended,
        ended = back => ended,
    })
}

/// Whether an address is one of the internet's, and not of this machine, its network, or nobody's
/// (RFC 6890).
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        // Shared by carriers (RFC 6598), protocol assignments, benchmarks (RFC 2544), and what is reserved.
        || a == 100 && (64..128).contains(&b)
        || a == 192 && b == 0 && c == 0
        || a == 192 && b == 88 && c == 99
        || a == 198 && (18..20).contains(&b)
        || a >= 240;
    !is_special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, ..] = ip.segments();
    // Only 2000::/3 is given out, and of that not what stands for IPv4 addresses: 6to4, Teredo.
    let is_global = a & 0xe000 == 0x2000;
    let is_special = a == 0x2002
        || a == 0x2001 && b < 0x0200
        || a == 0x2001 && b == 0x0db8
        || a == 0x3fff && b < 0x1000
        || a == 0x2620 && b == 0x004f && c == 0x8000;
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internets_addresses_are_public() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for ip in ["8.8.8.8", "93.184.216.34", "100.63.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(public(ip), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!public(ip), "{ip}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_after_it_was_looked_up() {
        for url in ["rtmp://localhost/a/k", "rtmp://127.0.0.1/a/k", "rtmp://[::1]/a/k"] {
            let target = Target::parse(url).unwrap();
            assert!(matches!(look_up(&target, false).await, Err(RelayError::Private)), "{url}");
            assert!(look_up(&target, true).await.is_ok(), "{url}");
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_an_end_is_told() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let target = Target::parse(&format!("rtmp://127.0.0.1:{port}/a/k")).unwrap();
        let (relay, sent) = (Relay::open().await.unwrap(), Arc::new(AtomicU64::new(0)));
        let (entry, counted) = (relay.port, Arc::clone(&sent));
        let running = tokio::spawn(async move { relay.run(&target, true, &counted).await });
        let mut inside = TcpStream::connect(("127.0.0.1", entry)).await.unwrap();
        inside.write_all(b"to the server").await.unwrap();
        let (mut outside, _) = server.accept().await.unwrap();
        let mut buffer = [0; 13];
        outside.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"to the server");
        outside.write_all(b"back").await.unwrap();
        let mut buffer = [0; 4];
        inside.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"back");
        drop(outside);
        assert!(matches!(running.await.unwrap(), RelayError::Closed));
        assert_eq!(sent.load(Ordering::Relaxed), 13);
    }
}
