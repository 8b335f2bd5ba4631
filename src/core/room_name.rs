//! Generated room names: sayable, and hard to guess.
//!
//! Three words of three open syllables and a closing consonant, such as `bakilun-nedoros-tavisem`: 16
//! consonants, 5 vowels and 5 endings make 80³ · 5 = 2 560 000 words, of which 2 470 936 contain nothing rude.
//! Those are equally likely, so a name carries 3 · log₂ 2 470 936 = 63.7 bits: with a million rooms open, who
//! tries a million names a second finds the first after 175 days on average.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::ids::RoomName;

/// Those told apart by ear: no `c`, `q`, `w`, `x`, `y`.
const CONSONANTS: &[u8] = b"bdfghjklmnprstvz";
const VOWELS: &[u8] = b"aeiou";
const ENDINGS: &[u8] = b"lmnrs";
const WORDS: usize = 3;
const SYLLABLES: usize = 3;

/// What offends in a language that many speak. A word that contains one is drawn again.
const RUDE: [&str; 33] = [
    "anal", "anus", "boner", "buger", "dik", "fag", "fok", "fuk", "hor", "homo", "hure", "jeb", "kak", "kok",
    "kum", "nazi", "neger", "nig", "nik", "paki", "pede", "penis", "pik", "pis", "pula", "puta", "rape",
    "rasis", "semen", "sodom", "suka", "tit", "zob",
];

/// A name that nobody has, as good as surely; the caller still looks.
pub fn generate(rng: &mut impl Rng) -> RoomName {
    loop {
        let words: [String; WORDS] = std::array::from_fn(|_| word(rng));
        // The alphabet and the length are a room name's, so the first try is the last.
        if let Ok(name) = RoomName::parse(&words.join("-")) {
            return name;
        }
    }
}

fn word(rng: &mut impl Rng) -> String {
    loop {
        let syllables = [CONSONANTS, VOWELS].into_iter().cycle().take(2 * SYLLABLES);
        let letters = syllables.chain([ENDINGS]).filter_map(|letters| letters.choose(rng));
        let word: String = letters.map(|letter| char::from(*letter)).collect();
        if is_decent(&word) {
            return word;
        }
    }
}

fn is_decent(word: &str) -> bool {
    !RUDE.iter().any(|rude| word.contains(rude))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// The letters that each place of a word may have.
    fn places() -> Vec<&'static [u8]> {
        [CONSONANTS, VOWELS].into_iter().cycle().take(2 * SYLLABLES).chain([ENDINGS]).collect()
    }

    #[test]
    fn a_name_has_the_bits_that_are_claimed() {
        let places = places();
        let count = |places: &[&[u8]]| places.iter().map(|letters| letters.len()).product::<usize>();
        let all = count(&places);
        assert_eq!(all, 2_560_000);
        // Each rude part at each place where its letters fit excludes the words that have it there.
        let mut excluded = 0;
        for rude in RUDE.map(str::as_bytes) {
            for (start, part) in places.windows(rude.len()).enumerate() {
                if part.iter().zip(rude).all(|(letters, letter)| letters.contains(letter)) {
                    excluded += count(&places[..start]) * count(&places[start + rude.len()..]);
                }
            }
        }
        assert!(excluded > 0, "the list is of words that could be drawn");
        let bits = ((all - excluded) as f64).log2() * WORDS as f64;
        assert!(bits > 63.5, "{bits}");
    }

    #[test]
    fn names_are_valid_sayable_and_repeat_from_their_seed() {
        let mut names = BTreeSet::new();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..5_000 {
            let name = generate(&mut rng);
            assert!(RoomName::parse(name.as_str()).is_ok());
            let words: Vec<&str> = name.as_str().split('-').collect();
            assert_eq!((words.len(), name.as_str().len()), (3, 23), "{name}");
            assert!(words.iter().all(|word| is_decent(word)), "{name}");
            names.insert(name);
        }
        assert_eq!(names.len(), 5_000, "no two alike");
        let first = |seed| generate(&mut StdRng::seed_from_u64(seed));
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    #[test]
    fn every_letter_comes_about_as_often_as_the_others() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut counts: BTreeMap<(usize, char), u32> = BTreeMap::new();
        let drawn = 10_000;
        for _ in 0..drawn {
            for place_and_letter in word(&mut rng).chars().enumerate() {
                *counts.entry(place_and_letter).or_default() += 1;
            }
        }
        for (place, letters) in places().into_iter().enumerate() {
            for letter in letters {
                let count = counts.remove(&(place, char::from(*letter))).unwrap_or(0);
                // Within what chance (six deviations are 24 %) and the list of the rude take and give.
                let even = f64::from(drawn) / letters.len() as f64;
                assert!((f64::from(count) / even - 1.0).abs() < 0.3, "{place}: {letter}: {count} of {even}");
            }
        }
        assert!(counts.is_empty(), "no other letters");
    }
}
