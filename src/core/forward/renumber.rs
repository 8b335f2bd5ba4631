//! Gives the numbers of a source (sequence numbers, picture ids) new ones without holes for what was skipped.
//!
//! A number that never came keeps its place, so that what is lost on the way in shows as lost on the way out
//! and still fits when it arrives late. Numbers are extended: they do not wrap. What lies farther back than
//! the window of `64 * WORDS` numbers is forgotten.

/// Where a number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Above all numbers so far.
    Ahead,
    /// Missing so far; its new number is kept for it.
    Gap,
    Taken,
    Skipped,
    /// Before the first one, or forgotten.
    Unknown,
}

#[derive(Debug, Clone)]
pub(super) struct Renumber<const WORDS: usize> {
    first: u64,
    next: u64,
    /// Added, wrapping, to numbers from `next` on.
    shift: u64,
    known: [u64; WORDS],
    skipped: [u64; WORDS],
}

impl<const WORDS: usize> Renumber<WORDS> {
    const WINDOW: u64 = 64 * WORDS as u64;

    /// A stretch of numbers that begins with `number`, which becomes `out`.
    pub(super) fn starting(number: u64, out: u64) -> Self {
        let shift = out.wrapping_sub(number);
        Self { first: number, next: number, shift, known: [0; WORDS], skipped: [0; WORDS] }
    }

    /// The lowest number that is [`Place::Ahead`].
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// What [`Self::next`] would become.
    pub(super) fn next_out(&self) -> u64 {
        self.next.wrapping_add(self.shift)
    }

    #[inline]
    pub(super) fn place(&self, number: u64) -> Place {
        if number >= self.next {
            Place::Ahead
        } else if number < self.first || self.next - number > Self::WINDOW {
            Place::Unknown
        } else if bit(&self.skipped, number) {
            Place::Skipped
        } else if bit(&self.known, number) {
            Place::Taken
        } else {
            Place::Gap
        }
    }

    /// The new number of one that is ahead, in a gap or taken.
    #[inline]
    pub(super) fn take(&mut self, number: u64) -> u64 {
        if number >= self.next {
            self.advance(number);
        }
        set(&mut self.known, number, true);
        let skipped_since = (number + 1..self.next).filter(|&later| bit(&self.skipped, later)).count();
        number.wrapping_add(self.shift).wrapping_add(skipped_since as u64)
    }

    /// Leaves `number` out without a hole, where it is ahead; elsewhere its place is already given away.
    pub(super) fn skip(&mut self, number: u64) {
        if number >= self.next {
            self.advance(number);
            set(&mut self.known, number, true);
            set(&mut self.skipped, number, true);
            self.shift = self.shift.wrapping_sub(1);
        }
    }

    #[inline]
    fn advance(&mut self, number: u64) {
        if number - self.next >= Self::WINDOW {
            (self.known, self.skipped) = ([0; WORDS], [0; WORDS]);
        } else {
            for fresh in self.next..=number {
                set(&mut self.known, fresh, false);
                set(&mut self.skipped, fresh, false);
            }
        }
        self.next = number + 1;
    }
}

#[inline]
fn bit<const WORDS: usize>(words: &[u64; WORDS], number: u64) -> bool {
    words[(number / 64) as usize % WORDS] >> (number % 64) & 1 == 1
}

#[inline]
fn set<const WORDS: usize>(words: &mut [u64; WORDS], number: u64, value: bool) {
    let word = &mut words[(number / 64) as usize % WORDS];
    *word = *word & !(1 << (number % 64)) | u64::from(value) << (number % 64);
}

/// The number nearest to `reference` whose lowest `bits` bits are `value`.
#[inline]
pub(super) fn extend(reference: u64, value: u64, bits: u32) -> u64 {
    let half = 1_u64 << (bits - 1);
    let ahead = value.wrapping_sub(reference) & ((half << 1) - 1);
    if ahead <= half || reference < (half << 1) {
        reference.wrapping_add(ahead)
    } else {
        reference.wrapping_add(ahead).wrapping_sub(half << 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_skipped_leaves_no_hole_and_what_is_lost_does() {
        let mut numbers = Renumber::<2>::starting(100, 7);
        assert_eq!(numbers.take(100), 7);
        numbers.skip(101);
        assert_eq!(numbers.take(103), 9);
        assert_eq!(numbers.place(102), Place::Gap);
        assert_eq!(numbers.place(101), Place::Skipped);
        assert_eq!(numbers.take(102), 8);
        assert_eq!(numbers.place(102), Place::Taken);
        assert_eq!(numbers.place(99), Place::Unknown);
        assert_eq!(numbers.next_out(), 10);
    }

    #[test]
    fn extending_finds_the_nearest() {
        assert_eq!(extend(0x1_0001, 0xfffe, 16), 0xfffe);
        assert_eq!(extend(0x1_fffe, 0x0001, 16), 0x2_0001);
        assert_eq!(extend(1 << 20, 0x7f, 7), (1 << 20) - 1);
    }

    proptest! {
        /// Against the plain way: remember the fate of every number.
        #[test]
        fn agrees_with_a_ledger_of_everything(
            steps in prop::collection::vec((-40_i64..6, prop::bool::weighted(0.3)), 1..400),
        ) {
            let mut numbers = Renumber::<4>::starting(1_000, 50);
            let mut skipped = BTreeSet::new();
            let mut given = BTreeMap::new();
            let mut highest = 999_u64;
            for (step, skip) in steps {
                let number = highest.saturating_add_signed(step);
                let place = numbers.place(number);
                if place == Place::Ahead {
                    prop_assert!(number > highest);
                    highest = number;
                }
                match place {
                    Place::Ahead if skip => {
                        numbers.skip(number);
                        skipped.insert(number);
                    }
                    Place::Ahead | Place::Gap => {
                        let before = skipped.range(..number).count() as u64;
                        prop_assert_eq!(numbers.take(number), number - 950 - before);
                        prop_assert!(given.insert(number - 950 - before, number).is_none());
                    }
                    Place::Taken => prop_assert!(given.values().any(|&taken| taken == number)),
                    Place::Skipped => prop_assert!(skipped.contains(&number)),
                    Place::Unknown => prop_assert!(number < 1_000 || highest + 1 - number > 256),
                }
            }
        }
    }
}
