//! The comparison as one HTML page that needs nothing else: the verdict, plots, all figures, and how each was
//! measured.

use std::fmt::Write;

use super::report::{Browser, Comparison, Figures, Percentiles, Row, mode_name};
use crate::bench::plot::{self, Bar, escape};
use crate::core::protocol::Mode;

const DASH: &str = "–";

/// What a plot or a line of the table shows of a row; none where it was not measured.
type Figure = fn(&Figures) -> Option<f64>;

/// Title, unit, decimals, figure.
const PLOTS: &[(&str, &str, usize, Figure)] = &[
    ("Server's CPU, node and mixer", "cores", 2, |f| Some(f.server.cores())),
    ("A viewer's downlink, mean", "Mbit/s", 2, |f| Some(f.downlink_bps.mean / 1e6)),
    ("Glass to glass, median, until decoded", "ms", 1, |f| Some(f.latency_ms.p50)),
    ("Glass to glass in Chromium, median, until due on the screen", "ms", 0, |f| {
        Some(f.browser.figures()?.latency_ms.p50)
    }),
    ("Chromium's decoding in each second", "ms", 0, |f| Some(f.browser.figures()?.decode_ms_per_second)),
    ("What a tile has lost of what was sent, 1 − MS-SSIM", "", 4, |f| Some(1.0 - f.quality?.ms_ssim)),
];

/// Name, decimals, figure.
const TABLE: &[(&str, usize, Figure)] = &[
    ("server: node, cores", 3, |f| Some(f.server.node_cores)),
    ("server: mixer, cores", 3, |f| (f.server.mixers > 0).then_some(f.server.mixer_cores)),
    ("server: all, for each person, cores", 3, |f| Some(f.server.cores() / f64::from(f.people.max(1)))),
    ("server: node's memory, MB", 0, |f| Some(f.server.node_rss_bytes as f64 / 1e6)),
    ("server: mixer's memory, MB", 0, |f| {
        (f.server.mixers > 0).then_some(f.server.mixer_rss_bytes as f64 / 1e6)
    }),
    ("into the server, Mbit/s", 2, |f| Some(f.ingress_bps / 1e6)),
    ("out of the server, Mbit/s", 2, |f| Some(f.egress_bps / 1e6)),
    ("a viewer's downlink, mean, Mbit/s", 2, |f| Some(f.downlink_bps.mean / 1e6)),
    ("least of all viewers, Mbit/s", 2, |f| Some(f.downlink_bps.min / 1e6)),
    ("greatest of all viewers, Mbit/s", 2, |f| Some(f.downlink_bps.max / 1e6)),
    ("tiles seen", 0, |f| Some(f64::from(f.tiles.seen))),
    ("glass to glass p50, ms", 1, |f| Some(f.latency_ms.p50)),
    ("glass to glass p95, ms", 1, |f| Some(f.latency_ms.p95)),
    ("glass to glass p99, ms", 1, |f| Some(f.latency_ms.p99)),
    ("one camera silent: p50, ms", 1, |f| measured(f.latency_one_silent_ms).map(|latency| latency.p50)),
    ("one camera silent: p95, ms", 1, |f| measured(f.latency_one_silent_ms).map(|latency| latency.p95)),
    ("pictures decoded in a second", 1, |f| Some(f.frames.decoded_per_second)),
    ("pictures never seen, %", 1, |f| Some(f.frames.dropped_ratio() * 100.0)),
    ("PSNR, dB", 1, |f| Some(f.quality?.psnr_db)),
    ("SSIM", 3, |f| Some(f.quality?.ssim)),
    ("MS-SSIM", 3, |f| Some(f.quality?.ms_ssim)),
    ("tiles judged", 0, |f| Some(f.quality_samples as f64)),
    ("Chromium: decoding one picture, ms", 2, |f| Some(f.browser.figures()?.decode_ms_per_frame)),
    ("Chromium: decoding in a second, ms", 0, |f| Some(f.browser.figures()?.decode_ms_per_second)),
    ("Chromium: pictures in a second", 0, |f| Some(f.browser.figures()?.frames_per_second)),
    ("Chromium: pictures received in a second", 0, |f| Some(f.browser.figures()?.frames_received_per_second)),
    ("Chromium: freezes", 0, |f| Some(f.browser.figures()?.freezes)),
    ("Chromium: pictures dropped", 0, |f| Some(f.browser.figures()?.frames_dropped)),
    ("Chromium: jitter buffer, ms", 0, |f| Some(f.browser.figures()?.jitter_buffer_ms)),
    ("Chromium: glass to glass p50, ms", 0, |f| {
        measured(f.browser.figures()?.latency_ms).map(|latency| latency.p50)
    }),
    ("Chromium: glass to glass p95, ms", 0, |f| {
        measured(f.browser.figures()?.latency_ms).map(|latency| latency.p95)
    }),
    ("Chromium: downlink, Mbit/s", 2, |f| Some(f.browser.figures()?.downlink_bps / 1e6)),
    ("Chromium: all its processes, cores", 2, |f| Some(f.browser.figures()?.cores)),
    ("machine: cores in use by all", 2, |f| Some(f.load.busy_cores)),
    ("machine: by this tool", 2, |f| Some(f.load.tool_cores)),
    ("machine: by others", 2, |f| Some(f.load.others_cores)),
    ("machine: taken by its host", 2, |f| Some(f.load.steal_cores)),
    ("sent late by the tool p95, ms", 1, |f| Some(f.load.late_ms_p95)),
];

