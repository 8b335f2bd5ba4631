//! How long a request waits for the event log, and whether it begins to: behind a breaker, as a log that has
//! kept some waiting keeps the next waiting, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::oneshot;

use super::overloaded;
use super::wish::{Declined, Done};
use crate::core::breaker::{Breaker, BreakerSettings, BreakerState};
use crate::core::refusal::{Code, Refusal};

/// How long what changes the ledger waits for the event log and the Lightning node: so often so long, as a
/// node that was frozen has not waited meanwhile. In all less than other nodes wait for an answer.
const KEPT_WITHIN: (u32, Duration) = (12, Duration::from_millis(500));
/// Requests that come together fail together, and may have met one short pause.
const OPENS_AFTER: u32 = 5;
const SETTINGS: BreakerSettings = BreakerSettings {
    opens_after: OPENS_AFTER,
    rest: Duration::from_millis(250),
    rest_max: Duration::from_secs(1),
    // Beyond `KEPT_WITHIN`.
    try_within: Duration::from_secs(7),
};

/// What waits for the log; cheap to clone.
#[derive(Clone)]
pub(super) struct Waiting {
    breaker: Arc<Mutex<Breaker>>,
    /// The breaker's time is counted from here.
    started_at: Instant,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { breaker: Arc::new(Mutex::new(Breaker::new(SETTINGS))), started_at: Instant::now() }
    }
}

impl Waiting {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Each change is whole before the lock is left.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, where it is worth while, and waits for the answer.
    pub(super) async fn wait(
        &self,
        ask: impl FnOnce() -> Result<oneshot::Receiver<Result<Done, Declined>>, Declined>,
    ) -> Result<Done, Declined> {
        let admitted = self.breaker().admit(self.started_at.elapsed());
        self.show();
        let Ok(permit) = admitted else {
            counter!("antiphon_breaker_refused_total", "dependency" => "kafka").increment(1);
            return Err(Declined::Refused(unwritten()));
        };
        let answer = match ask() {
            Ok(receiver) => kept(receiver).await,
            Err(declined) => Some(Err(declined)),
        };
        match &answer {
            Some(_) => self.breaker().handle_success(permit),
            None => self.breaker().handle_failure(self.started_at.elapsed(), permit),
        }
        self.show();
        // Where the loop has not begun with it, it never will.
        answer.unwrap_or_else(|| Err(Declined::Refused(unwritten())))
    }

    fn show(&self) {
        let value = match self.breaker().state() {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        gauge!("antiphon_breaker_state", "dependency" => "kafka").set(value);
    }
}

/// The answer to what waits for nothing but its turn.
pub(super) async fn take_turn(answer: oneshot::Receiver<Result<Done, Declined>>) -> Result<Done, Declined> {
    kept(answer).await.unwrap_or_else(|| Err(Declined::Refused(overloaded())))
}

/// The answer; `None` where none came in time.
async fn kept(mut answer: oneshot::Receiver<Result<Done, Declined>>) -> Option<Result<Done, Declined>> {
    let (times, within) = KEPT_WITHIN;
    for _ in 0..times {
        if let Ok(answer) = tokio::time::timeout(within, &mut answer).await {
            return Some(answer.unwrap_or_else(|_| Err(Declined::Refused(overloaded()))));
        }
    }
    None
}

fn unwritten() -> Refusal {
    let words = "the event log does not answer, so nothing can be sold or changed now: who has paid comes in as \
                 ever; try again in a moment, and look first whether it was done";
    Refusal::new(Code::Unavailable, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_that_kept_some_waiting_keeps_the_next_no_longer() {
        let waiting = Waiting::default();
        let mut kept_waiting = Vec::new();
        // Their senders live as long as the test: nobody answers.
        let mut never = || {
            let (sender, receiver) = oneshot::channel();
            kept_waiting.push(sender);
            Ok(receiver)
        };
        let all = futures_util::future::join_all((0..OPENS_AFTER).map(|_| {
            let receiver = never();
            waiting.wait(|| receiver)
        }));
        assert!(all.await.iter().all(Result::is_err));
        let asked = Instant::now();
        let refused = waiting.wait(|| unreachable!("it is not even asked")).await;
        assert!(matches!(refused, Err(Declined::Refused(refusal)) if refusal.code == Code::Unavailable));
        assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
        // The next that tries is answered, and closes it.
        let mut seen = false;
        while !seen {
            let result = waiting
                .wait(|| {
                    seen = true;
                    Err(Declined::NotHere)
                })
                .await;
            assert!(result.is_err());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(waiting.breaker().state(), BreakerState::Closed);
    }
}
