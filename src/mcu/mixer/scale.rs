//! Scales pictures: bilinear in fixed point, after halving as often as the picture is more than twice too
//! large, since two neighbours a pixel are too few then and fine detail would flicker.
//!
//! A scaler keeps its tables and lines for the next picture of the same sizes.

use super::picture::{Picture, Pixels, Plane, View};
use crate::core::mix::Size;

/// Where a pixel comes from: the first of two neighbours, and how much of the second, of 256 parts.
#[derive(Debug, Clone, Copy)]
struct Source {
    first: u32,
    second_parts: u16,
}

/// The sources of a row or a column of pixels.
#[derive(Debug, Default)]
struct Table {
    from: usize,
    sources: Vec<Source>,
}

impl Table {
    /// Fills the table anew where sizes changed.
    fn set(&mut self, from: usize, to: usize) {
        if (self.from, self.sources.len()) == (from, to) {
            return;
        }
        self.from = from;
        let last = (from.max(1) as i64 - 1) << 16;
        let step = ((from as i64) << 16) / to.max(1) as i64;
        // Centres of pixels lie upon each other, not their edges.
        self.sources.clear();
        self.sources.extend((0..to as i64).map(|index| {
            let at = (index * step + step / 2 - (1 << 15)).clamp(0, last);
            let first = (at >> 16).min((from as i64 - 2).max(0));
            Source { first: first as u32, second_parts: ((at - (first << 16)) >> 8) as u16 }
        }));
    }
}

/// Scales to one size after another.
#[derive(Debug, Default)]
pub struct Scaler {
    /// Of luma and chroma: columns and rows.
    tables: [[Table; 2]; 2],
    /// A row between two of the source, 8.8 fixed point.
    line: Vec<u16>,
    halves: [Option<Picture>; 2],
}

impl Scaler {
    /// Fills `to` with what `from` shows.
    pub fn scale(&mut self, from: &View<'_>, to: &mut Picture) {
        let Size { width, height } = to.size();
        let (width, height) = (width as usize, height as usize);
        let mut halves = std::mem::take(&mut self.halves);
        let mut current = 0;
        let mut halved = false;
        loop {
            let source = if halved { halves[current].as_ref().map(Pixels::view) } else { Some(*from) };
            let Some(source) = source else { break };
            if (source.width(), source.height()) == (width, height) {
                to.copy(to.area(), &source);
                break;
            }
            if source.width() < 2 * width || source.height() < 2 * height || width * height == 0 {
                self.bilinear(&source, to);
                break;
            }
            let size = Size { width: source.width() as u32 / 2, height: source.height() as u32 / 2 };
            let size = Picture::new(size).size();
            let mut next = halves[1 - current].take().filter(|kept| kept.size() == size);
            let source = if halved { halves[current].as_ref().map(Pixels::view) } else { Some(*from) };
            if let Some(source) = source {
                halve(&source, next.get_or_insert_with(|| Picture::new(size)));
            }
            current = 1 - current;
            halves[current] = next;
            halved = true;
        }
        self.halves = halves;
    }

    fn bilinear(&mut self, from: &View<'_>, to: &mut Picture) {
        let Size { width, height } = to.size();
        for plane in 0..3 {
            let shift = usize::from(plane > 0);
            let (width, height) = (width as usize >> shift, height as usize >> shift);
            let source = &from.planes[plane];
            let [columns, rows] = &mut self.tables[shift];
            columns.set(source.width, width);
            rows.set(source.height, height);
            for (y, row) in rows.sources.iter().enumerate() {
                blend_rows(source, *row, &mut self.line);
                pick_columns(&self.line, &columns.sources, to.row_mut(plane, y));
            }
        }
    }
}

/// Writes the row that lies between two of the source.
fn blend_rows(source: &Plane<'_>, row: Source, line: &mut Vec<u16>) {
    let first = row.first as usize;
    let above = source.row(first);
    let below = source.row((first + 1).min(source.height.saturating_sub(1)));
    let (second, one) = (row.second_parts, 256 - row.second_parts);
    line.clear();
    line.extend(above.iter().zip(below).map(|(a, b)| u16::from(*a) * one + u16::from(*b) * second));
    // One more, so that the last column has a neighbour.
    line.push(line.last().copied().unwrap_or_default());
}

