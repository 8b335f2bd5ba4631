/** Joins over real HTTP: a room that lives on another node, and the session's address there. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { Relays } from '../src/client/relays';
import { join, leave, setBackdrop } from '../src/client/signaling';

const servers: Server[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  }
});

interface Answer {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

interface Asked {
  method: string | undefined;
  url: string | undefined;
  token: string | undefined;
  session: string | string[] | undefined;
  type: string | undefined;
  body: string;
}

/** A node that answers as told and remembers what it was asked. */
async function node(answer: (request: IncomingMessage) => Answer): Promise<{ url: string; asked: Asked[] }> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (text: string) => {
      body += text;
    });
    request.on('end', () => {
      const { method, url, headers } = request;
      const [token, type, session] = [
        headers.authorization,
        headers['content-type'],
        headers['antiphon-session'],
      ];
      asked.push({ method, url, token, session, type, body });
      const told = answer(request);
      response.writeHead(told.status, told.headers).end(told.body);
    });
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

const SESSION = '/v1/rooms/calm-otter-41/sessions/00000000000000000000000000000007';

test('a join follows 307 to another node with its offer and token, and leaves there', async () => {
  const home = await node(({ method, headers }) => {
    if (method === 'DELETE') return { status: 200 };
    if (!headers.authorization) return { status: 401, body: '{"code":"unauthorized"}' };
    return { status: 201, headers: { Location: SESSION, ETag: '"e1"' }, body: 'answer' };
  });
  const first = await node(({ url }) => ({ status: 307, headers: { Location: `${home.url}${url}` } }));

  const address = { base: first.url, room: 'calm-otter-41', identity: 'Ada', token: 'secret' };
  const joined = await join(address, 'offer');
  expect(joined.answer).toBe('answer');
  expect(joined.session).toEqual({
    url: `${home.url}${SESSION}`,
    id: '00000000000000000000000000000007',
    etag: '"e1"',
  });
  expect(first.asked).toHaveLength(1);
  expect(home.asked.at(-1)).toMatchObject({ method: 'POST', token: 'Bearer secret', body: 'offer' });
  expect(home.asked.at(-1)?.url).toBe('/v1/rooms/calm-otter-41/participants?identity=Ada');

  await leave(joined.session, 'secret');
  expect(home.asked.at(-1)).toMatchObject({ method: 'DELETE', url: SESSION });
  expect(first.asked).toHaveLength(1);
});

test('without a redirect the session is where the join was', async () => {
  const only = await node(() => ({ status: 201, headers: { Location: SESSION }, body: 'answer' }));
  const { session } = await join({ base: only.url, room: 'calm-otter-41', identity: 'Ada' }, 'offer');
  expect(session.url).toBe(`${only.url}${SESSION}`);
});

test('relays are asked for once, again when they are old, and kept when nobody answers', async () => {
  const relay = { urls: ['turn:t.example.org'], username: '1:2', credential: 'x' };
  let status = 200;
  const home = await node(() => ({ status, body: JSON.stringify({ ice_servers: [relay] }) }));
  const relays = new Relays({ base: home.url, room: 'far away', identity: 'ada', token: 'abc' });
  expect(await relays.servers(0)).toEqual([relay]);
  expect(await relays.servers(60_000)).toEqual([relay]);
  expect(home.asked).toHaveLength(1);
  expect(home.asked[0]).toMatchObject({ url: '/v1/rooms/far%20away/ice-servers', token: 'Bearer abc' });
  status = 503;
  expect(await relays.servers(3_600_000)).toEqual([relay]);
  expect(home.asked).toHaveLength(2);
});

test('a picture behind the mix is put where the session is, by who it is there', async () => {
  const home = await node(({ method }) =>
    method === 'POST' ? { status: 201, headers: { Location: SESSION }, body: 'answer' } : { status: 204 },
  );
  const address = { base: home.url, room: 'calm-otter-41', identity: 'Ada' };
  const { session } = await join(address, 'offer');
  await setBackdrop(address, session, new Blob(['picture'], { type: 'image/jpeg' }));
  const shown = { url: '/v1/rooms/calm-otter-41/backdrop', session: session.id, token: undefined };
  expect(home.asked.at(-1)).toMatchObject({ ...shown, method: 'PUT', type: 'image/jpeg', body: 'picture' });
  await setBackdrop(address, session, undefined);
  expect(home.asked.at(-1)).toMatchObject({ ...shown, method: 'DELETE', body: '' });
  await expect(setBackdrop(address, undefined, undefined)).rejects.toMatchObject({ code: 'disconnected' });
});