/// What each group of figures means.
const HOW: &[(&str, &str)] = &[
    (
        "The room",
        "A fresh node for each column, on the same machine as everything else, over loopback. Everyone \
         joins as the page does, with all their slots, sends video and Opus, and takes what the room \
         gives. Two speak; the others' microphones are open. Figures are of one window of the time named \
         above, after everyone was seen and five seconds had passed.",
    ),
    (
        "The picture",
        "A person in front of a wall who moves and talks, with a camera's noise, 1280 × 720 at 30 \
         pictures a second, encoded beforehand by libvpx as VP8 in three encodings with a key frame every \
         second, as a recording cannot make one when asked. All play the same recording from different \
         places in it. Only encodings that the server takes are sent.",
    ),
    (
        "What a viewer wishes for",
        "The same grid in both modes: forwarded, each stream in the height of its tile; mixed, the mix in \
         the full height of the canvas. Nobody is forwarded to themselves, and everyone is in the mix, so \
         there is one tile fewer forwarded.",
    ),
    (
        "Server's CPU and memory",
        "The scheduler's account of the node's threads and of its mixer's process over the window; \
         resident memory at the end of it. On loopback the kernel's work for receivers is charged to the \
         sender.",
    ),
    (
        "Bits in and out, downlink",
        "Payload of all UDP datagrams that the people's sockets sent and got: media, sound, repairs, \
         probing and feedback.",
    ),
    (
        "Glass to glass",
        "Each picture carries its number as a strip of black and white blocks. The time from handing a \
         picture to its sender to when the watching person's decoder (libvpx by GStreamer, no playout \
         delay) gives a picture in which that number is read for the first time. Encoding at the sender is \
         not in it. One silent camera: the same over the seconds after one person's pictures stop coming \
         without a word, of all others. In Chromium: until the time at which it says that the picture is \
         due on the screen, its jitter buffer included, read from one in five pictures.",
    ),
    (
        "Pictures never seen",
        "Of all pictures that those on the screen handed over, the part whose number the watching person \
         never saw. A mix shows the newest of each at its own beat, so it skips one where two come between \
         two beats.",
    ),
    (
        "Quality",
        "About one tile a second of each person, its luma scaled to the size of its tile, against the \
         picture before encoding scaled to the same. The clock, the frame around who speaks and the name \
         are cut away. Higher is better; 1 is the same for SSIM. MS-SSIM is of the three finest scales, \
         with their weights; VMAF is not measured.",
    ),
    (
        "Chromium",
        "Headless, joins when the other windows are over, as one more who only watches, takes VP8 and at \
         most four voices, shows all tiles, and is measured for as long. Decoding is its own \
         totalDecodeTime over framesDecoded: wall time in the decoder, which on full cores includes \
         waiting for one. Without a GPU it decodes and paints in software.",
    ),
    (
        "The machine",
        "Cores in use are of all processes, from /proc/stat. A column is marked where the machine was \
         more than nine tenths full, where others took more than 0.3 cores, or where the tool itself was \
         late: its figures are then those of this machine more than of the mode.",
    ),
];

