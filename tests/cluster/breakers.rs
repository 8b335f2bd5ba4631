//! A Redis that is down costs whoever asks for it next to nothing, and is not stormed when it comes back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use crate::faults::{percentile, rooms_of};
use crate::nodes::World;
use crate::{bound, until};

const STATE: &str = "antiphon_breaker_state{dependency=\"redis\"}";
const REFUSED: &str = "antiphon_breaker_refused_total{dependency=\"redis\"}";
const OPEN: f64 = 2.0;
/// From Redis' end to refusals at once: three calls that fail, each after a second at most.
const OPENS_WITHIN: Duration = Duration::from_secs(4);
const REFUSES_WITHIN: Duration = Duration::from_millis(100);
/// From Redis' return to a node that uses it again.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);
const ASKED: usize = 200;
/// Who asks all the time, beside each other.
const CROWD: usize = 8;

#[test]
fn a_redis_that_is_down_is_refused_at_once_and_used_again_soon() {
    let world = World::start(2);
    let rooms = rooms_of(&world, 0, 5);
    let epochs = world.epochs_of(&rooms);
    for (how, back) in [("kill9", "up"), ("freeze", "thaw")] {
        assert!(world.figure(0, STATE) < OPEN);
        let refused_before = world.figure(0, REFUSED);
        world.redis.act(how);
        let gone_at = Instant::now();
        until("the breaker is open", || world.figure(0, STATE) >= OPEN);
        let opened = gone_at.elapsed();
        // Somebody asks all the time where a room is that this node does not have.
        let url = world.url_of(0, "nobody-has-it");
        let mut took = Vec::new();
        for _ in 0..ASKED {
            let asked_at = Instant::now();
            let reply = world.ask("GET", &url, None).expect("an answer");
            took.push(asked_at.elapsed());
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.body);
            assert!(reply.retry_after.is_some());
        }
        let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        let closed = std::thread::scope(|scope| {
            for _ in 0..CROWD {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        world.ask("GET", &url, None).expect("an answer");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            world.redis.act(back);
            let back_at = Instant::now();
            until("the breaker is closed", || world.figure(0, STATE) == 0.0);
            let closed = back_at.elapsed();
            over.store(true, Ordering::Relaxed);
            closed
        });
        println!(
            "{}",
            json!({"what": format!("breaker, Redis {how}"), "open_ms": opened.as_millis(),
                "refused_p50_ms": percentile(took.clone(), 0.5),
                "refused_p95_ms": percentile(took.clone(), 0.95), "closed_ms": closed.as_millis(),
                "refused_by_breaker": world.figure(0, REFUSED) - refused_before,
                "answered_while_it_came_back": answered.into_inner()})
        );
        assert!(opened < bound(OPENS_WITHIN), "{opened:?}");
        assert!(percentile(took, 0.95) < bound(REFUSES_WITHIN).as_millis());
        assert!(closed < bound(CLOSES_WITHIN), "{closed:?}");
        until("rooms are asked for again", || {
            world.ask("GET", &url, None).is_some_and(|reply| reply.status == StatusCode::NOT_FOUND)
        });
        assert_eq!(world.epochs_of(&rooms), epochs, "owners hold on");
    }
}
