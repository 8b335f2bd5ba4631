//! Sources that an offer names beforehand (RFC 5576): a peer whose packets do not say which line they belong
//! to is understood by them.

use crate::core::track::PublishedLine;

/// More than any peer names: a stream and its repair for each encoding of each line.
const DECLARED_MAX: usize = 256;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    pub ssrc: u32,
    /// Index of the line.
    pub line: u8,
    /// Of its line's sources, those that repair others not counted.
    pub encoding: u8,
    /// Carries resends (RFC 4588) of what it is grouped with.
    pub repairs: bool,
}

/// The sources of the lines that the peer sends on.
pub fn declared(offer: &str, lines: &[PublishedLine]) -> Vec<Declared> {
    let mut all = Vec::new();
    for section in offer.split("\nm=").skip(1) {
        let attribute = |name: &str| section.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mid = attribute("a=mid:").unwrap_or_default();
        let Some(line) = lines.iter().position(|line| *line.mid == *mid) else { continue };
        let groups = section.lines().filter_map(|line| line.strip_prefix("a=ssrc-group:FID "));
        let pairs: Vec<(u32, u32)> = groups.filter_map(pair).collect();
        let named = section.lines().filter_map(|line| line.strip_prefix("a=ssrc:"));
        let named = named.filter_map(|line| line.split(' ').next()?.trim().parse::<u32>().ok());
        let grouped = pairs.iter().map(|(ssrc, _)| *ssrc);
        let mut ssrcs: Vec<u32> = Vec::new();
        for ssrc in grouped.chain(named).take(DECLARED_MAX) {
            if !ssrcs.contains(&ssrc) && !pairs.iter().any(|(_, repair)| *repair == ssrc) {
                ssrcs.push(ssrc);
            }
        }
        let encodings = lines[line].rids.len().max(1);
        for (encoding, ssrc) in ssrcs.into_iter().take(encodings).enumerate() {
            let source =
                |ssrc, repairs| Declared { ssrc, line: line as u8, encoding: encoding as u8, repairs };
            all.push(source(ssrc, false));
            all.extend(pairs.iter().find(|(of, _)| *of == ssrc).map(|(_, repair)| source(*repair, true)));
        }
    }
    all.truncate(DECLARED_MAX);
    all
}

fn pair(group: &str) -> Option<(u32, u32)> {
    let mut ssrcs = group.split_whitespace().map(str::parse::<u32>);
    Some((ssrcs.next()?.ok()?, ssrcs.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::protocol::Kind;

    #[test]
    fn sources_and_their_repairs_are_found_on_the_lines_that_are_sent_on() {
        let offer = "v=0\r\nm=audio 9 X 111\r\na=mid:0\r\na=ssrc:11 cname:a\r\na=ssrc:11 msid:a b\r\n\
                     m=video 9 X 96\r\na=mid:1\r\na=ssrc-group:FID 21 22\r\na=ssrc:22 cname:a\r\n\
                     a=ssrc:21 cname:a\r\nm=video 9 X 96\r\na=mid:2\r\na=ssrc:31 cname:a\r\n\
                     m=audio 9 X 111\r\na=mid:3\r\na=ssrc:nonsense\r\na=ssrc-group:FID 1\r\n";
        let line = |mid: &str, kind| PublishedLine { mid: mid.into(), kind, rids: Vec::new() };
        let lines = [line("0", Kind::Audio), line("1", Kind::Video), line("3", Kind::Audio)];
        let source = |ssrc, line, repairs| Declared { ssrc, line, encoding: 0, repairs };
        let expected = [source(11, 0, false), source(21, 1, false), source(22, 1, true)];
        assert_eq!(declared(offer, &lines), expected);
    }
}
