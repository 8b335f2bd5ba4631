/** Small files: one after the other, each once whatever becomes of answers, and failures that are shown. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Refused } from '../src/client/errors';
import type { ClientMessage } from '../src/client/protocol';
import { SmallFiles } from '../src/client/small-files';

type Part = Extract<ClientMessage, { type: 'file.send' }>;

/** What was sent, and how each of it is answered. */
let parts: (Part & { answer(refused?: Refused): Promise<void> })[];
let files: SmallFiles;

beforeEach(() => {
  vi.useFakeTimers();
  parts = [];
  files = new SmallFiles(
    (message) =>
      new Promise((resolve, reject) => {
        const answer = async (refused?: Refused) => {
          if (refused) reject(refused);
          else resolve();
          await vi.advanceTimersByTimeAsync(0);
        };
        parts.push({ ...(message as Part), answer });
      }),
  );
});

afterEach(() => {
  files.stop();
  vi.useRealTimers();
});

async function add(name: string, size: number): Promise<void> {
  files.add(new File([new Uint8Array(size).fill(name.length)], name));
  await vi.advanceTimersByTimeAsync(0);
}

const last = () => {
  const part = parts.at(-1);
  if (!part) throw new Error('nothing was sent');
  return part;
};

test('two at once go one after the other, each in parts that say where they belong', async () => {
  await add('a.bin', 64 * 1024);
  await add('b.bin', 10);
  for (let sent = 0; sent < 3; sent += 1) await last().answer();
  expect(parts.map(({ name, offset, size_bytes }) => [name, offset, size_bytes])).toEqual([
    ['a.bin', 0, 65_536],
    ['a.bin', 45_000, 65_536],
    ['b.bin', 0, 10],
  ]);
  expect(parts[0]?.id).toBe(parts[1]?.id);
  expect(parts[2]?.id).not.toBe(parts[1]?.id);
  expect(files.all).toEqual([]);
});

test('an empty file is one', async () => {
  await add('empty', 0);
  expect([last().size_bytes, last().data]).toEqual([0, '']);
});

test('a lost connection is shown, and the next one sends it from its beginning under the same id', async () => {
  await add('a.bin', 64 * 1024);
  await last().answer();
  await last().answer(new Refused('disconnected'));
  expect(files.all.map(({ state, why }) => [state, why])).toEqual([['failed', undefined]]);
  files.reconnected();
  await vi.advanceTimersByTimeAsync(0);
  expect([last().offset, last().id]).toEqual([0, parts[0]?.id]);
  await last().answer();
  await last().answer();
  expect(files.all).toEqual([]);
});

test('one whose answer was lost is not sent again once it is seen in the room', async () => {
  await add('a.bin', 10);
  await last().answer(new Refused('disconnected'));
  files.arrived(last().id);
  files.reconnected();
  await vi.advanceTimersByTimeAsync(0);
  expect([parts.length, files.all]).toEqual([1, []]);
});

test('a refusal is shown in the server’s words; the next file goes, and this one when asked', async () => {
  await add('a.bin', 10);
  await add('b.bin', 10);
  await last().answer(new Refused('quota_exceeded', 'the room is full'));
  const [failed] = files.all;
  expect([failed?.name, failed?.state, failed?.why]).toEqual(['a.bin', 'failed', 'the room is full']);
  expect(last().name).toBe('b.bin');
  await last().answer();
  files.resume(failed?.key ?? 0);
  await vi.advanceTimersByTimeAsync(0);
  expect([last().name, last().id]).toEqual(['a.bin', parts[0]?.id]);
  files.cancel(failed?.key ?? 0);
  expect(files.all).toEqual([]);
});

test('what passes is tried again by itself, and not forever', async () => {
  await add('a.bin', 10);
  for (let tries = 0; tries < 9; tries += 1) {
    expect(parts.length).toBe(tries + 1);
    await last().answer(new Refused('upload_busy', 'on its way'));
    await vi.advanceTimersByTimeAsync(1_000);
  }
  expect([parts.length, new Set(parts.map(({ id }) => id)).size]).toEqual([9, 1]);
  expect(files.all.map(({ state, why }) => [state, why])).toEqual([['failed', 'on its way']]);
});

test('one that takes a moment shows no line, one that takes longer does', async () => {
  await add('a.bin', 10);
  expect(files.all).toEqual([]);
  await vi.advanceTimersByTimeAsync(500);
  expect(files.all.map(({ name, state }) => [name, state])).toEqual([['a.bin', 'sending']]);
});
