//! Where everyone is seen: from a layout and the pictures in their order to areas of the canvas.
//!
//! Pure arithmetic: the same layout, canvas and pictures give the same areas. Every area is even and within
//! the canvas, and areas do not overlap but where a layout means them to: the small picture over the large
//! one, and boxes that somebody drew so.

use serde::{Deserialize, Serialize};

use super::{Area, Fit, Size};
use crate::core::ids::Identity;
use crate::core::refusal::{Code, Refusal};

/// A layout shows no more pictures than this.
pub const PICTURES_MAX: usize = 25;
/// Of the canvas's width or height; a box's numbers are parts of it.
const WHOLE: u16 = 1_000;
/// A box is no smaller than this each way, or nothing of it would be left on a small canvas.
const BOX_MIN: u16 = 20;
/// Between tiles; less on canvases too small for it.
const GAP_PX: u32 = 8;
/// The strip below a speaker has places for as many, and the one beside a screen for these.
const PLACES_BELOW: u32 = 6;
const PLACES_BESIDE: u32 = 5;

/// How a mixed picture is laid out. Pictures come in the room's order: who speaks now is first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Layout {
    /// Everyone in the same size, up to 25.
    #[default]
    Grid,
    /// The first one large, six others in a strip below.
    Speaker,
    /// The first shared screen large, five others in a strip beside it; without a screen as `speaker`.
    Presenter,
    /// The first one on the whole canvas, the second one small over its lower right corner.
    PictureInPicture,
    /// Boxes of one's own, painted in their order.
    Custom { boxes: Vec<LayoutBox> },
}

/// A place on the canvas for one picture, in thousandths of the canvas's width and height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct LayoutBox {
    pub x: u16,
    pub y: u16,
    pub width: u16,
    pub height: u16,
    /// Kept free for this participant; absent, it is filled in the room's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub participant: Option<Identity>,
    /// Absent: screens are shown whole, cameras fill the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub fit: Option<Fit>,
}

/// One picture that may be shown.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub identity: &'a Identity,
    pub is_screen: bool,
}

impl Seen<'_> {
    /// Nothing of a screen may be cut off, since it may be text.
    fn fit(&self) -> Fit {
        if self.is_screen { Fit::Contain } else { Fit::Cover }
    }
}

/// Where a picture goes. To be painted in the order in which [`arrange`] gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its place among those that [`arrange`] was given.
    pub index: usize,
    pub area: Area,
    pub fit: Fit,
}

impl Layout {
    /// # Errors
    /// [`Code::Malformed`], saying which boxes are accepted.
    pub fn check(&self) -> Result<(), Refusal> {
        let Self::Custom { boxes } = self else { return Ok(()) };
        if !(1..=PICTURES_MAX).contains(&boxes.len()) || !boxes.iter().all(LayoutBox::is_on_canvas) {
            let message = format!(
                "a custom layout has 1 to {PICTURES_MAX} boxes, each at least {BOX_MIN} wide and high, with \
                 x + width and y + height at most {WHOLE}"
            );
            return Err(Refusal::new(Code::Malformed, message));
        }
        Ok(())
    }
}

impl LayoutBox {
    fn is_on_canvas(&self) -> bool {
        let fits = |at: u16, length: u16| {
            length >= BOX_MIN && at.checked_add(length).is_some_and(|end| end <= WHOLE)
        };
        fits(self.x, self.width) && fits(self.y, self.height)
    }

    /// Edges are rounded one by one, so that boxes that touch do so in pixels too.
    fn area(&self, canvas: Size) -> Area {
        let edge = |length: u32, at: u32| even((u64::from(length) * u64::from(at) / u64::from(WHOLE)) as u32);
        let span = |length: u32, at: u16, part: u16| {
            let from = edge(length, u32::from(at).min(u32::from(WHOLE)));
            let to = edge(length, (u32::from(at) + u32::from(part)).min(u32::from(WHOLE)));
            (from, to - from)
        };
        let (x, width) = span(canvas.width, self.x, self.width);
        let (y, height) = span(canvas.height, self.y, self.height);
        Area { x, y, width, height }
    }
}

