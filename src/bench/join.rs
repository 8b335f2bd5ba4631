//! Joins by WHIP and WHEP (RFC 9725): offers go out and answers come back on a thread of their own, so that
//! waiting for HTTP never delays media.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use std::{io, thread};

use reqwest::{Client, Url, header};
use tokio::sync::mpsc;

/// A server that has not answered by then is taken for dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Joins that wait to be sent; the load tool sends at a rate of its own and never comes near.
const WAITING_MAX: usize = 10_000;

/// An offer to be posted for the client at `seat`.
#[derive(Debug)]
pub struct Post {
    pub seat: usize,
    pub url: Url,
    pub offer: String,
}

/// What came of a [`Post`].
#[derive(Debug)]
pub struct Posted {
    pub seat: usize,
    /// When the request began.
    pub posted_at: Instant,
    /// SDP answer and session URL, or what went wrong.
    pub result: Result<(String, Option<Url>), String>,
}

/// The thread that joins. It ends when this is dropped.
pub struct Joiner {
    posts: mpsc::Sender<Post>,
}

impl Joiner {
    /// Answers go to `answers`, each announced by `announce`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(answers: Sender<Posted>, announce: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let (posts, mut waiting) = mpsc::channel::<Post>(WAITING_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let announce = Arc::new(announce);
        thread::Builder::new().name("bench-join".into()).spawn(move || {
            runtime.block_on(async move {
                let http = Client::new();
                while let Some(post) = waiting.recv().await {
                    let (http, answers, announce) = (http.clone(), answers.clone(), Arc::clone(&announce));
                    tokio::spawn(async move {
                        let posted_at = Instant::now();
                        let result = exchange(&http, &post.url, post.offer).await;
                        // Nobody to tell: the run is over.
                        let _ = answers.send(Posted { seat: post.seat, posted_at, result });
                        announce();
                    });
                }
            });
        })?;
        Ok(Self { posts })
    }

    /// Sends an offer on its way. False if too many wait.
    pub fn post(&self, post: Post) -> bool {
        self.posts.try_send(post).is_ok()
    }
}

/// Ends sessions politely. Failures do not matter: a server ends what falls silent.
pub fn leave(sessions: Vec<Url>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let http = Client::new();
        for session in sessions {
            let _ = http.delete(session).timeout(Duration::from_secs(1)).send().await;
        }
    });
    Ok(())
}

async fn exchange(http: &Client, url: &Url, offer: String) -> Result<(String, Option<Url>), String> {
    let request = http.post(url.clone()).header(header::CONTENT_TYPE, "application/sdp").body(offer);
    let response = request.timeout(ANSWER_WITHIN).send().await.map_err(reason)?;
    let status = response.status();
    let session = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let session = session.and_then(|location| response.url().join(location).ok());
    let body = response.text().await.map_err(reason)?;
    if !status.is_success() {
        return Err(format!("{status}: {}", body.chars().take(200).collect::<String>()));
    }
    Ok((body, session))
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
