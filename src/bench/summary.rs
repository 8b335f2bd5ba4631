//! `antiphon bench summary`: many runs of several servers as medians, spreads and ratios, as JSON and as a
//! page with plots.
//!
//! A run is a file `SERVER.WORKLOAD.ROUND.json` that `bench forward` or `bench bare` printed. Medians are
//! over the rounds; a run whose server failed clients or lost packets is counted, never left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::BenchError;

mod page;

/// The server that the others are compared with.
const OURS: &str = "antiphon";
/// The run of `bench bare`.
const BARE: &str = "bare";

/// Options of `antiphon bench summary`.
#[derive(Debug, Clone, Args)]
pub struct SummaryArgs {
    /// Folder with the runs; gets `summary.json` and `summary.html`
    pub folder: PathBuf,
}

/// What is taken from each run: name, where it is in the report, factor.
const METRICS: &[(&str, &str, f64)] = &[
    ("cpu_us_per_packet", "/server/cpu_ns_per_forwarded_packet", 1e-3),
    ("latency_p50_ms", "/latency_ms/p50", 1.0),
    ("latency_p99_ms", "/latency_ms/p99", 1.0),
    ("latency_p999_ms", "/latency_ms/p999", 1.0),
    ("join_p50_ms", "/join_ms/first_frame/p50", 1.0),
    ("packets_per_second", "/received_packets_per_second", 1.0),
    ("loss_percent", "/packets/loss_ratio", 100.0),
    ("memory_mb", "/server/rss_end_bytes", 1e-6),
    ("server_cores", "/server/cpu_share", 1.0),
    ("generator_cores", "/generator/cpu_share", 1.0),
    ("others_cores", "/machine/others_cores", 1.0),
    ("steal_cores", "/machine/steal_cores", 1.0),
];

/// One figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub runs: usize,
}

/// Metric to its spread.
pub type Figures = BTreeMap<&'static str, Spread>;

/// What all runs of one workload say.
#[derive(Debug, Default, Serialize)]
pub struct Workload {
    pub servers: BTreeMap<String, Figures>,
    /// The SRTP profiles that clients of a server ended up with; one, unless they differ among themselves.
    pub srtp_profiles: BTreeMap<String, BTreeSet<String>>,
    /// How many times our CPU for each packet another server spends, by medians.
    pub cpu_times_ours: BTreeMap<String, f64>,
    /// The bare limit's CPU for each packet over ours.
    pub share_of_bare_limit: Option<f64>,
}

/// Workload to what its runs say.
pub type Summary = BTreeMap<String, Workload>;

/// Reads the runs and writes the summary beside them.
///
/// # Errors
/// The folder cannot be read or written, or has no runs.
pub fn run(args: &SummaryArgs) -> Result<(), BenchError> {
    let summary = summarize(read(&args.folder)?);
    if summary.is_empty() {
        return Err(BenchError::NoRuns(args.folder.clone()));
    }
    let json = serde_json::to_string_pretty(&summary)?;
    fs::write(args.folder.join("summary.json"), &json)?;
    fs::write(args.folder.join("summary.html"), page::render(&summary))?;
    println!("{json}");
    Ok(())
}

/// Workload and server of each run, and its report.
fn read(folder: &Path) -> io::Result<Vec<(String, String, Value)>> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut parts = name.split('.');
        if let (Some(server), Some(workload), Some(_), Some("json"), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        {
            let report = serde_json::from_slice(&fs::read(&path)?)
                .map_err(|error| io::Error::other(format!("{name} is no report: {error}")))?;
            runs.push((workload.to_owned(), server.to_owned(), report));
        }
    }
    Ok(runs)
}

