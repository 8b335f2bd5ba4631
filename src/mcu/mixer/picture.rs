//! Pictures in I420 (planar 4:2:0, 8 bits): ours to paint on, and views of those that decoders own.
//!
//! Everything painted is clipped to the picture, so that no scene, however wrong, writes outside of it.

use crate::core::mix::{Area, Size};

/// Luma and the two colour differences (BT.601, limited range), as WebRTC's codecs take them to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

impl Colour {
    pub const WHITE: Self = Self([235, 128, 128]);
    pub const BLACK: Self = Self([16, 128, 128]);

    /// From 0xRRGGBB.
    pub fn from_rgb(rgb: u32) -> Self {
        let [_, r, g, b] = rgb.to_be_bytes().map(i32::from);
        let part = |r_part: i32, g_part: i32, b_part: i32, base: i32| {
            let sum = (r_part * r + g_part * g + b_part * b + 128) >> 8;
            (sum + base).clamp(0, 255) as u8
        };
        Self([part(66, 129, 25, 16), part(-38, -74, 112, 128), part(112, -94, -18, 128)])
    }
}

/// One component of a picture that another owns.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    pub bytes: &'a [u8],
    /// Bytes from a row to the next.
    pub stride: usize,
    pub width: usize,
    pub height: usize,
}

impl<'a> Plane<'a> {
    /// A row; an empty one where the plane holds fewer bytes than it says.
    #[inline]
    pub fn row(&self, y: usize) -> &'a [u8] {
        let start = y * self.stride;
        self.bytes.get(start..start + self.width).unwrap_or_default()
    }

    fn part(self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let bytes = self.bytes.get(y * self.stride + x..).unwrap_or_default();
        Self { bytes, stride: self.stride, width, height }
    }
}

/// A picture that another owns.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub planes: [Plane<'a>; 3],
}

impl View<'_> {
    pub fn width(&self) -> usize {
        self.planes[0].width
    }

    pub fn height(&self) -> usize {
        self.planes[0].height
    }

    /// The middle of it that has the shape of `area`, for [`Fit::Cover`](crate::core::mix::Fit::Cover).
    pub fn cover(self, width: usize, height: usize) -> Self {
        let (own_width, own_height) = (self.width(), self.height());
        let (mut cut_width, mut cut_height) = (own_width, own_height);
        if own_width * height > own_height * width {
            cut_width = own_height * width / height.max(1);
        } else {
            cut_height = own_width * height / width.max(1);
        }
        // Two or three columns are no reason to scale what fits as it is.
        let even = |cut: usize, own: usize| if own - cut < 4 { own } else { (cut & !1).max(2) };
        self.middle(even(cut_width, own_width), even(cut_height, own_height))
    }

    fn middle(self, width: usize, height: usize) -> Self {
        if (width, height) == (self.width(), self.height()) {
            return self;
        }
        let (x, y) = ((self.width() - width) / 4 * 2, (self.height() - height) / 4 * 2);
        let [luma, blue, red] = self.planes;
        let half = |plane: Plane<'_>| {
            (x / 2, y / 2, width.div_ceil(2).min(plane.width), height.div_ceil(2).min(plane.height))
        };
        let (cx, cy, cw, ch) = half(blue);
        Self { planes: [luma.part(x, y, width, height), blue.part(cx, cy, cw, ch), red.part(cx, cy, cw, ch)] }
    }
}

/// Something that holds a picture.
pub trait Pixels: Send + Sync {
    fn view(&self) -> View<'_>;
}

/// How much of a colour covers each pixel, 0 to 255: a line of text, a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    pub width: usize,
    pub height: usize,
    pub alpha: Vec<u8>,
}

impl Mask {
    fn at(&self, x: usize, y: usize) -> u32 {
        if x < self.width && y < self.height { u32::from(self.alpha[y * self.width + x]) } else { 0 }
    }
}

/// A picture of ours. Rows begin at multiples of four bytes, as GStreamer has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    size: Size,
    strides: [usize; 2],
    bytes: Vec<u8>,
}

impl Picture {
    /// A black one. Odd sizes are rounded up.
    pub fn new(size: Size) -> Self {
        let size = Size { width: size.width.next_multiple_of(2), height: size.height.next_multiple_of(2) };
        let (width, height) = (size.width as usize, size.height as usize);
        let strides = [width.next_multiple_of(4), (width / 2).next_multiple_of(4)];
        let mut bytes = vec![16; strides[0] * height];
        bytes.resize(bytes.len() + strides[1] * height, 128);
        Self { size, strides, bytes }
    }

