//! The ring of one track's segments and parts, as playlists list them and players fetch them.
//!
//! Bounded: what left the playlist stays as long again (RFC 8216bis §6.2.2), then it is gone. Sequence
//! numbers count segments of this track, so those of tracks may differ; eras are those of the stream.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Init, Part, Track};

/// Segments that a playlist lists, beside the one that grows. Six target durations, for playlist deltas, and
/// one more (RFC 8216bis §4.4.3.8).
pub const LISTED: usize = 11;
/// Segments that are kept after they left the playlist.
pub const KEPT: usize = LISTED;
/// Bytes of one track. Full: the oldest segments go early. Three times what a full picture takes.
const BYTES_MAX: usize = 48 << 20;
/// A segment with more parts is cut: no honest one has.
const PARTS_MAX: usize = 64;

/// A part that is there.
#[derive(Debug, Clone)]
pub struct Stored {
    pub part: Part,
    pub bytes: Bytes,
}

#[derive(Debug, Clone)]
pub struct Segment {
    /// Its media sequence number.
    pub number: u64,
    pub era: u32,
    /// Eras that began with it.
    pub jumps: u32,
    pub parts: Vec<Stored>,
    /// Nothing is added any more.
    pub is_whole: bool,
}

impl Segment {
    pub fn seconds(&self) -> f64 {
        self.parts.iter().map(|stored| stored.part.seconds()).sum()
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|stored| stored.bytes.len()).sum()
    }

    pub fn captured_us(&self) -> i64 {
        self.parts.first().map_or(0, |stored| stored.part.captured_us)
    }
}

/// What became of something that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    Here(T),
    /// It is the next that comes.
    Soon,
    /// It was there.
    Gone,
    Unknown,
}

/// The ring of a track.
#[derive(Debug)]
pub struct Shelf {
    pub track: Track,
    segments: VecDeque<Segment>,
    inits: BTreeMap<u32, (Init, Bytes)>,
    next_number: u64,
    bytes: usize,
    newest_era: u32,
}

impl Shelf {
    pub fn new(track: Track) -> Self {
        let (segments, inits) = (VecDeque::new(), BTreeMap::new());
        Self { track, segments, inits, next_number: 0, bytes: 0, newest_era: 0 }
    }

    /// What parts of an era begin with.
    pub fn put_init(&mut self, init: Init, bytes: Bytes) {
        self.inits.insert(init.era, (init, bytes));
    }

    /// Adds the part that comes next.
    pub fn put(&mut self, part: Part, bytes: Bytes) {
        let is_new = part.begins
            || self
                .segments
                .back()
                .is_none_or(|last| last.is_whole || last.era != part.era || last.parts.len() >= PARTS_MAX);
        if is_new {
            self.close();
            let jumps = part.era.saturating_sub(self.newest_era);
            self.newest_era = self.newest_era.max(part.era);
            let number = self.next_number;
            self.next_number += 1;
            let segment = Segment { number, era: part.era, jumps, parts: Vec::new(), is_whole: false };
            self.segments.push_back(segment);
        }
        self.bytes += bytes.len();
        if let Some(segment) = self.segments.back_mut() {
            segment.is_whole = part.ends;
            segment.parts.push(Stored { part, bytes });
        }
        while self.segments.len() > LISTED + KEPT + 1 || self.bytes > BYTES_MAX && self.segments.len() > 1 {
            self.bytes -= self.segments.pop_front().map_or(0, |segment| segment.bytes());
        }
        let oldest = self.segments.front().map_or(0, |segment| segment.era);
        self.inits.retain(|era, _| *era >= oldest);
    }

    /// The segment that grows is over, whatever it lacks.
    pub fn close(&mut self) {
        if let Some(last) = self.segments.back_mut() {
            last.is_whole = true;
        }
    }

    /// Where players are: the number of the segment that grows, and how many parts it has.
    pub fn edge(&self) -> (u64, usize) {
        match self.segments.back() {
            Some(last) if !last.is_whole => (last.number, last.parts.len()),
            _ => (self.next_number, 0),
        }
    }

    /// The newest part: of which segment, and which.
    pub fn newest(&self) -> Option<(u64, usize)> {
        let last = self.segments.back()?;
        Some((last.number, last.parts.len().checked_sub(1)?))
    }

    /// What a playlist lists, oldest first.
    pub fn listed(&self) -> impl Iterator<Item = &Segment> {
        let growing = usize::from(self.segments.back().is_some_and(|last| !last.is_whole));
        let skip = self.segments.len().saturating_sub(LISTED + growing);
        self.segments.iter().skip(skip)
    }

