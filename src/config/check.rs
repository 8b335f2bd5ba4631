//! What a configuration must be beyond its types, and what in it deserves a warning. Pure.

use std::fmt;

use tracing_subscriber::EnvFilter;

use super::{Config, DEV_KEY_SECRET};

/// RFC 7518 §3.2: an HS256 key is no shorter than its hash.
const SECRET_BYTES_MIN: usize = 32;
/// More shards than any machine has cores; the ports above `media.udp_port` are counted with it.
const SHARDS_MAX: u16 = 255;

/// Everything that is wrong, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

impl Config {
    /// # Errors
    /// Every key whose value cannot be used, with what is accepted.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut wrong = Vec::new();
        self.check_http(&mut wrong);
        self.check_media(&mut wrong);
        self.check_mcu(&mut wrong);
        self.check_auth(&mut wrong);
        self.check_limits(&mut wrong);
        self.files.check(&mut wrong);
        self.payments.check(&mut wrong);
        self.payments.check_in(&self.cluster, &mut wrong);
        self.turn.check(&mut wrong);
        self.play.check(&mut wrong);
        self.rtmp.check(&mut wrong);
        self.cluster.check(&mut wrong);
        self.telemetry.check(&mut wrong);
        if EnvFilter::try_new(&self.log.filter).is_err() {
            wrong.push("`log.filter`: accepted is what RUST_LOG takes, such as `info,antiphon=debug`".into());
        }
        if wrong.is_empty() { Ok(()) } else { Err(Problems(wrong)) }
    }

    /// What works, but maybe not as its owner expects.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        let public = !self.http.listen.ip().is_loopback();
        if public && self.tls.cert.is_none() {
            warnings.push(
                "HTTP without TLS beyond loopback: browsers withhold camera and microphone there; set \
                 tls.cert and tls.key, or put a proxy with TLS in front",
            );
        }
        if public && self.auth.guests {
            warnings.push("auth.guests is on: whoever reaches this node may make rooms and join them");
        }
        if self.auth.keys.is_empty() {
            warnings.push(
                "auth.keys is empty: owner tokens are signed with a key that ends with the process; \
                 `antiphon keys` makes one that stays",
            );
        }
        if self.rtmp.enabled && !self.rtmp.listen.iter().all(std::net::IpAddr::is_loopback) {
            warnings.push(
                "rtmp.enabled: RTMP is not encrypted, so tokens in stream keys can be read on the way; WHIP is",
            );
        }
        warnings
    }

    fn check_http(&self, wrong: &mut Vec<String>) {
        if self.dev && !self.http.listen.ip().is_loopback() {
            wrong.push(format!(
                "`http.listen` is {}: with --dev everything is open, so only loopback is accepted",
                self.http.listen
            ));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            wrong.push("`tls.cert` and `tls.key`: give both PEM files, or neither".into());
        }
        if let Some(url) = &self.http.public_url
            && !is_origin(url.strip_suffix('/').unwrap_or(url))
        {
            wrong.push(
                "`http.public_url`: accepted is such as `https://meet.example.org`, without a path".into(),
            );
        }
        for origin in &self.http.cors_origins {
            if origin != "*" && !is_origin(origin) {
                wrong.push(format!(
                    "`http.cors_origins`: {origin:?} is no origin; accepted are `*` and such as \
                     `https://example.org`"
                ));
            }
        }
    }

    fn check_media(&self, wrong: &mut Vec<String>) {
        let media = &self.media;
        if media.listen.is_empty() {
            wrong.push("`media.listen`: at least one address is needed, such as `0.0.0.0`".into());
        }
        if !media.udp && media.tcp_port == 0 {
            wrong.push("`media.udp` is off and `media.tcp_port` is 0: no way is left for media".into());
        }
        let ports = if media.shards == 0 { SHARDS_MAX } else { u16::from(media.shards) };
        if media.udp_port == 0 || media.udp_port.checked_add(ports).is_none() {
            wrong.push(format!(
                "`media.udp_port`: accepted is 1 to {}, as each shard takes the next one",
                u16::MAX - ports
            ));
        }
        if !(0.0..=1.0).contains(&media.spread_at) {
            wrong.push("`media.spread_at`: accepted is 0 to 1, a share of a shard's time".into());
        }
        for ip in &self.node.public_ip {
            if ip.is_unspecified() || ip.is_multicast() {
                wrong.push(format!("`node.public_ip`: {ip} is no address that a client could reach"));
            }
        }
    }

    fn check_mcu(&self, wrong: &mut Vec<String>) {
        let mcu = &self.mcu;
        for (name, pixels) in [("width", mcu.width), ("height", mcu.height)] {
            if !(160..=3_840).contains(&pixels) || !pixels.is_multiple_of(4) {
                wrong.push(format!("`mcu.{name}`: accepted is 160 to 3840, a multiple of 4"));
            }
        }
        if !(5..=60).contains(&mcu.frames_per_second) {
            wrong.push("`mcu.frames_per_second`: accepted is 5 to 60".into());
        }
        if !(0.0..=64.0).contains(&mcu.cores_needed) {
            wrong.push("`mcu.cores_needed`: accepted is 0, which refuses nobody, to 64".into());
        }
        if mcu.cores_max == 0 {
            wrong.push("`mcu.cores_max`: accepted is 1 or more".into());
        }
        if !(300_000..=20_000_000).contains(&mcu.bitrate_bps) {
            wrong.push("`mcu.bitrate_bps`: accepted is 300000 to 20000000".into());
        }
    }

    fn check_auth(&self, wrong: &mut Vec<String>) {
        let auth = &self.auth;
        if auth.keys.is_empty() && !auth.guests {
            wrong.push(
                "`auth.keys` is empty, so nobody could come in: run `antiphon keys` and put what it prints \
                 into the configuration, or set auth.guests = true, or try it out with `antiphon serve --dev`"
                    .into(),
            );
        }
        for (id, secret) in &auth.keys {
            let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if !plain || !(1..=64).contains(&id.len()) {
                wrong.push(format!(
                    "`auth.keys`: {id:?} is no key id; accepted are 1 to 64 letters, digits, '-' and '_'"
                ));
            }
            if secret.reveal().len() < SECRET_BYTES_MIN {
                wrong.push(format!(
                    "`auth.keys.{id}`: a secret has at least {SECRET_BYTES_MIN} bytes; \
                     `antiphon keys` makes one"
                ));
            }
            if !self.dev && secret.reveal() == DEV_KEY_SECRET {
                wrong.push(format!(
                    "`auth.keys.{id}`: this is the development secret that everyone knows; \
                     `antiphon keys` makes one"
                ));
            }
        }
    }

    fn check_limits(&self, wrong: &mut Vec<String>) {
        let limits = &self.limits;
        let counts = [
            ("rooms", limits.rooms),
            ("participants_per_room", limits.participants_per_room),
            ("publishers_per_room", limits.publishers_per_room),
            ("viewers_per_room", limits.viewers_per_room),
            ("chat_chars_max", limits.chat_chars_max),
        ];
        for (key, count) in counts {
            if count == 0 {
                wrong.push(format!("`limits.{key}`: accepted is 1 or more"));
            }
        }
        let rates = [
            ("joins_per_second", limits.joins_per_second),
            ("messages_per_second", limits.messages_per_second),
        ];
        for (key, rate) in rates {
            if !rate.is_finite() || rate <= 0.0 {
                wrong.push(format!("`limits.{key}`: accepted is a number above 0"));
            }
        }
    }
}

