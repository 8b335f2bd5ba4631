//! Traces: spans that leave by OTLP, and the context by which one goes on at another node (W3C Trace
//! Context).
//!
//! Spans name what was done, on which route and in which room; no address, no secret and no text is in one.
//! Log lines stay in the log. Without `telemetry.otlp.endpoint` nothing is kept, and [`current`] is nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::config::Otlp;

/// The header of HTTP and of Kafka's records that says which trace something belongs to.
pub const TRACEPARENT: &str = "traceparent";
/// A collector that takes longer loses what it was sent.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// Where a collector takes traces, by the specification of OTLP.
const PATH: &str = "/v1/traces";

/// What leaves by OTLP. Held while the node runs; what waits is sent when it is dropped.
#[derive(Default)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// As configured. `node` tells it from others.
    ///
    /// # Errors
    /// The words of the exporter.
    pub fn start(otlp: &Otlp, node: &str) -> Result<(Self, Option<SdkTracer>), String> {
        let Some(endpoint) = &otlp.endpoint else { return Ok((Self::default(), None)) };
        let client = std::thread::spawn(|| reqwest::blocking::Client::builder().build());
        let client = client.join().map_err(|_| "no client".to_owned())?.map_err(|error| error.to_string())?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')))
            .with_timeout(EXPORT_WITHIN)
            .build()
            .map_err(|error| error.to_string())?;
        let about = [
            KeyValue::new("service.name", "antiphon"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_owned()),
        ];
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // Whoever began a trace has decided; of those that begin here this share is kept.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sample))))
            .with_resource(Resource::builder_empty().with_attributes(about).build())
            .build();
        let tracer = provider.tracer("antiphon");
        Ok((Self(Some(provider)), Some(tracer)))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // A collector that is gone takes the last ones with it.
        let _ = self.0.take().map(|provider| provider.shutdown());
    }
}

/// One header, to be read from.
struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// The `traceparent` of the current span, where its trace is kept.
pub fn current() -> Option<String> {
    of(&Span::current())
}

/// The `traceparent` of a span, where its trace is kept.
pub fn of(span: &Span) -> Option<String> {
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut headers = std::collections::HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut headers);
    headers.remove(TRACEPARENT)
}

/// Lets a span that has just been made go on with what a `traceparent` names. One that cannot be read names
/// nothing.
pub fn go_on(span: &Span, traceparent: Option<&str>) {
    if let Some(traceparent) = traceparent {
        // Without an exporter there is nothing that could take it.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Header(traceparent)));
    }
}

/// Traces of what is on its way, by the number under which it is. Bounded by what may be on its way.
#[derive(Debug, Default)]
pub struct Underway(BTreeMap<u64, String>);

impl Underway {
    pub fn note(&mut self, number: u64, traceparent: Option<String>) {
        self.0.extend(traceparent.map(|traceparent| (number, traceparent)));
    }

    pub fn of(&self, number: u64) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    pub fn end(&mut self, number: u64) {
        self.0.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_span_goes_on_with_what_a_header_names() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let kept = tracing_subscriber::registry().with(layer);
        let named = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        tracing::subscriber::with_default(kept, || {
            let span = tracing::info_span!("here");
            go_on(&span, Some(named));
            let told = of(&span).expect("it is in a trace");
            assert!(told.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{told}");
            assert_ne!(told, named);
            for bad in
                ["", "00-0-0-0", "no header", "00-00000000000000000000000000000000-0000000000000000-01"]
            {
                let alone = tracing::info_span!("alone");
                go_on(&alone, Some(bad));
                assert!(!of(&alone).expect("a trace of its own").contains("8448eb211c80319c"));
            }
        });
        assert_eq!(current(), None, "nothing is kept without an exporter");
    }
}
