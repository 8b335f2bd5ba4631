//! Where parts and segments of a track end.
//!
//! Segments begin on a grid of [`SEGMENT_MS`] from the era's beginning, pictures with the key frame next to
//! it; so those of all tracks lie beside each other. A part is as long as [`PART_MS`] allows (RFC 8216bis
//! §4.4.3.7). Where media stops for longer than a part, or a key frame does not come, the era is over.

use super::{PART_MS, SEGMENT_MS, TARGET_S, Track};

/// A key frame so long before the grid will do.
const EARLY_MS: u64 = 100;
/// And so long after it is waited for: a segment stays below what rounds to [`TARGET_S`].
const LATE_MS: u64 = TARGET_S * 1_000 + 400 - SEGMENT_MS;
/// A key frame takes so long from being asked for.
const LEAD_MS: u64 = 70;
/// Between two requests for one.
const ASK_INTERVAL_MS: u64 = 300;

/// What ends before a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// A part ends before the frame that came last: its time was not known to be so long.
    pub before_last: bool,
    /// And one before this frame.
    pub here: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Part,
    Segment,
}

/// The era is over: all tracks begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("time went back")]
    Backward,
    #[error("media stopped for a while")]
    Gap,
    #[error("no key frame came")]
    NoKeyframe,
}

/// Cuts one track of one era. Times are in ticks of the track, from the era's beginning.
#[derive(Debug)]
pub struct Cutter {
    track: Track,
    /// Where the next segment begins.
    boundary: u64,
    part_began: u64,
    last: Option<u64>,
    asked: Option<u64>,
}

impl Cutter {
    pub fn new(track: Track) -> Self {
        Self { track, boundary: 0, part_began: 0, last: None, asked: None }
    }

