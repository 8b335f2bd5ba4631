/** The control channel: answers find their requests, silence and loss end them, nonsense is dropped. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ControlChannel } from '../src/client/control';
import type { Refused } from '../src/client/errors';
import type { ServerMessage } from '../src/client/protocol';

class FakeChannel extends EventTarget {
  readyState: RTCDataChannelState = 'open';
  sent: { type: string; request?: number }[] = [];

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  say(data: unknown): void {
    this.dispatchEvent(
      new MessageEvent('message', { data: typeof data === 'string' ? data : JSON.stringify(data) }),
    );
  }

  end(): void {
    this.readyState = 'closed';
    this.dispatchEvent(new Event('close'));
  }
}

let channel: FakeChannel;
let control: ControlChannel;
let heard: ServerMessage[];
let closed: number;

beforeEach(() => {
  vi.useFakeTimers();
  channel = new FakeChannel();
  heard = [];
  closed = 0;
  control = new ControlChannel(
    channel as never,
    (message) => heard.push(message),
    () => {
      closed += 1;
    },
  );
});

afterEach(() => {
  vi.useRealTimers();
});

test('an ok or an error settles the request whose number it repeats', async () => {
  const first = control.request({ type: 'room.close' });
  const second = control.request({ type: 'chat.delete', id: 'a' });
  const [one, two] = channel.sent;
  expect(one?.request).not.toBe(two?.request);
  channel.say({ type: 'error', request: two?.request, code: 'forbidden', message: 'Only its author may.' });
  channel.say({ type: 'ok', request: one?.request });
  await expect(first).resolves.toBeUndefined();
  await expect(second).rejects.toMatchObject({ code: 'forbidden', message: 'Only its author may.' });
});

test('a request that is never answered times out, and its late answer is harmless', async () => {
  const request = control.request({ type: 'ping' });
  const outcome = expect(request).rejects.toMatchObject({ code: 'timeout' });
  await vi.advanceTimersByTimeAsync(10_001);
  await outcome;
  channel.say({ type: 'ok', request: channel.sent[0]?.request });
});

test('when the channel closes, whatever waits is told, and so is the owner', async () => {
  const request = control.request({ type: 'room.close' });
  channel.end();
  await expect(request).rejects.toMatchObject({ code: 'disconnected' });
  await expect(control.request({ type: 'ping' })).rejects.toMatchObject({ code: 'disconnected' });
  expect(control.send({ type: 'ping' })).toBe(false);
  expect(closed).toBe(1);
});

test('what is not a message is dropped, and what is of an unknown type is passed on untouched', () => {
  for (const nonsense of ['{', '[]', 'null', '7', '{"type":7}']) channel.say(nonsense);
  channel.dispatchEvent(new MessageEvent('message', { data: new ArrayBuffer(4) }));
  expect(heard).toEqual([]);
  channel.say({ type: 'tomorrow.news', size: 3 });
  expect(heard).toEqual([{ type: 'tomorrow.news', size: 3 }]);
});

test('a message beyond 64 KiB is refused before it is sent', async () => {
  const text = 'é'.repeat(33_000);
  const refused = await control
    .request({ type: 'chat.send', id: 'a', text })
    .catch((error: Refused) => error);
  expect(refused).toMatchObject({ code: 'too_large' });
  expect(channel.sent).toEqual([]);
});

test('hearing anything moves the time of the last sign of life', () => {
  const before = control.heardAtMs;
  vi.advanceTimersByTime(500);
  channel.say({ type: 'pong' });
  expect(control.heardAtMs).toBe(before + 500);
});
