//! What a scene looks like on the canvas.

use super::super::picture::Mask;
use super::*;

const RED: Colour = Colour([81, 90, 240]);
const GREEN: Colour = Colour([145, 54, 34]);

/// Text is a full box, half as high as its line.
struct Boxes;

impl Typesetter for Boxes {
    fn mask(&self, line: &Line) -> Option<Arc<Mask>> {
        let (width, height) = (20, line.height() as usize);
        Some(Arc::new(Mask { width, height, alpha: vec![255; width * height] }))
    }
}

fn tile(key: u32, slot: Option<u16>, area: [u32; 4]) -> Tile {
    let [x, y, width, height] = area;
    let area = Area { x, y, width, height };
    let label = String::new();
    let (fit, sound) = (Fit::Cover, None);
    Tile { key, slot, serial: 1, sound, area, fit, label, muted: false, speaking: false }
}

fn scene(tiles: Vec<Tile>) -> Scene {
    Scene { background: 0x000000, tiles, voices: Vec::new() }
}

/// Left half red, right half green.
fn frame(serial: u64, arrived: Instant, width: u32, height: u32) -> Arc<Frame> {
    let mut picture = Picture::new(Size { width, height });
    picture.fill(Area { x: 0, y: 0, width: width / 2, height }, RED);
    picture.fill(Area { x: width / 2, y: 0, width: width / 2, height }, GREEN);
    Arc::new(Frame { serial, arrived, pixels: Box::new(picture) })
}

struct Stand {
    painter: Painter,
    canvas: Picture,
    frames: Vec<(u16, Arc<Frame>)>,
}

impl Stand {
    fn new() -> Self {
        let canvas = Picture::new(Size { width: 640, height: 360 });
        Self { painter: Painter::default(), canvas, frames: Vec::new() }
    }

    fn paint(&mut self, now: Instant) {
        let newest =
            |slot| self.frames.iter().find(|(of, _)| *of == slot).map(|(_, frame)| Arc::clone(frame));
        self.painter.paint(&mut self.canvas, &newest, &Boxes, now);
    }

    fn at(&self, x: usize, y: usize) -> Colour {
        let view = self.canvas.view();
        let [luma, blue, red] = view.planes;
        Colour([luma.row(y)[x], blue.row(y / 2)[x / 2], red.row(y / 2)[x / 2]])
    }
}

#[test]
fn a_picture_fills_its_area_or_is_seen_whole() {
    let now = Instant::now();
    let mut stand = Stand::new();
    stand.frames.push((1, frame(1, now, 320, 320)));
    let mut whole = tile(2, Some(1), [320, 0, 320, 180]);
    whole.fit = Fit::Contain;
    stand.painter.set_scene(&scene(vec![tile(1, Some(1), [0, 0, 320, 180]), whole]), now);
    stand.paint(now);
    assert_eq!((stand.at(0, 0), stand.at(319, 179)), (RED, GREEN));
    // The square has bars of 70 on either side.
    assert_eq!((stand.at(380, 90), stand.at(400, 90)), (Colour::BLACK, RED));
    assert_eq!((stand.at(560, 90), stand.at(575, 90)), (GREEN, Colour::BLACK));
    assert_eq!(stand.at(100, 300), Colour::BLACK);
}

#[test]
fn without_pictures_or_after_their_end_the_avatar_is_seen() {
    let start = Instant::now();
    let mut stand = Stand::new();
    stand.frames.push((1, frame(1, start, 640, 360)));
    let mut named = tile(1, Some(1), [0, 0, 320, 180]);
    named.label = "Ada Lovelace".into();
    let avatar = Colour::from_rgb(avatar_colour("Ada Lovelace"));
    stand.painter.set_scene(&scene(vec![named.clone()]), start);
    stand.paint(start + Duration::from_millis(1_900));
    assert_eq!(stand.at(10, 10), RED);
    stand.paint(start + Duration::from_millis(2_100));
    assert_eq!(stand.at(10, 10), avatar);
    assert_eq!(stand.at(160, 90), Colour::WHITE, "initials");
    named.slot = None;
    stand.painter.set_scene(&scene(vec![named]), start);
    stand.paint(start);
    assert_eq!(stand.at(10, 10), avatar);
}