fn measured(latency: Percentiles) -> Option<Percentiles> {
    (latency.count > 0).then_some(latency)
}

/// The page.
pub fn render(comparison: &Comparison) -> String {
    let mut page = plot::head("Forwarded or mixed");
    for sentence in &comparison.verdict {
        // Writing to a string cannot fail.
        let _ = write!(page, "<p>{}</p>", escape(sentence));
    }
    page.push_str(
        "<svg viewBox=\"0 0 640 20\" role=\"img\" aria-label=\"Colours\">\
         <rect class=\"sfu\" x=\"0\" y=\"4\" width=\"12\" height=\"12\"/>\
         <text x=\"18\" y=\"15\">forwarded (SFU)</text>\
         <rect class=\"mcu\" x=\"160\" y=\"4\" width=\"12\" height=\"12\"/>\
         <text x=\"178\" y=\"15\">mixed (MCU)</text></svg>",
    );
    for (title, unit, decimals, figure) in PLOTS {
        chart(&mut page, comparison, title, unit, *decimals, *figure);
    }
    table(&mut page, &comparison.rows);
    marks(&mut page, &comparison.rows);
    setting(&mut page, comparison);
    page.push_str("<h2>How it was measured</h2><dl>");
    for (what, how) in HOW {
        let _ = write!(page, "<dt>{}</dt><dd>{}</dd>", escape(what), escape(how));
    }
    page.push_str("</dl></html>\n");
    page
}

fn chart(
    page: &mut String,
    comparison: &Comparison,
    title: &str,
    unit: &str,
    decimals: usize,
    figure: Figure,
) {
    let names: Vec<String> = comparison.rows.iter().map(row_name).collect();
    let bars: Vec<Bar<'_>> = comparison
        .rows
        .iter()
        .zip(&names)
        .filter_map(|(row, name)| {
            let value = figure(row.figures.as_deref()?)?;
            let mark = if is_marked(row) { " *" } else { "" };
            let text = format!("{value:.decimals$} {unit}").trim_end().to_owned() + mark;
            let class = if row.mode == Mode::Sfu { "sfu" } else { "mcu" };
            Some(Bar { name, class, value: value.max(0.0), spread: None, text })
        })
        .collect();
    if !bars.is_empty() {
        let _ = write!(page, "<h3>{}</h3>", escape(title));
        plot::bars(page, title, &bars);
    }
}

fn row_name(row: &Row) -> String {
    format!("{} {}", row.people, mode_name(row.mode))
}

fn is_marked(row: &Row) -> bool {
    row.failure.is_some() || row.figures.as_ref().is_some_and(|figures| !figures.strained.is_empty())
}

fn table(page: &mut String, rows: &[Row]) {
    page.push_str("<h2>All figures</h2><div class=\"wide\"><table><tr><th>people, mode</th>");
    for row in rows {
        let mark = if is_marked(row) { " *" } else { "" };
        let _ = write!(page, "<th>{}{mark}</th>", escape(&row_name(row)));
    }
    for (name, decimals, figure) in TABLE {
        let _ = write!(page, "</tr><tr><th>{}</th>", escape(name));
        for row in rows {
            let value = row.figures.as_deref().and_then(figure);
            let text = value.map_or_else(|| DASH.to_owned(), |value| format!("{value:.decimals$}"));
            let _ = write!(page, "<td>{text}</td>");
        }
    }
    page.push_str("</tr></table></div>");
}

/// Why columns are marked, and what was not measured.
fn marks(page: &mut String, rows: &[Row]) {
    page.push_str("<div class=\"marked\">");
    for row in rows {
        let name = escape(&row_name(row));
        if let Some(failure) = &row.failure {
            let _ = write!(page, "<p>* {name}: did not run: {}</p>", escape(failure));
        }
        let Some(figures) = &row.figures else { continue };
        if !figures.strained.is_empty() {
            let _ = write!(page, "<p>* {name}: {}.</p>", escape(&figures.strained.join("; ")));
        }
        if figures.tiles.seen < figures.tiles.expected {
            let _ = write!(
                page,
                "<p>{name}: {} of {} tiles were seen.</p>",
                figures.tiles.seen, figures.tiles.expected
            );
        }
        if let Browser::NotMeasured(reason) = &figures.browser {
            let _ = write!(page, "<p>{name}: Chromium was not measured: {}.</p>", escape(reason));
        }
    }
    page.push_str("</div>");
}

