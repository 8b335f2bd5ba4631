//! Where parts and segments of a track end.
//!
//! Segments begin on a grid of [`SEGMENT_MS`] from the era's beginning, pictures with the key frame next to
//! it; so those of all tracks lie beside each other. A part is as long as [`PART_MS`] allows, and if it is
//! not its segment's last no shorter than 85 % of that (RFC 8216bis §4.4.4.9). A mixer that is short of
//! time sends pictures so far apart that none begins where a part may end: then one of the two beside that
//! place is moved there, by less than half of what lies between them. A picture that comes later than a
//! part may last is shown that much too soon. Where media stops for longer than [`GAP_MAX_MS`], or a key
//! frame does not come, the era is over.

use super::{PART_MS, SEGMENT_MS, TARGET_S, Track};

/// A part that is not the last of its segment is as long, with a little to spare.
const PART_MIN_MS: u64 = PART_MS * 86 / 100;
/// Pictures may be so far apart. Sound has no gaps: what makes it waits for more or fills them.
const GAP_MAX_MS: u64 = 1_000;
/// No picture is shown so much sooner than it was: those that come one a second end the era all the same.
const SOONER_MAX_MS: u64 = 750;
/// A key frame so long before the grid will do.
const EARLY_MS: u64 = 100;
/// And so long after it is waited for.
const LATE_MS: u64 = 1_400;
/// No segment is as long: what is shorter rounds to no more than [`TARGET_S`], with its last frame.
const SEGMENT_MAX_MS: u64 = TARGET_S * 1_000 + 400;
/// A key frame takes so long from being asked for.
const LEAD_MS: u64 = 70;
/// Between two requests for one.
const ASK_INTERVAL_MS: u64 = 300;

/// Where a frame is, and what ends before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Mostly where it came.
    pub at: u64,
    /// The frame that came last was moved there.
    pub last: Option<u64>,
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
    segment_began: u64,
    part_began: u64,
    last: Option<u64>,
    /// Where that was before it was moved.
    last_came: u64,
    asked: Option<u64>,
}

impl Cutter {
    pub fn new(track: Track) -> Self {
        Self { track, boundary: 0, segment_began: 0, part_began: 0, last: None, last_came: 0, asked: None }
    }

