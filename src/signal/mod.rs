//! The HTTP shell (axum): joins by SDP, the API under `/v1`, the embedded client, health and metrics.
//!
//! It checks form and token and asks [`Control`] for the rest; it holds no room's state. Once joined, a
//! client speaks over its data channel.

mod auth;
mod backdrop;
mod content;
mod error;
mod extract;
mod files;
mod health;
mod hls;
mod home;
mod ice_servers;
mod join;
mod member;
mod messages;
mod openapi;
mod page;
mod participants;
mod payments;
mod paywall;
mod play;
mod ranges;
mod receipts;
mod recordings;
mod restreams;
mod rooms;
mod router;
mod rtmp;
mod sales;
mod serve;
mod sessions;
mod stats;
mod tls;
mod whip;
mod wishes;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;

use crate::billing::Billing;
use crate::config::Config;
use crate::control::Control;
use crate::feed::Feeds;
use crate::files::Files;
use crate::record::Recordings;
use crate::stream::Streams;
use auth::Authority;
use files::Links;
use hls::Passes;
use ice_servers::IceServers;

pub use serve::{ServeError, Server};

/// What every handler sees.
struct Signal {
    control: Control,
    authority: Authority,
    /// The address that people type, without a slash at its end.
    public_url: Option<String>,
    /// Requests come over our own TLS.
    tls: bool,
    cors_origins: Vec<String>,
    trusted_proxies: Vec<IpAddr>,
    metrics: PrometheusHandle,
    files: Files,
    recordings: Recordings,
    links: Links,
    billing: Billing,
    streams: Streams,
    feeds: Feeds,
    passes: Passes,
    ice_servers: IceServers,
    /// Requests about rooms of other nodes are passed on, not sent there.
    proxy: bool,
    /// For those.
    peers: reqwest::Client,
}

impl Signal {
    fn new(
        config: &Config,
        control: Control,
        (files, recordings): (Files, Recordings),
        billing: Billing,
        metrics: PrometheusHandle,
    ) -> Self {
        let public_url = config.http.public_url.as_ref();
        let streams = Streams::new(config, control.clone());
        let prices = billing.clone();
        control.confine(Arc::new(move |room| prices.is_priced(room)));
        let feeds = Feeds::new(config, control.clone(), files.clone());
        Self {
            control,
            authority: Authority::new(config),
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            tls: config.tls.cert.is_some(),
            cors_origins: config.http.cors_origins.clone(),
            trusted_proxies: config.http.trusted_proxies.clone(),
            metrics,
            files,
            recordings,
            links: Links::new(config),
            billing,
            streams,
            feeds,
            passes: Passes::new(config),
            ice_servers: IceServers::new(&config.turn),
            proxy: config.cluster.proxy,
            peers: home::peers(),
        }
    }
}
