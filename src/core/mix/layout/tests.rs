//! Layouts: what holds for all of them, and how each one looks.

use proptest::prelude::*;

use super::*;

const CANVASES: [(u32, u32); 8] =
    [(1_280, 720), (640, 360), (1_920, 1_080), (320, 180), (640, 480), (720, 1_280), (500, 500), (160, 90)];

fn people() -> Vec<Identity> {
    (0..30).map(|n| Identity::parse(&format!("p{n}")).unwrap()).collect()
}

fn cameras(people: &[Identity]) -> Vec<Seen<'_>> {
    people.iter().map(|identity| Seen { identity, is_screen: false }).collect()
}

fn overlap(a: &Area, b: &Area) -> bool {
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
}

/// Panics where an area is odd, empty or off the canvas, or a picture is in two places.
fn hold(placed: &[Placed], canvas: Size, seen: &[Seen]) {
    for (at, one) in placed.iter().enumerate() {
        let Area { x, y, width, height } = one.area;
        assert!((x | y | width | height) & 1 == 0, "odd: {one:?}");
        assert!(width > 0 && height > 0, "empty: {one:?}");
        assert!(x + width <= canvas.width && y + height <= canvas.height, "off {canvas:?}: {one:?}");
        assert!(one.index < seen.len());
        assert!(placed[..at].iter().all(|other| other.index != one.index), "twice: {one:?}");
    }
}

fn apart(placed: &[Placed]) -> bool {
    let mut pairs = placed.iter().enumerate().flat_map(|(at, a)| placed[..at].iter().map(move |b| (a, b)));
    pairs.all(|(a, b)| !overlap(&a.area, &b.area))
}

fn canvas() -> impl Strategy<Value = Size> {
    prop_oneof![
        prop::sample::select(CANVASES.to_vec()),
        (80_u32..1_000, 80_u32..1_000).prop_map(|(width, height)| (width * 2, height * 2)),
    ]
    .prop_map(|(width, height)| Size { width, height })
}

/// Boxes of a lattice: none over another.
fn lattice() -> impl Strategy<Value = Vec<LayoutBox>> {
    (1_u16..=5, 1_u16..=5, prop::collection::vec((prop::option::of(0_usize..30), any::<bool>()), 25))
        .prop_map(|(columns, rows, each)| {
            let people = people();
            let cells = (0..columns * rows).zip(each);
            let to_box = |(cell, (pin, contained)): (u16, (Option<usize>, bool))| {
                let (column, row) = (cell % columns, cell / columns);
                let (x, y) = (WHOLE * column / columns, WHOLE * row / rows);
                LayoutBox {
                    x,
                    y,
                    width: WHOLE * (column + 1) / columns - x,
                    height: WHOLE * (row + 1) / rows - y,
                    participant: pin.map(|pin| people[pin].clone()),
                    fit: contained.then_some(Fit::Contain),
                }
            };
            cells.map(to_box).collect()
        })
}

proptest! {
    #[test]
    fn areas_are_even_on_the_canvas_and_apart(
        canvas in canvas(),
        is_screen in prop::collection::vec(prop::bool::weighted(0.2), 0..=30),
        boxes in lattice(),
    ) {
        let people = people();
        let seen: Vec<Seen> = people
            .iter()
            .zip(is_screen)
            .map(|(identity, is_screen)| Seen { identity, is_screen })
            .collect();
        let custom = Layout::Custom { boxes };
        prop_assert_eq!(custom.check(), Ok(()));
        let layouts = [Layout::Grid, Layout::Speaker, Layout::Presenter, Layout::PictureInPicture, custom];
        for layout in layouts {
            let placed = arrange(&layout, canvas, &seen);
            hold(&placed, canvas, &seen);
            prop_assert!(apart(&placed) || layout == Layout::PictureInPicture, "{:?}: {:?}", layout, placed);
            let is_custom = matches!(layout, Layout::Custom { .. });
            let mut screens = placed.iter().filter(|one| seen[one.index].is_screen);
            prop_assert!(screens.all(|one| one.fit == Fit::Contain));
            prop_assert!(is_custom || placed.is_empty() == seen.is_empty());
            if seen.len() == 1 && !is_custom {
                prop_assert_eq!(placed[0].area, whole(canvas));
            }
            if layout == Layout::Grid {
                prop_assert_eq!(placed.len(), seen.len().min(PICTURES_MAX));
            }
        }
    }

    #[test]
    fn boxes_that_are_accepted_are_on_the_canvas(
        canvas in canvas(),
        numbers in prop::collection::vec((any::<u16>(), 0_u16..1_100, 0_u16..1_100, 0_u16..1_100), 1..25),
    ) {
        let to_box = |(x, y, width, height)| LayoutBox { x, y, width, height, participant: None, fit: None };
        let boxes: Vec<LayoutBox> = numbers.into_iter().map(to_box).collect();
        let people = people();
        for one in boxes {
            let layout = Layout::Custom { boxes: vec![one] };
            let placed = arrange(&layout, canvas, &cameras(&people));
            hold(&placed, canvas, &cameras(&people));
            prop_assert!(layout.check().is_err() || placed.len() == 1, "{:?} lost its picture", layout);
        }
    }
}

