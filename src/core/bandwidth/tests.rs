//! The estimator on simulated paths: what subscribers get of layers over a minute.

mod arbitrary;
mod path;

use std::time::{Duration, Instant};

use super::{Estimator, PacketReport};
use path::{AUDIO_BPS, LAYERS_BPS, Path, Run};

const TOP: usize = 2;
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// Some time that others can lie before.
fn epoch() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

/// Runs for a minute and demands the top layer for 95 % of the time after five seconds.
fn keeps_the_top(path: &Path) {
    for seed in SEEDS {
        let mut run = Run::new(path.clone(), 1_000_000, seed);
        run.run(60);
        let share = run.share_at(TOP, 5);
        println!("seed {seed}: top for {:.1} %", share * 100.0);
        assert!(share >= 0.95, "seed {seed}: {share:.3} at the top\n{}", run.table());
    }
}

#[test]
fn a_path_of_3_mbps_carries_the_top_layer_within_3_s() {
    for queue_ms in [100.0, 300.0, 1_000.0] {
        for seed in SEEDS {
            let mut run =
                Run::new(Path { rate_bps: 3_000_000, queue_ms, ..Path::default() }, 1_000_000, seed);
            run.run(60);
            let (early, share) = (run.layers[3_000], run.share_at(TOP, 3));
            assert!(early == TOP && share >= 0.999, "{queue_ms} ms: {share:.3}\n{}", run.table());
        }
    }
}

/// The path falls from 3 Mbit/s to 300 kbit/s for so long and comes back.
fn falls_and_returns(path: &Path, low_s: usize, seed: u64) {
    let mut run = Run::new(Path { rate_bps: 3_000_000, ..path.clone() }, 1_000_000, seed);
    run.run(20).set_rate(300_000);
    run.run(low_s as u64).set_rate(3_000_000);
    run.run(20);
    let table = run.table();
    let fallen = run.estimates[20_000..].iter().position(|bps| *bps < 330_000);
    let low: Vec<u64> = run.seconds[22..20 + low_s].iter().map(|s| s.offered_bps).collect();
    let above = low.iter().filter(|bps| **bps > 330_000).count();
    let mean = low.iter().sum::<u64>() / low.len() as u64;
    let back = run.layers[(20 + low_s) * 1_000..].iter().position(|layer| *layer == TOP);
    println!(
        "low {low_s} s, seed {seed}: {fallen:?} ms to fall, {mean} bps, {above} above, {back:?} ms back"
    );
    assert!(fallen.is_some_and(|ms| ms <= 700), "falls after {fallen:?} ms\n{table}");
    assert!(above * 5 <= low.len(), "{above} of {} seconds above 330 kbit/s\n{table}", low.len());
    assert!(mean <= 345_000, "{mean} bit/s offered\n{table}");
    assert!(back.is_some_and(|ms| ms <= 10_000), "back after {back:?} ms\n{table}");
}

#[test]
fn a_fall_to_300_kbps_is_followed_and_left() {
    for low_s in [10, 17, 20, 40] {
        for seed in SEEDS {
            falls_and_returns(&Path { queue_ms: 300.0, ..Path::default() }, low_s, seed);
        }
    }
}

#[test]
fn a_fall_is_followed_with_a_short_queue_and_with_one_that_holds_seconds() {
    falls_and_returns(&Path { queue_ms: 100.0, ..Path::default() }, 20, 1);
    falls_and_returns(&Path { queue_ms: 20.0, ..Path::default() }, 20, 1);
    falls_and_returns(&Path { queue_bytes: Some(112_500.0), ..Path::default() }, 20, 1);
}

#[test]
fn random_loss_takes_nothing() {
    for loss in [0.02, 0.1, 0.2] {
        keeps_the_top(&Path { loss, ..Path::default() });
        keeps_the_top(&Path { loss, rate_bps: 4_000_000, ..Path::default() });
    }
}

#[test]
fn jitter_takes_nothing() {
    keeps_the_top(&Path { jitter_ms: 30.0, ..Path::default() });
    keeps_the_top(&Path { jitter_ms: 30.0, feedback_ms: 100, loss: 0.05, ..Path::default() });
    keeps_the_top(&Path { jitter_ms: 100.0, ..Path::default() });
}

#[test]
fn reordering_takes_nothing() {
    keeps_the_top(&Path { reordered: 0.05, ..Path::default() });
    keeps_the_top(&Path { reordered: 0.05, feedback_ms: 50, ..Path::default() });
}

#[test]
fn lost_feedback_takes_nothing() {
    keeps_the_top(&Path { feedback_loss: 0.3, feedback_ms: 100, ..Path::default() });
}

#[test]
fn a_receiver_that_stalls_is_no_congestion() {
    for seed in SEEDS {
        let mut run = Run::new(Path { stall_ms: 300.0, ..Path::default() }, 1_000_000, seed);
        run.run(60);
        let least = run.estimates.iter().min().copied().unwrap_or(0);
        assert!(least >= 500_000, "down to {least}\n{}", run.table());
    }
}

#[test]
fn a_receiver_known_to_be_late_is_waited_for() {
    keeps_the_top(&Path { stall_ms: 600.0, ..Path::default() });
}

#[test]
fn a_longer_path_is_no_queue() {
    let mut run = Run::new(Path::default(), 1_000_000, 3);
    run.run(20).path.delay_ms += 60.0;
    run.run(20).path.delay_ms -= 60.0;
    run.run(10);
    assert!(run.share_at(TOP, 5) >= 0.999, "{}", run.table());
}

