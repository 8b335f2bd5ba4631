/**
 * A lobby: who comes waits, is let in or is not, and is told so in words.
 *
 * @import { Browser } from '../harness/browsers.js'
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startChromium } from '../harness/browsers.js';
import { hook } from '../harness/person.js';
import { Server } from '../harness/server.js';
import { until } from '../harness/until.js';

const ROOM = 'with-lobby';

describe('a room with a lobby', () => {
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

  /** @param {string} name */
  async function knocks(name) {
    const guest = await chromium.person(name);
    await guest.page.goto(`${server.url}/r/${ROOM}?name=${name}&join=1`);
    await guest.sees(hook('lobby'), { what: `${name} waits in the lobby` });
    assert.match(await guest.text(), /lobby of with-lobby[\s\S]*let you in/);
    await guest.sees(hook('leave'), { gone: true });
    return guest;
  }

  const inside = async () => {
    const { body } = await server.call('GET', `/rooms/${ROOM}/participants`);
    return body.map((/** @type {any} */ each) => each.identity).sort();
  };

  test('lets in whom the owner admits, and turns away whom it denies', { timeout: 120_000 }, async () => {
    const owner = await chromium.person('Owner');
    await owner.join(server, ROOM);
    await owner.press('toggle-people');
    await /** @type {any} */ (owner.page).playwright.getByLabel('Lobby').click();
    await until('the room has a lobby', async () => (await server.call('GET', `/rooms/${ROOM}`)).body.lobby);

    const grace = await knocks('Grace');
    assert.deepEqual(await inside(), ['Owner'], 'who waits is not in the room');
    await owner.press('admit');
    await grace.inRoom();
    await grace.watches('Owner');
    await owner.watches('Grace');
    await owner.sees(hook('admit'), { gone: true });

    const mallory = await knocks('Mallory');
    await owner.press('deny');
    await mallory.sees(hook('ended'), { what: 'Mallory is told' });
    assert.match(await mallory.text(), /let in/i);
    await owner.sees(hook('deny'), { gone: true });
    assert.deepEqual(await inside(), ['Grace', 'Owner']);

    const shy = await knocks('Shy');
    await owner.sees(hook('admit'), { what: 'the owner sees Shy knock' });
    await shy.close();
    await owner.sees(hook('admit'), { gone: true, what: 'who goes away no longer knocks' });
  });
});
