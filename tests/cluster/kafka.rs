//! A real Kafka of its own for a test, which may kill or freeze it. It goes when the test does.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::network::Place;

/// A broker of a test's own.
pub struct Kafka {
    place: Place,
    port: u16,
    directory: tempfile::TempDir,
    /// More of the script's environment.
    extra: Vec<(&'static str, String)>,
}

#[allow(dead_code, reason = "each suite that uses it uses a part of it")]
impl Kafka {
    /// Starts one at `place`.
    pub fn start(place: Place) -> Self {
        Self::with(place, Vec::new())
    }

    /// Starts one with more settings, as `scripts/kafka.sh` names them.
    pub fn with(place: Place, extra: Vec<(&'static str, String)>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = free_ports();
        let kafka = Self { place, port, directory, extra };
        kafka.act("up");
        kafka
    }

    /// `HOST:PORT`.
    pub fn brokers(&self) -> String {
        format!("{}:{}", self.place.ip(), self.port)
    }

    /// `up`, `freeze`, `thaw`, `kill9`: what `scripts/kafka.sh` does.
    pub fn act(&self, what: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka.sh");
        let output = self
            .place
            .command(script)
            .arg(what)
            .env("KAFKA_HOST", self.place.ip().to_string())
            .env("KAFKA_PORT", self.port.to_string())
            .env("KAFKA_DIR", self.directory.path().join("kafka"))
            .envs(self.extra.iter().cloned())
            .output()
            .expect("a shell");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kafka.sh {what}: {words}");
    }
}

/// A port that is free, as is the next one, which the controller has. They are below those that the system
/// gives to connections of other tests, which would take one before Kafka has started.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 600) as u16 * 20;
    let next = || 20_000 + first.wrapping_add(NEXT.fetch_add(2, Ordering::Relaxed)) % 12_000;
    let mut ports = std::iter::repeat_with(next);
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    ports.by_ref().take(6_000).find(|port| is_free(*port) && is_free(*port + 1)).expect("two free ports")
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.act("kill9");
    }
}
