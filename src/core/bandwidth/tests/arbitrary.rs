//! Whatever a peer reports, the estimate keeps its bounds and nothing panics.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{CAP_BPS, Estimator, FLOOR_BPS, PacketReport};

#[derive(Debug, Clone)]
enum Step {
    Sent(u32),
    Feedback(Vec<(i64, u32, Option<i64>, Option<u32>)>, Option<u64>),
    Goal(u64, u64),
    Remb(u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    const FAR_US: i64 = 1 << 60;
    let arrived =
        prop_oneof![Just(None), (0..5_000_000_i64).prop_map(Some), (-FAR_US..FAR_US).prop_map(Some)];
    let report = (-5_000..5_000_i64, prop_oneof![0..2_000_u32, any::<u32>()], arrived, option(0..4_u32));
    let step = prop_oneof![
        any::<u32>().prop_map(Step::Sent),
        (prop::collection::vec(report, 0..60), option(any::<u64>()))
            .prop_map(|(reports, rtt)| Step::Feedback(reports, rtt)),
        (any::<u64>(), prop_oneof![0..5_000_000_u64, any::<u64>()]).prop_map(|(a, b)| Step::Goal(a, b)),
        any::<u64>().prop_map(Step::Remb),
        (0..3_000_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

fn option<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::of(of)
}

proptest! {
    #[test]
    fn the_estimate_keeps_its_bounds(initial in any::<u64>(), steps in steps()) {
        let mut now = super::epoch();
        let start = now;
        let mut estimator = Estimator::new(now, initial);
        for step in steps {
            match step {
                Step::Sent(bytes) => estimator.handle_sent(now, bytes),
                Step::Feedback(reports, rtt) => {
                    let now_us = (now - start).as_micros() as i64;
                    let reports: Vec<PacketReport> = reports
                        .into_iter()
                        .map(|(sent_ms, bytes, arrived, probe)| PacketReport {
                            sent_us: now_us + sent_ms * 1_000,
                            bytes,
                            arrived_us: arrived,
                            probe,
                        })
                        .collect();
                    estimator.handle_feedback(now, &reports, rtt.map(Duration::from_micros));
                }
                Step::Goal(next, desired) => estimator.set_goal(now, next, desired),
                Step::Remb(bps) => estimator.handle_remb(now, bps),
                Step::Wait(ms) => now += Duration::from_millis(ms),
            }
            if estimator.poll_timeout().is_some_and(|due| due <= now) {
                estimator.handle_timeout(now);
                let soonest = now + Duration::from_millis(25);
                prop_assert!(estimator.poll_timeout().is_none_or(|due| due >= soonest));
            }
            let estimate = estimator.estimate_bps();
            prop_assert!((FLOOR_BPS..=CAP_BPS).contains(&estimate), "{estimate}");
            if let Some(told) = estimator.poll_estimate() {
                prop_assert_eq!(told, estimate);
            }
            prop_assert_eq!(estimator.poll_estimate(), None);
            if let Some(probe) = estimator.poll_probe(now) {
                prop_assert!(probe.bytes > 0 && (1..=2 * CAP_BPS).contains(&probe.rate_bps), "{probe:?}");
            }
            prop_assert!(estimator.loss().is_none_or(|loss| (0.0..=1.0).contains(&loss)));
        }
    }
}
