//! Style as a test: what a reader may rely on in every file of this tree, and what no compiler checks.
//!
//! Each test collects every breach before it fails, each with its file and line. Code under `#[cfg(test)]` is
//! held to form, not to import edges and bans. Rust is read by lines, which `cargo fmt` has made regular.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a Rust file, without its tests.
const RUST_FILE_LINES_MAX: usize = 500;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a TypeScript or JavaScript file.
const SCRIPT_FILE_LINES_MAX: usize = 400;
/// Characters in a line of code.
const WIDTH_MAX: usize = 110;

/// Which modules of the crate each module may name, besides itself. `*` is any.
const EDGES: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &["*"]),
    (
        "cli",
        &[
            "node",
            "bench",
            "config",
            "core",
            "events",
            "feed",
            "files",
            "mcu",
            "record",
            "stream",
            "telemetry",
            "token",
        ],
    ),
    ("node", &["*"]),
    ("bench", &["config", "core", "media", "telemetry"]),
    ("cluster", &["core", "config", "mailbox", "telemetry"]),
    (
        "control",
        &["cluster", "events", "mcu", "media", "record", "worker", "core", "config", "mailbox", "telemetry"],
    ),
    ("files", &["control", "events", "core", "config", "mailbox", "telemetry"]),
    ("billing", &["control", "events", "core", "config", "mailbox", "telemetry"]),
    (
        "signal",
        &[
            "billing",
            "control",
            "feed",
            "files",
            "record",
            "stream",
            "core",
            "config",
            "mailbox",
            "telemetry",
            "token",
        ],
    ),
    ("feed", &["control", "files", "worker", "core", "config", "mailbox", "telemetry"]),
    ("stream", &["control", "worker", "core", "config", "mailbox", "telemetry"]),
    ("media", &["core", "config", "mailbox", "telemetry"]),
    ("mcu", &["worker", "core", "config", "mailbox", "telemetry"]),
    ("record", &["worker", "core", "config", "mailbox", "telemetry"]),
    ("worker", &["core", "mailbox"]),
    ("events", &["core", "config", "mailbox", "telemetry"]),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("token", &["config", "core"]),
    ("mailbox", &[]),
    ("core", &[]),
];

/// Text that code in a folder must not hold, and why. Comments may.
const BANS: &[(&str, &str, &str)] = &[
    ("src/core/", "std::net::", "core opens nothing and knows no addresses"),
    ("src/core/", "tokio", "core runs nothing"),
    ("src/core/", "axum", "core speaks no HTTP"),
    ("src/core/", "std::thread", "core runs nothing"),
    ("src/core/", "std::fs", "core reads no file"),
    ("src/core/", "std::env", "core is told what it needs"),
    ("src/core/", "async fn", "core never waits"),
    ("src/core/", ".await", "core never waits"),
    ("src/core/", "Instant::now", "time arrives as an argument"),
    ("src/core/", "SystemTime", "time arrives as an argument"),
    ("src/core/", "Mutex", "core has one owner"),
    ("src/core/", "RwLock", "core has one owner"),
    ("src/core/", "HashMap", "ordered maps only, so that a run repeats from its seed"),
    ("src/core/", "HashSet", "ordered sets only, so that a run repeats from its seed"),
    ("src/core/", "rand::rng()", "randomness arrives as a seeded argument"),
    ("src/core/", "str0m::Rtc", "core uses the engine's value types, never the engine"),
    ("src/media/", "Mutex", "no lock on the packet path"),
    ("src/media/", "RwLock", "no lock on the packet path"),
    ("src/media/", "println!", "what happens on the packet path is counted, not printed"),
    ("src/", "unsafe {", "safe bindings only"),
    ("src/", "#[allow(dead_code)]", "delete what nothing calls"),
    ("src/", "todo!(", "finish it"),
    ("src/", "unimplemented!(", "finish it"),
    ("tests/", "thread::sleep", "wait for a condition"),
];

