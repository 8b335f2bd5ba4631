//! The clock in the picture: the number of the frame as a strip of black and white blocks near its top.
//!
//! 12 bits, most significant first, and 4 that check them. The blocks are parts of the picture, so they scale
//! with it and can be read in a tile of a mix: 12 pixels wide where 25 people share 1280 × 720.

use super::plane::{Plane, View};

/// Numbers count up to this.
pub const NUMBERS: u32 = 1 << NUMBER_BITS;
const NUMBER_BITS: u32 = 12;
const BLOCKS: u32 = NUMBER_BITS + 4;
/// The strip, in hundredths of the picture's width and height. A frame around a tile is outside of it.
pub const LEFT: usize = 10;
pub const TOP: usize = 6;
pub const WIDTH: usize = 80;
pub const HEIGHT: usize = 10;
/// As limited range has them.
const BLACK: u8 = 16;
const WHITE: u8 = 235;
/// A block that is neither darker nor lighter than these is none.
const DARK_MAX: f64 = 90.0;
const LIGHT_MIN: f64 = 160.0;

/// The number with its check below it. Neither all black nor all white is a number.
fn word(number: u32) -> u32 {
    let check = (number ^ number >> 4 ^ number >> 8 ^ 0b1010) & 0xf;
    number << 4 | check
}

/// Edges of a block, in pixels of a picture of this size: left, right, top, bottom.
fn block(index: u32, width: usize, height: usize) -> [usize; 4] {
    let edge = |index: u32| width * LEFT / 100 + width * WIDTH * index as usize / (100 * BLOCKS as usize);
    [edge(index), edge(index + 1), height * TOP / 100, height * (TOP + HEIGHT) / 100]
}

/// Paints a number below [`NUMBERS`].
pub fn write(number: u32, luma: &mut Plane) {
    let word = word(number);
    for index in 0..BLOCKS {
        let [left, right, top, bottom] = block(index, luma.width, luma.height);
        let is_white = word >> (BLOCKS - 1 - index) & 1 != 0;
        for y in top..bottom {
            luma.row_mut(y)[left..right].fill(if is_white { WHITE } else { BLACK });
        }
    }
}

/// The number in a picture; none where there is none, or it cannot be told for sure.
pub fn read(luma: &View<'_>) -> Option<u32> {
    let mut word_read = 0;
    for index in 0..BLOCKS {
        let [left, right, top, bottom] = block(index, luma.width, luma.height);
        // Of the middle: at its edges a block is blurred with its neighbours.
        let (width, height) = ((right - left) / 2, (bottom - top) / 2);
        let middle = luma.cut(left + width / 2, top + height / 2, width.max(1), height.max(1))?;
        let bit = match middle.mean() {
            mean if mean <= DARK_MAX => 0,
            mean if mean >= LIGHT_MIN => 1,
            _ => return None,
        };
        word_read = word_read << 1 | bit;
    }
    let number = word_read >> 4;
    (word(number) == word_read).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(number: u32) -> Plane {
        let mut luma = Plane::new(1280, 720);
        luma.bytes.fill(120);
        write(number, &mut luma);
        luma
    }

    #[test]
    fn every_number_can_be_read_in_the_smallest_tile_through_noise() {
        let mut state = 1u32;
        for number in (0..NUMBERS).step_by(7) {
            let mut tile = picture(number).scaled(248, 138);
            for pixel in &mut tile.bytes {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *pixel = pixel.saturating_add((state >> 26) as u8).saturating_sub(32);
            }
            assert_eq!(read(&tile.view()), Some(number));
        }
    }

    #[test]
    fn what_is_no_clock_has_no_number() {
        for grey in [0, 16, 120, 235, 255] {
            let mut plain = Plane::new(248, 138);
            plain.bytes.fill(grey);
            assert_eq!(read(&plain.view()), None, "{grey}");
        }
        // One block that flips does not pass for another number.
        for index in 0..BLOCKS {
            let mut luma = picture(1234);
            let [left, right, top, bottom] = block(index, luma.width, luma.height);
            for y in top..bottom {
                luma.row_mut(y)[left..right].iter_mut().for_each(|pixel| *pixel = 251 - *pixel);
            }
            assert_eq!(read(&luma.view()), None, "block {index}");
        }
        assert_eq!(read(&Plane::new(3, 2).view()), None);
    }
}
