/**
 * A room whose viewers are more than its shard shall serve: they are seated on several, and see the same.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { until } from '../harness/until.js';
import { hangUp, plays, publish, view } from '../harness/whip.js';
import { setUp } from '../harness/world.js';

const ROOM = 'spread-out';
const VIEWERS_MAX = 12;

describe('a room on two shards', () => {
  // Full from the first viewer on: each goes to the shard that has least to do.
  const settings = { MEDIA__SHARDS: '2', MEDIA__SPREAD_AT: '0' };
  const world = setUp({ settings, firefox: true, site: true });

  async function viewers() {
    const { body } = await world.server.call('GET', `/rooms/${ROOM}/stats`);
    return body.participants.filter((/** @type {any} */ one) => one.role === 'viewer');
  }

  test('viewers of both browsers see the publisher, wherever they are seated', {
    timeout: 120_000,
  }, async () => {
    const { server, site, chromium, firefox } = world;
    const sender = await chromium.person('sender');
    await sender.page.goto(site.url);
    const endpoint = `${server.url}/v1/rooms/${ROOM}`;
    const rids = [
      { rid: 'q', scale: 4, bps: 150_000 },
      { rid: 'f', scale: 1, bps: 1_200_000 },
    ];
    const published = await publish(sender, {
      endpoint: `${endpoint}/whip?identity=studio`,
      rids,
      codec: 'vp8',
    });
    assert.equal(published.status, 201, published.body);

    // A shard's load decides, and the home's is that of the publisher, too: by and by both have viewers.
    const watching = [];
    const shards = new Set();
    for (let number = 1; number <= VIEWERS_MAX && (number <= 4 || shards.size < 2); number += 1) {
      const browser = number % 2 === 1 ? chromium : firefox;
      const person = await browser.person(`viewer-${number}`);
      await person.page.goto(site.url);
      const viewed = await view(person, `${endpoint}/whep?identity=viewer-${number}`);
      assert.equal(viewed.status, 201, viewed.body);
      await plays(person);
      watching.push(person);
      const seated = await viewers();
      assert.equal(seated.length, watching.length, JSON.stringify(seated));
      for (const one of seated) shards.add(one.shard);
    }
    assert.deepEqual([...shards].sort(), [0, 1]);
    const { body: room } = await world.server.call('GET', `/rooms/${ROOM}`);
    assert.equal(room.viewers, watching.length);

    // A session is ended on the shard that serves it.
    for (const person of watching) assert.equal(await hangUp(person), 200);
    await until('nobody watches any more', async () => (await viewers()).length === 0, { show: viewers });
    await Promise.all([sender, ...watching].map((person) => person.close()));
  });
});
