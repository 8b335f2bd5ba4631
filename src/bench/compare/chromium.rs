//! A real browser in the room: headless Chromium, led by its DevTools protocol over a WebSocket.
//!
//! It opens a page of the server's origin and evaluates `viewer.js` there, so that what is measured is the
//! browser and not a user interface. All of it runs on a thread of its own while the room goes on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::clock;
use crate::bench::process::{Snapshot, family};
use crate::core::mix::{Area, Size};
use crate::core::protocol::Mode;

const SCRIPT: &str = include_str!("viewer.js");
/// Time to begin, and beyond the time that the script itself takes.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
];

/// What the browser is to do.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    pub room: String,
    pub mode: Mode,
    /// Streams that it takes at most.
    pub people: u32,
    /// Lines of a tile, or of the mix.
    pub height: u32,
    pub tiles: Vec<Area>,
    pub canvas: Size,
    pub settle_seconds: u32,
    pub seconds: u32,
}

/// The browser's counters at a moment, summed over its video streams.
#[derive(Debug, Clone, Deserialize)]
pub struct Counters {
    pub at_ms: f64,
    pub frames_received: f64,
    pub frames_decoded: f64,
    pub key_frames: f64,
    pub key_frames_asked: f64,
    pub nacks: f64,
    pub freezes: f64,
    pub frames_dropped: f64,
    pub decode_s: f64,
    pub jitter_buffer_s: f64,
    pub jitter_buffer_frames: f64,
    pub bytes: f64,
}

/// What the browser saw.
#[derive(Debug, Deserialize)]
pub struct Watched {
    pub start: Counters,
    pub end: Counters,
    /// Tile, number in its clock, Unix time in milliseconds at which it was due on the screen.
    pub sightings: Vec<(usize, u32, f64)>,
    /// Cores that all its processes used while it watched.
    #[serde(skip)]
    pub cores: f64,
}

/// A browser that ends with this.
struct Browser {
    child: Child,
    profile: PathBuf,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its children end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// The browser's program: as given, or the first of the known names that is found.
pub fn find(given: Option<&Path>) -> Option<PathBuf> {
    if let Some(given) = given {
        return given.exists().then(|| given.to_owned());
    }
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.exists())
}

/// Watches a room in a fresh browser.
///
/// # Errors
/// In words: it does not start, does not obey, or could not join.
pub fn watch(program: &Path, url: &Url, task: &Task) -> Result<Watched, String> {
    let browser = start(program, task.canvas).map_err(|error| format!("Chromium does not start: {error}"))?;
    let address = address(&browser).ok_or("Chromium opens no DevTools port")?;
    let page = url.join("healthz").map_err(|error| error.to_string())?;
    let script_time = Duration::from_secs(u64::from(task.settle_seconds + task.seconds));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    // Its processes' work is looked at from outside, over the same seconds that the script measures.
    let meter = Meter::start(browser.child.id(), task);
    let told = runtime.block_on(async {
        let talk = talk(&address, &page, task);
        tokio::time::timeout(BEGIN_WITHIN + script_time, talk).await.map_err(|_| "Chromium hangs")?
    })?;
    let mut watched: Watched = serde_json::from_str(&told).map_err(|error| error.to_string())?;
    watched.cores = meter.cores();
    Ok(watched)
}

fn start(program: &Path, window: Size) -> io::Result<Browser> {
    let number: u64 = rand::random();
    let profile = std::env::temp_dir().join(format!("antiphon-chromium-{number:016x}"));
    fs::create_dir_all(&profile)?;
    let child = Command::new(program)
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={},{}", window.width, window.height))
        .arg("about:blank")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Browser { child, profile })
}

