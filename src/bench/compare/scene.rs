//! The picture that everybody sends: somebody who talks in front of a wall, with a camera's noise and the
//! clock. The same number always gives the same picture, so what was sent need not be kept.

use super::clock;
use super::plane::Plane;

pub const WIDTH: usize = 1280;
pub const HEIGHT: usize = 720;
const TEXTURE_LEN: usize = 512;
const NOISE_LEN: usize = 1 << 16;
/// Of the camera's noise, at most.
const NOISE: i32 = 2;

/// Three planes in 4:2:0.
pub struct Picture {
    pub planes: [Plane; 3],
}

impl Picture {
    pub fn halved(&self) -> Self {
        Self { planes: self.planes.each_ref().map(Plane::halved) }
    }
}

/// Paints frames.
pub struct Scene {
    /// Spots of all sizes, as cloth, skin and plaster have them.
    texture: Plane,
    noise: Vec<i8>,
}

/// An ellipse that moves: part of the person.
struct Part {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    /// Lightness without the texture, and the two colour differences.
    colour: [u8; 3],
    /// How much of the texture, of 256.
    rough: i32,
}

impl Default for Scene {
    fn default() -> Self {
        let mut random = Random(7);
        let noise = (0..NOISE_LEN).map(|_| (random.next() as i32 % (2 * NOISE + 1) - NOISE) as i8);
        Self { noise: noise.collect(), texture: texture(&mut random) }
    }
}

/// A linear congruential generator (Numerical Recipes): reproducible, and good enough for plaster.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 16
    }
}

/// Grids of random values, from 4 × 4 to 128 × 128, scaled up and added with less and less weight.
fn texture(random: &mut Random) -> Plane {
    let mut sums = vec![0f32; TEXTURE_LEN * TEXTURE_LEN];
    let mut weight = 0.5;
    for cells in [4, 8, 16, 32, 64, 128] {
        let mut grid = Plane::new(cells, cells);
        grid.bytes.iter_mut().for_each(|cell| *cell = random.next() as u8);
        let large = grid.scaled(TEXTURE_LEN, TEXTURE_LEN);
        sums.iter_mut().zip(&large.bytes).for_each(|(sum, value)| *sum += weight * f32::from(*value));
        weight *= 0.6;
    }
    let bytes = sums.into_iter().map(|sum| sum.clamp(0.0, 255.0) as u8).collect();
    Plane { width: TEXTURE_LEN, height: TEXTURE_LEN, bytes }
}

/// The person at a moment: shoulders, head, mouth, in the order in which they are painted.
fn person(frame: u32, frames_per_second: u32) -> [Part; 3] {
    let seconds = f64::from(frame) / f64::from(frames_per_second);
    let wave = |hertz: f64| (seconds * hertz * std::f64::consts::TAU).sin();
    let (x, y) = (640.0 + 55.0 * wave(0.31), 380.0 + 22.0 * wave(0.53));
    let mouth = 10.0 + 16.0 * (0.5 + 0.5 * wave(2.3)) * (0.6 + 0.4 * wave(0.7));
    [
        Part {
            x: x * 0.4 + 384.0,
            y: 800.0,
            width: 360.0,
            height: 260.0,
            colour: [60, 140, 120],
            rough: 110,
        },
        Part { x, y, width: 150.0, height: 205.0, colour: [95, 112, 148], rough: 90 },
        Part { x, y: y + 105.0, width: 48.0, height: mouth, colour: [40, 118, 160], rough: 30 },
    ]
}

impl Part {
    /// First column and the one after the last, in a row of the whole picture.
    fn span(&self, y: f64) -> Option<(usize, usize)> {
        let part = (y - self.y) / self.height;
        let half = self.width * (1.0 - part * part).max(0.0).sqrt();
        let edge = |x: f64| x.clamp(0.0, WIDTH as f64) as usize;
        let (from, to) = (edge(self.x - half), edge(self.x + half));
        (part.abs() < 1.0 && from < to).then_some((from, to))
    }
}

impl Scene {
    /// Frame `number`, its clock included.
    pub fn paint(&self, number: u32, frames_per_second: u32) -> Picture {
        let [mut luma, mut blue, mut red] =
            [(WIDTH, HEIGHT), (WIDTH / 2, HEIGHT / 2), (WIDTH / 2, HEIGHT / 2)]
                .map(|(width, height)| Plane::new(width, height));
        let person = person(number, frames_per_second);
        blue.bytes.fill(126);
        red.bytes.fill(122);
        let mut random = Random(number.wrapping_mul(2_654_435_761));
        for y in 0..HEIGHT {
            let row = luma.row_mut(y);
            self.texture_row(row, 0, y, [70, 100]);
            for part in &person {
                let Some((from, to)) = part.span(y as f64) else { continue };
                // The texture moves with its part.
                let (across, down) = (part.x as usize + TEXTURE_LEN, part.y as usize);
                let shift = TEXTURE_LEN * 4 + from - across % TEXTURE_LEN;
                let texture_y = TEXTURE_LEN * 4 + y - down % TEXTURE_LEN;
                let kind = [i32::from(part.colour[0]), part.rough];
                self.texture_row(&mut row[from..to], shift, texture_y, kind);
                if y % 2 == 0 {
                    blue.row_mut(y / 2)[from / 2..to / 2].fill(part.colour[1]);
                    red.row_mut(y / 2)[from / 2..to / 2].fill(part.colour[2]);
                }
            }
            let start = random.next() as usize % (NOISE_LEN - WIDTH);
            for (pixel, noise) in row.iter_mut().zip(&self.noise[start..]) {
                *pixel = pixel.saturating_add_signed(*noise);
            }
        }
        clock::write(number, &mut luma);
        Picture { planes: [luma, blue, red] }
    }

    /// A stretch of texture: lightness and roughness of `kind`.
    fn texture_row(&self, row: &mut [u8], x: usize, y: usize, [light, rough]: [i32; 2]) {
        let view = self.texture.view();
        let texture = view.row(y % TEXTURE_LEN);
        let columns = texture.iter().cycle().skip(x % TEXTURE_LEN);
        for (pixel, texel) in row.iter_mut().zip(columns) {
            *pixel = (light + ((i32::from(*texel) * rough) >> 8)).clamp(16, 235) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::quality::Quality;
    use super::*;

    #[test]
    fn frames_are_numbered_differ_and_repeat() {
        let scene = Scene::default();
        let luma = |number| scene.paint(number, 30).planes[0].clone();
        let [first, next, later] = [luma(10), luma(11), luma(40)];
        assert_eq!(clock::read(&later.view()), Some(40));
        assert_eq!(first, luma(10));
        let likeness = |other: &Plane| Quality::of(&other.view(), &first.view()).expect("of one size").ssim;
        assert!(likeness(&later) < likeness(&next) && likeness(&next) < 1.0);
    }
}
