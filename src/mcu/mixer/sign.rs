//! The sign on a tile whose microphone is off, drawn from its outlines at any size.

use super::picture::Mask;

/// Points looked at along each side of a pixel.
const SAMPLES: usize = 4;

/// A microphone, struck through, `size` pixels wide and high.
pub fn muted(size: usize) -> Mask {
    let mut alpha = Vec::with_capacity(size * size);
    for y in 0..size {
        for x in 0..size {
            let points = (0..SAMPLES * SAMPLES).map(|index| {
                let at = |pixel: usize, part: usize| {
                    (pixel as f32 + (part as f32 + 0.5) / SAMPLES as f32) / size as f32
                };
                (at(x, index % SAMPLES), at(y, index / SAMPLES))
            });
            let covered = points.filter(|(x, y)| is_inked(*x, *y)).count();
            alpha.push((covered * 255 / (SAMPLES * SAMPLES)) as u8);
        }
    }
    Mask { width: size, height: size, alpha }
}

/// Of a square from 0 to 1, y downwards.
fn is_inked(x: f32, y: f32) -> bool {
    let stroke = distance((x, y), (0.16, 0.12), (0.84, 0.88));
    if stroke < 0.11 {
        // The stroke, and a gap on either side of it.
        return stroke < 0.05;
    }
    let capsule = distance((x, y), (0.5, 0.24), (0.5, 0.46)) < 0.15;
    let radius = (x - 0.5).hypot(y - 0.46);
    let holder = (0.23..0.30).contains(&radius) && y > 0.46;
    let stem = (x - 0.5).abs() < 0.035 && (0.72..0.88).contains(&y);
    let foot = (x - 0.5).abs() < 0.17 && (0.85..0.92).contains(&y);
    capsule || holder || stem || foot
}

/// From a point to a line between two others.
fn distance((x, y): (f32, f32), (x0, y0): (f32, f32), (x1, y1): (f32, f32)) -> f32 {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (x - x0 - along * dx).hypot(y - y0 - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_has_ink_and_paper_at_every_size() {
        for size in [0, 1, 12, 16, 28, 64] {
            let mask = muted(size);
            assert_eq!(mask.alpha.len(), size * size);
            if size > 8 {
                let inked = mask.alpha.iter().filter(|alpha| **alpha > 128).count();
                assert!((size * size / 10..size * size / 2).contains(&inked), "{inked} of {size} squared");
                assert_eq!(mask.alpha[size - 1], 0);
            }
        }
    }
}
