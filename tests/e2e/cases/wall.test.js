/**
 * A wall of sixteen tiles in the real page: all play, and the page stays quick to answer.
 *
 * @import { Browser } from '../harness/browsers.js'
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startChromium } from '../harness/browsers.js';
import { startPageServer } from '../harness/page-server.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

const TILES = 16;
/** Frames a second that a tile shows at least; the cameras send twice as many. */
const FPS_MIN = 5;
const MEASURE_S = 3;
/** Some hundreds of reports of 25 lines. */
const REPORTED_MS = 6_000;

/**
 * Publishes a small moving picture by WHIP, as so many people; runs in the page.
 *
 * @param {{ endpoint: string, people: number, fps: number }} options
 */
async function publishMany({ endpoint, people, fps }) {
  const canvas = document.createElement('canvas');
  Object.assign(canvas, { width: 320, height: 180 });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
  let step = 0;
  setInterval(() => {
    step += 1;
    context.fillStyle = `hsl(${step % 360} 60% 45%)`;
    context.fillRect(0, 0, 320, 180);
    context.fillStyle = 'white';
    context.fillRect((step * 5) % 300, 60, 20, 60);
  }, 1000 / fps);
  const [track] = canvas.captureStream(fps).getVideoTracks();
  if (track === undefined) throw new Error('a canvas has one video track');
  for (let number = 1; number <= people; number += 1) {
    const connection = new RTCPeerConnection();
    connection.addTransceiver(track, { direction: 'sendonly', sendEncodings: [{ maxBitrate: 100_000 }] });
    await connection.setLocalDescription();
    const answer = await fetch(`${endpoint}?identity=camera-${number}`, {
      method: 'POST',
      headers: { 'content-type': 'application/sdp' },
      body: connection.localDescription?.sdp,
    });
    if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
    await connection.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  }
}

/** How long the page takes to come back to a task that is due, at worst; runs in the page. */
async function slowestTask() {
  let slowest = 0;
  for (let round = 0; round < 20; round += 1) {
    const before = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 0));
    slowest = Math.max(slowest, performance.now() - before);
  }
  return slowest;
}

/**
 * Watches a room by WHEP with lines as they come; runs in the page.
 *
 * @param {{ endpoint: string, pictures: number }} options
 */
async function viewAll({ endpoint, pictures }) {
  const connection = new RTCPeerConnection();
  for (let index = 0; index < pictures; index += 1) {
    connection.addTransceiver('video', { direction: 'recvonly' });
  }
  await connection.setLocalDescription();
  const body = connection.localDescription?.sdp ?? '';
  const headers = { 'content-type': 'application/sdp' };
  const answer = await fetch(endpoint, { method: 'POST', headers, body });
  const sdp = await answer.text();
  if (answer.ok) await connection.setRemoteDescription({ type: 'answer', sdp });
  const taken = connection
    .getTransceivers()
    .filter(({ currentDirection }) => currentDirection === 'recvonly');
  connection.close();
  return { bytes: body.length, status: answer.status, answered: taken.length };
}

describe('a wall of sixteen', () => {
  /** @type {Server} */
  let server;
  /** @type {{ url: string, close: () => Promise<void> }} */
  let site;
  /** @type {Browser} */
  let chromium;

  before(async () => {
    [server, site, chromium] = await Promise.all([Server.start(), startPageServer(), startChromium()]);
  });

  after(async () => {
    await chromium?.close();
    await site?.close();
    await server?.stop();
  });

  test('plays every tile, and the page answers', { timeout: 150_000 }, async () => {
    const cameras = await chromium.person('cameras');
    await cameras.page.goto(site.url);
    const endpoint = `${server.url}/v1/rooms/wall/whip`;
    await cameras.page.evaluate(publishMany, { endpoint, people: TILES, fps: 10 });
    const viewer = await chromium.person('viewer');
    await viewer.join(server, 'wall');

    const names = Array.from({ length: TILES }, (_, at) => `camera-${at + 1}`);
    const frames = async () =>
      await Promise.all(names.map(async (name) => (await viewer.video(name))?.frames ?? 0));
    /** @type {number[]} */
    let rates = [];
    await until(
      `every tile plays at ${FPS_MIN} frames a second`,
      async () => {
        const [before, start] = [await frames(), performance.now()];
        await delay(MEASURE_S * 1000);
        const [now, seconds] = [await frames(), (performance.now() - start) / 1000];
        rates = now.map((count, at) => Math.round((10 * (count - (before[at] ?? 0))) / seconds) / 10);
        return rates.every((rate) => rate >= FPS_MIN);
      },
      { seconds: 60, show: () => rates },
    );
    const slowestMs = await viewer.page.evaluate(slowestTask, undefined);
    assert.ok(slowestMs < 500, `a task waited ${slowestMs} ms`);
  });

  test('a screen for 25 tiles offers as many slots, and is let in', { timeout: 60_000 }, async () => {
    const viewer = await chromium.person('wide', { viewport: { width: 2560, height: 1440 } });
    /** @type {string[]} */
    const offers = [];
    const { playwright } = /** @type {{ playwright: import('playwright-core').Page }} */ (
      /** @type {unknown} */ (viewer.page)
    );
    playwright.on('request', (request) => {
      const isJoin = request.method() === 'POST' && request.url().includes('/participants');
      if (isJoin) offers.push(request.postData() ?? '');
    });
    await viewer.join(server, 'wall');
    await viewer.watches('camera-1');
    const [offer = ''] = offers;
    const sections = offer.split('\nm=').filter((section) => section.startsWith('video'));
    assert.equal(sections.filter((section) => section.includes('a=recvonly')).length, 25);
    assert.ok(offer.length < 64 * 1024, `an offer of ${offer.length} bytes`);
    // Each line reports for itself: what those say must not drown what the congestion control says.
    await delay(REPORTED_MS);
    const estimate = async () => {
      const { body } = await server.call('GET', '/rooms/wall/stats');
      return body.participants.find((/** @type {any} */ one) => one.identity === 'wide')?.estimate_bps ?? 0;
    };
    await until('the estimate is above a megabit', async () => (await estimate()) >= 1_000_000, {
      seconds: 20,
      show: estimate,
    });
    await viewer.close();
  });

  test('so is a page that offers 25 pictures in all codecs of its browser', { timeout: 60_000 }, async () => {
    const page = await chromium.person('plain');
    await page.page.goto(site.url);
    const endpoint = `${server.url}/v1/rooms/wall/whep`;
    const { bytes, status, answered } = await page.page.evaluate(viewAll, { endpoint, pictures: 25 });
    assert.ok(bytes > 100_000, `an offer of ${bytes} bytes is no test of a long one`);
    assert.deepEqual({ status, answered }, { status: 201, answered: 25 });
    await page.close();
  });
});
