//! Names of files: what of a claimed name is kept, and how it goes into a header.

use std::fmt::Write as _;

/// Bytes of a name, as most file systems have it at most, less what a browser adds: ` (12)`, `.crdownload`.
const NAME_BYTES_MAX: usize = 200;
/// Bytes of an ending that is kept when a name is cut.
const ENDING_BYTES_MAX: usize = 20;
/// Names that are devices in Windows, whatever their ending.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A name to show and to save under: the last part of a path, without what could mislead a person or a file
/// system. Never empty. The server itself uses no name as a path.
pub fn safe_name(claimed: &str) -> String {
    let last = claimed.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last.chars().filter(|c| !misleads(*c)).map(plain).collect();
    // Windows drops dots and spaces at the end, and a dot at the front hides a file.
    let trimmed = kept.trim_start_matches(['.', ' ']).trim_end_matches(['.', ' ']);
    let cut = cut(trimmed);
    let stem = cut.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let is_port = (stem.starts_with("com") || stem.starts_with("lpt"))
        && stem.len() == 4
        && stem.ends_with(|c: char| c.is_ascii_digit());
    match cut.as_str() {
        "" => "file".to_owned(),
        _ if is_port || DEVICES.contains(&stem.as_str()) => format!("_{cut}"),
        _ => cut,
    }
}

/// Control characters, and those that turn the direction of text: `exe.gpj` must not read `jpg.exe`.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
        || matches!(c, '\u{61c}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Characters that mean something to a file system.
fn plain(c: char) -> char {
    if matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*') { '_' } else { c }
}

/// Shortens a name, and leaves its ending.
fn cut(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let ending = name.rfind('.').map_or("", |at| &name[at..]);
    let ending = if ending.len() <= ENDING_BYTES_MAX { ending } else { "" };
    let mut end = NAME_BYTES_MAX - ending.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", name[..end].trim_end_matches(['.', ' ']))
}

/// The value of `Content-Disposition` for a download under this name (RFC 6266): in ASCII for all, in UTF-8
/// (RFC 8187) for those who know it.
pub fn content_disposition(name: &str) -> String {
    let ascii: String =
        name.chars().map(|c| if matches!(c, ' '..='~' if c != '"' && c != '\\') { c } else { '_' }).collect();
    let mut value = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''");
    for byte in name.bytes() {
        // attr-char of RFC 8187 §3.2.1.
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            value.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(value, "%{byte:02X}");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_the_last_part_of_a_path_and_harmless() {
        for (claimed, safe) in [
            ("photo.jpg", "photo.jpg"),
            ("../../etc/passwd", "passwd"),
            ("..\\..\\windows\\system32\\cmd.exe", "cmd.exe"),
            ("C:\\fakepath\\cat.png", "cat.png"),
            ("/etc/", "file"),
            ("..", "file"),
            ("", "file"),
            (".bashrc", "bashrc"),
            ("a\0b\r\nSet-Cookie: x", "abSet-Cookie_ x"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("con.txt", "_con.txt"),
            ("COM1", "_COM1"),
            ("comet.txt", "comet.txt"),
            ("what? *now* \"x\".txt", "what_ _now_ _x_.txt"),
            ("Zoë’s 🙂.pdf", "Zoë’s 🙂.pdf"),
            ("trailing. . ", "trailing"),
        ] {
            assert_eq!(safe_name(claimed), safe, "{claimed:?}");
        }
    }

    #[test]
    fn a_long_name_keeps_its_ending() {
        let name = safe_name(&format!("{}.tar", "ü".repeat(500)));
        assert!(name.len() <= NAME_BYTES_MAX && name.ends_with("ü.tar"), "{name}");
        assert!(safe_name(&format!("a.{}", "b".repeat(500))).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn a_header_has_the_name_twice() {
        assert_eq!(
            content_disposition("Zoë \"x\".pdf"),
            "attachment; filename=\"Zo_ _x_.pdf\"; filename*=UTF-8''Zo%C3%AB%20%22x%22.pdf"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_claimed_the_name_is_safe_and_stays_so(claimed in ".{0,400}") {
            let name = safe_name(&claimed);
            prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX + 1);
            prop_assert!(!name.contains(['/', '\\', '\0', '\n']) && !name.starts_with('.'));
            prop_assert_eq!(safe_name(&name), name.clone());
            prop_assert!(content_disposition(&name).bytes().all(|b| (b' '..=b'~').contains(&b)));
        }
    }
}