/// Where its DevTools listen: the browser writes port and path into its profile.
#[allow(clippy::disallowed_methods, reason = "another process wakes nobody")]
fn address(browser: &Browser) -> Option<String> {
    let deadline = Instant::now() + BEGIN_WITHIN;
    while Instant::now() < deadline {
        let text = fs::read_to_string(browser.profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = text.trim_end().split_once('\n') {
            return Some(format!("ws://127.0.0.1:{port}{path}"));
        }
        thread::sleep(LOOK_INTERVAL);
    }
    None
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Opens the page and lets the script run. Returns what it returns.
async fn talk(address: &str, page: &Url, task: &Task) -> Result<String, String> {
    let (mut socket, _) =
        tokio_tungstenite::connect_async(address).await.map_err(|error| error.to_string())?;
    let target = call(&mut socket, None, "Target.createTarget", json!({ "url": page.as_str() })).await?;
    let attach = json!({ "targetId": text(&target, "targetId")?, "flatten": true });
    let attached = call(&mut socket, None, "Target.attachToTarget", attach).await?;
    let session = text(&attached, "sessionId")?;
    loop {
        let state = "location.protocol + document.readyState";
        if evaluate(&mut socket, &session, state).await? == "http:complete" {
            break;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let mut settings = serde_json::to_value(task).map_err(|error| error.to_string())?;
    settings["clock"] = json!({
        "left": clock::LEFT, "top": clock::TOP, "width": clock::WIDTH, "height": clock::HEIGHT,
    });
    evaluate(&mut socket, &session, &format!("const settings = {settings};\n{SCRIPT}")).await
}

fn text(value: &Value, key: &str) -> Result<String, String> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| format!("Chromium gives no {key}"))
}

async fn evaluate(socket: &mut Socket, session: &str, script: &str) -> Result<String, String> {
    let what = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
    let answer = call(socket, Some(session), "Runtime.evaluate", what).await?;
    if let Some(failure) = answer.get("exceptionDetails") {
        let words = failure["exception"]["description"].as_str().or(failure["text"].as_str());
        // The first line says what, the others where in the script.
        let what = words.and_then(|words| words.lines().next());
        return Err(format!("in Chromium: {}", what.unwrap_or("the script fails")));
    }
    text(&answer["result"], "value")
}

/// One command of the DevTools protocol and its result; events are passed over.
async fn call(
    socket: &mut Socket,
    session: Option<&str>,
    method: &str,
    params: Value,
) -> Result<Value, String> {
    const ID: u64 = 1;
    let mut command = json!({ "id": ID, "method": method, "params": params });
    if let Some(session) = session {
        command["sessionId"] = json!(session);
    }
    let sent = socket.send(Message::text(command.to_string())).await;
    sent.map_err(|error| format!("Chromium is gone: {error}"))?;
    while let Some(message) = socket.next().await {
        let message = message.map_err(|error| format!("Chromium is gone: {error}"))?;
        let Ok(text) = message.to_text() else { continue };
        let Ok(mut answer) = serde_json::from_str::<Value>(text) else { continue };
        if answer["id"] == json!(ID) {
            return match answer.get("error") {
                Some(error) => Err(format!("Chromium refuses {method}: {error}")),
                None => Ok(answer["result"].take()),
            };
        }
    }
    Err("Chromium is gone".into())
}

/// Looks twice at what the browser's processes have used: at some time within the script's measuring.
struct Meter(thread::JoinHandle<f64>);

impl Meter {
    #[allow(clippy::disallowed_methods, reason = "time itself is what is waited for")]
    fn start(pid: u32, task: &Task) -> Self {
        // It takes a second or two to begin.
        let (wait, seconds) = (task.settle_seconds + 2, task.seconds.saturating_sub(2).max(1));
        Self(thread::spawn(move || {
            thread::sleep(Duration::from_secs(u64::from(wait)));
            let before: Vec<(u32, Snapshot)> =
                family(pid).into_iter().filter_map(|pid| Some((pid, Snapshot::of(pid).ok()?))).collect();
            thread::sleep(Duration::from_secs(u64::from(seconds)));
            let usage = |(pid, before): &(u32, Snapshot)| {
                Snapshot::of(*pid).map_or(0.0, |after| before.until(&after).cpu_share)
            };
            before.iter().map(usage).sum()
        }))
    }

    fn cores(self) -> f64 {
        // It panics on nothing.
        self.0.join().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_where_it_is_said_to_be_or_nowhere() {
        let program = std::env::current_exe().expect("this program");
        assert_eq!(find(Some(&program)), Some(program));
        assert_eq!(find(Some(Path::new("/nowhere/chromium"))), None);
    }
}