/// One file: where, and its lines.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// Which lines belong to an item under `#[cfg(test)]`: from the attribute to the end of the item, which
    /// rustfmt closes at the attribute's own depth.
    fn test_lines(&self) -> Vec<bool> {
        let mut of_tests = vec![self.is_test_module(); self.lines.len()];
        let mut row = 0;
        while row < self.lines.len() {
            if self.lines[row].trim() == "#[cfg(test)]" {
                let end = self.item_end(row);
                of_tests[row..=end].fill(true);
                row = end;
            }
            row += 1;
        }
        of_tests
    }

    /// Whether another file declares this one with `#[cfg(test)] mod name;`, by its name or by a `#[path]`.
    fn is_test_module(&self) -> bool {
        let path = root().join(&self.path);
        let (folder, stem) = (path.parent().unwrap(), path.file_stem().unwrap().to_string_lossy());
        let by_name = format!("mod {stem};");
        let by_path = format!("#[path = \"{stem}.rs\"]");
        let neighbours = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        neighbours.chain([folder.with_extension("rs")]).any(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            lines
                .windows(2)
                .any(|pair| pair[0] == "#[cfg(test)]" && (pair[1].ends_with(&by_name) || pair[1] == by_path))
        })
    }

    /// Written by a test from the Rust types: nobody reads it line by line.
    fn is_generated(&self) -> bool {
        self.lines.iter().take(8).any(|line| line.to_lowercase().contains("generated"))
    }

    /// The last line of the item that starts at `row`: one that ends in `;` before any brace opens, or the
    /// brace that closes at its depth.
    fn item_end(&self, row: usize) -> usize {
        let depth = indent(&self.lines[row]);
        for (at, line) in self.lines.iter().enumerate().skip(row) {
            let ends = line.trim_end();
            if indent(line) == depth
                && (ends.ends_with(';') || ends.trim() == "}" || (at > row && ends.ends_with('}')))
            {
                return at;
            }
        }
        self.lines.len() - 1
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The code of a line, without a comment that follows it.
fn code(line: &str) -> &str {
    let end = if line.trim_start().starts_with("//") { 0 } else { line.find(" // ").unwrap_or(line.len()) };
    &line[..end]
}

/// Every file under `folders` with one of these extensions, except what is installed, built or not ours.
fn sources(folders: &[&str], extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if ["node_modules", "dist", "target", "test-results", "data"].contains(&name)
                || (name.starts_with('.') && name != ".ci" && path != root())
                || path == root().join("vendor/dimpl")
            {
                continue;
            }
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
            || path.file_name().and_then(|n| n.to_str()).is_some_and(|n| extensions.contains(&n))
        {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source { path, lines: text.lines().map(str::to_owned).collect() });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust_sources() -> Vec<Source> {
    let found = sources(&["src", "tests", "benches"], &["rs"]);
    assert!(found.len() > 5, "the walk found only {} Rust files", found.len());
    found
}

fn script_sources() -> Vec<Source> {
    sources(&["web", "tests"], &["ts", "tsx", "mts", "js", "mjs"])
}

/// Fails with every breach, one a line.
fn report(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{} breaches:\n  {}", breaches.len(), breaches.join("\n  "));
}

#[test]
fn every_file_opens_by_saying_what_it_is_for() {
    let mut breaches = Vec::new();
    for file in rust_sources() {
        if !file.lines.first().is_some_and(|line| line.starts_with("//! ")) {
            breaches.push(format!("{}: does not open with //!", file.path));
        }
    }
    for file in script_sources() {
        if !file.lines.first().is_some_and(|line| line.starts_with("/**")) {
            breaches.push(format!("{}: does not open with /** */", file.path));
        }
    }
    report(breaches);
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut breaches = Vec::new();
    for file in rust_sources() {
        let of_tests = file.test_lines();
        let count = of_tests.iter().filter(|of_tests| !**of_tests).count();
        if count > RUST_FILE_LINES_MAX {
            breaches.push(format!("{}: {count} lines without tests", file.path));
        }
        for (row, line) in file.lines.iter().enumerate() {
            if is_function(line) {
                let length = file.item_end(row) - row + 1;
                if length > FUNCTION_LINES_MAX {
                    breaches.push(format!("{}:{}: a function of {length} lines", file.path, row + 1));
                }
            }
        }
    }
    for file in script_sources() {
        if !file.is_generated() && file.lines.len() > SCRIPT_FILE_LINES_MAX {
            breaches.push(format!("{}: {} lines", file.path, file.lines.len()));
        }
    }
    for file in rust_sources().iter().chain(&script_sources()).filter(|file| !file.is_generated()) {
        for (row, line) in file.lines.iter().enumerate() {
            let width = line.chars().count();
            if width > WIDTH_MAX && !holds_long_text(line) {
                breaches.push(format!("{}:{}: {width} characters wide", file.path, row + 1));
            }
        }
    }
    report(breaches);
}

/// Formatters break no literal, and a sentence shown to people is better whole.
fn holds_long_text(line: &str) -> bool {
    ['"', '\'', '`'].iter().any(|quote| line.split(*quote).nth(1).is_some_and(|text| text.len() > 60))
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || ["async", "const", "unsafe", "extern", "default"].contains(word)
    });
    words.next() == Some("fn") && !line.contains("fn $") && line.trim_end().ends_with(['{', '('])
}

