//! Configuration of traces: where they go, and how many.

use serde::{Deserialize, Serialize};

use super::check::is_origin;

/// What is told to systems that collect it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    pub otlp: Otlp,
}

/// Traces by OTLP over HTTP. Without `endpoint` none are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Otlp {
    /// A collector's address, such as `http://10.0.0.30:4318`; traces go to `/v1/traces` there.
    pub endpoint: Option<String>,
    /// Share of the traces that begin here that is kept, 0–1. Whoever began one elsewhere has decided.
    pub sample: f64,
}

impl Default for Otlp {
    fn default() -> Self {
        Self { endpoint: None, sample: 1.0 }
    }
}

impl Telemetry {
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        let Otlp { endpoint, sample } = &self.otlp;
        if let Some(endpoint) = endpoint
            && !is_origin(endpoint.trim_end_matches('/'))
        {
            wrong.push(
                "`telemetry.otlp.endpoint`: accepted is such as `http://10.0.0.30:4318`, without a path"
                    .into(),
            );
        }
        if !(0.0..=1.0).contains(sample) {
            wrong.push(format!("`telemetry.otlp.sample` is {sample}: accepted is a share from 0 to 1"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(endpoint: &str, sample: f64) -> String {
        let mut wrong = Vec::new();
        Telemetry { otlp: Otlp { endpoint: Some(endpoint.into()), sample } }.check(&mut wrong);
        wrong.join("\n")
    }

    #[test]
    fn an_endpoint_is_an_address_without_a_path() {
        for good in ["http://10.0.0.30:4318", "https://otlp.example.org/"] {
            assert_eq!(wrong(good, 0.5), "");
        }
        for bad in ["", "10.0.0.30:4318", "grpc://a:4317", "http://a/v1/traces"] {
            assert!(wrong(bad, 1.0).contains("telemetry.otlp.endpoint"), "{bad}");
        }
        assert!(wrong("http://a", 1.5).contains("telemetry.otlp.sample"));
    }
}
