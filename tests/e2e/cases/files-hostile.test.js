/**
 * Files of people who mean no good, and a disk that is full: clear errors, nothing lost, nothing escapes.
 *
 * @import { Server } from '../harness/server.js'
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { deflateSync } from 'node:zlib';
import { Server as RealServer } from '../harness/server.js';
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
  tus,
} from '../harness/uploads.js';

const MIB = 2 ** 20;
/** Of memory that a server may take more while it takes files, in MiB. */
const GROWTH_MAX = 48;

describe('files of people who mean no good', { timeout: 120_000 }, () => {
  /** @type {Server} */ let server;

  before(async () => {
    server = await RealServer.start();
  });

  after(() => server?.stop());

  test('no name leads anywhere', async () => {
    for (const [claimed, kept] of [
      ['../../etc/passwd', 'passwd'],
      ['..\\..\\boot.ini', 'boot.ini'],
      ['/etc/shadow', 'shadow'],
      ['a\r\nSet-Cookie: x=1', 'aSet-Cookie_ x=1'],
      ['photo\u202egpj.exe', 'photogpj.exe'],
      ['.', 'file'],
      ['', 'file'],
      ['con.txt', '_con.txt'],
      ['Zoë "quoted".pdf', 'Zoë _quoted_.pdf'],
    ]) {
      const file = await put(server, 'names', claimed ?? '', `contents of ${claimed}`);
      assert.equal(file.name, kept);
      const answer = await fetch(server.url + file.url);
      const disposition = answer.headers.get('content-disposition') ?? '';
      assert.ok(disposition.startsWith('attachment; filename="'), disposition);
      assert.ok(disposition.endsWith(`filename*=UTF-8''${encodeURIComponent(kept ?? '')}`), disposition);
      assert.equal(answer.headers.get('set-cookie'), null);
    }
    // All that was written is below the directory of files, under hashes and ids.
    const written = await readdir(join(server.dataDir, 'files'), { recursive: true });
    for (const name of written.map((path) => path.split('/').pop() ?? ''))
      assert.match(name, /^(store|uploads|contents|thumbnails|[0-9a-f]{2}|[0-9a-f]{64})$/);
  });

  test('no file acts in the page’s origin', async () => {
    const svg = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>';
    const html = '<!doctype html><script>fetch("/v1/rooms")</script>';
    const zip = Buffer.from('504b0304140000000800', 'hex');
    for (const [name, data, type, served] of /** @type {[string, string | Buffer, string, string][]} */ ([
      ['logo.svg', svg, 'image/svg+xml', 'application/octet-stream'],
      ['picture.png', html, 'text/html', 'application/octet-stream'],
      ['bomb.zip', Buffer.concat([zip, Buffer.alloc(MIB)]), 'application/zip', 'application/octet-stream'],
      ['notes.html', 'plain words', 'text/plain', 'text/plain; charset=utf-8'],
    ])) {
      const file = await put(server, 'types', name, data);
      assert.equal(file.media_type, type, name);
      assert.equal(file.thumbnail, false);
      const { headers } = await fetch(server.url + file.url);
      assert.equal(headers.get('content-type'), served);
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
      assert.equal(headers.get('content-security-policy'), "sandbox; default-src 'none'");
      assert.match(headers.get('content-disposition') ?? '', /^attachment/);
      assert.equal((await fetch(`${server.url + file.url}/thumbnail`)).status, 404);
    }
  });

  test('a picture made to fill memory costs a process of its own, and no more', async () => {
    const before = await memory(server.pid);
    for (const side of [20_000, 60_000]) {
      const started = Date.now();
      const file = await put(server, 'bombs', `${side}.png`, png(side));
      assert.equal(file.media_type, 'image/png');
      assert.equal(file.thumbnail, false);
      assert.ok(Date.now() - started < 25_000);
    }
    assert.ok((await memory(server.pid)).now - before.now < GROWTH_MAX);
    assert.equal((await fetch(`${server.url}/readyz`)).status, 200);
  });

  test('what cannot be decoded is still a file', async () => {
    const broken = Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), Buffer.alloc(1000, 7)]);
    const file = await put(server, 'broken', 'broken.png', broken);
    assert.deepEqual([file.media_type, file.thumbnail, file.width], ['image/png', false, undefined]);
  });
});

/** A PNG that claims to be so many pixels square, of which it has the first row. @param {number} side */
function png(side) {
  const chunk = (/** @type {string} */ type, /** @type {Buffer} */ data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(data.length);
    const sum = Buffer.alloc(4);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, sum]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 6], 8);
  const rows = deflateSync(Buffer.alloc(side * 4 + 1));
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', rows),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** As PNG wants it. @param {Buffer} data */
function crc32(data) {
  let sum = 0xffffffff;
  for (const byte of data) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}

describe('files and a disk that is full', { timeout: 120_000 }, () => {
  test('what would take the disk’s reserve is refused before a byte of it came', async () => {
    const server = await RealServer.start({ FILES__DISK_RESERVE_BYTES: String(2 ** 50) });
    try {
      const answer = await tus('POST', filesOf(server, 'full'), { 'upload-length': '1' });
      assert.deepEqual([answer.status, (await answer.json()).code], [507, 'storage_full']);
    } finally {
      await server.stop();
    }
  });

  test('what came before the disk was full is kept, and the upload goes on when there is space', async (t) => {
    if (process.getuid?.() !== 0) {
      assert.notEqual(process.env.CI, 'true', 'a disk that is full needs root, to be mounted');
      t.diagnostic('NOT RUN: mounting a small disk needs root');
      return;
    }
    const disk = await mkdtemp(join(tmpdir(), 'antiphon-disk-'));
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', disk]);
    const folder = await scratch();
    /** @type {Server | undefined} */ let server;
    try {
      server = await RealServer.start({ NODE__DATA_DIR: disk, FILES__DISK_RESERVE_BYTES: '0' });
      const path = join(folder.path, 'large.bin');
      const hash = await randomFile(path, 40 * MIB);
      const url = await begin(`${filesOf(server, 'full')}?identity=Ada`, 40 * MIB);
      const refused = await add(url, 0, await readFile(path));
      assert.deepEqual([refused.status, (await refused.json()).code], [507, 'storage_full']);
      const offset = Number((await tus('HEAD', url)).headers.get('upload-offset'));
      assert.ok(offset > 10 * MIB && offset < 24 * MIB, `${offset} bytes were kept`);
      execFileSync('mount', ['-o', 'remount,size=120m', disk]);
      await send(filesOf(server, 'full'), path, { begun: url });
      assert.equal(await hashOf(url.split('?')[0] ?? ''), hash);
    } finally {
      await server?.crash();
      execFileSync('umount', [disk]);
      await server?.stop();
      await folder.remove();
    }
  });
});
