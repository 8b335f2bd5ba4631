//! A voice's queue under drift, jitter, loss and floods, heard through a sine: what clicks, jumps.

use super::*;

const AMPLITUDE: f64 = 10_000.0;
/// Frames of one turn of the sine: 400 Hz.
const TURN: usize = 120;
/// Between neighbours of the sine itself: 524. Squeezing and rounding add a little, fades some more.
const JUMP_MAX: i32 = 650;

/// A sender of a sine.
struct Sender {
    /// Whole turns, so that all packets are the same.
    packet: Vec<Frame>,
    sent: usize,
}

impl Sender {
    fn new() -> Self {
        let angle = |at: usize| at as f64 * std::f64::consts::TAU / TURN as f64;
        let sample = |at| (AMPLITUDE * angle(at).sin()).round() as i16;
        Self { packet: (0..FRAMES).map(|at| [sample(at), -sample(at)]).collect(), sent: 0 }
    }

    fn next(&mut self) -> &[Frame] {
        self.sent += FRAMES;
        &self.packet
    }
}

/// What listens: the sharpest jump so far, from one frame to the next or between the channels.
struct Ear {
    last: i32,
    jump: i32,
    dry: u32,
}

impl Ear {
    fn new() -> Self {
        Self { last: 0, jump: 0, dry: 0 }
    }

    fn hear(&mut self, queue: &mut VoiceQueue) -> bool {
        let mut block = [1; FRAMES * CHANNELS];
        let was_playing = queue.is_playing;
        let heard = queue.pull(&mut block);
        for &[left, right] in block.as_chunks().0 {
            let now = i32::from(left);
            self.jump = self.jump.max((now - self.last).abs()).max((now + i32::from(right)).abs());
            self.last = now;
        }
        self.dry += u32::from(was_playing && !queue.is_playing);
        heard
    }
}

/// A sender whose clock is `ppm` fast, for so many ticks: the depths seen before pulls, least and most.
fn drift(ppm: f64, ticks: u32) -> (usize, usize) {
    let (mut queue, mut sender, mut ear) = (VoiceQueue::default(), Sender::new(), Ear::new());
    let (mut least, mut most) = (usize::MAX, 0);
    for tick in 0..ticks {
        let sent_frames = (f64::from(tick + 3) * FRAMES as f64 * (1.0 + ppm / 1e6)) as usize;
        while sender.sent + FRAMES <= sent_frames {
            queue.push(sender.next());
        }
        let depth = queue.frames.len();
        assert!(ear.hear(&mut queue));
        (least, most) = (least.min(depth), most.max(depth));
    }
    assert_eq!(ear.dry, 0);
    assert!(ear.jump < JUMP_MAX, "a click of {} at {ppm} ppm", ear.jump);
    (least, most)
}

#[test]
fn drift_is_absorbed_without_a_click() {
    let (ten_minutes, one_minute) = (30_000, 3_000);
    for (ppm, ticks) in [(-200.0, ten_minutes), (200.0, ten_minutes), (0.0, one_minute), (900.0, one_minute)]
    {
        let (least, most) = drift(ppm, ticks);
        assert!(least >= FRAMES && most <= 4 * FRAMES, "{ppm} ppm: {least} to {most}");
    }
}

#[test]
fn what_comes_evenly_passes_bit_for_bit() {
    let (mut queue, mut sender, mut twin) = (VoiceQueue::default(), Sender::new(), Sender::new());
    queue.push(sender.next());
    let mut block = [0; FRAMES * CHANNELS];
    assert!(!queue.pull(&mut block), "it fills up first");
    for tick in 0..50 {
        queue.push(sender.next());
        assert!(queue.pull(&mut block));
        let expected = twin.next().as_flattened();
        let faded = if tick == 0 { FADE * CHANNELS } else { 0 };
        assert_eq!(block[faded..], expected[faded..]);
    }
}