    pub fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// A frame comes. The first must be a key frame.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn handle_frame(&mut self, at: u64, is_key: bool) -> Result<Cut, Broken> {
        let Some(last) = self.last.replace(at) else {
            self.part_began = at;
            self.advance(at);
            return Ok(Cut::default());
        };
        let span = at.checked_sub(last).filter(|span| *span > 0).ok_or(Broken::Backward)?;
        let part_max = self.ticks(PART_MS);
        if span > part_max {
            return Err(Broken::Gap);
        }
        let before_last = at - self.part_began > part_max;
        if before_last {
            self.part_began = last;
        }
        let early = if self.track == Track::Sound { span / 2 } else { self.ticks(EARLY_MS) };
        let here = if is_key && at + early >= self.boundary {
            self.advance(at);
            Some(End::Segment)
        } else if at >= self.boundary + self.ticks(LATE_MS) {
            return Err(Broken::NoKeyframe);
        } else {
            (at + span - self.part_began > part_max).then_some(End::Part)
        };
        if here.is_some() {
            self.part_began = at;
        }
        Ok(Cut { before_last, here })
    }

    /// Whether a key frame is to be asked for now, for the next segment to begin with.
    pub fn asks_for_key(&mut self) -> bool {
        let Some(at) = self.last.filter(|_| self.track != Track::Sound) else { return false };
        let is_due = at + self.ticks(LEAD_MS) >= self.boundary;
        let is_free = self.asked.is_none_or(|asked| at - asked >= self.ticks(ASK_INTERVAL_MS));
        let asks = is_due && is_free;
        if asks {
            self.asked = Some(at);
        }
        asks
    }

    /// To the grid's next place, a segment from `at` or nearly so.
    fn advance(&mut self, at: u64) {
        let segment = self.ticks(SEGMENT_MS);
        self.boundary = (at + segment / 2) / segment * segment + segment;
    }

    fn ticks(&self, ms: u64) -> u64 {
        ms * u64::from(self.track.timescale()) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 90_000;

    /// Seconds of each part, each with whether it ends its segment.
    fn parts(frames: impl IntoIterator<Item = (u64, bool)>) -> Result<Vec<(f64, bool)>, Broken> {
        let mut cutter = Cutter::new(Track::High);
        let (mut parts, mut began, mut last) = (Vec::new(), None, 0);
        for (at, is_key) in frames {
            let cut = cutter.handle_frame(at, is_key)?;
            let start = *began.get_or_insert(at);
            let mut start = start;
            if cut.before_last {
                parts.push(((last - start) as f64 / RATE as f64, false));
                start = last;
            }
            if let Some(end) = cut.here {
                parts.push(((at - start) as f64 / RATE as f64, end == End::Segment));
                start = at;
            }
            began = Some(start);
            last = at;
        }
        Ok(parts)
    }

    fn steady(fps: u64, seconds: u64) -> impl Iterator<Item = (u64, bool)> {
        (0..fps * seconds).map(move |index| (index * RATE / fps, index % (2 * fps) == 0))
    }

    #[test]
    fn parts_are_nearly_as_long_as_they_may_be_and_segments_lie_on_the_grid() {
        for fps in [15, 20, 24, 25, 30, 60] {
            let parts = parts(steady(fps, 20)).unwrap();
            let mut segment = 0.0;
            for (seconds, ends) in parts {
                assert!(seconds <= 0.5 + 1e-9 && (ends || seconds >= 0.425), "{fps}: {seconds}");
                segment += seconds;
                if ends {
                    assert!((segment - 2.0_f64).abs() < 1e-6, "{fps}: {segment}");
                    segment = 0.0;
                }
            }
        }
    }

    #[test]
    fn a_picture_that_stands_makes_no_part_too_long() {
        // 200 ms of pictures, one that stands for 450 ms, and on.
        let frames = (0..6).map(|index| (index * 3_000, index == 0));
        let frames = frames.chain((0..40).map(|index| (15_000 + 40_500 + index * 3_000, false)));
        let parts = parts(frames).unwrap();
        assert!(parts.iter().all(|(seconds, _)| *seconds <= 0.5), "{parts:?}");
        assert!((parts[0].0 - 15_000.0 / 90_000.0).abs() < 1e-9);
        assert!((parts[1].0 - 0.483_333).abs() < 1e-3 || (parts[1].0 - 0.45).abs() < 1e-9, "{parts:?}");
    }

    #[test]
    fn a_key_frame_need_not_be_on_the_grid_but_must_come() {
        let frames =
            |late: u64| steady(30, 10).map(move |(at, _)| (at, at == 0 || at == (60 + late) * 3_000));
        let ends: Vec<(f64, bool)> = parts(frames(3).take(80)).unwrap();
        let segment: f64 = ends.iter().take_while(|(_, ends)| !ends).map(|(seconds, _)| seconds).sum();
        assert!(segment < 2.1 && ends.iter().any(|(_, ends)| *ends));
        assert_eq!(parts(frames(1_000)), Err(Broken::NoKeyframe));
    }

    #[test]
    fn the_grid_is_kept_after_an_early_and_a_late_key_frame() {
        let mut cutter = Cutter::new(Track::High);
        let keys = [0, 58, 123, 180, 241];
        let mut began = Vec::new();
        for index in 0..300 {
            let cut = cutter.handle_frame(index * 3_000, keys.contains(&index)).unwrap();
            if cut.here == Some(End::Segment) {
                began.push(index);
            }
        }
        assert_eq!(began, keys[1..]);
    }

    #[test]
    fn a_jump_ends_the_era() {
        assert_eq!(parts([(0, true), (46_000, false)]), Err(Broken::Gap));
        assert_eq!(parts([(3_000, true), (3_000, false)]), Err(Broken::Backward));
        assert_eq!(parts([(3_000, true), (0, false)]), Err(Broken::Backward));
    }

    #[test]
    fn sound_is_cut_on_the_grid() {
        let mut cutter = Cutter::new(Track::Sound);
        let mut began = Vec::new();
        for index in 0..600 {
            let cut = cutter.handle_frame(index * 1_024, true).unwrap();
            assert!(!cut.before_last);
            if cut.here == Some(End::Segment) {
                began.push(index);
            }
        }
        assert_eq!(began, [94, 187, 281, 375, 469, 562]);
        assert!(!cutter.asks_for_key());
    }

    #[test]
    fn a_key_frame_is_asked_for_before_the_grid_and_again_while_none_comes() {
        let mut cutter = Cutter::new(Track::Low);
        let mut asked = Vec::new();
        for index in 0..80 {
            cutter.handle_frame(index * 3_000, index == 0).unwrap();
            if cutter.asks_for_key() {
                asked.push(index);
            }
        }
        assert_eq!(asked, [58, 67, 76]);
    }
}
