//! Clients of one run and the thread that joins them to a server, driven together.

use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{io, net::IpAddr};

use reqwest::Url;

use super::engine::Engine;
use super::join::{ApiKey, Join, Joiner, News, Target, What};

/// Longest wait of the loop between two looks at the clock.
const TURN_MAX: Duration = Duration::from_millis(20);

/// See the module.
pub struct Crowd {
    pub engine: Engine,
    joiner: Joiner,
    news: mpsc::Receiver<News>,
}

impl Crowd {
    /// Clients will be at `local` and join the server at `url`.
    ///
    /// # Errors
    /// The system has no more sockets or threads.
    pub fn new(target: Target, url: Url, key: ApiKey, local: IpAddr) -> io::Result<Self> {
        let engine = Engine::new(local)?;
        let (sender, news) = mpsc::channel();
        let waker = engine.waker()?;
        let joiner = Joiner::start(target, url, key, sender, move || {
            // Waking fails only when the loop is gone, and then nobody waits.
            let _ = waker.wake();
        })?;
        Ok(Self { engine, joiner, news })
    }

    /// Sends a seat's client on its way.
    pub fn join(&mut self, join: Join) {
        let seat = join.seat;
        if !self.joiner.join(join)
            && let Some(seat) = self.engine.seats.get_mut(seat)
        {
            seat.failure = Some("too many joins wait for the server".into());
        }
    }

    /// Waits for what comes next, until `end` at the latest, and does it.
    ///
    /// # Errors
    /// The system's polling failed.
    pub fn turn(&mut self, end: Instant) -> io::Result<()> {
        self.engine.turn(end.min(Instant::now() + TURN_MAX))?;
        while let Ok(news) = self.news.try_recv() {
            self.take(news);
        }
        Ok(())
    }

    fn take(&mut self, news: News) {
        if let Some(seat) = self.engine.seats.get_mut(news.seat) {
            seat.joined_at = Some(news.joined_at);
        }
        match news.what {
            What::Answer(sdp) => self.engine.answer(news.seat, &sdp),
            What::Offer(sdp, answer) => {
                // Without an answer the seat knows why, and the task gives up.
                if let Some(sdp) = self.engine.offer(news.seat, &sdp) {
                    let _ = answer.send(sdp);
                }
            }
            What::Candidate(candidate) => self.engine.candidate(news.seat, &candidate),
            What::Failed(failure) => {
                if let Some(seat) = self.engine.seats.get_mut(news.seat) {
                    seat.failure.get_or_insert(failure);
                }
            }
        }
    }

    /// Says goodbye for all.
    pub fn leave(self) {
        self.joiner.leave();
    }
}
