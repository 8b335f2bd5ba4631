/**
 * Simulcast: a viewer gets the layer that its tile needs, and the picture does not freeze when that changes.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

const CAMERA = { width: 1280, height: 720, fps: 15 };
const LARGE = { width: 1600, height: 1000 };
const SMALL = { width: 360, height: 560 };

describe('simulcast layers', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;

  before(async () => {
    [server, chromium] = await Promise.all([Server.start(), startChromium()]);
  });

  after(async () => {
    await chromium?.close();
    await server?.stop();
  });

  test('follow the size of the tile, down and up again', { timeout: 180_000 }, async () => {
    const ada = await chromium.person('Ada', { camera: CAMERA, viewport: SMALL });
    const ben = await chromium.person('Ben', { camera: null, viewport: LARGE });
    await ada.join(server, 'layers');
    await ben.join(server, 'layers');

    const full = await ben.watches('Ada', { height: 720, seconds: 60 });
    const resize = async (/** @type {{ width: number, height: number }} */ size) => {
      await /** @type {any} */ (ben.page).playwright.setViewportSize(size);
    };

    await resize(SMALL);
    const low = await until(
      'Ben gets a lower layer in a small window',
      async () => {
        const now = await ben.video('Ada');
        return now !== null && now.height > 0 && now.height < 720 ? now : undefined;
      },
      { seconds: 30, show: () => ben.inbound() },
    );
    assert.equal(low.track, full.track, 'the same slot goes on');

    await resize(LARGE);
    const again = await ben.watches('Ada', { height: 720, seconds: 45 });
    assert.equal(again.track, full.track, 'the same slot goes on');
    assert.ok(again.frames > low.frames);
    assert.equal(again.freezes - full.freezes, 0, 'no freeze while layers switched');
  });

  test('that nobody takes are not sent', { timeout: 120_000 }, async () => {
    const eve = await chromium.person('Eve', { camera: CAMERA });
    const fay = await chromium.person('Fay', { camera: null, viewport: SMALL });
    await eve.join(server, 'layers-paused');
    await fay.join(server, 'layers-paused');
    await fay.watches('Eve');
    await until(
      'the layers above what Fay takes are paused at Eve',
      async () => {
        const layers = (await eve.outbound()).filter((stream) => stream.kind === 'video');
        return layers.length > 1 && layers.some((layer) => layer.active === false);
      },
      { seconds: 45, show: () => eve.outbound() },
    );
    await fay.watches('Eve');
  });
});