const HD: Size = Size { width: 1_280, height: 720 };

fn areas(layout: &Layout, count: usize) -> Vec<(u32, u32, u32, u32)> {
    let people = people();
    let placed = arrange(layout, HD, &cameras(&people)[..count]);
    placed.iter().map(|one| (one.area.x, one.area.y, one.area.width, one.area.height)).collect()
}

#[test]
fn a_grid_has_equal_tiles_and_its_last_row_in_the_middle() {
    assert_eq!(areas(&Layout::Grid, 1), [(0, 0, 1_280, 720)]);
    assert_eq!(areas(&Layout::Grid, 2), [(0, 182, 636, 356), (644, 182, 636, 356)]);
    let five = areas(&Layout::Grid, 5);
    assert_eq!(five[..3], [(2, 120, 420, 236), (430, 120, 420, 236), (858, 120, 420, 236)]);
    assert_eq!(five[3..], [(216, 364, 420, 236), (644, 364, 420, 236)]);
}

#[test]
fn pins_are_kept_and_other_boxes_filled_in_order() {
    let people = people();
    let half = |x, pin: Option<&str>| LayoutBox {
        x,
        y: 0,
        width: 250,
        height: 1_000,
        participant: pin.map(|pin| Identity::parse(pin).unwrap()),
        fit: None,
    };
    let boxes = vec![half(0, None), half(250, Some("p0")), half(500, Some("nobody")), half(750, None)];
    let placed = arrange(&Layout::Custom { boxes }, HD, &cameras(&people)[..4]);
    let order: Vec<(usize, u32)> = placed.iter().map(|one| (one.index, one.area.x)).collect();
    assert_eq!(order, [(1, 0), (0, 320), (2, 960)]);
}

#[test]
fn a_presenter_shows_the_first_screen_whole_beside_the_others() {
    let people = people();
    let mut seen = cameras(&people);
    seen[2].is_screen = true;
    let placed = arrange(&Layout::Presenter, HD, &seen);
    assert_eq!((placed[0].index, placed[0].fit), (2, Fit::Contain));
    assert_eq!(placed[1..].iter().map(|one| one.index).collect::<Vec<_>>(), [0, 1, 3, 4, 5]);
    assert!(placed[1..].iter().all(|one| one.area.x >= placed[0].area.width && one.fit == Fit::Cover));
    let people = cameras(&people);
    assert_eq!(arrange(&Layout::Presenter, HD, &people), arrange(&Layout::Speaker, HD, &people));
}

#[test]
fn custom_layouts_are_checked() {
    let one = |x, y, width, height| LayoutBox { x, y, width, height, participant: None, fit: None };
    let check = |boxes| Layout::Custom { boxes }.check();
    assert!(check(vec![one(0, 0, WHOLE, WHOLE)]).is_ok());
    assert!(check(vec![one(0, 0, WHOLE, WHOLE); PICTURES_MAX]).is_ok());
    let bad = [
        vec![],
        vec![one(0, 0, WHOLE, WHOLE); PICTURES_MAX + 1],
        vec![one(0, 0, 0, 500)],
        vec![one(501, 0, 500, 500)],
        vec![one(0, u16::MAX, 500, 500)],
    ];
    for boxes in bad {
        let refusal = check(boxes).unwrap_err();
        assert_eq!(refusal.code, Code::Malformed);
        assert!(refusal.message.contains("1 to 25 boxes"), "{refusal}");
    }
}

#[test]
fn a_layout_is_its_kind_in_json() {
    let layout: Layout = serde_json::from_str(r#"{"kind":"picture_in_picture"}"#).unwrap();
    assert_eq!(layout, Layout::PictureInPicture);
    assert_eq!(serde_json::to_string(&Layout::default()).unwrap(), r#"{"kind":"grid"}"#);
    let text = r#"{"kind":"custom","boxes":[{"x":0,"y":0,"width":500,"height":1000,"participant":"zoë"}]}"#;
    let layout: Layout = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&layout).unwrap(), text);
}
