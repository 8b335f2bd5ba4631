//! When which mode wins, in plain sentences made from the rows: nothing here knows what is to be expected.

use super::report::{Figures, Row, figures};
use crate::core::protocol::Mode;

/// The goal for what the mix adds, milliseconds at the median and at the 95th percentile.
pub const ADDED_MS_P50_MAX: f64 = 80.0;
pub const ADDED_MS_P95_MAX: f64 = 120.0;
/// A difference in MS-SSIM that is worth a word.
const QUALITY_STEP: f64 = 0.005;

/// One size that ran in both modes.
struct Pair<'a> {
    people: u32,
    sfu: &'a Figures,
    mcu: &'a Figures,
}

impl Pair<'_> {
    /// Added by the mix, milliseconds at the median and at the 95th percentile.
    fn added_ms(&self) -> [f64; 2] {
        let (sfu, mcu) = (self.sfu.latency_ms, self.mcu.latency_ms);
        [mcu.p50 - sfu.p50, mcu.p95 - sfu.p95]
    }

    fn is_strained(&self) -> bool {
        !self.sfu.strained.is_empty() || !self.mcu.strained.is_empty()
    }
}

/// What the rows say.
pub fn sentences(rows: &[Row]) -> Vec<String> {
    let mut sizes: Vec<u32> = rows.iter().map(|row| row.people).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let pair = |&people: &u32| {
        let (sfu, mcu) = (figures(rows, people, Mode::Sfu)?, figures(rows, people, Mode::Mcu)?);
        Some(Pair { people, sfu, mcu })
    };
    let pairs: Vec<Pair<'_>> = sizes.iter().filter_map(pair).collect();
    let (Some(least), Some(most)) = (pairs.first(), pairs.last()) else {
        return vec!["No size ran in both modes, so nothing can be compared.".into()];
    };
    let mut said = vec![advice(&pairs), downlink(&pairs, most), server(least, most)];
    said.extend(device(&pairs));
    said.push(latency(&pairs));
    said.extend(silence(&pairs));
    said.extend(quality(&pairs));
    said.extend(reservation(&pairs, rows));
    said
}

fn megabits(bps: f64) -> String {
    format!("{:.1} Mbit/s", bps / 1e6)
}

