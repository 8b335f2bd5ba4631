//! A circuit breaker: whether something that has failed is asked again, and by how many.
//!
//! Closed, all may ask. After some failures in a row it opens: nobody asks, and whoever would is refused at
//! once. When it has rested one may try (half-open); by what becomes of that it closes, or rests again, twice
//! as long up to a limit. So what is down costs its callers nothing, and what comes back is met by one call
//! and not by all that have waited. Time is an argument; it never waits itself.

use std::time::Duration;

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct BreakerSettings {
    /// Failures in a row.
    pub opens_after: u32,
    /// From opening to the first try, doubled with each try that fails, up to `rest_max`.
    pub rest: Duration,
    pub rest_max: Duration,
    /// A try that says nothing for so long has failed: whoever made it is gone.
    pub try_within: Duration,
}

/// How it stands, for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    HalfOpen,
    Open,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
    },
    /// Nobody asks until then.
    Open {
        until: Duration,
        rest: Duration,
    },
    /// One asks, since then.
    HalfOpen {
        since: Duration,
        rest: Duration,
    },
}

/// Permission for one call. What becomes of the call is told with it; one that is lost is a failure.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what becomes of the call is to be told"]
pub struct Permit {
    /// Counts openings: what was asked before the last one says nothing about now.
    round: u64,
}

/// Guards one thing that may be away.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    round: u64,
}

impl Breaker {
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: State::Closed { failures: 0 }, round: 0 }
    }

    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether a call may be made.
    ///
    /// # Errors
    /// After how long it is worth while to ask again.
    pub fn admit(&mut self, now: Duration) -> Result<Permit, Duration> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until, .. } if now < until => return Err(until.saturating_sub(now)),
            State::HalfOpen { since, rest } if now < since + self.settings.try_within => {
                return Err(rest);
            }
            State::Open { rest, .. } | State::HalfOpen { rest, .. } => {
                self.round += 1;
                self.state = State::HalfOpen { since: now, rest };
            }
        }
        Ok(Permit { round: self.round })
    }

    /// The call was answered.
    pub fn handle_success(&mut self, permit: Permit) {
        if permit.round == self.round {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// The call was not answered.
    pub fn handle_failure(&mut self, now: Duration, permit: Permit) {
        if permit.round != self.round {
            return;
        }
        let BreakerSettings { opens_after, rest: first, rest_max, .. } = self.settings;
        let rest = match self.state {
            State::Closed { failures } if failures + 1 < opens_after => {
                self.state = State::Closed { failures: failures + 1 };
                return;
            }
            State::Closed { .. } => first,
            State::HalfOpen { rest, .. } => (rest * 2).min(rest_max),
            State::Open { .. } => return,
        };
        self.round += 1;
        self.state = State::Open { until: now + rest, rest };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings {
            opens_after: 3,
            rest: 100 * MS,
            rest_max: 400 * MS,
            try_within: 1_000 * MS,
        })
    }

    fn fail(breaker: &mut Breaker, now: Duration) {
        let permit = breaker.admit(now).expect("it asks");
        breaker.handle_failure(now, permit);
    }

    #[test]
    fn it_opens_after_failures_in_a_row_alone() {
        let mut breaker = breaker();
        for _ in 0..5 {
            fail(&mut breaker, MS);
            fail(&mut breaker, MS);
            let permit = breaker.admit(MS).unwrap();
            breaker.handle_success(permit);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        (0..3).for_each(|_| fail(&mut breaker, MS));
        assert_eq!((breaker.state(), breaker.admit(51 * MS)), (BreakerState::Open, Err(50 * MS)));
    }

    #[test]
    fn one_tries_and_all_follow() {
        let mut breaker = breaker();
        (0..3).for_each(|_| fail(&mut breaker, Duration::ZERO));
        let trial = breaker.admit(100 * MS).expect("it has rested");
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit(100 * MS).is_err() && breaker.admit(200 * MS).is_err(), "one alone");
        breaker.handle_success(trial);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!((0..100).all(|_| breaker.admit(101 * MS).is_ok()));
    }

    #[test]
    fn it_rests_longer_each_time_and_never_too_long() {
        let mut breaker = breaker();
        (0..3).for_each(|_| fail(&mut breaker, Duration::ZERO));
        let (mut now, mut rests) = (Duration::ZERO, Vec::new());
        for _ in 0..4 {
            let rest = breaker.admit(now).expect_err("it rests");
            rests.push(rest.as_millis());
            now += rest;
            fail(&mut breaker, now);
        }
        assert_eq!(rests, [100, 200, 400, 400]);
    }

    #[test]
    fn late_news_of_an_earlier_call_is_none() {
        let mut breaker = breaker();
        let slow = breaker.admit(Duration::ZERO).unwrap();
        let slower = breaker.admit(Duration::ZERO).unwrap();
        (0..3).for_each(|_| fail(&mut breaker, MS));
        breaker.handle_success(slow);
        assert_eq!(breaker.state(), BreakerState::Open, "it was asked before all failed");
        let trial = breaker.admit(200 * MS).unwrap();
        breaker.handle_failure(201 * MS, slower);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.handle_success(trial);
    }

    #[test]
    fn a_try_that_is_given_up_holds_up_nobody() {
        let mut breaker = breaker();
        (0..3).for_each(|_| fail(&mut breaker, Duration::ZERO));
        let lost = breaker.admit(100 * MS).unwrap();
        assert!(breaker.admit(1_099 * MS).is_err());
        let next = breaker.admit(1_100 * MS).expect("the first has said nothing");
        breaker.handle_success(lost);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "it is over");
        breaker.handle_success(next);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    /// Pauses in milliseconds, and whether what is asked then is answered.
    fn steps() -> impl Strategy<Value = Vec<(u64, bool)>> {
        prop::collection::vec((0u64..300, any::<bool>()), 1..200)
    }

    proptest! {
        /// Whatever happens, while it is not closed there is one call for each rest at most, and once all
        /// calls succeed it closes.
        #[test]
        fn what_is_down_is_asked_little(steps in steps()) {
            let mut breaker = breaker();
            let (mut now, mut last_trial) = (Duration::ZERO, None::<Duration>);
            for (pause, answers) in steps {
                now += MS * u32::try_from(pause).unwrap();
                let was_closed = breaker.state() == BreakerState::Closed;
                let Ok(permit) = breaker.admit(now) else { continue };
                if !was_closed {
                    prop_assert!(last_trial.is_none_or(|last| now >= last + 100 * MS), "{last_trial:?}");
                    last_trial = Some(now);
                }
                if answers {
                    breaker.handle_success(permit);
                } else {
                    breaker.handle_failure(now, permit);
                }
            }
            let permit = breaker.admit(now + 2_000 * MS).expect("it has rested");
            breaker.handle_success(permit);
            prop_assert_eq!(breaker.state(), BreakerState::Closed);
        }
    }
}
