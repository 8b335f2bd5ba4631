//! A registry that is guarded: while it does not answer nobody waits for it, and when it comes back it is not
//! met by all at once.
//!
//! A breaker ([`crate::core::breaker`]) refuses what would only wait. Two bulkheads keep those who ask where
//! rooms are from taking the place of the keeper, which holds on to what this node has: who asks is refused
//! when too many do, the keeper's calls wait for their turn. What is retried is paid for from a budget that
//! grows with what is asked, so that retries never become most of what there is to do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use futures_util::FutureExt as _;
use metrics::{counter, gauge};
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::retry::budget::{Budget as _, TpsBudget};

use super::{Answer, Bid, Claim, Known, Lease, LeaseError, Leases, Pulse, boot_time};
use crate::core::breaker::{Breaker, BreakerSettings, BreakerState, Permit};
use crate::core::ids::{NodeId, RoomName};
use crate::core::placement::{NodeRecord, Renewal};

/// Calls of each kind that are on their way at a time.
const CALLS_AT_ONCE: usize = 128;
/// Two may be lost by a connection that ends; three are none.
const OPENS_AFTER: u32 = 3;
const REST: Duration = Duration::from_millis(250);
/// Well below a lease's time, so that rooms are renewed soon after the registry is back.
const REST_MAX: Duration = Duration::from_secs(1);
/// Beyond the longest that a call takes.
const TRY_WITHIN: Duration = Duration::from_secs(2);
/// Retries that are always there, each second, and their share of what is asked.
const RETRIES_PER_SECOND_MIN: u32 = 2;
const RETRY_SHARE: f32 = 0.2;
/// For how long what was asked pays for retries.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// What may be tried again. Cheap to clone.
#[derive(Clone)]
pub struct RetryBudget(Arc<TpsBudget>);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(Arc::new(TpsBudget::new(BUDGET_WINDOW, RETRIES_PER_SECOND_MIN, RETRY_SHARE)))
    }
}

impl RetryBudget {
    /// For what should not be given up at the first failure: three tries more, further and further apart,
    /// while there is something left.
    ///
    /// # Errors
    /// The last one's.
    pub async fn patiently<'a, T: 'a>(&self, call: impl FnMut() -> Answer<'a, T>) -> Result<T, LeaseError> {
        self.note_asked();
        let patience = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(1))
            .with_max_times(3)
            .with_jitter();
        call.retry(patience).when(|_| self.allows_retry()).await
    }

    /// Something was asked for the first time.
    fn note_asked(&self) {
        self.0.deposit();
    }

    /// Whether there is a retry left.
    fn allows_retry(&self) -> bool {
        let allows = self.0.withdraw();
        let result = if allows { "made" } else { "withheld" };
        counter!("antiphon_placement_retries_total", "result" => result).increment(1);
        allows
    }
}

/// [`Leases`] behind a breaker and two bulkheads.
pub struct Guarded<L> {
    leases: L,
    breaker: Mutex<Breaker>,
    asking: Semaphore,
    keeping: Semaphore,
}

