/** A picture for behind the tiles keeps its shape and becomes no larger than is of use. */
import { expect, test } from 'vitest';
import { fitted } from '../src/page/backdrop';

test('a large picture is made smaller, a small one stays', () => {
  expect(fitted(4032, 3024)).toEqual({ width: 1920, height: 1440 });
  expect(fitted(3024, 4032)).toEqual({ width: 1440, height: 1920 });
  expect(fitted(640, 360)).toEqual({ width: 640, height: 360 });
  expect(fitted(8000, 1)).toEqual({ width: 1920, height: 2 });
});
