/** Joining through any node of a cluster: which is asked, in which order, and what is learned of others. */
import { afterEach, expect, test, vi } from 'vitest';
import { type Address, join, learnWays } from '../src/client/signaling';

afterEach(() => vi.unstubAllGlobals());

const A = 'http://a.example.org';
const B = 'http://b.example.org';

function address(ways?: string[]): Address {
  return { base: A, room: 'room', identity: 'ann', ...(ways && { ways }) };
}

/** Nodes that answer a join; the others cannot be reached. */
function nodes(alive: string[], told?: string): string[] {
  const asked: string[] = [];
  vi.stubGlobal('fetch', async (url: string) => {
    const { origin } = new URL(url);
    asked.push(origin);
    if (!alive.includes(origin)) throw new TypeError('unreachable');
    const headers = { Location: '/v1/rooms/room/sessions/f00d', ...(told && { 'Antiphon-Nodes': told }) };
    return new Response('v=0', { status: 201, headers });
  });
  return asked;
}

test('a node that is gone is passed over, and asked last the next time', async () => {
  const asked = nodes([B]);
  const to = address([A, B]);
  await join(to, 'offer');
  await join(to, 'offer');
  expect(asked).toEqual([A, B, B]);
});

test('a refusal is a node’s word, and no other is asked', async () => {
  const refused = { status: 409, headers: { 'Content-Type': 'application/problem+json' } };
  const asked = vi.fn(async () => new Response('{"code":"room_full"}', refused));
  vi.stubGlobal('fetch', asked);
  await expect(join(address([A, B]), 'offer')).rejects.toMatchObject({ code: 'room_full' });
  expect(asked).toHaveBeenCalledTimes(1);
});

test('other nodes are learned from the answer', async () => {
  nodes([A], `${B}, http://c.example.org`);
  const to = address();
  const { session } = await join(to, 'offer');
  expect(session.id).toBe('f00d');
  expect(to.ways).toEqual([A, B, 'http://c.example.org']);
});

test('a server that is alone names nobody, and what is no address is none', () => {
  const to = address();
  learnWays(to, A, null);
  learnWays(to, A, 'javascript:alert(1), ftp://x, http://b.example.org/path');
  expect(to.ways).toEqual([A]);
});