    pub fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// A frame comes. The first must be a key frame.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn handle_frame(&mut self, at: u64, is_key: bool) -> Result<Cut, Broken> {
        let came_before = std::mem::replace(&mut self.last_came, at);
        let Some(mut last) = self.last else {
            (self.part_began, self.last) = (at, Some(at));
            self.advance(at);
            return Ok(Cut { at, last: None, before_last: false, here: None });
        };
        let part_max = self.ticks(PART_MS);
        let gap_max = if self.track == Track::Sound { part_max } else { self.ticks(GAP_MAX_MS) };
        match at.checked_sub(came_before) {
            None | Some(0) => return Err(Broken::Backward),
            Some(span) if span > gap_max => return Err(Broken::Gap),
            Some(_) => {}
        }
        let came = at;
        let (at, moved) = self.fit(last, at.min(last + part_max));
        if came > at + self.ticks(SOONER_MAX_MS) {
            return Err(Broken::Gap);
        }
        last = moved.unwrap_or(last);
        self.last = Some(at);
        if at >= self.segment_began + self.ticks(SEGMENT_MAX_MS) {
            return Err(Broken::NoKeyframe);
        }
        let span = at - last;
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
            let is_long = at - self.part_began >= self.ticks(PART_MIN_MS);
            (is_long && at + span - self.part_began > part_max).then_some(End::Part)
        };
        if here.is_some() {
            self.part_began = at;
        }
        Ok(Cut { at, last: moved, before_last, here })
    }

    /// Where a frame at `at` is put, and the last one if that moves, so that the part can end before one of
    /// them.
    fn fit(&self, last: u64, at: u64) -> (u64, Option<u64>) {
        let shortest = self.part_began + self.ticks(PART_MIN_MS);
        let longest = self.part_began + self.ticks(PART_MS);
        if at <= longest || last >= shortest {
            return (at, None);
        }
        if shortest - last <= at - longest { (at, Some(shortest)) } else { (longest, None) }
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

    /// To the grid's next place, which is nearer where this segment begins late.
    fn advance(&mut self, at: u64) {
        let segment = self.ticks(SEGMENT_MS);
        self.segment_began = at;
        self.boundary = (at + segment / 4) / segment * segment + segment;
    }

    fn ticks(&self, ms: u64) -> u64 {
        ms * u64::from(self.track.timescale()) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u64 = 90_000;

    /// Seconds of each part, each with whether it ends its segment.
    fn parts(frames: impl IntoIterator<Item = (u64, bool)>) -> Result<Vec<(f64, bool)>, Broken> {
        let mut cutter = Cutter::new(Track::High);
        let (mut parts, mut began, mut last) = (Vec::new(), None, 0);
        for (at, is_key) in frames {
            let cut = cutter.handle_frame(at, is_key)?;
            let at = cut.at;
            last = cut.last.unwrap_or(last);
            let mut start = *began.get_or_insert(at);
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
        assert!(parts.iter().all(|(seconds, _)| *seconds >= 0.425), "{parts:?}");
        assert!(
            (parts[0].0 - 0.5).abs() < 1e-9,
            "the picture that came 117 ms too late for it begins the next"
        );
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
        assert_eq!(parts([(0, true), (91_000, false)]), Err(Broken::Gap));
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

    /// What a mixer short of time sends: pictures at half their rate, late ones, stalls; key frames some time
    /// after they are asked for.
    fn pressed() -> impl Strategy<Value = (Vec<u64>, Vec<u64>)> {
        let span = prop_oneof![
            4 => Just(33_u64), 4 => Just(66), 3 => 1..100_u64, 2 => 75..260_u64, 1 => 250..=GAP_MAX_MS
        ];
        (prop::collection::vec(span, 50..400), prop::collection::vec(0..900_u64, 1..20))
    }

    proptest! {
        #[test]
        fn every_part_is_as_long_as_a_validator_wants_it((spans, delays) in pressed()) {
            let mut cutter = Cutter::new(Track::High);
            let mut delays = delays.iter().cycle();
            let (mut at, mut due, mut times) = (0, None, Vec::<u64>::new());
            let (mut part, mut segment) = (0, 0);
            for span_ms in spans {
                let is_key = times.is_empty() || due.is_some_and(|due| at >= due);
                due = due.filter(|_| !is_key);
                let Ok(cut) = cutter.handle_frame(at, is_key) else { return Ok(()) };
                if let Some((moved, last)) = cut.last.zip(times.last_mut()) {
                    prop_assert!(*last > part && moved > *last);
                    *last = moved;
                }
                let [.., last] = times[..] else {
                    times.push(cut.at);
                    at += span_ms * 90;
                    continue;
                };
                prop_assert!(cut.at > last, "times only rise");
                let off = cut.at.abs_diff(at).max(cut.last.map_or(0, |moved| moved.abs_diff(last)));
                prop_assert!(off <= SOONER_MAX_MS * 90, "moved by {} ms", off / 90);
                let mut ends = |to: u64, is_last: bool| -> Result<(), TestCaseError> {
                    let length = to - std::mem::replace(&mut part, to);
                    prop_assert!(length <= PART_MS * 90, "{} ms", length / 90);
                    prop_assert!(is_last || length * 100 >= PART_MS * 90 * 85, "{} ms", length / 90);
                    Ok(())
                };
                if cut.before_last {
                    ends(last, false)?;
                }
                if let Some(end) = cut.here {
                    ends(cut.at, end == End::Segment)?;
                    if end == End::Segment {
                        let length = cut.at - std::mem::replace(&mut segment, cut.at);
                        prop_assert!(length < TARGET_S * 90_000 + 45_000, "{} ms", length / 90);
                    }
                }
                times.push(cut.at);
                if cutter.asks_for_key() {
                    due = due.or(Some(at + delays.next().copied().unwrap_or(0) * 90));
                }
                at += span_ms * 90;
            }
        }
    }
}
