/**
 * Lodgers with real browsers: people whose page is of another node than their room's, where each is connected
 * to its own. Their frames are encrypted end to end, and their network goes away and comes back.
 *
 * @import { Browser } from '../harness/browsers.js'
 * @import { Person } from '../harness/person.js'
 * @import { Server } from '../harness/server.js'
 * @import { TestContext } from 'node:test'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { Cluster } from '../harness/cluster.js';
import { hook } from '../harness/person.js';
import { leadThrough, startRelay } from '../harness/relay.js';
import { sealFrames } from '../harness/sealed.js';
import { freePort } from '../harness/server.js';
import { until } from '../harness/until.js';

/** Frames that must come before it counts as a stream of them. */
const FRAMES_MIN = 30;

describe('people who lodge at the second of two nodes', () => {
  /** @type {Cluster} */
  let cluster;
  /** @type {Browser} */
  let chromium;
  /** Before each node's media. @type {Awaited<ReturnType<typeof startRelay>>[]} */
  let relays;

  before(async () => {
    const ports = await Promise.all([freePort(), freePort()]);
    relays = await Promise.all(ports.map((port) => startRelay(port)));
    const settings = (/** @type {number} */ number) => ({ MEDIA__UDP_PORT: String(ports[number - 1]) });
    [cluster, chromium] = await Promise.all([Cluster.start(2, settings), startChromium()]);
  });

  after(async () => {
    for (const relay of relays ?? []) relay.close();
    await chromium?.close();
    await cluster?.stop();
  });

  /** @param {Person} person */
  const page = (person) => /** @type {any} */ (person.page).playwright;

  /** How many are connected at a node whose room is another's. @param {Server} node */
  async function lodgersAt(node) {
    const metrics = await (await fetch(`${node.url}/metrics`)).text();
    return Number(/^antiphon_relay_lodgers ([0-9]+)$/m.exec(metrics)?.[1]);
  }

  /** @param {Person} person @returns {Promise<import('../harness/sealed.js').Sealed>} */
  const sealed = (person) =>
    person.page.evaluate(() => ({ .../** @type {any} */ (window).sealed }), undefined);

  test('see each other where all is encrypted end to end, and nobody else does', {
    timeout: 120_000,
  }, async (t) => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    const room = await cluster.roomOn(first, { e2ee: true });
    const [ada, ben, eve] = await Promise.all(['Ada', 'Ben', 'Eve'].map((name) => chromium.person(name)));
    assert.ok(ada && ben && eve);
    await page(ada).addInitScript(sealFrames, 'known to two');
    await page(ben).addInitScript(sealFrames, 'known to two');
    await page(eve).addInitScript(sealFrames, 'guessed');
    await ada.join(first, room);
    await ben.join(second, room);
    await Promise.all([ada.watches('Ben'), ben.watches('Ada')]);
    await Promise.all([ada.hears(1), ben.hears(1)]);
    assert.equal(await lodgersAt(second), 1, 'Ben is connected where he came');
    for (const person of [ada, ben]) {
      const enough = async () => {
        const counts = await sealed(person);
        return counts.sealed >= FRAMES_MIN && counts.opened >= FRAMES_MIN ? counts : undefined;
      };
      const counts = await until(`${person.name} seals and opens frames`, enough, {
        show: () => sealed(person),
      });
      assert.equal(counts.refused, 0, 'no frame was changed on its way');
    }
    // Whoever has another key, as the nodes have none, is sent the same frames and can open none of them.
    await eve.join(second, room);
    const sent = async () => (await sealed(eve)).refused >= FRAMES_MIN;
    await until('Eve is sent frames', sent, { show: () => sealed(eve) });
    assert.equal((await sealed(eve)).opened, 0);
    assert.ok((await eve.inbound()).every((stream) => stream.kind !== 'video' || stream.frames === 0));
    t.diagnostic(`frames: ${JSON.stringify(await Promise.all([ada, ben, eve].map(sealed)))}`);

    const mixed = await first.call('PATCH', `/rooms/${room}`, { body: { mode: 'mcu' }, allow: [409] });
    assert.deepEqual([mixed.status, mixed.body.code], [409, 'end_to_end_encrypted']);
    await Promise.all([ada, ben, eve].map((person) => person.close()));
  });

  /** Ben's network goes away, whichever of the two lodges. @param {TestContext} t @param {boolean} benLodges */
  async function comesBack(t, benLodges) {
    const [first, second] = cluster.nodes;
    const relay = relays[benLodges ? 1 : 0];
    assert.ok(first && second && relay);
    const [adas, bens] = benLodges ? [first, second] : [second, first];
    const room = await cluster.roomOn(first);
    const [ada, ben] = await Promise.all([chromium.person('Ada'), chromium.person('Ben')]);
    await page(ben).addInitScript(leadThrough, relay.port);
    /** @type {string[]} */
    const changes = [];
    page(ben).on('request', (/** @type {any} */ request) => {
      if (request.method() === 'PATCH') changes.push(new URL(request.url()).origin);
    });
    await ada.join(adas, room);
    await ben.join(bens, room);
    await Promise.all([ada.watches('Ben'), ben.watches('Ada')]);
    await ada.says('before');
    await ben.reads(['before']);
    const tile = `${hook('tile')}[data-participant="Ben"]`;
    await ada.page.evaluate((selector) => {
      const seen = { gone: 0 };
      const look = () => {
        if (document.querySelector(selector) === null) seen.gone += 1;
      };
      new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
      Object.assign(window, { benSeen: seen });
    }, tile);
    const connections = () =>
      ben.page.evaluate(() => /** @type {any} */ (window).probe.connections.length, undefined);
    const connected = async () => {
      const { body } = await first.call('GET', `/rooms/${room}/participants`);
      return body.find((/** @type {any} */ one) => one.identity === 'Ben')?.connected;
    };
    const before = await connections();

    relay.cut();
    await ben.sees(hook('reconnecting'), { what: 'the page says that it is reconnecting' });
    await ben.says('I was away');
    await ada.says('are you there?');
    await until('the home knows that Ben is lost', async () => (await connected()) === false);
    relay.mend();
    const mendedAt = Date.now();
    await ben.sees(hook('reconnecting'), { gone: true, seconds: 15 });
    await Promise.all([ada.watches('Ben', { seconds: 20 }), ben.watches('Ada', { seconds: 20 })]);
    t.diagnostic(`pictures both ways ${Date.now() - mendedAt} ms after the network was back`);
    await Promise.all([ada.hears(1), ben.hears(1)]);
    for (const person of [ada, ben]) await person.reads(['before', 'are you there?', 'I was away']);
    assert.equal(await connected(), true);
    assert.equal(await connections(), before, 'on the same connection');
    assert.ok(changes.includes(bens.url), `restarted at its own node: ${changes}`);
    assert.equal(await lodgersAt(second), 1, 'where it was');
    const gone = await ada.page.evaluate(() => /** @type {any} */ (window).benSeen.gone, undefined);
    assert.equal(gone, 0, 'Ada sees Ben all the time');
    await Promise.all([ada.close(), ben.close()]);
  }

  test('come back by an ICE restart, where they were', { timeout: 120_000 }, (t) => comesBack(t, true));
  test('see who comes back at the home', { timeout: 120_000 }, (t) => comesBack(t, false));
});
