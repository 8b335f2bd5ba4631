//! The summary as one HTML page that needs nothing else: a bar for each server with its spread, and a table.

use std::fmt::Write;

use super::{BARE, OURS, Spread, Summary, Workload};

/// Metric, title, decimals.
const PLOTS: &[(&str, &str, usize)] = &[
    ("cpu_us_per_packet", "CPU for each forwarded packet, µs", 2),
    ("latency_p99_ms", "One-way latency p99, ms", 2),
    ("join_p50_ms", "Join to the first picture p50, ms", 0),
    ("memory_mb", "Memory, MB", 0),
];
/// Pixels.
const WIDTH: f64 = 640.0;
const NAME_WIDTH: f64 = 120.0;
const VALUE_WIDTH: f64 = 190.0;
const ROW: f64 = 30.0;

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>Forwarding compared</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}\
body{color:#1a1f2b;background:#fff}\
h1{font-size:1.6rem}h2{margin-top:2.5rem}h3{font-size:1rem;margin:1.5rem 0 .2rem}svg{width:100%;height:auto}\
svg text{font:13px system-ui,sans-serif;fill:currentColor}\
.ours{fill:#0a6cff}.other{fill:#8a94a6}.bare{fill:#2b9a66}\
.spread{stroke:currentColor;stroke-width:1.5}table{border-collapse:collapse;font-size:.85rem;width:100%}\
td,th{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #8884}th:first-child{text-align:left}\
.wide{overflow-x:auto}@media(prefers-color-scheme:dark){body{color:#e8ebf0;background:#12151b}}</style>";

/// The page.
pub fn render(summary: &Summary) -> String {
    let mut page = format!(
        "{HEAD}<h1>Forwarding compared</h1><p>Medians over all rounds; lines and brackets span the least and \
         the greatest. <b>bare</b> only rewrites, seals and sends: no server can cost less.</p>"
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
    let height = ROW * rows.len() as f64;
    let top = rows.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - NAME_WIDTH - VALUE_WIDTH) / top;
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">");
    for (row, (server, spread)) in rows.iter().enumerate() {
        let y = ROW * row as f64;
        let class = match *server {
            OURS => "ours",
            BARE => "bare",
            _ => "other",
        };
        let (middle, text) = (y + ROW / 2.0, y + ROW / 2.0 + 4.5);
        let at = |value: f64| NAME_WIDTH + value * scale;
        let _ = write!(
            page,
            "<text x=\"0\" y=\"{text}\">{}</text>\
             <rect class=\"{class}\" x=\"{NAME_WIDTH}\" y=\"{}\" width=\"{:.1}\" height=\"{}\"/>\
             <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
             <text x=\"{:.1}\" y=\"{text}\">{:.decimals$} [{:.decimals$}–{:.decimals$}]</text>",
            escape(server),
            y + 5.0,
            spread.median * scale,
            ROW - 10.0,
            at(spread.min),
            at(spread.max),
            at(spread.max) + 8.0,
            spread.median,
            spread.min,
            spread.max,
        );
    }
    page.push_str("</svg>");
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

/// Names come from file names.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_bring_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
