/** The room's state, message by message. */
import { expect, test } from 'vitest';
import type { ParticipantState, ServerMessage, SlotState } from '../src/client/protocol';
import { EMPTY, myGrant, reduce, type Snapshot, wantedMode } from '../src/client/snapshot';

const person = (identity: string, more: Partial<ParticipantState> = {}): ParticipantState => ({
  identity,
  name: identity,
  grant: { publish: true, subscribe: true, chat: true, files: true, admin: false },
  tracks: [],
  hand_raised: false,
  connected: true,
  csrc: 1,
  joined_at_ms: 0,
  ...more,
});

const WELCOME: Extract<ServerMessage, { type: 'welcome' }> = {
  type: 'welcome',
  protocol: 'antiphon.v1',
  room: {
    name: 'tea',
    mode: 'sfu',
    layout: { kind: 'grid' },
    background: '#11141a',
    has_backdrop: false,
    e2ee: false,
    access: 'open',
    locked: false,
    lobby: true,
    participants_max: 100,
    hls: false,
    restreams: 0,
    recording_consent: 'notice',
    opened_at_ms: 0,
  },
  me: 'me',
  participants: [person('ana'), person('me', { grant: { ...person('').grant, admin: true } })],
  slots: [],
  messages: [],
  more_messages: false,
  knocking: ['zed'],
  resume_seconds: 15,
};

const after = (...messages: ServerMessage[]): Snapshot => [WELCOME, ...messages].reduce(reduce, EMPTY);

test('a welcome is the whole truth, also when it comes again', () => {
  const first = after({ type: 'participant.joined', participant: person('ben') });
  const second = reduce(first, WELCOME);
  expect([...second.participants.keys()]).toEqual(['ana', 'me']);
  expect(myGrant(second).admin).toBe(true);
  expect(myGrant(EMPTY).publish).toBe(false);
});

test('people come, change in their place, and go with all that is said of them', () => {
  const there = after(
    { type: 'participant.joined', participant: person('ben') },
    { type: 'participant.updated', participant: person('ana', { hand_raised: true }) },
    { type: 'speakers', speakers: ['ben', 'ana'] },
    { type: 'chat.typing', identity: 'ben', typing: true },
  );
  expect([...there.participants.keys()]).toEqual(['ana', 'me', 'ben']);
  expect(there.participants.get('ana')?.hand_raised).toBe(true);
  const gone = reduce(there, { type: 'participant.left', identity: 'ben', reason: 'left' });
  expect([...gone.participants.keys()]).toEqual(['ana', 'me']);
  expect(gone.speakers).toEqual(['ana']);
  expect(gone.typing).toEqual([]);
});

test('who knocks waits until answered', () => {
  const knocking = after({ type: 'knock', identity: 'yan', name: 'Yan B.' });
  expect([...knocking.knocking]).toEqual([
    ['zed', 'zed'],
    ['yan', 'Yan B.'],
  ]);
  expect([...reduce(knocking, { type: 'knock.gone', identity: 'zed' }).knocking.keys()]).toEqual(['yan']);
});

test('a message that changes nothing, or that is unknown, gives the very same state', () => {
  const before = after();
  expect(reduce(before, { type: 'pong' })).toBe(before);
  expect(reduce(before, { type: 'tomorrow.news' } as never)).toBe(before);
});

test('how one gets the room is told, and forwarded as the room has it until then', () => {
  expect(after().delivery).toEqual({ mode: 'sfu', reason: 'room' });
  const starting = after({ type: 'mode', mode: 'sfu', reason: 'starting' });
  expect(starting.delivery).toEqual({ mode: 'sfu', reason: 'starting' });
  expect(wantedMode(starting.delivery)).toBe('mcu');
  const chosen = reduce(starting, { type: 'mode', mode: 'mcu', reason: 'chosen' });
  expect(wantedMode(chosen.delivery)).toBe('mcu');
  expect(wantedMode({ mode: 'sfu', reason: 'chosen' })).toBe('sfu');
  expect(reduce(chosen, WELCOME).delivery).toEqual({ mode: 'sfu', reason: 'room' });
});

test('a connection that is resumed with the mix in a slot is mixed from its welcome on', () => {
  const slots: SlotState[] = [
    { mid: '5', kind: 'video', participant: 'mixer', source: 'mix', paused: false },
  ];
  const mixed = reduce(EMPTY, { ...WELCOME, slots });
  expect(mixed.delivery).toEqual({ mode: 'mcu', reason: 'chosen' });
  const room = { ...WELCOME.room, mode: 'mcu' as const };
  expect(reduce(EMPTY, { ...WELCOME, room, slots }).delivery).toEqual({ mode: 'mcu', reason: 'room' });
});

test('the layout of the mix comes with the room', () => {
  const room = { ...WELCOME.room, layout: { kind: 'speaker' as const } };
  expect(after({ type: 'room', room }).room?.layout.kind).toBe('speaker');
});
