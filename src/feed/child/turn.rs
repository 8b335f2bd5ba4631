//! How a picture is to be turned to be upright: phones write their pictures as the sensor lies, and say in
//! the container how they were held (ISO/IEC 14496-12 §6.2.2, the display matrix).
//!
//! Of a matrix the nearest of the eight ways is taken in which a picture stays upright in a rectangle.

use ffmpeg_next::format::stream::Stream;
use ffmpeg_next::{codec, format::Pixel, frame};

/// Nine numbers of 32 bits, in this machine's order, as FFmpeg hands it on.
const MATRIX_BYTES: usize = 36;
/// Planes of a picture with half as many colours in each direction.
const PLANES: usize = 3;

/// Rows become columns first, and then order of columns and rows is reversed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    swaps: bool,
    mirrors_x: bool,
    mirrors_y: bool,
}

impl Turn {
    /// As its container says of a stream.
    pub fn of(stream: &Stream<'_>) -> Self {
        let mut all = stream.side_data();
        let matrix = all.find(|data| data.kind() == codec::packet::side_data::Type::DisplayMatrix);
        matrix.and_then(|matrix| Self::of_matrix(matrix.data())).unwrap_or_default()
    }

    /// A point (x, y) is shown at (ax + cy, bx + dy).
    fn of_matrix(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes
            .get(..MATRIX_BYTES)?
            .chunks_exact(4)
            .map(|number| i64::from(i32::from_ne_bytes([number[0], number[1], number[2], number[3]])));
        let (a, b) = (numbers.next()?, numbers.next()?);
        let (c, d) = (numbers.nth(1)?, numbers.next()?);
        let swaps = a.abs() + d.abs() < b.abs() + c.abs();
        let (x, y) = if swaps { (c, b) } else { (a, d) };
        Some(Self { swaps, mirrors_x: x < 0, mirrors_y: y < 0 })
    }

    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Width and height as they are shown, or were before they were turned.
    pub fn size<T>(self, (width, height): (T, T)) -> (T, T) {
        if self.swaps { (height, width) } else { (width, height) }
    }

    /// Turns a picture of planes with half as many colours in each direction.
    pub fn apply(self, from: &frame::Video) -> frame::Video {
        let (width, height) = self.size((from.width(), from.height()));
        let mut to = frame::Video::new(Pixel::YUV420P, width, height);
        for plane in 0..PLANES {
            let side = |length: u32| (if plane == 0 { length } else { length.div_ceil(2) }) as usize;
            let (columns, rows) = (side(width), side(height));
            let (stride, to_stride) = (from.stride(plane), to.stride(plane));
            let (source, target) = (from.data(plane), to.data_mut(plane));
            for (y, row) in target.chunks_mut(to_stride).take(rows).enumerate() {
                let y = if self.mirrors_y { rows - 1 - y } else { y };
                for (x, point) in row.iter_mut().take(columns).enumerate() {
                    let x = if self.mirrors_x { columns - 1 - x } else { x };
                    let (x, y) = self.size((x, y));
                    *point = source.get(y * stride + x).copied().unwrap_or_default();
                }
            }
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: i32 = 1 << 16;

    fn turn(a: i32, b: i32, c: i32, d: i32) -> Turn {
        let bytes = [a, b, 0, c, d, 0, 0, 0, 1 << 30].map(i32::to_ne_bytes).concat();
        Turn::of_matrix(&bytes).unwrap()
    }

    /// Where the brightest corner of a picture is shown that was its first.
    fn first_corner(turn: Turn) -> (u32, u32, usize) {
        let mut picture = frame::Video::new(Pixel::YUV420P, 4, 2);
        for plane in 0..PLANES {
            picture.data_mut(plane).fill(1);
            picture.data_mut(plane)[0] = 200;
        }
        let shown = turn.apply(&picture);
        // Beyond its width a row holds whatever was in memory before.
        let mut rows = shown.data(0).chunks(shown.stride(0)).map(|row| &row[..shown.width() as usize]);
        let at = |row: &[u8]| row.iter().position(|point| *point == 200);
        let found = rows.by_ref().enumerate().find_map(|(y, row)| Some(y * 10 + at(row)?));
        (shown.width(), shown.height(), found.unwrap())
    }

    #[test]
    fn a_corner_goes_where_the_matrix_has_it() {
        // Row by ten, column by one.
        for (matrix, expected) in [
            ((ONE, 0, 0, ONE), (4, 2, 0)),
            // A quarter clockwise: the first corner is at the right, above.
            ((0, ONE, -ONE, 0), (2, 4, 1)),
            ((-ONE, 0, 0, -ONE), (4, 2, 13)),
            ((0, -ONE, ONE, 0), (2, 4, 30)),
            // Mirrors.
            ((-ONE, 0, 0, ONE), (4, 2, 3)),
            ((ONE, 0, 0, -ONE), (4, 2, 10)),
            ((0, ONE, ONE, 0), (2, 4, 0)),
            ((0, -ONE, -ONE, 0), (2, 4, 31)),
        ] {
            let (a, b, c, d) = matrix;
            assert_eq!(first_corner(turn(a, b, c, d)), expected, "{matrix:?}");
        }
    }

    #[test]
    fn what_says_nothing_turns_nothing() {
        assert!(turn(ONE, 0, 0, ONE).is_none() && turn(0, 0, 0, 0).is_none());
        // Nearly a quarter, and scaled.
        assert_eq!(turn(100, 3 * ONE, -3 * ONE, 100), turn(0, ONE, -ONE, 0));
        assert!(turn(i32::MIN, i32::MIN, i32::MIN, i32::MIN).mirrors_x);
        assert_eq!(Turn::of_matrix(&[0; 35]), None);
    }
}
