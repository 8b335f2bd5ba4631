/**
 * Rooms that do not let somebody in say so in words, on the page and in the API.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { hook } from '../harness/person.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

describe('a room that refuses', () => {
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

  /**
   * Opens a room's link and waits for these words instead of the room.
   *
   * @param {string} room
   * @param {RegExp} words
   */
  async function isRefused(room, words) {
    const person = await chromium.person('Late');
    await person.page.goto(`${server.url}/r/${room}?name=Late&join=1`);
    await until('the page says why', async () => words.test(await person.text()), {
      show: () => person.describe(),
    });
    await person.sees(hook('leave'), { gone: true });
    await person.close();
  }

  /**
   * What the API says to an offer for this room.
   *
   * @param {string} room
   */
  async function refusal(room) {
    const { default: offer } = await import('../harness/offer.js');
    const answer = await fetch(`${server.url}/v1/rooms/${room}/participants?identity=Later`, {
      method: 'POST',
      headers: { 'content-type': 'application/sdp' },
      body: offer,
    });
    assert.equal(answer.headers.get('content-type'), 'application/problem+json');
    const problem = await answer.json();
    assert.equal(problem.status, answer.status);
    return { status: answer.status, code: problem.code };
  }

  test('because it is locked', { timeout: 60_000 }, async () => {
    const { body: room } = await server.call('POST', '/rooms', { body: { name: 'locked-room' } });
    await server.call('PATCH', '/rooms/locked-room', { body: { locked: true }, token: room.owner_token });
    await isRefused('locked-room', /locked/i);
    assert.deepEqual(await refusal('locked-room'), { status: 423, code: 'room_locked' });
  });

  test('because it is full', { timeout: 60_000 }, async () => {
    const { body: room } = await server.call('POST', '/rooms', { body: { name: 'full-room' } });
    await server.call('PATCH', '/rooms/full-room', {
      body: { participants_max: 1 },
      token: room.owner_token,
    });
    const first = await chromium.person('First');
    await first.join(server, 'full-room');
    await isRefused('full-room', /full/i);
    assert.deepEqual(await refusal('full-room'), { status: 409, code: 'room_full' });
    await first.close();
  });

  test('because it is private', { timeout: 60_000 }, async () => {
    const { body: room } = await server.call('POST', '/rooms', { body: { name: 'private-room' } });
    await server.call('PATCH', '/rooms/private-room', {
      body: { access: 'private' },
      token: room.owner_token,
    });
    await isRefused('private-room', /private|invit/i);
    assert.deepEqual(await refusal('private-room'), { status: 403, code: 'room_private' });
  });

  test('and opens when it is unlocked', { timeout: 60_000 }, async () => {
    const { body: room } = await server.call('POST', '/rooms', { body: { name: 'reopened' } });
    await server.call('PATCH', '/rooms/reopened', { body: { locked: true }, token: room.owner_token });
    await isRefused('reopened', /locked/i);
    await server.call('PATCH', '/rooms/reopened', { body: { locked: false }, token: room.owner_token });
    const guest = await chromium.person('Guest');
    await guest.join(server, 'reopened');
    await guest.close();
  });
});
