//! Synthetic conversations, in virtual time.

use super::*;

/// What one participant does for a while.
#[derive(Clone, Copy)]
enum Sound {
    /// Speech at this level in -dBov, with the short dips of syllables and a breath every two seconds.
    Talk(u8),
    /// Constant noise.
    Noise(u8),
    Silence,
}

impl Sound {
    fn level(self, ms: u64) -> u8 {
        match self {
            Self::Talk(_) if ms % 2_000 < 260 => 68,
            Self::Talk(_) if ms % 240 < 40 => 60,
            Self::Talk(level) => level + (ms / 20 % 5) as u8,
            Self::Noise(level) => level + (ms / 20 % 3) as u8,
            Self::Silence => 75,
        }
    }
}

struct Room {
    speakers: Speakers<u32>,
    now: Instant,
    begin: Instant,
    changes: Vec<(u64, Option<u32>)>,
}

impl Room {
    fn new(slots: usize) -> Self {
        let now = Instant::now();
        Self { speakers: Speakers::new(slots), now, begin: now, changes: Vec::new() }
    }

    fn at_ms(&self) -> u64 {
        (self.now - self.begin).as_millis() as u64
    }

    /// Everyone's packets for some time; gives when each was first heard, from the start of this stretch.
    fn run(&mut self, ms: u64, sounds: &[(u32, Sound)]) -> BTreeMap<u32, u64> {
        let mut heard = BTreeMap::new();
        for at in (0..ms).step_by(20) {
            self.now += Duration::from_millis(20);
            for &(key, sound) in sounds {
                // Each talker breathes at a time of its own.
                let level = sound.level(self.at_ms() + u64::from(key) * 700);
                if self.speakers.handle_level(self.now, key, level, Some(true)) {
                    heard.entry(key).or_insert(at);
                }
            }
            if let Some(change) = self.speakers.poll(self.now) {
                self.changes.push((self.at_ms(), change.to));
            }
        }
        heard
    }

    fn speakers_so_far(&self) -> Vec<Option<u32>> {
        self.changes.iter().map(|(_, key)| *key).collect()
    }
}

use Sound::{Noise, Silence, Talk};

#[test]
fn turns_are_followed_within_a_second_and_a_half() {
    let mut room = Room::new(3);
    room.run(4_000, &[(1, Talk(25)), (2, Silence)]);
    assert!(room.changes[0].0 < 1_000, "{:?}", room.changes);
    room.run(4_000, &[(1, Silence), (2, Talk(30))]);
    room.run(4_000, &[(1, Talk(25)), (2, Silence)]);
    assert_eq!(room.speakers_so_far(), [Some(1), Some(2), Some(1)]);
    assert!(room.changes[1].0 - 4_000 < 1_500 && room.changes[2].0 - 8_000 < 1_500, "{:?}", room.changes);
}

#[test]
fn a_silent_room_keeps_its_last_speaker() {
    let mut room = Room::new(3);
    room.run(3_000, &[(1, Talk(25)), (2, Silence)]);
    room.run(60_000, &[(1, Silence), (2, Silence)]);
    assert_eq!(room.speakers.speaker(), Some(1));
    assert_eq!(room.changes.len(), 1);
}

#[test]
fn coughs_and_clicks_and_short_answers_change_nothing() {
    let mut room = Room::new(3);
    room.run(5_000, &[(1, Talk(28)), (2, Silence), (3, Silence)]);
    for _ in 0..5 {
        room.run(400, &[(1, Talk(28)), (2, Noise(8)), (3, Silence)]);
        room.run(3_000, &[(1, Talk(28)), (2, Silence), (3, Silence)]);
        room.run(60, &[(1, Talk(28)), (2, Silence), (3, Noise(0))]);
        room.run(2_000, &[(1, Talk(28)), (2, Silence), (3, Silence)]);
        room.run(500, &[(1, Silence), (2, Talk(20)), (3, Silence)]);
        room.run(3_000, &[(1, Talk(28)), (2, Silence), (3, Silence)]);
    }
    assert_eq!(room.speakers_so_far(), [Some(1)]);
}

#[test]
fn two_who_talk_at_once_do_not_alternate() {
    let mut room = Room::new(3);
    room.run(4_000, &[(1, Talk(25)), (2, Silence)]);
    room.run(20_000, &[(1, Talk(25)), (2, Talk(24))]);
    assert_eq!(room.speakers_so_far(), [Some(1)]);
    room.run(3_000, &[(1, Silence), (2, Talk(24))]);
    assert_eq!(room.speakers_so_far(), [Some(1), Some(2)]);
}

#[test]
fn a_speaker_stays_for_a_while() {
    let mut room = Room::new(3);
    for turn in 0..20 {
        let (a, b) = if turn % 2 == 0 { (Talk(25), Silence) } else { (Silence, Talk(25)) };
        room.run(900, &[(1, a), (2, b)]);
    }
    let gaps: Vec<u64> = room.changes.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.iter().all(|&gap| gap >= HOLD.as_millis() as u64), "{gaps:?}");
}