    pub fn size(&self) -> Size {
        self.size
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All of it.
    pub fn area(&self) -> Area {
        Area { x: 0, y: 0, width: self.size.width, height: self.size.height }
    }

    /// Row `y` of a plane, 0 to 2, to be written; of the plane's own height.
    #[inline]
    pub fn row_mut(&mut self, plane: usize, y: usize) -> &mut [u8] {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let [luma, chroma] = self.strides;
        let (start, width) = match plane {
            0 => (y * luma, width),
            1 => (luma * height + y * chroma, width / 2),
            _ => (luma * height + chroma * (height / 2) + y * chroma, width / 2),
        };
        self.bytes.get_mut(start..start + width).unwrap_or_default()
    }

    /// The part of an area that is in the picture, on even pixels.
    pub fn clip(&self, area: Area) -> Area {
        let (x, y) = (area.x.min(self.size.width) & !1, area.y.min(self.size.height) & !1);
        let width = area.width.min(self.size.width - x) & !1;
        let height = area.height.min(self.size.height - y) & !1;
        Area { x, y, width, height }
    }

    /// Runs over the rows of an area's three planes.
    fn each_row(&mut self, area: Area, mut paint: impl FnMut(usize, &mut [u8])) {
        let area = self.clip(area);
        for plane in 0..3 {
            let shift = u32::from(plane > 0);
            let (x, width) = ((area.x >> shift) as usize, (area.width >> shift) as usize);
            for y in area.y >> shift..(area.y + area.height) >> shift {
                paint(plane, &mut self.row_mut(plane, y as usize)[x..x + width]);
            }
        }
    }

    pub fn fill(&mut self, area: Area, colour: Colour) {
        self.each_row(area, |plane, row| row.fill(colour.0[plane]));
    }

    /// Lays a colour over an area, `alpha` of 255 strong.
    pub fn shade(&mut self, area: Area, colour: Colour, alpha: u8) {
        self.each_row(area, |plane, row| {
            for pixel in row {
                *pixel = mixed(*pixel, colour.0[plane], u32::from(alpha));
            }
        });
    }

    /// A frame inside the edges of an area.
    pub fn border(&mut self, area: Area, thickness: u32, colour: Colour) {
        let Area { x, y, width, height } = self.clip(area);
        let (across, down) = (thickness.min(width), thickness.min(height));
        self.fill(Area { x, y, width, height: down }, colour);
        self.fill(Area { x, y: y + height - down, width, height: down }, colour);
        self.fill(Area { x, y, width: across, height }, colour);
        self.fill(Area { x: x + width - across, y, width: across, height }, colour);
    }

    /// Copies a picture's upper left part into an area, as much as both hold.
    pub fn copy(&mut self, area: Area, from: &View<'_>) {
        let area = self.clip(area);
        for plane in 0..3 {
            let shift = u32::from(plane > 0);
            let (x, y) = ((area.x >> shift) as usize, (area.y >> shift) as usize);
            let source = &from.planes[plane];
            let width = ((area.width >> shift) as usize).min(source.width);
            for row in 0..((area.height >> shift) as usize).min(source.height) {
                let pixels = source.row(row);
                let width = width.min(pixels.len());
                self.row_mut(plane, y + row)[x..x + width].copy_from_slice(&pixels[..width]);
            }
        }
    }

    /// Lays a colour over an area where a mask says; the mask begins at the area's upper left.
    pub fn stamp(&mut self, area: Area, mask: &Mask, colour: Colour) {
        let (width, height) = (mask.width.next_multiple_of(2), mask.height.next_multiple_of(2));
        let area =
            Area { width: area.width.min(width as u32), height: area.height.min(height as u32), ..area };
        let area = self.clip(area);
        let (left, top) = (area.x as usize, area.y as usize);
        for y in 0..area.height as usize {
            let row = &mut self.row_mut(0, top + y)[left..left + area.width as usize];
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel = mixed(*pixel, colour.0[0], mask.at(x, y));
            }
        }
        for plane in 1..3 {
            for y in 0..area.height as usize / 2 {
                let row = &mut self.row_mut(plane, top / 2 + y)[left / 2..(left + area.width as usize) / 2];
                for (x, pixel) in row.iter_mut().enumerate() {
                    let (x, y) = (2 * x, 2 * y);
                    let sum = mask.at(x, y) + mask.at(x + 1, y) + mask.at(x, y + 1) + mask.at(x + 1, y + 1);
                    *pixel = mixed(*pixel, colour.0[plane], sum / 4);
                }
            }
        }
    }
}

