/**
 * A viewer whose way from the server is narrow is given the mix by itself, is told why, may refuse it, and
 * has everyone's picture again once the way has been wide for a while: the rules of `core/mode.rs`, in a browser.
 *
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startChromium } from '../harness/browsers.js';
import { leadThrough, startRelay } from '../harness/relay.js';
import { freePort, Server } from '../harness/server.js';
import { until } from '../harness/until.js';

/** Who the tile of the mix is of. */
const MIXER = 'mixer';
/** Cameras whose pictures take so much together that a narrow way carries two of them, and the mix. */
const CAMERAS = 4;
const CAMERA_BPS = 300_000;
const NARROW_BPS = 650_000;
/** Half of the pictures in want for so long, and a way that is wide for so long (`core/mode.rs`). */
const STRAINED_MS = 6_000;
const EASY_MS = 20_000;
/** For the estimate to follow the way, and for the mixer to start. */
const FOLLOWS_S = 30;

/**
 * Publishes pictures that are hard to code by WHIP, as so many people; runs in the page.
 *
 * @param {{ endpoint: string, people: number, bps: number }} options
 */
async function publishNoise({ endpoint, people, bps }) {
  const canvas = document.createElement('canvas');
  Object.assign(canvas, { width: 320, height: 180 });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
  setInterval(() => {
    for (let spot = 0; spot < 300; spot += 1) {
      context.fillStyle = `hsl(${Math.random() * 360} 70% 50%)`;
      context.fillRect(Math.random() * 320, Math.random() * 180, 12, 12);
    }
  }, 100);
  const [track] = canvas.captureStream(10).getVideoTracks();
  if (track === undefined) throw new Error('a canvas has one video track');
  for (let number = 1; number <= people; number += 1) {
    const connection = new RTCPeerConnection();
    connection.addTransceiver(track, { direction: 'sendonly', sendEncodings: [{ maxBitrate: bps }] });
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

describe('a viewer whose way is narrow', () => {
  /** @type {Server} */
  let server;
  /** @type {Awaited<ReturnType<typeof startChromium>>} */
  let chromium;
  /** @type {Awaited<ReturnType<typeof startRelay>>} */
  let relay;
  /** @type {Person} */
  let eve;
  /** When the way changed last. */
  let changedAt = 0;

  before(async () => {
    const udp = await freePort();
    relay = await startRelay(udp);
    const settings = {
      MEDIA__UDP_PORT: String(udp),
      MEDIA__SHARDS: '1',
      MCU__FRAMES_PER_SECOND: '15',
      MCU__CORES_NEEDED: '0',
    };
    [server, chromium] = await Promise.all([Server.start(settings), startChromium()]);
  });

  after(async () => {
    relay?.close();
    await chromium?.close();
    await server?.stop();
  });

  const figures = async () => {
    const { body } = await server.call('GET', '/rooms/narrow/stats');
    return body.participants.find((/** @type {any} */ one) => one.identity === 'Eve');
  };
  /** @param {string} words @param {{ seconds: number }} options */
  const tells = (words, { seconds }) =>
    until(`Eve is told “${words}”`, async () => (await eve.text()).includes(words), {
      seconds,
      show: figures,
    });
  const hasMix = async () => String(await eve.tiles()) === MIXER;
  const hasAll = async () => (await eve.tiles()).length === CAMERAS + 1;

  test('has everyone’s picture while it is wide', { timeout: 120_000 }, async () => {
    const cameras = await chromium.person('cameras');
    await cameras.page.goto(server.url);
    const endpoint = `${server.url}/v1/rooms/narrow/whip`;
    await cameras.page.evaluate(publishNoise, { endpoint, people: CAMERAS, bps: CAMERA_BPS });
    eve = await chromium.person('Eve');
    await /** @type {any} */ (eve.page).playwright.addInitScript(leadThrough, relay.port);
    await eve.join(server, 'narrow');
    for (let number = 1; number <= CAMERAS; number += 1)
      await eve.watches(`camera-${number}`, { seconds: 60 });
    await eve.press('toggle-stats');
    await tells('Forwarded, as the room has it', { seconds: 10 });
  });

  test('is given the mix by itself, and told why', { timeout: 120_000 }, async (t) => {
    relay.narrow(NARROW_BPS);
    changedAt = Date.now();
    await tells('so you get them mixed into one', { seconds: FOLLOWS_S });
    const tookMs = Date.now() - changedAt;
    t.diagnostic(`the mix ${tookMs} ms after the way became narrow`);
    assert.ok(tookMs >= STRAINED_MS, `${tookMs} ms: a short want is none`);
    await until('the mix is the only tile', hasMix, { seconds: 10, show: () => eve.tiles() });
    await eve.watches(MIXER, { seconds: 20 });
    await tells('Mixed, as your downlink does not carry', { seconds: 10 });
  });

  test('may have the pictures all the same', { timeout: 120_000 }, async () => {
    await eve.press('mode-sfu');
    await until('all tiles are there', hasAll, { seconds: 15, show: () => eve.tiles() });
    await tells('Forwarded, as you have chosen', { seconds: 10 });
    // For longer than it took before.
    const watchedUntil = Date.now() + 2 * STRAINED_MS;
    while (Date.now() < watchedUntil) {
      assert.ok(!(await hasMix()), 'who chose stays with that');
      await delay(500);
    }
    await eve.press('mode-follow');
    await until('the mix is the only tile', hasMix, { seconds: FOLLOWS_S, show: () => eve.tiles() });
  });

  test('has them again once the way has been wide for a while', { timeout: 180_000 }, async (t) => {
    await eve.watches(MIXER, { seconds: 20 });
    relay.narrow(0);
    changedAt = Date.now();
    await tells('Forwarded, as the room has it', { seconds: 120 });
    const tookMs = Date.now() - changedAt;
    t.diagnostic(`everyone’s pictures ${tookMs} ms after the way became wide`);
    assert.ok(tookMs >= EASY_MS, `${tookMs} ms: it goes to and fro`);
    await until('all tiles are there', hasAll, { seconds: 10, show: () => eve.tiles() });
    for (let number = 1; number <= CAMERAS; number += 1)
      await eve.watches(`camera-${number}`, { seconds: 30 });
    assert.deepEqual(eve.page.complaints(), []);
  });
});
