//! The summary as one HTML page that needs nothing else: a bar for each server with its spread, and a table.

use std::fmt::Write;

use super::{BARE, OURS, Spread, Summary, Workload};
use crate::bench::plot::{self, Bar, escape};

/// Metric, title, decimals.
const PLOTS: &[(&str, &str, usize)] = &[
    ("cpu_us_per_packet", "CPU for each forwarded packet, µs", 2),
    ("latency_p99_ms", "One-way latency p99, ms", 2),
    ("join_p50_ms", "Join to the first picture p50, ms", 0),
    ("memory_mb", "Memory, MB", 0),
];
/// The page.
pub fn render(summary: &Summary) -> String {
    let mut page = plot::head("Forwarding compared");
    page.push_str(
        "<p>Medians over all rounds; lines and brackets span the least and the greatest. <b>bare</b> only \
         rewrites, seals and sends: no server can cost less.</p>",
    );
    for (name, workload) in summary {
        section(&mut page, name, workload);
    }
    page.push_str("</html>\n");
    page
}

fn section(page: &mut String, name: &str, workload: &Workload) {
    // Writing to a string cannot fail.
    let _ = write!(page, "<h2>{}</h2><ul>", escape(name));
    for (server, times) in &workload.cpu_times_ours {
        let _ = write!(
            page,
            "<li>{} spends <b>{times:.1} times</b> our CPU for each packet</li>",
            escape(server)
        );
    }
    if let Some(share) = workload.share_of_bare_limit {
        let _ = write!(page, "<li>The bare limit is <b>{:.0} %</b> of what we spend</li>", share * 100.0);
    }
    page.push_str("</ul>");
    for (metric, title, decimals) in PLOTS {
        let rows: Vec<(&str, Spread)> = workload
            .servers
            .iter()
            .filter_map(|(server, figures)| Some((server.as_str(), *figures.get(metric)?)))
            .collect();
        if !rows.is_empty() {
            let _ = write!(page, "<h3>{title}</h3>");
            plot(page, title, &rows, *decimals);
        }
    }
    table(page, workload);
}

fn plot(page: &mut String, title: &str, rows: &[(&str, Spread)], decimals: usize) {
    let bars: Vec<Bar<'_>> = rows
        .iter()
        .map(|&(server, Spread { median, min, max, .. })| Bar {
            name: server,
            class: match server {
                OURS => "ours",
                BARE => "bare",
                _ => "other",
            },
            value: median,
            spread: Some((min, max)),
            text: format!("{median:.decimals$} [{min:.decimals$}–{max:.decimals$}]"),
        })
        .collect();
    plot::bars(page, title, &bars);
}

fn table(page: &mut String, workload: &Workload) {
    page.push_str("<h3>All figures</h3><div class=\"wide\"><table><tr><th>median [least–greatest]</th>");
    for (server, figures) in &workload.servers {
        let runs = figures.values().map(|spread| spread.runs).max().unwrap_or(0);
        let _ = write!(page, "<th>{} ({runs} runs)</th>", escape(server));
    }
    page.push_str("</tr><tr><th>SRTP profile</th>");
    for server in workload.servers.keys() {
        let profiles = workload.srtp_profiles.get(server).into_iter().flatten();
        let names: Vec<String> = profiles.map(|profile| escape(profile)).collect();
        let _ = write!(page, "<td>{}</td>", names.join(", "));
    }
    for (metric, ..) in super::METRICS {
        let _ = write!(page, "</tr><tr><th>{}</th>", metric.replace('_', " "));
        for figures in workload.servers.values() {
            let _ = match figures.get(metric) {
                Some(Spread { median, min, max, .. }) => {
                    write!(page, "<td>{median:.2} [{min:.2}–{max:.2}]</td>")
                }
                None => write!(page, "<td></td>"),
            };
        }
    }
    page.push_str("</tr></table></div>");
}