impl Pixels for Picture {
    fn view(&self) -> View<'_> {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let [luma, chroma] = self.strides;
        let (bytes, rest) = self.bytes.split_at(luma * height);
        let (blue, red) = rest.split_at(chroma * (height / 2));
        let half = |bytes| Plane { bytes, stride: chroma, width: width / 2, height: height / 2 };
        View { planes: [Plane { bytes, stride: luma, width, height }, half(blue), half(red)] }
    }
}

/// `alpha` of 255 parts of `over`, the rest of `under`.
#[inline]
fn mixed(under: u8, over: u8, alpha: u32) -> u8 {
    ((u32::from(under) * (255 - alpha) + u32::from(over) * alpha + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Colour = Colour([81, 90, 240]);

    fn area(x: u32, y: u32, width: u32, height: u32) -> Area {
        Area { x, y, width, height }
    }

    fn at(picture: &Picture, x: usize, y: usize) -> [u8; 3] {
        let view = picture.view();
        [view.planes[0].row(y)[x], view.planes[1].row(y / 2)[x / 2], view.planes[2].row(y / 2)[x / 2]]
    }

    #[test]
    fn colours_are_those_of_bt_601() {
        assert_eq!(Colour::from_rgb(0xffffff), Colour::WHITE);
        assert_eq!(Colour::from_rgb(0x000000), Colour::BLACK);
        let Colour(red) = Colour::from_rgb(0xff0000);
        assert!(red.iter().zip(RED.0).all(|(a, b)| a.abs_diff(b) <= 1), "{red:?}");
    }

    #[test]
    fn what_is_painted_stays_in_its_area_and_in_the_picture() {
        let mut picture = Picture::new(Size { width: 18, height: 10 });
        picture.fill(area(4, 2, 6, 4), RED);
        assert_eq!(at(&picture, 4, 2), RED.0);
        assert_eq!(at(&picture, 9, 5), RED.0);
        for (x, y) in [(3, 2), (10, 2), (4, 1), (4, 6)] {
            assert_eq!(at(&picture, x, y), Colour::BLACK.0, "{x} {y}");
        }
        for wild in [area(16, 8, 100, 100), area(u32::MAX - 1, 0, 4, 4), area(0, 0, u32::MAX, u32::MAX)] {
            picture.fill(wild, RED);
            picture.shade(wild, RED, 90);
            picture.border(wild, 4, RED);
            let view_of = Picture::new(Size { width: 40, height: 40 });
            picture.copy(wild, &view_of.view());
            picture.stamp(wild, &Mask { width: 3, height: 3, alpha: vec![255; 9] }, RED);
        }
    }

    #[test]
    fn a_mask_lays_its_colour_where_it_covers() {
        let mut picture = Picture::new(Size { width: 8, height: 8 });
        let mask = Mask { width: 4, height: 2, alpha: vec![255, 255, 0, 0, 255, 255, 0, 0] };
        picture.stamp(area(2, 2, 4, 2), &mask, Colour::WHITE);
        assert_eq!(at(&picture, 2, 2), Colour::WHITE.0);
        assert_eq!(at(&picture, 4, 2), Colour::BLACK.0);
        picture.shade(area(0, 0, 8, 8), Colour::WHITE, 128);
        let [grey, ..] = at(&picture, 0, 0);
        assert!((124..=128).contains(&grey), "{grey}");
    }

    #[test]
    fn a_cover_has_the_shape_asked_for_and_comes_from_the_middle() {
        let mut picture = Picture::new(Size { width: 64, height: 48 });
        picture.fill(area(16, 0, 32, 48), RED);
        let narrow = picture.view().cover(20, 30);
        assert_eq!((narrow.width(), narrow.height()), (32, 48));
        assert!(narrow.planes[0].row(0).iter().all(|pixel| *pixel == RED.0[0]));
        assert!(narrow.planes[2].row(23).iter().all(|pixel| *pixel == RED.0[2]));
        let flat = picture.view().cover(640, 120);
        assert_eq!((flat.width(), flat.height()), (64, 12));
        let same = picture.view().cover(640, 480);
        assert_eq!((same.width(), same.height()), (64, 48));
        let none = picture.view().cover(0, 0);
        assert!(none.width() >= 2 && none.height() >= 2);
    }
}
