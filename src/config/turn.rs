//! The configuration of relays: TURN servers for people whose network lets no media through.

use serde::{Deserialize, Serialize};

use super::Secret;

/// Servers that clients are told of. They are not part of Antiphon: coturn is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Turn {
    /// Such as `turn:turn.example.org:3478?transport=udp` and `turns:turn.example.org:443?transport=tcp`.
    pub urls: Vec<String>,
    /// What the servers share with us to know those whom we sent (coturn: `static-auth-secret`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Seconds for which what a client gets lets it in.
    pub ttl_seconds: u64,
}

impl Default for Turn {
    fn default() -> Self {
        Self { urls: Vec::new(), secret: None, ttl_seconds: 6 * 3_600 }
    }
}

impl Turn {
    pub(super) fn check(&self, wrong: &mut Vec<String>) {
        for url in &self.urls {
            let is_plain = url.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | ','));
            let host = url.split_once(':').filter(|(scheme, _)| ["stun", "turn", "turns"].contains(scheme));
            if !is_plain || host.is_none_or(|(_, host)| host.is_empty() || host.starts_with('/')) {
                wrong.push(format!(
                    "`turn.urls`: {url:?} is none; accepted are such as `turn:turn.example.org:3478`, \
                     `turns:turn.example.org:443?transport=tcp` and `stun:stun.example.org`"
                ));
            }
        }
        if self.secret.is_none() && self.urls.iter().any(|url| url.starts_with("turn")) {
            wrong
                .push("`turn.secret`: the servers' `static-auth-secret` is needed, or nobody gets in".into());
        }
        if !(60..=7 * 86_400).contains(&self.ttl_seconds) {
            wrong.push("`turn.ttl_seconds`: accepted is 60 to 604800".into());
        }
    }
}