impl<L: Leases> Guarded<L> {
    pub fn new(leases: L) -> Self {
        let settings = BreakerSettings {
            opens_after: OPENS_AFTER,
            rest: REST,
            rest_max: REST_MAX,
            try_within: TRY_WITHIN,
        };
        Self {
            leases,
            breaker: Mutex::new(Breaker::new(settings)),
            asking: Semaphore::new(CALLS_AT_ONCE),
            keeping: Semaphore::new(CALLS_AT_ONCE),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Each change is whole before the lock is left.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self) -> Result<Permit, LeaseError> {
        let mut breaker = self.breaker();
        let admitted = breaker.admit(boot_time());
        let state = breaker.state();
        drop(breaker);
        show(state);
        admitted.map_err(|_| {
            counter!("antiphon_breaker_refused_total", "dependency" => "redis").increment(1);
            LeaseError::Unreachable("it has not answered, and is asked again in a moment".into())
        })
    }

    async fn guard<T>(
        &self,
        place: Result<SemaphorePermit<'_>, LeaseError>,
        call: Answer<'_, T>,
    ) -> Result<T, LeaseError> {
        let _place = place?;
        let permit = self.admit()?;
        let result = call.await;
        let mut breaker = self.breaker();
        let before = breaker.state();
        match &result {
            Err(LeaseError::Unreachable(_)) => breaker.handle_failure(boot_time(), permit),
            // What it says may be nonsense; it is there.
            Ok(_) | Err(LeaseError::Unreadable(_)) => breaker.handle_success(permit),
        }
        let state = breaker.state();
        drop(breaker);
        if state != before {
            show(state);
            tracing::info!(from = ?before, to = ?state, "the breaker of the registry of rooms");
        }
        result
    }

    /// For those who ask: a place, or a refusal.
    fn to_ask(&self) -> Result<SemaphorePermit<'_>, LeaseError> {
        self.asking.try_acquire().map_err(|_| {
            counter!("antiphon_breaker_refused_total", "dependency" => "redis").increment(1);
            LeaseError::Unreachable("too much is asked of it already".into())
        })
    }

    /// For those who keep this node's word: their turn.
    async fn to_keep(&self) -> Result<SemaphorePermit<'_>, LeaseError> {
        let place = self.keeping.acquire().await;
        place.map_err(|_| LeaseError::Unreachable("this node ends".into()))
    }
}

fn show(state: BreakerState) {
    let value = match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    gauge!("antiphon_breaker_state", "dependency" => "redis").set(value);
}

impl<L: Leases> Leases for Guarded<L> {
    fn heartbeat<'a>(&'a self, node: &'a NodeRecord) -> Answer<'a, Pulse> {
        async move { self.guard(self.to_keep().await, self.leases.heartbeat(node)).await }.boxed()
    }

    fn sign_off<'a>(&'a self, node: &'a NodeId, incarnation: u64) -> Answer<'a, ()> {
        async move { self.guard(self.to_keep().await, self.leases.sign_off(node, incarnation)).await }.boxed()
    }

    fn look_up<'a>(&'a self, room: &'a RoomName) -> Answer<'a, Known> {
        self.guard(self.to_ask(), self.leases.look_up(room)).boxed()
    }

    fn claim<'a>(&'a self, bid: &'a Bid) -> Answer<'a, Claim> {
        self.guard(self.to_ask(), self.leases.claim(bid)).boxed()
    }

