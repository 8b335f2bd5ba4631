/**
 * Where the network or the server is not at its best: UDP is not let through, or the server stood still.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startChromium, startFirefox } from '../harness/browsers.js';
import { Server } from '../harness/server.js';

/** How long the server stands still: long enough for browsers to notice, shorter than ICE's patience. */
const PAUSE_MS = 5000;

describe('over ICE-TCP only', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;
  /** @type {Browser} */
  let firefox;

  before(async () => {
    [server, chromium, firefox] = await Promise.all([
      Server.start({ MEDIA__UDP: 'false' }),
      startChromium(),
      startFirefox(),
    ]);
  });

  after(async () => {
    await Promise.all([chromium?.close(), firefox?.close()]);
    await server?.stop();
  });

  test('Chromium and Firefox see and hear each other', { timeout: 120_000 }, async () => {
    const ada = await chromium.person('Ada');
    const finn = await firefox.person('Finn');
    await ada.join(server, 'tcp-only');
    await finn.join(server, 'tcp-only');
    await ada.watches('Finn', { seconds: 45 });
    await finn.watches('Ada', { seconds: 45 });
    await ada.hears(1);
    await finn.hears(1);
    for (const person of [ada, finn]) {
      const [transport] = await person.transports();
      assert.equal(transport.protocol, 'tcp', `${person.name}: ${JSON.stringify(transport)}`);
    }
  });
});

describe('a server that stood still for five seconds', () => {
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

  test('goes on with the same people, pictures and messages', { timeout: 120_000 }, async () => {
    const ada = await chromium.person('Ada');
    const ben = await chromium.person('Ben');
    await ada.join(server, 'paused');
    await ben.join(server, 'paused');
    await ada.watches('Ben');
    await ben.watches('Ada');
    await ada.says('before');
    await ben.reads(['before']);

    server.pause();
    await delay(PAUSE_MS);
    server.resume();

    await ada.watches('Ben', { seconds: 20 });
    await ben.watches('Ada', { seconds: 20 });
    await ben.says('after');
    for (const person of [ada, ben]) await person.reads(['before', 'after']);
    const { body } = await server.call('GET', '/rooms/paused/participants');
    assert.deepEqual(body.map((/** @type {any} */ each) => each.identity).sort(), ['Ada', 'Ben']);
  });
});
