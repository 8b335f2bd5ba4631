/** Chat: one order for all, nothing unsent is lost, nothing is said twice. */
import { beforeEach, expect, test } from 'vitest';
import { ChatLog, messageId, OUTGOING_MAX } from '../src/client/chat';
import { Chat } from '../src/client/conversation';
import { Refused } from '../src/client/errors';
import type { ChatMessage, ClientMessage } from '../src/client/protocol';

const message = (seq: number, more: Partial<ChatMessage> = {}): ChatMessage => ({
  id: `m${seq}`,
  seq,
  identity: 'ana',
  name: 'Ana',
  text: `words ${seq}`,
  sent_at_ms: seq * 1000,
  deleted: false,
  reactions: {},
  ...more,
});

const seqs = (log: ChatLog) => log.messages.map(({ seq }) => seq);

test('messages stand in the order of seq, whichever way they come', () => {
  const log = new ChatLog();
  log.welcome([message(3), message(4)], true);
  log.take(message(6));
  log.take(message(5));
  log.prepend([message(1), message(2)], false);
  expect(seqs(log)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(log.more).toBe(false);
});

test('an edit takes the place of what it edits', () => {
  const log = new ChatLog();
  log.welcome([message(1), message(2)], false);
  log.take(message(1, { text: 'better words', edited_at_ms: 9 }));
  expect(log.messages.map(({ text }) => text)).toEqual(['better words', 'words 2']);
});

test('a resume adds what was missed; a gap forgets what lies before it', () => {
  const log = new ChatLog();
  log.welcome([message(1), message(2)], false);
  log.welcome([message(2), message(3)], true);
  expect(seqs(log)).toEqual([1, 2, 3]);
  expect(log.more).toBe(false);
  log.welcome([message(40), message(41)], true);
  expect(seqs(log)).toEqual([40, 41]);
  expect(log.more).toBe(true);
});

test('ids are plain, long and not alike', () => {
  const ids = new Set(Array.from({ length: 50 }, messageId));
  expect(ids.size).toBe(50);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{32}$/);
});

let requests: ClientMessage[];
let answers: (Refused | undefined)[];
let chat: Chat;

beforeEach(() => {
  requests = [];
  answers = [];
  chat = new Chat((request) => {
    requests.push(request);
    const refused = answers.shift();
    return refused ? Promise.reject(refused) : Promise.resolve();
  });
});

const settled = () => new Promise((resolve) => setTimeout(resolve));
const sends = () => requests.flatMap((one) => (one.type === 'chat.send' ? [one.id] : []));

test('a message waits as unsent until the room has put it in order', async () => {
  chat.send('hello');
  expect(chat.log.outgoing).toMatchObject([{ text: 'hello', state: 'sending' }]);
  await settled();
  expect(chat.log.outgoing).toMatchObject([{ text: 'hello', state: 'sent' }]);
  const [id = ''] = sends();
  chat.take({ type: 'chat.message', message: message(1, { id, text: 'hello' }) });
  expect(chat.log.outgoing).toEqual([]);
  expect(seqs(chat.log)).toEqual([1]);
});

test('what a lost connection kept back is sent again with the same id, once', async () => {
  answers = [new Refused('disconnected'), new Refused('disconnected')];
  chat.send('one');
  chat.send('two');
  await settled();
  expect(chat.log.outgoing.map(({ state }) => state)).toEqual(['sending', 'sending']);
  const before = sends();
  chat.resend();
  expect(sends()).toEqual([...before, ...before]);
  await settled();
  chat.resend();
  expect(sends()).toHaveLength(4);
});

test('an acknowledged message that the welcome brings back is shown once', async () => {
  chat.send('hello');
  await settled();
  const [id = ''] = sends();
  chat.take({
    type: 'welcome',
    messages: [message(7, { id })],
    more_messages: false,
  } as never);
  expect(chat.log.outgoing).toEqual([]);
  expect(seqs(chat.log)).toEqual([7]);
});

test('a refused message says why, and can be tried again or let go', async () => {
  answers = [new Refused('rate_limited', 'Slow down.')];
  chat.send('hello');
  await settled();
  const [failed] = chat.log.outgoing;
  expect(failed).toMatchObject({ state: 'failed', why: 'Slow down.' });
  chat.resend();
  expect(sends()).toHaveLength(1);
  chat.retry(failed?.id ?? '');
  await settled();
  expect(chat.log.outgoing).toMatchObject([{ state: 'sent' }]);
  chat.discard(failed?.id ?? '');
  expect(chat.log.outgoing).toEqual([]);
});

test('no more than so many messages wait', () => {
  answers = Array.from({ length: OUTGOING_MAX }, () => new Refused('disconnected'));
  for (let count = 0; count < OUTGOING_MAX; count += 1) expect(chat.send('x')).toBe(true);
  expect(chat.send('x')).toBe(false);
});

test('a message ends the typing of its author', () => {
  chat.typing(true);
  chat.send('done');
  chat.typing(false);
  expect(requests).toMatchObject([
    { type: 'chat.typing', typing: true },
    { type: 'chat.typing', typing: false },
    { type: 'chat.send', text: 'done' },
  ]);
});

test('typing is told at the start and at the end, not with every key', () => {
  chat.typing(true);
  chat.typing(true);
  chat.typing(false);
  chat.typing(false);
  expect(requests).toEqual([
    { type: 'chat.typing', typing: true },
    { type: 'chat.typing', typing: false },
  ]);
});

test('older messages are asked for before the oldest there is, one page at a time', async () => {
  chat.take({ type: 'welcome', messages: [message(21)], more_messages: true } as never);
  const first = chat.loadOlder();
  await chat.loadOlder();
  expect(requests).toEqual([{ type: 'chat.history', before: 21 }]);
  chat.take({ type: 'chat.history', messages: [message(20)], more: false });
  await first;
  await chat.loadOlder();
  expect(requests).toHaveLength(1);
  expect(seqs(chat.log)).toEqual([20, 21]);
});
