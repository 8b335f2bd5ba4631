/**
 * Files as they are sent and fetched in earnest: over lines that break, by servers that crash, by many at
 * once, within quotas, by those who may.
 *
 * @import { Server } from '../harness/server.js'
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Server as RealServer } from '../harness/server.js';
import { until } from '../harness/until.js';
import {
  add,
  begin,
  filesOf,
  hashOf,
  memory,
  put,
  randomFile,
  scratch,
  send,
  sha256,
  startCutter,
  tus,
} from '../harness/uploads.js';

const MIB = 2 ** 20;
/** What is sent over the line that breaks. ANTIPHON_FILE_MIB=2048 takes the size that people ask about. */
const LARGE = Number(process.env.ANTIPHON_FILE_MIB ?? 256) * MIB;
const CUTS = 20;
/** Of memory that a server may take more while it takes files, in MiB. */
const GROWTH_MAX = 48;

/** Contents that are kept. @param {Server} server */
async function contents(server) {
  const all = await readdir(join(server.dataDir, 'files/store/contents'), { recursive: true }).catch(
    () => [],
  );
  return all.filter((name) => name.includes('/')).map((name) => name.split('/')[1]);
}

describe('files over bad lines', () => {
  /** @type {Server} */ let server;
  /** @type {Awaited<ReturnType<typeof scratch>>} */ let folder;

  before(async () => {
    [server, folder] = await Promise.all([RealServer.start({ FILES__DISK_RESERVE_BYTES: '0' }), scratch()]);
  });

  after(async () => {
    await server?.stop();
    await folder?.remove();
  });

  test(`${LARGE / MIB} MiB arrive whole though the line is cut ${CUTS} times`, {
    timeout: 600_000,
  }, async (t) => {
    const path = join(folder.path, 'large.bin');
    const hash = await randomFile(path, LARGE);
    const before = await memory(server.pid);
    const cutter = await startCutter(server.url, { times: CUTS, everyBytes: LARGE / (CUTS + 2) });
    const started = Date.now();
    const url = await send(`${cutter.url}/v1/rooms/large/files`, path, { name: 'large.bin' });
    assert.equal(cutter.cuts(), CUTS);
    await cutter.close();
    const seconds = (Date.now() - started) / 1000;
    const id = url.split('/').pop()?.split('?')[0];
    const { body } = await server.call('GET', '/rooms/large/files');
    assert.deepEqual([body.files[0].id, body.files[0].sha256], [id, hash]);
    assert.equal(await hashOf(`${filesOf(server, 'large')}/${id}`), hash);
    const { most } = await memory(server.pid);
    t.diagnostic(
      `${seconds.toFixed(1)} s; memory ${before.now.toFixed(0)} MiB before, ${most.toFixed(0)} MiB at most`,
    );
    assert.ok(most - before.now < GROWTH_MAX, `memory grew from ${before.now} to ${most} MiB`);
  });

  test('50 at once arrive, each as it is', { timeout: 120_000 }, async (t) => {
    const before = await memory(server.pid);
    const hashes = new Map();
    for (let n = 0; n < 50; n += 1)
      hashes.set(`part-${n}.bin`, await randomFile(join(folder.path, `part-${n}.bin`), 2 * MIB + n));
    await Promise.all(
      [...hashes.keys()].map((name) => send(filesOf(server, 'many'), join(folder.path, name), { name })),
    );
    const { body } = await server.call('GET', '/rooms/many/files?limit=200');
    const listed = body.files.map((/** @type {any} */ file) => [file.name, file.sha256]);
    assert.deepEqual(new Map(listed), hashes);
    const { now } = await memory(server.pid);
    t.diagnostic(`memory ${before.now.toFixed(0)} MiB before, ${now.toFixed(0)} MiB after`);
    assert.ok(now - before.now < GROWTH_MAX, `memory grew from ${before.now} to ${now} MiB`);
  });

  test('who begins too many and ends none is told to', { timeout: 60_000 }, async () => {
    const room = `${filesOf(server, 'begun')}?identity=Max`;
    const begun = [];
    for (let n = 0; n < 64; n += 1) begun.push(await begin(room, 10));
    const answer = await tus('POST', room, { 'upload-length': '10' });
    const { code, detail } = await answer.json();
    assert.deepEqual([answer.status, code], [429, 'rate_limited']);
    assert.match(detail, /finish or cancel some/);
    for (const url of begun) assert.equal((await tus('DELETE', url)).status, 204);
    const again = await begin(room, 10);
    assert.equal((await tus('DELETE', again)).status, 204);
  });

  test('an upload goes on after the server was killed', { timeout: 120_000 }, async () => {
    const path = join(folder.path, 'killed.bin');
    const hash = await randomFile(path, 160 * MIB);
    let crashed = 0;
    const url = await send(filesOf(server, 'killed'), path, {
      onProgress: (sent) => {
        if (crashed >= 2 || sent < (crashed + 1) * 50 * MIB) return;
        crashed += 1;
        void server.crash().then(() => server.restart());
      },
    });
    assert.equal(crashed, 2);
    assert.equal(await hashOf(url.split('?')[0] ?? ''), hash);
  });

  test('a server that is killed over the last byte has the file once', { timeout: 120_000 }, async () => {
    const path = join(folder.path, 'last.bin');
    const hash = await randomFile(path, 3 * MIB);
    const bytes = await readFile(path);
    for (const waited of [1, 8, 20, 40]) {
      const room = `last-${waited}`;
      const url = await begin(`${filesOf(server, room)}?identity=Ada`, bytes.length, 'last.bin');
      assert.equal((await add(url, 0, bytes.subarray(0, MIB))).status, 204);
      const last = add(url, MIB, bytes.subarray(MIB)).catch(() => undefined);
      await delay(waited);
      await server.crash();
      await last;
      await server.restart();
      await send(filesOf(server, room), path, { begun: url, name: 'last.bin' });
      const { body } = await server.call('GET', `/rooms/${room}/files`);
      assert.deepEqual(
        body.files.map((/** @type {any} */ file) => file.sha256),
        [hash],
      );
    }
    // What was complete when the server was killed is put in order by it, asked or not.
    await until('nothing is left of the uploads', async () => {
      const left = await readdir(join(server.dataDir, 'files/uploads'));
      return left.length === 0;
    });
  });
});

