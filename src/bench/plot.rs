//! Pages that need nothing else: their style, and bars as inline SVG.

use std::fmt::Write;

/// Pixels.
const WIDTH: f64 = 640.0;
const NAME_WIDTH: f64 = 120.0;
const VALUE_WIDTH: f64 = 190.0;
const ROW: f64 = 30.0;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}\
body{color:#1a1f2b;background:#fff}\
h1{font-size:1.6rem}h2{margin-top:2.5rem}h3{font-size:1rem;margin:1.5rem 0 .2rem}svg{width:100%;height:auto}\
svg text{font:13px system-ui,sans-serif;fill:currentColor}\
.ours{fill:#0a6cff}.other{fill:#8a94a6}.bare{fill:#2b9a66}.sfu{fill:#0a6cff}.mcu{fill:#d9730d}\
.spread{stroke:currentColor;stroke-width:1.5}table{border-collapse:collapse;font-size:.85rem;width:100%}\
td,th{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #8884}th:first-child{text-align:left}\
.wide{overflow-x:auto}.marked{font-size:.85rem}dt{font-weight:600;margin-top:.6rem}dd{margin-left:0}\
@media(prefers-color-scheme:dark){body{color:#e8ebf0;background:#12151b}}";

/// One row of a plot.
#[derive(Debug, Clone)]
pub struct Bar<'a> {
    pub name: &'a str,
    /// Of the style: gives the colour.
    pub class: &'a str,
    /// Where the bar ends; 0 or more.
    pub value: f64,
    /// Least and greatest, drawn as a line over it.
    pub spread: Option<(f64, f64)>,
    /// What is written behind it.
    pub text: String,
}

/// A page's beginning, up to its heading.
pub fn head(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\
         <h1>{title}</h1>"
    )
}

/// Draws bars from one zero on, the greatest as wide as there is room.
pub fn bars(page: &mut String, title: &str, bars: &[Bar<'_>]) {
    let height = ROW * bars.len() as f64;
    let end = |bar: &Bar<'_>| bar.spread.map_or(bar.value, |(_, max)| max);
    // Any length will do where all are nothing.
    let top = Some(bars.iter().map(end).fold(0.0, f64::max)).filter(|top| *top > 0.0).unwrap_or(1.0);
    let scale = (WIDTH - NAME_WIDTH - VALUE_WIDTH) / top;
    // Writing to a string cannot fail.
    let _ =
        write!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escape(title));
    for (row, bar) in bars.iter().enumerate() {
        let y = ROW * row as f64;
        let (middle, text) = (y + ROW / 2.0, y + ROW / 2.0 + 4.5);
        let at = |value: f64| NAME_WIDTH + value * scale;
        let _ = write!(
            page,
            "<text x=\"0\" y=\"{text}\">{}</text>\
             <rect class=\"{}\" x=\"{NAME_WIDTH}\" y=\"{}\" width=\"{:.1}\" height=\"{}\"/>",
            escape(bar.name),
            escape(bar.class),
            y + 5.0,
            bar.value * scale,
            ROW - 10.0,
        );
        if let Some((min, max)) = bar.spread {
            let _ = write!(
                page,
                "<line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>",
                at(min),
                at(max),
            );
        }
        let _ =
            write!(page, "<text x=\"{:.1}\" y=\"{text}\">{}</text>", at(end(bar)) + 8.0, escape(&bar.text));
    }
    page.push_str("</svg>");
}

/// Text that comes from elsewhere brings no markup.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_bring_markup() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
        let mut page = String::new();
        let bar = Bar { name: "<b>", class: "sfu", value: 1.0, spread: None, text: "<i>".into() };
        bars(&mut page, "\"", &[bar]);
        assert!(
            page.contains("&lt;b&gt;")
                && page.contains("&lt;i&gt;")
                && page.contains("aria-label=\"&quot;\"")
        );
    }

    #[test]
    fn the_greatest_bar_fills_the_room_and_nothing_is_divided_by_zero() {
        let bar = |value, spread| Bar { name: "a", class: "sfu", value, spread, text: String::new() };
        let mut page = String::new();
        bars(&mut page, "t", &[bar(5.0, None), bar(10.0, None), bar(2.0, Some((1.0, 20.0)))]);
        assert!(page.contains("width=\"165.0\"") && page.contains("x2=\"450.0\""), "{page}");
        page.clear();
        bars(&mut page, "t", &[bar(0.0, None)]);
        assert!(page.contains("width=\"0.0\"") && !page.contains("NaN"), "{page}");
    }
}