#[test]
fn a_fan_is_no_speaker() {
    let mut room = Room::new(3);
    room.run(30_000, &[(1, Noise(52)), (2, Silence)]);
    assert_eq!(room.speakers.speaker(), None);
    room.run(3_000, &[(1, Noise(52)), (2, Talk(40))]);
    assert_eq!(room.speakers.speaker(), Some(2));
    room.run(30_000, &[(1, Noise(52)), (2, Silence)]);
    assert_eq!(room.speakers.speaker(), Some(2));
}

#[test]
fn whoever_leaves_is_not_the_speaker() {
    let mut room = Room::new(3);
    room.run(4_000, &[(1, Talk(25)), (2, Talk(26))]);
    let speaker = room.speakers.speaker().expect("one of them");
    room.speakers.remove(speaker);
    assert!(!room.speakers.is_heard(speaker));
    let other = 3 - speaker;
    room.run(1_000, &[(other, Talk(25))]);
    assert_eq!(room.speakers.speaker(), Some(other));
    room.speakers.remove(other);
    let change = room.speakers.poll(room.now);
    assert_eq!(change, Some(SpeakerChange { from: Some(other), to: None }));
    assert_eq!(room.speakers.poll(room.now), None, "reported once");
}

#[test]
fn the_first_syllable_is_heard() {
    let mut room = Room::new(3);
    let quiet: Vec<(u32, Sound)> = (0..10).map(|key| (key, Silence)).collect();
    room.run(5_000, &quiet);
    assert_eq!(room.speakers.loudest(), [Some(0), Some(1), Some(2)]);
    let mut sounds = quiet.clone();
    sounds[7].1 = Noise(30);
    let heard = room.run(1_000, &sounds);
    assert!(heard[&7] <= 60, "{heard:?}");
}

#[test]
fn places_are_not_stolen_from_those_who_speak() {
    let mut room = Room::new(2);
    room.run(3_000, &[(1, Talk(25)), (2, Talk(26)), (3, Silence)]);
    let before = room.speakers.loudest().to_vec();
    room.run(5_000, &[(1, Talk(25)), (2, Talk(26)), (3, Talk(24))]);
    assert_eq!(room.speakers.loudest(), before, "no louder than they are");
    let heard = room.run(5_000, &[(1, Talk(25)), (2, Talk(26)), (3, Noise(5))]);
    assert!((300..2_000).contains(&heard[&3]), "much louder, for some time: {heard:?}");
    assert!(room.speakers.is_heard(room.speakers.speaker().expect("one")), "the speaker keeps its place");
}

#[test]
fn a_place_is_kept_through_pauses() {
    let mut room = Room::new(2);
    room.run(3_000, &[(1, Talk(25)), (2, Talk(26)), (3, Silence)]);
    let before = room.speakers.loudest().to_vec();
    room.run(20_000, &[(1, Silence), (2, Silence), (3, Silence)]);
    assert_eq!(room.speakers.loudest(), before, "nobody wants it");
}

#[test]
fn a_sender_without_levels_is_heard_but_never_shown() {
    let mut room = Room::new(1);
    room.run(1_000, &[(1, Silence)]);
    room.now += Duration::from_secs(1);
    assert!(room.speakers.handle_unmeasured(room.now, 9));
    for _ in 0..200 {
        room.now += Duration::from_millis(20);
        room.speakers.handle_unmeasured(room.now, 9);
        assert_eq!(room.speakers.poll(room.now), None);
    }
    assert_eq!(room.speakers.loudest(), [Some(9)]);
}

#[test]
fn packets_of_60_ms_count_as_much_as_those_of_20() {
    let mut speakers = Speakers::new(3);
    let mut now = Instant::now();
    for _ in 0..20 {
        now += Duration::from_millis(60);
        speakers.handle_level(now, 1, 30, None);
    }
    speakers.poll(now);
    assert_eq!(speakers.speaker(), Some(1));
    let voice = &speakers.voices[&1];
    assert!(voice.ticks(voice.newest, PHRASE) >= 48, "{}", voice.ticks(voice.newest, PHRASE));
}

#[test]
fn the_v_bit_can_deny_speech() {
    let mut speakers = Speakers::new(3);
    let mut now = Instant::now();
    for _ in 0..100 {
        now += Duration::from_millis(20);
        speakers.handle_level(now, 1, 20, Some(false));
        assert_eq!(speakers.poll(now), None);
    }
}

#[test]
fn levels_out_of_range_and_time_that_stands_still_are_harmless() {
    let mut speakers = Speakers::new(0);
    let now = Instant::now();
    for level in 0..=255 {
        assert!(!speakers.handle_level(now, 1, level, None), "no places at all");
    }
    speakers.poll(now);
}