fn summarize(runs: Vec<(String, String, Value)>) -> Summary {
    let mut values: BTreeMap<(String, String), BTreeMap<&'static str, Vec<f64>>> = BTreeMap::new();
    let mut summary = Summary::new();
    for (workload, server, report) in runs {
        if let Some(profiles) = report.get("srtp_profiles").and_then(Value::as_object) {
            let of_workload = summary.entry(workload.clone()).or_default();
            let known = of_workload.srtp_profiles.entry(server.clone()).or_default();
            known.extend(profiles.keys().cloned());
        }
        let of_server = values.entry((workload, server)).or_default();
        for (metric, pointer, factor) in METRICS {
            if let Some(value) = report.pointer(pointer).and_then(Value::as_f64) {
                of_server.entry(metric).or_default().push(value * factor);
            }
        }
    }
    for ((workload, server), metrics) in values {
        let figures = metrics.into_iter().filter_map(|(metric, values)| Some((metric, spread(values)?)));
        summary.entry(workload).or_default().servers.insert(server, figures.collect());
    }
    for workload in summary.values_mut() {
        compare(workload);
    }
    summary
}

fn compare(workload: &mut Workload) {
    let cpu = |figures: &Figures| figures.get("cpu_us_per_packet").map(|spread| spread.median);
    let Some(ours) = workload.servers.get(OURS).and_then(cpu).filter(|ours| *ours > 0.0) else { return };
    for (server, figures) in &workload.servers {
        match cpu(figures) {
            Some(theirs) if server == BARE => workload.share_of_bare_limit = Some(theirs / ours),
            Some(theirs) if server != OURS => {
                workload.cpu_times_ours.insert(server.clone(), theirs / ours);
            }
            _ => {}
        }
    }
}

/// None of no values. The median of an even number is the mean of the middle two.
fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(Spread { median: f64::midpoint(lower, upper), min, max, runs: values.len() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(server: &str, cpu_ns: f64) -> (String, String, Value) {
        let report = json!({
            "server": { "cpu_ns_per_forwarded_packet": cpu_ns, "rss_end_bytes": 50_000_000 },
            "latency_ms": { "p50": 0.5, "p99": 2.0, "p999": 4.0 },
            "srtp_profiles": { (format!("PROFILE_OF_{server}")): 51 },
        });
        ("1x50".into(), server.into(), report)
    }

    fn example() -> Summary {
        summarize(vec![
            run("antiphon", 2_000.0),
            run("antiphon", 4_000.0),
            run("antiphon", 3_000.0),
            run("janus", 18_000.0),
            run("janus", 20_000.0),
            run("bare", 1_500.0),
        ])
    }

    #[test]
    fn medians_spreads_and_ratios_are_of_all_rounds() {
        let summary = example();
        let workload = &summary["1x50"];
        let cpu = workload.servers["antiphon"]["cpu_us_per_packet"];
        assert_eq!(cpu, Spread { median: 3.0, min: 2.0, max: 4.0, runs: 3 });
        assert!((workload.servers["janus"]["cpu_us_per_packet"].median - 19.0).abs() < 1e-9);
        assert!((workload.cpu_times_ours["janus"] - 19.0 / 3.0).abs() < 1e-9);
        assert!(!workload.cpu_times_ours.contains_key("bare"));
        assert_eq!(workload.share_of_bare_limit, Some(0.5));
        assert!(!workload.servers["bare"].contains_key("join_p50_ms"));
        assert_eq!(workload.srtp_profiles["janus"], BTreeSet::from(["PROFILE_OF_janus".to_owned()]));
    }

    #[test]
    fn runs_are_read_from_a_folder_and_the_page_stands_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        for (round, (workload, server, report)) in
            [run("antiphon", 2_000.0), run("janus", 9_000.0)].into_iter().enumerate()
        {
            let name = format!("{server}.{workload}.{round}.json");
            fs::write(folder.path().join(name), report.to_string()).expect("written");
        }
        let args = SummaryArgs { folder: folder.path().into() };
        super::run(&args).expect("a summary");
        let page = fs::read_to_string(folder.path().join("summary.html")).expect("a page");
        assert!(page.contains("<svg") && page.contains("janus") && page.contains("4.5"));
        assert!(page.contains("<td>PROFILE_OF_antiphon</td><td>PROFILE_OF_janus</td>"));
        assert!(!page.contains("src=") && !page.contains("href="));
        // Once more: the summary is no run.
        super::run(&args).expect("a summary");
    }

    #[test]
    fn a_folder_without_runs_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let args = SummaryArgs { folder: folder.path().into() };
        assert!(matches!(super::run(&args), Err(BenchError::NoRuns(_))));
    }
}
