/** Reconnection in fake time: what is tried, in which order, how long, and when it is given up. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Refused } from '../src/client/errors';
import { LIMITS, pauseMs, Reconnector } from '../src/client/reconnect';

let tried: { what: string; atMs: number }[];
let startMs: number;

beforeEach(() => {
  vi.useFakeTimers();
  tried = [];
  startMs = Date.now();
});

afterEach(() => {
  vi.useRealTimers();
});

/** Attempts that fail with these errors in turn, and then succeed. */
function attempts(failures: (Refused | undefined)[]) {
  const attempt = (what: string) => async () => {
    tried.push({ what, atMs: Date.now() - startMs });
    const failure = failures.shift();
    if (failure) throw failure;
  };
  return { restart: attempt('restart'), rejoin: attempt('rejoin') };
}

const unreachable = () => new Refused('unreachable');

async function outcome(reconnector: Reconnector, restart = true): Promise<Refused | undefined> {
  const run = reconnector.run(restart);
  await vi.advanceTimersByTimeAsync(LIMITS.totalMs * 2);
  return run;
}

test('ICE is restarted first, and that may be all', async () => {
  expect(await outcome(new Reconnector(attempts([])))).toBeUndefined();
  expect(tried.map(({ what }) => what)).toEqual(['restart']);
});

test('after a failed restart the join comes at once, whatever the failure was', async () => {
  const reconnector = new Reconnector(attempts([new Refused('not_found')]));
  expect(await outcome(reconnector)).toBeUndefined();
  expect(tried).toEqual([
    { what: 'restart', atMs: 0 },
    { what: 'rejoin', atMs: 0 },
  ]);
});

test('a connection known to be gone is not restarted', async () => {
  await outcome(new Reconnector(attempts([])), false);
  expect(tried.map(({ what }) => what)).toEqual(['rejoin']);
});

test('pauses grow, keep their bound, and are shifted by chance', () => {
  const full = [1, 2, 3, 4, 5, 6].map((failures) => pauseMs(failures, 1));
  expect(full).toEqual([400, 800, 1600, 3200, 5000, 5000]);
  expect(pauseMs(3, 0)).toBe(800);
  expect(pauseMs(3, 0.5)).toBe(1200);
});

test('it goes on trying for as long as set, then gives the last reason', async () => {
  const reconnector = new Reconnector(attempts(Array.from({ length: 99 }, unreachable)), LIMITS, () => 1);
  expect(await outcome(reconnector)).toMatchObject({ code: 'unreachable' });
  const last = tried.at(-1);
  expect(last?.atMs).toBeGreaterThan(LIMITS.totalMs / 2);
  expect(last?.atMs).toBeLessThan(LIMITS.totalMs);
  expect(tried.length).toBeLessThan(15);
});

test('a refusal for good ends it at once', async () => {
  const reconnector = new Reconnector(attempts([unreachable(), new Refused('room_locked')]));
  expect(await outcome(reconnector)).toMatchObject({ code: 'room_locked' });
  expect(tried).toHaveLength(2);
});

test('the network coming back cuts a pause short', async () => {
  const reconnector = new Reconnector(attempts([unreachable(), unreachable()]), LIMITS, () => 1);
  const run = reconnector.run();
  await vi.advanceTimersByTimeAsync(10);
  expect(tried).toHaveLength(2);
  reconnector.hurry();
  await vi.advanceTimersByTimeAsync(1);
  expect(await run).toBeUndefined();
  expect(tried.at(-1)?.atMs).toBeLessThan(100);
});

test('a second fault while mending joins the mending that is under way', async () => {
  const reconnector = new Reconnector(attempts([unreachable()]));
  expect(reconnector.run()).toBe(reconnector.run(false));
  await vi.advanceTimersByTimeAsync(0);
  expect(tried.map(({ what }) => what)).toEqual(['restart', 'rejoin']);
});

test('leaving stops it', async () => {
  const reconnector = new Reconnector(attempts(Array.from({ length: 99 }, unreachable)));
  const run = reconnector.run();
  await vi.advanceTimersByTimeAsync(10);
  reconnector.stop();
  await run;
  const count = tried.length;
  await vi.advanceTimersByTimeAsync(LIMITS.totalMs);
  expect(tried).toHaveLength(count);
});
