//! Paints a scene: each tile's newest picture or its owner's avatar, moved where it belongs, with a name, a
//! sign for a microphone that is off and a frame for who speaks.
//!
//! Time, pictures and text masks arrive as arguments; nothing here waits. What was scaled is kept until its
//! picture or its place changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::label::{Line, Typesetter};
use super::picture::{Colour, Picture, Pixels};
use super::scale::Scaler;
use super::sign;
use crate::core::mix::{Area, Fit, Scene, Size, Tile};

/// A tile takes this long to its new place.
const MOVE_TIME: Duration = Duration::from_millis(250);
/// A sender that stopped is seen this long, then its avatar.
const HOLD_TIME: Duration = Duration::from_secs(2);
const SPEAKING: u32 = 0x4ade80;
const SPEAKING_PX: u32 = 4;
/// Behind a name, of 255.
const STRIP_ALPHA: u8 = 150;
/// Calm, and dark enough for white letters.
const PALETTE: [u32; 8] = [0x3f5f8a, 0x4f7a5b, 0x7a5a86, 0x8a5a4a, 0x3f7a80, 0x6b6f3c, 0x8a4f66, 0x565a73];

/// A decoded picture.
pub struct Frame {
    /// No two frames have the same.
    pub serial: u64,
    pub arrived: Instant,
    pub pixels: Box<dyn Pixels>,
}

struct Scaled {
    serial: u64,
    picture: Picture,
}

/// A tile and how far it has come.
struct Shown {
    tile: Tile,
    from: Area,
    since: Instant,
    scaler: Scaler,
    scaled: Option<Scaled>,
}

/// Paints one scene after another.
#[derive(Default)]
pub struct Painter {
    background: u32,
    /// Over that colour, and what of it covers the canvas.
    backdrop: Option<Box<dyn Pixels>>,
    covering: Option<Picture>,
    shown: Vec<Shown>,
}

/// Of an avatar: 0xRRGGBB.
pub fn avatar_colour(label: &str) -> u32 {
    // FNV-1a: the same name has the same colour on every node.
    let hash =
        label.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    PALETTE[(hash >> 16) as usize % PALETTE.len()]
}

/// First letters of the first and the last word.
fn initials(label: &str) -> String {
    let mut words = label.split_whitespace().filter_map(|word| word.chars().find(|c| c.is_alphanumeric()));
    let first = words.next();
    first.into_iter().chain(words.next_back()).flat_map(char::to_uppercase).collect()
}

impl Painter {
    pub fn set_scene(&mut self, scene: &Scene, now: Instant) {
        self.background = scene.background;
        let mut before = std::mem::take(&mut self.shown);
        let shown = scene.tiles.iter().map(|tile| {
            let place = before.iter().position(|shown| shown.tile.key == tile.key);
            match place.map(|place| before.swap_remove(place)) {
                Some(shown) => shown.moved_to(tile.clone(), now),
                None => Shown::new(tile.clone(), now),
            }
        });
        self.shown = shown.collect();
    }

    /// What lies behind the tiles, as large as it takes to cover the canvas.
    pub fn set_backdrop(&mut self, backdrop: Option<Box<dyn Pixels>>) {
        (self.backdrop, self.covering) = (backdrop, None);
    }

    fn paint_background(&mut self, canvas: &mut Picture) {
        let (size, area) = (canvas.size(), canvas.area());
        let Some(backdrop) = &self.backdrop else {
            return canvas.fill(area, Colour::from_rgb(self.background));
        };
        let kept = self.covering.take().filter(|covering| covering.size() == size);
        let covering = kept.unwrap_or_else(|| {
            let mut covering = Picture::new(size);
            let view = backdrop.view().cover(size.width as usize, size.height as usize);
            Scaler::default().scale(&view, &mut covering);
            covering
        });
        canvas.copy(area, &covering.view());
        self.covering = Some(covering);
    }

    /// Paints all of the canvas. `newest` gives a slot's picture.
    pub fn paint(
        &mut self,
        canvas: &mut Picture,
        newest: &dyn Fn(u16) -> Option<Arc<Frame>>,
        typesetter: &dyn Typesetter,
        now: Instant,
    ) {
        self.paint_background(canvas);
        for shown in &mut self.shown {
            let area = canvas.clip(shown.area(now));
            if area.width < 2 || area.height < 2 {
                continue;
            }
            let frame = shown.tile.slot.and_then(newest);
            // A screen on which nothing moves sends nothing.
            let holds = shown.tile.fit == Fit::Contain;
            let is_fresh = |frame: &Arc<Frame>| now.saturating_duration_since(frame.arrived) < HOLD_TIME;
            match frame.filter(|frame| holds || is_fresh(frame)) {
                Some(frame) => shown.paint_frame(canvas, area, &frame),
                None => paint_avatar(canvas, area, &shown.tile, typesetter),
            }
            paint_strip(canvas, area, &shown.tile, typesetter);
            if shown.tile.speaking {
                canvas.border(area, SPEAKING_PX, Colour::from_rgb(SPEAKING));
            }
        }
    }
}

impl Shown {
    fn new(tile: Tile, now: Instant) -> Self {
        Self { from: tile.area, tile, since: now, scaler: Scaler::default(), scaled: None }
    }

    fn moved_to(self, tile: Tile, now: Instant) -> Self {
        if tile.area == self.tile.area {
            return Self { tile, ..self };
        }
        Self { from: self.area(now), since: now, tile, ..self }
    }

