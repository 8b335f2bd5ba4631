/**
 * A connection that is lost and comes back as the same participant: nobody sees it leave, and nothing that
 * was written meanwhile is missing.
 *
 * @import { Person } from '../harness/person.js'
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { hook } from '../harness/person.js';
import { leadThrough, startRelay } from '../harness/relay.js';
import { freePort, Server } from '../harness/server.js';
import { until } from '../harness/until.js';

describe('a participant whose network goes away', () => {
  /** @type {Server} */
  let server;
  /** @type {Browser} */
  let chromium;
  /** @type {Awaited<ReturnType<typeof startRelay>>} */
  let relay;
  /** @type {Person} */
  let ada;
  /** @type {Person} */
  let ben;

  before(async () => {
    const udp = await freePort();
    const settings = { MEDIA__UDP_PORT: String(udp), MEDIA__SHARDS: '1' };
    relay = await startRelay(udp);
    [server, chromium] = await Promise.all([Server.start(settings), startChromium()]);
  });

  after(async () => {
    relay?.close();
    await chromium?.close();
    await server?.stop();
  });

  beforeEach(async () => {
    ada = await chromium.person('Ada');
    ben = await chromium.person('Ben');
    await page(ada).addInitScript(leadThrough, relay.port);
  });

  afterEach(async () => {
    relay.mend();
    await Promise.all([ada.close(), ben.close()]);
  });

  /** @param {Person} person */
  const page = (person) => /** @type {any} */ (person.page).playwright;
  const tile = `${hook('tile')}[data-participant="Ada"]`;

  /** How many connections Ada's page has made. */
  const connections = () =>
    ada.page.evaluate(() => /** @type {any} */ (window).probe.connections.length, undefined);

  /** @param {string} room */
  async function meet(room) {
    await ada.join(server, room);
    await ben.join(server, room);
    await ada.watches('Ben');
    await ben.watches('Ada');
    await ada.says('before');
    await ben.reads(['before']);
    // Counts the moments at which Ben sees no tile of Ada's.
    await ben.page.evaluate((selector) => {
      const seen = { gone: 0 };
      const look = () => {
        if (document.querySelector(selector) === null) seen.gone += 1;
      };
      new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
      Object.assign(window, { adaSeen: seen });
    }, tile);
  }

  /** Takes the network away until the page says so. */
  async function lose() {
    relay.cut();
    await ada.sees(hook('reconnecting'), { what: 'the page says that it is reconnecting' });
  }

  /** A message written on each side meanwhile. */
  async function talk() {
    await ben.says('are you there?');
    await ben.reads(['before', 'are you there?']);
    await ada.says('I was away');
  }

  /**
   * @param {string} room
   * @param {string[]} told
   */
  async function isBack(room, told) {
    relay.mend();
    await ada.sees(hook('reconnecting'), { gone: true, seconds: 15 });
    await ada.watches('Ben', { seconds: 20 });
    await ben.watches('Ada', { seconds: 20 });
    await ada.reads(told);
    await ben.reads(told);
    const { body } = await server.call('GET', `/rooms/${room}/participants`);
    assert.deepEqual(body.map((/** @type {any} */ each) => each.identity).sort(), ['Ada', 'Ben']);
    const gone = await ben.page.evaluate(() => /** @type {any} */ (window).adaSeen.gone, undefined);
    assert.equal(gone, 0, 'Ben sees Ada all the time');
  }

  test('comes back by an ICE restart', { timeout: 120_000 }, async () => {
    await meet('restarted');
    const before = await connections();
    await lose();
    await talk();
    await isBack('restarted', ['before', 'are you there?', 'I was away']);
    assert.equal(await connections(), before, 'on the same connection');
  });

  test('comes back on a new connection where ICE cannot be restarted', { timeout: 120_000 }, async () => {
    await meet('resumed');
    const before = await connections();
    await page(ada).route('**/sessions/*', (/** @type {any} */ route) =>
      route.request().method() === 'PATCH' ? route.abort() : route.continue(),
    );
    await lose();
    await talk();
    await isBack('resumed', ['before', 'are you there?', 'I was away']);
    assert.ok((await connections()) > before, 'on a new connection');
  });

  test('is seen as lost by the others meanwhile', { timeout: 120_000 }, async () => {
    await meet('lost');
    const isConnected = async () => {
      const { body } = await server.call('GET', '/rooms/lost/participants');
      return body.find((/** @type {any} */ each) => each.identity === 'Ada')?.connected;
    };
    assert.equal(await isConnected(), true);
    relay.cut();
    await until('Ada is lost', async () => (await isConnected()) === false, { show: isConnected });
    // Joins over HTTP get through, and do not make her any less lost.
    const before = await connections();
    await until('her page tries again', async () => (await connections()) > before, { seconds: 40 });
    assert.equal(await isConnected(), false);
    relay.mend();
    await until('Ada is back', isConnected);
    await ben.watches('Ada', { seconds: 20 });
  });
});
