//! One component of a picture, 8 bits: cut, scaled and looked at. Of the luma is all that is judged.

/// Bytes that another owns, row by row.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    bytes: &'a [u8],
    /// Bytes from a row to the next.
    stride: usize,
    pub width: usize,
    pub height: usize,
}

impl<'a> View<'a> {
    /// None where `bytes` hold less than that.
    pub fn new(bytes: &'a [u8], stride: usize, width: usize, height: usize) -> Option<Self> {
        let needed = stride * height.checked_sub(1)? + width;
        (width > 0 && width <= stride && needed <= bytes.len()).then_some(Self {
            bytes,
            stride,
            width,
            height,
        })
    }

    /// A part of it, as much as there is of it; none where nothing is.
    pub fn cut(&self, x: usize, y: usize, width: usize, height: usize) -> Option<Self> {
        let (width, height) =
            (width.min(self.width.checked_sub(x)?), height.min(self.height.checked_sub(y)?));
        View::new(self.bytes.get(y * self.stride + x..)?, self.stride, width, height)
    }

    pub fn row(&self, y: usize) -> &'a [u8] {
        self.bytes.get(y * self.stride..y * self.stride + self.width).unwrap_or_default()
    }

    /// The mean of all pixels.
    pub fn mean(&self) -> f64 {
        let sum: u64 = (0..self.height).flat_map(|y| self.row(y)).map(|pixel| u64::from(*pixel)).sum();
        sum as f64 / (self.width * self.height) as f64
    }

    pub fn to_plane(self) -> Plane {
        let bytes = (0..self.height).flat_map(|y| self.row(y)).copied().collect();
        Plane { width: self.width, height: self.height, bytes }
    }
}

/// Rows without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    pub width: usize,
    pub height: usize,
    pub bytes: Vec<u8>,
}

impl Plane {
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, bytes: vec![0; width * height] }
    }

    pub fn view(&self) -> View<'_> {
        View { bytes: &self.bytes, stride: self.width, width: self.width, height: self.height }
    }

    pub fn row_mut(&mut self, y: usize) -> &mut [u8] {
        self.bytes.get_mut(y * self.width..(y + 1) * self.width).unwrap_or_default()
    }

    /// Half as wide and half as high: each pixel the mean of four.
    pub fn halved(&self) -> Self {
        let mut half = Self::new(self.width / 2, self.height / 2);
        let view = self.view();
        for y in 0..half.height {
            let (above, below) = (view.row(2 * y), view.row(2 * y + 1));
            let pairs = above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0);
            for (pixel, ([a, b], [c, d])) in half.row_mut(y).iter_mut().zip(pairs) {
                let sum = u16::from(*a) + u16::from(*b) + u16::from(*c) + u16::from(*d);
                *pixel = ((sum + 2) >> 2) as u8;
            }
        }
        half
    }

    /// Scaled by a triangle filter as wide as the scale wants: bilinear upwards, a weighted mean downwards.
    pub fn scaled(&self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let (columns, rows) = (Taps::of(self.width, width), Taps::of(self.height, height));
        let view = self.view();
        let narrow: Vec<Vec<f32>> = (0..self.height)
            .map(|y| {
                let row = view.row(y);
                columns.iter().map(|taps| taps.sum(|x| f32::from(row[x]))).collect()
            })
            .collect();
        let mut scaled = Self::new(width, height);
        for (y, taps) in rows.iter().enumerate() {
            for (x, pixel) in scaled.row_mut(y).iter_mut().enumerate() {
                *pixel = taps.sum(|row| narrow[row][x]).round().clamp(0.0, 255.0) as u8;
            }
        }
        scaled
    }
}

/// What one pixel is made of: pixels from `first` on, and how much of each. The parts add up to 1.
struct Taps {
    first: usize,
    parts: Vec<f32>,
}

impl Taps {
    fn of(from: usize, to: usize) -> Vec<Self> {
        let scale = from as f32 / to as f32;
        let reach = scale.max(1.0);
        let taps = (0..to).map(|index| {
            let centre = (index as f32 + 0.5) * scale;
            let first = (centre - reach).floor().max(0.0) as usize;
            let last = ((centre + reach).ceil() as usize).min(from).max(first + 1);
            let part = |at: usize| (1.0 - (at as f32 + 0.5 - centre).abs() / reach).max(0.0);
            let mut parts: Vec<f32> = (first..last).map(part).collect();
            let sum: f32 = parts.iter().sum();
            parts.iter_mut().for_each(|part| *part /= sum);
            Self { first, parts }
        });
        taps.collect()
    }

    fn sum(&self, pixel: impl Fn(usize) -> f32) -> f32 {
        self.parts.iter().enumerate().map(|(index, part)| part * pixel(self.first + index)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize) -> Plane {
        let mut plane = Plane::new(width, height);
        for y in 0..height {
            for (x, pixel) in plane.row_mut(y).iter_mut().enumerate() {
                *pixel = (x * 200 / width + y * 50 / height) as u8;
            }
        }
        plane
    }

    #[test]
    fn a_scaled_ramp_is_a_ramp() {
        for (width, height) in [(640, 360), (248, 139), (37, 21)] {
            let (scaled, expected) = (ramp(320, 180).scaled(width, height), ramp(width, height));
            let off = scaled.bytes.iter().zip(&expected.bytes).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(off <= Some(4), "{width}×{height}: {off:?}");
        }
        assert!((ramp(320, 180).halved().view().mean() - ramp(160, 90).view().mean()).abs() < 1.0);
    }

    #[test]
    fn a_cut_stays_within_its_picture() {
        let plane = ramp(20, 10);
        let cut = plane.view().cut(15, 8, 100, 100).map(|cut| cut.to_plane());
        assert_eq!(
            cut.map(|cut| (cut.width, cut.height, cut.bytes[0])),
            Some((5, 2, plane.bytes[8 * 20 + 15]))
        );
        assert!(plane.view().cut(21, 0, 1, 1).is_none() && plane.view().cut(20, 0, 1, 1).is_none());
        assert!(View::new(&[0; 10], 5, 5, 3).is_none() && View::new(&[0; 10], 4, 5, 2).is_none());
    }
}
