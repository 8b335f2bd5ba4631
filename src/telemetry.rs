//! Logs, spans and metrics: set up once, before anything else.
//!
//! Addresses, tokens and chat never reach a log; packets are counted, not logged.

mod catalogue;
mod latency;
pub mod traces;

use std::io::IsTerminal as _;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

use crate::config::{Log, Telemetry};

pub use latency::{FORWARD_LATENCY, Tally};
use traces::Traces;

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// From a join's arrival to its connection: it takes a few round trips.
const JOIN_SECONDS: [f64; 9] = [0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0];
/// From a part's last frame to the part: the mixer's work, the next frame and the muxer's.
const PART_DELAY_SECONDS: [f64; 8] = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0];
/// A lost branch, until it is linked again: two seconds are promised.
const REOPEN_SECONDS: [f64; 7] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 10.0];
/// A commit to disk.
const APPEND_SECONDS: [f64; 8] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Starts logging as configured; `RUST_LOG` has the last word.
pub fn start_log(log: &Log) {
    start(log, &Telemetry::default(), "");
}

/// As [`start_log`], and has spans leave by OTLP where that is configured; `node` tells this one from others.
pub fn start(log: &Log, telemetry: &Telemetry, node: &str) -> Traces {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&log.filter));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = if log.json { lines.json().boxed() } else { lines.boxed() };
    let (traces, tracer, trouble) = match Traces::start(&telemetry.otlp, node) {
        Ok((traces, tracer)) => (traces, tracer, None),
        Err(trouble) => (Traces::default(), None, Some(trouble)),
    };
    let spans = tracer.map(|tracer| {
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        let layer = layer.with_location(false).with_threads(false).with_target(false).with_level(false);
        // Our own spans alone: what is told along the way is for the log.
        layer.with_filter(filter_fn(|about| about.is_span() && about.target().starts_with("antiphon")))
    });
    // A second start within one process, as in tests, keeps the first.
    let _ = registry().with(lines.with_filter(filter)).with(spans).try_init();
    if let Some(trouble) = trouble {
        tracing::error!(trouble, "no traces leave: look at telemetry.otlp.endpoint");
    }
    traces
}

/// Starts counting, for `/metrics`.
///
/// # Errors
/// Something else in this process records metrics already.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    let bucket = |name: &str| Matcher::Full(name.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(bucket("antiphon_join_seconds"), &JOIN_SECONDS)?
        .set_buckets_for_metric(bucket("antiphon_events_append_seconds"), &APPEND_SECONDS)?
        .set_buckets_for_metric(bucket("antiphon_hls_part_delay_seconds"), &PART_DELAY_SECONDS)?
        .set_buckets_for_metric(bucket("antiphon_relay_reopen_seconds"), &REOPEN_SECONDS)?
        .install_recorder()?;
    catalogue::describe();
    Ok(handle)
}

/// All figures in the text format of Prometheus.
pub fn render(metrics: &PrometheusHandle) -> String {
    metrics.render() + &FORWARD_LATENCY.render()
}

/// Sorts samples into their histograms from time to time: the recorder keeps them singly until then, and
/// nobody may be asking for them.
pub async fn keep_up(metrics: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.run_upkeep();
    }
}