#[test]
fn jitter_of_a_packet_or_two_is_not_heard() {
    let (mut queue, mut sender, mut ear) = (VoiceQueue::default(), Sender::new(), Ear::new());
    let mut late = 0;
    let mut random = 12_345_u32;
    for tick in 0..5_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        late += 1;
        // A packet that waits comes with the next one: up to 40 ms of jitter, the bulk of it at once.
        if random >> 30 != 0 || late > 1 {
            (0..late).for_each(|_| queue.push(sender.next()));
            late = 0;
        }
        ear.hear(&mut queue);
        assert!(queue.frames.len() <= 5 * FRAMES, "tick {tick}");
    }
    assert!(ear.dry <= 1, "it ran dry {} times", ear.dry);
    assert!(ear.jump < JUMP_MAX, "a click of {}", ear.jump);
}

#[test]
fn it_fades_when_dry_and_waits_for_the_target() {
    for left in [0, 1, 100, FADE, 700, FRAMES - 1] {
        let (mut queue, mut sender, mut ear) = (VoiceQueue::default(), Sender::new(), Ear::new());
        queue.push(sender.next());
        queue.push(sender.next());
        queue.push(&sender.next()[..left]);
        assert!(ear.hear(&mut queue) && ear.hear(&mut queue) && ear.hear(&mut queue));
        assert_eq!((ear.last, ear.dry), (0, 1));
        assert!(!ear.hear(&mut queue));
        queue.push(sender.next());
        assert!(!ear.hear(&mut queue), "20 ms are too little to begin with");
        queue.push(sender.next());
        assert!(ear.hear(&mut queue));
        assert!(ear.jump < JUMP_MAX, "a click of {} with {left} left", ear.jump);
    }
}

/// A queue, who speaks into it or is silent, and who listens.
struct Talk {
    queue: VoiceQueue,
    sender: Sender,
    ear: Ear,
    speaks: bool,
}

impl Talk {
    fn new(speaks: bool) -> Self {
        Self { queue: VoiceQueue::default(), sender: Sender::new(), ear: Ear::new(), speaks }
    }

    /// The mean depth after so many ticks in which it was to be held for so many frames.
    fn hold(&mut self, held: usize, ticks: usize) -> usize {
        self.queue.hold(held);
        for tick in 0..ticks {
            let frames = if self.speaks { self.sender.next().to_vec() } else { vec![[1, -1]; FRAMES] };
            self.queue.push(&frames);
            assert!(self.ear.hear(&mut self.queue) || tick < 8, "tick {tick}");
        }
        assert_eq!(self.ear.dry, 0);
        assert!(self.ear.jump < JUMP_MAX, "a click of {}", self.ear.jump);
        self.queue.delay().unwrap().0
    }
}

#[test]
fn sound_is_held_for_its_picture_quickly_in_silence_and_unheard_while_somebody_speaks() {
    let is_near = |depth: usize, held: usize| depth.abs_diff(TARGET + SLACK as usize + held) <= FRAMES;
    let hold = 5 * FRAMES;
    for (speaks, ticks) in [(false, 25), (true, 1_500)] {
        let mut talk = Talk::new(speaks);
        for (held, ticks) in [(0, 50), (hold, ticks), (0, ticks)] {
            let depth = talk.hold(held, ticks);
            assert!(is_near(depth, held), "{depth} of {held}, speaks: {speaks}");
        }
    }
    // One that begins has it from the start.
    let mut talk = Talk::new(true);
    let depth = talk.hold(hold, 20);
    assert!(is_near(depth, hold), "{depth}");
    assert_eq!(talk.queue.delay().unwrap().1, TARGET + SLACK as usize);
}

#[test]
fn a_flood_is_dropped_down_to_the_target() {
    let (mut queue, mut sender, mut ear) = (VoiceQueue::default(), Sender::new(), Ear::new());
    (0..2).for_each(|_| queue.push(sender.next()));
    ear.hear(&mut queue);
    for _ in 0..100 {
        queue.push(sender.next());
        assert!(queue.frames.len() <= BOUND);
    }
    while ear.hear(&mut queue) {}
    assert!(ear.jump < 2 * JUMP_MAX, "a click of {}", ear.jump);
    (0..11).for_each(|_| queue.push(sender.next()));
    assert_eq!(queue.frames.len(), TARGET);
}
