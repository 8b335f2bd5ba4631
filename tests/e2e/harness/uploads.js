/**
 * Files to send, a client of the upload protocol that people use, and a connection that can be cut.
 *
 * @import { Server } from './server.js'
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Upload } from 'tus-js-client';

const CHUNK_BYTES = 4 << 20;

/** A directory for files to send. */
export async function scratch() {
  const path = await mkdtemp(join(tmpdir(), 'antiphon-files-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/**
 * Writes a file that nothing can make smaller, and gives its hash.
 *
 * @param {string} path
 * @param {number} bytes
 */
export async function randomFile(path, bytes) {
  const hash = createHash('sha256');
  const file = createWriteStream(path);
  const seed = randomBytes(CHUNK_BYTES);
  for (let at = 0; at < bytes; at += CHUNK_BYTES) {
    // Each part differs from the others, so that none can be taken for another.
    seed.writeBigUInt64LE(BigInt(at), 0);
    const part = Buffer.from(seed.subarray(0, Math.min(CHUNK_BYTES, bytes - at)));
    hash.update(part);
    if (!file.write(part)) await once(file, 'drain');
  }
  file.end();
  await once(file, 'finish');
  return hash.digest('hex');
}

/** Where the files of a room are. @param {Server} server @param {string} room */
export const filesOf = (server, room) => `${server.url}/v1/rooms/${room}/files`;

/** The hash of what is at an address, read as it comes. @param {string} url */
export async function hashOf(url) {
  const hash = createHash('sha256');
  const answer = await fetch(url);
  if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
  for await (const part of /** @type {any} */ (answer.body)) hash.update(part);
  return hash.digest('hex');
}

/** @param {string | Buffer} data */
export const sha256 = (data) => createHash('sha256').update(data).digest('hex');

/**
 * Sends a file with tus-js-client, going on after each failure; gives the address that it has.
 *
 * @param {string} url of the room's files
 * @param {string} path
 * @param {{ name?: string, identity?: string, begun?: string, onProgress?: (sent: number) => void }}
 *   [options]
 *   `begun` is an upload to go on with
 * @returns {Promise<string>}
 */
export function send(url, path, { name = 'file.bin', identity = 'Ada', onProgress, begun } = {}) {
  return new Promise((resolve, reject) => {
    const upload = new Upload(createReadStream(path), {
      endpoint: `${url}?identity=${identity}`,
      uploadUrl: begun ?? null,
      metadata: { filename: name },
      retryDelays: Array(200).fill(100),
      onProgress: (sent) => onProgress?.(sent),
      onSuccess: () => resolve(upload.url ?? ''),
      onError: reject,
    });
    upload.start();
  });
}

/**
 * One request of the protocol.
 *
 * @param {string} method
 * @param {string} url
 * @param {Record<string, string>} [headers]
 * @param {BodyInit} [body]
 */
export async function tus(method, url, headers = {}, body) {
  return await fetch(url, {
    method,
    headers: { 'tus-resumable': '1.0.0', ...headers },
    ...(body !== undefined && { body, duplex: 'half' }),
  });
}

/**
 * Begins an upload and gives its address.
 *
 * @param {string} url of the room's files
 * @param {number} length
 * @param {string} [name]
 */
export async function begin(url, length, name = 'file.bin') {
  const answer = await tus('POST', url, {
    'upload-length': String(length),
    'upload-metadata': `filename ${Buffer.from(name).toString('base64')}`,
  });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
  return new URL(answer.headers.get('location') ?? '', url).href;
}

/**
 * Adds bytes to an upload.
 *
 * @param {string} url
 * @param {number} offset
 * @param {BodyInit} body
 * @param {Record<string, string>} [headers]
 */
export async function add(url, offset, body, headers = {}) {
  const type = 'application/offset+octet-stream';
  return await tus('PATCH', url, { 'upload-offset': String(offset), 'content-type': type, ...headers }, body);
}

/**
 * Sends a small file at once; gives what the room lists of it.
 *
 * @param {Server} server
 * @param {string} room
 * @param {string} name
 * @param {string | Buffer} contents
 * @param {string} [identity]
 * @returns {Promise<any>}
 */
export async function put(server, room, name, contents, identity = 'Ada') {
  const files = `${server.url}/v1/rooms/${room}/files`;
  const bytes = Buffer.from(contents);
  const url = await begin(`${files}?identity=${identity}`, bytes.length, name);
  const answer = bytes.length > 0 ? await add(url, 0, bytes) : undefined;
  if (answer && answer.status !== 204) throw new Error(`${answer.status} ${await answer.text()}`);
  const { body } = await server.call('GET', `/rooms/${room}/files`);
  return body.files.find((/** @type {any} */ file) => url.endsWith(file.id));
}

/**
 * A way to the server that is cut after every so many bytes, until it has been cut often enough.
 *
 * @param {string} url of the server
 * @param {{ times: number, everyBytes: number }} how
 */
export async function startCutter(url, { times, everyBytes }) {
  const { port } = new URL(url);
  let cuts = 0;
  const proxy = createServer((near) => {
    const far = connect(Number(port), '127.0.0.1');
    let passed = 0;
    const end = () => {
      near.destroy();
      far.destroy();
    };
    near.on('data', (data) => {
      passed += data.length;
      if (cuts < times && passed > everyBytes) {
        cuts += 1;
        end();
        return;
      }
      if (!far.write(data)) {
        near.pause();
        far.once('drain', () => near.resume());
      }
    });
    far.on('data', (data) => near.write(data));
    for (const socket of [near, far]) socket.on('close', end).on('error', end);
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const address = proxy.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    cuts: () => cuts,
    async close() {
      proxy.close();
      await once(proxy, 'close');
    },
  };
}

/**
 * What a process holds in memory, in MiB: now, and the most it ever did.
 *
 * @param {number} pid
 */
export async function memory(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const field = (/** @type {string} */ name) =>
    Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
  return { now: field('VmRSS'), most: field('VmHWM') };
}