/// Scheme and host, maybe a port: what browsers call an origin.
pub(super) fn is_origin(text: &str) -> bool {
    let Some(host) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn valid() -> Config {
        let mut config = Config::default();
        config.auth.keys.insert("k1".into(), Secret::new("s".repeat(32)));
        config
    }

    fn refusal(change: impl FnOnce(&mut Config)) -> String {
        let mut config = valid();
        change(&mut config);
        config.validate().map_or_else(|problems| problems.to_string(), |()| String::new())
    }

    #[test]
    fn the_defaults_with_a_key_are_valid() {
        assert_eq!(valid().validate(), Ok(()));
    }

    #[test]
    fn each_wrong_value_names_its_key() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 22] = [
            ("tls.cert", |c| c.tls.cert = Some("a.pem".into())),
            ("http.public_url", |c| c.http.public_url = Some("meet.example.org".into())),
            ("http.public_url", |c| c.http.public_url = Some("https://a/b".into())),
            ("http.cors_origins", |c| c.http.cors_origins = vec!["example.org".into()]),
            ("media.listen", |c| c.media.listen.clear()),
            ("media.udp_port", |c| c.media.udp_port = 65_535),
            ("media.tcp_port", |c| (c.media.udp, c.media.tcp_port) = (false, 0)),
            ("media.spread_at", |c| c.media.spread_at = 70.0),
            ("node.public_ip", |c| c.node.public_ip = vec![std::net::IpAddr::from([0, 0, 0, 0])]),
            ("auth.keys.k1", |c| drop(c.auth.keys.insert("k1".into(), Secret::new("short")))),
            ("auth.keys.k1", |c| drop(c.auth.keys.insert("k1".into(), Secret::new(DEV_KEY_SECRET)))),
            ("turn.urls", |c| c.turn.urls = vec!["https://turn.example.org".into()]),
            ("turn.secret", |c| c.turn.urls = vec!["turn:turn.example.org".into()]),
            ("turn.ttl_seconds", |c| c.turn.ttl_seconds = 5),
            ("limits.rooms", |c| c.limits.rooms = 0),
            ("play.height_max", |c| c.play.height_max = 721),
            ("play.frames_per_second_max", |c| c.play.frames_per_second_max = 0),
            ("rtmp.port", |c| (c.rtmp.enabled, c.rtmp.port) = (true, 0)),
            ("cluster.redis_url", |c| c.cluster.redis_url = Some(Secret::new("localhost:6379"))),
            ("cluster.node_id", |c| c.cluster.redis_url = Some(Secret::new("redis://localhost"))),
            ("cluster.url", |c| c.cluster.redis_url = Some(Secret::new("redis://localhost"))),
            ("limits.joins_per_second", |c| c.limits.joins_per_second = f64::NAN),
        ];
        for (key, change) in cases {
            assert!(refusal(change).contains(key), "{key}: {}", refusal(change));
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let words = refusal(|c| {
            c.limits.rooms = 0;
            c.tls.key = Some("k.pem".into());
        });
        assert_eq!(words.lines().count(), 2, "{words}");
    }

    #[test]
    fn a_secret_is_never_in_the_words() {
        let words = refusal(|c| drop(c.auth.keys.insert("k1".into(), Secret::new("tell-nobody"))));
        assert!(!words.contains("tell-nobody"));
    }
}
