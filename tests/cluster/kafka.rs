//! A real Kafka of its own for a test, which may kill or freeze it. It goes when the test does.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// A broker of a test's own.
pub struct Kafka {
    port: u16,
    directory: tempfile::TempDir,
}

impl Kafka {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The controller has the next port.
        let port = loop {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = free.local_addr().expect("its address").port();
            if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
                break port;
            }
        };
        let kafka = Self { port, directory };
        kafka.act("up");
        kafka
    }

    /// `HOST:PORT`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `up`, `freeze`, `thaw`, `kill9`: what `scripts/kafka.sh` does.
    pub fn act(&self, what: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka.sh");
        let output = Command::new(script)
            .arg(what)
            .env("KAFKA_PORT", self.port.to_string())
            .env("KAFKA_DIR", self.directory.path().join("kafka"))
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
