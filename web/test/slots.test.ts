/** Slots: what is bound where, and the wishes that follow from what is on show. */
import { beforeEach, expect, test } from 'vitest';
import type { SlotWish, Source } from '../src/client/protocol';
import { changedWishes, MIXER, planWishes, SlotTable, type View } from '../src/client/slots';

const track = (kind: 'audio' | 'video', id: string) => ({ kind, id }) as MediaStreamTrack;
const line = (mid: string, kind: 'audio' | 'video') => ({ mid, receiver: { track: track(kind, `t${mid}`) } });
const view = (participant: string, height: number, more: Partial<View> = {}): View => ({
  participant,
  source: 'camera',
  height,
  pin: false,
  ...more,
});

let table: SlotTable;
let sent: Map<string, SlotWish>;

beforeEach(() => {
  table = new SlotTable();
  table.reset([line('4', 'audio'), line('5', 'video'), line('6', 'video'), line('7', 'video')]);
  sent = new Map();
});

function bind(mid: string, participant?: string, source: Source = 'camera') {
  table.apply([{ mid, kind: 'video', ...(participant && { participant, source }), paused: false }]);
}

const plan = (views: View[]) => planWishes(table.all, views, sent);

test('a slot keeps its track while what it carries changes', () => {
  bind('5', 'ana');
  const before = table.find('ana', 'camera')?.track;
  bind('5', 'ben');
  expect(table.find('ana', 'camera')).toBeUndefined();
  expect(table.find('ben', 'camera')?.track).toBe(before);
});

test('a screen and a camera of one participant are told apart', () => {
  bind('5', 'ana');
  bind('6', 'ana', 'screen');
  expect(table.find('ana', 'screen')?.mid).toBe('6');
});

test('a slot that this connection does not have is ignored', () => {
  bind('99', 'ana');
  expect(table.find('ana', 'camera')).toBeUndefined();
});

test('a bound slot is wished for at the height of its tile; what is off screen, at none', () => {
  bind('5', 'ana');
  bind('6', 'ben');
  expect(plan([view('ana', 360)])).toEqual([
    { mid: '5', max_height: 360 },
    { mid: '6', max_height: 0 },
  ]);
});

test('empty slots are left to the room until they were wished for', () => {
  expect(plan([])).toEqual([]);
  bind('5', 'ana');
  changedWishes(plan([]), sent);
  bind('5');
  expect(plan([])).toEqual([{ mid: '5', max_height: 180 }]);
});

test('a view without a slot is pinned to an empty one before one that is off screen', () => {
  bind('5', 'ana');
  bind('6', 'ben');
  expect(plan([view('cy', 180)])).toContainEqual({
    mid: '7',
    max_height: 180,
    participant: 'cy',
    source: 'camera',
  });
  bind('7', 'dee');
  const wishes = plan([view('ana', 720), view('ben', 180), view('cy', 180)]);
  expect(wishes).toContainEqual({ mid: '7', max_height: 180, participant: 'cy', source: 'camera' });
});

test('when slots are short, pinned views come first, then the tallest', () => {
  table.reset([line('5', 'video'), line('6', 'video')]);
  const wishes = plan([view('a', 180), view('b', 720), view('c', 360, { source: 'screen', pin: true })]);
  expect(wishes.map(({ participant }) => participant)).toEqual(['c', 'b']);
});

test('a pin that put a track into its slot is kept while the track is on show', () => {
  changedWishes(plan([view('ana', 360)]), sent);
  bind('5', 'ana');
  expect(plan([view('ana', 180)])).toEqual([
    { mid: '5', max_height: 180, participant: 'ana', source: 'camera' },
  ]);
  expect(plan([])).toEqual([{ mid: '5', max_height: 0 }]);
});

test('the big tile is pinned, so that the room does not give its slot away', () => {
  bind('6', 'ana');
  expect(plan([view('ana', 720, { pin: true })])).toEqual([
    { mid: '6', max_height: 720, participant: 'ana', source: 'camera' },
  ]);
});

test('only wishes that changed are sent', () => {
  bind('5', 'ana');
  bind('6', 'ben');
  expect(changedWishes(plan([view('ana', 360), view('ben', 360)]), sent)).toHaveLength(2);
  expect(changedWishes(plan([view('ana', 360), view('ben', 360)]), sent)).toEqual([]);
  expect(changedWishes(plan([view('ana', 720), view('ben', 360)]), sent)).toEqual([
    { mid: '5', max_height: 720 },
  ]);
});

const mixView = (height: number): View => view(MIXER, height, { source: 'mix' });

test('the mix is found in whichever slot carries it', () => {
  expect(table.mix).toBeUndefined();
  bind('6', MIXER, 'mix');
  expect(table.mix?.mid).toBe('6');
  table.apply([{ mid: '4', kind: 'audio', participant: MIXER, source: 'mix-audio', paused: false }]);
  expect(table.mix?.mid).toBe('6');
});

test('the mix is wished for at the height of its tile, and other slots keep their wishes', () => {
  bind('5', 'ana');
  bind('6', 'ben');
  changedWishes(plan([view('ana', 360), view('ben', 180, { pin: true })]), sent);
  bind('5', MIXER, 'mix');
  bind('6');
  expect(plan([mixView(690)])).toEqual([{ mid: '5', max_height: 690 }]);
  // Tiles that are still shown until the mix has a picture ask for nothing.
  expect(plan([mixView(690), view('ana', 360), view('ben', 180)])).toEqual([{ mid: '5', max_height: 690 }]);
});

test('a mix without a tile yet is never wished away', () => {
  bind('5', 'ana');
  changedWishes(plan([]), sent);
  expect(sent.get('5')?.max_height).toBe(0);
  bind('5', MIXER, 'mix');
  expect(plan([])).toEqual([{ mid: '5', max_height: 720 }]);
  expect(plan([mixView(0)])).toEqual([{ mid: '5', max_height: 720 }]);
  changedWishes(plan([mixView(480)]), sent);
  expect(plan([])).toEqual([{ mid: '5', max_height: 480 }]);
});

test('a hidden page wants no picture, mixed or not', () => {
  bind('5', 'ana');
  expect(planWishes(table.all, [view('ana', 360)], sent, true)).toEqual([{ mid: '5', max_height: 0 }]);
  bind('5', MIXER, 'mix');
  expect(planWishes(table.all, [mixView(690)], sent, true)).toEqual([{ mid: '5', max_height: 0 }]);
});

test('back from the mix the people are wished for again, and the mix is not pinned', () => {
  bind('5', MIXER, 'mix');
  changedWishes(plan([mixView(690)]), sent);
  bind('5', 'ana');
  expect(plan([mixView(690), view('ana', 360)])).toEqual([{ mid: '5', max_height: 360 }]);
});