describe('files whose time is over', { timeout: 60_000 }, () => {
  /** @type {Server} */ let server;

  before(async () => {
    server = await RealServer.start({ FILES__RETENTION_DAYS: '1', FILES__UPLOAD_HOURS: '24' });
  });

  after(() => server?.stop());

  test('old files go, and uploads that did not go on; a younger file stays', async () => {
    const status = async (/** @type {string} */ url) => (await fetch(url, { method: 'HEAD' })).status;
    const old = await put(server, 'aged', 'old.txt', 'of yesterday');
    const stale = await begin(`${filesOf(server, 'aged')}?identity=Ada`, 1000, 'stale.bin');
    await server.crash();
    await server.restartLater(20);
    const young = await put(server, 'aged', 'young.txt', 'of today');
    assert.equal(await status(server.url + old.url), 200);
    await server.crash();
    await server.restartLater(30);
    await until('the old file is gone', async () => (await status(server.url + old.url)) === 410);
    await until('its contents are gone', async () => !(await contents(server)).includes(old.sha256));
    await until('the stale upload is gone', async () => (await tus('HEAD', stale)).status !== 200);
    assert.equal(await (await fetch(server.url + young.url)).text(), 'of today');
    const { body } = await server.call('GET', '/rooms/aged/messages');
    assert.deepEqual(
      body.messages.map((/** @type {any} */ message) => message.file.expired === true),
      [true, false],
    );
    const { body: list } = await server.call('GET', '/rooms/aged/files');
    assert.deepEqual(
      list.files.map((/** @type {any} */ file) => file.name),
      ['young.txt'],
    );
  });
});

