/**
 * What players cost a node: many of them poll a room's stream as players with low latency do, and the
 * process's own account of its time is read.
 *
 *   node pollers.js URL PLAYERS SECONDS SERVER_PID [SLOW [BYTES_PER_SECOND]]
 *
 * `URL` is that of a multivariant playlist. Each player follows one picture and the sound: it asks for the
 * playlist that has the next part, which is held until it is there, and fetches that part. `SLOW` more are on
 * a slow line: they take no more than so many bytes a second of each answer (20,000 if not said), and so fall
 * behind. Prints one object; times of parts are those of the players that keep up.
 */
import { readFile } from 'node:fs/promises';
import { Agent, get } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

const [url = '', players = '10', seconds = '20', pid = '', slow = '0', bytesPerSecond = '20000'] =
  process.argv.slice(2);
const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
/** Ticks of the kernel's clock in a second. */
const TICKS = 100;

/**
 * @param {string} from
 * @param {number} [rate] the most bytes a second that are taken
 * @returns {Promise<{ status: number, bytes: Buffer }>}
 */
const fetched = (from, rate) =>
  new Promise((resolve, reject) => {
    get(from, { agent }, (answer) => {
      /** @type {Buffer[]} */
      const chunks = [];
      answer.on('data', (chunk) => {
        chunks.push(chunk);
        if (rate === undefined) return;
        answer.pause();
        setTimeout(() => answer.resume(), (chunk.length / rate) * 1_000);
      });
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, bytes: Buffer.concat(chunks) }));
      answer.on('error', reject);
    }).on('error', reject);
  });

/** Seconds of processor time, and memory, of the server. */
async function account() {
  const stat = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const rssKb = Number(/VmRSS:\s+([0-9]+)/.exec(status)?.[1]);
  return { cpuS: (Number(stat[11]) + Number(stat[12])) / TICKS, rssMb: rssKb / 1024 };
}

const figures = { playlists: 0, parts: 0, bytes: 0, failed: 0, slowParts: 0, slowBehindMs: 0 };
/** How long after a part's end its player had it, in ms. @type {number[]} */
const delays = [];
let running = true;

/** @param {string} playlist */
async function follow(playlist) {
  let next = '';
  while (running) {
    const { status, bytes } = await fetched(`${playlist}${next}`);
    figures.playlists += 1;
    figures.bytes += bytes.length;
    if (status !== 200) {
      figures.failed += 1;
      await delay(500);
      continue;
    }
    const text = bytes.toString();
    const hint = /PRELOAD-HINT:TYPE=PART,URI="[^"]*?-([0-9]+)-([0-9]+)\.m4s"/.exec(text);
    const parts = [...text.matchAll(/#EXT-X-PART:DURATION=([0-9.]+),URI="([^"]+)"/g)];
    const newest = parts.at(-1)?.[2];
    if (next !== '' && newest) {
      const dates = text.split('#EXT-X-PROGRAM-DATE-TIME:').at(-1) ?? '';
      const began = Date.parse(dates.slice(0, 24));
      const inLast = [...dates.matchAll(/#EXT-X-PART:DURATION=([0-9.]+)/g)];
      const lasted = inLast.reduce((sum, [, duration]) => sum + Number(duration) * 1_000, 0);
      delays.push(Date.now() - began - lasted);
      const part = await fetched(new URL(newest, playlist).href);
      figures.parts += 1;
      figures.bytes += part.bytes.length;
      if (part.status !== 200) figures.failed += 1;
    }
    next = `?_HLS_msn=${hint?.[1]}&_HLS_part=${hint?.[2]}`;
  }
}

/**
 * Follows as well as a slow line lets it: part after part, of those that there still are.
 *
 * @param {string} playlist
 */
async function fallBehind(playlist) {
  let last = '';
  while (running) {
    const text = (await fetched(playlist)).bytes.toString();
    const parts = [...text.matchAll(/#EXT-X-PART:DURATION=([0-9.]+),URI="([^"]+)"/g)].map(([, , uri]) => uri);
    const at = parts.indexOf(last);
    const next = parts[at + 1] ?? '';
    if (next === '') {
      await delay(100);
      continue;
    }
    const part = await fetched(new URL(next, playlist).href, Number(bytesPerSecond));
    figures.bytes += part.bytes.length;
    figures.slowParts += 1;
    figures.slowBehindMs = Math.max(figures.slowBehindMs, (parts.length - at - 2) * 500);
    last = next;
  }
}

const master = (await fetched(url)).bytes.toString();
const high = new URL(/^[^#].*high.*$/m.exec(master)?.[0] ?? '', url).href;
const sound = new URL(/URI="([^"]+)"/.exec(master)?.[1] ?? '', url).href;
const all = [
  ...Array.from({ length: Number(players) }).flatMap(() => [follow(high), follow(sound)]),
  ...Array.from({ length: Number(slow) }, () => fallBehind(high)),
];
await delay(5_000);
const before = await account();
Object.assign(figures, { playlists: 0, parts: 0, bytes: 0, failed: 0, slowParts: 0, slowBehindMs: 0 });
delays.length = 0;
const began = Date.now();
await delay(Number(seconds) * 1_000);
const after = await account();
const tookS = (Date.now() - began) / 1_000;
running = false;
delays.sort((a, b) => a - b);
const at = (/** @type {number} */ share) => Math.round(delays[Math.floor(delays.length * share)] ?? 0);
const report = {
  players: Number(players),
  seconds: tookS,
  cores: Number(((after.cpuS - before.cpuS) / tookS).toFixed(3)),
  rssMb: Math.round(after.rssMb),
  requestsPerSecond: Math.round((figures.playlists + figures.parts) / tookS),
  mbitPerSecond: Math.round((figures.bytes * 8) / tookS / 1e6),
  failed: figures.failed,
  slow: { players: Number(slow), parts: figures.slowParts, behindMs: figures.slowBehindMs },
  delayMs: { p50: at(0.5), p95: at(0.95), p99: at(0.99) },
};
process.stdout.write(`${JSON.stringify(report)}\n`);
await Promise.race([Promise.allSettled(all), delay(2_000)]);
process.exit(0);
