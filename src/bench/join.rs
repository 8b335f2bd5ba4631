//! Joins clients to a server in its own language: WHIP and WHEP, Janus's HTTP API or LiveKit's WebSocket.
//!
//! All of it runs on a thread of its own, a task for each client from its joining to the end of the run, so
//! that waiting for a server never delays media. Descriptions cross between that thread and the loop that
//! owns the clients as [`News`].

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use std::{io, thread};

use reqwest::{Client, Url};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::source::Encoding;

mod janus;
mod livekit;
mod whip;

/// A server that has not answered by then is taken for dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Time for all clients together to say goodbye. What has not by then just falls silent.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// Joins that wait to be sent; the load tool sends at a rate of its own and never comes near.
const WAITING_MAX: usize = 10_000;

/// Which kind of server is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// WHIP and WHEP under `/v1/rooms/{room}`, as this server has them.
    Whip,
    /// The videoroom plugin over Janus's HTTP API under `/janus`.
    Janus,
    /// LiveKit's protobuf signalling over a WebSocket.
    Livekit,
}

/// What signs tokens for a server that wants them.
#[derive(Debug, Clone)]
pub struct ApiKey {
    pub id: String,
    pub secret: String,
}

impl Target {
    /// Whether viewers wait for the server's offer instead of making one.
    pub fn offers_to_viewers(self) -> bool {
        matches!(self, Self::Janus | Self::Livekit)
    }
}

/// A client that wants in.
#[derive(Debug)]
pub struct Join {
    pub seat: usize,
    /// Number of this run, so that its rooms are not those of another.
    pub run: u32,
    pub room: u32,
    pub role: Role,
    /// Publishers in each room.
    pub publishers: u32,
    /// Of a publisher's camera, lowest first.
    pub encodings: Vec<Encoding>,
    /// The client's SDP offer, unless the server makes it.
    pub offer: Option<String>,
}

/// What a client does in its room, with its number among those who do the same there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Publisher(u32),
    Viewer(u32),
    /// Sends and receives, as people do. Only for [`Target::Whip`].
    Person(u32),
}

/// Name of a run's room.
pub fn room_name(run: u32, room: u32) -> String {
    format!("bench-{run:08x}-{room}")
}

impl Join {
    fn room_name(&self) -> String {
        room_name(self.run, self.room)
    }

    fn identity(&self) -> String {
        match self.role {
            Role::Publisher(number) => format!("publisher-{number}"),
            Role::Viewer(number) => format!("viewer-{number}"),
            Role::Person(number) => format!("person-{number}"),
        }
    }

    fn offer(&mut self) -> Result<String, String> {
        self.offer.take().ok_or_else(|| "this server makes no offer".into())
    }
}

/// Something for the client at `seat`.
#[derive(Debug)]
pub struct News {
    pub seat: usize,
    /// When its joining began.
    pub joined_at: Instant,
    pub what: What,
}

/// What the server says.
#[derive(Debug)]
pub enum What {
    /// The SDP answer to the client's offer.
    Answer(String),
    /// An SDP offer, and where the client's answer goes.
    Offer(String, oneshot::Sender<String>),
    /// An ICE candidate that came by itself.
    Candidate(String),
    /// The client is out, for this reason.
    Failed(String),
}

/// The way from one client's task to the client.
struct Line {
    seat: usize,
    joined_at: Instant,
    news: Sender<News>,
    announce: Arc<dyn Fn() + Send + Sync>,
    over: watch::Receiver<bool>,
}

impl Line {
    fn tell(&self, what: What) {
        // Nobody to tell: the run is over.
        let _ = self.news.send(News { seat: self.seat, joined_at: self.joined_at, what });
        (self.announce)();
    }

    fn answer(&self, sdp: String) {
        self.tell(What::Answer(sdp));
    }

    /// The client's answer to an offer.
    async fn offer(&self, sdp: String) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        self.tell(What::Offer(sdp, answer));
        answered.await.map_err(|_| "the client has no answer to the server's offer".into())
    }

    fn candidate(&self, candidate: String) {
        self.tell(What::Candidate(candidate));
    }

    /// Waits until the run is over.
    async fn over(&self) {
        // Fails when the loop is gone, and then it is over too.
        let _ = self.over.clone().wait_for(|over| *over).await;
    }
}

/// The thread that joins.
pub struct Joiner {
    joins: mpsc::Sender<Join>,
    over: watch::Sender<bool>,
    thread: thread::JoinHandle<()>,
}

impl Joiner {
    /// Clients join the server at `base`. What it says goes to `news`, each announced by `announce`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        target: Target,
        base: Url,
        key: ApiKey,
        news: Sender<News>,
        announce: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (joins, waiting) = mpsc::channel::<Join>(WAITING_MAX);
        let (over, is_over) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let announce: Arc<dyn Fn() + Send + Sync> = Arc::new(announce);
        let line = move |seat| Line {
            seat,
            joined_at: Instant::now(),
            news: news.clone(),
            announce: Arc::clone(&announce),
            over: is_over.clone(),
        };
        let thread = thread::Builder::new()
            .name("bench-join".into())
            .spawn(move || runtime.block_on(serve(target, base, key, waiting, line)))?;
        Ok(Self { joins, over, thread })
    }

    /// Sends a client on its way. False if too many wait.
    pub fn join(&self, join: Join) -> bool {
        self.joins.try_send(join).is_ok()
    }

    /// Says goodbye for all clients. Failures do not matter: a server ends what falls silent.
    pub fn leave(self) {
        self.over.send_replace(true);
        drop(self.joins);
        // It panics on nothing, and there is nothing to be done if it did.
        let _ = self.thread.join();
    }
}

/// Runs a task for each client until no more can come and all are done.
async fn serve(
    target: Target,
    base: Url,
    key: ApiKey,
    mut waiting: mpsc::Receiver<Join>,
    line: impl Fn(usize) -> Line + Clone + Send + 'static,
) {
    let http = Client::new();
    let mut tasks = JoinSet::new();
    while let Some(join) = waiting.recv().await {
        let (http, base, key, line) = (http.clone(), base.clone(), key.clone(), line.clone());
        tasks.spawn(async move {
            let line = line(join.seat);
            let done = match target {
                Target::Whip => whip::join(&http, &base, join, &line).await,
                Target::Janus => janus::join(&http, &base, &join, &line).await,
                Target::Livekit => livekit::join(&base, &key, &join, &line).await,
            };
            if let Err(failure) = done {
                line.tell(What::Failed(failure));
            }
        });
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    // Whoever is not done by then is cut off with the runtime.
    let _ = tokio::time::timeout(LEAVE_WITHIN, all).await;
}

/// What went wrong, without the URL: the same failure of many clients is one line of the report.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
