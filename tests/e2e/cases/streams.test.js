/**
 * A room that goes out: by HLS to the page, to FFmpeg and to validators, by RTMP to a real server.
 *
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import HlsParser from 'hls-parser';
// @ts-expect-error it has no types
import { Parser } from 'm3u8-parser';
import { follow, quantile } from '../harness/hls.js';
import { hook } from '../harness/person.js';
import { RtmpServer, selfSigned } from '../harness/rtmp.js';
import { until } from '../harness/until.js';
import { setUp } from '../harness/world.js';

const ROOM = 'streamed-room';
const KEY = 'a-key-that-is-told-nobody';
const START_S = 40;
/** The most that a viewer may be behind. */
const DELAY_MAX_S = 4;
const PART_MAX_S = 0.5;
/** For how long parts are followed: `ANTIPHON_HLS_SECONDS=600` for the ten minutes of a long look. */
const FOLLOWED_S = Number(process.env.ANTIPHON_HLS_SECONDS ?? 12);
/** Where in a part of what a page shows streams are ended. */
const END_AT = [0.2, 0.5, 0.8];
/** A part is on time if whoever waits for it has it so soon after its end. */
const LATE_MAX_MS = 1_000;

// The node trusts it from its start on, as it does the system's roots.
const certificate = selfSigned();
process.env.SSL_CERT_FILE = certificate.cert;

