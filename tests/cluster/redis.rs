//! A real Redis of its own for a test, which may kill, empty or freeze it. It goes when the test does.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::network::Place;

/// A server on a port of its own.
#[allow(dead_code, reason = "each suite that uses it uses a part of it")]
pub struct Redis {
    place: Place,
    port: u16,
    directory: tempfile::TempDir,
    /// What it knew survives a restart.
    keeps: bool,
    /// More of redis-server's options.
    extra: String,
}

#[allow(dead_code, reason = "each suite that uses it uses a part of it")]
impl Redis {
    /// Starts one. `keeps`: what it knows survives a crash.
    pub fn start(keeps: bool) -> Self {
        Self::with(keeps, "")
    }

    /// Starts one with more options.
    pub fn with(keeps: bool, extra: &str) -> Self {
        Self::start_at(Place::HERE, keeps, extra)
    }

    /// Starts one at `place`.
    pub fn start_at(place: Place, keeps: bool, extra: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The port is free again when the listener is dropped; nobody else is given it so soon. Servers of a
        // cluster talk to each other on the port that is 10,000 above.
        let port = loop {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = free.local_addr().expect("its address").port();
            if port < 55_000 {
                break port;
            }
        };
        // Whoever is on its network may speak to it.
        let open = format!("--bind {} 127.0.0.1 --protected-mode no {extra}", place.ip());
        let extra = if place.ip().is_loopback() { extra.to_owned() } else { open };
        let redis = Self { place, port, directory, keeps, extra };
        redis.act("up");
        redis
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.place.ip(), self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// `up`, `down`, `kill9`, `freeze`, `thaw`, `empty`: what `scripts/redis.sh` does.
    pub fn act(&self, what: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/redis.sh");
        let output = self
            .place
            .command(script)
            .arg(what)
            .env("REDIS_PORT", self.port.to_string())
            .env("REDIS_DIR", self.data())
            .env("REDIS_SAVE", if self.keeps { "yes" } else { "no" })
            .env("REDIS_EXTRA", &self.extra)
            .output()
            .expect("a shell");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "redis.sh {what}: {words}");
    }

    /// What `redis-cli` answers.
    pub fn ask(&self, words: &[&str]) -> String {
        let mut command = self.place.command("redis-cli");
        let output = command.args(["-p", &self.port.to_string()]).args(words).output();
        String::from_utf8_lossy(&output.expect("redis-cli").stdout).into_owned()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("redis")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.act("kill9");
    }
}
