/**
 * Pages of somebody else's site publish by WHIP and watch by WHEP: no library, no data channel, another
 * origin.
 *
 * @import { Browser } from '../harness/browsers.js'
 * @import { Person } from '../harness/person.js'
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { until } from '../harness/until.js';
import { hangUp, plays, publish, view } from '../harness/whip.js';
import { setUp } from '../harness/world.js';

describe('WHIP in, WHEP out, from another origin', () => {
  const world = setUp({ firefox: true, site: true, settings: { MCU__CORES_NEEDED: '0' } });

  /**
   * @param {Browser} browser
   * @param {string} name
   */
  async function visitor(browser, name) {
    const person = await browser.person(name);
    await person.page.goto(world.site.url);
    return person;
  }

  for (const [codec, room] of [
    ['vp8', 'stage-vp8'],
    ['h264', 'stage-h264'],
    ['vp9', 'stage-vp9'],
    ['av1', 'stage-av1'],
  ]) {
    test(`${codec} from a WHIP page plays in a WHEP page`, { timeout: 90_000 }, async () => {
      const sender = await visitor(world.chromium, 'sender');
      const viewer = await visitor(world.chromium, 'viewer');
      const endpoint = `${world.server.url}/v1/rooms/${room}`;
      const published = await publish(sender, { endpoint: `${endpoint}/whip?identity=studio`, codec });
      assert.equal(published.status, 201, published.body);
      assert.ok(published.etag, 'the answer carries an ETag');
      const viewed = await view(viewer, `${endpoint}/whep?identity=viewer`);
      assert.equal(viewed.status, 201, viewed.body);
      const video = await plays(viewer);
      assert.equal(video.codec.toLowerCase(), `video/${codec}`);
      assert.ok(video.height >= 180, `${video.height} lines`);
      await viewerHears(viewer);

      assert.equal(await hangUp(sender), 200);
      assert.equal(await hangUp(viewer), 200);
      const { body } = await world.server.call('GET', `/rooms/${room}/participants`);
      assert.doesNotMatch(JSON.stringify(body), /studio/);
      await Promise.all([sender.close(), viewer.close()]);
    });
  }

  test('a WHEP page plays the mix of a mixed room, whatever its publishers send', {
    timeout: 120_000,
  }, async () => {
    const endpoint = `${world.server.url}/v1/rooms/mixed-stage`;
    const senders = [];
    for (const codec of ['h264', 'vp9']) {
      const sender = await visitor(world.chromium, codec);
      const answer = await publish(sender, { endpoint: `${endpoint}/whip?identity=${codec}`, codec });
      assert.equal(answer.status, 201, answer.body);
      senders.push(sender);
    }
    const { status } = await world.server.call('PATCH', '/rooms/mixed-stage', { body: { mode: 'mcu' } });
    assert.equal(status, 200);
    const viewer = await visitor(world.firefox, 'viewer');
    const answer = await view(viewer, `${endpoint}/whep?identity=viewer`);
    assert.equal(answer.status, 201, answer.body);
    await until(
      'the viewer gets the mix',
      async () => {
        const { body: stats } = await world.server.call('GET', '/rooms/mixed-stage/stats');
        const self = stats.participants.find((/** @type {any} */ each) => each.identity === 'viewer');
        const sources = self?.gets.map((/** @type {any} */ slot) => slot.source);
        return sources?.includes('mix') && sources.includes('mix-audio');
      },
      { seconds: 30 },
    );
    const video = await plays(viewer);
    assert.equal(video.codec.toLowerCase(), 'video/vp8');
    await viewerHears(viewer);
    for (const person of [...senders, viewer]) await person.close();
  });

  test('a WHEP page in Firefox follows one participant of several', { timeout: 90_000 }, async () => {
    const endpoint = `${world.server.url}/v1/rooms/two-stages`;
    const senders = [];
    for (const identity of ['left', 'right']) {
      const sender = await visitor(world.chromium, identity);
      const answer = await publish(sender, {
        endpoint: `${endpoint}/whip?identity=${identity}`,
        codec: 'vp8',
      });
      assert.equal(answer.status, 201, answer.body);
      senders.push(sender);
    }
    const viewer = await visitor(world.firefox, 'viewer');
    const answer = await view(viewer, `${endpoint}/whep?identity=viewer&participant=right`);
    assert.equal(answer.status, 201, answer.body);
    await plays(viewer);
    const { body: stats } = await world.server.call('GET', '/rooms/two-stages/stats');
    const gets = stats.participants.flatMap((/** @type {any} */ each) => each.gets);
    const bound = gets.filter((/** @type {any} */ slot) => slot.participant !== null);
    assert.ok(bound.length > 0, JSON.stringify(gets));
    assert.ok(
      bound.every((/** @type {any} */ slot) => slot.participant === 'right'),
      JSON.stringify(gets),
    );
    for (const person of [...senders, viewer]) await person.close();
  });

  test('a WHEP page with two video lines gets two participants', { timeout: 90_000 }, async () => {
    const endpoint = `${world.server.url}/v1/rooms/duet`;
    const people = [];
    for (const identity of ['one', 'two']) {
      const sender = await visitor(world.chromium, identity);
      await publish(sender, { endpoint: `${endpoint}/whip?identity=${identity}`, codec: 'vp8' });
      people.push(sender);
    }
    const viewer = await visitor(world.chromium, 'viewer');
    people.push(viewer);
    assert.equal((await view(viewer, `${endpoint}/whep?identity=viewer`, 2)).status, 201);
    await until(
      'both video lines decode',
      async () =>
        (await viewer.inbound()).filter((stream) => stream.kind === 'video' && stream.frames > 5).length ===
        2,
      { show: () => viewer.inbound() },
    );
    for (const person of people) await person.close();
  });

  test('an offer that is not SDP is refused with words', async () => {
    for (const call of ['whip', 'whep', 'participants']) {
      const answer = await fetch(`${world.server.url}/v1/rooms/refusals/${call}?identity=x`, {
        method: 'POST',
        headers: { 'content-type': 'application/sdp' },
        body: 'v=1\r\nnonsense',
      });
      assert.equal(answer.status, 422, call);
      assert.equal(answer.headers.get('content-type'), 'application/problem+json');
      const problem = await answer.json();
      assert.equal(problem.code, 'bad_offer');
      assert.ok(problem.detail.length > 10, JSON.stringify(problem));
    }
  });

  /** @param {Person} person */
  async function viewerHears(person) {
    await until(
      `${person.name} gets audio`,
      async () => (await person.audio()).some((stream) => stream.packets > 20 && stream.samples > 0),
      { show: () => person.audio() },
    );
  }
});
