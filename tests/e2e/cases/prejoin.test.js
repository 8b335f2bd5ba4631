/**
 * The page before the room: a room that is not there yet, and an owner who comes with a token.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { hook } from '../harness/person.js';
import { Server } from '../harness/server.js';

describe('before the room', () => {
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
   * Opens a room's link, types a name and joins.
   *
   * @param {string} name
   * @param {string} link
   */
  async function enters(name, link) {
    const person = await chromium.person(name);
    await person.page.goto(`${server.url}${link}`);
    await person.sees(hook('display-name'));
    await person.page.type(hook('display-name'), name);
    await person.press('join');
    await person.inRoom();
    assert.deepEqual(person.page.complaints(), [], 'the page has nothing to complain of');
    return person;
  }

  test('the first one in makes the room, without a complaint', { timeout: 60_000 }, async () => {
    const { status } = await server.call('GET', '/rooms/not-yet/participants', { allow: [404] });
    assert.equal(status, 404);
    const ada = await enters('Ada', '/r/not-yet');
    await ada.close();
  });

  test('an owner is shown by the name that it typed', { timeout: 60_000 }, async () => {
    const { body: room } = await server.call('POST', '/rooms', { body: { name: 'owned' } });
    const olga = await enters('Olga', `/r/owned#token=${room.owner_token}`);
    const { body } = await server.call('GET', '/rooms/owned/participants');
    assert.equal(body.length, 1);
    assert.equal(body[0].name, 'Olga');
    assert.match(body[0].identity, /^owner-/);
    assert.equal(body[0].grant.admin, true);
    await olga.close();
  });
});