/// Where each picture is shown, of those that the layout shows; `seen` is in the room's order, best first.
/// Pictures that find no place are not among them.
pub fn arrange(layout: &Layout, canvas: Size, seen: &[Seen]) -> Vec<Placed> {
    let canvas = Size { width: even(canvas.width), height: even(canvas.height) };
    let screen = seen.iter().position(|seen| seen.is_screen);
    let main = screen.unwrap_or_default();
    let mut placed = match layout {
        Layout::Grid => grid(canvas, seen),
        Layout::Presenter if screen.is_some() => strip_beside(canvas, seen, main),
        Layout::Speaker | Layout::Presenter => strip_below(canvas, seen, 0),
        Layout::PictureInPicture => picture_in_picture(canvas, seen),
        Layout::Custom { boxes } => custom(canvas, seen, boxes),
    };
    placed.retain(|placed| placed.area.width > 0 && placed.area.height > 0);
    placed
}

fn even(length: u32) -> u32 {
    length & !1
}

/// Between tiles on this canvas.
fn gap(canvas: Size) -> u32 {
    even(canvas.width.min(canvas.height) / 40).min(GAP_PX)
}

/// The whole of a canvas.
fn whole(canvas: Size) -> Area {
    Area { x: 0, y: 0, width: canvas.width, height: canvas.height }
}

/// The largest 16:9 that fits.
fn widescreen(width: u32, height: u32) -> Size {
    let width = width.min(height * 16 / 9);
    Size { width: even(width), height: even(width * 9 / 16) }
}

fn put(seen: &[Seen], index: usize, area: Area) -> Option<Placed> {
    Some(Placed { index, area, fit: seen.get(index)?.fit() })
}

/// All of one size, as large as any number of columns allows; the last row in the middle.
fn grid(canvas: Size, seen: &[Seen]) -> Vec<Placed> {
    let count = seen.len().min(PICTURES_MAX) as u32;
    if count <= 1 {
        return put(seen, 0, whole(canvas)).into_iter().collect();
    }
    let gap = gap(canvas);
    let tile_of = |columns: u32| {
        let rows = count.div_ceil(columns);
        let width = canvas.width.saturating_sub(gap * (columns - 1)) / columns;
        let height = canvas.height.saturating_sub(gap * (rows - 1)) / rows;
        widescreen(width, height)
    };
    // Of equals the last one found, the widest: rows are read more easily than columns.
    let columns = (1..=count).max_by_key(|columns| tile_of(*columns).width).unwrap_or(1);
    let tile = tile_of(columns);
    let rows = count.div_ceil(columns);
    let top = middle(canvas.height, tile.height, rows, gap);
    let areas = (0..count).map(|index| {
        let (row, column) = (index / columns, index % columns);
        let in_row = columns.min(count - row * columns);
        let left = middle(canvas.width, tile.width, in_row, gap);
        Area {
            x: left + column * (tile.width + gap),
            y: top + row * (tile.height + gap),
            width: tile.width,
            height: tile.height,
        }
    });
    areas.enumerate().filter_map(|(index, area)| put(seen, index, area)).collect()
}

/// Where the first of `count` tiles begins if they are to be in the middle of `length`.
fn middle(length: u32, tile: u32, count: u32, gap: u32) -> u32 {
    even((length - (count * (tile + gap) - gap)) / 2)
}

/// The main picture large, the others below it. The strip's tiles are of one size however many there are, so
/// that nothing moves when somebody comes but the strip itself.
fn strip_below(canvas: Size, seen: &[Seen], main: usize) -> Vec<Placed> {
    let gap = gap(canvas);
    let width = canvas.width.saturating_sub(gap * (PLACES_BELOW - 1)) / PLACES_BELOW;
    let tile = widescreen(width, canvas.height / 4);
    let room = Size { width: canvas.width, height: even(canvas.height - tile.height - gap) };
    let count = (seen.len().saturating_sub(1) as u32).min(PLACES_BELOW);
    if count == 0 {
        return put(seen, main, whole(canvas)).into_iter().collect();
    }
    let left = middle(canvas.width, tile.width, count, gap);
    let strip = (0..count).map(|place| Area {
        x: left + place * (tile.width + gap),
        y: canvas.height - tile.height,
        width: tile.width,
        height: tile.height,
    });
    with_strip(seen, main, room, strip)
}

