//! What a file is, by its first bytes. A name or a claimed type is never believed.

/// As many bytes are looked at.
pub const SNIFFED_BYTES: usize = 8 * 1024;

const UNKNOWN: &str = "application/octet-stream";

/// The media type of a file that begins so.
pub fn sniff(head: &[u8]) -> &'static str {
    let head = &head[..head.len().min(SNIFFED_BYTES)];
    match text(head) {
        Some(kind) => kind,
        None => infer::get(head).map_or(UNKNOWN, |kind| kind.mime_type()),
    }
}

/// Text is told from binary by its bytes, and what browsers would run by its tags.
fn text(head: &[u8]) -> Option<&'static str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // Cut within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if text.is_empty() || text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}')) {
        return None;
    }
    let lower = text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    let tagged = |tags: &[&str]| tags.iter().any(|tag| lower.contains(tag));
    if lower.starts_with("%pdf-") {
        Some("application/pdf")
    } else if lower.starts_with('<') && tagged(&["<svg"]) {
        Some("image/svg+xml")
    } else if lower.starts_with('<')
        && tagged(&["<html", "<!doctype html", "<script", "<body", "<iframe", "<a "])
    {
        Some("text/html")
    } else if lower.starts_with("<?xml") {
        Some("text/xml")
    } else {
        Some("text/plain")
    }
}

/// What is shown as a picture, sound or video, once a process of its own has looked into it. What browsers
/// would run, and what only a large library reads, is not.
pub fn is_probed(media_type: &str) -> bool {
    const PICTURES: [&str; 6] =
        ["image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff"];
    PICTURES.contains(&media_type) || media_type.starts_with("video/") || media_type.starts_with("audio/")
}

/// The `Content-Type` of a download. What a browser might run in the page's origin goes out as bytes.
pub fn served_type(media_type: &str) -> &str {
    match media_type {
        "text/plain" => "text/plain; charset=utf-8",
        "application/pdf" => media_type,
        _ if is_probed(media_type) => media_type,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn contents_decide() {
        for (head, kind) in [
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), "image/png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
            (b"PK\x03\x04\x14\0\0\0\x08\0", "application/zip"),
            (b"%PDF-1.7\n", "application/pdf"),
            (b"hello, all\n", "text/plain"),
            (b"<p>hello <svg onload=alert(1)>", "image/svg+xml"),
            (
                b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"><script/></svg>",
                "image/svg+xml",
            ),
            (b"\n <!DOCTYPE html><script>alert(1)</script>", "text/html"),
            (b"<?xml version=\"1.0\"?><a/>", "text/xml"),
            (b"\0\x01\x02\x03", UNKNOWN),
            (b"", UNKNOWN),
        ] {
            assert_eq!(sniff(head), kind, "{head:?}");
        }
    }

    #[test]
    fn what_a_browser_runs_goes_out_as_bytes() {
        for kind in ["text/html", "image/svg+xml", "text/xml", "application/javascript", "application/zip"] {
            assert_eq!(served_type(kind), UNKNOWN);
            assert!(!is_probed(kind));
        }
        assert_eq!(served_type("video/mp4"), "video/mp4");
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_type(head in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(sniff(&head).contains('/'));
        }
    }
}