    /// Where it is now: fast at first, slowly into its place.
    fn area(&self, now: Instant) -> Area {
        let part = now.saturating_duration_since(self.since).as_secs_f32() / MOVE_TIME.as_secs_f32();
        if part >= 1.0 || self.from == self.tile.area {
            return self.tile.area;
        }
        let done = 1.0 - (1.0 - part).powi(3);
        let between = |from: u32, to: u32| {
            let at = from as f32 + (to as f32 - from as f32) * done;
            (at.round() as u32) & !1
        };
        let (from, to) = (self.from, self.tile.area);
        Area {
            x: between(from.x, to.x),
            y: between(from.y, to.y),
            width: between(from.width, to.width),
            height: between(from.height, to.height),
        }
    }

    fn paint_frame(&mut self, canvas: &mut Picture, area: Area, frame: &Frame) {
        let whole = frame.pixels.view();
        let (view, place) = match self.tile.fit {
            Fit::Cover => (whole.cover(area.width as usize, area.height as usize), area),
            Fit::Contain => (whole, contained(area, whole.width() as u32, whole.height() as u32)),
        };
        if place != area {
            canvas.fill(area, Colour::BLACK);
        }
        let size = Size { width: place.width, height: place.height };
        if (view.width(), view.height()) == (size.width as usize, size.height as usize) {
            return canvas.copy(place, &view);
        }
        let kept = self.scaled.take().filter(|scaled| scaled.picture.size() == size);
        let is_fresh = kept.as_ref().is_some_and(|scaled| scaled.serial == frame.serial);
        let mut picture = kept.map_or_else(|| Picture::new(size), |scaled| scaled.picture);
        if !is_fresh {
            self.scaler.scale(&view, &mut picture);
        }
        canvas.copy(place, &picture.view());
        self.scaled = Some(Scaled { serial: frame.serial, picture });
    }
}

/// The largest area of a picture's shape in the middle of another.
fn contained(area: Area, width: u32, height: u32) -> Area {
    let (width, height) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let (across, down) = (u64::from(area.width), u64::from(area.height));
    let (mut inner_width, mut inner_height) = (across, down);
    if width * down > height * across {
        inner_height = (across * height / width).next_multiple_of(2).clamp(2, down);
    } else {
        inner_width = (down * width / height).next_multiple_of(2).clamp(2, across);
    }
    let (inner_width, inner_height) = (inner_width as u32, inner_height as u32);
    Area {
        x: area.x + even((area.width - inner_width) / 2),
        y: area.y + even((area.height - inner_height) / 2),
        width: inner_width,
        height: inner_height,
    }
}

/// The even number at or below it: chroma is half as fine.
fn even(pixels: u32) -> u32 {
    pixels & !1
}

fn paint_avatar(canvas: &mut Picture, area: Area, tile: &Tile, typesetter: &dyn Typesetter) {
    canvas.fill(area, Colour::from_rgb(avatar_colour(&tile.label)));
    let text = initials(&tile.label);
    if text.is_empty() {
        return;
    }
    // By where the tile will be: a size for each step of its way there would be rendered in vain.
    let font_px = (tile.area.height.min(tile.area.width) / 3).clamp(16, 200) & !1;
    let line = Line { text, font_px, width_max: tile.area.width.max(2) };
    let Some(mask) = typesetter.mask(&line) else { return };
    let (width, height) = (mask.width as u32, mask.height as u32);
    if width > area.width || height > area.height {
        return;
    }
    let x = area.x + even((area.width - width) / 2);
    let y = area.y + even((area.height - height) / 2);
    canvas.stamp(Area { x, y, width: area.width, height: area.height }, &mask, Colour::WHITE);
}

/// The name and the sign, on a dark strip at the tile's lower left.
fn paint_strip(canvas: &mut Picture, area: Area, tile: &Tile, typesetter: &dyn Typesetter) {
    let font_px = (tile.area.height / 18).clamp(12, 28) & !1;
    let gap = font_px / 4 * 2;
    let sign_px = font_px;
    let sign_width = if tile.muted { sign_px + gap } else { 0 };
    let room = (tile.area.width.saturating_sub(4 * gap + sign_width)).max(2);
    let line = Line { text: tile.label.clone(), font_px, width_max: room };
    let mask = if tile.label.is_empty() { None } else { typesetter.mask(&line) };
    let text_width = mask.as_ref().map_or(0, |mask| mask.width as u32 + gap).next_multiple_of(2);
    let (width, height) = (gap + sign_width + text_width, line.height());
    let fits = width + 2 * gap <= area.width && height + 2 * gap <= area.height;
    if sign_width + text_width == 0 || !fits {
        return;
    }
    let strip = Area { x: area.x + gap, y: area.y + area.height - gap - height, width, height };
    canvas.shade(strip, Colour::BLACK, STRIP_ALPHA);
    let mut x = strip.x + gap;
    if tile.muted {
        let y = strip.y + even((height - sign_px) / 2);
        canvas.stamp(
            Area { x, y, width: sign_px, height: sign_px },
            &sign::muted(sign_px as usize),
            Colour::WHITE,
        );
        x += sign_width;
    }
    if let Some(mask) = mask {
        canvas.stamp(Area { x, y: strip.y, width: text_width, height }, &mask, Colour::WHITE);
    }
}

#[cfg(test)]
mod tests;
