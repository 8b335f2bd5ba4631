//! How alike two pictures are: PSNR, SSIM and multi-scale SSIM, of the luma.
//!
//! SSIM after Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004),
//! in windows of 8 × 8 pixels every 4, and of several scales after Wang et al., "Multiscale structural
//! similarity" (2003): three of its five, with their weights, since the smallest tiles carry no more.

use serde::{Deserialize, Serialize};

use super::plane::{Plane, View};

const WINDOW: usize = 8;
const STEP: usize = 4;
/// (K1 L)² and (K2 L)² with L = 255.
const C1: f64 = 6.5025;
const C2: f64 = 58.5225;
/// Of the scales from fine to coarse; the paper's first three, which are to add up to 1.
const WEIGHTS: [f64; 3] = [0.0448, 0.2856, 0.3001];
/// Of two pictures that are the same: no error would be infinitely good.
const PSNR_MAX_DB: f64 = 60.0;

/// Means over pairs of pictures.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    pub psnr_db: f64,
    pub ssim: f64,
    /// Multi-scale SSIM of three scales.
    pub ms_ssim: f64,
}

impl Quality {
    /// What a viewer sees against what was sent. None where the two are not of one size, or too small.
    pub fn of(seen: &View<'_>, sent: &View<'_>) -> Option<Self> {
        if (seen.width, seen.height) != (sent.width, sent.height) {
            return None;
        }
        let (ssim, _) = ssim(seen, sent)?;
        Some(Self { psnr_db: psnr(seen, sent), ssim, ms_ssim: ms_ssim(seen, sent)? })
    }

    /// None of nothing.
    pub fn mean(all: &[Self]) -> Option<Self> {
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        (!all.is_empty()).then(|| Self {
            psnr_db: mean(|quality| quality.psnr_db),
            ssim: mean(|quality| quality.ssim),
            ms_ssim: mean(|quality| quality.ms_ssim),
        })
    }
}

fn psnr(a: &View<'_>, b: &View<'_>) -> f64 {
    let squares: u64 = (0..a.height)
        .flat_map(|y| a.row(y).iter().zip(b.row(y)))
        .map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2))
        .sum();
    let mean = squares as f64 / (a.width * a.height) as f64;
    (10.0 * (255.0f64.powi(2) / mean).log10()).min(PSNR_MAX_DB)
}

/// SSIM, and its part without the luminance: contrast and structure. Means over all windows.
fn ssim(a: &View<'_>, b: &View<'_>) -> Option<(f64, f64)> {
    let (mut whole, mut structure, mut windows) = (0.0, 0.0, 0u32);
    for y in (0..=a.height.checked_sub(WINDOW)?).step_by(STEP) {
        for x in (0..=a.width.checked_sub(WINDOW)?).step_by(STEP) {
            let (luminance, rest) = window(a, b, x, y);
            whole += luminance * rest;
            structure += rest;
            windows += 1;
        }
    }
    Some((whole / f64::from(windows), structure / f64::from(windows)))
}

fn window(a: &View<'_>, b: &View<'_>, x: usize, y: usize) -> (f64, f64) {
    let [mut sum_a, mut sum_b, mut aa, mut bb, mut ab] = [0u32; 5];
    for row in y..y + WINDOW {
        for (a, b) in a.row(row)[x..x + WINDOW].iter().zip(&b.row(row)[x..x + WINDOW]) {
            let (a, b) = (u32::from(*a), u32::from(*b));
            sum_a += a;
            sum_b += b;
            aa += a * a;
            bb += b * b;
            ab += a * b;
        }
    }
    let count = (WINDOW * WINDOW) as f64;
    let (mean_a, mean_b) = (f64::from(sum_a) / count, f64::from(sum_b) / count);
    let variance_a = f64::from(aa) / count - mean_a * mean_a;
    let variance_b = f64::from(bb) / count - mean_b * mean_b;
    let covariance = f64::from(ab) / count - mean_a * mean_b;
    let luminance = (2.0 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1);
    (luminance, (2.0 * covariance + C2) / (variance_a + variance_b + C2))
}

fn ms_ssim(a: &View<'_>, b: &View<'_>) -> Option<f64> {
    let sum: f64 = WEIGHTS.iter().sum();
    let mut pair: [Plane; 2] = [a.to_plane(), b.to_plane()];
    let mut product = 1.0;
    for (scale, weight) in WEIGHTS.into_iter().enumerate() {
        let [a, b] = &pair;
        let (whole, structure) = ssim(&a.view(), &b.view())?;
        let of_scale: f64 = if scale + 1 == WEIGHTS.len() { whole } else { structure };
        // What is worse than unlike is as bad as can be.
        product *= of_scale.max(0.0).powf(weight / sum);
        pair = [a.halved(), b.halved()];
    }
    Some(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn textured(shift: usize) -> Plane {
        let mut plane = Plane::new(160, 96);
        for y in 0..plane.height {
            for (x, pixel) in plane.row_mut(y).iter_mut().enumerate() {
                *pixel = 60 + (((x + shift) * 7 + y * 13) % 97) as u8;
            }
        }
        plane
    }

    fn of(seen: &Plane, sent: &Plane) -> Quality {
        Quality::of(&seen.view(), &sent.view()).expect("of one size")
    }

    #[test]
    fn a_picture_is_like_itself() {
        let same = of(&textured(0), &textured(0));
        assert!((same.ssim - 1.0).abs() < 1e-9 && (same.ms_ssim - 1.0).abs() < 1e-9);
        assert!((same.psnr_db - PSNR_MAX_DB).abs() < 1e-9);
    }

    #[test]
    fn psnr_is_as_defined() {
        let mut lighter = textured(0);
        lighter.bytes.iter_mut().for_each(|pixel| *pixel += 10);
        let shifted = of(&lighter, &textured(0));
        // 20 log10(255 / 10)
        assert!((shifted.psnr_db - 28.13).abs() < 0.01, "{shifted:?}");
        // The eye minds lightness least, and so do they.
        assert!(shifted.ssim > 0.97 && shifted.ms_ssim > 0.98, "{shifted:?}");
    }

    #[test]
    fn the_less_alike_the_worse() {
        let sent = textured(0);
        let blurred = sent.scaled(80, 48).scaled(160, 96);
        let mut negative = sent.clone();
        negative.bytes.iter_mut().for_each(|pixel| *pixel = 216 - *pixel);
        let (blurred, other) = (of(&blurred, &sent), of(&negative, &sent));
        assert!(other.ssim < blurred.ssim && blurred.ssim < 0.95, "{other:?} {blurred:?}");
        assert!(other.ms_ssim < blurred.ms_ssim && other.psnr_db < blurred.psnr_db, "{other:?} {blurred:?}");
        assert!(blurred.ms_ssim > blurred.ssim, "what is lost is fine detail: {blurred:?}");
    }

    #[test]
    fn what_cannot_be_compared_is_not() {
        assert_eq!(Quality::of(&textured(0).view(), &Plane::new(10, 10).view()), None);
        assert_eq!(Quality::of(&Plane::new(20, 20).view(), &Plane::new(20, 20).view()), None);
        assert_eq!(Quality::mean(&[]), None);
    }
}
