/** Tiles fit any stage: none outside, none over another, none smaller than needed. */
import { expect, test } from 'vitest';
import { type Arrangement, focus, grid, linesFor, type Rect, type Size } from '../src/page/tiling';

const STAGES: Size[] = [
  { width: 320, height: 480 },
  { width: 390, height: 700 },
  { width: 844, height: 300 },
  { width: 1280, height: 640 },
  { width: 3840, height: 2000 },
];

function overlap(a: Rect, b: Rect): boolean {
  const slack = 0.01;
  return (
    a.x + a.width > b.x + slack &&
    b.x + b.width > a.x + slack &&
    a.y + a.height > b.y + slack &&
    b.y + b.height > a.y + slack
  );
}

/** What is wrong with an arrangement, as words. */
function faults({ rects, height }: Arrangement, stage: Size): string[] {
  return rects.flatMap((rect, at) => {
    const outside =
      rect.x < -0.01 ||
      rect.y < -0.01 ||
      rect.x + rect.width > stage.width + 0.01 ||
      rect.y + rect.height > height + 0.01;
    const covered = rects.slice(at + 1).some((other) => overlap(rect, other));
    return outside || covered ? [`${stage.width}×${stage.height}, tile ${at + 1} of ${rects.length}`] : [];
  });
}

test('every grid from one to a wall lies within its stage, without overlap', () => {
  for (const stage of STAGES) {
    for (let count = 1; count <= 49; count += 1) {
      const arrangement = grid(stage, count);
      expect(arrangement.rects).toHaveLength(count);
      expect(faults(arrangement, stage)).toEqual([]);
    }
  }
});

test('a grid scrolls rather than shrink faces away', () => {
  const phone = { width: 320, height: 480 };
  expect(grid(phone, 4).height).toBe(phone.height);
  const many = grid(phone, 25);
  expect(many.height).toBeGreaterThan(phone.height);
  expect(many.rects[0]?.width).toBeGreaterThanOrEqual(145);
});

test('the focus view shows one big, and others as far as there is room', () => {
  for (const stage of STAGES) {
    for (let count = 1; count <= 20; count += 1) {
      const arrangement = focus(stage, count);
      expect(faults(arrangement, stage)).toEqual([]);
      expect(arrangement.rects.length).toBeGreaterThanOrEqual(Math.min(count, 2));
      expect(arrangement.height).toBe(stage.height);
      const [main, ...others] = arrangement.rects;
      for (const other of others) {
        expect(other.width * other.height).toBeLessThan((main?.width ?? 0) * (main?.height ?? 0));
      }
    }
  }
});

test('no stage yet, no tiles', () => {
  expect(grid({ width: 0, height: 0 }, 3).rects).toEqual([]);
  expect(focus({ width: 0, height: 0 }, 3).rects).toEqual([]);
});

test('lines asked for fill a cropped tile, or fit a whole one, in device pixels', () => {
  expect(linesFor({ width: 320, height: 180 }, 2, false)).toBe(360);
  expect(linesFor({ width: 160, height: 180 }, 1, false)).toBe(180);
  expect(linesFor({ width: 160, height: 180 }, 1, true)).toBe(90);
});