fn pick_columns(line: &[u16], columns: &[Source], out: &mut [u8]) {
    for (pixel, column) in out.iter_mut().zip(columns) {
        let first = column.first as usize;
        let Some(&[a, b]) = line.get(first..first + 2) else { continue };
        let second = u32::from(column.second_parts);
        let sum = u32::from(a) * (256 - second) + u32::from(b) * second;
        *pixel = ((sum + (1 << 15)) >> 16) as u8;
    }
}

/// Makes each pixel the mean of four.
fn halve(from: &View<'_>, to: &mut Picture) {
    let height = to.size().height as usize;
    for plane in 0..3 {
        let source = &from.planes[plane];
        let last = source.height.saturating_sub(1);
        for y in 0..height >> usize::from(plane > 0) {
            let (above, below) = (source.row((2 * y).min(last)), source.row((2 * y + 1).min(last)));
            let row = to.row_mut(plane, y);
            let pairs = above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0);
            for (pixel, ([a, b], [c, d])) in row.iter_mut().zip(pairs) {
                let sum = u16::from(*a) + u16::from(*b) + u16::from(*c) + u16::from(*d);
                *pixel = ((sum + 2) >> 2) as u8;
            }
            // An odd source leaves a column over.
            let filled = (source.width / 2).min(row.len());
            let edge = above.last().copied().unwrap_or_default();
            row[filled..].fill(edge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::Colour;
    use super::*;
    use crate::core::mix::Area;

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    /// Left half dark, right half bright.
    fn halves(width: u32, height: u32) -> Picture {
        let mut picture = Picture::new(size(width, height));
        let right = Area { x: width / 2, y: 0, width: width / 2, height };
        picture.fill(right, Colour([200, 60, 180]));
        picture
    }

    #[test]
    fn one_colour_stays_one_colour_at_every_size() {
        let colour = Colour([81, 90, 240]);
        let mut scaler = Scaler::default();
        for (width, height) in [(2, 2), (16, 10), (33, 17), (640, 360), (1_280, 720)] {
            let mut from = Picture::new(size(width, height));
            from.fill(from.area(), colour);
            for (width, height) in [(2, 2), (30, 18), (426, 240), (640, 360), (854, 480)] {
                let mut to = Picture::new(size(width, height));
                scaler.scale(&from.view(), &mut to);
                let mut expected = Picture::new(size(width, height));
                expected.fill(expected.area(), colour);
                assert_eq!(to, expected, "{:?} to {width}x{height}", from.size());
            }
        }
    }

    #[test]
    fn an_edge_stays_in_its_place() {
        let mut scaler = Scaler::default();
        for (from, to) in [((64, 36), (128, 72)), ((128, 72), (48, 28)), ((640, 360), (100, 56))] {
            let from = halves(from.0, from.1);
            let mut scaled = Picture::new(size(to.0, to.1));
            scaler.scale(&from.view(), &mut scaled);
            let row = scaled.view().planes[0].row(to.1 as usize / 2).to_vec();
            assert!(row.is_sorted(), "{row:?}");
            let middle = row.iter().position(|pixel| *pixel > 108).unwrap();
            assert!(middle.abs_diff(to.0 as usize / 2) <= 1, "{middle} of {}", to.0);
        }
    }

    #[test]
    fn the_same_size_is_a_copy_and_a_plane_cut_short_does_no_harm() {
        let from = halves(20, 12);
        let mut to = Picture::new(size(20, 12));
        Scaler::default().scale(&from.view(), &mut to);
        assert_eq!(to, from);
        let mut broken = from.view();
        broken.planes[0].bytes = &broken.planes[0].bytes[..50];
        Scaler::default().scale(&broken, &mut Picture::new(size(8, 8)));
        Scaler::default().scale(&broken, &mut Picture::new(size(18, 12)));
    }
}