    fn renew<'a>(&'a self, lease: &'a Lease, settings: &'a str) -> Answer<'a, Renewal> {
        async move { self.guard(self.to_keep().await, self.leases.renew(lease, settings)).await }.boxed()
    }

    fn release<'a>(&'a self, lease: &'a Lease, ended: bool) -> Answer<'a, bool> {
        async move { self.guard(self.to_keep().await, self.leases.release(lease, ended)).await }.boxed()
    }

    fn hand_over<'a>(
        &'a self,
        lease: &'a Lease,
        to: &'a NodeId,
        incarnation: u64,
    ) -> Answer<'a, Option<u64>> {
        async move { self.guard(self.to_keep().await, self.leases.hand_over(lease, to, incarnation)).await }
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use backon::ConstantBuilder;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::cluster::memory::MemoryLeases;

    /// A registry that can be away, slowly, and counts what it is asked.
    struct Away {
        leases: MemoryLeases,
        is_away: AtomicBool,
        asked: AtomicUsize,
    }

    impl Away {
        fn guarded() -> Guarded<Self> {
            let leases = MemoryLeases::new(Duration::from_secs(5), Duration::from_secs(60));
            Guarded::new(Self { leases, is_away: AtomicBool::new(true), asked: AtomicUsize::new(0) })
        }
    }

    impl Leases for Away {
        fn heartbeat<'a>(&'a self, node: &'a NodeRecord) -> Answer<'a, Pulse> {
            self.leases.heartbeat(node)
        }

        fn sign_off<'a>(&'a self, node: &'a NodeId, incarnation: u64) -> Answer<'a, ()> {
            self.leases.sign_off(node, incarnation)
        }

        fn look_up<'a>(&'a self, room: &'a RoomName) -> Answer<'a, Known> {
            async move {
                self.asked.fetch_add(1, Ordering::Relaxed);
                if self.is_away.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    return Err(LeaseError::Unreachable("no answer in time".into()));
                }
                self.leases.look_up(room).await
            }
            .boxed()
        }

        fn claim<'a>(&'a self, bid: &'a Bid) -> Answer<'a, Claim> {
            self.leases.claim(bid)
        }

        fn renew<'a>(&'a self, lease: &'a Lease, settings: &'a str) -> Answer<'a, Renewal> {
            self.leases.renew(lease, settings)
        }

        fn release<'a>(&'a self, lease: &'a Lease, ended: bool) -> Answer<'a, bool> {
            self.leases.release(lease, ended)
        }

        fn hand_over<'a>(
            &'a self,
            lease: &'a Lease,
            to: &'a NodeId,
            incarnation: u64,
        ) -> Answer<'a, Option<u64>> {
            self.leases.hand_over(lease, to, incarnation)
        }
    }

    #[tokio::test]
    async fn what_is_away_is_asked_three_times_and_then_by_one_at_a_time() {
        let guarded = Away::guarded();
        let room = RoomName::parse("room").unwrap();
        for _ in 0..3 {
            assert!(guarded.look_up(&room).await.is_err());
        }
        let refused = futures_util::future::join_all((0..100).map(|_| guarded.look_up(&room))).await;
        assert!(refused.iter().all(Result::is_err));
        assert_eq!(guarded.leases.asked.load(Ordering::Relaxed), 3, "a hundred cost it nothing");
        guarded.leases.is_away.store(false, Ordering::Relaxed);
        let pauses = ConstantBuilder::default().with_delay(Duration::from_millis(20)).with_max_times(100);
        let back = || guarded.look_up(&room);
        back.retry(pauses).await.expect("it is asked again");
        assert_eq!(guarded.leases.asked.load(Ordering::Relaxed), 4);
        let all = futures_util::future::join_all((0..100).map(|_| guarded.look_up(&room))).await;
        assert!(all.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn who_asks_is_refused_before_the_keeper_has_to_wait() {
        let guarded = Away::guarded();
        let room = RoomName::parse("room").unwrap();
        let ask = futures_util::future::join_all((0..CALLS_AT_ONCE + 10).map(|_| guarded.look_up(&room)));
        let renew = async {
            let node = NodeId::parse("a").unwrap();
            let lease = Lease { room: room.clone(), node, incarnation: 1, epoch: 1 };
            guarded.renew(&lease, "").await
        };
        let (asked, renewed) = futures_util::future::join(ask, renew).await;
        assert!(renewed.is_ok());
        assert_eq!(guarded.leases.asked.load(Ordering::Relaxed), CALLS_AT_ONCE);
        let crowded = |error: &LeaseError| error.to_string().contains("too much");
        assert_eq!(asked.iter().filter_map(|one| one.as_ref().err()).filter(|e| crowded(e)).count(), 10);
    }

    #[test]
    fn retries_end_before_they_are_most_of_what_is_asked() {
        let budget = RetryBudget::default();
        let always = (0..1_000).filter(|_| budget.allows_retry()).count();
        assert_eq!(always, (RETRIES_PER_SECOND_MIN * 10) as usize);
        (0..1_000).for_each(|_| budget.note_asked());
        assert_eq!((0..1_000).filter(|_| budget.allows_retry()).count(), 200);
    }
}