    pub fn init(&self, era: u32) -> Option<&(Init, Bytes)> {
        self.inits.get(&era)
    }

    /// What the newest parts begin with.
    pub fn newest_init(&self) -> Option<&Init> {
        self.inits.last_key_value().map(|(_, (init, _))| init)
    }

    /// A whole segment.
    pub fn segment(&self, number: u64) -> Found<&Segment> {
        match self.find(number) {
            Some(segment) if segment.is_whole => Found::Here(segment),
            Some(_) => Found::Soon,
            None => self.absent(number),
        }
    }

    pub fn part(&self, number: u64, index: usize) -> Found<&Stored> {
        let Some(segment) = self.find(number) else {
            return if (number, index) == self.edge() { Found::Soon } else { self.absent(number) };
        };
        match segment.parts.get(index) {
            Some(stored) => Found::Here(stored),
            None if (number, index) == self.edge() => Found::Soon,
            None => Found::Unknown,
        }
    }

    fn absent<T>(&self, number: u64) -> Found<T> {
        if number < self.next_number { Found::Gone } else { Found::Unknown }
    }

    fn find(&self, number: u64) -> Option<&Segment> {
        let first = self.segments.front()?.number;
        self.segments.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A part of half a second, of a sixth of what a segment of two has.
    pub fn part(era: u32, begins: bool, ends: bool) -> Part {
        let (track, duration) = (Track::High, 45_000);
        Part { track, era, begins, ends, independent: begins, duration, captured_us: 1_000, bytes: 4 }
    }

    /// So many segments of four parts, and one that grows.
    pub fn filled(segments: u64, parts_of_last: usize) -> Shelf {
        let mut shelf = Shelf::new(Track::High);
        let codec = "avc1.42e01f".to_owned();
        let init = Init { track: Track::High, era: 0, codec, size: Some((1_280, 720)), bytes: 4 };
        shelf.put_init(init, Bytes::from_static(b"init"));
        for number in 0..segments * 4 + parts_of_last as u64 {
            let mut part = part(0, number % 4 == 0, number % 4 == 3);
            part.captured_us = number as i64 * 500_000;
            shelf.put(part, Bytes::from(number.to_string().into_bytes()));
        }
        shelf
    }

    #[test]
    fn parts_become_segments_and_the_oldest_go() {
        let shelf = filled(40, 2);
        let listed: Vec<u64> = shelf.listed().map(|segment| segment.number).collect();
        assert_eq!((listed[0], *listed.last().unwrap(), listed.len()), (29, 40, LISTED + 1));
        assert_eq!(shelf.edge(), (40, 2));
        assert!(matches!(shelf.segment(18), Found::Here(segment) if segment.seconds() == 2.0));
        assert!(matches!(shelf.segment(17), Found::Gone));
        assert!(matches!(shelf.segment(40), Found::Soon));
        assert!(matches!(shelf.segment(41), Found::Unknown));
        assert!(matches!(shelf.part(40, 1), Found::Here(stored) if stored.bytes == b"161"[..]));
        assert!(matches!(shelf.part(40, 2), Found::Soon));
        assert!(matches!(shelf.part(40, 3), Found::Unknown));
        assert!(matches!(shelf.part(39, 4), Found::Unknown));
        assert!(matches!(shelf.part(3, 0), Found::Gone));
    }

    #[test]
    fn between_two_segments_the_next_one_is_awaited() {
        let shelf = filled(2, 0);
        assert_eq!((shelf.edge(), shelf.newest()), ((2, 0), Some((1, 3))));
        assert!(matches!(shelf.part(2, 0), Found::Soon));
    }

    #[test]
    fn a_new_era_begins_a_segment_and_says_how_many_went_before() {
        let mut shelf = filled(1, 2);
        shelf.put(part(2, false, false), Bytes::new());
        let last = shelf.listed().last().unwrap();
        assert_eq!((last.number, last.era, last.jumps), (2, 2, 2));
        let before = shelf.listed().nth(1).unwrap();
        assert!(before.is_whole && before.parts.len() == 2);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut shelf = Shelf::new(Track::High);
        let bytes = Bytes::from(vec![0; 4 << 20]);
        for number in 0..100 {
            shelf.put(part(0, number % 4 == 0, number % 4 == 3), bytes.clone());
        }
        let held: usize = shelf.segments.iter().map(Segment::bytes).sum();
        assert!(held == shelf.bytes && held <= BYTES_MAX, "{held}");
        for _ in 0..1_000 {
            shelf.put(part(0, false, false), Bytes::new());
        }
        assert!(shelf.segments.iter().all(|segment| segment.parts.len() <= PARTS_MAX));
    }
}
