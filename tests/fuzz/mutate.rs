//! Breaks good inputs: a few changes each, of the kinds that find things.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Values at which arithmetic goes wrong.
const EDGES: [u8; 9] = [0, 1, 0x0a, 0x20, 0x7f, 0x80, 0xfe, 0xff, b':'];

pub struct Mutator(StdRng);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound.max(1))
    }

    /// Up to eight changes of bytes; one input in sixteen stays good.
    pub fn bytes(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        if self.below(16) == 0 {
            return bytes;
        }
        for _ in 0..1 + self.below(8) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = EDGES[self.below(EDGES.len())],
                2 if !bytes.is_empty() => bytes[at] = self.0.random(),
                3 => bytes.truncate(at),
                4 => bytes.insert(at, self.0.random()),
                5 if !bytes.is_empty() => {
                    bytes.remove(at);
                }
                6 => {
                    let end = (at + self.below(32)).min(bytes.len());
                    let piece = bytes[at.min(end)..end].to_vec();
                    bytes.extend(piece);
                }
                _ => bytes.extend(std::iter::repeat_n(EDGES[self.below(EDGES.len())], self.below(300))),
            }
        }
        bytes
    }

    pub fn text(&mut self, good: &str) -> String {
        String::from_utf8_lossy(&self.bytes(good.as_bytes())).into_owned()
    }

    /// Changes whole lines as well: drops, doubles, moves, and mixes them.
    pub fn lines(&mut self, good: &str) -> String {
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        for _ in 0..self.below(5) {
            let (at, other) = (self.below(lines.len()), self.below(lines.len()));
            match self.below(5) {
                0 if lines.len() > 1 => {
                    lines.remove(at);
                }
                1 => lines.insert(at, lines[other].clone()),
                2 => lines.swap(at, other),
                3 => lines[at] = self.text(&lines[at].clone()),
                _ => {
                    let huge = format!("{}{}", lines[at], "9".repeat(self.below(40)));
                    lines[at] = huge;
                }
            }
        }
        lines.join("\r\n") + "\r\n"
    }
}
