/** Where in its file a player is. */
import { expect, test } from 'vitest';
import { positionOf } from '../src/client/players';

const playing = { id: '1', paused: false, position_ms: 1_000, at_ms: 50_000, duration_ms: 4_000 };

test('goes on with the time, but not past the end', () => {
  expect(positionOf(playing, 51_500)).toBe(2_500);
  expect(positionOf(playing, 90_000)).toBe(4_000);
});

test('stands while it is paused', () => {
  expect(positionOf({ ...playing, paused: true }, 51_500)).toBe(1_000);
});

test('is told by the difference of clocks, and never goes back before what was told', () => {
  expect(positionOf(playing, 10_000, 41_000)).toBe(2_000);
  expect(positionOf(playing, 49_000)).toBe(1_000);
});