describe('a room that is streamed', () => {
  // Fewer pictures than people would get: browsers and a mixer share one small machine.
  const world = setUp({ settings: { MCU__FRAMES_PER_SECOND: '15', MCU__CORES_NEEDED: '0' } });
  /** @type {Person} */
  let ada;
  /** @type {RtmpServer} */
  let rtmp;
  const base = () => `${world.server.url}/v1/rooms/${ROOM}`;

  before(async () => {
    rtmp = await RtmpServer.start(certificate);
    ada = await world.chromium.person('Ada');
    await ada.join(world.server, ROOM);
  });
  after(async () => {
    await rtmp.stop();
    await rm(certificate.folder, { recursive: true, force: true });
  });

  /** @param {string} url */
  const text = async (url) => {
    const answer = await fetch(url);
    assert.equal(answer.status, 200, `${url}: ${answer.status}`);
    return { body: await answer.text(), headers: answer.headers, url: answer.url };
  };
  /** The addresses of the three media playlists. @returns {Promise<[string, string, string]>} */
  const playlists = async () => {
    const master = await text(`${base()}/hls/index.m3u8`);
    const parsed = /** @type {any} */ (HlsParser.parse(master.body));
    const uris = [...parsed.variants.map((/** @type {any} */ v) => v.uri), parsed.variants[0].audio[0].uri];
    const urls = uris.map((uri) => new URL(uri, master.url).href);
    assert.equal(urls.length, 3);
    return /** @type {[string, string, string]} */ (urls);
  };

  test('the owner starts it in the page, and stays forwarded', { timeout: 90_000 }, async () => {
    await ada.press('stream');
    await ada.press('toggle-hls');
    await until(
      'the stream is live',
      async () =>
        (await world.server.call('GET', `/rooms/${ROOM}/hls`, { allow: [404] })).body?.state === 'live',
      { seconds: START_S, show: () => world.server.log(20) },
    );
    const room = (await world.server.call('GET', `/rooms/${ROOM}`)).body;
    assert.deepEqual([room.mode, room.hls, room.restreams], ['sfu', true, 0]);
    assert.equal((await ada.room()).hls, true);
  });

  test('validators take its playlists, and they are as the RFC has them', { timeout: 90_000 }, async () => {
    HlsParser.setOptions({ strictMode: true });
    for (const url of await playlists()) {
      const { body, headers } = await until(
        'a playlist of several segments',
        async () => {
          const answer = await text(url);
          return (answer.body.match(/#EXTINF/g)?.length ?? 0) >= 3 && answer;
        },
        { seconds: 30 },
      );
      assert.equal(headers.get('content-type'), 'application/vnd.apple.mpegurl');
      assert.equal(headers.get('cache-control'), 'no-store');
      assert.equal(headers.get('access-control-allow-origin'), '*');
      const parsed = /** @type {any} */ (HlsParser.parse(body));
      assert.ok(parsed.lowLatencyCompatibility.canBlockReload && parsed.partTargetDuration === PART_MAX_S);
      assert.equal(parsed.renditionReports.length, 2);
      const other = new Parser();
      other.push(body);
      other.end();
      assert.ok(/** @type {any} */ (other.manifest).segments.length >= 3);
      checkDurations(parsed);
    }
  });

  test('a playlist waits for the part that comes, and a part for itself', { timeout: 60_000 }, async () => {
    const [url] = await playlists();
    for (let round = 0; round < 6; round += 1) {
      const before = edge((await text(url)).body);
      const began = Date.now();
      const hinted = fetch(new URL(before.hint, url));
      const after = edge((await text(`${url}?_HLS_msn=${before.number}&_HLS_part=${before.part}`)).body);
      assert.ok(after.count > before.count, `${JSON.stringify(before)} ${JSON.stringify(after)}`);
      const part = await hinted;
      assert.equal(part.status, 200);
      assert.match(part.headers.get('cache-control') ?? '', /immutable/);
      assert.ok(Date.now() - began < 3_000);
    }
    const delta = (await text(`${url}?_HLS_skip=YES`)).body;
    assert.ok(delta.startsWith('#EXTM3U'));
    const far = await fetch(`${url}?_HLS_msn=999999`);
    assert.equal(far.status, 400);
    assert.equal((await fetch(`${url}?_HLS_part=1`)).status, 400);
  });

  test('parts come on time, one after the other', { timeout: FOLLOWED_S * 1_000 + 60_000 }, async (t) => {
    const followed = await Promise.all((await playlists()).map((url) => follow(url, FOLLOWED_S)));
    for (const [at, { parts, missed, short, discontinuities, lateMs }] of followed.entries()) {
      const name = ['high', 'low', 'sound'][at];
      const [p50, p95, most] = [0.5, 0.95, 1].map((share) => quantile(lateMs, share));
      t.diagnostic(
        `${name}: ${parts} parts in ${FOLLOWED_S} s, late by p50 ${p50}, p95 ${p95}, most ${most} ms, ` +
          `${discontinuities} discontinuities`,
      );
      assert.equal(missed, 0, `${name}: parts were missed`);
      assert.equal(short, 0, `${name}: parts were too short`);
      const jumps = world.server
        .log(2_000)
        .split('\n')
        .filter((line) => line.includes('the stream jumps'));
      assert.equal(discontinuities, 0, `${name}: time jumped: ${jumps.join('\n')}`);
      assert.ok(parts >= (FOLLOWED_S - 3) / PART_MAX_S, `${name}: ${parts} parts`);
      assert.ok(Number(p95) < LATE_MAX_MS, `${name}: p95 ${p95} ms`);
    }
  });

  test('what is not there is said to be so', { timeout: 30_000 }, async () => {
    const [url] = await playlists();
    const stream = /URI="([0-9a-f]+)-init/.exec((await text(url)).body)?.[1];
    const status = async (/** @type {string} */ name) => (await fetch(new URL(name, url))).status;
    assert.equal(await status(`${stream}-99999.m4s`), 404);
    assert.equal(await status(`${stream}-init-99.mp4`), 404);
    assert.equal(await status('abc-1.m4s'), 410);
    assert.equal(await status('nothing.ts'), 404);
    const forged = url.replace(/hls\/[^/]+/, 'hls/ffff-00000000000000000000000000000000');
    assert.equal((await fetch(forged)).status, 403);
  });

  test('FFmpeg plays it', { timeout: 60_000 }, async () => {
    const url = `${base()}/hls/index.m3u8`;
    const { stderr } = await promisify(execFile)(
      'ffmpeg',
      ['-v', 'warning', '-stats', '-xerror', '-i', url, '-map', '0', '-t', '5', '-f', 'null', '-'],
      { timeout: 50_000 },
    );
    const frames = Number(/frame= *([0-9]+)[^\r]*$/.exec(stderr.trim())?.[1]);
    assert.ok(frames >= 45, stderr);
    assert.doesNotMatch(stderr, /[Nn]on-monoton|[Ii]nvalid|error/);
  });

  test('ffplay plays it', { timeout: 60_000 }, async () => {
    // Without a screen and without a speaker.
    const env = { ...process.env, SDL_VIDEODRIVER: 'dummy', SDL_AUDIODRIVER: 'dummy' };
    const args = ['-v', 'info', '-stats', `${base()}/hls/index.m3u8`];
    // It plays for as long as it is let.
    const { stderr } = await promisify(execFile)('ffplay', args, { env, timeout: 12_000 }).catch(
      (ended) => ended,
    );
    // The clock of what is shown, as it goes on.
    const clocks = [...stderr.matchAll(/([0-9.]+) A-V:/g)].map(([, clock]) => Number(clock));
    assert.ok(clocks.length > 10 && (clocks.at(-1) ?? 0) - (clocks[0] ?? 0) >= 3, stderr.slice(-600));
  });

  test('the page plays it, a few seconds behind', { timeout: 90_000 }, async (t) => {
    const viewer = await world.chromium.person('Viewer');
    await viewer.page.goto(`${world.server.url}/r/${ROOM}?watch=hls`);
    await viewer.sees(hook('watch-delay'), { seconds: 40 });
    const state = () =>
      viewer.page.evaluate(() => {
        const video = /** @type {HTMLVideoElement} */ (document.querySelector('video'));
        const delay = document.querySelector('[data-testid="watch-delay"]')?.textContent ?? '';
        const { totalVideoFrames, droppedVideoFrames } = video.getVideoPlaybackQuality();
        const { currentTime, videoWidth } = video;
        return {
          currentTime,
          videoWidth,
          totalVideoFrames,
          droppedVideoFrames,
          delayS: Number.parseFloat(delay),
        };
      }, undefined);
    const first = await state();
    const last = await until(
      'it plays for ten seconds',
      async () => {
        const now = await state();
        return now.currentTime > first.currentTime + 10 && now;
      },
      { seconds: 40, show: state },
    );
    t.diagnostic(JSON.stringify(last));
    assert.ok(last.totalVideoFrames > first.totalVideoFrames + 75, 'pictures are decoded');
    assert.ok(last.delayS > 0 && last.delayS < DELAY_MAX_S, `${last.delayS} s behind`);
    await viewer.page.close();
  });

  test('a process that is killed costs a jump, and not the stream', { timeout: 120_000 }, async (t) => {
    let jumps = 0;
    for (const what of ['stream', 'mix']) {
      const began = Date.now();
      process.kill(await child(world.server.pid, what), 'SIGKILL');
      jumps += 1;
      for (const url of await playlists()) {
        await until(
          `${url} goes on after a jump`,
          async () => ((await text(url)).body.match(/#EXT-X-DISCONTINUITY\n/g)?.length ?? 0) >= jumps,
          { seconds: 30, show: () => world.server.log(20) },
        );
      }
      t.diagnostic(`${what}: ${Date.now() - began} ms`);
    }
  });

  test('it is pushed to a server, which goes away and comes back', { timeout: 120_000 }, async (t) => {
    const url = `rtmp://127.0.0.1:${rtmp.port}/live/${KEY}`;
    const made = (await world.server.call('POST', `/rooms/${ROOM}/restreams`, { body: { url } })).body;
    const look = async () => (await world.server.call('GET', `/rooms/${ROOM}/restreams`)).body[0];
    const becomes = (/** @type {string} */ state) =>
      until(`the push is ${state}`, async () => (await look()).state === state, { seconds: 30, show: look });
    await becomes('live');
    const streams = await rtmp.probe(KEY);
    t.diagnostic(JSON.stringify(streams));
    const codecs = streams.map((/** @type {any} */ stream) => stream.codec_name);
    assert.deepEqual(codecs.sort(), ['aac', 'h264']);
    await rtmp.end();
    await becomes('retrying');
    await rtmp.run();
    await becomes('live');
    assert.equal((await rtmp.probe(KEY)).length, 2);
    const told = await look();
    assert.ok(told.sent_bytes > 0 && told.retries >= 1 && told.reason, JSON.stringify(told));
    assert.ok(!JSON.stringify([made, told]).includes(KEY) && !world.server.log(2000).includes(KEY));
    await world.server.call('DELETE', `/rooms/${ROOM}/restreams/${made.id}`);
    assert.deepEqual((await world.server.call('GET', `/rooms/${ROOM}/restreams`)).body, []);
  });

  test('it is pushed over TLS, to whom its certificate names alone', { timeout: 90_000 }, async () => {
    const push = async (/** @type {string} */ host) => {
      const body = { url: `rtmps://${host}:${rtmp.tlsPort}/live/${KEY}` };
      const { id } = (await world.server.call('POST', `/rooms/${ROOM}/restreams`, { body })).body;
      const look = async () => {
        const all = (await world.server.call('GET', `/rooms/${ROOM}/restreams`)).body;
        return all.find((/** @type {any} */ one) => one.id === id);
      };
      return { id, look };
    };
    const trusted = await push('localhost');
    await until('the push over TLS is live', async () => (await trusted.look()).state === 'live', {
      seconds: 30,
      show: trusted.look,
    });
    const codecs = (await rtmp.probe(KEY)).map((/** @type {any} */ stream) => stream.codec_name);
    assert.deepEqual(codecs.sort(), ['aac', 'h264']);
    assert.match((await trusted.look()).url, /^rtmps:/);
    await world.server.call('DELETE', `/rooms/${ROOM}/restreams/${trusted.id}`);
    // The certificate is for a name, and not for this address.
    const other = await push('127.0.0.1');
    const told = await until(
      'the push elsewhere fails',
      async () => {
        const now = await other.look();
        return now.state === 'retrying' && now;
      },
      { seconds: 30, show: other.look },
    );
    assert.match(told.reason, /TLS|certificate/i);
    await world.server.call('DELETE', `/rooms/${ROOM}/restreams/${other.id}`);
  });

  test('players get to its end', { timeout: 30_000 }, async () => {
    const [url] = await playlists();
    await ada.press('toggle-hls');
    await until('the playlist has an end', async () => (await text(url)).body.endsWith('#EXT-X-ENDLIST\n'));
    assert.equal((await world.server.call('GET', `/rooms/${ROOM}`)).body.hls, false);
    assert.equal((await world.server.call('GET', `/rooms/${ROOM}/hls`)).body.state, 'ended');
  });

  test('a page that came to its end, wherever in a part, goes on with the next', {
    timeout: 180_000,
  }, async (t) => {
    const viewer = await world.chromium.person('Again');
    for (const [round, share] of END_AT.entries()) {
      await ada.press('toggle-hls');
      if (round === 0) await viewer.page.goto(`${world.server.url}/r/${ROOM}?watch=hls`);
      await viewer.sees(hook('watch-delay'), { seconds: START_S });
      await viewer.page.evaluate(
        async ({ lasts, at }) => {
          const video = /** @type {HTMLVideoElement} */ (document.querySelector('video'));
          const from = video.currentTime;
          while (video.currentTime < from + lasts || Math.abs((video.currentTime % lasts) - at) > lasts / 8)
            await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
        },
        { lasts: PART_MAX_S, at: share * PART_MAX_S },
      );
      const ended = Date.now();
      await ada.press('toggle-hls');
      await viewer.sees(hook('watch-ended'), { seconds: 30 });
      t.diagnostic(`ended at ${share} of a part: seen after ${Date.now() - ended} ms`);
    }
    await viewer.page.close();
  });
});

/**
 * The process of a server that was started by this subcommand.
 *
 * @param {number} parent
 * @param {string} subcommand
 */
async function child(parent, subcommand) {
  const { stdout } = await promisify(execFile)('ps', ['-o', 'pid=,args=', '--ppid', String(parent)]);
  const words = stdout.split('\n').map((line) => line.trim().split(/\s+/));
  const found = words.find(([, , which]) => which === subcommand);
  assert.ok(found, stdout);
  return Number(found[0]);
}

/**
 * Durations as RFC 8216bis §4.4.3.7 and §4.4.4.1 have them. Where the mixer leaves out pictures after a key
 * frame a part may be shorter.
 *
 * @param {any} playlist
 */
function checkDurations({ segments, targetDuration }) {
  for (const segment of segments) {
    if (segment.duration) assert.ok(Math.round(segment.duration) <= targetDuration);
    const parts = segment.parts.filter((/** @type {any} */ part) => !part.hint);
    for (const part of parts) assert.ok(part.duration <= PART_MAX_S + 1e-5, JSON.stringify(part));
    if (parts.length > 0) assert.ok(parts[0].independent, 'a segment begins with a key frame');
    if (segment.duration && parts.length > 0) {
      const sum = parts.reduce(
        (/** @type {number} */ all, /** @type {any} */ part) => all + part.duration,
        0,
      );
      assert.ok(Math.abs(sum - segment.duration) < 0.001, `${sum} ${segment.duration}`);
    }
  }
}

/**
 * Where a playlist is: what comes next.
 *
 * @param {string} body
 */
function edge(body) {
  const hint = /PRELOAD-HINT:TYPE=PART,URI="([^"]+)"/.exec(body)?.[1] ?? '';
  const [, number = '', part = ''] = /-([0-9]+)-([0-9]+)\.m4s$/.exec(hint) ?? [];
  const count = Number(number) * 1_000 + Number(part);
  return { hint, number: Number(number), part: Number(part), count };
}
