/**
 * The upload protocol, tus 1.0.0, as its specification has it: each case is one of its sentences.
 *
 * @import { Server } from '../harness/server.js'
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Server as RealServer } from '../harness/server.js';
import { add, begin, tus } from '../harness/uploads.js';

const TYPE = 'application/offset+octet-stream';

describe('tus 1.0.0', { timeout: 60_000 }, () => {
  /** @type {Server} */ let server;
  /** @type {string} */ let files;

  before(async () => {
    server = await RealServer.start();
    files = `${server.url}/v1/rooms/tus-room/files?identity=Ada`;
  });

  after(() => server?.stop());

  /** @param {Response} answer @param {number} status @param {string} code */
  async function refused(answer, status, code) {
    assert.equal(answer.status, status);
    assert.equal(answer.headers.get('content-type'), 'application/problem+json');
    assert.equal(answer.headers.get('tus-resumable'), '1.0.0');
    assert.equal((await answer.json()).code, code);
  }

  /** @param {string} url */
  async function offset(url) {
    const answer = await tus('HEAD', url);
    return answer.ok ? Number(answer.headers.get('upload-offset')) : answer.status;
  }

  test('OPTIONS tells version, extensions, the largest file and checksums, without Tus-Resumable', async () => {
    const answer = await fetch(files, { method: 'OPTIONS' });
    assert.ok([200, 204].includes(answer.status));
    assert.equal(answer.headers.get('tus-resumable'), '1.0.0');
    assert.equal(answer.headers.get('tus-version'), '1.0.0');
    const extensions = answer.headers.get('tus-extension')?.split(',');
    for (const name of ['creation', 'creation-with-upload', 'checksum', 'termination', 'expiration'])
      assert.ok(extensions?.includes(name), name);
    assert.equal(Number(answer.headers.get('tus-max-size')), 4 * 2 ** 30);
    assert.match(answer.headers.get('tus-checksum-algorithm') ?? '', /sha1/);
  });

  test('another version is refused with 412 and the version that is spoken', async () => {
    for (const version of ['0.2.2', '2.0.0']) {
      const answer = await tus('POST', files, { 'tus-resumable': version, 'upload-length': '3' });
      assert.equal(answer.headers.get('tus-version'), '1.0.0');
      await refused(answer, 412, 'precondition_failed');
    }
    await refused(
      await fetch(files, { method: 'POST', headers: { 'upload-length': '3' } }),
      412,
      'precondition_failed',
    );
  });

  test('an upload is created, asked for, added to and then a file', async () => {
    const created = await tus('POST', files, {
      'upload-length': '11',
      'upload-metadata': 'filename YS50eHQ=,x',
    });
    assert.equal(created.status, 201);
    assert.ok(created.headers.get('upload-expires'));
    const url = new URL(created.headers.get('location') ?? '', files).href;
    const asked = await tus('HEAD', url);
    assert.equal(asked.status, 200);
    assert.equal(asked.headers.get('upload-offset'), '0');
    assert.equal(asked.headers.get('upload-length'), '11');
    assert.equal(asked.headers.get('upload-metadata'), 'filename YS50eHQ=,x');
    assert.match(asked.headers.get('cache-control') ?? '', /no-store/);
    const first = await add(url, 0, 'hello ');
    assert.equal(first.status, 204);
    assert.equal(first.headers.get('upload-offset'), '6');
    assert.ok(first.headers.get('upload-expires'));
    assert.equal(await offset(url), 6);
    assert.equal((await fetch(url)).status, 404, 'no file yet');
    const last = await add(url, 6, 'world');
    assert.equal(last.status, 204);
    assert.equal(last.headers.get('upload-offset'), '11');
    assert.equal(await offset(url), 11);
    assert.equal(await (await fetch(url)).text(), 'hello world');
  });

  test('PATCH needs the offset where the upload is, and the media type', async () => {
    const url = await begin(files, 10);
    for (const wrong of [1, 10, 11]) await refused(await add(url, wrong, 'x'), 409, 'wrong_offset');
    for (const wrong of ['-1', 'x', '', '1.5', '+0'])
      await refused(await add(url, 0, 'x', { 'upload-offset': wrong }), 400, 'malformed');
    await refused(await tus('PATCH', url, { 'content-type': TYPE }, 'x'), 400, 'malformed');
    for (const type of ['application/octet-stream', 'text/plain'])
      await refused(await add(url, 0, 'x', { 'content-type': type }), 415, 'unsupported_media_type');
    assert.equal(await offset(url), 0, 'nothing of it was taken');
  });

  test('more bytes than Upload-Length are refused, and none of them kept', async () => {
    const url = await begin(files, 4);
    await refused(await add(url, 0, 'hello'), 413, 'too_large');
    const lying = new ReadableStream({
      start(stream) {
        for (const part of ['he', 'll', 'o']) stream.enqueue(new TextEncoder().encode(part));
        stream.close();
      },
    });
    await refused(await add(url, 0, lying), 413, 'too_large');
    assert.equal(await offset(url), 0);
    assert.equal((await add(url, 0, 'hell')).status, 204);
    await refused(await add(url, 4, 'o'), 409, 'wrong_offset');
  });

  test('POST needs a length that is a number within the limit, and metadata that can be read', async () => {
    for (const wrong of ['-1', 'x', '1e3', '99999999999999999999999'])
      await refused(await tus('POST', files, { 'upload-length': wrong }), 400, 'malformed');
    await refused(await tus('POST', files), 400, 'malformed');
    await refused(await tus('POST', files, { 'upload-length': String(5 * 2 ** 30) }), 413, 'too_large');
    const metadata = { 'upload-length': '1', 'upload-metadata': 'filename ***' };
    await refused(await tus('POST', files, metadata), 400, 'malformed');
  });

  test('what is no upload is not found', async () => {
    const url = `${server.url}/v1/rooms/tus-room/files/0123456789abcdef0123456789abcdef?identity=Ada`;
    assert.equal((await tus('HEAD', url)).status, 404);
    await refused(await add(url, 0, 'x'), 404, 'not_found');
    await refused(await tus('DELETE', url), 404, 'not_found');
    const other = (await begin(files, 5)).replace('tus-room', 'other-room');
    assert.equal((await tus('HEAD', other)).status, 404, 'an upload belongs to its room');
  });

  test('creation-with-upload takes the first bytes, or all', async () => {
    const headers = { 'content-type': TYPE, 'upload-length': '5' };
    const part = await tus('POST', files, headers, 'he');
    assert.deepEqual([part.status, part.headers.get('upload-offset')], [201, '2']);
    const whole = await tus('POST', files, headers, 'hello');
    assert.deepEqual([whole.status, whole.headers.get('upload-offset')], [201, '5']);
    const url = new URL(whole.headers.get('location') ?? '', files).href;
    assert.equal(await (await fetch(url)).text(), 'hello');
  });

  test('a checksum that fits is taken, one that does not discards its bytes', async () => {
    const url = await begin(files, 10);
    const sum = (/** @type {string} */ kind, /** @type {string} */ of) => ({
      'upload-checksum': `${kind} ${createHash(kind).update(of).digest('base64')}`,
    });
    assert.equal((await add(url, 0, 'hello', sum('sha1', 'hello'))).status, 204);
    await refused(await add(url, 5, 'wurld', sum('sha1', 'world')), 460, 'checksum_mismatch');
    assert.equal(await offset(url), 5);
    await refused(await add(url, 5, 'x', { 'upload-checksum': 'crc32 AAAA' }), 400, 'malformed');
    assert.equal((await add(url, 5, 'world', sum('sha256', 'world'))).status, 204);
    assert.equal(await (await fetch(url)).text(), 'helloworld');
  });

  test('DELETE ends an upload', async () => {
    const url = await begin(files, 10);
    await add(url, 0, 'hello');
    assert.equal((await tus('DELETE', url)).status, 204);
    assert.ok([404, 410].includes(Number(await offset(url))));
    await refused(await add(url, 5, 'x'), 404, 'not_found');
  });

  test('POST may stand for PATCH and DELETE where only it gets through', async () => {
    const url = await begin(files, 5);
    const patch = { 'x-http-method-override': 'PATCH', 'upload-offset': '0', 'content-type': TYPE };
    assert.equal((await tus('POST', url, patch, 'hel')).status, 204);
    assert.equal(await offset(url), 3);
    assert.equal((await tus('POST', url, { 'x-http-method-override': 'DELETE' })).status, 204);
    await refused(await tus('POST', url, { 'x-http-method-override': 'GET' }), 405, 'method_not_allowed');
  });

  test('an empty file is a file', async () => {
    const url = await begin(files, 0, 'empty.txt');
    const answer = await fetch(url);
    assert.deepEqual([answer.status, await answer.text()], [200, '']);
  });

  test('pages of other origins may speak it', async () => {
    const asked = await fetch(files, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://elsewhere.example',
        'access-control-request-method': 'PATCH',
        'access-control-request-headers': 'tus-resumable,upload-offset,antiphon-session',
      },
    });
    const allowed = asked.headers.get('access-control-allow-headers') ?? '';
    for (const name of ['tus-resumable', 'upload-offset', 'upload-metadata', 'antiphon-session'])
      assert.match(allowed, new RegExp(name, 'i'));
    const url = await begin(files, 1);
    const answer = await tus('HEAD', url, { origin: 'https://elsewhere.example' });
    assert.match(answer.headers.get('access-control-expose-headers') ?? '', /upload-offset/i);
  });
});
