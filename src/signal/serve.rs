//! Binds the HTTP port and serves until told to stop, over TLS where files are configured.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinSet;

use super::tls::{Files, TlsError};
use super::{Signal, backdrop, router, rtmp};
use crate::billing::Billing;
use crate::config::Config;
use crate::control::{Control, Resumed};
use crate::files;
use crate::record::Recordings;

/// What open requests get to end by, once the node stops.
const GRACE: Duration = Duration::from_secs(5);
/// A connection that has sent no request by then is closed.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {reason}; choose another by http.listen or --listen")]
    Bind { address: SocketAddr, reason: std::io::Error },
    #[error("cannot listen for RTMP on {address}: {reason}; choose another by rtmp.port or rtmp.listen")]
    BindRtmp { address: SocketAddr, reason: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("HTTP ended: {0}")]
    Ended(#[from] std::io::Error),
}

/// A bound port that is not served yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<(Files, RustlsConfig)>,
    rtmp: Vec<TcpListener>,
    signal: Arc<Signal>,
}

impl Server {
    /// # Errors
    /// [`ServeError::Bind`], [`ServeError::BindRtmp`], [`ServeError::Tls`].
    pub fn bind(
        config: &Config,
        control: Control,
        kept: (files::Files, Recordings),
        billing: Billing,
        metrics: PrometheusHandle,
    ) -> Result<Self, ServeError> {
        let address = config.http.listen;
        let listener = TcpListener::bind(address).map_err(|reason| ServeError::Bind { address, reason })?;
        let address = listener.local_addr()?;
        let tls = match (&config.tls.cert, &config.tls.key) {
            (Some(cert), Some(key)) => Some(Files::load(cert, key)?),
            _ => None,
        };
        let signal = Arc::new(Signal::new(config, control, kept, billing, metrics));
        Ok(Self { listener, address, tls, rtmp: bind_rtmp(config)?, signal })
    }

    /// Where it listens; with port 0 configured, the one that was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then lets open requests end.
    ///
    /// # Errors
    /// [`ServeError::Ended`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let mut tasks = JoinSet::new();
        tasks.spawn(resume(Arc::clone(&self.signal)));
        for listener in self.rtmp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(rtmp::serve(listener, Arc::clone(&self.signal)));
        }
        let handle = Handle::new();
        let service = router::router(self.signal).into_make_service_with_connect_info::<SocketAddr>();
        let server =
            axum_server::from_tcp(self.listener)?.handle(handle.clone()).first_request_timeout(FIRST_REQUEST);
        let stop = async {
            shutdown.await;
            handle.graceful_shutdown(Some(GRACE));
            std::future::pending::<()>().await;
        };
        let Some((files, config)) = self.tls else {
            tokio::select! {
                ended = server.serve(service) => return Ok(ended?),
                () = stop => return Ok(()),
            }
        };
        tracing::info!("HTTP goes over TLS; its files are followed as they change");
        tokio::select! {
            ended = server.acceptor(RustlsAcceptor::new(config.clone())).serve(service) => Ok(ended?),
            () = stop => Ok(()),
            () = files.follow(config) => Ok(()),
        }
    }
}

/// Begins again what rooms had at other nodes, for ever.
async fn resume(signal: Arc<Signal>) {
    let mut resumed = signal.control.resumed();
    while let Some(Resumed { room, wishes }) = resumed.recv().await {
        let signal = Arc::clone(&signal);
        tokio::spawn(async move {
            if wishes.backdrop {
                backdrop::resume(&signal, &room).await;
            }
            if let Some(recorded) = &wishes.recording {
                signal.control.resume_recording(&room, recorded, &signal.recordings).await;
            }
            signal.feeds.resume(&room, &wishes).await;
            signal.streams.resume(&room, &wishes).await;
        });
    }
}

fn bind_rtmp(config: &Config) -> Result<Vec<TcpListener>, ServeError> {
    let listen = config.rtmp.listen.iter().filter(|_| config.rtmp.enabled);
    let bind = |ip: &std::net::IpAddr| {
        let address = SocketAddr::new(*ip, config.rtmp.port);
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        listener.map_err(|reason| ServeError::BindRtmp { address, reason })
    };
    listen.map(bind).collect()
}