/// A screen large, the others on its right; below it where the canvas is upright.
fn strip_beside(canvas: Size, seen: &[Seen], main: usize) -> Vec<Placed> {
    if canvas.height > canvas.width {
        return strip_below(canvas, seen, main);
    }
    let gap = gap(canvas);
    let height = canvas.height.saturating_sub(gap * (PLACES_BESIDE - 1)) / PLACES_BESIDE;
    let tile = widescreen(canvas.width / 4, height);
    let room = Size { width: even(canvas.width - tile.width - gap), height: canvas.height };
    let count = (seen.len().saturating_sub(1) as u32).min(PLACES_BESIDE);
    if count == 0 {
        return put(seen, main, whole(canvas)).into_iter().collect();
    }
    let top = middle(canvas.height, tile.height, count, gap);
    let strip = (0..count).map(|place| Area {
        x: canvas.width - tile.width,
        y: top + place * (tile.height + gap),
        width: tile.width,
        height: tile.height,
    });
    with_strip(seen, main, room, strip)
}

/// The main picture in the upper left `room`, the others in their order in the strip.
fn with_strip(seen: &[Seen], main: usize, room: Size, strip: impl Iterator<Item = Area>) -> Vec<Placed> {
    let is_screen = seen.get(main).is_some_and(|seen| seen.is_screen);
    // A camera that filled so wide a room would lose its owner's head.
    let size = if is_screen { room } else { widescreen(room.width, room.height) };
    let area = Area {
        x: middle(room.width, size.width, 1, 0),
        y: middle(room.height, size.height, 1, 0),
        width: size.width,
        height: size.height,
    };
    let others = (0..seen.len()).filter(|index| *index != main);
    let strip = others.zip(strip).filter_map(|(index, area)| put(seen, index, area));
    put(seen, main, area).into_iter().chain(strip).collect()
}

fn picture_in_picture(canvas: Size, seen: &[Seen]) -> Vec<Placed> {
    let margin = 2 * gap(canvas);
    let small = widescreen(canvas.width / 4, canvas.height / 4);
    let corner = Area {
        x: canvas.width.saturating_sub(small.width + margin),
        y: canvas.height.saturating_sub(small.height + margin),
        width: small.width,
        height: small.height,
    };
    [whole(canvas), corner].into_iter().enumerate().filter_map(|(at, area)| put(seen, at, area)).collect()
}

/// A participant who has more pictures than boxes of its own finds places for the rest as others do.
fn custom(canvas: Size, seen: &[Seen], boxes: &[LayoutBox]) -> Vec<Placed> {
    let mut free: Vec<usize> = (0..seen.len()).collect();
    let boxes = boxes.get(..PICTURES_MAX).unwrap_or(boxes);
    let mut chosen: Vec<Option<usize>> = boxes
        .iter()
        .map(|of| {
            let owner = of.participant.as_ref()?;
            let at = free.iter().position(|index| seen.get(*index).is_some_and(|s| s.identity == owner))?;
            Some(free.remove(at))
        })
        .collect();
    let unpinned = chosen.iter_mut().zip(boxes).filter(|(_, of)| of.participant.is_none());
    for ((place, _), index) in unpinned.zip(free) {
        *place = Some(index);
    }
    let placed = chosen.into_iter().zip(boxes).filter_map(|(index, of)| {
        let placed = put(seen, index?, of.area(canvas))?;
        Some(Placed { fit: of.fit.unwrap_or(placed.fit), ..placed })
    });
    placed.collect()
}

#[cfg(test)]
mod tests;
