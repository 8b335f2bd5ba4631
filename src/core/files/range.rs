//! Which part of a file a request wants (RFC 9110 §14).

use std::ops::Range;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// 206 with these bytes.
    Some(Range<u64>),
    /// 416: begins beyond the end.
    Unsatisfiable,
}

/// Reads a `Range` header. What is not understood, and more than one range, is answered with the whole, as
/// §14.2 allows.
pub fn requested_part(header: Option<&str>, size: u64) -> Part {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Part::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else { return Part::Whole };
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if last < first => Part::Whole,
        (Some(first), _) if first >= size => Part::Unsatisfiable,
        (Some(first), Some(last)) => Part::Some(first..last.saturating_add(1).min(size)),
        (Some(first), None) if last.trim().is_empty() => Part::Some(first..size),
        (None, Some(0)) if first.trim().is_empty() => Part::Unsatisfiable,
        (None, Some(_)) if first.trim().is_empty() && size == 0 => Part::Unsatisfiable,
        (None, Some(suffix)) if first.trim().is_empty() => Part::Some(size.saturating_sub(suffix)..size),
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_as_rfc_9110_has_it() {
        let part = |header| requested_part(Some(header), 100);
        assert_eq!(requested_part(None, 100), Part::Whole);
        assert_eq!(part("bytes=0-9"), Part::Some(0..10));
        assert_eq!(part("bytes=90-"), Part::Some(90..100));
        assert_eq!(part("bytes=90-1000"), Part::Some(90..100));
        assert_eq!(part("bytes=-5"), Part::Some(95..100));
        assert_eq!(part("bytes=-500"), Part::Some(0..100));
        assert_eq!(part("bytes=100-"), Part::Unsatisfiable);
        assert_eq!(part("bytes=-0"), Part::Unsatisfiable);
        for odd in
            ["bytes=5-4", "bytes=0-1,5-6", "items=0-1", "bytes=x-1", "bytes=", "bytes=+1-2", "bytes=1-x"]
        {
            assert_eq!(part(odd), Part::Whole, "{odd}");
        }
        assert_eq!(requested_part(Some("bytes=0-"), 0), Part::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_is_within_its_file(header in "bytes=[0-9,x-]{0,24}", size in 0u64..1_000) {
            if let Part::Some(range) = requested_part(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
