//! The server under measurement: a node of its own for each room and mode, started and stopped here, or one
//! that runs already.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use reqwest::Url;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::runtime::Runtime;

use super::CompareError;
use crate::bench::process::{Snapshot, children};
use crate::core::protocol::Mode;

/// Time for a node to be ready, and for an answer.
const READY_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Time to end by itself.
const END_WITHIN: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// See the module.
pub struct Server {
    pub url: Url,
    pub pid: u32,
    own: Option<Own>,
    runtime: Runtime,
    http: reqwest::Client,
}

/// A node that was started here.
struct Own {
    child: Child,
    data: PathBuf,
}

/// The node's process and those of its mixers.
pub struct Processes {
    pub node: Snapshot,
    pub mixers: Vec<(u32, Snapshot)>,
}

impl Server {
    /// Starts this very binary as a node that mixes whatever the load, its HTTP on `port` and its media from
    /// the next one on; 0 for any. Its log goes to `folder`.
    ///
    /// # Errors
    /// It does not become ready; see its log.
    pub fn start(port: u16, folder: &Path) -> Result<Self, CompareError> {
        let port = if port == 0 { free_port()? } else { port };
        let data = std::env::temp_dir().join(format!("antiphon-compare-{}-{port}", std::process::id()));
        fs::create_dir_all(&data)?;
        let log_path = folder.join("server.log");
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", "--dev", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(&data)
            .env("ANTIPHON_MEDIA__UDP_PORT", port.saturating_add(1).to_string())
            .env("ANTIPHON_MEDIA__TCP_PORT", "0")
            .env("ANTIPHON_MCU__CORES_NEEDED", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log_path)?)
            .spawn()?;
        let pid = child.id();
        let url = format!("http://127.0.0.1:{port}/");
        let url = Url::parse(&url).map_err(|error| CompareError::Server(error.to_string()))?;
        let mut server = Self::at(url, pid)?;
        server.own = Some(Own { child, data });
        let deadline = Instant::now() + READY_WITHIN;
        while !server.is_ready() {
            if Instant::now() > deadline {
                let log = log_path.display();
                return Err(CompareError::Server(format!("it is not ready; its log is {log}")));
            }
            look_again();
        }
        Ok(server)
    }

    /// A node that runs already.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn at(url: Url, pid: u32) -> Result<Self, CompareError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).build();
        let http = http.map_err(|error| CompareError::Server(error.to_string()))?;
        Ok(Self { url, pid, own: None, runtime, http })
    }

    fn is_ready(&self) -> bool {
        let Ok(url) = self.url.join("readyz") else { return false };
        // A request has to be made where the runtime runs, as its timeout is the runtime's.
        let answer = self.runtime.block_on(async { self.http.get(url).send().await });
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Makes a room that is forwarded or mixed.
    ///
    /// # Errors
    /// The server refuses.
    pub fn make_room(&self, name: &str, mode: Mode) -> Result<(), CompareError> {
        let refused = |reason: String| CompareError::Server(format!("it makes no room: {reason}"));
        let url = self.url.join("v1/rooms").map_err(|error| refused(error.to_string()))?;
        let request = self.http.post(url).json(&json!({ "name": name, "mode": mode }));
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|error| refused(error.without_url().to_string()))?;
            if answer.status().is_success() {
                return Ok(());
            }
            Err(refused(answer.text().await.unwrap_or_default()))
        })
    }

    /// What its processes have used so far.
    ///
    /// # Errors
    /// It is gone, or may not be looked at.
    pub fn processes(&self) -> Result<Processes, CompareError> {
        let gone = |error| CompareError::Server(format!("process {} cannot be read: {error}", self.pid));
        let node = Snapshot::of(self.pid).map_err(gone)?;
        // One that ends meanwhile is none.
        let mixers = children(self.pid).into_iter().filter_map(|pid| Some((pid, Snapshot::of(pid).ok()?)));
        Ok(Processes { node, mixers: mixers.collect() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(Own { child, data }) = &mut self.own else { return };
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // Fails where it has ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + END_WITHIN;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            look_again();
        }
        // What stays is in the folder for such things.
        let _ = fs::remove_dir_all(data);
    }
}

/// A TCP port that nobody has now.
fn free_port() -> Result<u16, CompareError> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[allow(clippy::disallowed_methods, reason = "another process wakes nobody")]
fn look_again() {
    thread::sleep(LOOK_INTERVAL);
}
