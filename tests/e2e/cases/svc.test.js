/**
 * Scalable video (SVC): one stream of layers, of which each viewer gets what its wish needs and what its
 * browser can put together.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { startPageServer } from '../harness/page-server.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';
import { startViewer } from '../harness/viewer.js';
import { hangUp, publish } from '../harness/whip.js';

/** Chromium sends three spatial layers from 960 by 540 on. */
const CAMERA = { width: 1280, height: 720, fps: 10 };
const LINES = { L2: [360, 720], L3: [180, 360, 720] };
/** So little that every viewer's path carries it: what is tested is the choice of layers by the wish. */
const SENT_BPS_MAX = 900_000;
/** Longest time without a frame while a viewer goes from one layer to another. */
const GAP_MAX_MS = 1500;
/** Frames that make a rate worth comparing: three seconds. */
const FRAMES = 30;

describe('scalable video', () => {
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
    await Promise.all([chromium?.close(), site?.close()]);
    await server?.stop();
  });

  /**
   * A page that publishes one scalable stream by WHIP, and one that watches it.
   *
   * @param {{ codec: string, mode: string, described: boolean }} options
   */
  async function stage({ codec, mode, described }) {
    const room = `svc-${codec}-${mode}-${described ? 'described' : 'bare'}`;
    const sender = await chromium.person('sender', { camera: CAMERA });
    const person = await chromium.person('viewer');
    await Promise.all([sender.page.goto(site.url), person.page.goto(site.url)]);
    const endpoint = `${server.url}/v1/rooms/${room}/whip?identity=sender`;
    const scalability = { mode, bps: SENT_BPS_MAX };
    const published = await publish(sender, { endpoint, codec, scalability });
    assert.equal(published.status, 201, published.body);
    const viewer = await startViewer(person, server, room, { described });
    assert.equal(await viewer.described(), described);
    const show = async () => ({
      viewer: await viewer.look(),
      sender: await sender.outbound(),
      server: (await server.call('GET', `/rooms/${room}/stats`)).body,
    });

    /**
     * Waits until `FRAMES` frames of this height have come in a row; with the bits per second that they took.
     * The sender's own estimate may take a layer away while it is young: then the row begins anew.
     *
     * @param {number} height
     */
    async function gets(height) {
      /** @type {any} */
      let first;
      const last = await until(
        `the viewer goes on with ${height} lines`,
        async () => {
          const now = await viewer.look();
          if (now.height !== height) first = undefined;
          else first ??= now;
          return first !== undefined && now.frames >= first.frames + FRAMES ? now : undefined;
        },
        { seconds: 45, show },
      );
      const bps = Math.round((8000 * (last.bytes - first.bytes)) / (last.atMs - first.atMs));
      return { ...last, bps };
    }

    async function end() {
      await hangUp(sender);
      await Promise.all([sender.close(), person.close()]);
    }

    return { sender, viewer, gets, end };
  }

  for (const [codec, mode, described] of /** @type {[string, string, boolean][]} */ ([
    ['vp9', 'L3T3_KEY', true],
    ['vp9', 'L2T1', false],
    ['av1', 'L2T1', true],
    ['av1', 'L3T3', true],
  ])) {
    const told = described ? 'the dependency descriptor' : 'the payload descriptor';
    test(`${codec} ${mode} goes down and up with the wish, by ${told}`, { timeout: 150_000 }, async () => {
      const { sender, viewer, gets, end } = await stage({ codec, mode, described });
      const lines = mode.startsWith('L3') ? LINES.L3 : LINES.L2;

      await viewer.wish(720);
      const full = await gets(720);
      assert.equal(full.codec.toLowerCase(), `video/${codec}`);
      assert.ok(full.gapMaxMs < GAP_MAX_MS, `${full.gapMaxMs} ms without a frame while layers come`);
      const [sent] = (await sender.outbound()).filter((stream) => stream.kind === 'video');
      assert.equal(sent.scalability, mode);

      let above = full;
      for (const height of lines.slice(0, -1).reverse()) {
        await viewer.wish(height);
        const now = await gets(height);
        assert.ok(now.gapMaxMs < GAP_MAX_MS, `${now.gapMaxMs} ms without a frame on the way down`);
        assert.ok(now.bps < 0.8 * above.bps, `${height} lines take ${now.bps} bit/s of ${above.bps}`);
        above = now;
      }
      for (const height of lines.slice(1)) {
        await viewer.wish(height);
        const now = await gets(height);
        assert.ok(now.gapMaxMs < GAP_MAX_MS, `${now.gapMaxMs} ms without a frame on the way up`);
      }
      await end();
    });
  }

  test('a viewer without the dependency descriptor gets the lowest layer of AV1', {
    timeout: 90_000,
  }, async () => {
    const { viewer, gets, end } = await stage({ codec: 'av1', mode: 'L3T3', described: false });
    await viewer.wish(720);
    await gets(180);
    await end();
  });
});