#[test]
fn imports_point_one_way() {
    let mut breaches = Vec::new();
    for file in sources(&["src"], &["rs"]) {
        let module = module_of(&file.path);
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == module) else {
            breaches.push(format!("{}: module `{module}` has no line in EDGES", file.path));
            continue;
        };
        let of_tests = file.test_lines();
        for (row, line) in file.lines.iter().enumerate() {
            for named in named_modules(code(line)).filter(|_| !of_tests[row]) {
                let fits = named == module || allowed.contains(&"*") || allowed.contains(&named.as_str());
                if !fits {
                    breaches.push(format!("{}:{}: `{module}` names `{named}`", file.path, row + 1));
                }
            }
        }
    }
    report(breaches);
}

/// `src/core/room.rs` and `src/core/mod.rs` are of module `core`, `src/control.rs` of `control`.
fn module_of(path: &str) -> String {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs").to_owned()
}

/// The crate's modules that a line of code names by `crate::` or, in the binary, by `antiphon::`.
fn named_modules(code: &str) -> impl Iterator<Item = String> {
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "antiphon::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                // In braces every path's first name counts, not what stands in braces within.
                Some(paths) => {
                    let mut depth = 0;
                    let heads = paths.split_inclusive(['{', '}', ',']).filter(|part| {
                        let outermost = depth == 0;
                        depth += part.matches('{').count() as i32 - part.matches('}').count() as i32;
                        outermost
                    });
                    found.extend(heads.filter_map(module_at));
                }
                None => found.extend(module_at(rest)),
            }
        }
    }
    found.into_iter()
}

/// The module of this crate that a path begins with.
fn module_at(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    let is_module = rest.is_empty() || rest.starts_with([':', ';', ',', '}', ' ']);
    (is_module && EDGES.iter().any(|(known, _)| *known == name)).then(|| name.to_owned())
}

#[test]
fn no_banned_text() {
    let mut breaches = Vec::new();
    for file in rust_sources().iter().filter(|file| file.path != "tests/tidy.rs") {
        let of_tests = file.test_lines();
        for (row, line) in file.lines.iter().enumerate() {
            for (folder, text, why) in BANS {
                if file.path.starts_with(folder) && !of_tests[row] && holds(code(line), text) {
                    breaches.push(format!("{}:{}: `{text}`: {why}", file.path, row + 1));
                }
            }
            if line.trim_start().starts_with("#[ignore") {
                breaches.push(format!("{}:{}: an ignored test tests nothing", file.path, row + 1));
            }
        }
    }
    for file in script_sources() {
        for (row, line) in file.lines.iter().enumerate() {
            for text in [".skip(", ".only(", "innerHTML", "@ts-ignore", "@ts-nocheck"] {
                if line.contains(text) {
                    breaches.push(format!("{}:{}: `{text}`", file.path, row + 1));
                }
            }
        }
    }
    report(breaches);
}

/// Whether code holds a text that is not the beginning of a longer name.
fn holds(code: &str, text: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(text)
        .any(|(at, _)| !(text.ends_with(is_name) && code[at + text.len()..].starts_with(is_name)))
}

#[test]
fn nothing_is_left_to_do() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let kinds = ["rs", "ts", "mjs", "js", "css", "html", "py", "sh", "md", "toml", "yml", "Makefile", "run"];
    let mut breaches = Vec::new();
    for file in sources(&[""], &kinds) {
        for (row, line) in file.lines.iter().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                breaches.push(format!("{}:{}: {mark}", file.path, row + 1));
            }
        }
    }
    report(breaches);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut breaches = Vec::new();
    for file in sources(&[""], &["md"]) {
        let folder = root().join(Path::new(&file.path).parent().unwrap());
        for (row, line) in file.lines.iter().enumerate() {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let target = link.split('#').next().unwrap_or_default();
                let outside = link.contains("://") || link.starts_with("mailto:") || target.is_empty();
                if !outside && !folder.join(target).exists() {
                    breaches.push(format!("{}:{}: {link} is not there", file.path, row + 1));
                }
            }
        }
    }
    report(breaches);
}

#[test]
fn metrics_in_documents_are_in_the_code() {
    let code: String = sources(&["src"], &["rs"])
        .iter()
        .flat_map(|file| &file.lines)
        .map(|line| line.clone() + "\n")
        .collect();
    let mut breaches = Vec::new();
    for file in sources(&["docs", "README.md"], &["md"]) {
        for (row, line) in file.lines.iter().enumerate() {
            for (at, _) in line.match_indices("antiphon_") {
                let name: String =
                    line[at..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let known = [Some(name.as_str()), base].into_iter().flatten();
                if !known.map(|name| format!("\"{name}\"")).any(|quoted| code.contains(&quoted)) {
                    breaches.push(format!("{}:{}: no metric {name}", file.path, row + 1));
                }
            }
        }
    }
    report(breaches);
}
