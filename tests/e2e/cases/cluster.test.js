/**
 * A node that is killed under people's calls: the page finds the room at another node by itself, with what was
 * written meanwhile. And viewers who are served by another node than their room's.
 *
 * @import { Browser } from '../harness/browsers.js'
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { Cluster } from '../harness/cluster.js';
import { startPageServer } from '../harness/page-server.js';
import { hook } from '../harness/person.js';
import { until } from '../harness/until.js';
import { hangUp, plays, publish, view } from '../harness/whip.js';

describe('a cluster of two nodes', () => {
  /** @type {Cluster} */
  let cluster;
  /** @type {Browser} */
  let chromium;

  before(async () => {
    [cluster, chromium] = await Promise.all([Cluster.start(2), startChromium()]);
  });

  after(async () => {
    await chromium?.close();
    await cluster?.stop();
  });

  test('a viewer of another node sees and hears the room without going there', {
    timeout: 120_000,
  }, async (t) => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    const site = await startPageServer();
    t.after(() => site.close());
    const room = await cluster.roomOn(first);
    const [sender, watcher] = await Promise.all([chromium.person('sender'), chromium.person('watcher')]);
    await Promise.all([sender, watcher].map((person) => person.page.goto(site.url)));
    const published = await publish(sender, { endpoint: `${first.url}/v1/rooms/${room}/whip`, codec: 'vp8' });
    assert.equal(published.status, 201, published.body);
    const viewed = await view(watcher, `${second.url}/v1/rooms/${room}/whep`);
    assert.equal(viewed.status, 201, viewed.body);
    assert.equal(new URL(viewed.location ?? '').origin, second.url);
    await plays(watcher);
    const viewers = async () => (await first.call('GET', `/rooms/${room}`)).body.viewers;
    assert.equal(await viewers(), 1);
    assert.equal(await hangUp(watcher), 200);
    await until('the home knows that it left', async () => (await viewers()) === 0);
    await Promise.all([sender.close(), watcher.close()]);
  });

  test('people find each other again when the node of their room is killed', {
    timeout: 180_000,
  }, async (t) => {
    const [first, second] = cluster.nodes;
    assert.ok(first && second);
    // Ada's page is of the node that dies, Ben's of the other.
    const room = await cluster.roomOn(first);
    const [ada, ben] = await Promise.all([chromium.person('Ada'), chromium.person('Ben')]);
    await ada.join(first, room);
    await ben.join(second, room);
    await ada.watches('Ben');
    await ben.watches('Ada');
    await ada.says('before');
    await ben.reads(['before']);
    await first.crash();
    const lostAt = Date.now();
    await ada.says('is anybody there?');
    const back = async (/** @type {Person} */ person) => {
      await person.sees(hook('reconnecting'), { seconds: 20 });
      await person.sees(hook('reconnecting'), { gone: true, seconds: 20 });
    };
    await Promise.all([back(ada), back(ben)]);
    const tookMs = Date.now() - lostAt;
    assert.ok(tookMs < 15_000, `back after ${tookMs} ms`);
    t.diagnostic(`browsers back ${tookMs} ms after kill -9, with leases of 2 s`);
    await ada.watches('Ben');
    await ben.watches('Ada');
    await ben.reads(['before', 'is anybody there?']);
    const { body } = await second.call('GET', `/rooms/${room}/participants`);
    assert.deepEqual(body.map((/** @type {any} */ one) => one.identity).sort(), ['Ada', 'Ben']);
    await Promise.all([ada.close(), ben.close()]);
  });
});