fn sizes(pairs: &[&Pair<'_>]) -> String {
    let names: Vec<String> = pairs.iter().map(|pair| pair.people.to_string()).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn mixed_is_smaller(pair: &&Pair<'_>) -> bool {
    pair.mcu.downlink_bps.mean < pair.sfu.downlink_bps.mean
}

fn downlink(pairs: &[Pair<'_>], most: &Pair<'_>) -> String {
    let (better, worse): (Vec<_>, Vec<_>) = pairs.iter().partition(mixed_is_smaller);
    let [sfu, mcu] = [most.sfu, most.mcu].map(|figures| megabits(figures.downlink_bps.mean));
    let at_most = format!("with {} people it is {mcu} mixed and {sfu} forwarded", most.people);
    match (better.as_slice(), worse.as_slice()) {
        ([], _) => {
            format!("A viewer's downlink is smaller forwarded in every size that was measured: {at_most}.")
        }
        (_, []) => {
            format!("A viewer's downlink is smaller mixed in every size that was measured: {at_most}.")
        }
        (better, worse) => format!(
            "A viewer's downlink is smaller mixed with {} people, smaller forwarded with {}: {at_most}.",
            sizes(better),
            sizes(worse)
        ),
    }
}

fn server(least: &Pair<'_>, most: &Pair<'_>) -> String {
    let cores = |pair: &Pair<'_>| {
        let [sfu, mcu] = [pair.sfu, pair.mcu].map(|figures| figures.server.cores());
        format!("{mcu:.2} cores against {sfu:.2} with {} people", pair.people)
    };
    let memory = |figures: &Figures| figures.server.rss_bytes() as f64 / 1e6;
    let [sfu, mcu] = [most.sfu, most.mcu].map(memory);
    let cost =
        if least.people == most.people { cores(most) } else { format!("{}, {}", cores(least), cores(most)) };
    format!(
        "On the server the mix takes {cost}, and {mcu:.0} MB of memory against {sfu:.0} with the most people."
    )
}

fn device(pairs: &[Pair<'_>]) -> Option<String> {
    let measured = pairs
        .iter()
        .rev()
        .find_map(|pair| Some((pair.people, pair.sfu.browser.figures()?, pair.mcu.browser.figures()?)));
    let (people, sfu, mcu) = measured?;
    Some(format!(
        "A browser that watches {people} people decodes for {:.0} ms in each second of the mix and for {:.0} ms in \
         each second forwarded; all its processes take {:.2} and {:.2} cores.",
        mcu.decode_ms_per_second, sfu.decode_ms_per_second, mcu.cores, sfu.cores
    ))
}

fn latency(pairs: &[Pair<'_>]) -> String {
    let added: Vec<String> = pairs
        .iter()
        .map(|pair| {
            let [p50, p95] = pair.added_ms();
            format!("{p50:.0} and {p95:.0} ms with {} people", pair.people)
        })
        .collect();
    let within = |pair: &&Pair<'_>| {
        let [p50, p95] = pair.added_ms();
        p50 <= ADDED_MS_P50_MAX && p95 <= ADDED_MS_P95_MAX
    };
    let (met, missed): (Vec<_>, Vec<_>) = pairs.iter().partition(within);
    let goal = match (met.as_slice(), missed.as_slice()) {
        (_, []) => "met in every size".to_owned(),
        ([], _) => "missed in every size".to_owned(),
        (met, missed) => format!("met with {} people and missed with {}", sizes(met), sizes(missed)),
    };
    format!(
        "From glass to glass the mix adds, at the median and at the 95th percentile, {}. The goal of at most \
         {ADDED_MS_P50_MAX} and {ADDED_MS_P95_MAX} ms is {goal}.",
        added.join(", ")
    )
}

/// What one silent camera changes in the mix of all others.
fn silence(pairs: &[Pair<'_>]) -> Option<String> {
    let changed = pairs.iter().filter(|pair| pair.mcu.latency_one_silent_ms.count > 0).map(|pair| {
        let (before, after) = (pair.mcu.latency_ms, pair.mcu.latency_one_silent_ms);
        // Adding 0 makes a rounded -0 one without a sign.
        let changed = |from: f64, to: f64| (to - from).round() + 0.0;
        let (p50, p95) = (changed(before.p50, after.p50), changed(before.p95, after.p95));
        format!("{p50:+.0} and {p95:+.0} ms with {} people", pair.people)
    });
    let changed: Vec<String> = changed.collect();
    (!changed.is_empty())
        .then(|| format!("One camera that falls silent changes the mix's by {}.", changed.join(", ")))
}

fn quality(pairs: &[Pair<'_>]) -> Option<String> {
    let judged: Vec<(u32, f64, f64)> = pairs
        .iter()
        .filter_map(|pair| Some((pair.people, pair.sfu.quality?.ms_ssim, pair.mcu.quality?.ms_ssim)))
        .collect();
    if judged.is_empty() {
        return None;
    }
    let each: Vec<String> =
        judged.iter().map(|(people, sfu, mcu)| format!("{mcu:.3} and {sfu:.3} with {people}")).collect();
    let worse = judged.iter().filter(|(_, sfu, mcu)| sfu - mcu > QUALITY_STEP).count();
    let words = match worse {
        0 => "is not worse for being mixed",
        all if all == judged.len() => "is worse for being mixed",
        _ => "is worse for being mixed in some sizes",
    };
    Some(format!("A tile {words}: MS-SSIM mixed and forwarded is {}.", each.join(", ")))
}

/// Forward where a mix spares nobody anything; where it does, what it spares and what that costs.
fn advice(pairs: &[Pair<'_>]) -> String {
    let (mixed, forwarded): (Vec<_>, Vec<_>) = pairs.iter().partition(mixed_is_smaller);
    let Some(first) = mixed.first() else {
        return "Forward in every size that was measured: the mix spares viewers nothing and costs the server more."
            .into();
    };
    let extra = first.mcu.server.cores() - first.sfu.server.cores();
    let spared = first.sfu.downlink_bps.mean - first.mcu.downlink_bps.mean;
    let rule = format!(
        "From {} people on mix where viewers' downlinks or devices are what is short: there it spares \
         each viewer {} and costs the server {extra:.2} more cores for the room. Else forward, which is \
         cheaper for the server and sooner on the screen.",
        first.people,
        megabits(spared)
    );
    if forwarded.is_empty() {
        return rule;
    }
    format!("Forward with {} people: the mix spares viewers nothing there. {rule}", sizes(&forwarded))
}

fn reservation(pairs: &[Pair<'_>], rows: &[Row]) -> Option<String> {
    let strained: Vec<&Pair<'_>> = pairs.iter().filter(|pair| pair.is_strained()).collect();
    let failed = rows.iter().any(|row| row.failure.is_some());
    let mut words = Vec::new();
    if !strained.is_empty() {
        words.push(format!(
            "This machine was strained with {} people: those rows say as much of it as of the modes",
            sizes(&strained)
        ));
    }
    if failed {
        words.push("What did not run is marked and was not compared".into());
    }
    (!words.is_empty()).then(|| words.join(". ") + ".")
}

#[cfg(test)]
pub mod tests {
    use super::super::quality::Quality;
    use super::super::report::{
        Browser, BrowserFigures, Frames, Load, Percentiles, ServerCost, Spread, Tiles,
    };
    use super::*;

    /// A row with these cores, downlink and median latency.
    pub fn row(people: u32, mode: Mode, cores: f64, downlink_bps: f64, p50: f64) -> Row {
        let latency = Percentiles { count: 100, p50, p95: p50 + 10.0, p99: p50 + 20.0, max: p50 + 30.0 };
        let figures = Figures {
            people,
            seconds: 10.0,
            server: ServerCost {
                node_cores: cores,
                mixer_cores: 0.0,
                node_rss_bytes: 30_000_000,
                mixer_rss_bytes: 0,
                mixers: 0,
            },
            ingress_bps: 1e6,
            egress_bps: downlink_bps * f64::from(people),
            downlink_bps: Spread { mean: downlink_bps, min: downlink_bps, max: downlink_bps },
            tiles: Tiles {
                expected: people,
                seen: people,
                width: 632,
                height: 354,
                picture_width: 640,
                picture_height: 360,
            },
            latency_ms: latency,
            latency_one_silent_ms: latency,
            frames: Frames { sent: 300, seen: 290, decoded_per_second: 30.0, unreadable: 0 },
            quality: Some(Quality { psnr_db: 35.0, ssim: 0.95, ms_ssim: 0.98 }),
            quality_samples: 12,
            browser: Browser::Measured(BrowserFigures {
                frames_per_second: 30.0,
                frames_received_per_second: 30.0,
                key_frames: 0.0,
                key_frames_asked: 0.0,
                nacks: 0.0,
                freezes: 0.0,
                decode_ms_per_frame: 2.0,
                decode_ms_per_second: 60.0,
                frames_dropped: 0.0,
                jitter_buffer_ms: 30.0,
                downlink_bps,
                cores: 0.5,
                latency_ms: latency,
            }),
            load: Load {
                busy_cores: 1.0,
                tool_cores: 0.3,
                loop_cores: 0.2,
                others_cores: 0.0,
                steal_cores: 0.0,
                late_ms_p95: 1.0,
            },
            strained: Vec::new(),
        };
        Row { figures: Some(Box::new(figures)), ..Row::empty(people, mode) }
    }

    fn rows() -> Vec<Row> {
        vec![
            row(2, Mode::Sfu, 0.02, 0.5e6, 5.0),
            row(2, Mode::Mcu, 0.40, 1.8e6, 50.0),
            row(9, Mode::Sfu, 0.10, 4.0e6, 6.0),
            row(9, Mode::Mcu, 0.70, 1.8e6, 100.0),
        ]
    }

    #[test]
    fn each_mode_wins_where_the_figures_say_so() {
        let said = sentences(&rows()).join("\n");
        assert!(said.contains("smaller mixed with 9 people, smaller forwarded with 2"), "{said}");
        assert!(
            said.contains("0.40 cores against 0.02 with 2 people, 0.70 cores against 0.10 with 9"),
            "{said}"
        );
        assert!(said.contains("45 and 45 ms with 2 people, 94 and 94 ms with 9 people"), "{said}");
        assert!(said.contains("met with 2 people and missed with 9"), "{said}");
        assert!(said.contains("changes the mix's by +0 and +0 ms with 2 people"), "{said}");
        assert!(said.contains("is not worse for being mixed"), "{said}");
        assert!(said.starts_with("Forward with 2 people") && said.contains("From 9 people on mix"), "{said}");
        assert!(said.contains("0.60 more cores") && said.contains("spares each viewer 2.2 Mbit/s"), "{said}");
        assert!(!said.contains("strained"), "{said}");
    }

    #[test]
    fn figures_the_other_way_round_say_the_other_thing() {
        let forwarded_wins = vec![row(4, Mode::Sfu, 0.02, 1.0e6, 5.0), row(4, Mode::Mcu, 0.4, 1.8e6, 9.0)];
        let said = sentences(&forwarded_wins).join("\n");
        assert!(
            said.contains("smaller forwarded in every size") && said.starts_with("Forward in every size"),
            "{said}"
        );
        let mixed_wins = vec![row(4, Mode::Sfu, 0.02, 2.0e6, 5.0), row(4, Mode::Mcu, 0.4, 1.8e6, 9.0)];
        let said = sentences(&mixed_wins).join("\n");
        assert!(
            said.contains("smaller mixed in every size") && said.starts_with("From 4 people on"),
            "{said}"
        );
    }

    #[test]
    fn what_strains_the_machine_or_does_not_run_is_said() {
        let mut rows = rows();
        if let Some(figures) = rows.last_mut().and_then(|row| row.figures.as_mut()) {
            figures.strained.push("the machine was full".into());
        }
        rows.push(Row { failure: Some("no".into()), ..Row::empty(25, Mode::Mcu) });
        let said = sentences(&rows).join("\n");
        assert!(said.contains("strained with 9 people") && said.contains("did not run"), "{said}");
        assert!(sentences(&rows[4..]).join("").contains("nothing can be compared"));
    }
}
