/** Forwarded and mixed, as a session that switches measures them. */
import { expect, test } from 'vitest';
import { Comparison } from '../src/client/comparison';
import type { Sample, StreamRate } from '../src/client/stats';

const picture = (mid: string, more: Partial<StreamRate> = {}): StreamRate => ({
  mid,
  kind: 'video',
  direction: 'in',
  bps: 500_000,
  loss: 0,
  height: 360,
  seconds: 1,
  decoded: 30,
  dropped: 0,
  decodeMs: 4,
  bufferMs: 40,
  ...more,
});
const sound: StreamRate = { ...picture('a'), kind: 'audio', decoded: undefined, bufferMs: 70 };

const sample = (atMs: number, streams: StreamRate[]): Sample => ({
  atMs,
  inBps: streams.reduce((sum, { bps }) => sum + bps, 0),
  outBps: 0,
  inLoss: 0,
  outLoss: 0,
  rttMs: 20,
  streams,
});

test('each mode has the mean of what was measured of it, but for the moments around a switch', () => {
  const comparison = new Comparison();
  const tiles = [picture('1'), picture('2', { dropped: 10 }), picture('3', { decoded: 0, bps: 0 }), sound];
  const mix = [picture('1', { height: 720, decodeMs: 8, bps: 1_500_000 }), { ...sound, bufferMs: 50 }];
  expect(comparison.of('sfu')).toBeUndefined();
  let atMs = 0;
  const pass = (mode: 'sfu' | 'mcu', seconds: number, streams: StreamRate[]) => {
    for (let second = 0; second < seconds; second += 1) {
      atMs += 1_000;
      comparison.add(mode, sample(atMs, streams));
    }
  };
  pass('sfu', 3, mix);
  expect(comparison.of('sfu')).toBeUndefined();
  pass('sfu', 4, tiles);
  expect(comparison.of('sfu')).toEqual({
    atMs: 7_000,
    moments: 4,
    downlinkBps: 1_500_000,
    pictures: 2,
    height: 360,
    fps: 60,
    dropped: 10 / 70,
    decodeMs: 4,
    decodeMsPerSecond: 240,
    pictureBufferMs: 40,
    soundBufferMs: 70,
    delayMs: 54,
  });
  // The last of the tiles still come in while the mix begins.
  pass('mcu', 3, [...tiles, ...mix]);
  expect(comparison.of('mcu')).toBeUndefined();
  pass('mcu', 40, mix);
  expect(comparison.of('mcu')).toMatchObject({ pictures: 1, height: 720, fps: 30, decodeMsPerSecond: 240 });
  expect(comparison.of('mcu')).toMatchObject({ downlinkBps: 2_000_000, moments: 15, soundBufferMs: 50 });
  expect(comparison.of('sfu')?.atMs).toBe(7_000);
  // Back again: what was measured before stays until there is something newer.
  pass('sfu', 3, tiles);
  expect(comparison.of('sfu')?.atMs).toBe(7_000);
  pass('sfu', 2, tiles);
  expect(comparison.of('sfu')).toMatchObject({ atMs, moments: 2 });
});

test('what a browser does not tell is unknown, not nothing', () => {
  const comparison = new Comparison();
  const bare = picture('1', { decodeMs: undefined, bufferMs: undefined });
  for (let second = 0; second < 6; second += 1) comparison.add('sfu', sample(second, [bare]));
  expect(comparison.of('sfu')).toMatchObject({ pictures: 1, decodeMs: undefined, delayMs: undefined });
});
