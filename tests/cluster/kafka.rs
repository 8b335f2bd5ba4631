//! A real Kafka of its own for a test, which may kill or freeze it. It goes when the test does.

use std::net::TcpListener;
use std::path::Path;

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
        // The controller has the next port.
        let port = loop {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = free.local_addr().expect("its address").port();
            if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
                break port;
            }
        };
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

impl Drop for Kafka {
    fn drop(&mut self) {
        self.act("kill9");
    }
}