describe('files and the room they are in', { timeout: 60_000 }, () => {
  /** @type {Server} */ let server;

  before(async () => {
    server = await RealServer.start({
      FILES__FILE_BYTES_MAX: String(MIB),
      FILES__IDENTITY_BYTES_MAX: String(3 * MIB),
      FILES__ROOM_BYTES_MAX: String(5 * MIB),
      FILES__NODE_BYTES_MAX: String(8 * MIB),
      FILES__DISK_RESERVE_BYTES: '0',
    });
  });

  after(() => server?.stop());

  /** A token of the development key. @param {string} room @param {string} sub @param {object} grants */
  function token(room, sub, grants) {
    const part = (/** @type {object} */ value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const claims = {
      iss: 'devkey',
      sub,
      exp: Math.floor(Date.now() / 1000) + 600,
      room: { room, ...grants },
    };
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    const signature = createHmac('sha256', 'known-to-all-and-for-development-only').update(signed);
    return `${signed}.${signature.digest('base64url')}`;
  }

  test('a file is in the chat’s one order, and in the list', async () => {
    const file = await put(server, 'chatty', 'notes.txt', 'some notes\n', 'Zoë');
    assert.deepEqual(
      [file.name, file.size_bytes, file.media_type, file.identity, file.sha256],
      ['notes.txt', 11, 'text/plain', 'Zoë', sha256('some notes\n')],
    );
    const { body } = await server.call('GET', '/rooms/chatty/messages');
    assert.equal(body.messages.length, 1);
    assert.equal(body.messages[0].id, file.id);
    assert.equal(body.messages[0].file.name, 'notes.txt');
    assert.equal(body.messages[0].seq, file.seq);
  });

  test('the same contents are kept once, and go with their last file', async () => {
    const text = 'the very same contents';
    const [one, two] = [
      await put(server, 'once', 'a.txt', text),
      await put(server, 'twice', 'b.txt', text, 'Ben'),
    ];
    assert.equal(one.sha256, two.sha256);
    assert.equal((await contents(server)).filter((name) => name === one.sha256).length, 1);
    await server.call('DELETE', `/rooms/once/files/${one.id}`);
    assert.equal((await fetch(server.url + one.url)).status, 410);
    assert.equal(await (await fetch(server.url + two.url)).text(), text);
    await server.call('DELETE', `/rooms/twice/files/${two.id}`);
    await until('the contents are gone', async () => !(await contents(server)).includes(one.sha256));
    const { body } = await server.call('GET', '/rooms/twice/messages');
    assert.deepEqual([body.messages[0].deleted, body.messages[0].file], [true, undefined]);
  });

  test('a part is sent where a part is asked for', async () => {
    const file = await put(server, 'ranges', 'digits.txt', '0123456789');
    const url = server.url + file.url;
    const get = (/** @type {Record<string, string>} */ headers) => fetch(url, { headers });
    const part = await get({ range: 'bytes=2-4' });
    assert.deepEqual([part.status, await part.text()], [206, '234']);
    assert.equal(part.headers.get('content-range'), 'bytes 2-4/10');
    assert.equal(await (await get({ range: 'bytes=-2' })).text(), '89');
    const beyond = await get({ range: 'bytes=10-' });
    assert.deepEqual([beyond.status, beyond.headers.get('content-range')], [416, 'bytes */10']);
    assert.equal((await beyond.json()).code, 'range_not_satisfiable');
    const etag = part.headers.get('etag') ?? '';
    assert.equal(etag, `"${file.sha256}"`);
    assert.equal((await get({ 'if-none-match': etag })).status, 304);
    assert.equal((await get({ range: 'bytes=0-1', 'if-range': '"other"' })).status, 200);
    const head = await fetch(url, { method: 'HEAD' });
    assert.deepEqual([head.status, head.headers.get('content-length')], [200, '10']);
  });

  test('who deletes a file gives its share back, author or owner', async () => {
    const may = { files: true, chat: true, subscribe: true };
    const ann = token('freed', 'ann', may);
    const chair = token('freed', 'chair', { ...may, admin: true });
    const bearer = (/** @type {string} */ value) => ({ authorization: `Bearer ${value}` });
    const room = filesOf(server, 'freed');
    const ask = () => tus('POST', room, { 'upload-length': String(MIB), ...bearer(ann) });
    /** A file of Ann's. @param {string} letter */
    const sent = async (letter) => {
      const url = server.url + (await ask()).headers.get('location');
      assert.equal((await add(url, 0, Buffer.alloc(MIB, letter), bearer(ann))).status, 204);
      return url;
    };
    const files = [await sent('a'), await sent('b'), await sent('c')];
    const refused = async () => {
      const answer = await ask();
      const { code, detail } = await answer.json();
      assert.deepEqual([answer.status, code], [413, 'quota_exceeded']);
      assert.match(detail, /you have .* left of 3 MiB .*delete some/);
    };
    await refused();
    // What is there is not touched by that.
    for (const [at, url] of files.entries()) {
      const whole = await (await fetch(url, { headers: bearer(chair) })).arrayBuffer();
      assert.equal(sha256(Buffer.from(whole)), sha256(Buffer.alloc(MIB, 'abc'[at])));
    }
    for (const [at, by] of [ann, chair].entries()) {
      const url = files[at] ?? '';
      assert.equal((await fetch(url, { method: 'DELETE', headers: bearer(by) })).status, 204);
      files.push(await sent('de'[at] ?? ''));
      await refused();
    }
    for (const url of files.slice(2))
      assert.equal((await fetch(url, { method: 'DELETE', headers: bearer(ann) })).status, 204);
  });

  test('quotas refuse for the file, the identity, the room and the node', async () => {
    const full = Buffer.alloc(MIB, 'x');
    const code = async (/** @type {string} */ room, /** @type {string} */ who, length = MIB) => {
      const headers = { 'upload-length': String(length) };
      const answer = await tus('POST', `${filesOf(server, room)}?identity=${who}`, headers);
      return answer.ok ? answer.headers.get('location') : `${answer.status} ${(await answer.json()).code}`;
    };
    assert.equal(await code('limited-1', 'Ann', MIB + 1), '413 too_large');
    for (const name of ['a', 'b'])
      await put(server, 'limited-1', name, Buffer.concat([full.subarray(1), Buffer.from(name)]), 'Ann');
    // What an unfinished upload will take counts, until it is given up.
    const promised = await code('limited-1', 'Ann');
    assert.equal(await code('limited-1', 'Ann', MIB), '413 quota_exceeded');
    assert.equal((await tus('DELETE', server.url + promised)).status, 204);
    assert.ok(!String(await code('limited-1', 'Ann')).includes('quota'));
    assert.ok(!String(await code('limited-1', 'Bob')).includes('quota'));
    assert.ok(!String(await code('limited-1', 'Bob')).includes('quota'));
    assert.equal(await code('limited-1', 'Bob'), '413 quota_exceeded', 'the room is full');
    assert.ok(!String(await code('limited-2', 'Cid')).includes('quota'));
    assert.ok(!String(await code('limited-2', 'Cid')).includes('quota'));
    assert.equal(await code('limited-3', 'Dan'), '413 quota_exceeded', 'the node is full');
    const { body } = await server.call('GET', '/rooms/limited-1/files');
    for (const { name, sha256: hash } of body.files)
      assert.equal(hash, sha256(Buffer.concat([full.subarray(1), Buffer.from(name)])));
    assert.equal(body.files.length, 2, 'what is there stays');
  });

  test('only who may, may', async () => {
    const may = { files: true, chat: true, subscribe: true };
    const [ann, ben, chair] = [
      token('strict', 'ann', may),
      token('strict', 'ben', may),
      token('strict', 'chair', { ...may, admin: true }),
    ];
    const bearer = (/** @type {string} */ value) => ({ authorization: `Bearer ${value}` });
    const create = (/** @type {string} */ value, room = 'strict') =>
      tus('POST', filesOf(server, room), { 'upload-length': '0', ...bearer(value) });
    assert.equal((await create(token('strict', 'eve', { chat: true }))).status, 403);
    assert.equal((await create(ann, 'elsewhere')).status, 403);
    assert.equal((await create('a.b.c')).status, 401);
    const location = (await create(ann)).headers.get('location') ?? '';
    const url = server.url + location;
    const status = async (/** @type {string} */ method, /** @type {string} */ value, path = '') =>
      (await fetch(url + path, { method, headers: bearer(value) })).status;
    assert.equal(await status('GET', ben), 200);
    assert.equal(await status('GET', token('strict', 'eve', { chat: true })), 403);
    assert.equal(await status('DELETE', ben), 403, 'it is not his');
    const link = await (await fetch(`${url}/link`, { method: 'POST', headers: bearer(ben) })).json();
    assert.equal((await fetch(server.url + link.url)).status, 200);
    assert.equal((await fetch(`${server.url}${link.url.slice(0, -1)}x`)).status, 401);
    assert.equal((await fetch(`${server.url + location}?until=1&signature=00`)).status, 401);
    assert.equal(await status('DELETE', chair), 204, 'she rules the room');
    assert.equal((await fetch(server.url + link.url)).status, 410);
  });
});