#[test]
fn little_sent_on_a_wide_path_neither_sinks_nor_inflates_the_estimate() {
    for (desired_bps, most_bps) in [(182_000, 1_000_000), (1_532_000, 2_500_000)] {
        let mut run = Run::new(Path::default(), 1_000_000, 5);
        run.layers_offered = 0;
        run.desired_bps = Some(desired_bps);
        run.run(60);
        let (least, most) = (run.estimates.iter().min(), run.estimates.iter().max());
        let probes = run.seconds.iter().map(|s| s.probe_bps).sum::<u64>() as f64;
        let share = probes / run.seconds.iter().map(|s| s.offered_bps).sum::<u64>() as f64;
        println!("desired {desired_bps}: {least:?} to {most:?}, probes {:.2} %", share * 100.0);
        assert!(least >= Some(&900_000) && most <= Some(&most_bps), "{least:?} {most:?}\n{}", run.table());
        assert!(share < 0.05, "{share:.3} are probes\n{}", run.table());
    }
}

#[test]
fn a_path_of_600_kbps_is_used() {
    for seed in SEEDS {
        let mut run =
            Run::new(Path { rate_bps: 600_000, queue_ms: 100.0, ..Path::default() }, 1_000_000, seed);
        run.run(60);
        let received = run.seconds[10..].iter().map(|s| s.received_bps - s.probe_bps.min(s.received_bps));
        let used = received.sum::<u64>() as f64 / (600_000.0 * 50.0);
        let lost = run.lost(10);
        println!("seed {seed}: used {:.1} %, lost {:.2} %", used * 100.0, lost * 100.0);
        assert!(used >= 0.7 && lost < 0.05, "seed {seed}: used {used:.3}, lost {lost:.3}\n{}", run.table());
    }
}

#[test]
fn an_outage_is_noticed_and_left() {
    let mut run = Run::new(Path::default(), 1_000_000, 1);
    run.run(20);
    run.path.loss = 1.0;
    run.run(4);
    let low = run.estimates.last().copied().unwrap_or(0);
    run.path.loss = 0.0;
    run.run(10);
    let back = run.layers[24_000..].iter().position(|layer| *layer == TOP);
    println!("down to {low}, back after {back:?} ms");
    assert!(low <= 100_000, "{low} bit/s after four seconds of silence\n{}", run.table());
    assert!(back.is_some_and(|ms| ms <= 4_000), "back after {back:?} ms\n{}", run.table());
}

#[test]
fn a_raise_into_a_policer_is_taken_back() {
    let mut run = Run::new(Path { rate_bps: 50_000_000, ..Path::default() }, 400_000, 1);
    run.layers_offered = 1;
    run.run(8);
    run.path.queue_ms = 20.0;
    run.layers_offered = 2;
    run.run(3);
    run.set_rate(900_000);
    run.run(10);
    // Two packets fill this queue: key frames and probes lose whatever the rate is.
    let lost = run.lost(15);
    assert!(lost < 0.08, "{lost:.3} lost\n{}", run.table());
    assert!(LAYERS_BPS[1] + AUDIO_BPS <= run.estimator.estimate_bps(), "{}", run.table());
}

/// Feedback of ten packets that took 30 ms, the last sent at `now`.
fn feed(estimator: &mut Estimator, start: Instant, now: Instant) {
    let reports: Vec<PacketReport> = (0..10)
        .rev()
        .map(|before| now - Duration::from_millis(before * 10))
        .map(|sent_at| PacketReport {
            sent_us: (sent_at - start).as_micros() as i64,
            bytes: 250,
            arrived_us: Some((sent_at - start).as_micros() as i64 + 1_030_000),
            probe: None,
        })
        .collect();
    estimator.handle_feedback(now, &reports, None);
}

#[test]
fn remb_is_the_estimate_of_a_peer_without_feedback_and_a_cap_beside_it() {
    let start = epoch();
    let mut estimator = Estimator::new(start, 1_000_000);
    estimator.handle_remb(start, 2_000_000);
    assert_eq!(estimator.poll_estimate(), Some(2_000_000));
    feed(&mut estimator, start, start + Duration::from_secs(1));
    estimator.handle_remb(start, 4_000_000);
    assert_eq!(estimator.estimate_bps(), 2_000_000);
    estimator.handle_remb(start, 500_000);
    assert_eq!(estimator.poll_estimate(), Some(500_000));
    assert_eq!(estimator.poll_estimate(), None);
}

#[test]
fn who_sends_nothing_waits_for_no_feedback() {
    let start = epoch();
    let mut estimator = Estimator::new(start, 1_000_000);
    assert_eq!(estimator.poll_timeout(), None);
    feed(&mut estimator, start, start + Duration::from_secs(1));
    assert_eq!(estimator.poll_timeout(), None);
    let sent_at = start + Duration::from_secs(60);
    estimator.handle_sent(sent_at, 1_000);
    let due = estimator.poll_timeout().expect("feedback is due");
    assert!(due >= sent_at + Duration::from_millis(500), "{:?}", due - sent_at);
    estimator.handle_timeout(due);
    assert_eq!(estimator.poll_estimate(), Some(500_000));
}

#[test]
fn a_probe_that_is_never_sent_is_asked_for_ever_more_seldom() {
    let start = epoch();
    let mut estimator = Estimator::new(start, 300_000);
    let mut probes = 0;
    for round in 1..600_u32 {
        let now = start + Duration::from_millis(100) * round;
        estimator.set_goal(now, 500_000, 1_500_000);
        estimator.handle_timeout(now);
        feed(&mut estimator, start, now);
        probes += u32::from(estimator.poll_probe(now).is_some());
    }
    assert!((2..=12).contains(&probes), "{probes} probes in a minute");
}
