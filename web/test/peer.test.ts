/** Simulcast by the size of the camera: whatever is sent, the fullest encoding is the whole picture. */
import { expect, test } from 'vitest';
import { scales } from '../src/client/peer';

test('a large camera is sent in three sizes, a small one in two or one', () => {
  expect(scales(1280 * 720, 3)).toEqual([4, 2, 1]);
  expect(scales(960 * 540, 3)).toEqual([4, 2, 1]);
  expect(scales(640 * 480, 3)).toEqual([2, 1]);
  expect(scales(320 * 180, 3)).toEqual([1]);
});

test('a screen has two sizes at most', () => {
  expect(scales(1920 * 1080, 2)).toEqual([2, 1]);
  expect(scales(300 * 200, 2)).toEqual([1]);
});
