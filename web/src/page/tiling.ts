/**
 * Where tiles go: pure arithmetic from the stage's size to one rectangle for each tile. Pixels throughout.
 */

export interface Size {
  width: number;
  height: number;
}

export interface Rect extends Size {
  x: number;
  y: number;
}

export interface Arrangement {
  /** In the order of the tiles; a tile beyond the last rectangle is not shown. */
  rects: Rect[];
  /** Taller than the stage where the tiles must scroll. */
  height: number;
}

const GAP = 8;
const WIDEST = 16 / 9;
/** Tiles may be as tall as wide, so that two people fill a phone held upright. */
const TALLEST = 1;
/** Below this width faces are too small: the grid scrolls instead. */
const WIDTH_MIN = 150;
/** What the words "+3 more" take at the strip's end. */
const REST_HEIGHT = 44;
const REST_WIDTH = 92;

function tileIn(cell: Size): Size {
  const width = Math.min(cell.width, cell.height * WIDEST);
  return { width, height: Math.min(cell.height, width / TALLEST) };
}

function cellOf(stage: Size, columns: number, rows: number): Size {
  return {
    width: (stage.width - GAP * (columns - 1)) / columns,
    height: (stage.height - GAP * (rows - 1)) / rows,
  };
}

/** How much of a 16:9 picture such a tile shows: the measure by which grids are compared. */
function worth({ width, height }: Size): number {
  return width * Math.min(height, width / WIDEST) + 0.25 * width * height;
}

/** All tiles alike, as large as they can be; the last row is centred. */
export function grid(stage: Size, count: number): Arrangement {
  if (count === 0 || stage.width <= 0 || stage.height <= 0) return { rects: [], height: 0 };
  let best = { columns: 1, tile: { width: 0, height: 0 } };
  for (let columns = 1; columns <= count; columns += 1) {
    const tile = tileIn(cellOf(stage, columns, Math.ceil(count / columns)));
    if (worth(tile) > worth(best.tile)) best = { columns, tile };
  }
  const widthMin = Math.min(WIDTH_MIN, (stage.width - GAP) / 2);
  if (best.tile.width < widthMin) {
    const columns = Math.max(1, Math.floor((stage.width + GAP) / (widthMin + GAP)));
    const { width } = cellOf(stage, columns, 1);
    best = { columns, tile: { width, height: width / WIDEST } };
  }
  return rowsOf(stage, count, best.columns, best.tile);
}

function rowsOf(stage: Size, count: number, columns: number, tile: Size): Arrangement {
  const rows = Math.ceil(count / columns);
  const used = rows * tile.height + (rows - 1) * GAP;
  const top = Math.max(0, (stage.height - used) / 2);
  const rects = Array.from({ length: count }, (_, at): Rect => {
    const row = Math.floor(at / columns);
    const inRow = row === rows - 1 ? count - row * columns : columns;
    const left = (stage.width - inRow * tile.width - (inRow - 1) * GAP) / 2;
    const x = left + (at - row * columns) * (tile.width + GAP);
    return { x, y: top + row * (tile.height + GAP), ...tile };
  });
  return { rects, height: Math.max(stage.height, used) };
}

/** The first tile big, the others in a strip beside or below it; as many of them as the strip holds. */
export function focus(stage: Size, count: number): Arrangement {
  if (count === 0 || stage.width <= 0 || stage.height <= 0) return { rects: [], height: 0 };
  if (count === 1) return { rects: [{ x: 0, y: 0, ...stage }], height: stage.height };
  const beside = stage.width > stage.height * 1.15;
  const strip = beside
    ? Math.min(260, Math.max(130, stage.width * 0.2))
    : Math.min(150, Math.max(72, stage.height * 0.14));
  const main: Rect = beside
    ? { x: 0, y: 0, width: stage.width - strip - GAP, height: stage.height }
    : { x: 0, y: 0, width: stage.width, height: stage.height - strip - GAP };
  // Where there is little width, square tiles: more faces, and cameras fill them well.
  const aspect = beside || stage.width > 700 ? WIDEST : TALLEST;
  const tile = beside ? { width: strip, height: strip / aspect } : { width: strip * aspect, height: strip };
  const step = (beside ? tile.height : tile.width) + GAP;
  const whole = beside ? stage.height : stage.width;
  const holds = (length: number) => Math.max(1, Math.floor((length + GAP) / step));
  const all = holds(whole) >= count - 1;
  // Room at the end to say how many are not shown.
  const length = all ? whole : whole - (beside ? REST_HEIGHT : REST_WIDTH);
  const shown = Math.min(count - 1, holds(length));
  const start = Math.max(0, (length - (shown * step - GAP)) / 2);
  const others = Array.from({ length: shown }, (_, at): Rect => {
    const along = start + at * step;
    return beside ? { x: main.width + GAP, y: along, ...tile } : { x: along, y: main.height + GAP, ...tile };
  });
  return { rects: [main, ...others], height: stage.height };
}

/** Lines of a 16:9 picture needed to fill, or with `whole` to fit, a tile on a screen of this pixel ratio. */
export function linesFor(tile: Size, pixelRatio: number, whole: boolean): number {
  const pick = whole ? Math.min : Math.max;
  return Math.round(pick(tile.height, tile.width / WIDEST) * pixelRatio);
}