fn setting(page: &mut String, comparison: &Comparison) {
    let Comparison { machine, settings, version, .. } = comparison;
    let layers: Vec<String> = settings
        .encodings
        .iter()
        .map(|layer| {
            let kilobits = layer.recorded_bps / 1_000;
            format!("{} × {} at {kilobits} kbit/s", layer.width, layer.height)
        })
        .collect();
    let [width, height] = settings.canvas;
    let _ = write!(
        page,
        "<h2>Where</h2><p>{}, {} cores, {:.1} GB of memory, Linux {}; Antiphon {}. {} s for each column. Cameras send {}, \
         as recorded; the mix is {width} × {height}, at most 30 pictures a second.</p>",
        escape(&machine.cpu),
        machine.cores,
        machine.memory_bytes as f64 / 1e9,
        escape(&machine.kernel),
        escape(version),
        settings.seconds,
        layers.join(", "),
    );
}

#[cfg(test)]
mod tests {
    use super::super::report::{Computer, Settings};
    use super::super::verdict::{sentences, tests::row};
    use super::*;

    fn comparison(rows: Vec<Row>) -> Comparison {
        Comparison {
            schema: 1,
            version: "0".into(),
            made_at_unix_s: 0,
            machine: Computer {
                cpu: "A <fast> one".into(),
                cores: 2,
                memory_bytes: 1 << 32,
                kernel: "6".into(),
            },
            settings: Settings {
                seconds: 10,
                frames_per_second: 30,
                canvas: [1280, 720],
                encodings: Vec::new(),
                clip_seconds: 20,
            },
            verdict: sentences(&rows),
            rows,
        }
    }

    #[test]
    fn the_page_stands_alone_and_hides_nothing() {
        let mut mixed = row(4, Mode::Mcu, 0.5, 1.8e6, 60.0);
        if let Some(figures) = &mut mixed.figures {
            figures.browser = Browser::NotMeasured("there is no Chromium".into());
            figures.strained.push("others used 0.8 cores".into());
        }
        let failed = Row { failure: Some("<it> fell over".into()), ..Row::empty(9, Mode::Mcu) };
        let page = render(&comparison(vec![row(4, Mode::Sfu, 0.1, 3e6, 10.0), mixed, failed]));
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("<script"));
        for words in [
            "4 mixed *",
            "others used 0.8 cores",
            "there is no Chromium",
            "9 mixed: did not run: &lt;it&gt; fell over",
            "A &lt;fast&gt; one",
            "<svg",
        ] {
            assert!(page.contains(words), "{words}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn rows_of_an_earlier_run_are_added_if_it_is_alike() {
        let of = |people, p50| row(people, Mode::Sfu, 0.1, 3e6, p50);
        let mut now = comparison(vec![of(4, 10.0)]);
        assert!(now.add(comparison(vec![of(4, 99.0), of(2, 20.0)])));
        let found: Vec<_> = now.rows.iter().map(|row| (row.people, row.figures.as_ref())).collect();
        let found: Vec<_> = found.iter().map(|(people, f)| (*people, f.map(|f| f.latency_ms.p50))).collect();
        assert_eq!(found, [(2, Some(20.0)), (4, Some(10.0))]);
        let mut other = comparison(vec![of(9, 10.0)]);
        other.machine.cores = 64;
        assert!(!now.add(other) && now.rows.len() == 2);
    }

    #[test]
    fn the_json_can_be_read_again() {
        let made = comparison(vec![row(4, Mode::Sfu, 0.1, 3e6, 10.0), Row::empty(4, Mode::Mcu)]);
        let text = serde_json::to_string(&made).expect("JSON");
        let read: Comparison = serde_json::from_str(&text).expect("the same");
        assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
        assert_eq!(read.figures(4, Mode::Sfu).map(|figures| figures.latency_ms.p50), Some(10.0));
        assert!(read.figures(4, Mode::Mcu).is_none());
    }
}