#[test]
fn a_tile_moves_to_its_new_place_and_others_stay() {
    let start = Instant::now();
    let mut stand = Stand::new();
    stand.frames.push((1, frame(1, start, 640, 360)));
    stand.painter.set_scene(&scene(vec![tile(1, Some(1), [0, 0, 160, 90])]), start);
    let moved = vec![tile(1, Some(1), [480, 270, 160, 90]), tile(2, Some(1), [0, 270, 160, 90])];
    stand.painter.set_scene(&scene(moved), start);
    stand.paint(start);
    assert_eq!((stand.at(0, 0), stand.at(0, 300)), (RED, RED));
    let middle = start + MOVE_TIME / 4;
    stand.paint(middle);
    assert_eq!((stand.at(0, 0), stand.at(0, 300)), (Colour::BLACK, RED));
    let area = stand.painter.shown[0].area(middle);
    assert!(area.x > 240 && area.x < 480 && area.width == 160, "{area:?}");
    stand.paint(start + MOVE_TIME);
    assert_eq!((stand.at(480, 270), stand.at(470, 260)), (RED, Colour::BLACK));
}

#[test]
fn a_name_a_sign_and_a_frame_are_laid_over() {
    let now = Instant::now();
    let mut stand = Stand::new();
    stand.frames.push((1, frame(1, now, 640, 360)));
    let mut speaker = tile(1, Some(1), [0, 0, 320, 180]);
    speaker.speaking = true;
    speaker.label = "Ada".into();
    stand.painter.set_scene(&scene(vec![speaker.clone()]), now);
    stand.paint(now);
    assert_eq!(stand.at(0, 90), Colour::from_rgb(SPEAKING));
    assert_eq!(stand.at(SPEAKING_PX as usize, 90), RED);
    let whites = |stand: &Stand| {
        (0..320)
            .flat_map(|x| (90..180).map(move |y| (x, y)))
            .filter(|(x, y)| stand.at(*x, *y).0[0] > 220)
            .count()
    };
    let of_name = whites(&stand);
    assert_eq!(of_name, 20 * 18);
    speaker.muted = true;
    stand.painter.set_scene(&scene(vec![speaker]), now);
    stand.paint(now);
    assert!(whites(&stand) > of_name, "{}", whites(&stand));
}

#[test]
fn a_picture_may_lie_behind_the_tiles_and_covers_the_canvas() {
    let now = Instant::now();
    let mut stand = Stand::new();
    stand.frames.push((1, frame(1, now, 640, 360)));
    stand.painter.set_scene(&scene(vec![tile(1, Some(1), [0, 0, 160, 90])]), now);
    let mut square = Picture::new(Size { width: 200, height: 200 });
    square.fill(square.area(), Colour::WHITE);
    square.fill(Area { x: 0, y: 0, width: 200, height: 40 }, GREEN);
    stand.painter.set_backdrop(Some(Box::new(square)));
    for _ in 0..2 {
        stand.paint(now);
        // What is above and below the canvas's shape is cut off, the green with it.
        assert_eq!(
            (stand.at(0, 0), stand.at(600, 0), stand.at(600, 350)),
            (RED, Colour::WHITE, Colour::WHITE)
        );
    }
    stand.painter.set_backdrop(None);
    stand.paint(now);
    assert_eq!(stand.at(600, 0), Colour::BLACK);
}

#[test]
fn tiny_and_outlying_tiles_do_no_harm() {
    let now = Instant::now();
    let mut stand = Stand::new();
    stand.frames.push((1, frame(1, now, 6, 300)));
    for area in
        [[0, 0, 2, 2], [638, 358, 2, 2], [630, 350, 400, 400], [5_000, 0, 20, 20], [0, 0, 0, 0], [1, 1, 3, 3]]
    {
        for fit in [Fit::Cover, Fit::Contain] {
            let mut tile = tile(1, Some(1), area);
            (tile.fit, tile.label, tile.muted, tile.speaking) = (fit, "x".into(), true, true);
            stand.painter.set_scene(&scene(vec![tile]), now);
            stand.paint(now + MOVE_TIME);
        }
    }
    assert_eq!(initials("  Ada  King-Noel Lovelace"), "AL");
    assert_eq!((initials("ada").as_str(), initials("(…)").as_str()), ("A", ""));
}
